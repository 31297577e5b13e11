"""What every step launcher on EMR is, as a Dagster resource: deadlines, who requests, and what an interruption means.

A subclass adds the configuration of its backend and makes it. The work is in `launch`.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import fields
from functools import partial

import dagster as dg
from pydantic import Field

from cdi_dagster.emr.attempt import LostSightError
from cdi_dagster.emr.backend import Backend, LaunchContext, Timings
from cdi_dagster.emr.launch import Launch
from cdi_dagster.emr.launch_plan import AttemptOutcome
from cdi_dagster.emr.ledger import TakenOverError
from cdi_dagster.emr.resume import Requester
from cdi_dagster.interfaces import LaunchEvidence, SparkStep
from cdi_dagster.names import NEEDS_NO_COMPUTE_TAG, PARTITION_TAG
from cdi_dagster.own_tags import add_own_tags, own_tag
from cdi_dagster.settings import knob
from cdi_dagster.storage import open_storage

_RETRY_NUMBER_TAG = "dagster/retry_number"
_MAY_NEED_COMPUTE = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)
_MOST_RUNS = 100
_CANCELLED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


class BackendStepLauncher(dg.ConfigurableResource):
    """Launches a step once, however often it is requested (see `PySparkStepLauncher`).

    A killed process that comes back, or the retry of its run, finds what it started in the ledger. A cancelled run ends
    what it started; an orchestrator that is merely stopped leaves it running.
    """

    published_root: str = Field(description="s3://bucket[/prefix] of the ledger and the messages: the published root.")
    live_stdio: bool = knob("emr_live_stdio")
    poll_interval_seconds: float = knob("emr_poll_interval_seconds")
    start_deadline_seconds: float = knob("emr_start_deadline_seconds")
    bootstrap_deadline_seconds: float = knob("emr_bootstrap_deadline_seconds")
    run_deadline_seconds: float = knob("emr_run_deadline_seconds")
    log_wait_seconds: float = knob("emr_log_wait_seconds")
    blind_seconds: float = knob("emr_blind_seconds")

    def backend_for(self, step: SparkStep) -> Backend:
        """Return what runs a step's jobs.

        Raises:
            CdiError: LAUNCH_FAILED where its configuration cannot be used.
        """
        raise NotImplementedError

    def launch(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, step: SparkStep) -> LaunchEvidence:
        """Run the step to its end and return the proof of its success.

        Raises:
            CdiError: with the class that the job reported, or LAUNCH_FAILED, BOOTSTRAP_FAILED, CLUSTER_LOST,
                OUT_OF_MEMORY, INPUT_CHANGED, JOB_FAILED; every attempt is in its detail.
        """
        launch = self._launch(context, step)
        try:
            return launch.run()
        except (LostSightError, TakenOverError):
            # What was started runs, and the ledger knows it: whoever comes next resumes it.
            raise
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
            if self.was_cancelled(context):
                context.log.info("The run was cancelled: ending what it started.")
                launch.abandon(AttemptOutcome.CANCELLED)
            else:
                context.log.warning(
                    "This process is being stopped, though nobody cancelled the run: its cluster is left running. "
                    "Re-execute the run from failure to resume it; `cdi clusters` shows it."
                )
            raise
        except BaseException:
            launch.abandon()
            raise

    def now(self) -> float:
        """Epoch seconds."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait; an interruption of the run gets through."""
        time.sleep(seconds)

    def was_cancelled(self, context: dg.AssetExecutionContext | dg.OpExecutionContext) -> bool:
        """Whether somebody requested the end of the run; a SIGTERM alone does not show it."""
        run = context.instance.get_run_by_id(context.run.run_id)
        return run is not None and run.status in _CANCELLED

    def other_runs(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, is_last_step: bool) -> int | None:
        """Count the other runs of a day, of any collection, that may need compute yet; None where that is unknown.

        Args:
            context: of this run.
            is_last_step: whether this run needs none any more: tagged before the others are counted, so that of runs
                that end at the same time at least the last to count knows of all.
        """
        if is_last_step:
            add_own_tags(context.instance, context.run.run_id, {NEEDS_NO_COMPUTE_TAG: "true"})
        return count_other_runs(context.instance, context.run.run_id)

    def _launch(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, step: SparkStep) -> Launch:
        run = context.run
        launch_id = run.root_run_id or step.correlation_id
        return Launch(
            context,
            step,
            requester=Requester(
                run_id=run.run_id,
                launch_id=launch_id,
                owner=uuid.uuid4().hex,
                is_continuation=launch_id in (run.run_id, step.correlation_id) or _RETRY_NUMBER_TAG in run.tags,
            ),
            published=open_storage(self.published_root),
            context=self._launch_context(self.backend_for(step), context.log.info, partial(self.other_runs, context)),
            live_stdio=self.live_stdio,
        )

    def _launch_context(
        self, backend: Backend, log: Callable[[str], None], other_runs: Callable[[bool], int | None]
    ) -> LaunchContext:
        timings = Timings(**{field.name: getattr(self, field.name) for field in fields(Timings)})
        return LaunchContext(
            backend=backend, timings=timings, clock=self.now, sleep=self.sleep, log=log, other_runs=other_runs
        )


def count_other_runs(instance: dg.DagsterInstance, run_id: str) -> int:
    """Count the runs of a day that are queued or under way and may need compute yet, but for one run."""
    runs = instance.get_runs(dg.RunsFilter(statuses=list(_MAY_NEED_COMPUTE)), limit=_MOST_RUNS)
    others = [run for run in runs if PARTITION_TAG in run.tags and run.run_id != run_id]
    return sum(own_tag(run, NEEDS_NO_COMPUTE_TAG) is None for run in others)
