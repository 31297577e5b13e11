"""Blocks are begun ahead of the one that is finished, and nothing of what comes out depends on it."""

import gzip
import io
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import ObjectCounts
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.published.publish import WrittenPart
from cdi_dagster.spark.ingest import objects as ingest_objects
from cdi_dagster.spark.ingest import reading
from cdi_dagster.spark.ingest.objects import ObjectsIngestion
from cdi_dagster.spark.ingest.planning import Piece
from cdi_dagster.spark.ingest.progress import ProgressSender
from cdi_dagster.spark.ingest.writing import PartsWriter
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster.storage.files import FileStorage
from cdi_dagster_tests.collections import CLAIMANT
from cdi_dagster_tests.spark.records.envelopes import envelope_for, envelope_line, message_for
from cdi_dagster_tests.spark.records.vectors import ReversedKeys
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

_Lines: TypeAlias = list[dict[str, Any]]


class KeysTogether(ReversedKeys):
    """Answers nobody before so many keys are asked for."""

    def __init__(self, keys: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
        super().__init__()
        self._missing = keys
        self._patience_seconds = patience_seconds
        self._asked = threading.Condition()

    def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        wanted = set(refs)
        with self._asked:
            self._missing -= len(wanted)
            self._asked.notify_all()
            if not self._asked.wait_for(lambda: self._missing <= 0, self._patience_seconds):
                raise TimeoutError
        return super().data_keys(wanted)


class Ingested:
    """Ingests objects of given lines, one key for each object, and reads back what came out."""

    def __init__(self, folder: Path, keys: ReversedKeys) -> None:
        self._storage = FileStorage(folder.as_uri())
        self._keys = keys

    def run(self, *objects: Iterable[bytes]) -> tuple[tuple[ObjectCounts, ...], _Lines, _Lines]:
        with self._writer("records/") as records, self._writer("rejects/") as rejects:
            ingestion = ObjectsIngestion(
                RecordEngine(CLAIMANT, self._keys),
                rejects=rejects,
                progress=ProgressSender(None, 0),
                dense_offsets=True,
            )
            for block in ingestion.ingest(_streams(objects)):
                records.write(block.result.records, block.result.published)
            return (
                ingestion.counts,
                self._lines(records.finish()),
                self._lines(rejects.finish()),
            )

    def _writer(self, prefix: str) -> PartsWriter:
        return PartsWriter(self._storage, prefix, publication_id="p", group="g", task_index=0, stride=1)

    def _lines(self, parts: Iterable[WrittenPart]) -> _Lines:
        staging = Path(self._storage.root.removeprefix("file://")) / ".cdi-staging"
        return [
            json.loads(line)
            for part in parts
            for line in gzip.decompress((staging / str(part.prepared.token["staged"])).read_bytes()).splitlines()
        ]


def _streams(objects: Iterable[Iterable[bytes]]) -> Iterator[tuple[Piece, BinaryIO]]:
    for number, lines in enumerate(objects):
        stored = gzip.compress(b"".join(line + b"\n" for line in lines))
        key = f"day/db.core.claimant_0_{100 * number}-{100 * number + 99}.jsonl.gz"
        pinned = PinnedObject(key=key, size_bytes=len(stored), etag="e", version_id=None)
        yield Piece(pinned=pinned), io.BytesIO(stored)


def _lines_of(number: int, count: int) -> list[bytes]:
    data_key = os.urandom(16)
    return [
        envelope_line(message_for(b'{"object":%d,"line":%d}' % (number, line), data_key=data_key))
        for line in range(count)
    ]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1)


def test_the_keys_of_several_objects_are_asked_for_at_once(tmp_path: Path) -> None:
    counts, records, _ = Ingested(tmp_path, KeysTogether(4)).run(*(_lines_of(number, 3) for number in range(4)))

    assert [count.published for count in counts] == [3, 3, 3, 3]
    assert [(record["object"], record["line"]) for record in records] == [
        (number, line) for number in range(4) for line in range(3)
    ]


@pytest.mark.parametrize(("bound", "most"), [("_BLOCKS_AHEAD", 2), ("_BYTES_AHEAD", 1_000)])
def test_no_more_is_begun_than_may_be_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(ingest_objects, bound, most)

    # The fourth is not asked for before the first is finished, and here the first waits for the fourth.
    with pytest.raises(TimeoutError):
        Ingested(tmp_path, KeysTogether(4, patience_seconds=0.5)).run(*(_lines_of(number, 1) for number in range(4)))


def test_rejects_are_counted_at_their_own_object_and_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_ENVELOPE_BYTES", 2_000)
    long = b"x" * 3_000
    objects = [
        [envelope_for(b'{"n":1}'), b"broken", *_lines_of(0, 1)],
        [long, *_lines_of(1, 2), envelope_for(b"[]")],
        [envelope_for(b'{"n":2}')],
    ]

    counts, records, rejects = Ingested(tmp_path, ReversedKeys()).run(*objects)

    assert [(count.read, count.published, dict(count.rejected)) for count in counts] == [
        (3, 2, {"envelope": 1}),
        (4, 2, {"envelope": 1, "payload": 1}),
        (1, 1, {}),
    ]
    assert len(records) == 5
    assert [(reject["offset"], reject["line_number"]) for reject in rejects] == [(1, 2), (100, 1), (103, 4)]


def test_a_refusal_ends_the_task_at_once_whichever_block_it_is_about(tmp_path: Path) -> None:
    refused, never = _lines_of(1, 1), threading.Event()
    encrypted_key = json.loads(refused[0])["message"]["encryption"]["encryptedEncryptionKey"]

    class Refusing(ReversedKeys):
        def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
            if encrypted_key in {ref.encrypted_data_key for ref in refs}:
                raise CdiError(FailureClass.DKS_FORBIDDEN, "Our certificate is refused.")
            assert never.wait(PATIENCE_SECONDS), "the other key was waited for"
            return super().data_keys(refs)

    with pytest.raises(CdiError) as failed:
        Ingested(tmp_path, Refusing()).run(_lines_of(0, 1), refused)

    never.set()
    assert failed.value.failure_class is FailureClass.DKS_FORBIDDEN
