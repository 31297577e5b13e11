"""What assets, checks, schedules and sensors need of the outside world: Protocols and the values they pass.

No adapter is imported here, and nothing of AWS or Spark; of Dagster only types, so that `cdi` need not load it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from cdi_dagster.core.alert import Alert
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.gate import CoalescerStatusSource as CoalescerStatusSource

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True, kw_only=True)
class SparkStep:
    """One Spark job to run: the same program with the same arguments, locally and on EMR.

    Attributes:
        name: `ingest_daily` or `publish_tables`: a module of `cdi_dagster.spark` with `main(argv)`.
        arguments: its command line, without the Pipes arguments that the launcher adds. Everything the job needs is
            here or in objects it names: environment variables do not reach every EMR deploy mode.
        collection: what it works on.
        storage_day: the partition.
        correlation_id: of the run.
        input_bytes: compressed bytes it will read; EMR sizes the cluster by it.
    """

    name: str
    arguments: tuple[str, ...]
    collection: Collection
    storage_day: date
    correlation_id: str
    input_bytes: int


@dataclass(frozen=True, kw_only=True)
class LaunchAttempt:
    """One try at running a step, for the run page and the status row."""

    where: str
    outcome: str
    seconds: float
    link: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LaunchEvidence:
    """Proof that a step succeeded: it ended well *and* its own closing report arrived.

    Attributes:
        report: the job's closing report, as JSON values.
        attempts: every try, the successful one last.
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
        """Run the step to its end: messages and logs live in the run page, and what was started is always ended.

        Raises:
            CdiError: with the class that the job reported, or LAUNCH_FAILED, CLUSTER_LOST, OUT_OF_MEMORY, JOB_FAILED.
        """


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """One row of the `data_pipeline_metadata` table, which downstream products read.

    Attributes:
        correlation_id: key, with `data_product`.
        data_product: `CDI-<db>:<collection>`.
        run_id: Dagster run id, or the correlation id where Dagster is not used.
        status: IN_PROGRESS, COMPLETED or FAILED.
        export_day: written as `Date`.
        current_step: what it is doing, or did last.
        cluster_id: EMR cluster id, or `local`.
        s3_prefix: URI of the published daily records, once published.
        failure: class and cause, where it failed.
        detail: counts and whatever else helps a reader.
    """

    correlation_id: str
    data_product: str
    run_id: str
    status: str
    export_day: date
    current_step: str
    cluster_id: str | None = None
    s3_prefix: str | None = None
    failure: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class StatusTable(Protocol):
    """The status table."""

    def put(self, row: StatusRow) -> None:
        """Write or replace the row of its correlation id and product."""

    def get(self, correlation_id: str, data_product: str) -> StatusRow | None:
        """Return a row, or None."""


class AlertSink(Protocol):
    """Notifies a person."""

    def send(self, alert: Alert) -> None:
        """Send the alert; raises where it could not be sent, so that it is sent again later."""
