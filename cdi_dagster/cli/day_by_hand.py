"""A day worked on from the terminal, without Dagster: where it lies, its Spark jobs on this machine, its status row.

What `cdi ingest`, `cdi tables` and `cdi rejects replay` have in common. Not for commands that only look.
"""

import json
import os
import re
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from cdi_dagster.cli.console import progress_console, saying
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import run_prefix
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage import ObjectMissingError, Roots, StorageError, open_roots, storage_failure

if TYPE_CHECKING:
    from cdi_dagster.interfaces import StatusTable

_LOG_LINE = re.compile(r" [A-Z]+ \[(?P<run>[^\]]+)\] [\w.]+: (?P<text>.*)")


@dataclass(frozen=True, kw_only=True)
class DayByHand:
    """One collection and storage day, and the run that works on it."""

    settings: Settings
    day: CollectionDay
    correlation_id: str

    @classmethod
    def of(cls, day: CollectionDay, *, correlation_id: str | None = None, **given: Any) -> "DayByHand":
        """Return the day, with the settings that were given on the command line before those of the installation."""
        return cls(
            settings=load_settings(**given),
            day=day,
            correlation_id=correlation_id or str(uuid.uuid4()),
        )

    @property
    def roots(self) -> Roots:
        """Corporate storage and what we publish."""
        return open_roots(self.settings.corporate_root, self.settings.published_root)

    def uri(self, prefix: str | None) -> str | None:
        """Return where something lies below the published root."""
        return self.roots.published.uri(prefix) if prefix else None


@dataclass(kw_only=True)
class Recorded:
    """What the status row of a step says besides its state; filled while the step goes on."""

    step: str
    s3_prefix: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def only_this_run(run: DayByHand) -> AbstractContextManager[Any]:
    """Return the day's ingestion lease, to be held while something is published."""
    from cdi_dagster.ingestion.ingestion_lease import ingestion_lease

    console = progress_console()
    return ingestion_lease(
        run.roots.published,
        run.day,
        # With its process: two that were given the same correlation id are two.
        holder=f"{run.correlation_id} ({socket.gethostname()}:{os.getpid()})",
        say=lambda text: console.print(escape(text)),
    )


@contextmanager
def recorded(run: DayByHand, step: str) -> Iterator[Recorded]:
    """Write the status row around a day's work, as Dagster's runs do: IN_PROGRESS, then COMPLETED or FAILED.

    Enter it once nobody else is at the day: the row of one who was turned away would say that the day failed.
    """
    from cdi_dagster.interfaces import StatusRow

    table = _status_table(run.settings)
    row = Recorded(step=step)

    def put(status: str, failure: str | None = None) -> None:
        table.put(
            StatusRow(
                correlation_id=run.correlation_id,
                data_product=f"CDI-{run.day.collection.id}",
                run_id=run.correlation_id,
                status=status,
                export_day=run.day.export_day,
                current_step=row.step,
                cluster_id="local",
                s3_prefix=row.s3_prefix,
                failure=failure,
                detail=row.detail,
            )
        )

    put("IN_PROGRESS")
    try:
        yield row
    except BaseException as error:
        try:
            put("FAILED", _failure_text(error))
        except CdiError as unwritten:  # raising it would hide why the step failed
            progress_console().print(escape(unwritten.cause))
        raise
    put("COMPLETED")


def _failure_text(error: BaseException) -> str:
    if isinstance(error, StorageError):
        error = storage_failure(error)
    if isinstance(error, CdiError):
        return f"{error.failure_class}: {error.cause}"
    if isinstance(error, KeyboardInterrupt):
        return "It was stopped by hand."
    return f"{FailureClass.JOB_FAILED}: {type(error).__name__}"


def _status_table(settings: Settings) -> "StatusTable":
    from cdi_dagster.resources.status_table import DynamoDbStatusTable, FileStatusTable

    if settings.deployment == "local":
        return FileStatusTable(settings.status_path)
    return DynamoDbStatusTable(settings.status_table_name)


def run_job(
    run: DayByHand, step: str, arguments: Sequence[str], report_key: str, *, verbose: bool
) -> tuple[dict[str, Any] | None, CdiError | None]:
    """Run one Spark job on this machine and return its closing report and why it failed, each where there is one.

    Raises:
        CdiError: LAUNCH_FAILED where nothing could be started.
    """
    from cdi_dagster.local_spark.metastore import local_metastore_conf, local_metastore_lock
    from cdi_dagster.local_spark.spark_process import run_spark_step, spark_failure
    from cdi_dagster.local_spark.spark_submit import SparkProcessConfig

    settings = run.settings
    config = SparkProcessConfig(
        work_folder=settings.home / "runs",
        master=settings.spark_master,
        driver_memory=settings.spark_driver_memory,
        conf={**local_metastore_conf(settings.metastore_path), **settings.spark_conf},
        s3a_jars=settings.s3a_jars,
    )
    # Only the tables need the metastore, which takes one process at a time.
    turn = local_metastore_lock(settings.metastore_path) if step == "publish_tables" else nullcontext()
    failures: list[CdiError] = []
    with saying(f"Running {step}") as say, turn:

        def hear(line: str) -> None:
            found = _LOG_LINE.search(line)
            text = found["text"] if found and found["run"] == run.correlation_id else ""
            failure = CdiError.from_text(text)
            if failure:
                failures.append(failure)  # told at the end, once
            elif text and " is done: " not in text:
                say(text)
            elif verbose:
                progress_console().print(escape(line), style="dim")

        ended = run_spark_step(step, arguments, config=config, correlation_id=run.correlation_id, on_line=hear)
    report = _read(run, report_key)
    # The file has its detail too; where it could not be written (a full disk), the log has class, cause and next step.
    left = _read(run, f"{run_prefix(run.day, run.correlation_id)}failure.json")
    failure = left or (failures[-1].to_json() if failures else None)
    error = spark_failure(ended.exit_code, ended.log_tail, report, failure if ended.exit_code else None)
    if error:
        progress_console().print(f"Log: {escape(str(ended.log_path))}")
    return report, error


def _read(run: DayByHand, key: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(run.roots.published.read(key)))
    except ObjectMissingError:
        return None
