"""A run of one day on this machine, without Dagster: its settings and roots, its Spark steps, its status row.

What `cdi ingest`, `cdi tables` and `cdi rejects replay` have in common. Not for commands that only read.
"""

import json
import re
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from cdi_dagster.cli.console import progress, progress_console
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.spark_jobs import SparkStep
from cdi_dagster.core.storage_keys import run_failure_key
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage import ObjectMissingError, Roots, open_roots
from cdi_dagster.table_definitions import with_tables

if TYPE_CHECKING:
    from cdi_dagster.ingestion.status_rows import StepRecord
    from cdi_dagster.storage.lease import Lease

_LOG_LINE = re.compile(r" [A-Z]+ \[(?P<run>[^\]]+)\] [\w.]+: (?P<text>.*)")


@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """One day, and the run that works on it."""

    settings: Settings
    day: CollectionDay
    correlation_id: str

    @classmethod
    def of(cls, day: CollectionDay, *, correlation_id: str | None = None, **given: Any) -> "LocalRun":
        """Return the day, with the settings that were given on the command line in the place of the installation's.

        Raises:
            CdiError: INPUT_INVALID where the definition of the collection's tables cannot be used.
        """
        settings = load_settings(**given)
        return cls(
            settings=settings,
            day=replace(day, collection=with_tables(day.collection, settings.table_definitions)),
            correlation_id=correlation_id or str(uuid.uuid4()),
        )

    def on(self, storage_day: date) -> "LocalRun":
        """Return another run, on another day of the same collection."""
        return replace(self, day=self.day.collection.on(storage_day), correlation_id=str(uuid.uuid4()))

    @property
    def roots(self) -> Roots:
        """Corporate storage and the published root."""
        return open_roots(self.settings.corporate_root, self.settings.published_root)

    def uri(self, prefix: str | None) -> str | None:
        """Return where something lies below the published root."""
        return self.roots.published.uri(prefix) if prefix else None


def only_this_run(run: LocalRun) -> "AbstractContextManager[Lease]":
    """Return the day's ingestion lease, to be held while something is published."""
    from cdi_dagster.ingestion.ingestion_lease import ingestion_lease

    console = progress_console()
    return ingestion_lease(
        run.roots.published,
        run.day,
        holder=run.correlation_id,
        log=lambda text: console.print(escape(text)),
    )


def record(run: LocalRun, step: str) -> "AbstractContextManager[StepRecord]":
    """Keep the status row around a day's work, as Dagster's runs do.

    Enter it while holding the lease: the row of a run that was refused would be FAILED for the day.
    """
    from cdi_dagster.ingestion.status_rows import StepRecord, recorded
    from cdi_dagster.resources.status_table import open_status_table

    of_step = StepRecord(
        day=run.day,
        correlation_id=run.correlation_id,
        table=open_status_table(run.settings),
        step=step,
        cluster_id="local",
    )
    return recorded(of_step, log=lambda text: progress_console().print(escape(text)))


def run_step(
    run: LocalRun, step: SparkStep, report_key: str, *, verbose: bool
) -> tuple[dict[str, Any] | None, CdiError | None]:
    """Run a Spark step on this machine and return its closing report and why it failed, each where there is one.

    Raises:
        CdiError: LAUNCH_FAILED where nothing could be started.
    """
    from cdi_dagster.local_spark.spark_process import run_spark_step, spark_failure

    failures: list[CdiError] = []
    with progress(f"Running {step.name}") as show_progress:

        def on_line(line: str) -> None:
            found = _LOG_LINE.search(line)
            text = found["text"] if found and found["run"] == run.correlation_id else ""
            failure = CdiError.from_text(text)
            if failure:
                failures.append(failure)  # shown at the end, once
            elif text and " is done: " not in text:
                show_progress(text)
            elif verbose:
                progress_console().print(escape(line), style="dim")

        ended = run_spark_step(
            step.job,
            step.arguments,
            config=run.settings.local_spark,
            correlation_id=run.correlation_id,
            on_line=on_line,
        )
    report = _read(run, report_key)
    # The file has its detail too; where it could not be written (a full disk), the log has class, cause and next step.
    left = _read(run, run_failure_key(run.day, run.correlation_id))
    failure = left or (failures[-1].to_json() if failures else None)
    error = spark_failure(ended.exit_code, ended.log_tail, report, failure if ended.exit_code else None)
    if error:
        progress_console().print(f"Log: {escape(str(ended.log_path))}")
    return report, error


def _read(run: LocalRun, key: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(run.roots.published.read(key)))
    except ObjectMissingError:
        return None
