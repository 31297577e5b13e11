"""Which messages failed runs are: one for each cause with its days, and none for a run whose cause is known already.

Pure. Whether a run is alerted at all is `core.alert_decision`; reading earlier messages and sending is
`cdi_dagster.sensors.failed_runs`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from cdi_dagster.core.alert import REMIND_AFTER
from cdi_dagster.core.failures import CdiError

_A_PERSON = "a person"
_SNAPSHOT_OF = "snapshot of "
"""Begins the causes of snapshots."""


@dataclass(frozen=True, kw_only=True)
class FailedDay:
    """A failed run of which a person has to know.

    Attributes:
        run_id: of the run.
        collection_id: `db:name`.
        storage_day: the partition; of a snapshot the last that it takes in.
        failure: why it failed.
        what_happens: automatically, in words.
        will_retry: whether automation runs the day again.
        requested_by: `backfill <id>`, `automation`, or None for a person's single run, which is a cause of its own.
        is_snapshot: whether it makes the snapshot of the day's export day, and not the day.
    """

    run_id: str
    collection_id: str
    storage_day: date
    failure: CdiError
    what_happens: str
    will_retry: bool = False
    requested_by: str | None = None
    is_snapshot: bool = False

    @property
    def cause(self) -> str:
        """What the runs of one message have in common; a day that is left to a person is another than one retried."""
        left = "retried" if self.will_retry else "left"
        subject = f"{_SNAPSHOT_OF if self.is_snapshot else ''}{self.collection_id}"
        return f"{subject}|{self.failure.failure_class}|{self.requested_by or _A_PERSON}|{left}"

    @property
    def can_be_known(self) -> bool:
        """Whether an earlier message may have been about its cause."""
        return self.requested_by is not None


@dataclass(frozen=True, kw_only=True)
class EarlierMessage:
    """The last message about a cause that goes on: by which run, and when."""

    run_id: str
    sent_at: datetime


@dataclass(frozen=True, kw_only=True)
class FailureMessage:
    """The failed days of one cause.

    Attributes:
        failed: the runs, by day.
        known_by: the earlier message, where this one is not sent.
    """

    failed: tuple[FailedDay, ...]
    known_by: EarlierMessage | None = None

    @property
    def cause(self) -> str:
        """The cause, as its runs are tagged with it; that of a person's runs is this message's alone."""
        first = self.failed[0]
        return first.cause if first.can_be_known else first.cause.replace(_A_PERSON, f"{_A_PERSON} ({first.run_id})")


def group_failures(
    failed: Sequence[FailedDay], earlier: Mapping[str, EarlierMessage], now: datetime
) -> list[FailureMessage]:
    """Return a message for each cause.

    Args:
        failed: all that one tick found.
        earlier: the last message by cause, of causes that go on.
        now: aware, UTC.
    """
    causes: dict[str, list[FailedDay]] = {}
    for each in failed:
        causes.setdefault(each.cause, []).append(each)
    return [
        FailureMessage(
            failed=tuple(sorted(days, key=lambda each: each.storage_day)),
            known_by=_known(days[0], earlier.get(cause), now),
        )
        for cause, days in causes.items()
    ]


def collection_of(cause: str) -> tuple[str, bool]:
    """Return the collection's id of a cause, and whether it is one of snapshots."""
    subject = cause.partition("|")[0]
    return subject.removeprefix(_SNAPSHOT_OF), subject.startswith(_SNAPSHOT_OF)


def is_left(cause: str) -> bool:
    """Whether the days of a cause are left to a person."""
    return cause.endswith("|left")


def _known(failed: FailedDay, earlier: EarlierMessage | None, now: datetime) -> EarlierMessage | None:
    is_known = failed.can_be_known and earlier is not None and now - earlier.sent_at < REMIND_AFTER
    return earlier if is_known else None
