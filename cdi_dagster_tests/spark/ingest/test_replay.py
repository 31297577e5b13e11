"""Rejects are tried again: what is fixed joins the publication, whole or not at all; the rest is kept again."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.published.counts import count_mismatches
from cdi_dagster.published.read import read_publication
from cdi_dagster.spark.ingest.replay import ReplaySummary, begin_replay, replay_rejects
from cdi_dagster.spark.key_service.client import KeyServiceConfig
from cdi_dagster.storage import PreparedObject
from cdi_dagster_tests.spark.ingest_support import SampleDay

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def replay(
    day: SampleDay, correlation_id: str, *, dks_url: str | None = None, meanwhile: Callable[[], object] = lambda: None
) -> ReplaySummary:
    publication = begin_replay(day.published, day.collection.on(day.storage_day), correlation_id)
    meanwhile()
    config = KeyServiceConfig(url=dks_url or day.dks_url, correlation_id=correlation_id, retry_budget_seconds=1)
    return replay_rejects(publication, day.published, config)


KEY_ID = "cloudhsm:1,2"
"""The key-encryption key that the sample's data keys are under."""


def adds_up(day: SampleDay, correlation_id: str) -> list[str]:
    publication = read_publication(day.published, day.collection.on(day.storage_day))
    assert publication is not None
    assert publication.mark.correlation_id == correlation_id
    return count_mismatches(publication, day.published.list(day.records_prefix))


def test_a_restored_key_brings_its_records_back(day: SampleDay, spark: "SparkSession") -> None:
    day.write(records=200, objects=4)
    day.pin()
    day.ingest(spark.sparkContext, correlation_id="whole")
    everything = day.records()

    with DevelopmentKeyService() as service:
        service.forget(KEY_ID)
        day.dks_url = service.url
        before = day.ingest(spark.sparkContext, "--max-rejected", "100%", correlation_id="without-a-key")
        assert before.totals["rejected_by_reason"] == {"key": 200}

        still_forgotten = replay(day, "too-early")
        assert (still_forgotten.recovered, still_forgotten.still_rejected) == (0, {"key": 200})
        assert (day.mark() or {})["correlation_id"] == "without-a-key"

        service.restore(KEY_ID)
        summary = replay(day, "mended")

    assert (summary.replayed, summary.recovered, summary.still_rejected) == (200, 200, {})
    assert day.records() == everything
    assert (day.mark() or {})["replayed_from"] == "without-a-key"
    assert adds_up(day, "mended") == []


def test_what_is_rejected_again_is_kept_again(file_day: SampleDay, spark: "SparkSession") -> None:
    day = file_day
    day.write(records=120, objects=3, bad_envelopes=6)
    day.pin()
    with DevelopmentKeyService() as service:
        service.forget(KEY_ID)
        day.dks_url = service.url
        before = day.ingest(spark.sparkContext, "--max-rejected", "100%", correlation_id="first")
        service.restore(KEY_ID)
        summary = replay(day, "second")
        again_same = replay(day, "third")
    assert before.rejected == 120
    assert (summary.recovered, sum(summary.still_rejected.values())) == (114, 6)
    assert "key" not in summary.still_rejected
    kept = day.rejects("second")
    assert Counter(reject["reason"] for reject in kept) == Counter(summary.still_rejected)
    first = {(reject["key"], reject["line_number"]): reject.get("envelope") for reject in day.rejects("first")}
    assert all(first[reject["key"], reject["line_number"]] == reject.get("envelope") for reject in kept)
    assert adds_up(day, "second") == []
    assert (again_same.recovered, again_same.still_rejected) == (0, summary.still_rejected)
    assert (day.mark() or {})["correlation_id"] == "second"


def test_a_key_service_that_is_down_changes_nothing(file_day: SampleDay, spark: "SparkSession") -> None:
    day = file_day
    day.write(records=60, objects=2)
    day.pin()
    with DevelopmentKeyService() as service:
        service.forget(KEY_ID)
        day.dks_url = service.url
        day.ingest(spark.sparkContext, "--max-rejected", "60", correlation_id="first")
    mark = day.mark()
    of_next: list[PreparedObject] = []

    def take_over() -> None:
        with day.published.upload(f"{day.records_prefix}part-0.jsonl.gz", group="next") as upload:
            of_next.append(upload.prepare())

    with pytest.raises(CdiError) as caught:
        replay(day, "second", dks_url="http://127.0.0.1:9", meanwhile=take_over)
    assert caught.value.failure_class is FailureClass.DKS_UNAVAILABLE
    assert day.mark() == mark
    assert len(day.rejects("first")) == 60
    # What another run had prepared is still there.
    day.published.publish(day.records_prefix, of_next, b"mark", group="next")
