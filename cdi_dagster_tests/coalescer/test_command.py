"""`python -m cdi_dagster.coalescer` and `cdi coalesce`: options, output, exit codes."""

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.coalescer.command import coalesce_command
from cdi_dagster.coalescer.summary import CoalesceProgress, progress_text
from cdi_dagster.storage.interface import Storage
from cdi_dagster_tests.coalescer.days import DAY, names, put_raw, put_small_day
from cdi_dagster_tests.collections import AUDIT


def invoke(storage: Storage, *more: str, **options: Any) -> Result:
    arguments = ["--corporate-root", storage.root, "--collection", "data:businessAudit", "--storage-day", "2023-03-26"]
    return CliRunner().invoke(coalesce_command, [*arguments, *more], **options)


def test_it_runs_alone_without_dagster() -> None:
    check = (
        "import sys, cdi_dagster.coalescer.__main__; sys.exit(any(m.split('.')[0] == 'dagster' for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    shown = subprocess.run(
        [sys.executable, "-m", "cdi_dagster.coalescer", "--help"], capture_output=True, check=True, text=True
    )
    assert "Nothing is deleted before the coalesced object is stored and verified" in " ".join(shown.stdout.split())


def test_a_good_run_prints_its_summary_and_exits_0(file_storage: Storage) -> None:
    put_small_day(file_storage)
    result = invoke(file_storage)
    assert result.exit_code == 0
    assert "objects  8 -> 3" in result.output
    assert "3 coalesced objects written" in result.output


def test_json_is_one_object(file_storage: Storage) -> None:
    put_small_day(file_storage)
    value = json.loads(invoke(file_storage, "--json").stdout)
    assert (value["before"]["objects"], value["after"]["objects"], value["succeeded"]) == (8, 3, True)


def test_progress_has_rate_share_and_time_left() -> None:
    begun = CoalesceProgress(batches=2, objects=20_000, bytes=0, objects_done=5_000)
    assert progress_text(begun, 10.0) == "5,000 of 20,000 raw objects, 0 B of 0 B, 500 objects/s, 25%, about 30 s left"
    first = CoalesceProgress(batches=1, objects=1, bytes=10)
    assert progress_text(first, 4.0) == "0 of 1 raw objects, 0 B of 10 B, 0 objects/s, 0%"


def test_a_part_that_cannot_be_read_exits_1_with_class_and_object_on_stderr(file_storage: Storage) -> None:
    put_small_day(file_storage)
    bad = put_raw(file_storage, 5, 9, data=b"not gzip")
    result = invoke(file_storage)
    assert result.exit_code == 1
    assert f"COALESCER_FAILED: {bad} cannot be merged" in result.stderr
    assert "2 coalesced objects written" in result.stdout


def test_beside_another_coalescer_it_exits_1_and_touches_nothing(file_storage: Storage) -> None:
    put_small_day(file_storage)
    with Claim(file_storage, AUDIT.on(DAY)):
        result = invoke(file_storage, "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("COALESCER_RUNNING: Another coalescer")
    assert "Next: Wait for it" in result.stderr
    assert json.loads(result.stdout)["failure"]["failure_class"] == "COALESCER_RUNNING"
    assert len(names(file_storage)) == 8


def test_a_root_where_nobody_writes_is_refused_and_not_made(file_storage: Storage) -> None:
    result = invoke(file_storage)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"COALESCER_FAILED: There is nothing under {file_storage.root}/corporate_storage/")
    assert "Next: Correct the root" in result.stderr
    assert list(file_storage.list("")) == []


def test_an_empty_day_beside_others_is_done_with_a_warning_that_it_is_empty(file_storage: Storage) -> None:
    put_small_day(file_storage)
    result = invoke(file_storage, "--storage-day", "2023-03-27")
    assert result.exit_code == 0
    assert "warning: there are no objects: the day is empty" in result.output


def test_the_root_may_come_from_the_environment(file_storage: Storage) -> None:
    put_small_day(file_storage)
    arguments = ["--collection", "data:businessAudit", "--storage-day", "2023-03-26"]
    result = CliRunner(env={"CDI_CORPORATE_ROOT": file_storage.root}).invoke(coalesce_command, arguments)
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--storage-day", "26.03.2023"), "write it as YYYY-MM-DD"),
        (("--collection", "businessAudit"), "write it as db:name"),
        (("--corporate-root", "/data"), "is not a root"),
        (("--max-bytes", "0"), "--max-bytes"),
    ],
)
def test_wrong_usage_exits_2_with_the_expected_form(file_storage: Storage, more: tuple[str, str], message: str) -> None:
    result = invoke(file_storage, *more)
    assert result.exit_code == 2
    assert message in result.stderr
