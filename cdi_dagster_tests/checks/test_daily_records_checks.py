"""The checks read storage, so they see what was damaged after the run; the one that must blocks the tables."""

import json

import dagster as dg
import pytest

from cdi_dagster.core.storage_keys import SUCCESS_MARK, daily_records_prefix, pinned_input_history_key, run_report_key
from cdi_dagster.published.read import read_mark
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, checks_of

INPUT = "corporate_storage/business_audit"
RECORDS = "business_audit/daily_records"
PREFIX = daily_records_prefix(AUDIT.on(DAY))


def _check_again(day):
    """Evaluate the checks alone, as a person does from the asset's page: then there is no partition."""
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(dg.AssetKey(RECORDS.split("/"))))
    definitions = dg.Definitions.merge(day.definitions, dg.Definitions(jobs=[job]))
    result = definitions.resolve_job_def("checks").execute_in_process(instance=day.instance, raise_on_error=False)
    return checks_of(result)


@pytest.fixture
def published_day(day):
    day.put_object("0_9", content=b"x" * 100)
    day.put_object("10_19", content=b"x" * 50)
    assert day.run(INPUT, RECORDS).success
    return day


def _mark(day):
    return read_mark(day.published, AUDIT.on(DAY))


def _rewrite_mark(day, **changes):
    day.published.write(PREFIX + SUCCESS_MARK, json.dumps(_mark(day).to_json() | changes).encode())


def _rewrite_report(day, change):
    key = run_report_key(AUDIT.on(DAY), _mark(day).correlation_id)
    report = json.loads(day.published.read(key))
    change(report)
    day.published.write(key, json.dumps(report).encode())


def test_a_published_day_passes_every_check(published_day):
    evaluations = checks_of(published_day.run())
    assert {name: evaluation.passed for name, evaluation in evaluations.items()} == {
        "counts_reconcile": True,
        "offsets_are_whole": True,
        "nothing_rejected": True,
    }
    assert evaluations["counts_reconcile"].metadata["read"].value == 20


def _delete_a_part(day):
    day.published.delete([_mark(day).parts[0].key])


def _add_a_part(day):
    day.published.write(f"{PREFIX}part-stray.jsonl.gz", b"x")


def _truncate_a_part(day):
    day.published.write(_mark(day).parts[0].key, b"x")


def _lose_the_mark(day):
    day.published.delete([PREFIX + SUCCESS_MARK])


def _state_more(day):
    _rewrite_mark(day, published=21)


def _state_another_input(day):
    _rewrite_mark(day, fingerprint="0" * 64)


def _lose_an_object_from_the_report(day):
    _rewrite_report(day, lambda report: report["objects"].pop())


def _count_a_record_twice(day):
    _rewrite_report(day, lambda report: report["objects"][0].update(published=11))


@pytest.mark.parametrize(
    "damage",
    [
        _delete_a_part,
        _add_a_part,
        _truncate_a_part,
        _lose_the_mark,
        _state_more,
        _state_another_input,
        _lose_an_object_from_the_report,
        _count_a_record_twice,
    ],
)
def test_counts_that_do_not_reconcile_fail_the_blocking_check_and_the_status_row(published_day, damage):
    damage(published_day)
    evaluation = _check_again(published_day)["counts_reconcile"]
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR
    assert evaluation.blocking
    assert evaluation.metadata["problems"].value
    assert published_day.rows.writes[-1].failure.startswith("COUNTS_DO_NOT_RECONCILE")


def test_no_table_is_published_of_counts_that_do_not_reconcile(day):
    day.put_object("0_9")
    ingest = day.spark._ingest

    def ingest_and_lose_a_part(step):
        report = ingest(step)
        _delete_a_part(day)
        return report

    day.spark._ingest = ingest_and_lose_a_part
    assert not day.run().success
    assert [step.name for step in day.spark.launched] == ["ingest_daily"]


def test_a_gap_between_objects_is_a_warning_that_names_the_offsets(day):
    day.put_object("0_9")
    day.put_object("15_19")
    result = day.run(INPUT, RECORDS)
    assert result.success
    evaluation = checks_of(result)["offsets_are_whole"]
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert "10 to 14" in evaluation.metadata["problems"].value


def test_fewer_records_than_offsets_is_a_warning_that_names_the_object(published_day):
    _rewrite_report(published_day, lambda report: report["objects"][0].update(read=8, published=8))
    evaluation = _check_again(published_day)["offsets_are_whole"]
    assert not evaluation.passed
    assert "states 10 offsets but holds 8 records" in evaluation.metadata["problems"].value


def test_overlapping_objects_are_an_error(published_day):
    key = pinned_input_history_key(AUDIT.on(DAY), _mark(published_day).fingerprint)
    manifest = json.loads(published_day.published.read(key))
    manifest["objects"][1][0] = manifest["objects"][1][0].replace("10_19", "9_18")
    published_day.published.write(key, json.dumps(manifest).encode())
    evaluation = _check_again(published_day)["offsets_are_whole"]
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR


def test_rejects_within_the_limit_are_a_warning_with_their_share(day):
    day.put_object("0_9")
    day.spark.rejected = 2
    evaluation = checks_of(day.run(INPUT, RECORDS))["nothing_rejected"]
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["rejected_percent"].value == 20.0


def test_rejects_that_were_counted_but_not_kept_are_an_error(day):
    day.put_object("0_9")
    day.spark.rejected = 2
    day.spark.keep_rejects = False
    evaluation = checks_of(day.run(INPUT, RECORDS))["nothing_rejected"]
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR
