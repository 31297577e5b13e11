"""The record engine: a block of stored envelopes in, canonical records and rejects out; of keyed collections, rows.

The only module of this package for the rest of `spark`. It knows nothing of files, Spark or HTTP.
"""

from collections.abc import Sequence, Set
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from cdi_dagster.core.collections import Collection, DbType, RecordRules, record_rules
from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.records import fast
from cdi_dagster.spark.records.decrypt import DecryptorCache, decrypt
from cdi_dagster.spark.records.envelope import Envelope, parse_envelope
from cdi_dagster.spark.records.key_prefetch import KeyRequest
from cdi_dagster.spark.records.keys import KeyRef, KeyResolver
from cdi_dagster.spark.records.plain import make_record
from cdi_dagster.spark.records.rejection import RejectedError
from cdi_dagster.spark.records.row_key import RowKey, db_type_of, parse_row_key


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


class RowFacts(NamedTuple):
    """What makes a record a row of a keyed collection. A tuple, because one is made for every record.

    Attributes:
        position: of the envelope in its block.
        key: its id.
        db_type: INSERT or DELETE.
    """

    position: int
    key: RowKey
    db_type: DbType


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockResult:
    """The result of one block of envelopes.

    Attributes:
        records: canonical records in the order of their envelopes, each followed by a newline.
        published: number of records.
        rejects: the others, in order.
        fallbacks: envelopes that took the plain algorithm instead of the fast one.
        rows: of a keyed collection, what belongs to each of the records; else nothing.
    """

    records: bytes
    published: int
    rejects: tuple[Reject, ...]
    fallbacks: int
    rows: tuple[RowFacts, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class BegunBlock:
    """A block whose envelopes are parsed and whose data keys are requested: `RecordEngine.finish` makes its records."""

    parsed: list[tuple[int, Envelope]]
    rejects: list[Reject]
    refs: Set[KeyRef]
    key_request: KeyRequest | None
    row_keys: dict[int, RowKey] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether its data keys have arrived, so that finishing it does not wait."""
        return self.key_request is None or self.key_request.done()


_Decrypted: TypeAlias = tuple[int, bytes, str, str, RecordRules]
"""Index in the block, plaintext, last modified date and type of the envelope, rules."""


class RecordEngine:
    """Makes records of one collection. Keeps data keys in memory; not thread-safe.

    Args:
        collection: the collection being ingested.
        keys: where data keys come from; called by several threads at once.
    """

    def __init__(self, collection: Collection, keys: KeyResolver) -> None:
        self._rules = record_rules(collection.db, collection.name)
        self._is_keyed = collection.is_keyed
        self._decryptors = DecryptorCache(keys)

    def process(self, envelopes: Sequence[bytes]) -> BlockResult:
        """Make the records of one block of envelope lines (without newlines, without blank lines).

        Raises:
            CdiError: DKS_UNAVAILABLE or DKS_FORBIDDEN, from the key service; never for a single record.
        """
        return self.finish(self.begin(envelopes))

    def begin(self, envelopes: Sequence[bytes]) -> BegunBlock:
        """Parse the envelopes of a block and request, without waiting, the data keys that it lacks.

        Several blocks may be begun before the first is finished: this hides the latency of a slow key service.
        """
        rejects: list[Reject] = []
        row_keys: dict[int, RowKey] = {}
        parsed = self._parse(envelopes, rejects, row_keys)
        refs = {envelope.key for _, envelope in parsed}
        key_request = self._decryptors.request(refs)
        return BegunBlock(parsed=parsed, rejects=rejects, refs=refs, key_request=key_request, row_keys=row_keys)

    def wait(self, begun: Sequence[BegunBlock]) -> None:
        """Wait until the first of some blocks is ready.

        Raises:
            CdiError: the key service failed or refused, for any of the blocks, as soon as it did.
        """
        if begun[0].is_ready:
            return
        self._decryptors.send_now()
        pending = {block.key_request for block in begun if block.key_request}
        while not begun[0].is_ready:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for request in done:
                request.result()

    def finish(self, begun: BegunBlock) -> BlockResult:
        """Make the records of a begun block.

        Raises:
            CdiError: as `process`.
        """
        # Stage by stage, not record by record: the code and tables of one stage stay in the processor's cache.
        decrypted = self._decrypt(begun)
        written = [fast.write(plaintext, modified, kind, rules) for _, plaintext, modified, kind, rules in decrypted]
        records = _finished_at_once(decrypted, written)
        published, fallbacks = len(written), 0
        if records is None:
            finished, fallbacks = _finished_one_by_one(decrypted, written, begun.rejects)
            records, published = b"".join(finished), len(finished)
        rows = _rows(begun, decrypted) if self._is_keyed else ()
        begun.rejects.sort(key=lambda reject: reject.index)
        return BlockResult(
            records=records, published=published, rejects=tuple(begun.rejects), fallbacks=fallbacks, rows=rows
        )

    def _parse(
        self, envelopes: Sequence[bytes], rejects: list[Reject], row_keys: dict[int, RowKey]
    ) -> list[tuple[int, Envelope]]:
        parsed = []
        for index, line in enumerate(envelopes):
            try:
                envelope = parse_envelope(line, self._rules)
                if self._is_keyed:
                    row_keys[index] = parse_row_key(line)
            except RejectedError as error:
                rejects.append(_reject(index, error))
            else:
                parsed.append((index, envelope))
        return parsed

    def _decrypt(self, begun: BegunBlock) -> list[_Decrypted]:
        decryptors = self._decryptors.decryptors(begun.refs, begun.key_request)
        decrypted: list[_Decrypted] = []
        for index, (ciphertext, key, initialisation_vector, rules, modified, kind) in begun.parsed:
            try:
                plaintext = decrypt(ciphertext, initialisation_vector, decryptors[key])
            except RejectedError as error:
                begun.rejects.append(_reject(index, error))
            else:
                decrypted.append((index, plaintext, modified, kind, rules))
        return decrypted


def _finished_at_once(decrypted: Sequence[_Decrypted], written: Sequence[bytes | None]) -> bytes | None:
    """Return the records of a block; None unless `fast` can make all of them and all have the same rules."""
    if not decrypted:
        return b""
    rules = decrypted[0][4]
    texts = [text for text in written if text is not None]
    if len(texts) < len(written) or any(others is not rules for _, _, _, _, others in decrypted):
        return None
    return fast.finish(b"\n".join([*texts, b""]), rules)


def _finished_one_by_one(
    decrypted: Sequence[_Decrypted], written: Sequence[bytes | None], rejects: list[Reject]
) -> tuple[list[bytes], int]:
    """Return the records, and how many of them needed the plain algorithm."""
    records = []
    fallbacks = 0
    for (index, plaintext, modified, kind, rules), text in zip(decrypted, written, strict=True):
        record = None if text is None else fast.finish(text, rules)
        if record is None:
            fallbacks += 1
            try:
                record = make_record(plaintext, modified, kind, rules)
            except RejectedError as error:
                rejects.append(_reject(index, error))
                continue
        records.append(record + b"\n")
    return records, fallbacks


def _rows(begun: BegunBlock, decrypted: Sequence[_Decrypted]) -> tuple[RowFacts, ...]:
    rejected = {reject.index for reject in begun.rejects}
    return tuple(
        RowFacts(index, begun.row_keys[index], db_type_of(plaintext))
        for index, plaintext, _, _, _ in decrypted
        if index not in rejected
    )


def _reject(index: int, error: RejectedError) -> Reject:
    return Reject(index=index, reason=error.reason, detail=error.detail)
