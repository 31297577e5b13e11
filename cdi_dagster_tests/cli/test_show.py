"""`cdi show`: records of a published day; where an event went, without its content."""

import gzip
import json
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdi_dagster.cli.app import cdi
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.ingestion.pinning import pin_storage_day
from cdi_dagster.storage import Roots, open_roots
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.gate.quick_ingestion import ingest_pinned

DAY = AUDIT.on(date(2023, 3, 26))
OF_DAY = ("--collection", AUDIT.id, "--storage-day", "2023-03-26")


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """A published day of 30 records in one Kafka partition."""
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    roots = open_roots((tmp_path / "corporate").as_uri(), (tmp_path / "published").as_uri())
    write_sample(roots.corporate, DAY, records=30, objects=3, seed=1, kafka_partitions=1)
    ingest_pinned(roots.corporate, roots.published, pin_storage_day(roots, DAY), "run-1")
    return roots


def show(*arguments: str) -> Result:
    return CliRunner().invoke(cdi, ["show", *OF_DAY, *arguments])


def published_lines(roots: Roots) -> list[str]:
    (part,) = [stored for stored in roots.published.list("corporate_data_ingestion/json/") if ".gz" in stored.key]
    return gzip.decompress(roots.published.read(part.key)).decode().splitlines()


def test_the_first_records_are_shown_as_they_are_published(roots: Roots) -> None:
    records = published_lines(roots)
    shown = show("--limit", "3")
    assert (shown.exit_code, shown.stdout.splitlines()) == (0, records[:3])
    assert "3 of 30 records" in shown.stderr
    assert json.loads(show("--json").stdout)["records"] == records[:10]


def test_an_event_is_traced_to_the_line_of_its_record_without_its_content(roots: Roots) -> None:
    traced = json.loads(show("--trace", "0:17", "--json").stdout)
    assert (traced["fate"], traced["part_line"]) == ("record", 18)
    text = show("--trace", "0:17").stdout
    assert "line of part  18" in text
    assert "AUDIT_EVENT" not in text
    assert json.loads(show("--trace", "0:30", "--json").stdout)["fate"] == "not there"


def test_what_cannot_be_shown_says_why(roots: Roots) -> None:
    assert "for example 3:1042" in show("--trace", "17").stderr
    assert "Run other of data:businessAudit" in show("--trace", "0:1", "--correlation-id", "other").stderr
    day_after = ("show", "--collection", AUDIT.id, "--storage-day", "2023-03-27")
    assert "are not published" in CliRunner().invoke(cdi, day_after).stderr
    assert "was never pinned" in CliRunner().invoke(cdi, [*day_after, "--trace", "0:1"]).stderr
