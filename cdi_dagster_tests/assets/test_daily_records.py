"""Daily records: only of what was pinned and is still so, one launch, every figure on the page."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.storage.tags import TagType, get_tag_type
from freezegun import freeze_time

from cdi_dagster import names
from cdi_dagster.assets import daily_records
from cdi_dagster.assets.attempts import cost_metadata
from cdi_dagster.checks.daily_records import id_parts_result
from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.core.storage_keys import mark_key
from cdi_dagster.interfaces import LaunchAttempt
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage.interface import StorageUnavailableError
from cdi_dagster_tests.collections import AUDIT, CALCULATION_PARTS, EQUALITY
from cdi_dagster_tests.dagster_day import (
    DAY,
    ScriptedSpark,
    argument,
    checks_of,
    dagster_day,
    failure_of,
    metadata_of,
)
from cdi_dagster_tests.gate.instigators import publish_mark

INPUT = "corporate_storage/business_audit"
RECORDS = "business_audit/daily_records"


def test_a_day_goes_from_pinned_input_to_tables_in_one_run(day):
    day.put_object("0_9", content=b"x" * 100)
    result = day.run()
    assert result.success
    metadata = metadata_of(result, RECORDS)
    assert (metadata["records_read"], metadata["records_published"], metadata["records_rejected"]) == ("10", 10, 0)
    assert (metadata["input_bytes"], metadata["record_bytes"], metadata["seconds"]) == (100, "80", 2.0)
    assert (metadata["records_per_second"], metadata["key_service_calls"]) == ("5.0", "3")
    assert metadata["correlation_id"] == result.run_id
    assert [step.name for step in day.spark.launched] == ["ingest_daily", "publish_tables"]
    # The launcher keeps the cluster of the first for the second.
    assert [step.is_followed for step in day.spark.launched] == [True, False]
    assert {step.correlation_id for step in day.spark.launched} == {result.run_id}


def run_while(day, monkeypatch, happens):
    """Run the day; `happens` is called when it is about to take the day's lease."""
    taken = daily_records.ingestion_lease

    @contextmanager
    def after_it(published, of_day, **options):
        happens()
        with taken(published, of_day, **options) as lease:
            yield lease

    with monkeypatch.context() as patched:
        patched.setattr(daily_records, "ingestion_lease", after_it)
        return day.run()


def test_a_run_that_waited_while_another_published_the_same_input_gives_way(day, monkeypatch):
    day.put_object("0_9", content=b"x" * 100)
    assert day.run().success
    key = dg.AssetKey.from_user_string(RECORDS)
    (made,) = day.instance.fetch_materializations(key, limit=1).records

    def materialised_again():
        day.instance.report_runless_asset_event(made.asset_materialization)

    failure = failure_of(run_while(day, monkeypatch, materialised_again))
    assert failure["failure_class"] == "DUPLICATE_RUN"
    assert f"has materialised {RECORDS} of {DAY} from the same input since this run began" in failure["cause"]
    launched = len(day.spark.launched)
    # Of another input, or before this run began: it means the day to be ingested again.
    day.put_object("10_19", content=b"x" * 100)
    assert run_while(day, monkeypatch, materialised_again).success
    assert len(day.spark.launched) > launched


def test_a_run_goes_on_where_what_a_lost_one_left_published_the_same_input_meanwhile(day, monkeypatch):
    """As a cluster does that is still at work: only this run can follow it to its end."""
    day.put_object("0_9", content=b"x" * 100)
    tomorrow = datetime.now(UTC) + timedelta(days=1)  # by the clock of that cluster's node
    assert run_while(day, monkeypatch, lambda: publish_mark(day, DAY, at=tomorrow)).success
    assert "ingest_daily" in [step.name for step in day.spark.launched]


def test_a_day_with_a_damaged_mark_is_restored_as_its_next_step_states(day):
    day.put_object("0_9", content=b"x" * 100)
    day.published.write(mark_key(AUDIT.on(DAY)), b"{}")
    failure = failure_of(day.run())
    assert failure["failure_class"] == "INPUT_INVALID"
    assert "allow_fewer_offsets" in failure["next_step"]
    assert day.run(config={INPUT: {"allow_fewer_offsets": True}}).success
    assert read_mark(day.published, AUDIT.on(DAY)) is not None


def test_dagster_plots_the_figures_that_matter_alone(day):
    day.put_object("0_9", content=b"x" * 100)
    result = day.run()
    plotted = {
        event.asset_key.path[-1]: {
            name
            for name, value in event.materialization.metadata.items()
            if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key.path[-1] in ("business_audit", "daily_records", "auditlog_managed")
    }
    assert plotted == {
        "business_audit": {"offsets", "input_bytes"},
        "daily_records": {"records_published", "records_rejected", "input_bytes", "published_bytes", "seconds"},
        "auditlog_managed": {"dagster/row_count", "stored_bytes", "seconds"},
    }


def test_what_a_launch_cost_is_the_sum_of_its_attempts_and_nothing_where_nothing_was_paid():
    def attempt(**detail):
        return LaunchAttempt(where="j-1", outcome="COMPLETED", seconds=1, detail=detail)

    paid = [attempt(estimated_cost_usd=0.25), attempt(estimated_cost_usd=1.5), attempt()]
    assert cost_metadata(paid) == {"cost_usd": 1.75}
    assert cost_metadata([attempt()]) == {}


def test_the_status_row_is_completed_by_the_last_step_of_the_run_only_and_keeps_what_came_before(day):
    day.put_object("0_9")
    day.run()
    assert day.rows.told == [
        ("pin", "IN_PROGRESS"),
        ("pin", "IN_PROGRESS"),
        ("ingest_daily", "IN_PROGRESS"),
        ("ingest_daily", "IN_PROGRESS"),
        ("publish_tables", "IN_PROGRESS"),
        ("publish_tables", "COMPLETED"),
    ]
    last = day.rows.writes[-1]
    assert last.data_product == "CDI-data:businessAudit"
    assert last.export_day.isoformat() == "2023-03-27"
    assert last.daily_records_uri.endswith("/json/daily/2023-03-27/data/businessAudit/")
    assert last.detail["published"] == 10
    assert last.detail["uc.auditlog_red_v"] == 10


def test_a_collection_without_tables_is_complete_with_its_daily_records(tmp_path):
    with dagster_day(tmp_path, table_definitions={"data:equality": None}) as day:
        day.put_object("0_9", of=EQUALITY)
        assert day.run(collection=EQUALITY).success
        assert day.rows.told[-1] == ("ingest_daily", "COMPLETED")


def test_a_keyed_collection_is_published_as_daily_rows_by_the_same_run_with_a_check_more(tmp_path):
    with dagster_day(tmp_path) as day:
        day.put_object("0_9", of=CALCULATION_PARTS)
        result = day.run(collection=CALCULATION_PARTS)
        assert result.success
        metadata = metadata_of(result, "calculation_parts/daily_rows")
        assert (metadata["records_published"], metadata["rows_insert"], metadata["rows_delete"]) == (10, "9", "1")
        assert {name: check.passed for name, check in checks_of(result).items()} == {
            "counts_reconcile": True,
            "offsets_are_whole": True,
            "nothing_rejected": True,
            "id_parts_are_hexadecimal": True,
        }
        assert day.rows.told[-1] == ("ingest_daily", "COMPLETED")
        last = day.rows.writes[-1]
        assert last.data_product == "CDI-calculator:calculationParts"
        assert last.daily_records_uri.endswith("calculationParts/export_year=2023/export_month=3/export_day=27/")


def test_rows_in_another_id_part_than_productions_are_a_warning_that_counts_them(tmp_path):
    with dagster_day(tmp_path) as day:
        day.put_object("0_9", of=CALCULATION_PARTS)
        assert day.run(collection=CALCULATION_PARTS).success
        rows_day = CALCULATION_PARTS.on(DAY)
        mark = read_mark(day.published, rows_day)
        part = replace(mark.parts[0], key=mark.parts[0].key.replace("id_part=0a", "id_part=Z%2F"), records=3)
        odd = replace(mark, parts=(*mark.parts, part))
        day.published.write(mark_key(rows_day), odd.to_bytes())
        result = id_parts_result(day.published, rows_day)
    assert (result.passed, result.severity.value) == (False, "WARN")
    assert result.description == "3 rows in id_part=Z%2F: not two hexadecimal digits"


def test_the_job_reads_the_kept_manifest_and_gets_every_argument(day):
    day.put_object("0_9", content=b"x" * 100)
    day.run(INPUT, RECORDS, config={RECORDS: {"max_rejected": "1%", "allow_sparse_offsets": True}})
    (step,) = day.spark.launched
    assert "/pinned/" in argument(step, "--pinned-input")
    assert argument(step, "--max-rejected") == "1%"
    assert argument(step, "--dks-url") == day.settings.dks_url
    assert "--allow-sparse-offsets" in step.arguments
    assert "--allow-empty" not in step.arguments
    assert step.input_bytes == 100
    assert not step.is_followed


def test_an_input_that_changed_since_it_was_pinned_stops_the_run_before_any_launch(day):
    key = day.put_object("0_9")
    assert day.run(INPUT).success
    day.corporate.delete([key])
    failure = failure_of(day.run(RECORDS))
    assert failure["failure_class"] == "INPUT_CHANGED"
    assert key in failure["cause"]
    assert day.spark.launched == []


@pytest.mark.parametrize("state", [CoalescerState.UNKNOWN, CoalescerState.NOT_STARTED])
def test_a_gate_that_the_changed_input_shut_gives_way_to_the_name_of_the_object(day, state):
    key = day.put_object("0_9")
    assert day.run(INPUT).success
    day.corporate.delete([key])
    day.status.state = state
    failure = failure_of(day.run(RECORDS))
    assert failure["failure_class"] == "INPUT_CHANGED"
    assert key in failure["cause"]
    assert "override_gate" not in failure["next_step"]
    assert day.spark.launched == []


@pytest.mark.parametrize("state", [CoalescerState.UNKNOWN, CoalescerState.NOT_STARTED])
def test_a_gate_that_is_shut_over_an_unchanged_input_keeps_its_class(day, state):
    day.put_object("0_9")
    assert day.run(INPUT).success
    day.status.state = state
    assert failure_of(day.run(RECORDS))["failure_class"] == f"COALESCER_{state}"
    assert day.spark.launched == []


def test_beside_a_running_coalescer_a_changed_input_is_not_looked_for(day):
    key = day.put_object("0_9")
    assert day.run(INPUT).success
    day.corporate.delete([key])
    day.status.state = CoalescerState.RUNNING
    assert failure_of(day.run(RECORDS))["failure_class"] == "COALESCER_RUNNING"


def test_daily_records_alone_pass_the_gate_too(day):
    day.put_object("0_9")
    assert day.run(INPUT).success
    day.status.state = CoalescerState.RUNNING
    assert failure_of(day.run(RECORDS))["failure_class"] == "COALESCER_RUNNING"
    assert day.spark.launched == []


def test_a_day_that_was_never_pinned_says_what_to_materialise_first(day):
    failure = failure_of(day.run(RECORDS))
    assert failure["failure_class"] == "INPUT_INVALID"
    assert INPUT in failure["next_step"]


def test_a_failed_job_keeps_its_class_and_log_on_the_run_page_the_tag_and_the_status_row(day):
    day.put_object("0_9")
    day.spark.failure = CdiError(
        FailureClass.JOB_FAILED, "Spark ended with exit code 1: oh", detail={"last_log_lines": "a\noh", "exit_code": 1}
    )
    result = day.run()
    failure = failure_of(result)
    assert failure["failure_class"] == "JOB_FAILED"
    assert failure["runbook"].endswith("#job_failed")
    assert failure["last_log_lines"] == "```\na\noh\n```"
    assert failure["detail"] == {"exit_code": 1}
    assert day.rows.writes[-1].status == "FAILED"
    assert day.instance.get_run_by_id(result.run_id).tags["cdi/failure_class"] == "JOB_FAILED"


def test_the_page_of_a_failed_run_promises_a_retry_only_where_the_day_is_launched_by_itself(tmp_path):
    with dagster_day(tmp_path, automation=True) as day:
        day.put_object("0_9")
        day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")
        with freeze_time("2023-03-27T12:00:00Z"):
            recent = failure_of(day.run())
        with freeze_time("2023-06-01T12:00:00Z"):
            old = failure_of(day.run())
    assert recent["what_happens_by_itself"] == FAILURE_GUIDE[FailureClass.CLUSTER_LOST].by_itself
    assert old["what_happens_by_itself"].startswith("Nothing: automation launches storage days from 2023-05-25 on")
    assert f"**By itself**: {old['what_happens_by_itself']}\n- **You**" in old["what_to_do"]


def test_rejects_over_the_limit_are_the_class_that_says_so(day):
    day.put_object("0_9")
    samples = [{"reason": "date", "detail": "a date does not parse", "key": "a/b.jsonl.gz", "line_number": 7}]
    day.spark.failure = CdiError(
        FailureClass.RECORDS_REJECTED,
        "3 of 10 records were rejected, 0 allowed.",
        detail={"read": 10, "rejected": 3, "rejected_by_reason": {"date": 3}, "samples": samples},
    )
    failure = failure_of(day.run())
    assert failure["failure_class"] == "RECORDS_REJECTED"
    assert failure["rerun_helps"] is False
    assert "| date | 3 |" in failure["rejected_by_reason"]
    assert "| date | a date does not parse | `a/b.jsonl.gz` | 7 |" in failure["reject_samples"]
    assert failure["detail"] == {"read": 10, "rejected": 3}


def test_rejects_within_the_limit_are_shown_by_reason_and_place(day):
    key = day.put_object("0_9")
    day.spark.rejected = 2
    result = day.run(config={RECORDS: {"max_rejected": "2"}})
    assert result.success
    metadata = metadata_of(result, RECORDS)
    assert metadata["records_rejected"] == 2
    assert "| date | 2 |" in metadata["rejected_by_reason"]
    assert key in metadata["reject_samples"]
    assert "/rejects/" in metadata["rejects"]


def test_a_storage_that_fails_is_reported_with_its_place(day, monkeypatch):
    day.put_object("0_9")
    day.spark.failure = StorageUnavailableError("file:///x: no space left on device")
    failure = failure_of(day.run())
    assert failure["failure_class"] == "JOB_FAILED"
    assert "no space left" in failure["cause"]


def test_an_unexpected_error_has_a_class_and_a_next_step_on_the_page_and_only_its_type_in_the_row(day):
    day.put_object("0_9")
    day.spark.failure = ZeroDivisionError("a secret")
    result = day.run()
    failure = failure_of(result)
    assert failure["failure_class"] == "JOB_FAILED"
    assert failure["cause"].startswith("The step ingest_daily failed with ZeroDivisionError;")
    assert failure["runbook"].endswith("#job_failed")
    assert (failure["owner"], bool(failure["next_step"])) == ("CDI on-call engineer", True)
    assert "a secret" not in str(failure)
    assert day.rows.writes[-1].failure == f"JOB_FAILED: {failure['cause']}"
    assert day.instance.get_run_by_id(result.run_id).tags["cdi/failure_class"] == "JOB_FAILED"


def test_a_run_of_the_assets_page_can_be_read_on_the_list_of_runs_too(day):
    day.put_object("0_9")
    result = day.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key=DAY.isoformat(),
        instance=day.instance,
        asset_selection=[dg.AssetKey(INPUT.split("/")), dg.AssetKey(RECORDS.split("/"))],
    )
    tags = day.instance.get_run_by_id(result.run_id).tags
    assert (tags["cdi/collection"], tags["cdi/export_day"]) == ("data.businessAudit", "2023-03-27")
    assert "cdi/launched_by" not in tags  # that it was a person, Dagster shows


def test_tags_that_nobody_reads_are_hidden_in_the_ui():
    assert get_tag_type(names.NEEDS_NO_COMPUTE_TAG) is get_tag_type(names.ROW_CLOSED_TAG) is TagType.HIDDEN


def test_an_instance_that_refuses_the_tag_does_not_hide_why_the_step_failed(day, monkeypatch):
    day.put_object("0_9")
    day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    add_tags = day.instance.add_run_tags

    def refuse(run_id, tags):
        if {"cdi/failure_class", "cdi/export_day"} & tags.keys():
            raise ConnectionError("the run storage does not answer")
        add_tags(run_id, tags)

    monkeypatch.setattr(day.instance, "add_run_tags", refuse)
    assert failure_of(day.run())["failure_class"] == "DKS_FORBIDDEN"
    assert day.rows.writes[-1].failure == "DKS_FORBIDDEN: 403"


class TerminatedSpark(ScriptedSpark):
    """Somebody terminates its run."""

    def launch(self, context, step):
        context.instance.report_run_canceling(context.run)
        raise dg.DagsterExecutionInterruptedError


def test_a_terminated_run_leaves_a_failed_row_and_no_failure_class(day):
    day.put_object("0_9")
    day.spark = TerminatedSpark(day.published)
    day.use()
    result = day.run()
    assert not result.success
    assert (day.rows.writes[-1].status, day.rows.writes[-1].failure) == ("FAILED", "The run was terminated.")
    assert "cdi/failure_class" not in day.instance.get_run_by_id(result.run_id).tags


def test_a_run_whose_process_is_ended_with_dagster_was_interrupted(day):
    day.put_object("0_9")
    day.spark.failure = dg.DagsterExecutionInterruptedError()
    result = day.run()
    assert not result.success
    row = day.rows.writes[-1]
    assert (row.status, row.failure) == ("FAILED", "INTERRUPTED: Dagster was stopped during the run.")
    assert day.instance.get_run_by_id(result.run_id).tags["cdi/failure_class"] == "INTERRUPTED"


def test_a_run_of_a_person_is_tagged_with_what_it_was_launched_for(day):
    day.put_object("0_9")
    result = day.run(INPUT, RECORDS)
    launch = day.instance.get_run_by_id(result.run_id).tags["cdi/launch"]
    assert launch == f"{DAY}|{metadata_of(result, RECORDS)['fingerprint']}"
