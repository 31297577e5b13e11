"""How many requests run at once once S3 throttles them."""

import threading
from contextlib import ExitStack

import pytest

from cdi_dagster.storage.pace import Pace
from cdi_dagster_tests.waiting import PATIENCE_SECONDS


def test_nothing_waits_before_the_first_slowdown() -> None:
    pace = Pace()
    with ExitStack() as turns:
        for _ in range(100):
            turns.enter_context(pace.turn())
        pace.speed_up()
    assert pace.most == float("inf")


def test_a_burst_of_throttled_requests_halves_them_once_and_a_later_one_again() -> None:
    pace = Pace()
    with ExitStack() as turns:
        burst = [turns.enter_context(pace.turn()) for _ in range(32)]
        for began in burst:
            pace.slow_down(began)
        assert pace.most == 16
    with pace.turn() as began:
        pace.slow_down(began)
        pace.slow_down(began)
    assert pace.most == 1


def test_as_many_successes_as_run_at_once_add_about_one() -> None:
    pace = Pace()
    with ExitStack() as turns:
        began = [turns.enter_context(pace.turn()) for _ in range(20)]
        pace.slow_down(began[0])
    for _ in range(10):
        pace.speed_up()
    assert pace.most == pytest.approx(11, abs=0.1)


def test_who_has_no_turn_waits_until_another_is_over() -> None:
    pace = Pace()
    entered = threading.Event()

    def request() -> None:
        with pace.turn():
            entered.set()

    with pace.turn() as began:
        pace.slow_down(began)
        waiting = threading.Thread(target=request)
        waiting.start()
        assert not entered.wait(0.05)
    assert entered.wait(PATIENCE_SECONDS)
    waiting.join()
