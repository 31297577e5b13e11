"""The coalescer's status as a Dagster resource: which source is asked is a setting, what is answered is not."""

from datetime import UTC, datetime
from typing import Literal

import dagster as dg
from pydantic import Field

from cdi_dagster.ingestion.coalescer_status import MarkerCoalescerStatus
from cdi_dagster.resources.interfaces import CoalescerStatusSource
from cdi_dagster.storage.interface import open_storage


class CoalescerStatusResource(dg.ConfigurableResource):
    """Knows what the coalescer is doing; assets see the `CoalescerStatusSource` interface."""

    source: Literal["marker"] = Field(
        default="marker", description="Who is asked: `marker`, the marker that our own coalescer writes."
    )
    corporate_root: str = Field(description="Root under which the coalescer works and writes its marker.")
    lease_seconds: int = Field(
        default=900, ge=60, description="A RUNNING marker without a heartbeat for longer is an abandoned one."
    )

    def create_resource(self, context: dg.InitResourceContext) -> CoalescerStatusSource:
        """Return the source that the settings choose."""
        return MarkerCoalescerStatus(
            open_storage(self.corporate_root), lease_seconds=self.lease_seconds, clock=lambda: datetime.now(UTC)
        )
