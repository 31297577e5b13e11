"""Few calls for keys while they are quick, more while they are slow; a failure reaches every waiting caller."""

import threading
import time
from collections.abc import Iterable, Mapping

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.records import key_prefetch
from cdi_dagster.spark.records.key_prefetch import KeyPrefetch
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster_tests.waiting import PATIENCE_SECONDS


def refs(*names: str) -> set[KeyRef]:
    return {KeyRef("kek", name) for name in names}


class HeldKeys:
    """Answers a call when it is released."""

    def __init__(self, failure: CdiError | None = None) -> None:
        self.calls: list[set[KeyRef]] = []
        self._failure = failure
        self._went_on = threading.Condition()
        self._released = 0

    def data_keys(self, wanted: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        with self._went_on:
            self.calls.append(set(wanted))
            number = len(self.calls)
            self._went_on.notify_all()
            assert self._went_on.wait_for(lambda: self._released >= number, PATIENCE_SECONDS)
        if self._failure:
            raise self._failure
        return dict.fromkeys(self.calls[number - 1], b"key")

    def release(self, calls: int) -> None:
        with self._went_on:
            self._released = calls
            self._went_on.notify_all()

    def wait_for_calls(self, count: int) -> None:
        with self._went_on:
            assert self._went_on.wait_for(lambda: len(self.calls) >= count, PATIENCE_SECONDS)


@pytest.fixture
def no_call_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_prefetch, "_LONG_SECONDS", 3_600.0)


@pytest.mark.usefixtures("no_call_is_long")
def test_keys_collected_during_a_call_are_requested_in_the_next() -> None:
    keys = HeldKeys()
    prefetch = KeyPrefetch(keys)
    first, second, third = prefetch.request(refs("a")), prefetch.request(refs("b")), prefetch.request(refs("b", "c"))
    assert second is third
    keys.release(2)

    assert first.result(PATIENCE_SECONDS) == dict.fromkeys(refs("a"), b"key")
    assert second.result(PATIENCE_SECONDS) == dict.fromkeys(refs("b", "c"), b"key")
    assert keys.calls == [refs("a"), refs("b", "c")]
    keys.release(3)
    assert prefetch.request(refs("d")).result(PATIENCE_SECONDS).keys() == refs("d")


@pytest.mark.usefixtures("no_call_is_long")
def test_a_waiting_caller_does_not_wait_for_the_call_before() -> None:
    keys = HeldKeys()
    prefetch = KeyPrefetch(keys)
    prefetch.request(refs("a"))
    keys.wait_for_calls(1)
    request = prefetch.request(refs("b"))
    prefetch.send_now()
    keys.wait_for_calls(2)
    prefetch.send_now()  # nothing is collected
    keys.release(2)

    assert request.result(PATIENCE_SECONDS).keys() == refs("b")
    assert len(keys.calls) == 2


def test_a_call_that_takes_long_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_prefetch, "_LONG_SECONDS", 0.01)
    keys = HeldKeys()
    prefetch = KeyPrefetch(keys)
    prefetch.request(refs("a"))
    keys.wait_for_calls(1)
    time.sleep(0.02)
    prefetch.request(refs("b"))
    keys.wait_for_calls(2)
    keys.release(2)
    assert keys.calls == [refs("a"), refs("b")]


@pytest.mark.usefixtures("no_call_is_long")
def test_a_failure_reaches_all_who_wait_and_the_next_call_is_a_new_one() -> None:
    keys = HeldKeys(CdiError(FailureClass.DKS_FORBIDDEN, "No."))
    prefetch = KeyPrefetch(keys)
    requests = [prefetch.request(refs("a"))]
    keys.wait_for_calls(1)
    requests.append(prefetch.request(refs("b")))
    keys.release(2)
    for call in requests:
        with pytest.raises(CdiError, match="No"):
            call.result(PATIENCE_SECONDS)
    with pytest.raises(CdiError, match="No"):
        prefetch.request(refs("c")).result(PATIENCE_SECONDS)
    assert keys.calls == [refs("a"), refs("c")]
