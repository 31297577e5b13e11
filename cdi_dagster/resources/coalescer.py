"""The coalescer's status as a Dagster resource, from the source that the settings choose."""

from functools import lru_cache

import dagster as dg
from pydantic import Field

from cdi_dagster.coalescer_status.sources import CoalescerSourceName, coalescer_source
from cdi_dagster.interfaces import CoalescerStatusSource
from cdi_dagster.settings import knob
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots

SHARED_LOOK_SECONDS = 20
"""Schedules and sensors share one reading of AWS Batch for so long: it throttles list calls, and a reading has 14."""


class CoalescerStatusResource(dg.ConfigurableResource):
    """Reports what the coalescer is doing; assets use the `CoalescerStatusSource` interface."""

    source: CoalescerSourceName = knob("coalescer_source")
    corporate_root: str = Field(description="Root under which the coalescer works and writes its marker.")
    published_root: str = Field(description="Root where what was seen of a day is kept (`quiet`, `batch`).")
    lease_seconds: int = knob("coalescer_lease_seconds")
    quiet_seconds: int = knob("coalescer_quiet_seconds")
    batch_queues: list[str] = knob("coalescer_batch_queues")
    runs_coalesce: bool = knob("coalescer_in_dagster")

    def create_resource(self, context: dg.InitResourceContext) -> CoalescerStatusSource:
        """Return the source that the settings choose; in a run it reads the status at every call."""
        if self.source == "batch" and context.run is None:
            return _shared_batch_source(self.corporate_root, self.published_root, tuple(self.batch_queues))
        return coalescer_source(
            self.source,
            Roots(corporate=open_storage(self.corporate_root), published=open_storage(self.published_root)),
            lease_seconds=self.lease_seconds,
            quiet_seconds=self.quiet_seconds,
            batch_queues=self.batch_queues,
            runs_coalesce=self.runs_coalesce,
        )


@lru_cache(maxsize=4)
def _shared_batch_source(
    corporate_root: str, published_root: str, batch_queues: tuple[str, ...]
) -> CoalescerStatusSource:
    """Return one source for the life of the code location's process, so that its reading outlives a tick."""
    return coalescer_source(
        "batch",
        Roots(corporate=open_storage(corporate_root), published=open_storage(published_root)),
        lease_seconds=0,
        quiet_seconds=0,
        batch_queues=batch_queues,
        batch_cache_seconds=SHARED_LOOK_SECONDS,
    )
