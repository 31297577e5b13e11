"""The step launcher of one machine: Spark as a child process of the run, its log live on the run page."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import Field

from cdi_dagster.interfaces import LaunchAttempt, LaunchEvidence, SparkStep
from cdi_dagster.local_spark.spark_process import SparkExit, run_spark_step, spark_failure
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig
from cdi_dagster.settings import knob
from cdi_dagster.step_messages import StepMessages


class LocalPySparkStepLauncher(dg.ConfigurableResource):
    """Runs a Spark step with `spark-submit` on this machine (see `PySparkStepLauncher`).

    The step's log goes to the run's stderr, so it is live on the run page, and to a file. Terminating the run, or
    killing its worker, ends Spark and everything it started.
    """

    work_folder: str = Field(description="Folder for Spark's logs (kept) and scratch space (removed after each step).")
    metastore_folder: str = Field(description="Folder of the local Hive metastore.")
    master: str = knob("spark_master")
    driver_memory: str = knob("spark_driver_memory")
    conf: dict[str, str] = knob("spark_conf")
    s3a_jars: str | None = knob("s3a_jars")

    @classmethod
    def of(cls, config: SparkProcessConfig) -> "LocalPySparkStepLauncher":
        """Return the launcher that runs Spark as a configuration states, which `cdi` uses too."""
        return cls(
            work_folder=str(config.work_folder),
            metastore_folder=str(config.metastore_folder),
            master=config.master,
            driver_memory=config.driver_memory,
            conf=dict(config.conf),
            s3a_jars=str(config.s3a_jars) if config.s3a_jars else None,
        )

    def config(self) -> SparkProcessConfig:
        """Return how Spark runs here."""
        return SparkProcessConfig(
            work_folder=Path(self.work_folder),
            metastore_folder=Path(self.metastore_folder),
            master=self.master,
            driver_memory=self.driver_memory,
            conf=self.conf,
            s3a_jars=Path(self.s3a_jars) if self.s3a_jars else None,
        )

    def launch(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, step: SparkStep) -> LaunchEvidence:
        """Run the step to its end and return the proof of its success.

        Raises:
            CdiError: with the class that the job reported, or LAUNCH_FAILED, CLUSTER_LOST, OUT_OF_MEMORY, JOB_FAILED.
        """
        with _pipes_session(context) as session:
            messages = StepMessages(context, session)
            pipes = [part for pair in session.get_bootstrap_cli_arguments().items() for part in pair]
            ended = run_spark_step(
                step.job,
                [*step.arguments, *pipes],
                config=self.config(),
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
