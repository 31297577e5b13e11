"""What is measured, as figures that any store of metrics takes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

HEARTBEAT = "Heartbeat"
"""Put at every tick of the metrics sensor: without it Dagster's sensors do not run."""
NAMESPACE = "CDI"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value.

    Attributes:
        name: as CloudWatch writes names: `RecordsPublished`.
        value: in its unit.
        unit: of CloudWatch's units.
        labels: what it is of: `Collection`, `Step`.
        at: aware.
    """

    name: str
    value: float
    unit: Literal["Count", "Bytes", "Seconds", "None"]
    at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)


def heartbeat(now: datetime) -> Figure:
    """Return the figure that shows that sensors run."""
    return Figure(name=HEARTBEAT, value=1, unit="Count", at=now)
