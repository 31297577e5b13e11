"""From ciphertext to plaintext: data keys by block, one decryptor per key kept, lenient base64.

Internal to `records`. Plaintext and data keys stay in memory and out of every message.
"""

from binascii import a2b_base64
from collections.abc import Mapping, Set
from typing import TypeAlias

import pybase64
from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext, Cipher, CipherContext, algorithms, modes

from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.records.key_prefetch import KeyPrefetch, KeyRequest
from cdi_dagster.spark.records.keys import KeyRef, KeyResolver
from cdi_dagster.spark.records.rejection import RejectedError, reject

Decryptor: TypeAlias = CipherContext | AEADDecryptionContext

_BLOCK_BYTES = 16
_KEY_BYTES = (16, 24, 32)


def decode_base64(text: str) -> bytes:
    """Decode as `base64.b64decode` does by default: characters outside the alphabet are skipped.

    Raises:
        ValueError: not base64 even by lenient rules (padding missing, or text that is not ASCII).
    """
    try:
        # The strict decoder is faster, and where it succeeds both give the same.
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        return a2b_base64(text)


class DecryptorCache:
    """Decryptors by data key, kept across blocks, so that a key is requested and set up once.

    Args:
        keys: where data keys come from.
        size: keys kept; a block may have more, but its later ones are not kept.
    """

    def __init__(self, keys: KeyResolver, *, size: int = 1024) -> None:
        self._keys = keys
        self._size = size
        self._kept: dict[KeyRef, Decryptor] = {}
        self._prefetch = KeyPrefetch(keys)

    def request(self, refs: Set[KeyRef]) -> KeyRequest | None:
        """Request, without waiting, all keys that are not kept; None where there are none."""
        missing = refs - self._kept.keys()
        return self._prefetch.request(missing) if missing else None

    def send_now(self) -> None:
        """Send the collected requests now: there is no other work meanwhile."""
        self._prefetch.send_now()

    def decryptors(self, refs: Set[KeyRef], request: KeyRequest | None) -> Mapping[KeyRef, Decryptor | RejectedError]:
        """Return the decryptor of each key, or the reason for there being none.

        Args:
            refs: the keys.
            request: the result of `request` for the same keys; waited for.

        Raises:
            CdiError: DKS_UNAVAILABLE or DKS_FORBIDDEN.
        """
        missing = refs - self._kept.keys()
        if not missing:
            return self._kept
        answered = request.result() if request else {}
        data_keys = {ref: answered[ref] for ref in missing & answered.keys()}
        if forgotten := missing - data_keys.keys():  # kept at the time of the request, but no longer
            data_keys |= self._keys.data_keys(forgotten)
        if len(self._kept) + len(data_keys) > self._size:
            self._kept = {ref: self._kept[ref] for ref in refs & self._kept.keys()}
        found = {ref: _decryptor(data_key) for ref, data_key in data_keys.items()}
        for ref, decryptor in found.items():
            if len(self._kept) < self._size and not isinstance(decryptor, RejectedError):
                self._kept[ref] = decryptor
        return {**{ref: self._kept[ref] for ref in refs & self._kept.keys()}, **found}


def _decryptor(data_key: bytes | None) -> Decryptor | RejectedError:
    if data_key is None:
        return RejectedError(RejectReason.KEY, "the key service cannot decrypt this data key")
    if len(data_key) not in _KEY_BYTES:
        return RejectedError(RejectReason.ENCRYPTION, f"data key has {len(data_key)} bytes, not 16, 24 or 32")
    return Cipher(algorithms.AES(data_key), modes.CTR(bytes(_BLOCK_BYTES))).decryptor()


def decrypt(ciphertext: str, initialisation_vector: str, decryptor: Decryptor | RejectedError) -> bytes:
    """Decrypt AES-CTR with a 128-bit big-endian counter that starts at the initialisation vector.

    Raises:
        RejectedError: the one given instead of a decryptor; `encryption` where the vector is unusable, `ciphertext`
            where the base64 is.
    """
    if isinstance(decryptor, RejectedError):
        raise RejectedError(decryptor.reason, decryptor.detail)  # a new one: re-raised, its traceback would grow
    try:
        counter = a2b_base64(initialisation_vector)
    except ValueError:
        reject(RejectReason.ENCRYPTION, "initialisationVector is not base64")
    if len(counter) != _BLOCK_BYTES:
        counter = _as_counter(counter)
    try:
        encrypted = decode_base64(ciphertext)
    except ValueError:
        reject(RejectReason.CIPHERTEXT, "message.dbObject is not base64")
    decryptor.reset_nonce(counter)
    return decryptor.update(encrypted)


def _as_counter(start: bytes) -> bytes:
    """Return the start of the counter, a number, as one block."""
    number = start.lstrip(b"\0")
    if not start or len(number) > _BLOCK_BYTES:
        reject(RejectReason.ENCRYPTION, f"initialisationVector has {len(start)} bytes; a counter has {_BLOCK_BYTES}")
    return number.rjust(_BLOCK_BYTES, b"\0")
