"""What assets, checks, schedules and sensors need from external systems: Protocols and the values they pass.

No adapter is imported here, and nothing of AWS or Spark; of Dagster only types, so that `cdi` does not load it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cdi_dagster.core.alert import Alert
from cdi_dagster.core.gate import CoalescerStatusSource as CoalescerStatusSource
from cdi_dagster.core.metrics import Figure as Figure
from cdi_dagster.core.spark_jobs import SparkStep as SparkStep
from cdi_dagster.core.status_rows import StatusRow as StatusRow
from cdi_dagster.core.status_rows import StatusTable as StatusTable

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True, kw_only=True)
class LaunchAttempt:
    """One attempt to run a step, for the run page and the status row."""

    where: str
    outcome: str
    seconds: float
    link: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LaunchEvidence:
    """Proof that a step succeeded: it completed *and* its own closing report arrived.

    Attributes:
        report: the job's closing report, as JSON values.
        attempts: every attempt, the successful one last.
        log_location: where the full log is (a path or URI).
        cluster_id: EMR cluster id, or `local`.
    """

    report: Mapping[str, Any]
    attempts: tuple[LaunchAttempt, ...]
    log_location: str
    cluster_id: str


class PySparkStepLauncher(Protocol):
    """Runs Spark steps for assets."""

    def launch(self, context: "dg.AssetExecutionContext | dg.OpExecutionContext", step: SparkStep) -> LaunchEvidence:
        """Run the step to its end: messages and logs are live on the run page, and what was started is always ended.

        Raises:
            CdiError: with the class that the job reported, or LAUNCH_FAILED, CLUSTER_LOST, OUT_OF_MEMORY, JOB_FAILED.
        """


class MetricsSink(Protocol):
    """Keeps figures for dashboards and alarms."""

    def put(self, figures: Sequence[Figure]) -> None:
        """Send the figures; raises where they could not be sent, so that the caller retries later."""


class AlertSink(Protocol):
    """Notifies a person."""

    def send(self, alert: Alert) -> None:
        """Send the alert; raises where it could not be sent, so that the caller retries later."""
