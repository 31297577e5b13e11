"""`cdi tables check` as an analyst meets it, and the definition of an installation as `cdi tables` uses it."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from cdi_dagster.storage import open_storage
from cdi_dagster_tests.cli.conftest import Cdi
from cdi_dagster_tests.spark.tables.daily_records import publish_records, record

SHIPPED = files("cdi_dagster.table_definitions").joinpath("business_audit.json")
AGAINST = ("--collection", "data:businessAudit", "--against", "2023-03-26")


def test_a_definition_is_checked_without_an_installation(cdi: Cdi, home: Path) -> None:
    answer = cdi("tables", "check", str(SHIPPED))
    assert answer.exit_code == 0, answer.stderr
    assert "can be used" in answer.stdout
    assert "uc.auditlog_red_v: 23 columns" in answer.stdout
    assert not home.exists()


def test_everything_that_is_wrong_is_shown_with_place_line_and_fix(cdi: Cdi, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    text = SHIPPED.read_text()
    wrong.write_text(text.replace('"type": "bigint"', '"type": "long"').replace('"auditlog_red_v": "drop"', '"x": "y"'))
    answer = cdi("tables", "check", str(wrong), "--json")
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"INPUT_INVALID: The table definition {wrong} cannot be used: ")
    assert "columns[4].shown.auditlog_red_v (line 15) is None; write one of keep, mask, hash, drop" in answer.stderr
    assert len(answer.json["failure"]["detail"]["problems"]) == 2 + 2 * text.count('"auditlog_red_v": "drop"')


def test_a_day_shows_what_a_definition_makes_of_it(cdi: Cdi, home: Path) -> None:
    odd = record(2, amountPence="12 pounds", newField={"[bold]": 1})
    publish_records(open_storage((home / "published").as_uri()), [record(1), odd])
    answer = cdi("tables", "check", str(SHIPPED), *AGAINST)
    assert answer.exit_code == 0, answer.stderr
    (amount,) = [line.split() for line in answer.stdout.splitlines() if "amount_pence " in line]
    assert amount == ["amount_pence", "bigint", "1", "1"]
    assert "newField.[bold]" in answer.stdout
    found = cdi("tables", "check", str(SHIPPED), *AGAINST, "--json").json["against"]
    assert found["untaken"] == [{"path": ["newField", "[bold]"], "records": 1}]
    assert {column["name"]: column["nulls"] for column in found["columns"]}["claimant_nino"] == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "problem"),
    [
        (("--against", "2023-03-26"), 2, "--against and --collection belong together"),
        (AGAINST, 1, "are not published"),
        (("--against", "26/03/2023"), 2, "write it as YYYY-MM-DD"),
    ],
)
def test_what_cannot_be_checked_is_refused(cdi: Cdi, arguments: tuple[str, ...], exit_code: int, problem: str) -> None:
    answer = cdi("tables", "check", str(SHIPPED), *arguments)
    assert (answer.exit_code, problem in answer.stderr) == (exit_code, True), answer.stderr


def test_an_unusable_definition_of_the_settings_fails_the_command_with_its_place(cdi: Cdi, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"format_version": 2,\n "tables": []}')
    setting = json.dumps({"data:businessAudit": "mine.json"})
    day = ("--collection", "data:businessAudit", "--storage-day", "2023-03-26")
    for command in (["tables"], ["ingest", "--tables"]):
        answer = cdi(*command, *day, CDI_TABLE_DEFINITIONS=setting)
        assert answer.exit_code == 1
        assert "The table definition mine.json cannot be used: tables (line 2) must be a list" in answer.stderr


def test_days_without_records_have_no_tables(cdi: Cdi) -> None:
    answer = cdi("tables", "--collection", "data:businessAudit", "--from", "2023-03-25", "--to", "2023-03-26")
    assert answer.exit_code == 1
    assert "There are no daily records of data:businessAudit for storage day 2023-03-25" in answer.stderr


def test_days_are_given_in_order(cdi: Cdi) -> None:
    answer = cdi("tables", "--collection", "data:businessAudit", "--from", "2023-03-26", "--to", "2023-03-25")
    assert (answer.exit_code, "swap them" in answer.stderr) == (2, True)
