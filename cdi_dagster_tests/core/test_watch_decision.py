"""What `cdi watch --alert` sends: what is new at once, what goes on once a day, the recovery once."""

from datetime import UTC, datetime, timedelta

import pytest

from cdi_dagster.core.watch_decision import Problem, WatchAction, WatchState, decide_watch

NOW = datetime(2023, 3, 27, 12, tzinfo=UTC)
DAEMON = Problem(text="The daemon is not running: its last heartbeat was 6 min ago", keys=("daemon",))
DAYS = Problem(text="data:equality: not published: 2023-03-25, 2023-03-26", keys=("25", "26"))
ONE_DAY = Problem(text="data:equality: not published: 2023-03-26", keys=("26",))


def story(*runs):
    """Return what each run sends, from the one state to the next."""
    state, sent = WatchState(), []
    for hours, problems in runs:
        action, state = decide_watch(problems, state, NOW + timedelta(hours=hours))
        state = WatchState.from_json(state.to_json())
        sent.append(action)
    return sent


A, R, N = WatchAction.ALERT, WatchAction.RECOVERED, WatchAction.NOTHING


@pytest.mark.parametrize(
    ("runs", "sent"),
    [
        ([(0, []), (1, [])], [N, N]),
        ([(0, [DAEMON]), (1, [DAEMON]), (2, []), (3, [])], [A, N, R, N]),
        ([(0, [DAEMON]), (23.9, [DAEMON]), (24, [DAEMON]), (25, [DAEMON]), (48, [DAEMON])], [A, N, A, N, A]),
        ([(0, [DAEMON]), (1, [DAEMON, DAYS]), (2, [DAEMON, DAYS])], [A, A, N]),
        ([(0, [DAYS]), (1, [ONE_DAY]), (2, [DAYS])], [A, N, A]),
        ([(0, [DAEMON, DAYS]), (1, [DAYS]), (2, [DAEMON, DAYS])], [A, N, A]),
    ],
    ids=["well", "down and up", "reminded daily", "something new", "fewer days, then more", "down again"],
)
def test_each_problem_is_alerted_once_then_daily_and_the_recovery_once(runs, sent):
    assert story(*runs) == sent
