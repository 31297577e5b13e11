"""The step launcher of one machine: Spark as a child process of the run, its words live on the run page."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import dagster as dg
from pydantic import Field

from cdi_dagster.interfaces import LaunchAttempt, LaunchEvidence, SparkStep
from cdi_dagster.local_spark.metastore import local_metastore_conf, local_metastore_lock
from cdi_dagster.local_spark.spark_process import SparkExit, run_spark_step, spark_failure
from cdi_dagster.local_spark.spark_submit import DEFAULT_MASTER, SparkProcessConfig
from cdi_dagster.step_messages import StepMessages

_USES_METASTORE = frozenset({"publish_tables"})


class LocalPySparkStepLauncher(dg.ConfigurableResource):
    """Runs a Spark step with `spark-submit` on this machine (see `PySparkStepLauncher`).

    The step's log goes to the run's stderr, so it is live in the run page, and whole to a file. Terminating the run,
    or killing its worker, ends Spark with everything it started.
    """

    work_folder: str = Field(description="Folder for Spark's logs (kept) and scratch space (removed after each step).")
    metastore_folder: str = Field(description="Folder of the local Hive metastore.")
    master: str = Field(
        default=DEFAULT_MASTER,
        description="Spark master: `local[<cores>,<tries>]`. With one try (`local[*]`) a lost worker ends the step.",
    )
    driver_memory: str = Field(default="2g", description="Heap of Spark, which is driver and executor in one here.")
    conf: dict[str, str] = Field(default_factory=dict, description="More Spark configuration for every step.")
    s3a_jars: str | None = Field(
        default=None, description="Folder of the jars for tables on S3. Default: where make s3a-jars puts them."
    )

    def launch(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, step: SparkStep) -> LaunchEvidence:
        """Run the step to its end and return the proof of its success.

        Raises:
            CdiError: with the class that the job reported, or LAUNCH_FAILED, CLUSTER_LOST, OUT_OF_MEMORY, JOB_FAILED.
        """
        config = SparkProcessConfig(
            work_folder=Path(self.work_folder),
            master=self.master,
            driver_memory=self.driver_memory,
            conf={**local_metastore_conf(Path(self.metastore_folder)), **self.conf},
            s3a_jars=Path(self.s3a_jars) if self.s3a_jars else None,
        )
        with self._turn(step), _pipes_session(context) as session:
            messages = StepMessages(context, session)
            pipes = [part for pair in session.get_bootstrap_cli_arguments().items() for part in pair]
            ended = run_spark_step(
                step.name,
                [*step.arguments, *pipes],
                config=config,
                correlation_id=step.correlation_id,
                on_line=_to_stderr,
                on_poll=messages.drain,
            )
        # The session reads to the end of the messages as it closes.
        messages.drain()
        failure = spark_failure(ended.exit_code, ended.log_tail, messages.report, messages.failure)
        if failure is not None:
            failure.detail.setdefault("log", str(ended.log_path))
            raise failure
        return LaunchEvidence(
            report=messages.report or {},
            attempts=(_attempt(self.master, ended),),
            log_location=str(ended.log_path),
            cluster_id="local",
        )

    def _turn(self, step: SparkStep) -> AbstractContextManager[None]:
        """Wait for the metastore, which takes one process at a time, where the step uses it."""
        return local_metastore_lock(Path(self.metastore_folder)) if step.name in _USES_METASTORE else nullcontext()


@contextmanager
def _pipes_session(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Iterator[dg.PipesSession]:
    with (
        tempfile.TemporaryDirectory(prefix="cdi-pipes-") as folder,
        dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesFileContextInjector(f"{folder}/context"),
            message_reader=dg.PipesFileMessageReader(f"{folder}/messages"),
        ) as session,
    ):
        yield session


def _to_stderr(line: str) -> None:
    # Dagster captures this process's stderr for the step and shows it live.
    print(line, file=sys.stderr, flush=True)


def _attempt(master: str, ended: SparkExit) -> LaunchAttempt:
    return LaunchAttempt(where=f"this machine ({master})", outcome="COMPLETED", seconds=round(ended.seconds, 1))
