"""Which profile is tried next, how often and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.emr.launch_plan import (
    BUDGETS,
    AttemptOutcome,
    FailedAttempt,
    GiveUp,
    NextAttempt,
    Profile,
    first_choice,
    next_attempt,
)

GB = 1_000_000_000
SMALL = Profile(name="small", size=1, up_to_input_bytes=10 * GB)
MEDIUM = Profile(name="medium", size=2, up_to_input_bytes=100 * GB)
LARGE = Profile(name="large", size=3)
OTHER = Profile(name="large-other-family", size=3)
LADDER = (SMALL, MEDIUM, LARGE, OTHER)


def walk(outcome: AttemptOutcome, input_bytes: int = 1) -> list[tuple[str, float]]:
    """Fail again and again in the same way until nothing more is tried."""
    failed: list[FailedAttempt] = []
    steps = []
    while isinstance(step := next_attempt(LADDER, input_bytes, failed), NextAttempt):
        steps.append((step.profile.name, step.wait_seconds))
        failed.append(FailedAttempt(profile=step.profile.name, outcome=outcome))
    assert step.why
    return steps


@pytest.mark.parametrize(
    ("input_bytes", "expected"),
    [(0, SMALL), (10 * GB, SMALL), (10 * GB + 1, MEDIUM), (100 * GB, MEDIUM), (10**15, LARGE)],
)
def test_the_first_choice_fits_the_input(input_bytes: int, expected: Profile) -> None:
    assert first_choice(LADDER, input_bytes) == expected


def test_the_last_profile_takes_what_no_other_is_meant_for() -> None:
    assert first_choice((SMALL, MEDIUM), 10**15) == MEDIUM


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (
            AttemptOutcome.NO_CAPACITY,
            [("small", 0), ("medium", 30), ("large", 60), ("large-other-family", 120), ("small", 240)],
        ),
        (AttemptOutcome.INTERNAL, [("small", 0), ("small", 30), ("small", 60)]),
        (AttemptOutcome.BOOTSTRAP, [("small", 0), ("small", 30)]),
        (AttemptOutcome.INSTANCE_LOST, [("small", 0), ("small", 30), ("small", 60)]),
        (AttemptOutcome.OUT_OF_MEMORY, [("small", 0), ("medium", 0), ("large", 0)]),
        (AttemptOutcome.KEY_SERVICE, [("small", 0), ("small", 120), ("small", 240), ("small", 480)]),
        (AttemptOutcome.REJECTED, [("small", 0)]),
        (AttemptOutcome.ENDED_BY_SOMEONE, [("small", 0)]),
        (AttemptOutcome.DEADLINE, [("small", 0)]),
        (AttemptOutcome.JOB, [("small", 0)]),
    ],
)
def test_every_outcome_has_its_budget(outcome: AttemptOutcome, expected: list[tuple[str, float]]) -> None:
    assert walk(outcome) == expected


def test_memory_gives_up_where_nothing_is_larger() -> None:
    assert walk(AttemptOutcome.OUT_OF_MEMORY, input_bytes=10**15) == [("large", 0)]


def test_a_profile_that_left_the_template_starts_the_ladder_again() -> None:
    step = next_attempt(LADDER, 1, [FailedAttempt(profile="gone", outcome=AttemptOutcome.INTERNAL)])
    assert step == NextAttempt(profile=SMALL, wait_seconds=30)


@given(
    st.lists(st.sampled_from([outcome for outcome in AttemptOutcome if outcome.is_failure]), max_size=40),
    st.integers(0, 10**13),
)
def test_attempts_are_finite_whatever_goes_wrong(outcomes: list[AttemptOutcome], input_bytes: int) -> None:
    failed: list[FailedAttempt] = []
    for outcome in outcomes:
        step = next_attempt(LADDER, input_bytes, failed)
        if isinstance(step, GiveUp):
            break
        failed.append(FailedAttempt(profile=step.profile.name, outcome=outcome))
    assert len(failed) <= 1 + sum(budget.retries for budget in BUDGETS.values())
