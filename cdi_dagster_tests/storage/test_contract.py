"""What every storage promises, on folders and on S3 (moto's server), with and without versions."""

import json
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi_dagster.storage import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    PreparedObject,
    Storage,
    StorageError,
    open_storage,
)

DAY = "corporate_storage/ucfs_audit/2023/03/26/data/businessAudit/"


def keys(storage: Storage, prefix: str = "") -> list[str]:
    return [stored.key for stored in storage.list(prefix)]


def prepare(storage: Storage, key: str, data: bytes, group: str = "run-1") -> PreparedObject:
    with storage.upload(key, group=group) as upload:
        upload.write(data)
        return upload.prepare()


def test_nothing_written_yet_lists_nothing_and_reads_as_missing(storage: Storage) -> None:
    assert keys(storage) == []
    assert keys(storage, DAY) == []
    assert storage.head("a") is None
    with pytest.raises(ObjectMissingError, match="a/b"):
        storage.read("a/b")
    with pytest.raises(ObjectMissingError):
        storage.open("a/b", etag="anything")
    storage.delete(["a", "a/b"])
    storage.recover("a/")
    storage.discard("a/", group="run-1")


def test_what_is_written_is_read_described_and_listed_alike(storage: Storage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    written = storage.write(f"{DAY}x.jsonl.gz", b"hello")

    assert storage.read(f"{DAY}x.jsonl.gz") == b"hello"
    head = storage.head(f"{DAY}x.jsonl.gz")
    assert head is not None
    assert list(storage.list(DAY, versions=True)) == [head]
    assert list(storage.list(DAY)) == [replace(head, version_id=None)]
    assert (head.key, head.size_bytes, head.etag, head.version_id) == (
        written.key,
        5,
        written.etag,
        written.version_id,
    )
    assert before <= head.modified_at <= datetime.now(UTC) + timedelta(seconds=2)
    assert head.modified_at.utcoffset() == timedelta(0)


def test_version_ids_are_known_where_the_bucket_keeps_versions(storage: Storage, root: str) -> None:
    first = storage.write("a", b"1")
    storage.write("a", b"22")
    (listed,) = storage.list("", versions=True)

    assert listed.size_bytes == 2
    assert (listed.version_id is not None) == ("below" in root)
    if listed.version_id is not None:
        assert listed.version_id != first.version_id
        with storage.open("a", etag=first.etag, version_id=first.version_id) as stream:
            assert stream.read() == b"1"
        storage.delete(["a"])
        assert keys(storage) == []
        assert storage.head("a") is None
        with storage.open("a", version_id=first.version_id) as stream:
            assert stream.read() == b"1"


def test_an_unknown_version_is_missing(storage: Storage) -> None:
    storage.write("a", b"1")
    with pytest.raises(ObjectMissingError):
        storage.open("a", version_id="no-such-version")


def test_list_is_in_key_order_over_folders_and_takes_whole_prefixes_only(storage: Storage) -> None:
    names = ["a-b", "a/b", "a/b.c/d", "a/b/c", "a0", "ab/x", "z", "ä/ö", "a/b+c", "a/é"]
    names.remove("a/b")  # a folder cannot also be a file
    for name in names:
        storage.write(name, name.encode())

    assert keys(storage) == sorted(names, key=str.encode)
    assert keys(storage, "a/") == sorted((name for name in names if name.startswith("a/")), key=str.encode)
    with pytest.raises(StorageError, match="must end with '/'"):
        keys(storage, "a")


def test_list_goes_over_many_pages(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdi_dagster.storage.s3._PAGE_KEYS", 7)
    names = [f"day/{number:03}" for number in range(50)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: storage.write(name, b"x"), names))
    storage.write("day-after/x", b"x")

    assert keys(storage, "day/") == names
    storage.delete(names[:40])
    assert keys(storage, "day/") == names[40:]


def test_etag_changes_whenever_the_content_is_written_again(storage: Storage) -> None:
    etags = {storage.write("a", content).etag for content in (b"1", b"2", b"3", b"4")}
    assert len(etags) == 4


def test_a_replaced_object_is_not_read_under_its_old_etag(storage: Storage) -> None:
    old = storage.write("a", b"old")
    with storage.open("a", etag=old.etag) as stream:
        assert stream.read() == b"old"
    storage.write("a", b"new")
    with pytest.raises(ObjectChangedError, match="a"):
        storage.open("a", etag=old.etag)
    storage.delete(["a"])
    with pytest.raises(ObjectMissingError):
        storage.open("a", etag=old.etag)


def test_a_small_object_is_read_as_it_was_listed_or_not_at_all(storage: Storage) -> None:
    old = storage.write(f"{DAY}a b%+é.gz", b"old")
    assert storage.read_small(old.key, etag=old.etag, version_id=old.version_id) == b"old"
    assert storage.read_small(storage.write("empty", b"").key, etag=storage.head("empty").etag) == b""  # type: ignore[union-attr]
    new = storage.write(old.key, b"newer")
    assert storage.read_small(new.key, etag=new.etag) == b"newer"
    with pytest.raises(ObjectChangedError):
        storage.read_small(old.key, etag=old.etag)
    storage.delete([old.key])
    with pytest.raises(ObjectMissingError):
        storage.read_small(old.key, etag=new.etag)
    if old.version_id is not None:
        assert storage.read_small(old.key, etag=old.etag, version_id=old.version_id) == b"old"


def test_an_object_replaced_while_it_is_read_is_never_mixed(storage: Storage) -> None:
    old = storage.write("a", b"o" * 3_000_000)
    got = b""
    try:
        with storage.open("a", etag=old.etag) as stream:
            got = stream.read(10)
            storage.write("a", b"n" * 3_000_000)
            got += stream.read()
    except ObjectChangedError:
        pass
    assert set(got) == {ord("o")}


def test_reading_starts_at_the_requested_byte(storage: Storage) -> None:
    written = storage.write("a", b"0123456789")
    for first_byte, expected in [(0, b"0123456789"), (4, b"456789"), (9, b"9"), (10, b""), (99, b"")]:
        with storage.open("a", etag=written.etag, first_byte=first_byte) as stream:
            assert stream.read() == expected
        with storage.open("a", first_byte=first_byte) as stream:
            assert stream.read(3) == expected[:3]
        with pytest.raises(ObjectChangedError):
            storage.open("a", etag="0" * 32, first_byte=first_byte)
    with pytest.raises(ValueError, match="first_byte"):
        storage.open("a", first_byte=-1)


def test_reading_ends_after_the_requested_bytes(storage: Storage) -> None:
    content = bytes(range(256)) * 4_000  # more than one buffer
    written = storage.write("a", content)
    for first_byte, count in [(0, 1), (3, 700_000), (1_000_000, 24_000), (1_023_990, 99), (2_000_000, 1)]:
        with storage.open("a", etag=written.etag, first_byte=first_byte, byte_count=count) as stream:
            assert stream.read() == content[first_byte : first_byte + count]
    with pytest.raises(ObjectChangedError):
        storage.open("a", etag="0" * 32, byte_count=4)
    with pytest.raises(ValueError, match="byte_count"):
        storage.open("a", byte_count=0)


def test_an_empty_object_is_an_object(storage: Storage) -> None:
    storage.write("a", b"")
    with storage.upload("b") as upload:
        upload.complete()
    storage.publish("c/", [prepare(storage, "c/part", b"")], b"", group="run-1")

    assert [(stored.key, stored.size_bytes) for stored in storage.list("")] == [
        ("a", 0),
        ("b", 0),
        ("c/_SUCCESS", 0),
        ("c/part", 0),
    ]
    for key in keys(storage):
        with storage.open(key) as stream:
            assert stream.read(1) == b""


def test_write_if_absent_never_replaces(storage: Storage) -> None:
    storage.write("a/b", b"first", if_absent=True)
    with pytest.raises(ObjectExistsError, match="a/b"):
        storage.write("a/b", b"second", if_absent=True)
    for size_bytes in (5, 9_000_000):  # on S3: one request, and a multipart upload
        with storage.upload("a/b", if_absent=True) as upload:
            upload.write(b"x" * size_bytes)
            with pytest.raises(ObjectExistsError, match="a/b"):
                upload.complete()
    assert storage.read("a/b") == b"first"


def test_of_many_who_write_if_absent_exactly_one_wins(storage: Storage) -> None:
    barrier = threading.Barrier(8)

    def attempt(number: int) -> bool:
        barrier.wait()
        try:
            storage.write("lease", b"%d" % number, if_absent=True)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(attempt, range(8)))
    assert won.count(True) == 1
    assert storage.read("lease") == b"%d" % won.index(True)


def test_write_if_match_replaces_only_what_it_knows(storage: Storage) -> None:
    old = storage.write("a", b"1")
    new = storage.write("a", b"2", if_match=old.etag)
    with pytest.raises(ObjectChangedError, match="a"):
        storage.write("a", b"3", if_match=old.etag)
    storage.delete(["a"])
    with pytest.raises(ObjectChangedError):
        storage.write("a", b"3", if_match=new.etag)
    assert storage.head("a") is None


def test_increments_under_if_match_are_never_lost(storage: Storage) -> None:
    storage.write("counter", b"00")

    def increment(_: int) -> None:
        while True:
            head = storage.head("counter")
            assert head is not None
            try:
                with storage.open("counter", etag=head.etag) as stream:
                    value = int(stream.read())
                storage.write("counter", b"%02d" % (value + 1), if_match=head.etag)
            except ObjectChangedError:
                continue
            return

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(increment, range(12)))
    assert storage.read("counter") == b"12"


def test_a_small_and_a_large_upload_appear_only_when_complete(storage: Storage) -> None:
    for size_bytes in (1000, 20_000_000):
        key = f"u/{size_bytes}"
        data = bytes(range(250)) * (size_bytes // 250)
        with storage.upload(key) as upload:
            for start in range(0, len(data), 3_000_000):
                piece = memoryview(data)[start : start + 3_000_000]
                assert upload.write(piece) == len(piece)
            assert storage.head(key) is None
            stored = upload.complete()
            upload.abort()
        assert storage.head(key) is not None
        assert stored.size_bytes == size_bytes
        with storage.open(key, etag=stored.etag, version_id=stored.version_id) as stream:
            assert stream.read() == data
        with pytest.raises(StorageError, match="ended"):
            upload.write(b"more")


def test_an_upload_that_fails_leaves_nothing(storage: Storage) -> None:
    def fail() -> None:
        with storage.upload("u/a") as upload:
            upload.write(b"x" * 9_000_000)
            raise RuntimeError("source broke")

    with pytest.raises(RuntimeError):
        fail()
    assert keys(storage) == []


def test_delete_takes_what_is_there_and_does_not_mind_what_is_not(storage: Storage) -> None:
    for name in ("a", "b", "c/d"):
        storage.write(name, b"x")
    storage.delete(iter(["a", "nothing", "c/d", "c/nothing"]))
    assert keys(storage) == ["b"]


def test_publish_shows_all_parts_and_the_mark_at_once(storage: Storage) -> None:
    prepared = [prepare(storage, f"out/day/part-{n}", b"%d" % n) for n in range(3)]
    prepared.append(prepare(storage, "out/day/nested/part-3", b"3"))
    assert keys(storage) == []

    storage.publish("out/day/", prepared, b'{"mark": 1}', group="run-1")

    assert keys(storage) == [
        "out/day/_SUCCESS",
        "out/day/nested/part-3",
        "out/day/part-0",
        "out/day/part-1",
        "out/day/part-2",
    ]
    assert storage.read("out/day/_SUCCESS") == b'{"mark": 1}'
    assert storage.read("out/day/nested/part-3") == b"3"


def test_what_another_program_wrote_is_published_under_another_key(storage: Storage) -> None:
    storage.write("_staging/a/part-0.orc", b"first" * 1000)
    storage.write("_staging/b/part-1.orc", b"")
    moved = {"_staging/a/part-0.orc": "out/a/part-0.orc", "_staging/b/part-1.orc": "out/b/part-1.orc"}
    prepared = [storage.prepare_stored(source, key, group="run-1") for source, key in moved.items()]
    assert keys(storage, "out/") == []
    assert [item.size_bytes for item in prepared] == [5000, 0]
    storage.delete(list(moved))
    storage.publish("out/", prepared, b"mark", group="run-1")
    assert keys(storage) == ["out/_SUCCESS", "out/a/part-0.orc", "out/b/part-1.orc"]
    assert storage.read("out/a/part-0.orc") == b"first" * 1000


def test_a_stored_object_that_is_prepared_and_not_published_is_discarded_with_its_group(storage: Storage) -> None:
    storage.write("_staging/a", b"1")
    prepared = storage.prepare_stored("_staging/a", "out/a", group="run-1")
    storage.discard("out/", group="run-1")
    storage.delete(["_staging/a"])
    with pytest.raises(ObjectMissingError):
        storage.publish("out/", [prepared], b"mark", group="run-1")
    with pytest.raises(ObjectMissingError, match="_staging/a"):
        storage.prepare_stored("_staging/a", "out/a", group="run-1")
    assert keys(storage) == []


def test_publish_replaces_everything_under_its_prefix_and_nothing_beside_it(storage: Storage) -> None:
    storage.write("out/day2/part-0", b"beside")
    storage.write("out/day/left-by-another-tool", b"x")
    for n in (1, 2):
        prepared = [prepare(storage, f"out/day/part-0-{n}", b"%d" % n, group=f"run-{n}")]
        storage.publish("out/day/", prepared, b"mark %d" % n, group=f"run-{n}")
    storage.publish("out/day3/", [], b"empty day", group="run-3")

    assert keys(storage) == ["out/day/_SUCCESS", "out/day/part-0-2", "out/day2/part-0", "out/day3/_SUCCESS"]
    assert storage.read("out/day/_SUCCESS") == b"mark 2"


def test_prepared_objects_cross_processes_as_json(storage: Storage) -> None:
    there = pickle.loads(pickle.dumps(storage))
    prepared = prepare(there, "out/part", b"x" * 100)
    again = PreparedObject(**json.loads(json.dumps(asdict(prepared))))
    open_storage(storage.root).publish("out/", [again], b"", group="run-1")
    assert storage.read("out/part") == b"x" * 100
    assert (prepared.key, prepared.size_bytes) == ("out/part", 100)


def test_discard_forgets_the_uploads_of_one_group_under_one_prefix(storage: Storage) -> None:
    gone = prepare(storage, "out/day/part-0", b"0", group="run-1")
    other_group = prepare(storage, "out/day/part-1", b"1", group="run-2")
    other_prefix = prepare(storage, "out/day2/part-0", b"2", group="run-1")

    storage.discard("out/day/", group="run-1")

    with pytest.raises(ObjectMissingError, match="run again"):
        storage.publish("out/day/", [gone], b"", group="run-1")
    assert keys(storage) == []
    storage.publish("out/day/", [other_group], b"", group="run-2")
    storage.publish("out/day2/", [other_prefix], b"", group="run-1")
    assert storage.read("out/day/part-1") == b"1"
    assert storage.read("out/day2/part-0") == b"2"


def test_discard_of_every_group_forgets_all_uploads_under_one_prefix_and_only_those(storage: Storage) -> None:
    storage.publish("out/day/", [prepare(storage, "out/day/there", b"there", group="run-0")], b"mark", group="run-0")
    gone = [
        prepare(storage, key, b"x", group=group)
        for key, group in (("out/day/part-0", "run-1"), ("out/day/part-1", "run-2"), ("out/day/below/part", "run-2"))
    ]
    other_prefix = prepare(storage, "out/day2/part-0", b"2", group="run-1")
    with storage.upload("out/day/of-no-group") as of_no_group:
        of_no_group.write(b"3")

        storage.discard("out/day/", group=None)

        of_no_group.complete()
    for lost in gone:
        with pytest.raises(ObjectMissingError, match="run again"):
            storage.publish("out/day/", [lost], b"", group="run-1")
    storage.publish("out/day2/", [other_prefix], b"", group="run-1")
    assert keys(storage) == [
        "out/day/_SUCCESS", "out/day/of-no-group", "out/day/there", "out/day2/_SUCCESS", "out/day2/part-0",
    ]  # fmt: skip


def test_a_publication_that_lacks_an_upload_changes_nothing(storage: Storage) -> None:
    storage.publish("out/", [prepare(storage, "out/old", b"old")], b"old mark", group="run-1")
    good = prepare(storage, "out/new", b"new", group="run-2")
    lost = prepare(storage, "out/lost", b"lost", group="run-3")
    storage.discard("out/", group="run-3")

    with pytest.raises(ObjectMissingError, match="out/lost"):
        storage.publish("out/", [good, lost], b"new mark", group="run-2")

    assert keys(storage) == ["out/_SUCCESS", "out/old"]
    assert storage.read("out/_SUCCESS") == b"old mark"


def test_only_objects_prepared_for_the_prefix_are_published(storage: Storage) -> None:
    elsewhere = prepare(storage, "elsewhere/part", b"x")
    with pytest.raises(StorageError, match="prepare"):
        storage.publish("out/", [elsewhere], b"", group="run-1")
    twice = prepare(storage, "out/part", b"x")
    with pytest.raises(StorageError, match="prepare"):
        storage.publish("out/", [twice, twice], b"", group="run-1")
    with pytest.raises(StorageError, match="itself"):
        storage.publish("", [], b"", group="run-1")
    assert keys(storage) == []


UNSAFE_KEYS = [
    "", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a\0b", "\ud800",
    ".cdi-staging/x", "corporate_data_ingestion/_publications/x", "x" * 1025,
]  # fmt: skip


def test_a_key_that_is_not_one_name_below_the_root_is_refused(storage: Storage) -> None:
    uses: list[Callable[[str], object]] = [
        storage.head,
        storage.read,
        lambda key: storage.write(key, b""),
        storage.upload,
        lambda key: storage.delete([key]),
    ]
    for key in UNSAFE_KEYS:
        for use in uses:
            with pytest.raises(StorageError):
                use(key)
    assert keys(storage) == []


def test_a_group_that_is_no_name_is_refused(storage: Storage) -> None:
    for group in ("", "a/b", "a\n", "x" * 300):
        with pytest.raises(StorageError, match="correlation id"):
            storage.upload("a", group=group)
        with pytest.raises(StorageError, match="correlation id"):
            storage.discard("a/", group=group)


_PARTS = st.sampled_from(["a", "b", "..", ".", "", "a b", "%2e%2e", "~", "-", "ü", "a\\b", "*", "?", "#", "a=1", "+"])


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(parts=st.lists(_PARTS, min_size=1, max_size=4))
def test_every_key_is_either_refused_or_one_object_of_that_very_name(storage: Storage, parts: list[str]) -> None:
    key = "/".join(parts)
    if any(part in ("", ".", "..") for part in parts):
        with pytest.raises(StorageError):
            storage.write(key, b"x")
        return
    storage.write(key, key.encode())
    try:
        assert keys(storage) == [key]
        assert storage.read(key) == key.encode()
    finally:
        storage.delete([key])


@pytest.mark.parametrize(
    "root", ["", "relative/folder", "http://x/y", "s3:bucket", "s3://", "s3://b/../c", "file://host/x"], indirect=False
)
def test_a_root_that_is_neither_a_folder_nor_a_bucket_is_refused_with_how_to_write_one(root: str) -> None:
    with pytest.raises(ValueError, match="write it as"):
        open_storage(root)
