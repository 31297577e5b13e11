"""build_snapshot on S3, written through Spark's real S3A: what a kill leaves, and what the next run makes of it."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from cdi_dagster.core.spark_jobs import BUILD_SNAPSHOT
from cdi_dagster.core.storage_keys import snapshot_staging_prefix
from cdi_dagster.published.snapshots import begin_snapshot, read_snapshot_mark, require_snapshot, snapshot_of
from cdi_dagster_tests.s3_server import new_s3_storage
from cdi_dagster_tests.s3a.spark_job import killed_at, spark_config, unfinished_uploads
from cdi_dagster_tests.spark.snapshot.daily_rows import PARTS, history, publish_history, read_snapshot, reference

pytestmark = [
    pytest.mark.spark,
    pytest.mark.any_spark,
    pytest.mark.kill,
    pytest.mark.usefixtures("s3a_jars"),
    pytest.mark.timeout(1800),
]

FIRST_DAY, FRIDAY, ONE_DAY = date(2023, 6, 2), date(2023, 6, 9), timedelta(days=1)
SNAPSHOT = snapshot_of(PARTS, FRIDAY)


def test_a_job_killed_while_it_writes_is_tried_again_and_killed_between_its_first_file_and_its_mark_is_completed(
    tmp_path: Path,
) -> None:
    """A launch tries again under the same correlation id, where S3A has left the marker of a folder."""
    published = new_s3_storage()
    rows = history(4, FIRST_DAY, FRIDAY - ONE_DAY, ids=60)
    publish_history(published, rows, FIRST_DAY, FRIDAY - ONE_DAY)
    arguments = [
        *("--published-root", published.root, "--collection", PARTS.id, "--export-day", str(FRIDAY)),
        *("--first-storage-day", str(FIRST_DAY), "--correlation-id", "killed"),
    ]

    killed_at(a_file_is_written, BUILD_SNAPSHOT, arguments, config=spark_config(tmp_path / "first"))
    assert list(published.list(snapshot_staging_prefix(SNAPSHOT))) == []
    killed_at(a_file_has_appeared, BUILD_SNAPSHOT, arguments, config=spark_config(tmp_path))

    assert read_snapshot_mark(published, SNAPSHOT) is None
    begin_snapshot(published, SNAPSHOT)  # as the next run begins
    assert require_snapshot(published, SNAPSHOT).correlation_id == "killed"
    assert read_snapshot(published, FRIDAY) == reference(rows)
    assert list(published.list(snapshot_staging_prefix(SNAPSHOT))) == []
    assert unfinished_uploads(published) == []


def a_file_is_written(method: str, path: str) -> bool:
    return method == "PUT" and "/_staging/" in path and ".orc" in path


def a_file_has_appeared(method: str, path: str) -> bool:
    return method == "POST" and "/exports/" in path and "/_staging/" not in path and "uploadId=" in path
