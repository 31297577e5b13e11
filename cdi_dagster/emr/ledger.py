"""The launch ledger: what was asked of EMR for a step of a day, in storage, so that a killed process loses nothing.

An object for each collection, day and step, replaced by compare-and-swap only. It is written *before* EMR is asked, so
whatever a process was doing when it died, the next one knows the name to look for, and budgets are counted from it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.emr_verdict import TroubleKind
from cdi_dagster.core.failures import FailureClass, StepMayGoOnError
from cdi_dagster.core.launch_plan import FailedAttempt
from cdi_dagster.core.storage_keys import control_prefix
from cdi_dagster.storage.interface import ObjectChangedError, ObjectExistsError, ObjectMissingError, Storage

SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
REPLACED = "REPLACED"
"""Given up because other work was asked for in the meantime (the day was pinned again)."""


class TakenOverError(StepMayGoOnError):
    """Another process follows the launch now; this one must leave its cluster alone."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try. Times are epoch seconds.

    Attributes:
        number: from 1, never used twice for a step of a day.
        name: cluster name, or step name on an existing cluster.
        profile: of the template; `existing` on an existing cluster.
        run_id: Dagster run that began it.
        asked_at: when EMR was about to be asked.
        cluster_id: once known.
        step_id: once known.
        ready_at: when the cluster was ready for steps, once known: from then on it was seen to run.
        ended_at: when it was over for us.
        outcome: SUCCEEDED, CANCELLED, REPLACED, or the kind of trouble.
        failure: of a failed one, as `CdiError.to_json` writes it.
        billed_seconds: for the estimate of its cost.
    """

    number: int
    name: str
    profile: str
    run_id: str
    asked_at: float
    cluster_id: str | None = None
    step_id: str | None = None
    ready_at: float | None = None
    ended_at: float | None = None
    outcome: str | None = None
    failure: Mapping[str, Any] | None = None
    billed_seconds: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether something may still run for it."""
        return self.outcome is None

    @property
    def seconds(self) -> float:
        """From the question to the end."""
        return max((self.ended_at or self.asked_at) - self.asked_at, 0.0)


@dataclass(frozen=True, kw_only=True)
class LaunchEntry:
    """Everything known about the launch of a day's step, and those before it.

    Attributes:
        launch_id: id of the first of the runs that belong together (a run and its retries) of the present launch.
        step: name of the Spark step.
        work: digest of what was asked (`request.work_of`).
        owner: the process that follows it now.
        begun_at: epoch seconds; the run deadline counts from here.
        counted_from: number of the first attempt that counts against the budgets.
        attempts: all of them, oldest first.
        outcome: SUCCEEDED, FAILED or CANCELLED once it is over; None while it is not.
    """

    launch_id: str
    step: str
    work: str
    owner: str
    begun_at: float
    counted_from: int = 1
    attempts: tuple[Attempt, ...] = ()
    outcome: str | None = None

    @property
    def current(self) -> Attempt | None:
        """The attempt that may still run."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].is_open else None

    @property
    def counted(self) -> tuple[Attempt, ...]:
        """The attempts of this asking; earlier ones are history."""
        return tuple(attempt for attempt in self.attempts if attempt.number >= self.counted_from)

    @property
    def failed(self) -> tuple[FailedAttempt, ...]:
        """The attempts that count against the budgets."""
        return tuple(
            FailedAttempt(profile=attempt.profile, kind=TroubleKind(attempt.outcome))
            for attempt in self.counted
            if attempt.outcome is not None and attempt.outcome in TroubleKind.__members__
        )

    def with_attempt(self, attempt: Attempt) -> "LaunchEntry":
        """Return the entry with a new attempt, or with a newer version of one."""
        others = tuple(other for other in self.attempts if other.number != attempt.number)
        return replace(self, attempts=(*others, attempt))


class LaunchLedger:
    """The entry in storage, as one process holds it.

    Every write proves that nobody else has written since: two processes that both believe in a run cannot both launch.
    """

    def __init__(self, storage: Storage, prefix: str) -> None:
        """Hold nothing yet.

        Args:
            storage: the published root.
            prefix: of the day's step, without an ending (`launch_prefix`).
        """
        self._storage = storage
        self._key = f"{prefix}.json"
        self._etag: str | None = None

    @property
    def uri(self) -> str:
        """Where the entry lies."""
        return self._storage.uri(self._key)

    def read(self) -> LaunchEntry | None:
        """Return the entry, or None; later writes replace exactly what was read here."""
        for _ in range(5):
            found = self._storage.head(self._key)
            if found is None:
                self._etag = None
                return None
            try:
                with self._storage.open(self._key, etag=found.etag) as source:
                    value = json.loads(source.read())
            except (ObjectChangedError, ObjectMissingError):
                continue
            self._etag = found.etag
            return _entry(value)
        raise _taken_over(self.uri)

    def write(self, entry: LaunchEntry) -> LaunchEntry:
        """Replace what was read or written last.

        Raises:
            CdiError: DUPLICATE_RUN where another process has written since: it follows this launch now.
        """
        data = json.dumps(asdict(entry), indent=1).encode()
        try:
            if self._etag is None:
                stored = self._storage.write(self._key, data, if_absent=True)
            else:
                stored = self._storage.write(self._key, data, if_match=self._etag)
        except (ObjectChangedError, ObjectExistsError) as error:
            # Storage may have answered a retry of our own write. The owner in it is ours alone, so equal is ours.
            found = self._storage.head(self._key)
            if found is None or self._storage.read(self._key) != data:
                raise _taken_over(self.uri) from error
            stored = found
        self._etag = stored.etag
        return entry


def launch_prefix(day: CollectionDay, step: str) -> str:
    """Return where everything about the launches of a day's step lies, without an ending.

    One place whoever asks: a run that was made anew, by the sensor or a person, finds the cluster of the one before.
    """
    return f"{control_prefix(day)}launches/{step}"


def _entry(value: Mapping[str, Any]) -> LaunchEntry:
    return LaunchEntry(**{**value, "attempts": tuple(Attempt(**attempt) for attempt in value["attempts"])})


def _taken_over(uri: str) -> TakenOverError:
    return TakenOverError(
        FailureClass.DUPLICATE_RUN,
        f"Another process follows this launch now (ledger {uri}); this one leaves it alone.",
        next_step="Follow the younger run of this day; it has the cluster and its messages.",
        detail={"ledger": uri},
    )
