"""What only a folder does to us: files rewritten in place, folders swapped under a reader, full disks, odd names."""

import errno
import io
import multiprocessing
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cdi_dagster.storage import (
    ObjectChangedError,
    ObjectMissingError,
    Storage,
    StorageError,
    StorageUnavailableError,
    open_storage,
)
from cdi_dagster.storage.file_system import storage_error
from cdi_dagster_tests.storage.killed_publisher import PREFIX, publish_version, version
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

MEGABYTE = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(folder: Path) -> Storage:
    return open_storage(f"file://{folder}")


def staged_files(folder: Path) -> list[Path]:
    return [path for path in (folder / ".cdi-staging" / "uploads").rglob("*") if path.is_file()]


def test_the_root_is_percent_decoded_and_made_at_the_first_write(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/a%20b/%C3%A4/")
    assert list(storage.list("")) == []
    assert list(tmp_path.iterdir()) == []
    storage.write("x y", b"1")
    assert (tmp_path / "a b" / "ä" / "x y").read_bytes() == b"1"
    assert storage.root.endswith("/a%20b/%C3%A4")
    assert storage.uri("x y/z=1").endswith("/a%20b/%C3%A4/x%20y/z=1")
    assert open_storage(storage.root).read("x y") == b"1"


def test_only_objects_stand_in_the_folder_and_none_is_left_staged(storage: Storage, folder: Path) -> None:
    storage.write("a", b"1")
    with storage.upload("b/c", group="run-1") as upload:
        upload.write(b"2")
        upload.complete()
    with storage.upload("d") as upload:
        upload.write(b"3")
    assert sorted(path.name for path in folder.iterdir()) == [".cdi-staging", "a", "b"]
    assert staged_files(folder) == []


@pytest.mark.parametrize("given_etag", [True, False])
@pytest.mark.parametrize("what", ["rewritten", "truncated", "grown"])
def test_a_file_changed_in_place_while_it_is_read_is_noticed(
    storage: Storage, folder: Path, what: str, given_etag: bool
) -> None:
    written = storage.write("a", b"x" * MEGABYTE)

    def change() -> None:
        with (folder / "a").open("r+b") as file:
            if what == "rewritten":
                file.write(b"y" * MEGABYTE)
            else:
                file.truncate(MEGABYTE // 2 if what == "truncated" else MEGABYTE * 2)

    with storage.open("a", etag=written.etag if given_etag else None) as stream:
        stream.read(10)
        change()
        with pytest.raises(ObjectChangedError, match="root/a"):
            stream.read()


def test_a_file_changed_in_place_is_noticed_at_close_too(storage: Storage, folder: Path) -> None:
    storage.write("a", b"x" * MEGABYTE)
    stream = storage.open("a")
    stream.read(10)
    (folder / "a").write_bytes(b"y" * MEGABYTE)
    with pytest.raises(ObjectChangedError):
        stream.close()


def test_a_file_replaced_or_deleted_while_it_is_read_is_read_on_as_it_was(storage: Storage) -> None:
    for change in (lambda: storage.write("a", b"new"), lambda: storage.delete(["a"])):
        written = storage.write("a", b"x" * MEGABYTE)
        with storage.open("a", etag=written.etag) as stream:
            start = stream.read(10)
            change()
            assert start + stream.read() == b"x" * MEGABYTE


def test_names_that_cannot_be_keys_are_named(storage: Storage, folder: Path) -> None:
    folder.mkdir()
    with open(os.fsencode(folder) + b"/bad\xff", "wb"):
        pass
    with pytest.raises(StorageError, match="not UTF-8"):
        list(storage.list(""))


def test_a_folder_is_no_object_and_an_object_is_no_folder(storage: Storage) -> None:
    storage.write("a/b", b"1")
    assert storage.head("a") is None
    with pytest.raises(ObjectMissingError):
        storage.read("a")
    with pytest.raises(ObjectMissingError):
        storage.read("a/b/c")
    for key in ("a", "a/b/c"):
        with pytest.raises(StorageError, match="cannot also be a folder"):
            storage.write(key, b"2")
    storage.delete(["a", "a/b/c"])
    assert [stored.key for stored in storage.list("")] == ["a/b"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "is neither a file nor a folder"),
        (lambda path: path.symlink_to(path.parent / "nothing"), "is a link to nothing"),
        (lambda path: path.symlink_to(path), "is a link to nothing"),
        (lambda path: path.symlink_to("/etc/passwd"), "is a link out of the root"),
        (lambda path: path.symlink_to("/etc"), "is a link out of the root"),
    ],
    ids=["pipe", "dangling", "loop", "file outside", "folder outside"],
)
def test_what_has_a_name_and_is_no_object_is_named_by_a_listing(
    storage: Storage, folder: Path, make: Callable[[Path], None], problem: str
) -> None:
    storage.write("day/a", b"x")
    make(folder / "day" / "b")
    with pytest.raises(StorageError, match=problem) as caught:
        list(storage.list("day/"))
    assert f"{folder}/day/b" in str(caught.value)


def test_hidden_names_may_be_anything_and_a_link_within_the_root_is_an_object(storage: Storage, folder: Path) -> None:
    storage.write("a", b"x")
    os.mkfifo(folder / ".pipe")
    (folder / ".#a").symlink_to("someone@host:1")  # an editor's lock
    (folder / "link").symlink_to(folder / "a")
    assert [stored.key for stored in storage.list("")] == ["a", "link"]
    assert storage.read("link") == b"x"
    assert storage.head(".pipe") is None
    with pytest.raises(ObjectMissingError, match="regular"):
        storage.read(".pipe")


def test_links_out_of_the_root_are_not_followed_to_read_or_write(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret")
    storage.write("inside", b"x")
    (folder / "folder").symlink_to(outside)
    (folder / "file").symlink_to(outside / "a")
    for attempt in (
        lambda: storage.read("file"),
        lambda: storage.head("folder/a"),
        lambda: storage.write("folder/b", b"x"),
        lambda: storage.delete(["folder/a"]),
    ):
        with pytest.raises(StorageError, match="out of the root, which is not followed"):
            attempt()
    assert [path.name for path in outside.iterdir()] == ["a"]
    (tmp_path / "by-a-link").symlink_to(folder)
    assert open_storage(f"file://{tmp_path}/by-a-link").read("inside") == b"x"  # the root itself may be one


def test_a_listing_survives_entries_that_vanish(storage: Storage) -> None:
    names = [f"d/{number:03}" for number in range(100)]
    for name in names:
        storage.write(name, b"")
    deleter = threading.Thread(target=lambda: storage.delete(names[::2]))
    deleter.start()
    while deleter.is_alive():
        assert set(names[1::2]) <= {stored.key for stored in storage.list("")}
    deleter.join()
    assert [stored.key for stored in storage.list("")] == names[1::2]


def test_deletes_that_empty_a_folder_never_hinder_writes_to_it(storage: Storage) -> None:
    def write_and_delete(name: str) -> None:
        for number in range(60):
            storage.write(f"d/e/{name}", b"%d" % number)
            with storage.upload(f"d/e/{name}-grouped", group="run-1") as upload:
                upload.complete()
            storage.delete([f"d/e/{name}-grouped", f"d/e/{name}"])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write_and_delete, "abcd"))
    assert list(storage.list("")) == []


def test_a_reader_never_sees_two_publications_mixed_or_none(storage: Storage) -> None:
    publish_version(storage, 0)
    allowed = [sorted([*version(number), f"{PREFIX}_SUCCESS"]) for number in range(12)]
    done = threading.Event()
    seen = set()

    def publish_all() -> None:
        try:
            for number in range(1, 12):
                publish_version(storage, number)
        finally:
            done.set()

    publisher = threading.Thread(target=publish_all)
    publisher.start()
    while not done.is_set():
        listed = [stored.key for stored in storage.list(PREFIX)]
        assert listed in allowed
        seen.add(allowed.index(listed))
    publisher.join()
    assert [stored.key for stored in storage.list(PREFIX)] == allowed[11]


def test_two_publishers_at_once_leave_one_of_the_two_publications(storage: Storage) -> None:
    publishers = [threading.Thread(target=publish_version, args=(storage, number)) for number in (1, 2, 3, 4)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    listed = {stored.key for stored in storage.list(PREFIX)} - {f"{PREFIX}_SUCCESS"}
    winner = int(storage.read(f"{PREFIX}_SUCCESS").split()[1])
    assert listed == set(version(winner))


def _write_with_a_limit(root: str, results: "multiprocessing.Queue[str]") -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, MEGABYTE))
    try:
        with open_storage(root).upload("big") as upload:
            for _ in range(4):
                upload.write(b"x" * MEGABYTE)
            upload.complete()
    except StorageUnavailableError as error:
        results.put(str(error))


def test_a_file_that_may_not_grow_leaves_nothing_and_names_the_cause(storage: Storage, folder: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    results = context.Queue()
    child = context.Process(target=_write_with_a_limit, args=(storage.root, results))
    child.start()
    assert "ulimit -f" in results.get(timeout=PATIENCE_SECONDS)
    child.join(PATIENCE_SECONDS)
    assert list(storage.list("")) == []
    assert staged_files(folder) == []


def test_a_full_disk_leaves_what_was_there_and_names_the_file_system(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageUnavailableError, match=r"mounted at /.* is full.*Free some space"):
            storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert staged_files(folder) == []


def test_a_publication_that_fails_half_way_leaves_the_previous_one(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_version(storage, 1)

    def full(*_: object, **__: object) -> io.BytesIO:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(StorageUnavailableError, match="full"):
            publish_version(storage, 2)
    assert storage.read(f"{PREFIX}_SUCCESS") == b"mark 1"
    storage.discard(PREFIX, group="run-2")
    assert staged_files(folder) == []
    publish_version(storage, 2)
    assert storage.read(f"{PREFIX}_SUCCESS") == b"mark 2"


@pytest.mark.parametrize(
    ("number", "next_step"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "access"),
        (errno.EROFS, "writable"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EXDEV, "one mount"),
        (errno.EIO, "disk"),
    ],
)
def test_every_failure_of_the_operating_system_has_a_next_step(tmp_path: Path, number: int, next_step: str) -> None:
    error = storage_error(OSError(number, os.strerror(number)), "write", "file:///root/key", tmp_path / "no" / "where")
    assert next_step in str(error)
    assert "file:///root/key" in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_we_may_not_write_is_named(storage: Storage, folder: Path) -> None:
    storage.write("a", b"1")
    folder.chmod(0o500)
    try:
        with pytest.raises(StorageUnavailableError, match="permission denied"):
            storage.write("b/c", b"1")
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o640, 0o750), (0o077, 0o600, 0o700)])
def test_nothing_is_readable_by_the_world_and_the_umask_may_take_more(
    storage: Storage, folder: Path, umask: int, file_mode: int, folder_mode: int
) -> None:
    before = os.umask(umask)
    try:
        storage.write("control/report.json", b"{}")
        with storage.upload("day/part-1", group="run") as upload:
            upload.write(b"plaintext")
            storage.publish("day/", [upload.prepare()], b"{}", group="run")
    finally:
        os.umask(before)
    modes = {path.relative_to(folder): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    published = {str(path): mode for path, mode in modes.items() if path.parts[0] != ".cdi-staging"}
    assert published == {
        "control": folder_mode,
        "control/report.json": file_mode,
        "day": folder_mode,
        "day/part-1": file_mode,
        "day/_SUCCESS": file_mode,
    }
    assert not any(mode & 0o007 for mode in modes.values())
