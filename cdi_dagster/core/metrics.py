"""What is measured, as figures that any store of metrics takes. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

Unit = Literal["Count", "Bytes", "Seconds", "None"]
HEARTBEAT = "Heartbeat"
"""Put at every tick of the metrics sensor: without it Dagster's sensors do not run."""
SECONDS_AFTER_DUE = "SecondsAfterDue"
NAMESPACE = "CDI"
BY_METADATA: Mapping[str, tuple[str, Unit]] = {
    "records_published": ("RecordsPublished", "Count"),
    "records_rejected": ("RecordsRejected", "Count"),
    "input_bytes": ("InputBytes", "Bytes"),
    "published_bytes": ("PublishedBytes", "Bytes"),
    "seconds": ("StepSeconds", "Seconds"),
    "cost_usd": ("CostUsd", "None"),
    "cluster_minutes": ("ClusterMinutes", "None"),
}
"""Figures of a materialisation, by the name that its metadata has them under; `cost_usd` is an estimate."""
NAMES = (HEARTBEAT, SECONDS_AFTER_DUE, *(name for name, _ in BY_METADATA.values()))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value.

    Attributes:
        name: as CloudWatch writes names: `RecordsPublished`.
        value: in its unit.
        unit: of CloudWatch's units.
        at: when it was measured, aware.
        collection_id: which it is of; "" for all.
        step: asset that was made: `daily_records`, a table's name; "" where the figure is none of a step.
        storage_day: which it is of.
    """

    name: str
    value: float
    unit: Unit
    at: datetime
    collection_id: str = ""
    step: str = ""
    storage_day: date | None = None

    @property
    def labels(self) -> dict[str, str]:
        """What it is of, but for the day."""
        return {name: value for name, value in (("Collection", self.collection_id), ("Step", self.step)) if value}


def heartbeat(now: datetime) -> Figure:
    """Return the figure that shows that sensors run."""
    return Figure(name=HEARTBEAT, value=1, unit="Count", at=now)


def step_figures(
    collection_id: str, step: str, storage_day: date, values: Mapping[str, float], at: datetime
) -> Iterator[Figure]:
    """Yield the figures of one materialisation; only seconds are by step, all else adds up over the day's steps."""
    for metadata_name, (name, unit) in BY_METADATA.items():
        if metadata_name in values:
            yield Figure(
                name=name,
                value=values[metadata_name],
                unit=unit,
                at=at,
                collection_id=collection_id,
                step=step if unit == "Seconds" else "",
                storage_day=storage_day,
            )


def lateness(collection_id: str, storage_day: date, due_at: datetime, published_at: datetime) -> Figure:
    """Return how long after it was due a day was published."""
    return Figure(
        name=SECONDS_AFTER_DUE,
        value=(published_at - due_at).total_seconds(),
        unit="Seconds",
        at=published_at,
        collection_id=collection_id,
        storage_day=storage_day,
    )
