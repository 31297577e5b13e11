"""Calls for keys are few while they are quick, many while they are not, and nobody waits for one that never comes."""

import threading
import time
from collections.abc import Iterable, Mapping

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.records import key_prefetch
from cdi_dagster.spark.records.key_prefetch import KeyPrefetch
from cdi_dagster.spark.records.keys import KeyRef

PATIENCE_SECONDS = 20.0


def refs(*names: str) -> set[KeyRef]:
    return {KeyRef("kek", name) for name in names}


class HeldKeys:
    """Answers a call when it is let go."""

    def __init__(self, failure: CdiError | None = None) -> None:
        self.calls: list[set[KeyRef]] = []
        self._failure = failure
        self._went_on = threading.Condition()
        self._let_go = 0

    def data_keys(self, wanted: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        with self._went_on:
            self.calls.append(set(wanted))
            number = len(self.calls)
            self._went_on.notify_all()
            assert self._went_on.wait_for(lambda: self._let_go >= number, PATIENCE_SECONDS)
        if self._failure:
            raise self._failure
        return dict.fromkeys(self.calls[number - 1], b"key")

    def let_go(self, calls: int) -> None:
        with self._went_on:
            self._let_go = calls
            self._went_on.notify_all()

    def wait_for_calls(self, count: int) -> None:
        with self._went_on:
            assert self._went_on.wait_for(lambda: len(self.calls) >= count, PATIENCE_SECONDS)


@pytest.fixture
def no_call_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_prefetch, "_LONG_SECONDS", 3_600.0)


@pytest.mark.usefixtures("no_call_is_long")
def test_what_gathers_during_a_call_is_asked_for_in_the_next() -> None:
    keys = HeldKeys()
    ahead = KeyPrefetch(keys)
    first, second, third = ahead.ask(refs("a")), ahead.ask(refs("b")), ahead.ask(refs("b", "c"))
    assert second is third
    keys.let_go(2)

    assert first.result(PATIENCE_SECONDS) == dict.fromkeys(refs("a"), b"key")
    assert second.result(PATIENCE_SECONDS) == dict.fromkeys(refs("b", "c"), b"key")
    assert keys.calls == [refs("a"), refs("b", "c")]
    keys.let_go(3)
    assert ahead.ask(refs("d")).result(PATIENCE_SECONDS).keys() == refs("d")


@pytest.mark.usefixtures("no_call_is_long")
def test_whoever_waits_does_not_wait_for_the_call_before() -> None:
    keys = HeldKeys()
    ahead = KeyPrefetch(keys)
    ahead.ask(refs("a"))
    keys.wait_for_calls(1)
    asked = ahead.ask(refs("b"))
    ahead.hurry()
    keys.wait_for_calls(2)
    ahead.hurry()  # nothing has gathered
    keys.let_go(2)

    assert asked.result(PATIENCE_SECONDS).keys() == refs("b")
    assert len(keys.calls) == 2


def test_a_call_that_takes_long_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_prefetch, "_LONG_SECONDS", 0.01)
    keys = HeldKeys()
    ahead = KeyPrefetch(keys)
    ahead.ask(refs("a"))
    keys.wait_for_calls(1)
    time.sleep(0.02)
    ahead.ask(refs("b"))
    keys.wait_for_calls(2)
    keys.let_go(2)
    assert keys.calls == [refs("a"), refs("b")]


@pytest.mark.usefixtures("no_call_is_long")
def test_a_failure_is_told_to_all_who_wait_and_the_next_call_is_a_new_one() -> None:
    keys = HeldKeys(CdiError(FailureClass.DKS_FORBIDDEN, "No."))
    ahead = KeyPrefetch(keys)
    asked = [ahead.ask(refs("a"))]
    keys.wait_for_calls(1)
    asked.append(ahead.ask(refs("b")))
    keys.let_go(2)
    for call in asked:
        with pytest.raises(CdiError, match="No"):
            call.result(PATIENCE_SECONDS)
    with pytest.raises(CdiError, match="No"):
        ahead.ask(refs("c")).result(PATIENCE_SECONDS)
    assert keys.calls == [refs("a"), refs("c")]
