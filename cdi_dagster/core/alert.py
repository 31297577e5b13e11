"""What late days, failed runs and `cdi watch` send. Pure values; sending is `cdi_dagster.resources.alerts`."""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from cdi_dagster.core.days import export_day_of

REMIND_AFTER = timedelta(days=1)
"""A cause that goes on is alerted again after this time, whatever it is."""


class AlertLevel(StrEnum):
    """How urgent it is; the text is the message attribute `notification_type`, by which rules filter."""

    ERROR = "Error"
    """A person has to do something."""
    WARNING = "Warning"
    """It is being run, now or again: nothing has to be done yet."""
    INFORMATION = "Information"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One message to a person. Locations, counts and reasons; never content.

    Attributes:
        kind: what alert rules match on: `LATE`, `FAILED`, `WATCH` and `TEST`, and each with `_OVER`.
        title: one line.
        text: what is known, and what to do.
        runbook: link to the section about it.
        key: the same for every message about one cause: where incidents are kept, it is one.
        level: how urgent it is.
        collection_id: `db:name`; None where it is about the installation.
        storage_days: the partitions that it is about, oldest first.
        failure_class: of the run that failed, or of what a late day waits for; where known, like owner and next step.
        owner: who can fix it.
        next_step: what to do.
        run_url: the run's page in the Dagster UI.
        last_log_lines: of the job, scrubbed, where there are any.
    """

    kind: str
    title: str
    text: str
    runbook: str
    key: str
    level: AlertLevel = AlertLevel.ERROR
    collection_id: str | None = None
    storage_days: tuple[date, ...] = ()
    failure_class: str | None = None
    owner: str | None = None
    next_step: str | None = None
    run_url: str | None = None
    last_log_lines: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether its cause is over: what it reports was alerted before under the same key."""
        return self.kind.endswith("_OVER")

    @property
    def severity(self) -> str:
        """The message attribute `severity`."""
        return "Critical" if self.level is AlertLevel.ERROR else "High"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; what is None is left out. One day has the keys of a single day too."""
        days = [day.isoformat() for day in self.storage_days]
        export_days = [export_day_of(day).isoformat() for day in self.storage_days]
        values = {
            "kind": self.kind,
            "title": self.title,
            "text": self.text,
            "collection": self.collection_id,
            "storage_day": days[0] if len(days) == 1 else None,
            "export_day": export_days[0] if len(days) == 1 else None,
            "storage_days": days or None,
            "export_days": export_days or None,
            "runbook": self.runbook,
            "key": self.key,
            "notification_type": str(self.level),
            "severity": self.severity,
            "failure_class": self.failure_class,
            "owner": self.owner,
            "next_step": self.next_step,
            "run_url": self.run_url,
            "last_log_lines": self.last_log_lines,
        }
        return {name: value for name, value in values.items() if value is not None}
