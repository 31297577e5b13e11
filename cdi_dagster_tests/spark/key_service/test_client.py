"""The key service client over real servers: what is requested, how often, and what each kind of error becomes."""

import argparse
import base64
import json
import logging
import multiprocessing
import os
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.demo.key_service import DevelopmentKeyService, wrap_data_key
from cdi_dagster.spark.key_service import client as key_service
from cdi_dagster.spark.key_service.client import (
    KeyServiceClient,
    KeyServiceConfig,
    add_key_service_arguments,
    key_service_config,
    shared_client,
)
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster_tests.spark import scripted_key_service as scripted
from cdi_dagster_tests.spark.scripted_key_service import ScriptedKeyService
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, reserved_port, wait_until

KEK = "cloudhsm:1,2"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


def data_key(number: int, length: int = 16) -> bytes:
    return number.to_bytes(4, "big") * (length // 4)


def ref(number: int, key_encryption_key_id: str = KEK) -> KeyRef:
    return KeyRef(key_encryption_key_id, wrap_data_key(data_key(number)))


def config(service: DevelopmentKeyService, **changes: object) -> KeyServiceConfig:
    return KeyServiceConfig(url=service.url, correlation_id="run-1", **changes)  # type: ignore[arg-type]


def failure_of(client: KeyServiceClient, *refs: KeyRef) -> CdiError:
    with pytest.raises(CdiError) as caught:
        client.data_keys(refs or [ref(1)])
    return caught.value


@pytest.fixture
def service() -> Iterator[ScriptedKeyService]:
    with ScriptedKeyService() as running:
        yield running


# What is requested


def test_a_data_key_comes_back_as_the_bytes_that_were_wrapped(service: ScriptedKeyService) -> None:
    with KeyServiceClient(config(service)) as client:
        assert client.data_keys([ref(1)]) == {ref(1): data_key(1)}
    assert service.requests == [(KEK, "run-1", ref(1).encrypted_data_key.encode())]


@pytest.mark.parametrize("length", [4, 16, 24, 32, 64])
def test_the_length_of_a_key_is_left_to_the_record_contract(service: ScriptedKeyService, length: int) -> None:
    wanted = KeyRef(KEK, wrap_data_key(data_key(7, length)))
    with KeyServiceClient(config(service)) as client:
        assert client.data_keys([wanted])[wanted] == data_key(7, length)


def test_a_key_that_the_service_cannot_decrypt_is_none_and_is_remembered_as_such(service: ScriptedKeyService) -> None:
    service.forget("gone")
    with KeyServiceClient(config(service)) as client:
        assert client.data_keys([ref(1), ref(1, "gone")]) == {ref(1): data_key(1), ref(1, "gone"): None}
        assert client.data_keys([ref(1, "gone")]) == {ref(1, "gone"): None}
        assert client.counts.retries == 0
    assert len(service.requests) == 2


def test_the_same_encrypted_key_under_another_key_id_is_another_key(service: ScriptedKeyService) -> None:
    with KeyServiceClient(config(service)) as client:
        client.data_keys([ref(1, "cloudhsm:1,2"), ref(1, "cloudhsm:3,4")])
    assert {key_id for key_id, _, _ in service.requests} == {"cloudhsm:1,2", "cloudhsm:3,4"}


def test_key_ids_and_correlation_ids_survive_the_trip_whatever_is_in_them(service: ScriptedKeyService) -> None:
    odd = "a b&c=d/é?#%2B+"
    with KeyServiceClient(KeyServiceConfig(url=service.url + "/", correlation_id=odd)) as client:
        client.data_keys([ref(1, odd)])
    assert service.requests[0][:2] == (odd, odd)


def test_a_reference_that_no_request_can_carry_is_none_without_a_call(service: ScriptedKeyService) -> None:
    damaged = [KeyRef(KEK, "\ud800"), KeyRef("\ud800", "AAAA"), KeyRef(KEK, "A" * 100_000), KeyRef("k" * 5_000, "AAAA")]
    with KeyServiceClient(config(service)) as client:
        assert client.data_keys(damaged) == dict.fromkeys(damaged)
        assert client.counts.calls == 0
    assert service.requests == []


def test_a_known_key_is_not_requested_again_and_the_counts_show_it(service: ScriptedKeyService) -> None:
    with KeyServiceClient(config(service)) as client:
        client.data_keys([ref(1), ref(2), ref(1)])
        before = client.counts
        assert (before.calls, before.cache_hits, before.retries) == (2, 0, 0)
        assert before.seconds > 0
        client.data_keys([ref(2), ref(3)])
        since = client.counts_since(before)
        assert (since.calls, since.cache_hits) == (1, 1)
    assert len(service.requests) == 3


def test_the_least_recently_used_key_is_forgotten_first(service: ScriptedKeyService) -> None:
    with KeyServiceClient(config(service, cache_size=2)) as client:
        for number in (1, 2, 1, 3, 1, 2):
            client.data_keys([ref(number)])
    assert [base64.b64decode(body)[::-1] for _, _, body in service.requests] == [data_key(n) for n in (1, 2, 3, 2)]


def test_a_block_with_more_keys_than_the_cache_holds_is_answered_whole(service: ScriptedKeyService) -> None:
    refs = [ref(number) for number in range(50)]
    with KeyServiceClient(config(service, cache_size=5)) as client:
        assert client.data_keys(refs) == {ref(number): data_key(number) for number in range(50)}


def test_threads_that_want_the_same_key_at_once_ask_for_it_once() -> None:
    with ScriptedKeyService(latency_seconds=0.1) as service, KeyServiceClient(config(service)) as client:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: client.data_keys([ref(1), ref(2)]), range(8)))
        assert answers == [{ref(1): data_key(1), ref(2): data_key(2)}] * 8
        assert (client.counts.calls, client.counts.cache_hits) == (2, 14)
        assert len(service.requests) == 2


def test_the_missing_keys_of_a_block_are_requested_at_once_but_not_more_than_allowed() -> None:
    with ScriptedKeyService(afterwards=scripted.together(6)) as service:
        with KeyServiceClient(config(service, max_concurrency=6)) as client:
            client.data_keys(ref(number) for number in range(48))
        assert service.most_at_once == 6
        assert len(service.peers) == 6  # and each over a connection that is kept


def test_a_block_waits_for_many_slow_answers_at_once() -> None:
    together = scripted.together(16)
    with ScriptedKeyService(afterwards=together) as service, KeyServiceClient(config(service)) as client:
        client.data_keys(ref(number) for number in range(160))
        assert service.most_at_once == 16


def test_one_missing_key_is_requested_without_starting_a_thread(service: ScriptedKeyService) -> None:
    with KeyServiceClient(config(service)) as client:
        client.data_keys([ref(1)])
        client.data_keys([ref(1), ref(2)])
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("key-service_")]


def test_a_service_that_answers_at_once_is_sent_one_key_after_the_other(
    service: ScriptedKeyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_service, "_QUICK_SECONDS", 60.0)
    with KeyServiceClient(config(service)) as client:
        client.data_keys([ref(1)])
        client.data_keys(ref(number) for number in range(30))
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("key-service_")]
    assert service.most_at_once == 1


def test_helpers_are_called_as_soon_as_a_quick_service_is_quick_no_more() -> None:
    script = (scripted.ScriptedHandler.as_usual, scripted.slow(0.05))
    with ScriptedKeyService(*script, afterwards=scripted.together(13)) as service:
        with KeyServiceClient(config(service)) as client:
            client.data_keys([ref(1)])
            client._is_quick = True
            client.data_keys(ref(number) for number in range(2, 42))
        assert service.most_at_once >= 13  # of 16


def test_a_helper_that_cannot_be_started_leaves_no_key_that_is_waited_for_in_vain(
    service: ScriptedKeyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread() -> ThreadPoolExecutor:
        raise RuntimeError("can't start new thread")

    with KeyServiceClient(config(service)) as client:
        with monkeypatch.context() as patched:
            patched.setattr(client, "_helper_threads", no_thread)
            with pytest.raises(RuntimeError, match="new thread"):
                client.data_keys([ref(1), ref(2)])
        assert client.data_keys([ref(1), ref(2)]) == {ref(1): data_key(1), ref(2): data_key(2)}


def test_connections_are_kept() -> None:
    with ScriptedKeyService() as service, KeyServiceClient(config(service)) as client:
        for number in range(20):
            client.data_keys([ref(number)])
        assert len(service.peers) == 1


def test_answers_in_chunks_are_read_and_the_connection_kept(service: ScriptedKeyService) -> None:
    payload = json.dumps({"plaintextDataKey": base64.b64encode(data_key(1)).decode()}).encode()
    service.afterwards = scripted.chunked(payload)
    with KeyServiceClient(config(service)) as client:
        assert [client.data_keys([ref(n)])[ref(n)] for n in range(3)] == [data_key(1)] * 3
    assert len(service.peers) == 1


def test_a_connection_that_the_service_closed_while_idle_is_replaced_without_a_retry() -> None:
    with ScriptedKeyService() as service, KeyServiceClient(config(service)) as client:
        client.data_keys([ref(1)])
        service._server.end_connections()
        time.sleep(0.05)
        assert client.data_keys([ref(2)])[ref(2)] == data_key(2)
        assert client.counts.retries == 0


# Transient errors


BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
WEB_PAGE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\n<html>"


@pytest.mark.parametrize(
    "error",
    [
        *(pytest.param(scripted.status(code), id=str(code)) for code in (408, 429, 500, 502, 503, 504)),
        pytest.param(scripted.reset(), id="reset"),
        pytest.param(scripted.reset(BEGUN), id="reset in the middle of an answer"),
        pytest.param(scripted.raw(BEGUN), id="closed in the middle of an answer"),
        pytest.param(scripted.raw(b""), id="closed without an answer"),
        pytest.param(scripted.raw(b"220 mail.example.test ESMTP\r\n"), id="not HTTP"),
        pytest.param(scripted.answer([]), id="200 with a list"),
        pytest.param(scripted.answer({"plaintextDataKey": 5}), id="200 with a number"),
        pytest.param(scripted.answer({"plaintextDataKey": ""}), id="200 with an empty key"),
        pytest.param(scripted.answer({"plaintextDataKey": "AAAAA"}), id="200 with half of base64"),
        pytest.param(scripted.answer({"padding": "x" * 200_000}), id="200 with far too much"),
        pytest.param(scripted.raw(WEB_PAGE), id="200 with a web page"),
    ],
)
def test_a_transient_error_is_retried_and_the_key_arrives(error: scripted.Behaviour) -> None:
    slept = Time()
    with ScriptedKeyService(error, error) as service:
        with KeyServiceClient(config(service), sleep=slept.sleep) as client:
            assert client.data_keys([ref(1)]) == {ref(1): data_key(1)}
            assert (client.counts.calls, client.counts.retries) == (1, 2)
    assert len(slept.slept) == 2


def test_an_answer_that_is_slower_than_the_read_timeout_is_asked_for_again() -> None:
    the_end = threading.Event()
    with ScriptedKeyService(*[lambda _: the_end.wait(PATIENCE_SECONDS)] * 2) as service:
        with KeyServiceClient(config(service, read_timeout_seconds=0.3), sleep=lambda _: None) as client:
            assert client.data_keys([ref(1)]) == {ref(1): data_key(1)}
            assert (client.counts.calls, client.counts.retries) >= (1, 2)  # more where this machine is slow
        the_end.set()


def test_a_service_that_flaps_under_a_block_of_keys_gives_them_all() -> None:
    script = [scripted.status(503), scripted.reset(), scripted.ScriptedHandler.as_usual, scripted.raw(BEGUN)] * 10
    with ScriptedKeyService(*script) as service:
        with KeyServiceClient(config(service), sleep=lambda _: None) as client:
            refs = [ref(number) for number in range(60)]
            assert client.data_keys(refs) == {ref(number): data_key(number) for number in range(60)}
            assert (client.counts.calls, client.counts.retries) == (60, 30)


def test_a_service_that_is_restarted_is_found_again() -> None:
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        first = stack.enter_context(DevelopmentKeyService(port))
        client = stack.enter_context(KeyServiceClient(config(first)))
        client.data_keys([ref(1)])
        first.close()
        starting = threading.Timer(0.3, lambda: again.append(DevelopmentKeyService(port).__enter__()))
        again: list[DevelopmentKeyService] = []
        starting.start()
        try:
            assert client.data_keys([ref(2)])[ref(2)] == data_key(2)
        finally:
            starting.join()
            again[0].close()
        assert client.counts.retries > 0


# Permanent errors


@pytest.mark.parametrize("budget_seconds", [0.5, 3, 120])
def test_a_service_that_stays_away_is_dks_unavailable_when_the_whole_budget_is_used_up(budget_seconds: float) -> None:
    passing = Time()
    with ScriptedKeyService(afterwards=scripted.status(503)) as service:
        settings = config(service, retry_budget_seconds=budget_seconds)
        with KeyServiceClient(settings, sleep=passing.sleep, clock=passing.clock) as client:
            failure = failure_of(client)
    assert failure.failure_class is FailureClass.DKS_UNAVAILABLE
    assert passing.now - 1_000.0 == pytest.approx(budget_seconds)
    assert failure.detail["tries"] == len(service.requests) == len(passing.slept) + 1
    assert failure.detail["last_trouble"] == "it answered 503"
    assert f"127.0.0.1:{service.port}" in failure.cause
    assert max(passing.slept) <= 5.0
    assert len(set(passing.slept)) == len(passing.slept)  # jitter: workers do not come back in step


def test_no_budget_means_one_try() -> None:
    with ScriptedKeyService(afterwards=scripted.status(503)) as service:
        with KeyServiceClient(config(service, retry_budget_seconds=0)) as client:
            assert "in 0 s and 1 try;" in failure_of(client).cause
    assert len(service.requests) == 1


def test_the_last_try_outlasts_the_budget_by_a_second_at_most() -> None:
    the_end = threading.Event()
    with ScriptedKeyService(afterwards=lambda handler: the_end.wait(PATIENCE_SECONDS)) as service:
        with KeyServiceClient(config(service, retry_budget_seconds=0.4, read_timeout_seconds=60)) as client:
            started = time.monotonic()
            assert failure_of(client).detail["last_trouble"] == "no answer within 1.0 s"
            assert time.monotonic() - started < 30  # a read may take 60 seconds
        the_end.set()


def test_nobody_listening_is_dks_unavailable_and_says_refused() -> None:
    with reserved_port() as port:
        nobody = KeyServiceConfig(url=f"http://127.0.0.1:{port}", correlation_id="c", retry_budget_seconds=0.2)
        with KeyServiceClient(nobody) as client:
            assert failure_of(client).detail["last_trouble"] == "connection refused"


def test_a_host_that_does_not_resolve_is_dks_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolves_nothing(*_: object) -> None:  # as a resolver answers; there may be none, or one that lies
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolves_nothing)
    nowhere = KeyServiceConfig(url="https://dks.invalid", correlation_id="c", retry_budget_seconds=0)
    with KeyServiceClient(nowhere) as client:
        failure = failure_of(client)
    assert failure.failure_class is FailureClass.DKS_UNAVAILABLE
    assert failure.detail["last_trouble"] == "its name does not resolve"


def test_a_200_that_never_holds_a_data_key_is_dks_unavailable_and_is_not_quoted() -> None:
    secret = "c2VjcmV0c2VjcmV0c2VjcmV0"
    with ScriptedKeyService(afterwards=scripted.answer({"wrongPlace": secret})) as service:
        with KeyServiceClient(config(service, retry_budget_seconds=0.1)) as client:
            failure = failure_of(client)
    assert "it answered 200 but not a data key" in failure.cause
    assert secret not in "".join(traceback.format_exception(failure))


@pytest.mark.parametrize("code", [401, 403])
def test_a_revoked_certificate_is_dks_forbidden_at_once(code: int) -> None:
    with ScriptedKeyService(afterwards=scripted.status(code)) as service:
        with KeyServiceClient(config(service)) as client:
            failure = failure_of(client)
            assert client.counts.retries == 0
    assert failure.failure_class is FailureClass.DKS_FORBIDDEN
    assert str(code) in failure.cause


@pytest.mark.parametrize("code", [302, 404, 405, 415])
def test_an_address_that_is_no_key_service_stops_the_job_at_once_and_says_what_to_check(code: int) -> None:
    with ScriptedKeyService(afterwards=scripted.status(code)) as service:
        with KeyServiceClient(config(service)) as client:
            failure = failure_of(client)
    assert failure.failure_class is FailureClass.JOB_FAILED
    assert "dks_url" in failure.next_step
    assert len(service.requests) == 1


def test_a_block_fails_with_its_first_failure_and_without_waiting_for_the_other_keys() -> None:
    with ScriptedKeyService(scripted.status(503), scripted.status(403), afterwards=scripted.status(503)) as service:
        with KeyServiceClient(config(service)) as client:
            started = time.monotonic()
            failure = failure_of(client, *(ref(number) for number in range(100)))
            assert time.monotonic() - started < 30  # the others are tried for minutes
    assert failure.failure_class is FailureClass.DKS_FORBIDDEN
    assert len(service.requests) < 60  # keys still queued were never requested


def test_a_failed_key_is_requested_again_by_the_next_call() -> None:
    with ScriptedKeyService(scripted.status(403)) as service, KeyServiceClient(config(service)) as client:
        failure_of(client)
        assert client.data_keys([ref(1)]) == {ref(1): data_key(1)}


def test_threads_that_waited_for_a_key_learn_that_it_failed() -> None:
    def forbid(handler: scripted.ScriptedHandler) -> None:
        wait_until(lambda: client.counts.cache_hits == 3, "the others wait for the key")
        handler.answer(403, {})

    with ScriptedKeyService(afterwards=forbid) as service, KeyServiceClient(config(service)) as client:
        with ThreadPoolExecutor(4) as threads:
            failures = list(threads.map(lambda _: failure_of(client), range(4)))
    assert {failure.failure_class for failure in failures} == {FailureClass.DKS_FORBIDDEN}
    assert len(service.requests) == 1


# Secrets, processes, configuration


def test_keys_are_in_no_repr_log_or_failure(service: ScriptedKeyService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service.behaviours = [scripted.status(503)]
    with KeyServiceClient(config(service), sleep=lambda _: None) as client:
        client.data_keys([ref(1), ref(2)])
        service.afterwards = scripted.status(403)
        failure = failure_of(client, ref(3))
        said = repr(client) + repr(vars(client)["_config"]) + str(client) + caplog.text
        said += "".join(traceback.format_exception(failure)) + json.dumps(failure.to_json())
    assert "it answered 503" in caplog.text
    for number in (1, 2, 3):
        key = data_key(number)
        for secret in (str(key)[2:-1], key.hex(), base64.b64encode(key).decode(), wrap_data_key(key)):
            assert secret not in said


def test_a_cut_answer_does_not_travel_in_the_failure() -> None:
    begun = BEGUN + b'"plaintextDataKey":"c2VjcmV0'
    with ScriptedKeyService(afterwards=scripted.raw(begun)) as service:
        with KeyServiceClient(config(service, retry_budget_seconds=0)) as client:
            error: BaseException | None = failure_of(client)
    while error is not None:
        assert "c2VjcmV0" not in repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__


def test_a_client_refuses_to_be_pickled_and_its_config_does_not(service: ScriptedKeyService) -> None:
    with KeyServiceClient(config(service)) as client, pytest.raises(TypeError, match="shared_client"):
        pickle.dumps(client)
    assert pickle.loads(pickle.dumps(config(service))) == config(service)


def test_a_process_has_one_client_for_a_configuration(service: ScriptedKeyService) -> None:
    assert shared_client(config(service)) is shared_client(config(service))
    assert shared_client(config(service)) is not shared_client(config(service, cache_size=1))


def test_a_forked_worker_gets_a_client_of_its_own_even_from_a_parent_in_the_middle_of_a_call() -> None:
    with ScriptedKeyService(latency_seconds=0.3) as service:
        parent = shared_client(config(service))
        requesting = threading.Thread(target=parent.data_keys, args=([ref(1), ref(2)],))
        requesting.start()
        time.sleep(0.1)
        fork = multiprocessing.get_context("fork")
        answers = fork.SimpleQueue()

        def work() -> None:
            try:
                parent.data_keys([ref(1)])
            except RuntimeError as error:
                answers.put(str(error))
            mine = shared_client(config(service))
            answers.put((mine is parent, mine.data_keys([ref(1)]) == {ref(1): data_key(1)}, mine.counts.calls))

        worker = fork.Process(target=work)
        worker.start()
        assert "another process" in answers.get()
        assert answers.get() == (False, True, 1)
        worker.join()
        requesting.join()
        assert parent.data_keys([ref(2)]) == {ref(2): data_key(2)}
        assert os.getpid() == parent._pid


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "127.0.0.1:8443"}, "write it as https://"),
        ({"url": "https://user:word@dks.example.test"}, "write it as https://"),
        ({"url": "http://dks.example.test:8443"}, "in the clear"),
        ({"url": "https://dks.example.test", "certificate": "c.pem"}, "together"),
        ({"certificate": "c.pem", "private_key": "k.pem"}, "needs an https://"),
        ({"cache_size": 0}, "cache_size"),
        ({"retry_budget_seconds": -1}, "retry_budget_seconds"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_with_its_fix(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KeyServiceConfig(**{"url": "http://127.0.0.1:8443", "correlation_id": "c", **changes})  # type: ignore[arg-type]


def test_the_command_line_carries_the_configuration() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--correlation-id")
    add_key_service_arguments(parser)
    line = "--correlation-id c --dks-url https://dks --dks-ca a --dks-certificate b --dks-private-key d"
    parsed = parser.parse_args([*line.split(), "--dks-retry-budget-seconds", "7"])
    assert key_service_config(parsed) == KeyServiceConfig(
        url="https://dks", correlation_id="c", ca="a", certificate="b", private_key="d", retry_budget_seconds=7.0
    )
    with pytest.raises(CdiError, match="JOB_FAILED.*in the clear"):
        key_service_config(parser.parse_args("--correlation-id c --dks-url http://dks".split()))
