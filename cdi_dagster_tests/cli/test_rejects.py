"""Rejects from the terminal: counted by reason, shown by place, replayed, never shown by content."""

import gzip
import json
from datetime import date
from pathlib import Path

import pytest

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.core.storage_keys import rejects_prefix, run_report_key
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.ingestion.ingestion_lease import ingestion_lease
from cdi_dagster.spark.ingest.writing import reject_line
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.cli.conftest import Cdi

DAY = ("--collection", "data:businessAudit", "--storage-day", "2023-03-26")


def test_a_day_without_rejects_says_so_and_an_unpublished_day_is_not_replayed(cdi: Cdi, home: Path) -> None:
    answer = cdi("rejects", "show", *DAY)
    assert answer.exit_code == 1
    assert "No run of data:businessAudit, storage day 2023-03-26 (export day 2023-03-27) was found" in answer.stderr
    report = home / "published" / run_report_key(find_collection(DAY[1]).on(date(2023, 3, 26)), "a-run")
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    assert cdi("rejects", "show", *DAY).stdout.startswith("No rejects are kept of data:businessAudit")
    answer = cdi("rejects", "show", *DAY, "--correlation-id", "another")
    assert answer.exit_code == 1
    assert "No run another of data:businessAudit" in answer.stderr
    answer = cdi("rejects", "replay", *DAY)
    assert answer.exit_code == 1
    assert answer.stderr.startswith(
        "INPUT_INVALID: data:businessAudit, storage day 2023-03-26 (export day 2023-03-27) is not published"
    )
    assert "run the day again" in answer.stderr


def test_a_day_that_is_rejected_for_one_key_is_to_have_that_key_restored(cdi: Cdi, home: Path) -> None:
    encryption = {
        "keyEncryptionKeyId": "cloudhsm:7,8",
        "encryptedEncryptionKey": "wrapped",
        "initialisationVector": "iv",
    }
    envelope = json.dumps({"message": {"dbObject": "ciphertext", "encryption": encryption}}).encode()
    lines = [
        reject_line(
            reason=RejectReason.KEY, detail="cannot", key=f"day/object-{n}", line_number=n, offset=n, envelope=envelope
        )
        for n in (1, 2, 3)
    ]
    folder = home / "published" / rejects_prefix(find_collection(DAY[1]).on(date(2023, 3, 26)), "a-run")
    folder.mkdir(parents=True)
    (folder / "part-00000-x.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
    shown = cdi("rejects", "show", *DAY, "--json").json
    assert (shown["by_key_id"], shown["by_reason"]) == ({"cloudhsm:7,8": 3}, {"key": 3})
    assert {place["key_id"] for place in shown["places"]} == {"cloudhsm:7,8"}
    assert shown["advice"].startswith("All 3 were rejected for one key, cloudhsm:7,8: have it restored")
    text = cdi("rejects", "show", *DAY).stdout
    assert "A higher max_rejected would publish the day without them." in text
    assert "wrapped" not in text
    assert "ciphertext" not in text


@pytest.mark.parametrize("correlation_id", ["../../x", "", ".", "a b", "x" * 129])
def test_a_correlation_id_that_is_no_name_is_refused(cdi: Cdi, correlation_id: str) -> None:
    for command in (("rejects", "show"), ("ingest",)):
        answer = cdi(*command, *DAY, "--correlation-id", correlation_id)
        assert answer.exit_code == 2
        assert "write up to 128 letters" in answer.stderr


@pytest.mark.spark
def test_rejects_of_a_day_are_shown_by_place_and_replayed(cdi: Cdi, home: Path) -> None:
    sample = ("sample", *DAY, "--records", "60", "--objects", "3", "--bad-envelopes", "6")
    assert cdi(*sample).exit_code == 0
    assert cdi("coalesce", *DAY).exit_code == 0
    with DevelopmentKeyService() as service:
        answer = cdi("ingest", *DAY, "--dks-url", service.url, "--max-rejected", "6", "--json")
        assert answer.exit_code == 0, answer.stderr
        assert answer.json["rejected"] == 6

        shown = cdi("rejects", "show", *DAY, "--json").json
        assert shown["by_reason"] == answer.json["rejected_by_reason"]
        assert len(shown["places"]) == 6
        assert {"reason", "detail", "key", "line_number", "offset", "key_id"} == set(shown["places"][0])
        for counts in ("by_reason", "by_shape", "by_object"):
            assert sum(shown[counts].values()) == 6
        assert shown["advice"] is None
        text = cdi("rejects", "show", *DAY).stdout
        assert "shape of the envelope" in text
        kept = next((home / "published").rglob("rejects/part-*.jsonl.gz"))
        for line in gzip.decompress(kept.read_bytes()).splitlines():
            assert json.loads(line)["envelope"][:40] not in text

        published = open_storage((home / "published").as_uri())
        with ingestion_lease(
            published, find_collection(DAY[1]).on(date(2023, 3, 26)), holder="another", lease_seconds=6
        ):
            busy = cdi("rejects", "replay", *DAY, "--dks-url", service.url)
        waited, refused, _ = busy.stderr.splitlines()
        assert waited.startswith("Waiting for another (")
        assert refused.startswith("DUPLICATE_RUN: another (")
        assert "has been ingesting data:businessAudit, storage day 2023-03-26" in refused

        replayed = cdi("rejects", "replay", *DAY, "--dks-url", service.url)
    assert replayed.exit_code == 1
    assert replayed.stderr.splitlines()[-2].startswith("RECORDS_REJECTED: All 6 rejects were rejected again")
