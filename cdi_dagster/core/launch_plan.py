"""What to try next after an attempt on EMR failed: profiles, budgets and waits. Pure.

The attempts so far are facts from the launch ledger, so a restarted orchestrator goes on where it was: budgets are
counted from them, never kept in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cdi_dagster.core.emr_verdict import TroubleKind


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
    """How often one kind of trouble is tried again, and how long is waited before.

    Attributes:
        retries: further attempts after trouble of this kind.
        first_wait_seconds: before the first of them; doubles each time.
    """

    retries: int
    first_wait_seconds: float = 0


BUDGETS = {
    TroubleKind.NO_CAPACITY: Budget(retries=4, first_wait_seconds=30),
    TroubleKind.INTERNAL: Budget(retries=2, first_wait_seconds=30),
    TroubleKind.BOOTSTRAP: Budget(retries=1, first_wait_seconds=30),
    TroubleKind.INSTANCE_LOST: Budget(retries=2, first_wait_seconds=30),
    TroubleKind.OUT_OF_MEMORY: Budget(retries=2),
    TroubleKind.KEY_SERVICE: Budget(retries=3, first_wait_seconds=120),
}
"""Kinds that are not here are never tried again."""


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """One attempt that failed: which profile, and of what kind."""

    profile: str
    kind: TroubleKind


@dataclass(frozen=True, kw_only=True)
class NextAttempt:
    """Try this profile after this wait (seconds)."""

    profile: Profile
    wait_seconds: float = 0


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """Nothing more is tried; the sentence says why."""

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
    budget = BUDGETS.get(last.kind)
    if budget is None:
        return GiveUp(why=f"{last.kind} is not mended by another attempt")
    tries = sum(attempt.kind == last.kind for attempt in failed)
    if tries > budget.retries:
        return GiveUp(why=f"{last.kind} {tries} times; {budget.retries} further attempts are allowed")
    index = next((n for n, profile in enumerate(ladder) if profile.name == last.profile), None)
    if index is None:
        return NextAttempt(profile=first_choice(ladder, input_bytes), wait_seconds=_wait(budget, tries))
    profile: Profile | None = ladder[index]
    if last.kind is TroubleKind.NO_CAPACITY:
        profile = ladder[(index + 1) % len(ladder)]
    elif last.kind is TroubleKind.OUT_OF_MEMORY:
        larger = [choice for choice in ladder if choice.size > ladder[index].size]
        profile = min(larger, key=lambda choice: choice.size, default=None)
    if profile is None:
        return GiveUp(why=f"{last.kind} on {last.profile}, and the ladder has nothing larger")
    return NextAttempt(profile=profile, wait_seconds=_wait(budget, tries))


def _wait(budget: Budget, tries: int) -> float:
    return float(budget.first_wait_seconds * 2 ** (tries - 1))
