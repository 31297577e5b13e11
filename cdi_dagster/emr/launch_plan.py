"""What to try next after an attempt failed: outcomes, profiles, budgets and waits. Pure.

The attempts so far are facts from the launch ledger, so a restarted orchestrator continues where it was: budgets are
counted from them, never kept in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class AttemptOutcome(StrEnum):
    """How an attempt ended. Stored in the ledger and shown on the run page, so a value never changes its name."""

    SUCCEEDED = "SUCCEEDED"
    CANCELLED = "CANCELLED"
    """Its run was cancelled."""
    REPLACED = "REPLACED"
    """Ended because other work was requested in the meantime (the day was pinned again)."""
    REJECTED = "REJECTED"
    """The request was refused or not valid: another attempt gets the same response."""
    NO_CAPACITY = "NO_CAPACITY"
    """Capacity, a quota, or nothing started in time: another choice of instances may work."""
    INTERNAL = "INTERNAL"
    """EMR failed before anything ran."""
    BOOTSTRAP = "BOOTSTRAP"
    """Setting up the nodes failed."""
    INSTANCE_LOST = "INSTANCE_LOST"
    """Instances were lost under a job that ran."""
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    """The driver or executors were killed for memory."""
    KEY_SERVICE = "KEY_SERVICE"
    """The key service did not respond within the job's own budget."""
    ENDED_BY_SOMEONE = "ENDED_BY_SOMEONE"
    """A person or another program ended it."""
    DEADLINE = "DEADLINE"
    """The launch took longer than its budget."""
    JOB = "JOB"
    """The job itself failed, or ended without its closing report: only a person can fix it."""

    @property
    def is_failure(self) -> bool:
        """Whether it counts against the budgets."""
        return self not in (AttemptOutcome.SUCCEEDED, AttemptOutcome.CANCELLED, AttemptOutcome.REPLACED)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One choice of instances.

    Attributes:
        name: as in the cluster template.
        size: rung of the ladder; a larger number has more memory an executor.
        up_to_input_bytes: largest compressed input that it is the first choice for; None is no limit.
    """

    name: str
    size: int
    up_to_input_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How often an attempt that ended in one way is retried, and the wait before.

    Attributes:
        retries: further attempts after this outcome.
        first_wait_seconds: before the first of them; doubles each time.
    """

    retries: int
    first_wait_seconds: float = 0


BUDGETS = {
    AttemptOutcome.NO_CAPACITY: Budget(retries=4, first_wait_seconds=30),
    AttemptOutcome.INTERNAL: Budget(retries=2, first_wait_seconds=30),
    AttemptOutcome.BOOTSTRAP: Budget(retries=1, first_wait_seconds=30),
    AttemptOutcome.INSTANCE_LOST: Budget(retries=2, first_wait_seconds=30),
    AttemptOutcome.OUT_OF_MEMORY: Budget(retries=2),
    AttemptOutcome.KEY_SERVICE: Budget(retries=3, first_wait_seconds=120),
}
"""Outcomes that are not here are never retried."""


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """One attempt that failed: on which profile, and how."""

    profile: str
    outcome: AttemptOutcome


@dataclass(frozen=True, kw_only=True)
class NextAttempt:
    """Try this profile after this wait (seconds)."""

    profile: Profile
    wait_seconds: float = 0


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """Nothing more is tried; with the reason."""

    why: str


def first_choice(ladder: Sequence[Profile], input_bytes: int) -> Profile:
    """Return the first profile of the ladder that is meant for this much input; the last where none is."""
    for profile in ladder:
        if profile.up_to_input_bytes is None or input_bytes <= profile.up_to_input_bytes:
            return profile
    return ladder[-1]


def next_attempt(ladder: Sequence[Profile], input_bytes: int, failed: Sequence[FailedAttempt]) -> NextAttempt | GiveUp:
    """Decide what to do after the attempts so far, all of which failed.

    Capacity takes the next profile in the ladder, round and round; memory the next larger one; the rest the same.
    """
    if not failed:
        return NextAttempt(profile=first_choice(ladder, input_bytes))
    last = failed[-1]
    budget = BUDGETS.get(last.outcome)
    if budget is None:
        return GiveUp(why=f"another attempt does not fix {last.outcome}")
    tries = sum(attempt.outcome == last.outcome for attempt in failed)
    if tries > budget.retries:
        return GiveUp(why=f"{last.outcome} {tries} times; {budget.retries} further attempts are allowed")
    index = next((n for n, profile in enumerate(ladder) if profile.name == last.profile), None)
    if index is None:
        return NextAttempt(profile=first_choice(ladder, input_bytes), wait_seconds=_wait(budget, tries))
    profile: Profile | None = ladder[index]
    if last.outcome is AttemptOutcome.NO_CAPACITY:
        profile = ladder[(index + 1) % len(ladder)]
    elif last.outcome is AttemptOutcome.OUT_OF_MEMORY:
        larger = [choice for choice in ladder if choice.size > ladder[index].size]
        profile = min(larger, key=lambda choice: choice.size, default=None)
    if profile is None:
        return GiveUp(why=f"{last.outcome} on {last.profile}, and the ladder has nothing larger")
    return NextAttempt(profile=profile, wait_seconds=_wait(budget, tries))


def _wait(budget: Budget, tries: int) -> float:
    return float(budget.first_wait_seconds * 2 ** (tries - 1))
