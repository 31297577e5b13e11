"""The rows of the status table `data_pipeline_metadata`, which downstream products read, and the table's interface.

Theirs are the columns that the old platform wrote; what only we know goes into columns of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from cdi_dagster.core.collections import Collection

DEFAULT_WEEKS_TO_EXIST = 104
"""As long as the old platform kept its rows."""


def data_product_of(collection: Collection) -> str:
    """Return the name of a collection in the status table."""
    return f"CDI-{collection.id}"


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """One row.

    Attributes:
        correlation_id: key, with `data_product`.
        data_product: `data_product_of` the collection.
        run_number: written as `Run_Id`, which downstream tools read as a number: how often this correlation id ran. A
            run of ours has one of its own, so it is 1.
        dagster_run_id: of the run, where Dagster runs it.
        status: IN_PROGRESS, COMPLETED or FAILED.
        export_day: written as `Date`.
        current_step: what it is doing, or did last.
        cluster_id: EMR cluster id, or `local`.
        daily_records_uri: of the published daily records, once published.
        snapshot_prefix: written as `S3_Prefix_CDI_Export`, of a snapshot only: its key prefix below the published root.
        failure: class and cause, where it failed.
        detail: counts and other facts for a reader.
    """

    correlation_id: str
    data_product: str
    status: str
    export_day: date
    current_step: str
    run_number: int = 1
    dagster_run_id: str | None = None
    cluster_id: str | None = None
    daily_records_uri: str | None = None
    snapshot_prefix: str | None = None
    failure: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class StatusTable(Protocol):
    """The status table."""

    def put(self, row: StatusRow) -> None:
        """Write or replace the row of its correlation id and product."""

    def get(self, correlation_id: str, data_product: str) -> StatusRow | None:
        """Return a row, or None."""
