"""Publishing to a folder: build the new folder in staging, then swap it with the published one atomically.

The folder names are the journal, so that a killed publication can be finished or discarded (docs/adr/0001):

    .cdi-staging/publications/<prefix hash>/prefix       which prefix it is
    .cdi-staging/publications/<prefix hash>/build-<id>   being built, or, after the swap, the previous content
    .cdi-staging/publications/<prefix hash>/ready        decided; only where the file system cannot swap
    .cdi-staging/publications/<prefix hash>/previous     the content that `ready` replaces

For `files` only.
"""

import io
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cdi_dagster.core.storage_keys import SUCCESS_MARK
from cdi_dagster.storage.file_system import exchange, in_folder, make_folders, new_file, remove_tree, sync_folder

_PREFIX_FILE = "prefix"


def publish_folder(target: Path, workspace: Path, staged: Mapping[str, Path], mark: bytes, *, prefix: str) -> None:
    """Make `target` hold exactly the staged files and the mark. The caller holds the prefix's lock.

    Args:
        target: the published folder; need not exist.
        workspace: folder of this prefix's publications, on the same file system.
        staged: path below the target -> the staged file, complete and durable.
        mark: bytes of `_SUCCESS`.
        prefix: what is published, for `begun_publications`.

    Raises:
        OSError: the target is unchanged, unless a `ready` folder exists: then `recover` finishes it.
    """
    recover_folder(target, workspace)
    build = workspace / f"build-{uuid.uuid4().hex}"
    make_folders(build)
    (workspace / _PREFIX_FILE).write_text(prefix)
    _fill(build, staged, mark)
    in_folder(target.parent, lambda: _swap_in(build, target, workspace))
    sync_folder(target.parent)
    forget_builds(workspace)


def begun_publications(publications: Path) -> Iterator[str]:
    """Yield the prefix of every workspace that is there: its publisher is at work, or was killed."""
    for prefix_file in publications.glob(f"*/{_PREFIX_FILE}"):
        with suppress(FileNotFoundError):
            yield prefix_file.read_text()


def recover_folder(target: Path, workspace: Path) -> None:
    """Finish a decided publication that was killed, and remove an undecided one. The caller holds the lock."""
    if not workspace.exists():
        return
    if (workspace / "ready").exists():
        in_folder(target.parent, lambda: _swap_in_two_steps(target, workspace))
        sync_folder(target.parent)
    forget_builds(workspace)


def forget_builds(workspace: Path) -> None:
    """Remove everything undecided or already replaced, and then the workspace. The caller holds the lock."""
    with suppress(FileNotFoundError):
        kept = {"ready", _PREFIX_FILE} if (workspace / "ready").exists() else set()
        # The prefix last: until then `begun_publications` finds the rest.
        for left in sorted(workspace.iterdir(), key=lambda path: path.name == _PREFIX_FILE):
            if left.name not in kept:
                remove_tree(left)
    with suppress(OSError):
        workspace.rmdir()


def _fill(build: Path, staged: Mapping[str, Path], mark: bytes) -> None:
    folders = {build}
    for name, source in staged.items():
        destination = build / name
        if destination.parent not in folders:
            make_folders(destination.parent)
            folders.add(destination.parent)
        os.rename(source, destination)
    with io.BufferedWriter(new_file(build / SUCCESS_MARK)) as file:
        file.write(mark)
        file.flush()
        os.fsync(file.fileno())
    for folder in folders:
        sync_folder(folder)


def _swap_in(build: Path, target: Path, workspace: Path) -> None:
    if not os.path.lexists(target):
        os.rename(build, target)
    elif not exchange(build, target):
        os.rename(build, workspace / "ready")
        _swap_in_two_steps(target, workspace)


def _swap_in_two_steps(target: Path, workspace: Path) -> None:
    # Between the two renames readers find no folder; a kill there is finished by `recover_folder`.
    if os.path.lexists(target):
        remove_tree(workspace / "previous")
        os.rename(target, workspace / "previous")
    os.rename(workspace / "ready", target)
