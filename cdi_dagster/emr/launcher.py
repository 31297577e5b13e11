"""The step launcher of production: Spark steps on EMR, one cluster each, healed where they can be.

The Dagster resource: configuration, who is asking, and what an interruption means. The work is in `step_run`.
"""

import time
import uuid
from pathlib import Path

import dagster as dg
from pydantic import Field

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.emr.api import EmrApi
from cdi_dagster.emr.asking import Target
from cdi_dagster.emr.attempt import LostSightError
from cdi_dagster.emr.ledger import CANCELLED, TakenOverError
from cdi_dagster.emr.step_run import StepRun
from cdi_dagster.emr.surroundings import Surroundings, Timings
from cdi_dagster.emr.taking_up import Asker
from cdi_dagster.emr.template import ClusterTemplate, TemplateError, load_template
from cdi_dagster.interfaces import LaunchEvidence, SparkStep
from cdi_dagster.settings import knob
from cdi_dagster.storage import open_storage

_RETRY_NUMBER_TAG = "dagster/retry_number"
_CANCELLED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


class EmrPySparkStepLauncher(dg.ConfigurableResource):
    """Runs a Spark step on a cluster of its own (see `PySparkStepLauncher`), or adds it to one that is there.

    Asked twice it launches once: a killed process that comes back, or the retry of its run, finds its cluster in the
    ledger. A cancelled run ends its cluster; an orchestrator that is merely stopped leaves it at work.
    """

    published_root: str = Field(description="s3://bucket[/prefix] of the ledger and the messages: the published root.")
    template_path: str = Field(description="Path of the cluster template (deploy/emr/cluster.yaml).")
    environment: str = knob("emr_environment")
    bundle_uri: str = Field(description="s3:// URI of the bundle that clusters install (`cdi deploy` prints it).")
    existing_cluster_id: str | None = knob("emr_cluster_id")
    conf: dict[str, str] = knob("spark_conf")
    live_stdio: bool = knob("emr_live_stdio")
    poll_interval_seconds: float = knob("emr_poll_interval_seconds")
    start_deadline_seconds: float = knob("emr_start_deadline_seconds")
    bootstrap_deadline_seconds: float = knob("emr_bootstrap_deadline_seconds")
    run_deadline_seconds: float = knob("emr_run_deadline_seconds")
    log_wait_seconds: float = knob("emr_log_wait_seconds")
    blind_seconds: float = knob("emr_blind_seconds")

    def launch(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, step: SparkStep) -> LaunchEvidence:
        """Run the step to its end and return the proof of its success.

        Raises:
            CdiError: with the class that the job reported, or LAUNCH_FAILED, BOOTSTRAP_FAILED, CLUSTER_LOST,
                OUT_OF_MEMORY, INPUT_CHANGED, JOB_FAILED; every attempt is in its detail.
        """
        run = self._step_run(context, step)
        try:
            return run.run()
        except (LostSightError, TakenOverError):
            # The cluster is at work, and the ledger knows it: whoever comes next takes it up.
            raise
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
            if self._was_cancelled(context):
                context.log.info("The run was cancelled: ending what it started.")
                run.end(CANCELLED)
            else:
                context.log.warning(
                    "This process is being stopped, though nobody cancelled the run: its cluster is left at work. "
                    "Re-execute the run from failure to take it up again; `cdi clusters` shows it."
                )
            raise
        except BaseException:
            run.end(None)
            raise

    def template_for(self, collection_id: str) -> ClusterTemplate:
        """Read the template as it holds for a collection.

        Raises:
            CdiError: LAUNCH_FAILED with every problem and its mend.
        """
        try:
            return load_template(Path(self.template_path), environment=self.environment, collection_id=collection_id)
        except TemplateError as error:
            raise CdiError(
                FailureClass.LAUNCH_FAILED, str(error), next_step="Mend the template, then run the day again."
            ) from error

    def now(self) -> float:
        """Epoch seconds."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait; an interruption of the run gets through."""
        time.sleep(seconds)

    def _step_run(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, step: SparkStep) -> StepRun:
        run = context.run
        launch_id = run.root_run_id or step.correlation_id
        return StepRun(
            context,
            step,
            asker=Asker(
                run_id=run.run_id,
                launch_id=launch_id,
                owner=uuid.uuid4().hex,
                is_continuation=launch_id in (run.run_id, step.correlation_id) or _RETRY_NUMBER_TAG in run.tags,
            ),
            target=Target(
                template=self.template_for(step.collection.id),
                bundle_uri=self.bundle_uri.rstrip("/"),
                existing_cluster_id=self.existing_cluster_id,
                conf=self.conf,
            ),
            published=open_storage(self.published_root),
            around=Surroundings(
                api=EmrApi(),
                timings=Timings(
                    poll_interval_seconds=self.poll_interval_seconds,
                    start_deadline_seconds=self.start_deadline_seconds,
                    bootstrap_deadline_seconds=self.bootstrap_deadline_seconds,
                    run_deadline_seconds=self.run_deadline_seconds,
                    log_wait_seconds=self.log_wait_seconds,
                    blind_seconds=self.blind_seconds,
                ),
                clock=self.now,
                sleep=self.sleep,
                say=context.log.info,
            ),
            live_stdio=self.live_stdio,
        )

    def _was_cancelled(self, context: dg.AssetExecutionContext | dg.OpExecutionContext) -> bool:
        """Whether somebody asked for the run to end; a SIGTERM alone does not say so."""
        run = context.instance.get_run_by_id(context.run.run_id)
        return run is not None and run.status in _CANCELLED
