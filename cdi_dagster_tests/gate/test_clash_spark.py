"""The clash once more with the real Spark job: it starts on a pinned day, and the coalescer comes."""

import threading
import time

import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.spark.ingest_support import DAY, SampleDay

pytestmark = pytest.mark.spark
AUDIT_RECORDS = 240


def _day(kind, tmp_path, url):
    if kind == "folder":
        corporate = open_storage((tmp_path / "corporate").as_uri())
        published = open_storage((tmp_path / "published").as_uri())
    else:
        corporate, published = new_s3_storage(versioned=kind == "versioned"), new_s3_storage()
    return SampleDay(corporate=corporate, published=published, dks_url=url)


@pytest.mark.parametrize("kind", ["folder", "s3", "versioned"])
def test_spark_beside_the_coalescer_publishes_every_record_once_or_names_the_object(kind, spark, tmp_path, monkeypatch):
    with DevelopmentKeyService(latency_seconds=0.02) as keys:
        if kind != "folder":
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
            monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        day = _day(kind, tmp_path, keys.url)
        day.write(records=AUDIT_RECORDS, objects=24)
        day.pin()
        outcomes = []
        for attempt, delay in enumerate((0.1, 0.4, 0.8)):
            coalescer = threading.Thread(target=_coalesce_after, args=(day, delay))
            coalescer.start()
            try:
                day.ingest(spark.sparkContext, correlation_id=f"run-{attempt}")
                outcomes.append("published")
            except CdiError as error:
                if error.failure_class is not FailureClass.INPUT_CHANGED or f"{DAY:%Y/%m/%d}" not in error.cause:
                    raise
                outcomes.append(error.failure_class)
            coalescer.join()
            records = day.records()
            assert records.total() in (0, AUDIT_RECORDS)
            assert set(records.values()) <= {1}
            if outcomes[-1] == "published":
                break
            day.pin()
        if kind == "versioned":
            assert outcomes == ["published"]  # read by version, whatever the coalescer deletes
        day.pin()
        day.ingest(spark.sparkContext, correlation_id="run-after")
        assert day.records().total() == AUDIT_RECORDS


def _coalesce_after(day, seconds):
    time.sleep(seconds)
    coalesce(day.corporate, day.collection.on(day.storage_day), max_objects=5)
