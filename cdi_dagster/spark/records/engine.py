"""The record engine: a block of stored envelopes in, canonical records and rejects out.

The one entrance to this package for readers and writers of `spark`. It knows nothing of files, Spark or HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.records.decrypt import DecryptorCache, decrypt
from cdi_dagster.spark.records.envelope import Envelope, parse_envelope
from cdi_dagster.spark.records.fast import try_record
from cdi_dagster.spark.records.keys import KeyResolver
from cdi_dagster.spark.records.plain import make_record
from cdi_dagster.spark.records.rejection import RejectedError
from cdi_dagster.spark.records.rules import Rules, rules_for


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """An envelope that cannot become a record.

    Attributes:
        index: of the envelope in its block.
        reason: the reason family.
        detail: what is wrong, without any payload text.
    """

    index: int
    reason: RejectReason
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockResult:
    """What one block of envelopes gave.

    Attributes:
        records: canonical records in the order of their envelopes, each followed by a newline.
        published: number of records.
        rejects: the others, in order.
        fallbacks: envelopes that took the plain algorithm instead of the fast one.
    """

    records: bytes
    published: int
    rejects: tuple[Reject, ...]
    fallbacks: int


_Decrypted: TypeAlias = tuple[int, bytes, str, Rules]
"""Index in the block, plaintext, last modified date of the envelope, rules."""


class RecordEngine:
    """Makes records of one collection. Keeps data keys in memory; not for two threads at once.

    Args:
        collection: the collection being ingested.
        keys: where data keys come from.
    """

    def __init__(self, collection: Collection, keys: KeyResolver) -> None:
        self._rules = rules_for(collection.db, collection.name)
        self._decryptors = DecryptorCache(keys)

    def process(self, envelopes: Sequence[bytes]) -> BlockResult:
        """Make the records of one block of envelope lines (without newlines, without blank lines).

        All data keys that the block needs and that are not kept are asked for in one call.

        Raises:
            CdiError: DKS_UNAVAILABLE or DKS_FORBIDDEN, from the key service; never a matter of one record.
        """
        # Stage by stage, not record by record: the code and tables of one stage stay in the processor's cache.
        rejects: list[Reject] = []
        parsed = self._parse(envelopes, rejects)
        decrypted = self._decrypt(parsed, rejects)
        records: list[bytes] = []
        fallbacks = 0
        for index, plaintext, modified, rules in decrypted:
            record = try_record(plaintext, modified, rules)
            if record is None:
                fallbacks += 1
                try:
                    record = make_record(plaintext, modified, rules)
                except RejectedError as error:
                    rejects.append(_reject(index, error))
                    continue
            records.append(record)
        rejects.sort(key=lambda reject: reject.index)
        records.append(b"")
        return BlockResult(
            records=b"\n".join(records), published=len(records) - 1, rejects=tuple(rejects), fallbacks=fallbacks
        )

    def _parse(self, envelopes: Sequence[bytes], rejects: list[Reject]) -> list[tuple[int, Envelope]]:
        parsed = []
        for index, line in enumerate(envelopes):
            try:
                parsed.append((index, parse_envelope(line, self._rules)))
            except RejectedError as error:
                rejects.append(_reject(index, error))
        return parsed

    def _decrypt(self, parsed: list[tuple[int, Envelope]], rejects: list[Reject]) -> list[_Decrypted]:
        decryptors = self._decryptors.decryptors([envelope.key for _, envelope in parsed])
        decrypted: list[_Decrypted] = []
        for index, (ciphertext, key, initialisation_vector, rules, modified) in parsed:
            try:
                plaintext = decrypt(ciphertext, initialisation_vector, decryptors[key])
            except RejectedError as error:
                rejects.append(_reject(index, error))
            else:
                decrypted.append((index, plaintext, modified, rules))
        return decrypted


def _reject(index: int, error: RejectedError) -> Reject:
    return Reject(index=index, reason=error.reason, detail=error.detail)
