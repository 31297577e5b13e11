"""The pinned input of a day: behind the gate, visible, and nothing before it."""

import shutil

import dagster as dg
import pytest

from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.ingestion.pinning import read_pinned_input
from cdi_dagster.run_records import missing_of
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, failure_of, metadata_of
from cdi_dagster_tests.repository.files import REPOSITORY

INPUT = "corporate_storage/business_audit"


def test_a_day_is_pinned_and_its_figures_are_shown(day):
    day.put_object("0_9", content=b"x" * 100)
    day.put_object("15_19", content=b"x" * 50)
    day.put_object("0-4")
    result = day.run(INPUT)
    assert result.success
    metadata = metadata_of(result, INPUT)
    pinned = read_pinned_input(day.published, AUDIT.on(DAY))
    assert (metadata["objects"], metadata["input_bytes"], metadata["offsets"]) == ("2", 150, 15)
    assert (metadata["mean_object_bytes"], metadata["gaps"], metadata["missing_offsets"]) == ("75", "1", "5")
    assert "already merged" in metadata["left_out"]
    assert metadata["fingerprint"] == pinned.fingerprint
    assert metadata["coalescer_reason"] == day.status.reason
    assert day.rows.told == [("pin", "IN_PROGRESS"), ("pin", "COMPLETED")]


def test_a_run_on_an_instance_without_our_configuration_logs_what_is_missing(tmp_path):
    assert len(missing_of(dg.DagsterInstance.ephemeral())) == 3
    shutil.copyfile(REPOSITORY / "deploy" / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert missing_of(instance) == []


def test_the_data_version_is_the_fingerprint_of_the_input(day):
    day.put_object("0_9")
    result = day.run(INPUT)
    event = day.instance.get_latest_materialization_event(dg.AssetKey.from_user_string(INPUT))
    assert event.asset_materialization.tags["dagster/data_version"] == metadata_of(result, INPUT)["fingerprint"]


@pytest.mark.parametrize("state", ["NOT_STARTED", "RUNNING", "FAILED", "UNKNOWN"])
def test_a_closed_gate_fails_at_once_with_its_reason_and_nothing_is_pinned_or_launched(day, state):
    day.put_object("0_9")
    day.status.state = CoalescerState(state)
    day.status.reason = "job abc has run for 42 min"
    result = day.run()
    failure = failure_of(result)
    assert failure["failure_class"] == f"COALESCER_{state}"
    assert failure["cause"] == "job abc has run for 42 min"
    assert failure["runbook"].endswith(f"#coalescer_{state.lower()}")
    assert failure["owner"]
    assert failure["next_step"]
    assert read_pinned_input(day.published, AUDIT.on(DAY)) is None
    assert day.spark.launched == []
    assert day.rows.writes[-1].status == "FAILED"
    assert day.rows.writes[-1].failure.startswith(f"COALESCER_{state}: job abc")


def test_override_gate_goes_on_and_is_written_into_materialisation_and_status_row(day):
    day.put_object("0_9")
    day.status.state = CoalescerState.RUNNING
    result = day.run(config={INPUT: {"override_gate": True}})
    assert result.success
    assert metadata_of(result, INPUT)["gate_overridden"] is True
    assert metadata_of(result, INPUT)["coalescer_state"] == "RUNNING"
    assert day.rows.writes[-1].status == "COMPLETED"
    assert day.rows.writes[-1].detail["gate_overridden"] is True


def test_a_run_that_may_wait_goes_on_when_the_gate_opens(day):
    day.put_object("0_9")
    day.status.state = CoalescerState.RUNNING

    def complete_at_the_third_look(times):
        if times >= 3:
            day.status.state = CoalescerState.COMPLETE

    day.status.on_asked = complete_at_the_third_look
    assert day.run(INPUT, config={INPUT: {"wait_for_coalescer_minutes": 1}}).success
    assert len(day.status.asked) == 3
    assert day.slept == [15.0, 15.0]


def test_a_run_that_may_wait_gives_up_in_the_end(day):
    day.status.state = CoalescerState.RUNNING
    result = day.run(INPUT, config={INPUT: {"wait_for_coalescer_minutes": 1}})
    assert failure_of(result)["failure_class"] == "COALESCER_RUNNING"
    assert len(day.status.asked) == 5
    assert sum(day.slept) == 60


def test_an_empty_day_is_refused_and_says_how_to_accept_it(day):
    failure = failure_of(day.run())
    assert failure["failure_class"] == "INPUT_INVALID"
    assert "no objects" in failure["cause"]
    assert "allow_empty" in failure["next_step"]


def test_an_accepted_empty_day_is_visible_and_publishes_nothing_but_its_mark(day):
    result = day.run(config={INPUT: {"allow_empty": True}})
    assert result.success
    assert metadata_of(result, INPUT)["day"].startswith("EMPTY")
    assert "--allow-empty" in day.spark.launched[0].arguments
    assert metadata_of(result, "business_audit/daily_records")["records_published"] == 0


def test_the_younger_of_two_runs_of_a_day_stops_and_names_the_other(day):
    day.put_object("0_9")
    job = day.definitions.resolve_job_def("business_audit_daily")
    older = day.instance.create_run_for_job(
        job, tags={"dagster/partition": DAY.isoformat()}, status=dg.DagsterRunStatus.STARTED
    )
    failure = failure_of(day.run())
    assert failure["failure_class"] == "DUPLICATE_RUN"
    assert older.run_id in failure["cause"]
    assert day.spark.launched == []
    assert day.rows.writes == []


@pytest.mark.parametrize(
    ("job", "partition", "status"),
    [
        ("business_audit_daily", "2023-03-27", dg.DagsterRunStatus.STARTED),
        ("equality_daily", "2023-03-26", dg.DagsterRunStatus.STARTED),
        ("business_audit_daily", "2023-03-26", dg.DagsterRunStatus.FAILURE),
    ],
)
def test_another_day_another_collection_or_an_ended_run_is_no_duplicate(day, job, partition, status):
    day.put_object("0_9")
    other = day.definitions.resolve_job_def(job)
    day.instance.create_run_for_job(other, tags={"dagster/partition": partition}, status=status)
    assert day.run(INPUT).success
