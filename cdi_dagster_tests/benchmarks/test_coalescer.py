"""The comparison of coalescers: both do the same on the S3 in memory, and that is an S3 to boto3."""

import pytest

from benchmarks import coalescer
from cdi_dagster.storage import ObjectChangedError, ObjectExistsError, open_storage


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark sets these for its own process; after a test they are as they were."""
    values = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "eu-west-2", "ENDPOINT_URL": "unset"}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def test_both_coalescers_leave_the_same_lines_and_the_figures_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert coalescer.main(["--objects", "40", "--rounds", "1", "--latency-milliseconds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "40 objects of 10 records, 1 ms a request, median of 1" in printed
    assert "| ours |" in printed
    assert "| plain |" in printed


def test_figures_are_void_where_the_lines_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = iter("ab")
    monkeypatch.setattr(coalescer, "_lines_of", lambda _: next(digests))
    assert coalescer.main(["--objects", "8", "--rounds", "1", "--latency-milliseconds", "0"]) == 1
    assert "left different lines" in capsys.readouterr().err


def test_the_s3_in_memory_keeps_the_conditions_that_the_coalescer_relies_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with coalescer.served_s3("stand-in", 0.0) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        storage = open_storage("s3://bucket")
        first = storage.write("a/1", b"x", if_absent=True)
        with pytest.raises(ObjectExistsError):
            storage.write("a/1", b"y", if_absent=True)
        with pytest.raises(ObjectChangedError):
            storage.write("a/1", b"y", if_match="other")
        with storage.upload("a/2", if_absent=True) as upload:
            upload.write(b"z" * 9_000_000)
            large = upload.complete()
        assert [(stored.key, stored.size_bytes, stored.etag) for stored in storage.list("a/")] == [
            ("a/1", 1, first.etag),
            ("a/2", 9_000_000, large.etag),
        ]
        with storage.open("a/2", first_byte=8_999_999) as stream:
            assert stream.read() == b"z"
        storage.delete(["a/1", "a/2"])
        assert list(storage.list("")) == []


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_ingestion_of_the_raw_objects_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--ingest", "--objects", "6", "--records", "2", "--rounds", "1", "--latency-milliseconds", "1"]
    assert coalescer.main(options) == 0
    printed = capsys.readouterr().out
    assert "6 objects of about 2 records on stand-in, 1 ms a request, median (least to most) of 1" in printed
    assert "| `cdi ingest`, s |" in printed
    assert "| reading alone, s |" in printed
