"""Steps pass clusters on: what a day and a backfill start, and what happens when a cluster or a run dies."""

import json
import shlex
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.storage_keys import clusters_prefix, launch_prefix
from cdi_dagster.emr.backend import Backend, Demand, JobRequest, JobState
from cdi_dagster.emr.clusters.launcher import EmrPySparkStepLauncher
from cdi_dagster.emr.clusters.pool import ClusterPool, PoolEntry
from cdi_dagster.emr.clusters.sharing import CLAIM_SECONDS
from cdi_dagster.emr.launch_plan import AttemptOutcome
from cdi_dagster.emr.ledger import AttemptEntry, LaunchLedger
from cdi_dagster.interfaces import SparkStep
from cdi_dagster.names import NEEDS_NO_COMPUTE_TAG
from cdi_dagster.own_tags import own_tags
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.emr import played_step
from cdi_dagster_tests.emr.cluster import Cluster, ClusterFaults
from cdi_dagster_tests.emr.launches import BUNDLE, DAY, Bench, QuickLauncher, in_a_run
from cdi_dagster_tests.emr.test_left_behind import Stopped

OK = ("report",)
OTHERS_WAIT = Demand(other_runs=100)


class Steps:
    """Steps that end at once, by the backend alone: what a launch asks of it, without a Dagster run."""

    def __init__(self, bench: Bench, *, ahead_seconds: float = 0, **config: Any) -> None:
        self.bench = bench
        self.step = bench.step(OK, correlation_id="run")
        launcher = QuickLauncher(**bench.config(**config))
        object.__setattr__(launcher, "now", lambda: time.time() + ahead_seconds)
        self.backend: Backend = launcher.backend_for(self.step)
        bench.emr.faults.clusters += [ClusterFaults(step_exit=0) for _ in range(60)]

    def submit(self, name: str, profile: str = "small", run_id: str | None = None) -> AttemptEntry:
        attempt = AttemptEntry(
            number=1, name=f"cdi-{name}", profile=profile, run_id=run_id or name, requested_at=time.time()
        )
        return self.submit_again(attempt)

    def submit_again(self, attempt: AttemptEntry) -> AttemptEntry:
        job = JobRequest(step=self.step, run_id=attempt.run_id, pipes=())
        compute = self.backend.submit(attempt, job)
        return replace(attempt, compute_id=compute.compute_id, profile=compute.profile)

    def complete(self, attempt: AttemptEntry) -> AttemptEntry:
        self.bench.emr.wait(lambda: self.backend.observe(attempt).state is JobState.COMPLETED)
        return attempt

    def left_idle(self, name: str, profile: str = "small") -> Cluster:
        """Have a step leave its cluster to others."""
        attempt = self.complete(self.submit(name, profile))
        assert self.backend.release(attempt, OTHERS_WAIT)
        return self.bench.emr.clusters[str(attempt.compute_id)]


@pytest.fixture
def steps(bench: Bench) -> Steps:
    bench.emr.idle_scale = 1.0
    return Steps(bench)


def pool_of(bench: Bench) -> ClusterPool:
    return ClusterPool(open_storage(bench.published_root))


def end_all(bench: Bench) -> None:
    for cluster in bench.emr.live():
        cluster.terminate("by the test", code="USER_REQUEST")
    bench.emr.wait(lambda: bench.emr.live() == [])


@dg.job
def another_job() -> None:
    """A job to have runs of."""


def queue_run(instance: dg.DagsterInstance, partition: str, **tags: str) -> dg.DagsterRun:
    return instance.create_run_for_job(
        another_job, status=dg.DagsterRunStatus.NOT_STARTED, tags={**tags, "dagster/partition": partition}
    )


def play_tables(bench: Bench) -> None:
    """Have clusters install a played `publish_tables`, too, and idle for long enough to get it on a slow machine."""
    bench.emr.idle_scale = 1.0
    names = ("ingest_daily", "publish_tables")
    copies = [f'cp {shlex.quote(str(played_step.__file__))} "$CDI_PREFIX/entry_points/{name}.py"' for name in names]
    script = "\n".join(['set -e; mkdir -p "$CDI_PREFIX/entry_points"', *copies])
    bench.emr.client("s3").put_object(Bucket=bench.bucket, Key=f"bundles/{BUNDLE}/bootstrap.sh", Body=script.encode())


def day_of(bench: Bench, run_id: str, number: int = 0) -> tuple[SparkStep, SparkStep]:
    """Return the two steps of a day."""
    records = bench.step(OK, correlation_id=run_id)
    records = replace(records, storage_day=DAY + timedelta(days=number), is_followed=True)
    return records, replace(records, job=PUBLISH_TABLES, is_followed=False)


# --- launches, in Dagster runs --------------------------------------------------------------------------------


def test_a_day_starts_one_cluster_which_is_ended_when_its_last_step_has_ended(bench: Bench) -> None:
    play_tables(bench)

    def day(context: dg.OpExecutionContext) -> None:
        launcher = QuickLauncher(**bench.config())
        for step in day_of(bench, context.run.run_id):
            evidence = launcher.launch(context, step)
            [attempt] = evidence.attempts
            assert attempt.detail["kind"] == "SUCCEEDED"
            assert attempt.detail["cluster_id"] in bench.emr.clusters

    logged = in_a_run(day)
    [cluster] = bench.emr.clusters.values()
    assert bench.emr.calls["RunJobFlow"] == 1
    assert [step.state for step in cluster.steps] == ["COMPLETED"] * 2
    assert cluster.reason_code == "USER_REQUEST"
    assert any("takes j-" in line and "nothing is started" in line for line in logged)
    bench.emr.wait(lambda: cluster.has_ended)
    assert pool_of(bench).entries() == []
    # The second step pays for the moment in which the cluster idled before it, too.
    entry = LaunchLedger(open_storage(bench.published_root), launch_prefix(AUDIT.on(DAY), "publish_tables")).read()
    assert entry is not None
    assert entry.attempts[0].billed_seconds > entry.attempts[0].seconds


def test_a_run_that_resumes_the_first_step_of_a_day_has_its_cluster_for_the_second(bench: Bench) -> None:
    play_tables(bench)
    go = bench.folder / "go"
    held = json.dumps([(f"wait:{go}", "report")])

    def day(context: dg.OpExecutionContext, launcher: QuickLauncher) -> None:
        records, tables = day_of(bench, context.run.run_id)
        launcher.launch(context, replace(records, arguments=("--plays", held)))
        launcher.launch(context, tables)

    def stopped(context: dg.OpExecutionContext) -> None:
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            day(context, Stopped(**bench.config()))

    in_a_run(stopped)
    go.touch()
    in_a_run(lambda context: day(context, QuickLauncher(**bench.config())))
    assert bench.emr.calls["RunJobFlow"] == 1
    [cluster] = bench.emr.clusters.values()
    assert [step.state for step in cluster.steps] == ["COMPLETED"] * 2


def test_a_cluster_that_dies_between_the_two_steps_of_a_day_is_replaced(bench: Bench) -> None:
    play_tables(bench)

    def day(context: dg.OpExecutionContext) -> None:
        launcher = QuickLauncher(**bench.config())
        records, tables = day_of(bench, context.run.run_id)
        launcher.launch(context, records)
        end_all(bench)
        evidence = launcher.launch(context, tables)
        assert [attempt.detail["kind"] for attempt in evidence.attempts] == ["SUCCEEDED"]

    in_a_run(day)
    assert len(bench.emr.clusters) == 2


def test_a_cluster_that_ends_as_a_step_is_added_costs_another_attempt_and_no_person(bench: Bench) -> None:
    play_tables(bench)
    bench.emr.faults.clusters.append(ClusterFaults(end_at_added_step=True))

    def day(context: dg.OpExecutionContext) -> None:
        launcher = QuickLauncher(**bench.config())
        records, tables = day_of(bench, context.run.run_id)
        launcher.launch(context, records)
        evidence = launcher.launch(context, tables)
        assert [attempt.detail["kind"] for attempt in evidence.attempts] == ["INTERNAL", "SUCCEEDED"]

    in_a_run(day)
    assert len(bench.emr.clusters) == 2


def test_out_of_memory_goes_to_a_larger_cluster_although_smaller_ones_idle(bench: Bench) -> None:
    bench.emr.idle_scale = 1.0
    Steps(bench).left_idle("before")
    bench.emr.faults.clusters.clear()
    [first] = bench.emr.live()
    first.faults = ClusterFaults(step_exit=1, step_stderr="java.lang.OutOfMemoryError: Java heap space\n")

    launched = bench.launch(OK)
    assert launched.attempts == [("small", "OUT_OF_MEMORY"), ("medium", "SUCCEEDED")]
    assert launched.evidence is not None
    assert [attempt.detail["cluster_id"] for attempt in launched.evidence.attempts] == list(bench.emr.clusters)
    # What went out of memory is given to nobody.
    assert first.is_ending


def test_a_key_service_that_comes_back_finds_the_cluster_still_there(bench: Bench) -> None:
    bench.emr.idle_scale = 1.0
    launched = bench.launch(("failure:DKS_UNAVAILABLE",), OK)
    assert launched.attempts == [("small", "KEY_SERVICE"), ("small", "SUCCEEDED")]
    assert bench.emr.calls["RunJobFlow"] == 1


def test_a_job_that_failed_by_itself_leaves_its_cluster_to_the_runs_that_wait(bench: Bench) -> None:
    bench.emr.idle_scale = 1.0

    def failing_then_next(context: dg.OpExecutionContext) -> None:
        launcher = QuickLauncher(**bench.config())
        queued = queue_run(context.instance, "2023-03-27")
        with pytest.raises(Exception, match="As played"):
            launcher.launch(context, bench.step(("failure:INPUT_INVALID",), OK, correlation_id="one"))
        context.instance.report_run_canceled(queued)
        next_day = replace(
            bench.step(("failure:INPUT_INVALID",), OK, correlation_id="two"), storage_day=DAY + timedelta(days=1)
        )
        launcher.launch(context, next_day)

    in_a_run(failing_then_next)
    assert bench.emr.calls["RunJobFlow"] == 1
    assert all(cluster.is_ending for cluster in bench.emr.live())


# --- the backend alone ----------------------------------------------------------------------------------------


def test_a_month_of_days_by_four_runs_at_a_time_starts_four_clusters_at_most(steps: Steps) -> None:
    days, run_limit = 30, 4
    lock, begun, ended = threading.Lock(), 0, 0

    def run_day(number: int) -> None:
        nonlocal begun, ended
        for step, profile, is_followed in (("records", "large", True), ("tables", "small", False)):
            attempt = steps.complete(steps.submit(f"{number}-{step}", profile, run_id=f"run-{number}"))
            # One at a time: of two that end at the same moment, one may offer its cluster to the other that has ended.
            with lock:
                ended += not is_followed
                others = days - ended - is_followed
                assert steps.backend.release(attempt, Demand(by_this_run=is_followed, other_runs=others))

    with ThreadPoolExecutor(run_limit) as workers:
        list(workers.map(run_day, range(days)))
    emr = steps.bench.emr
    assert emr.calls["RunJobFlow"] <= run_limit
    assert sum(len(cluster.steps) for cluster in emr.clusters.values()) == 2 * days
    # No cluster had two steps at a time: each began when the one before had ended.
    for cluster in emr.clusters.values():
        assert all(a.ended_at <= b.created_at for a, b in zip(cluster.steps, cluster.steps[1:], strict=False))  # type: ignore[operator]
    # As the queue empties they are ended, not left to idle.
    emr.wait(lambda: emr.live() == [])
    assert {cluster.reason for cluster in emr.clusters.values()} == {"Terminated by user request"}


def test_of_two_runs_that_claim_at_once_one_has_the_cluster(steps: Steps) -> None:
    idle = steps.left_idle("before")
    barrier = threading.Barrier(2)

    def run(name: str) -> AttemptEntry:
        barrier.wait()
        return steps.submit(name)

    with ThreadPoolExecutor(2) as workers:
        taken = list(workers.map(run, ("one", "two")))
    assert len({attempt.compute_id for attempt in taken}) == 2
    assert idle.cluster_id in {attempt.compute_id for attempt in taken}
    assert steps.bench.emr.calls["RunJobFlow"] == 2
    end_all(steps.bench)


def test_a_run_whose_cluster_another_was_faster_to_claim_finds_one_that_was_offered_meanwhile(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (steps.complete(steps.submit(name)) for name in ("first", "second"))
    assert steps.backend.release(first, OTHERS_WAIT)
    pool = pool_of(steps.bench)
    listed = pool.entries()
    assert steps.backend.release(second, OTHERS_WAIT)
    assert pool.claim(listed[0], "another", now=time.time())
    looks = iter([listed])
    entries = ClusterPool.entries
    monkeypatch.setattr(ClusterPool, "entries", lambda self: next(looks, None) or entries(self))
    assert steps.submit("late").compute_id == second.compute_id
    assert steps.bench.emr.calls["RunJobFlow"] == 2
    end_all(steps.bench)


def test_between_two_steps_of_a_run_its_cluster_is_kept_for_it_until_the_run_is_taken_for_dead(steps: Steps) -> None:
    records = steps.complete(steps.submit("run-1"))
    assert steps.backend.release(records, Demand(by_this_run=True, other_runs=100))
    assert steps.complete(steps.submit("run-2")).compute_id != records.compute_id
    tables = replace(records, name="cdi-run-1-tables", compute_id=None)
    assert steps.complete(steps.submit_again(tables)).compute_id == records.compute_id
    assert steps.backend.release(replace(tables, compute_id=records.compute_id), Demand(by_this_run=True))
    later = Steps(steps.bench, ahead_seconds=CLAIM_SECONDS + 1)
    assert later.submit("run-3").compute_id == records.compute_id
    end_all(steps.bench)


def test_who_is_the_last_to_need_a_cluster_ends_those_that_are_on_offer_too(steps: Steps) -> None:
    last, held = (steps.complete(steps.submit(name)) for name in ("last", "held"))
    idle = steps.left_idle("idle")
    assert steps.backend.release(last, Demand())  # a doubt about this one says nothing of the others
    assert not idle.is_ending
    assert steps.backend.release(held, Demand(other_runs=0))
    steps.bench.emr.wait(lambda: steps.bench.emr.live() == [])
    assert pool_of(steps.bench).entries() == []


def test_runs_that_only_have_checks_left_are_not_counted_as_needing_a_cluster(bench: Bench) -> None:
    launcher = EmrPySparkStepLauncher(**bench.config())

    def count(context: dg.OpExecutionContext) -> None:
        others = [queue_run(context.instance, f"2023-03-0{number}") for number in (1, 2)]
        assert launcher.other_runs(context, False) == 2
        at_its_end = own_tags(others[0].run_id, {NEEDS_NO_COMPUTE_TAG: "true"})
        context.instance.add_run_tags(others[0].run_id, at_its_end)
        assert launcher.other_runs(context, True) == 1
        own = context.instance.get_run_by_id(context.run.run_id)
        assert own is not None
        assert own.tags[NEEDS_NO_COMPUTE_TAG] == "true"
        # A re-execution copies the tags of its parent, and has everything before it.
        queue_run(context.instance, "2023-03-03", **own.tags)
        assert launcher.other_runs(context, True) == 2

    in_a_run(count)


def test_a_cluster_that_died_idle_is_forgotten_and_another_started(steps: Steps) -> None:
    idle = steps.left_idle("before")
    end_all(steps.bench)
    assert [entry.cluster_id for entry in pool_of(steps.bench).entries()] == [idle.cluster_id]
    assert steps.submit("after").compute_id != idle.cluster_id
    assert pool_of(steps.bench).entries() == []
    end_all(steps.bench)


def test_an_idle_cluster_that_nobody_takes_ends_by_itself(steps: Steps) -> None:
    steps.bench.emr.idle_scale = 0.005
    idle = steps.left_idle("before")
    steps.bench.emr.wait(lambda: idle.has_ended)
    assert idle.reason == "Terminated by its auto-termination policy"


def test_a_claimed_cluster_that_refuses_the_step_is_forgotten_and_another_started(steps: Steps) -> None:
    idle = steps.left_idle("before")
    steps.bench.emr.faults.reject["AddJobFlowSteps"] = ("ValidationException", "A job flow that is shutting down")
    assert steps.submit("after").compute_id != idle.cluster_id
    assert pool_of(steps.bench).entries() == []
    end_all(steps.bench)


def test_a_lost_response_of_a_reused_cluster_is_found_by_the_steps_name(bench: Bench) -> None:
    bench.emr.idle_scale = 1.0
    Steps(bench).left_idle("before")
    [cluster] = bench.emr.live()
    cluster.faults = ClusterFaults()
    bench.emr.faults.lose_answer.append("AddJobFlowSteps")
    launched = bench.launch(OK, OK)
    assert launched.attempts == [("small", "SUCCEEDED")]
    assert "the request had been accepted" in launched.text
    assert (bench.emr.calls["AddJobFlowSteps"], bench.emr.calls["RunJobFlow"]) == (1, 1)


@pytest.mark.parametrize("lost", [[], ["AddJobFlowSteps"]])
def test_a_process_that_follows_a_stopped_one_finds_its_step_on_the_cluster_that_it_took(
    bench: Bench, lost: list[str]
) -> None:
    bench.emr.idle_scale = 1.0
    idle, go = Steps(bench).left_idle("before"), bench.folder / "go"
    idle.faults = ClusterFaults()
    bench.emr.faults.lose_answer += lost

    def stopped_then_back(context: dg.OpExecutionContext) -> None:
        step = bench.step((f"wait:{go}", "report"), correlation_id=context.run.run_id)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            Stopped(**bench.config()).launch(context, step)
        go.touch()
        evidence = QuickLauncher(**bench.config()).launch(context, step)
        assert evidence.cluster_id == idle.cluster_id

    logged = in_a_run(stopped_then_back)
    assert (bench.emr.calls["AddJobFlowSteps"], bench.emr.calls["RunJobFlow"]) == (1, 1)
    assert any("resuming its attempt 1" in line for line in logged)


def test_the_claim_of_a_holder_that_died_is_taken_when_the_cluster_idled_for_its_time(steps: Steps) -> None:
    idle = steps.left_idle("before")
    pool = pool_of(steps.bench)
    [entry] = pool.entries()
    assert pool.claim(entry, "cdi-died", now=time.time())
    young = steps.submit("soon-after")
    assert young.compute_id != idle.cluster_id
    later = Steps(steps.bench, ahead_seconds=200)
    assert later.submit("later").compute_id == idle.cluster_id
    end_all(steps.bench)


def test_whoever_holds_no_claim_ends_its_own_step_and_a_cluster_with_a_step_on_it_is_not_ended(steps: Steps) -> None:
    idle = steps.left_idle("before")
    idle.faults = ClusterFaults()
    go = steps.bench.folder / "go"
    steps.step = steps.bench.step((f"wait:{go}",), correlation_id="slow")
    holder = steps.submit("holder")
    # Processes that slept between claim and request, while their claims were taken.
    late, later = (replace(holder, name=name) for name in ("cdi-late", "cdi-later"))
    for attempt in (late, later):
        idle.add_step({**idle.steps[-1].request, "Name": attempt.name})

    steps.backend.end(late)
    assert steps.backend.release(late, Demand())
    assert [step.state for step in idle.steps[2:]] == ["CANCELLED", "PENDING"]
    go.touch()
    steps.complete(holder)
    assert steps.backend.release(holder, Demand())
    steps.complete(later)
    assert not idle.is_ending
    end_all(steps.bench)


def test_a_run_that_is_cancelled_on_a_cluster_that_it_took_ends_it(steps: Steps) -> None:
    idle = steps.left_idle("before")
    idle.faults = ClusterFaults()
    steps.step = steps.bench.step(("wait:/nowhere",), correlation_id="slow")
    attempt = steps.submit("cancelled")
    steps.backend.end(attempt)
    steps.bench.emr.wait(lambda: idle.has_ended)
    assert steps.backend.release(attempt, OTHERS_WAIT)
    assert pool_of(steps.bench).entries() == []


def test_a_larger_idle_cluster_serves_a_small_day_by_its_own_profile(steps: Steps) -> None:
    template = steps.bench.folder / "cluster.yaml"
    template.write_text(
        template.read_text().replace("    size: 2\n", "    size: 2\n    spark_conf: {spark.cores: '8'}\n")
    )
    steps = Steps(steps.bench)
    idle = steps.left_idle("before", "medium")
    taken = steps.submit("small-day")
    assert (taken.compute_id, taken.profile) == (idle.cluster_id, "medium")
    assert "spark.cores=8" in idle.steps[-1].request["HadoopJarStep"]["Args"]
    tags = {tag["Key"]: tag["Value"] for tag in idle.request["Tags"]}
    assert (tags["cdi:run_id"], tags["cdi:profile"]) == ("small-day", "medium")
    end_all(steps.bench)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda bench: Steps(bench, bundle_uri=f"s3://{bench.bucket}/bundles/b2"), id="another bundle"),
        pytest.param(lambda bench: _with_other_release(bench), id="another template"),
    ],
)
def test_a_cluster_that_is_made_of_something_else_is_not_taken(steps: Steps, other: Callable[[Bench], Steps]) -> None:
    idle = steps.left_idle("before")
    assert other(steps.bench).submit("after").compute_id != idle.cluster_id
    end_all(steps.bench)


def _with_other_release(bench: Bench) -> Steps:
    template = bench.folder / "cluster.yaml"
    template.write_text(template.read_text().replace("emr-7.13.0", "emr-7.14.0"))
    return Steps(bench)


def test_the_minutes_in_which_a_cluster_idled_are_paid_by_the_run_that_takes_it(steps: Steps) -> None:
    idle = steps.left_idle("before")
    ended_at = idle.steps[0].ended_at
    taken = steps.complete(steps.submit("after"))
    status = steps.backend.observe(taken)
    assert status.is_billed
    assert status.idle_since == pytest.approx(ended_at, abs=0.01)
    assert status.idle_since < taken.requested_at
    end_all(steps.bench)


def test_a_pool_that_does_not_respond_costs_a_cluster_and_not_the_day(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.left_idle("before")
    steps.bench.emr.faults.forbidden.add("s3")
    assert steps.submit("after").compute_id is not None
    steps.bench.emr.faults.forbidden.clear()
    assert len(steps.bench.emr.clusters) == 2
    end_all(steps.bench)


def test_an_entry_that_cannot_be_read_or_is_of_long_ago_is_no_cluster(steps: Steps) -> None:
    pool, storage = pool_of(steps.bench), open_storage(steps.bench.published_root)
    old = PoolEntry(cluster_id="j-old", digest="x", profile="small", since=time.time() - 100_000)
    assert pool.replace(None, old)
    storage.write(f"{clusters_prefix()}j-newer.json", b'{"format": 2}')
    steps.left_idle("before")
    steps.submit("after")
    assert "j-old" not in {entry.cluster_id for entry in pool.entries()}
    end_all(steps.bench)


def test_what_was_lost_before_its_step_began_on_a_cluster_that_was_there_is_not_somebodys_doing(steps: Steps) -> None:
    idle = steps.left_idle("before")
    idle.faults.end_at_added_step = True
    taken = steps.submit("after")
    steps.bench.emr.wait(lambda: idle.has_ended)
    status = steps.backend.observe(taken)
    assert (status.state, status.lost_by) == (JobState.LOST, AttemptOutcome.INTERNAL)
