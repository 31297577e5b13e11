"""The alert that a late day or a failed run sends. Pure values; sending is `cdi_dagster.resources.alerts`."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from cdi_dagster.core.days import export_day_of


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One message to a person. Locations, counts and reasons; never content.

    Attributes:
        kind: what alert rules match on: `LATE`, `LATE_OVER`, `FAILED`.
        title: one line.
        text: what is known, and what to do.
        collection_id: `db:name`.
        storage_day: the partition.
        runbook: link to the section about it.
        failure_class: of the run that failed, or of what a late day waits for; where known, like owner and next step.
        owner: who can fix it.
        next_step: what to do.
        run_url: the run's page in the Dagster UI.
        last_log_lines: of the job, scrubbed, where there are any.
    """

    kind: str
    title: str
    text: str
    collection_id: str
    storage_day: date
    runbook: str
    failure_class: str | None = None
    owner: str | None = None
    next_step: str | None = None
    run_url: str | None = None
    last_log_lines: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; what is None is left out."""
        values = {
            "kind": self.kind,
            "title": self.title,
            "text": self.text,
            "collection": self.collection_id,
            "storage_day": self.storage_day.isoformat(),
            "export_day": export_day_of(self.storage_day).isoformat(),
            "runbook": self.runbook,
            "failure_class": self.failure_class,
            "owner": self.owner,
            "next_step": self.next_step,
            "run_url": self.run_url,
            "last_log_lines": self.last_log_lines,
        }
        return {name: value for name, value in values.items() if value is not None}
