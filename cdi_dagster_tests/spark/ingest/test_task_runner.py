"""What Spark's own errors mean, what an error in a task may say, and that one failed task ends all."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.ingest.pinned_streams import opened
from cdi_dagster.spark.ingest.planning import Piece
from cdi_dagster.spark.ingest.task import run_tasks, task_failure
from cdi_dagster.spark.ingest.task_runner import planned_cores
from cdi_dagster.storage import StorageUnavailableError
from cdi_dagster.storage.files import FileStorage
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.spark.scripted_key_service import ScriptedHandler, ScriptedKeyService, status
from cdi_dagster_tests.waiting import PATIENCE_SECONDS


def test_the_text_of_an_unforeseen_error_in_a_task_goes_nowhere() -> None:
    try:
        {"a": 1}["secret payload"]
    except KeyError as error:
        failure = task_failure(error)
    assert failure.failure_class is FailureClass.JOB_FAILED
    assert "KeyError" in failure.cause
    assert "test_task_runner.py" in failure.cause
    assert "secret" not in str(failure.to_json())


class Panic(BaseException):
    """As libraries written in Rust raise it: no Exception."""


def test_whatever_ends_a_task_comes_back_without_its_text() -> None:
    def panic(*_: object) -> NoReturn:
        raise Panic("secret payload")

    failures: list[list[dict[str, object]]] = []
    accumulator = SimpleNamespace(add=failures.append)
    assert list(run_tasks(panic, cast(Any, accumulator), iter([cast(Any, None)]))) == []
    ((failure,),) = failures
    assert "Panic in panic" in str(failure["cause"])
    assert "secret" not in str(failure)


def test_errors_that_are_foreseen_keep_their_class_and_text() -> None:
    forbidden = CdiError(FailureClass.DKS_FORBIDDEN, "No.")
    assert task_failure(forbidden) is forbidden
    assert "no space" in task_failure(StorageUnavailableError("s3://b/k: no space")).cause
    assert task_failure(MemoryError()).failure_class is FailureClass.OUT_OF_MEMORY


class FarFiles(FileStorage):
    is_near = False  # as S3 is


@pytest.fixture(params=[FileStorage, FarFiles], ids=["near", "far"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> FileStorage:
    return request.param(tmp_path.as_uri())


def pieces_of(stored: list[StoredObject]) -> list[Piece]:
    return [
        Piece(pinned=PinnedObject(key=s.key, size_bytes=s.size_bytes, etag=s.etag, version_id=None)) for s in stored
    ]


def test_objects_come_in_order_open_and_are_closed_in_time(storage: FileStorage) -> None:
    stored = [storage.write(f"o/{n}", b"x" * (n * 100_000)) for n in range(12)]
    pieces = pieces_of(stored)
    sizes = []
    for expected, (found, stream) in zip(pieces, opened(storage, pieces), strict=True):
        assert found is expected
        size = 0
        while block := stream.read(64_000):
            size += len(block)
        sizes.append(size)
    assert sizes == [s.size_bytes for s in stored]
    abandoned = opened(storage, pieces)
    next(abandoned)
    abandoned.close()


def test_an_object_that_vanishes_is_said_when_its_turn_comes(storage: FileStorage) -> None:
    stored = [storage.write(f"o/{n}", b"x") for n in range(3)]
    pieces = pieces_of(stored)
    storage.delete(["o/1"])
    streams = opened(storage, pieces)
    assert next(streams)[0] is pieces[0]
    with pytest.raises(CdiError, match="o/1 was pinned") as raised:
        next(streams)
    assert raised.value.failure_class is FailureClass.INPUT_CHANGED


@pytest.mark.spark
def test_a_failed_task_ends_the_others_at_once(file_day: SampleDay, spark: SparkSession) -> None:
    assert planned_cores(spark.sparkContext) == 2
    file_day.write(records=60, objects=12)
    file_day.pin()

    the_end = threading.Event()

    def refuse_one_task(handler: ScriptedHandler) -> None:
        time.sleep(0.5)
        status(403)(handler)

    def never_answer(handler: ScriptedHandler) -> None:
        the_end.wait(PATIENCE_SECONDS)

    with ScriptedKeyService(refuse_one_task, afterwards=never_answer) as service:
        file_day.dks_url = service.url
        started = time.monotonic()
        with pytest.raises(CdiError) as raised:
            file_day.ingest(spark.sparkContext, "--dks-retry-budget-seconds", "200")
        assert time.monotonic() - started < 150  # the others would ask for their keys for 200 seconds
        the_end.set()
    assert raised.value.failure_class is FailureClass.DKS_FORBIDDEN
