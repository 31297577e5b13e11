"""The key service client: the data keys of a block of envelopes, each requested once per worker process.

The cache, the concurrency and the counts are here; the request and its retries are in `http`, the
configuration is in `config`. Runs in Spark's Python workers. Keys stay in this process's memory: no repr, log,
error or pickle holds one.
"""

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import NoReturn, Self

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.ingest_report import KeyServiceCounts
from cdi_dagster.spark.key_service.config import KeyServiceConfig, add_key_service_arguments, key_service_config
from cdi_dagster.spark.key_service.http import Clock, KeyServiceHttp, Sleep
from cdi_dagster.spark.records.keys import KeyRef

__all__ = [
    "KeyServiceClient",
    "KeyServiceConfig",
    "add_key_service_arguments",
    "key_service_config",
    "shared_client",
]

# Longer than any wrapped key (KMS: 6,144 bytes) or key id. Such an envelope is damaged; it must neither reach the
# service, which would refuse the request, nor fill the cache.
_LONGEST_ENCRYPTED_KEY = 8_192
_LONGEST_KEY_ID = 1_024

# Below this latency keys are requested one after the other: threads that compete for Python cost more than waiting.
_QUICK_SECONDS = 0.002

_Answer = Future[bytes | None]


class _Block:
    """The keys that one call must request: a queue that several threads empty; the first failure ends it for all.

    Attributes:
        error: the first failure; those after it are its consequences.
    """

    def __init__(self, missing: Mapping[KeyRef, _Answer]) -> None:
        self._queue = deque(missing.items())
        self.error: BaseException | None = None

    def take(self) -> tuple[KeyRef, _Answer] | None:
        """Return the next key to request; each is taken once."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def fail(self, error: BaseException) -> list[KeyRef]:
        """Fail the rest of the queue with the error; return those keys."""
        self.error = self.error or error
        rest = []
        while (item := self.take()) is not None:
            rest.append(item[0])
            item[1].set_exception(error)
        return rest

    def has_failed(self) -> bool:
        """Return whether one failed: then nobody waits for the keys still being retried."""
        return self.error is not None


class KeyServiceClient:
    """A `KeyResolver` over the key service. One for each worker process: see `shared_client`. Thread-safe.

    Args:
        config: where the service is.
        sleep: waits between tries (seconds).
        clock: monotonic seconds.
    """

    def __init__(self, config: KeyServiceConfig, *, sleep: Sleep = time.sleep, clock: Clock = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._http = KeyServiceHttp(config, sleep=sleep, clock=clock)
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards everything below
        self._cache: OrderedDict[KeyRef, bytes | None] = OrderedDict()
        self._in_flight: dict[KeyRef, _Answer] = {}
        self._helpers: ThreadPoolExecutor | None = None
        self._calls = self._cache_hits = self._retries = 0
        self._seconds = 0.0
        self._is_quick = False  # the service, as its last answer was

    @property
    def counts(self) -> KeyServiceCounts:
        """Counts of this process: keys requested, keys found in the cache, retries, seconds that callers waited."""
        with self._lock:
            return KeyServiceCounts(
                calls=self._calls, cache_hits=self._cache_hits, retries=self._retries, seconds=self._seconds
            )

    def counts_since(self, earlier: KeyServiceCounts) -> KeyServiceCounts:
        """Return the counts since `earlier`: a task reports its own share, although the client outlives it."""
        now = self.counts
        return KeyServiceCounts(
            calls=now.calls - earlier.calls,
            cache_hits=now.cache_hits - earlier.cache_hits,
            retries=now.retries - earlier.retries,
            seconds=now.seconds - earlier.seconds,
        )

    def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        """Return the data key of every reference; None where the service cannot decrypt it (400).

        Keys not in the cache are requested concurrently, unless the service is quick. A key that another thread is
        requesting is waited for.

        Raises:
            CdiError: DKS_UNAVAILABLE, DKS_FORBIDDEN, or JOB_FAILED where the address is not a key service's; the
                first failure, without waiting for the other keys.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("this client belongs to another process; take shared_client(config) after the fork")
        answers: dict[KeyRef, bytes | None] = {}
        missing: dict[KeyRef, _Answer] = {}
        awaited: dict[KeyRef, _Answer] = {}
        with self._lock:
            for ref in dict.fromkeys(refs):
                if not _is_requestable(ref):
                    answers[ref] = None
                elif ref in self._cache:
                    self._cache.move_to_end(ref)
                    answers[ref] = self._cache[ref]
                    self._cache_hits += 1
                elif ref in self._in_flight:
                    awaited[ref] = self._in_flight[ref]
                    self._cache_hits += 1
                else:
                    missing[ref] = self._in_flight[ref] = Future()
        if missing or awaited:
            started = self._clock()
            try:
                self._fetch_all(missing)
                answers.update((ref, answer.result()) for ref, answer in (missing | awaited).items())
            finally:
                with self._lock:
                    self._seconds += self._clock() - started
        return answers

    def close(self) -> None:
        """Forget the keys, end the helper threads and close the connections."""
        with self._lock:
            helpers, self._helpers = self._helpers, None
            self._cache.clear()
        if helpers is not None:
            helpers.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KeyServiceClient({self._http.host}, {len(self._cache)} data keys known)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key service client holds data keys and is never pickled: ship its config, and take "
                        "shared_client(config) in the worker")  # fmt: skip

    def _fetch_all(self, missing: Mapping[KeyRef, _Answer]) -> None:
        """Fetch every missing key: in this thread, and in helper threads if the service is not quick."""
        block = _Block(missing)
        try:
            self._work_on(block, helpers=min(len(missing), self._config.max_concurrency) - 1)
            wait(missing.values(), return_when=FIRST_EXCEPTION)
        except BaseException as error:  # of this thread, or Ctrl-C: no thread may wait for these keys forever
            self._settle(block.fail(error))
            if not isinstance(error, CdiError):
                raise
        if block.error is not None:
            raise block.error

    def _work_on(self, block: _Block, helpers: int = 0) -> None:
        """Request keys of a block until none is left or one fails; start the helpers once the service is not quick."""
        while True:
            if helpers and not self._is_quick:  # before taking a key, which would stay unanswered if this failed
                for _ in range(helpers):
                    self._helper_threads().submit(self._work_on, block)
                helpers = 0
            item = block.take()
            if item is None:
                return
            ref, answer = item
            began = self._clock()
            with self._lock:
                self._calls += 1
            try:
                data_key = self._http.decrypt(ref, given_up=block.has_failed, on_retry=self._count_retry)
            except BaseException as error:
                self._settle([ref, *block.fail(error)])
                answer.set_exception(error)
                raise
            self._remember(ref, data_key, seconds=self._clock() - began)
            answer.set_result(data_key)

    def _remember(self, ref: KeyRef, data_key: bytes | None, *, seconds: float) -> None:
        with self._lock:
            self._is_quick = seconds < _QUICK_SECONDS
            self._in_flight.pop(ref, None)
            self._cache[ref] = data_key
            while len(self._cache) > self._config.cache_size:
                self._cache.popitem(last=False)

    def _settle(self, refs: Iterable[KeyRef]) -> None:
        """Let a later call request failed keys again."""
        with self._lock:
            for ref in refs:
                self._in_flight.pop(ref, None)

    def _count_retry(self) -> None:
        with self._lock:
            self._retries += 1

    def _helper_threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._helpers is None:
                self._helpers = ThreadPoolExecutor(self._config.max_concurrency - 1, thread_name_prefix="key-service")
            return self._helpers


def _is_requestable(ref: KeyRef) -> bool:
    """Return whether a reference fits in a request: of sane length, and valid UTF-8 text."""
    if len(ref.encrypted_data_key) > _LONGEST_ENCRYPTED_KEY or len(ref.key_encryption_key_id) > _LONGEST_KEY_ID:
        return False
    try:
        ref.encrypted_data_key.encode()
        ref.key_encryption_key_id.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


_shared: dict[tuple[int, KeyServiceConfig], KeyServiceClient] = {}


def shared_client(config: KeyServiceConfig) -> KeyServiceClient:
    """Return this process's client for a configuration: one per process, so its keys stay cached.

    Spark's Python workers are forked from a daemon: a client inherited by the fork is not used, because its
    connections and locks are the parent's.
    """
    key = (os.getpid(), config)
    return _shared.get(key) or _shared.setdefault(key, KeyServiceClient(config))
