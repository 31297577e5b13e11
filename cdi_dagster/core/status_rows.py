"""The rows of the status table `data_pipeline_metadata`, which downstream products read, and the table's interface."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from cdi_dagster.core.collections import Collection


def data_product_of(collection: Collection) -> str:
    """Return the name of a collection in the status table."""
    return f"CDI-{collection.id}"


@dataclass(frozen=True, kw_only=True)
class StatusRow:
    """One row.

    Attributes:
        correlation_id: key, with `data_product`.
        data_product: `data_product_of` the collection.
        run_id: Dagster run id, or the correlation id where Dagster is not used.
        status: IN_PROGRESS, COMPLETED or FAILED.
        export_day: written as `Date`.
        current_step: what it is doing, or did last.
        cluster_id: EMR cluster id, or `local`.
        s3_prefix: URI of the published daily records, once published.
        failure: class and cause, where it failed.
        detail: counts and other facts for a reader.
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
