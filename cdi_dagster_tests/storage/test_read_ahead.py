"""Objects read ahead: in order, each as it was listed or not at all, within bounds, whatever S3 does meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.storage import (
    ObjectChangedError,
    ObjectMissingError,
    Storage,
    TransientStorageError,
    open_storage,
)
from cdi_dagster.storage.read_ahead import ReadAhead, requests_at_once
from cdi_dagster_tests.s3_server import s3_endpoint
from cdi_dagster_tests.storage.faulty_s3 import Proxy
from cdi_dagster_tests.waiting import wait_until

MakeBucket = Callable[..., str]


@pytest.fixture
def readers() -> Iterator[ReadAhead]:
    with ReadAhead(processes=2) as found:
        yield found


def written(storage: Storage, sizes: Sequence[int]) -> list[StoredObject]:
    contents_of = [b"%d" % (number % 10) * size for number, size in enumerate(sizes)]
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(storage.write, [f"o/{number:03}" for number in range(len(sizes))], contents_of))


def contents(readers: ReadAhead, storage: Storage, objects: Sequence[StoredObject]) -> Iterator[bytes]:
    with closing(readers.opened(storage, objects, lambda stored: stored)) as streams:
        for _, stream in streams:
            yield stream.read()


def expected(objects: Sequence[StoredObject]) -> list[bytes]:
    return [b"%d" % (number % 10) * stored.size_bytes for number, stored in enumerate(objects)]


@pytest.mark.parametrize(("processes", "each"), [(1, 32), (2, 32), (16, 16), (48, 8), (128, 8)])
def test_the_processes_of_a_machine_share_its_requests(processes: int, each: int) -> None:
    assert requests_at_once(processes) == each


def test_small_and_large_objects_come_in_order_and_whole(storage: Storage, readers: ReadAhead) -> None:
    objects = written(storage, [5, 0, 3_000_000, 70_000, 1_200_000, *[10] * 5])
    assert list(contents(readers, storage, objects)) == expected(objects)
    assert list(contents(readers, storage, [])) == []


@pytest.mark.parametrize("size_bytes", [100, 2_000_000])
def test_what_changed_or_vanished_is_raised_when_its_turn_comes(
    storage: Storage, readers: ReadAhead, size_bytes: int
) -> None:
    for kind in (ObjectChangedError, ObjectMissingError):
        objects = written(storage, [100, size_bytes, 100])
        if kind is ObjectChangedError:
            storage.write("o/001", b"x" * size_bytes)
        else:
            storage.delete(["o/001"])
        found = contents(readers, storage, objects)
        assert next(found) == expected(objects)[0]
        if objects[1].version_id:
            assert next(found) == expected(objects)[1]  # that version is still there
        else:
            with pytest.raises(kind, match="o/001"):
                next(found)


def test_an_object_that_changes_while_earlier_ones_are_read_is_never_mixed(
    storage: Storage, readers: ReadAhead
) -> None:
    objects = written(storage, [3_000_000, 3_000_000])
    found = contents(readers, storage, objects)
    assert next(found) == expected(objects)[0]
    storage.write("o/001", b"n" * 3_000_000)
    try:
        assert next(found) == expected(objects)[1]  # it had been opened before
    except ObjectChangedError:
        pass


def test_cut_bodies_and_a_stalled_one_cost_nothing(make_bucket: MakeBucket, readers: ReadAhead) -> None:
    root = f"s3://{make_bucket()}"
    objects = written(open_storage(root), [50, 60, 2_000_000, *[70] * 38])
    seen: dict[str, int] = {}

    def cut(method: str, path: str, count: int) -> int | None:
        name = path.rpartition("/")[2]
        seen[name] = seen.get(name, 0) + 1
        if name == "001" and seen[name] == 1:
            wait_until(lambda: len(seen) == len(objects), "those behind it are read meanwhile")
        return {"000": 20, "002": 900_000, "030": 0}.get(name) if seen[name] == 1 else None

    with Proxy(s3_endpoint(), cut) as proxy:
        assert list(contents(readers, open_storage(root, endpoint_url=proxy.url), objects)) == expected(objects)
    assert [byte_range for _, path, byte_range in proxy.requests if path.endswith("/002")] == [None, "bytes=900000-"]


class Counting:
    """A storage that counts what is ahead of who reads."""

    is_near = False

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self.running = self.most_running = self.begun_bytes = 0

    def _counted(self, stored: StoredObject, read: Callable[[], object]) -> object:
        with self._lock:
            self.running += 1
            self.begun_bytes += stored.size_bytes
            self.most_running = max(self.most_running, self.running)
        time.sleep(0.002)
        try:
            return read()
        finally:
            with self._lock:
                self.running -= 1

    def read_small(self, key: str, **options: str) -> object:
        return self._counted(self.sizes[key], lambda: self._storage.read_small(key, **options))

    def open(self, key: str, **options: str) -> object:
        return self._counted(self.sizes[key], lambda: self._storage.open(key, **options))

    sizes: dict[str, StoredObject]


@pytest.mark.parametrize("size_bytes", [1000, 900_000, 2_000_000, 20_000_000])
def test_requests_and_bytes_ahead_are_bounded(tmp_path_factory: pytest.TempPathFactory, size_bytes: int) -> None:
    storage = open_storage(tmp_path_factory.mktemp("bounds").as_uri())
    objects = written(storage, [size_bytes] * max(3, min(120, 60_000_000 // size_bytes)))
    far = Counting(storage)
    far.sizes = {stored.key: stored for stored in objects}
    yielded_bytes = 0
    with (
        ReadAhead(processes=48) as readers,
        closing(
            readers.opened(far, objects, lambda stored: stored)  # type: ignore[arg-type]
        ) as streams,
    ):
        for stored, _ in streams:
            yielded_bytes += stored.size_bytes
            time.sleep(0.003)
            assert far.begun_bytes - yielded_bytes <= 8 * 1024 * 1024 + size_bytes
            assert far.begun_bytes - yielded_bytes <= 64 * size_bytes
    assert far.most_running <= 8
    assert far.begun_bytes == yielded_bytes


def test_who_leaves_early_leaves_nothing_running(storage: Storage, readers: ReadAhead) -> None:
    objects = written(storage, [1000] * 9 + [2_000_000])
    streams = readers.opened(storage, objects, lambda stored: stored)
    next(streams)
    streams.close()
    assert list(contents(readers, storage, objects)) == expected(objects)


@contextmanager
def throttling(at_most: int, body: bytes) -> Iterator[tuple[str, list[int]]]:
    """Serve one object, and answer SlowDown to whoever comes while so many are served; yields URL and statuses."""
    lock, serving, statuses = threading.Lock(), [0], []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                serving[0] += 1
                status = 200 if serving[0] <= at_most else 503
                statuses.append(status)
            time.sleep(0.005)
            content = body if status == 200 else b"<Error><Code>SlowDown</Code></Error>"
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), "ETag": '"e"'}.items():
                self.send_header(name, value)
            self.send_header("Last-Modified", "Sun, 26 Mar 2023 00:00:00 GMT")
            self.end_headers()
            with lock:
                serving[0] -= 1
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", statuses
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdi_dagster.storage.s3_small._PAUSES_SECONDS", (0.02, 0.04, 0.08, 0.16, 0.3))


def test_an_s3_that_throttles_is_read_slower_and_whole(
    aws_environment: None, readers: ReadAhead, quick_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with throttling(4, b"content") as (url, statuses):
        storage = open_storage("s3://bucket", endpoint_url=url)
        monkeypatch.setattr(storage, "open", lambda *_, **__: pytest.fail("boto3 had to read"))
        objects = [StoredObjectOf(f"o/{number}") for number in range(300)]
        with closing(readers.opened(storage, objects, lambda each: each)) as streams:
            assert [stream.read() for _, stream in streams] == [b"content"] * 300
    assert statuses.count(200) == 300
    assert statuses[-200:].count(503) < 60  # the first 32 at once met it; later it is only probed


def test_an_s3_that_throttles_for_ever_is_an_error_that_may_pass(
    aws_environment: None, readers: ReadAhead, quick_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.config import Config

    monkeypatch.setattr("cdi_dagster.storage.s3_bucket._CONFIG", Config(retries={"total_max_attempts": 1}))
    with throttling(0, b"") as (url, _):
        storage = open_storage("s3://bucket", endpoint_url=url)
        with closing(readers.opened(storage, [StoredObjectOf("o/1")], lambda each: each)) as streams:
            with pytest.raises(TransientStorageError, match="SlowDown"):
                next(streams)


class StoredObjectOf:
    """As the throttling server has it."""

    size_bytes, etag, version_id = 7, "e", None

    def __init__(self, key: str) -> None:
        self.key = key
