"""The launch ledger: what was requested for a step of a day, in storage, so that a killed process loses nothing.

An object for each collection, day and step, replaced by compare-and-swap only. It is written *before* a request is
sent, so whatever a process was doing when it died, the next one knows the name to look for, and budgets are counted
from it. In a process it is the one place that knows how far an attempt is.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from cdi_dagster.core.failures import FailureClass, StepMayGoOnError
from cdi_dagster.emr.launch_plan import AttemptOutcome, FailedAttempt
from cdi_dagster.storage.interface import ObjectChangedError, ObjectExistsError, ObjectMissingError, Storage

_NAMES_OF_0_1 = {"asked_at": "requested_at", "cluster_id": "compute_id", "step_id": "job_id"}
"""Names of an attempt's fields in ledgers that version 0.1.0 wrote."""


class TakenOverError(StepMayGoOnError):
    """Another process follows the launch now; this one must leave what runs alone."""


@dataclass(frozen=True, kw_only=True)
class AttemptEntry:
    """One attempt, as the ledger has it. Times are epoch seconds.

    Attributes:
        number: from 1, never used twice for a step of a day.
        name: unique to this attempt; by it the backend finds the job again.
        profile: of the ladder.
        run_id: Dagster run that follows it, or did so last.
        requested_at: when the request was about to be sent.
        compute_id: what the job runs on, by the backend's id (an EMR cluster), once known.
        job_id: the job itself, by the backend's id (an EMR step), once known.
        ready_at: when it could run the job, once known: from then on an end is a loss, not a failed start.
        ended_at: when it was over for us.
        outcome: once it is over.
        failure: of a failed one, as `CdiError.to_json` writes it.
        billed_seconds: for the estimate of its cost.
    """

    number: int
    name: str
    profile: str
    run_id: str
    requested_at: float
    compute_id: str | None = None
    job_id: str | None = None
    ready_at: float | None = None
    ended_at: float | None = None
    outcome: AttemptOutcome | None = None
    failure: Mapping[str, Any] | None = None
    billed_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """From the request to the end."""
        return max((self.ended_at or self.requested_at) - self.requested_at, 0.0)


@dataclass(frozen=True, kw_only=True)
class LaunchEntry:
    """Everything known about the launch of a day's step, and those before it.

    Attributes:
        launch_id: id of the first of the runs that belong together (a run and its retries) of the present launch.
        step: name of the Spark step.
        work: digest of what was requested (`resume.work_digest`).
        owner: the process that follows it now.
        begun_at: epoch seconds; the run deadline counts from here.
        counted_from: number of the first attempt that counts against the budgets.
        attempts: all of them, oldest first.
    """

    launch_id: str
    step: str
    work: str
    owner: str
    begun_at: float
    counted_from: int = 1
    attempts: tuple[AttemptEntry, ...] = ()

    @property
    def current(self) -> AttemptEntry | None:
        """The attempt that may still run."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].outcome is None else None

    @property
    def counted(self) -> tuple[AttemptEntry, ...]:
        """The attempts of the present launch; earlier ones are history."""
        return tuple(attempt for attempt in self.attempts if attempt.number >= self.counted_from)

    @property
    def has_succeeded(self) -> bool:
        """Whether the present launch is over, and well."""
        return bool(self.counted) and self.counted[-1].outcome is AttemptOutcome.SUCCEEDED

    @property
    def failed(self) -> tuple[FailedAttempt, ...]:
        """The attempts that count against the budgets."""
        return tuple(
            FailedAttempt(profile=attempt.profile, outcome=attempt.outcome)
            for attempt in self.counted
            if attempt.outcome is not None and attempt.outcome.is_failure
        )

    def with_attempt(self, attempt: AttemptEntry) -> "LaunchEntry":
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
        self._entry: LaunchEntry | None = None
        self._unconfirmed: bytes | None = None

    @property
    def uri(self) -> str:
        """Where the entry lies."""
        return self._storage.uri(self._key)

    @property
    def entry(self) -> LaunchEntry:
        """What was written or read last."""
        assert self._entry is not None, "read or write first"  # noqa: S101 - a defect of ours
        return self._entry

    @property
    def attempt(self) -> AttemptEntry:
        """The attempt that may still run."""
        assert self.entry.current is not None, "no attempt is open"  # noqa: S101 - a defect of ours
        return self.entry.current

    def read(self) -> LaunchEntry | None:
        """Return the entry, or None; later writes replace exactly what was read here.

        Raises:
            StepMayGoOnError: DUPLICATE_RUN where others write all the time; JOB_FAILED where it cannot be read.
        """
        for _ in range(5):
            found = self._storage.head(self._key)
            if found is None:
                self._etag = self._entry = None
                return None
            try:
                with self._storage.open(self._key, etag=found.etag) as source:
                    entry = _from_json(json.loads(source.read()))
            except (ObjectChangedError, ObjectMissingError):
                continue
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise _unreadable(self.uri) from error
            self._etag, self._entry = found.etag, entry
            return self._entry
        raise _taken_over(self.uri)

    def write(self, entry: LaunchEntry) -> LaunchEntry:
        """Replace what was read or written last.

        Raises:
            CdiError: DUPLICATE_RUN where another process has written since: it follows this launch now.
        """
        data = json.dumps(asdict(entry), indent=1).encode()
        interrupted, self._unconfirmed = self._unconfirmed, data
        try:
            if self._etag is None:
                stored = self._storage.write(self._key, data, if_absent=True)
            else:
                stored = self._storage.write(self._key, data, if_match=self._etag)
        except (ObjectChangedError, ObjectExistsError) as error:
            # Storage may have answered a retry of our own write. The owner in it is ours alone, so equal is ours.
            found = self._storage.head(self._key)
            present = None if found is None else self._storage.read(self._key)
            if found is None or present not in (data, interrupted):
                raise _taken_over(self.uri) from error
            # Or a signal came between an earlier write and its response.
            stored = found if present == data else self._storage.write(self._key, data, if_match=found.etag)
        self._etag, self._entry, self._unconfirmed = stored.etag, entry, None
        return entry

    def update_attempt(self, **changes: Any) -> AttemptEntry:
        """Write what is newly known of the open attempt; return it as it is then. Raises as `write`."""
        newer = replace(self.attempt, **changes)
        if newer != self.attempt:
            self.write(self.entry.with_attempt(newer))
        return newer


def _from_json(value: Mapping[str, Any]) -> LaunchEntry:
    known = _known(LaunchEntry, value)
    return LaunchEntry(**{**known, "attempts": tuple(_attempt(attempt) for attempt in value["attempts"])})


def _attempt(value: Mapping[str, Any]) -> AttemptEntry:
    known = _known(AttemptEntry, {_NAMES_OF_0_1.get(name, name): part for name, part in value.items()})
    outcome = known.get("outcome")
    return AttemptEntry(**{**known, "outcome": AttemptOutcome(outcome) if outcome else None})


def _known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: part for name, part in value.items() if name in names}


def _unreadable(uri: str) -> StepMayGoOnError:
    return StepMayGoOnError(
        FailureClass.JOB_FAILED,
        f"The ledger of this launch, {uri}, is damaged, or another version of cdi_dagster wrote it.",
        next_step="If the cluster that it names is still there (`cdi clusters`), terminate it. Then move the ledger "
        "away, and run the day again.",
        detail={"ledger": uri},
    )


def _taken_over(uri: str) -> TakenOverError:
    return TakenOverError(
        FailureClass.DUPLICATE_RUN,
        f"Another process follows this launch now (ledger {uri}); this one leaves it alone.",
        next_step="Follow the younger run of this day; it has the cluster and its messages.",
        detail={"ledger": uri},
    )
