"""The record engine's view of a key service: the reference of a data key, and the resolver.

The key service client implements `KeyResolver`; tests have their own. Any module of `spark` may import it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol


class KeyRef(NamedTuple):
    """An encrypted data key and the key that encrypted it: both, because two keys may wrap to the same text.

    A tuple, not a dataclass: one is made and looked up for every envelope.

    Attributes:
        key_encryption_key_id: which key of the key service wraps the data key, as in the envelope.
        encrypted_data_key: the wrapped data key, as in the envelope (base64 text).
    """

    key_encryption_key_id: str
    encrypted_data_key: str


class KeyResolver(Protocol):
    """Decrypts data keys; several threads may call it at once."""

    def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        """Return the data key of every ref; None where the key service answered that it cannot be decrypted (400).

        Raises:
            CdiError: DKS_UNAVAILABLE or DKS_FORBIDDEN; never for a single record.
        """
