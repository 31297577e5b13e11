"""cdi snapshot without Spark: what it refuses, and adopting a snapshot of the old system."""

import json
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdi_dagster.cli.app import cdi
from cdi_dagster.core.storage_keys import snapshot_prefix
from cdi_dagster.published.snapshots import read_snapshot_mark, snapshot_of
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.scripted_snapshot import PARTS, publish_days

FRIDAY = date(2023, 6, 2)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    monkeypatch.setenv("CDI_FIRST_STORAGE_DAY", "2023-06-02")
    monkeypatch.setenv("CDI_PUBLISHED_ROOT", (tmp_path / "published").as_uri())
    return open_storage((tmp_path / "published").as_uri())


def run(*arguments: str, collection: str = PARTS.id) -> tuple[int, str]:
    result = CliRunner().invoke(cdi, ["snapshot", *arguments, "--collection", collection])
    return result.exit_code, result.output


def test_only_fridays_and_keyed_collections_have_snapshots(published: Storage) -> None:
    code, output = run("--export-day", "2023-06-08")
    assert (code, "2023-06-08 is a Thursday" in output) == (1, True)
    code, output = run("--export-day", "2023-06-09", collection="data:businessAudit")
    assert (code, "data:businessAudit is append-only" in output) == (1, True)


def test_missing_days_are_named_before_spark_is_started(published: Storage) -> None:
    publish_days(published, FRIDAY, date(2023, 6, 6))
    code, output = run("--export-day", "2023-06-09")
    assert code == 1
    assert "2023-06-07, 2023-06-08" in " ".join(output.split())


def test_a_copied_snapshot_is_a_base_once_it_is_adopted_and_copied_again_it_is_another(published: Storage) -> None:
    day = snapshot_of(PARTS, FRIDAY)
    code, output = run("adopt", "--export-day", str(FRIDAY))
    assert (code, "There are no files of a snapshot" in " ".join(output.split())) == (1, True)
    published.write(f"{snapshot_prefix(day)}id_part=0a/part-0.orc", b"12345")
    fingerprints = []
    for content in (b"12345", b"12345", b"123456"):
        if content != b"12345":
            published.write(f"{snapshot_prefix(day)}id_part=0a/part-0.orc", content)
        result = CliRunner().invoke(
            cdi, ["snapshot", "adopt", "--collection", PARTS.id, "--export-day", str(FRIDAY), "--json"]
        )
        assert json.loads(result.stdout) == {"export_day": "2023-06-02", "files": 1, "stored_bytes": len(content)}
        mark = read_snapshot_mark(published, day)
        assert mark is not None
        fingerprints.append(mark.fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
