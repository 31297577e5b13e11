"""The checks of `cdi doctor --on-cluster`: a tiny Spark step, launched as every other, that reports what it finds.

What is checked there is in `spark.cluster_checks`; here it is launched, and its report read. Imported for that option
only: it loads Dagster.
"""

import io
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from cdi_dagster.cli.dagster_home import open_instance
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.days import storage_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.findings import Finding
from cdi_dagster.emr.clusters.launcher import EmrPySparkStepLauncher, why_unusable
from cdi_dagster.emr.launcher import count_other_runs
from cdi_dagster.ingestion.steps import cluster_check_step
from cdi_dagster.interfaces import LaunchEvidence, PySparkStepLauncher
from cdi_dagster.resources.local_launcher import LocalPySparkStepLauncher
from cdi_dagster.settings import Settings
from cdi_dagster.storage import open_roots


@dataclass(frozen=True, kw_only=True)
class ClusterCheck:
    """What the step found, by name of the check, with the title of each, and what the launch was."""

    findings: Mapping[str, tuple[str, Finding]]
    evidence: LaunchEvidence

    @property
    def where(self) -> str:
        """Where it ran, for how long, and for how much."""
        last, count = self.evidence.attempts[-1], len(self.evidence.attempts)
        if self.evidence.cluster_id == "local":
            return f"on this machine's Spark, {last.where}, in {duration_text(last.seconds)}"
        cost = self.cost_usd
        price = "" if cost is None else f", about {cost:.2f} USD"
        tries = "" if count == 1 else f", the last of {count} attempts"
        seconds = sum(attempt.seconds for attempt in self.evidence.attempts)
        return (
            f"on cluster {self.evidence.cluster_id} ({last.detail['profile']}{tries}), {duration_text(seconds)}{price}"
        )

    @property
    def cost_usd(self) -> float | None:
        """What all attempts cost about; None where a price is not known, or nothing is paid."""
        costs = [attempt.detail.get("estimated_cost_usd") for attempt in self.evidence.attempts]
        known = [float(cost) for cost in costs if cost is not None]
        return round(sum(known), 2) if len(known) == len(costs) else None

    def to_json(self) -> dict[str, Any]:
        """Return the launch, for `--json`."""
        return {
            "cluster_id": self.evidence.cluster_id,
            "attempts": len(self.evidence.attempts),
            "seconds": sum(attempt.seconds for attempt in self.evidence.attempts),
            "estimated_cost_usd": self.cost_usd,
            "log": self.evidence.log_location,
        }


class CheckLauncher(EmrPySparkStepLauncher):
    """Launches a check. Nobody resumes one: whoever interrupts it ends its cluster."""

    def was_cancelled(self, context: dg.AssetExecutionContext | dg.OpExecutionContext) -> bool:
        """Whether an interruption is meant: always."""
        return True

    def other_runs(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, is_last_step: bool) -> int | None:
        """Count the runs that could use the cluster: those of DAGSTER_HOME, for a check is a run of its own.

        Never 0: this machine's Dagster need not be the one that runs the days, so what others left is not ended.
        """
        home = os.environ.get("DAGSTER_HOME")
        if not home:
            return None
        with open_instance(Path(home)) as instance:
            return (count_other_runs(instance, context.run.run_id) or None) if instance else None


def check_cluster(settings: Settings, show_progress: Callable[[str], None]) -> ClusterCheck:
    """Launch the step and return what it found.

    Raises:
        CdiError: it could not be launched, or ended without its report.
    """
    evidence = _launched(_launcher(settings), settings, show_progress)
    checks = evidence.report["checks"]
    findings = {check["name"]: (check["title"], Finding.from_json(check)) for check in checks}
    return ClusterCheck(findings=findings, evidence=evidence)


def _launcher(settings: Settings) -> PySparkStepLauncher:
    if settings.deployment == "local":
        return LocalPySparkStepLauncher.of(settings.local_spark)
    why = why_unusable(settings)
    if why:
        raise CdiError(FailureClass.LAUNCH_FAILED, why, next_step="Fix that, then run cdi doctor --on-cluster again.")
    return CheckLauncher.of(settings.model_copy(update={"emr_live_stdio": False}))


def _launched(
    launcher: PySparkStepLauncher, settings: Settings, show_progress: Callable[[str], None]
) -> LaunchEvidence:
    """Launch the step in a Dagster run of its own, which no instance keeps."""
    roots = open_roots(settings.corporate_root, settings.published_root)
    ended: list[LaunchEvidence | CdiError] = []

    @dg.op
    def check_cluster(context: dg.OpExecutionContext) -> None:
        step = cluster_check_step(
            _day(settings), roots, correlation_id=context.run_id, key_service=settings.key_service
        )
        try:
            ended.append(launcher.launch(context, step))
        except CdiError as error:
            ended.append(error)

    @dg.job(executor_def=dg.in_process_executor, logger_defs={"progress": _logger(show_progress)})
    def doctor() -> None:
        check_cluster()

    # Locally the log of Spark comes on stderr, too; it is kept in a file.
    with redirect_stderr(io.StringIO()), dg.DagsterInstance.ephemeral() as instance:
        try:
            doctor.execute_in_process(instance=instance, run_config={"loggers": {"progress": {}}})
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
    [result] = ended
    if isinstance(result, CdiError):
        raise result
    return result


def _day(settings: Settings) -> CollectionDay:
    """Return a day whose cluster template is used, and below which the launch is kept: yesterday's, of a collection."""
    collection, *_ = settings.ingested_collections
    return collection.on(storage_day_of(datetime.now(UTC).date()))


def _logger(show_progress: Callable[[str], None]) -> dg.LoggerDefinition:
    """Return a logger that shows what the launcher and the step report, and nothing of Dagster's own events."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", {})
            if not meta.get("dagster_event") and record.levelno >= logging.INFO:
                show_progress(str(meta.get("orig_message", record.getMessage())))

    @dg.logger
    def progress(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("cdi doctor", level=logging.INFO)
        logger.addHandler(Handler())
        return logger

    return progress
