"""Operating system calls of FileStorage: durable folders, locks, the atomic swap, and its errors.

Linux and macOS. For `files` and `file_publication` only.
"""

import ctypes
import errno
import fcntl
import functools
import io
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from cdi_dagster.storage.interface import (
    NoObjectError,
    ObjectMissingError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)

_Result = TypeVar("_Result")

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # Linux, <linux/fs.h>
_RENAME_SWAP = 2  # macOS, <sys/stdio.h>
_TRIES = 100  # for steps that another process may undo
FILE_MODE = 0o640
"""Of files, less what the umask takes: records are plaintext, and reports name places. Readers are in the group."""
FOLDER_MODE = 0o750
_READING = ("read", "list", "check")
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def storage_errors(doing: str, uri: str, path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a StorageError with a next step.

    Args:
        doing: the operation: "read", "write", "list" ...
        uri: its object, for the message.
        path: the path, to find which file system is full.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, uri, path) from error


def storage_error(error: OSError, doing: str, uri: str, path: Path) -> StorageError:
    """Return the StorageError that an OSError means."""
    failed = f"Could not {doing} {uri}: "
    match error.errno:
        case errno.ENOENT:
            return ObjectMissingError(f"{failed}it is not there.")
        case errno.ENOTDIR | errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY:
            return StorageError(
                f"{failed}{error.strerror}. A key cannot also be a folder of other keys: move one of them away."
            )
        case errno.ENOSPC | errno.EDQUOT:
            return StorageFullError(f"{failed}{_what_is_full(path)}. Free some space, then run again.")
        case errno.EACCES | errno.EPERM:
            kind = StorageUnavailableError if doing in _READING else StorageFullError
            return kind(
                f"{failed}permission denied for user id {os.geteuid()}. Give that user access, or run as another one."
            )
        case errno.EROFS:
            return StorageFullError(f"{failed}the file system is read-only. Mount it writable.")
        case errno.EFBIG:
            return StorageFullError(
                f"{failed}the file is larger than the file system or this process may write. Raise `ulimit -f`."
            )
        case errno.EMFILE | errno.ENFILE:
            return StorageUnavailableError(f"{failed}too many open files. Raise `ulimit -n`.")
        case errno.ENAMETOOLONG:
            return StorageError(f"{failed}a part of the name is longer than the file system allows. Use a shorter one.")
        case errno.EXDEV:
            return StorageUnavailableError(
                f"{failed}it is on another file system than its root. Make root and everything below it one mount."
            )
        case _:
            return StorageUnavailableError(f"{failed}{error.strerror or error}. Check the disk, then run again.")


def _what_is_full(path: Path) -> str:
    mount = path
    while not mount.exists():
        mount = mount.parent
    mount = mount.resolve()
    while not os.path.ismount(mount):
        mount = mount.parent
    free = shutil.disk_usage(mount).free
    return f"the file system mounted at {mount} is full, or over a quota ({free // 2**20} MiB free)"


def scan(folder: Path, root: Path) -> dict[str, os.stat_result]:
    """Return a folder's entries at one moment, links within the root followed; nothing where there is no folder.

    If a publication swaps the folder meanwhile, it is read again: names of both folders are never mixed, and none is
    left out. Entries whose names begin with a dot may be anything, and are left out where they are no file or folder.

    Raises:
        NoObjectError: a name is not UTF-8 and so cannot be a key; a link leads to nothing, or out of the root; an entry
            is neither file nor folder. To leave it out could leave out an object.
        OSError: it cannot be read, or was swapped each time.
    """
    for _ in range(_TRIES):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        try:
            found = _stat_all(descriptor, folder, root)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                    return found
        finally:
            os.close(descriptor)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))


def _stat_all(descriptor: int, folder: Path, root: Path) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    for name in os.listdir(descriptor):
        try:
            name.encode()
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:  # deleted since
            continue
        except UnicodeEncodeError as error:
            raise NoObjectError(f"{folder} holds {name!r}, which is not UTF-8: rename that file.") from error
        problem = None
        if stat.S_ISLNK(status.st_mode):
            try:
                status = os.stat(name, dir_fd=descriptor)
                problem = None if is_inside(folder / name, root) else "is a link out of the root, which is not followed"
            except OSError:
                problem = "is a link to nothing"
        if not (problem or stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            problem = "is neither a file nor a folder"
        if problem is None:
            found[name] = status
        elif not name.startswith("."):
            raise NoObjectError(f"{folder / name} {problem}: put the object itself there, or move it away.")
    return found


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path is still below the root once all links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def new_file(path: Path) -> io.FileIO:
    """Create a file, not readable by the world.

    Raises:
        FileExistsError: something has its name.
    """
    return io.FileIO(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, FILE_MODE))


def make_folders(folder: Path) -> None:
    """Create a folder and its parents, durably; fine if it is there.

    Raises:
        FileNotFoundError: a delete removed it, or the folder above it, in between: `in_folder` tries again.
        NotADirectoryError: something else has its name.
    """
    try:
        _make_folder(folder)
    except FileNotFoundError:
        make_folders(folder.parent)
        _make_folder(folder)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        there = folder.lstat().st_mode  # not is_dir(): it returns False for a folder removed since, as for a file
        if not (stat.S_ISDIR(there) or (stat.S_ISLNK(there) and folder.is_dir())):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    else:
        sync_folder(folder.parent)


def in_folder(folder: Path, action: Callable[[], _Result]) -> _Result:
    """Create a folder and run the action in it; retried where a delete removed the empty folder in between."""
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):
            make_folders(folder)
            return action()
    make_folders(folder)
    return action()


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a file, link or folder with everything in it; fine if it is not there."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


def remove_empty_folders(folder: Path, below: Path) -> None:
    """Remove `folder` and then its parents as long as they are empty, up to but without `below`."""
    while folder != below and below in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent


@contextmanager
def locked(lock_file: Path) -> Iterator[None]:
    """Hold an exclusive lock, against other threads and other processes; the kernel releases it when we are killed."""
    make_folders(lock_file.parent)
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically. Return False where this system or file system cannot."""
    swap = _swap_function()
    if swap is None:
        return False
    ctypes.set_errno(0)
    if swap(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


@functools.cache
def _swap_function() -> Callable[[bytes, bytes], int] | None:
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        rename_swap = getattr(library, "renamex_np", None)
        return rename_swap and (lambda one, other: int(rename_swap(one, other, _RENAME_SWAP)))
    rename = getattr(library, "renameat2", None)  # glibc 2.28, musl 1.2.6
    return rename and (lambda one, other: int(rename(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)))
