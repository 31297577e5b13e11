"""What somebody is told when a morning is in danger. Pure values; sending is `cdi_dagster.resources.alerts`."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from cdi_dagster.core.days import export_day_of


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One message to a person. Places, counts and reasons; never content.

    Attributes:
        kind: what alert rules match on: `LATE`, `LATE_OVER`.
        title: one line.
        text: what is known, and what to do.
        collection_id: `db:name`.
        storage_day: the partition.
        runbook: where to read on.
    """

    kind: str
    title: str
    text: str
    collection_id: str
    storage_day: date
    runbook: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "kind": self.kind,
            "title": self.title,
            "text": self.text,
            "collection": self.collection_id,
            "storage_day": self.storage_day.isoformat(),
            "export_day": export_day_of(self.storage_day).isoformat(),
            "runbook": self.runbook,
        }
