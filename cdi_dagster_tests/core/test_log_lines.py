"""Log lines are fit to be shown: payload, keys and credentials cut out, places and classes kept."""

import base64
import random

import pytest

from cdi_dagster.core.log_lines import MAX_LINE_CHARACTERS, last_lines, scrub


@pytest.mark.parametrize(
    "line",
    [
        "corporate_storage/ucfs_audit/2023/03/26/data/businessAudit/data.businessAudit_0_0_999.jsonl.gz vanished",
        "at org.apache.spark.util.SparkUncaughtExceptionHandler.run(SparkUncaughtExceptionHandler.scala:80)",
        "run 1f0c9a4e-5b7d-4a0e-9a51-3c3f6a2b7d10 at 2023-03-27T09:30:00.000Z",
        "file:///home/someone/cdi/published/corporate_data_ingestion/json/daily/2023-03-27/data/businessAudit/",
    ],
)
def test_what_names_classes_objects_and_places_stays(line):
    assert scrub(line) == line


@pytest.mark.parametrize("size", [16, 24, 32, 64])
def test_key_material_is_cut(size):
    seeded = random.Random(7)
    keys = [seeded.randbytes(size) for _ in range(500)]
    kept = [key for key in keys if scrub(f"key {base64.b64encode(key).decode()} used") != "key [cut] used"]
    # It goes by the look of words, and one key in a few hundred looks like words.
    assert len(kept) <= 5
    assert all(scrub(f"key {key.hex()} used") == "key [cut] used" for key in keys)


def test_json_is_cut_whole_even_when_nested():
    assert scrub('got {"a": {"nino": "AB123456C"}} here') == "got [cut] here"


def test_a_line_is_never_longer_than_the_limit():
    assert len(scrub("word " * 1000)) == MAX_LINE_CHARACTERS + 3


def test_the_last_lines_are_those_that_say_something():
    assert last_lines(["one", "", "two", " ", "three"], count=2) == "two\nthree"
