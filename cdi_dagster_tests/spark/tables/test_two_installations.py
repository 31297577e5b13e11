"""Two installations, each with a metastore of its own, publish tables over one published root."""

import json
import subprocess
import sys
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster.spark.tables.locations import partition_prefix
from cdi_dagster.storage import open_storage
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.spark.tables.daily_records import DAY, EXPORT_DAY, RAW, publish_records, record

# Two JVMs, each with a new metastore.
pytestmark = [pytest.mark.spark, pytest.mark.any_spark, pytest.mark.timeout(1800)]


def test_neither_deletes_what_the_other_shows(tmp_path: Path) -> None:
    published = open_storage((tmp_path / "published").as_uri())
    definition = tmp_path / "raw.json"
    definition.write_text(json.dumps({"format_version": 2, "tables": [{"name": RAW, "kind": "raw"}]}))
    where = ["--published-root", published.root, "--collection", AUDIT.id, "--storage-day", str(DAY)]
    command = [sys.executable, "-m", "cdi_dagster_tests.spark.tables.installation"]

    with ExitStack() as stack:

        def started(name: str) -> "subprocess.Popen[str]":
            arguments = [str(tmp_path / name), *where, "--table-definition", str(definition)]
            return stack.enter_context(
                subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )

        one, other = started("one"), started("other")
        for number in (1, 2, 3):
            publish_records(published, [record(number), record(number)], fingerprint=f"f{number}")
            for name, installation in (("one", one), ("other", other)):
                assert answer_of(installation, f"{name}-{number}") == 0
                assert answer_of(installation, "read") == [record(number)] * 2
            assert answer_of(one, "read") == [record(number)] * 2
        for installation in (one, other):
            assert installation.stdin is not None
            installation.stdin.close()

    # Of each: what it shows, and what it showed before.
    (raw,) = read_table_definition(str(definition)).tables
    prefix = partition_prefix(raw, date.fromisoformat(EXPORT_DAY))
    assert len({stored.key.removeprefix(prefix).split("/")[0] for stored in published.list(prefix)}) == 4


def answer_of(installation: "subprocess.Popen[str]", command: str) -> Any:
    assert installation.stdin is not None
    assert installation.stdout is not None
    installation.stdin.write(f"{command}\n")
    installation.stdin.flush()
    return json.loads(installation.stdout.readline())
