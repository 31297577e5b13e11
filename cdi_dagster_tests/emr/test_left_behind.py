"""What a launch leaves when it ends in an unusual way, and what the next one makes of it."""

import dagster as dg
import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.emr.backend import UnreachableError
from cdi_dagster.emr.clusters.api import EmrApi
from cdi_dagster.emr.messages import StorageMessageReader
from cdi_dagster_tests.emr.cluster import ClusterFaults
from cdi_dagster_tests.emr.launches import Bench, QuickLauncher, in_a_run
from cdi_dagster_tests.s3_server import new_s3_storage

HELD = ("progress:at work", "wait:/nowhere")
OK = ("report",)


class Stopped(QuickLauncher):
    """A launcher whose process is stopped while it follows a cluster."""

    def sleep(self, seconds: float) -> None:
        raise dg.DagsterExecutionInterruptedError


class StoppedBetweenAttempts(QuickLauncher):
    """A launcher whose process is stopped while it waits before the third attempt."""

    def sleep(self, seconds: float) -> None:
        if seconds > 45:
            raise dg.DagsterExecutionInterruptedError
        super().sleep(seconds)


class Broken(QuickLauncher):
    """A launcher with a defect."""

    def sleep(self, seconds: float) -> None:
        raise ZeroDivisionError


def test_a_cluster_at_work_on_an_input_that_was_pinned_anew_is_ended_first(bench: Bench) -> None:
    def stopped_then_pinned_anew(context: dg.OpExecutionContext) -> None:
        before = bench.step(HELD, OK, correlation_id=context.run.run_id, pinned_input="s3://b/before.json")
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            Stopped(**bench.config()).launch(context, before)
        assert len(bench.emr.live()) == 1
        after = bench.step(HELD, OK, correlation_id=context.run.run_id, pinned_input="s3://b/after.json")
        evidence = QuickLauncher(**bench.config()).launch(context, after)
        assert [attempt.detail["kind"] for attempt in evidence.attempts] == ["SUCCEEDED"]

    logged = in_a_run(stopped_then_pinned_anew)
    old, new = bench.emr.clusters.values()
    assert old.reason_code == "USER_REQUEST"
    assert old.ending_at is not None
    assert old.ending_at < new.created_at
    assert any("works on an input that is no longer requested" in line for line in logged)


def test_a_cluster_at_work_on_another_input_is_ended_first_also_where_that_failed_at_the_first_try(
    bench: Bench,
) -> None:
    def pinned_anew(context: dg.OpExecutionContext) -> None:
        before, after = (
            bench.step(HELD, OK, correlation_id=context.run.run_id, pinned_input=f"s3://b/{name}.json")
            for name in ("before", "after")
        )
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            Stopped(**bench.config()).launch(context, before)
        bench.emr.faults.deaf = True
        with pytest.raises(CdiError, match="could not be ended"):
            QuickLauncher(**bench.config()).launch(context, after)
        bench.emr.faults.deaf = False
        QuickLauncher(**bench.config()).launch(context, after)

    in_a_run(pinned_anew)
    old, new = bench.emr.clusters.values()
    assert old.reason_code == "USER_REQUEST"
    assert old.ending_at is not None
    assert old.ending_at < new.created_at


@pytest.mark.parametrize(("before", "renamed"), [({}, "compact"), ({"existing_cluster_id": "j-1"}, "small")])
def test_an_attempt_that_was_never_requested_takes_the_first_choice_where_its_own_is_gone(
    bench: Bench, before: dict[str, str], renamed: str
) -> None:
    bench.emr.faults.throttle.update(RunJobFlow=1, AddJobFlowSteps=1)

    def stopped(context: dg.OpExecutionContext) -> None:
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            Stopped(**bench.config(**before)).launch(context, bench.step(OK, correlation_id=context.run.run_id))

    def after_a_deploy(context: dg.OpExecutionContext) -> None:
        template = bench.folder / "cluster.yaml"
        template.write_text(template.read_text().replace("name: small", f"name: {renamed}"))
        evidence = QuickLauncher(**bench.config()).launch(context, bench.step(OK, correlation_id=context.run.run_id))
        assert [attempt.detail["profile"] for attempt in evidence.attempts] == [renamed]

    in_a_run(stopped)
    assert bench.emr.clusters == {}
    in_a_run(after_a_deploy)
    assert len(bench.emr.clusters) == 1


def test_a_restart_does_not_give_a_launch_its_budgets_back(bench: Bench) -> None:
    bench.emr.faults.clusters += [ClusterFaults(internal=True) for _ in range(4)]

    def stopped_then_back(context: dg.OpExecutionContext) -> None:
        step = bench.step(OK, correlation_id=context.run.run_id)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            StoppedBetweenAttempts(**bench.config()).launch(context, step)
        assert len(bench.emr.clusters) == 2
        with pytest.raises(CdiError) as caught:
            QuickLauncher(**bench.config()).launch(context, step)
        assert [attempt["kind"] for attempt in caught.value.detail["attempts"]] == ["INTERNAL"] * 3

    in_a_run(stopped_then_back)
    assert len(bench.emr.clusters) == 3


def test_a_launch_that_succeeded_is_not_made_again_in_its_own_run(bench: Bench) -> None:
    def twice(context: dg.OpExecutionContext) -> None:
        step = bench.step(OK, correlation_id=context.run.run_id)
        first, second = (QuickLauncher(**bench.config()).launch(context, step) for _ in range(2))
        assert first == second

    logged = in_a_run(twice)
    assert len(bench.emr.clusters) == 1
    assert any("had succeeded already" in line for line in logged)


def test_a_defect_of_our_own_still_ends_the_cluster(bench: Bench) -> None:
    def broken(context: dg.OpExecutionContext) -> None:
        with pytest.raises(ZeroDivisionError):
            Broken(**bench.config()).launch(context, bench.step(HELD, correlation_id=context.run.run_id))

    in_a_run(broken)
    bench.emr.wait(lambda: bench.emr.live() == [])


def test_an_emr_that_does_not_respond_fails_the_run_and_leaves_the_cluster_to_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind_then_seeing(context: dg.OpExecutionContext) -> None:
        step = bench.step(("progress:at work", "report"), correlation_id=context.run.run_id)
        observe = EmrApi.observe
        monkeypatch.setattr(EmrApi, "observe", _no_response)
        with pytest.raises(CdiError, match="could not be read") as caught:
            QuickLauncher(**bench.config(blind_seconds=0.3)).launch(context, step)
        monkeypatch.setattr(EmrApi, "observe", observe)
        assert caught.value.failure_class is FailureClass.CLUSTER_LOST
        assert "re-execute" in caught.value.next_step.lower()
        QuickLauncher(**bench.config()).launch(context, step)

    logged = in_a_run(blind_then_seeing)
    assert len(bench.emr.clusters) == 1
    assert "at work" in logged


def _no_response(*_: object) -> None:
    raise UnreachableError("no response")


def test_every_waiting_chunk_is_read_at_once_and_damage_costs_one_message_only() -> None:
    storage = new_s3_storage()
    for number in range(1, 31):
        storage.write(f"m/{number}.json", b'{"method": "x"}\n{"method": "y"}' if number != 7 else b"{damaged")
    heard: list[str] = []

    class Handler:
        def handle_message(self, message: dict[str, str]) -> None:
            heard.append(message["method"])

    reader = StorageMessageReader(storage, "m", live_stdio=False)
    with reader.read_messages(Handler()) as params:
        reader.poll()
        assert len(heard) == 58
        storage.write("m/31.json", b'{"method": "z"}')
        reader.poll()
    assert heard[-1] == "z"
    assert params["key_prefix"] == "m"
