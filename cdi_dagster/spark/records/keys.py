"""What the record engine needs of a key service, and no more: the name of a data key, and who resolves it.

The key service client implements `KeyResolver`; tests use a few lines of their own. Anything of `spark` may import it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol


class KeyRef(NamedTuple):
    """An encrypted data key together with the key that encrypted it: both, as the same text may be wrapped by two.

    A tuple and not a dataclass: one is made and looked up for every envelope.

    Attributes:
        key_encryption_key_id: which key of the key service wraps the data key, as in the envelope.
        encrypted_data_key: the wrapped data key, as in the envelope (base64 text).
    """

    key_encryption_key_id: str
    encrypted_data_key: str


class KeyResolver(Protocol):
    """Whoever can turn encrypted data keys into data keys; may be asked by several threads at once."""

    def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        """Return the data key of every ref; None where the key service answered that it cannot be decrypted (400).

        Raises:
            CdiError: DKS_UNAVAILABLE or DKS_FORBIDDEN; that is never a matter of one record.
        """
