"""FileStorage: objects as files below a `file://` root.

An object appears by one atomic rename of a file that was written and synced in `<root>/.cdi-staging/`, so no reader
sees half of it. Opened by `open_storage`; `interface` is the contract.

    .cdi-staging/uploads/=<group>/<folder of the key>/<id>   uploads of a group
    .cdi-staging/uploads/_/<id>                              uploads without a group
    .cdi-staging/publications/                               folders being published (`file_publication`)
    .cdi-staging/locks/                                      locks: 64 files at most, never removed
"""

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.storage.file_publication import begun_publications, forget_builds, publish_folder, recover_folder
from cdi_dagster.storage.file_stream import described, open_file
from cdi_dagster.storage.file_system import (
    is_inside,
    locked,
    remove_empty_folders,
    remove_tree,
    scan,
    storage_error,
    storage_errors,
)
from cdi_dagster.storage.file_upload import FileUpload, stage_file
from cdi_dagster.storage.interface import (
    NoObjectError,
    ObjectMissingError,
    PreparedObject,
    StorageError,
)
from cdi_dagster.storage.keys import (
    RESERVED_PREFIXES,
    STAGING_FOLDER,
    checked_group,
    checked_key,
    checked_prefix,
    checked_publication_prefix,
)

_LOCKS = 64
_BUFFER_BYTES = 256 * 1024
_URI_SAFE = "/=:@+,~!$&'()*;"


class FileStorage:
    """Objects as files under one folder, which is created at the first write.

    Args:
        root: `file:///absolute/folder`, percent-encoded where needed.

    Raises:
        ValueError: it is not such a URI.
    """

    def __init__(self, root: str) -> None:
        parts = urlsplit(root)
        path = unquote(parts.path, errors="strict")
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path.startswith("/"):
            raise ValueError(f"{root!r} is not a local root: write it as file:///absolute/folder (three slashes).")
        if parts.query or parts.fragment or "\0" in path:
            raise ValueError(f"{root!r} is not a local root: percent-encode ? as %3F and # as %23.")
        self._folder = Path(os.path.normpath("/" + path.lstrip("/")))
        self._root = "file://" + quote(str(self._folder), safe=_URI_SAFE).rstrip("/")

    def __repr__(self) -> str:
        return f"FileStorage({self._root!r})"

    @property
    def root(self) -> str:
        """The root URI, without a trailing slash."""
        return self._root

    @property
    def is_near(self) -> bool:
        """True: a file is opened in microseconds."""
        return True

    def uri(self, key: str) -> str:
        """Return the full URI of a key or prefix, percent-encoded where needed."""
        return f"{self._root}/{quote(key, safe=_URI_SAFE)}"

    def list(self, prefix: str, *, versions: bool = False) -> Iterator[StoredObject]:
        """Yield every object under a prefix, in key order; one folder at a time is held in memory."""
        prefix = checked_prefix(self._root, prefix)
        yield from self._walk(self._folder / prefix, prefix)

    def _walk(self, folder: Path, prefix: str) -> Iterator[StoredObject]:
        with storage_errors("list", self.uri(prefix), folder):
            entries = scan(folder, self._folder)
        # In key order: as if a folder's name ended with `/`.
        for name in sorted(entries, key=lambda name: name + "/" if stat.S_ISDIR(entries[name].st_mode) else name):
            status = entries[name]
            if stat.S_ISDIR(status.st_mode):
                if f"{prefix}{name}/" not in RESERVED_PREFIXES:
                    yield from self._walk(folder / name, f"{prefix}{name}/")
            else:
                yield described(prefix + name, status)

    def head(self, key: str) -> StoredObject | None:
        """Return the object's description, or None where there is no regular file of that name."""
        path = self._path(key, followed=True)
        with storage_errors("check", self.uri(key), path):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return described(key, status) if stat.S_ISREG(status.st_mode) else None

    def open(
        self,
        key: str,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        first_byte: int = 0,
        byte_count: int | None = None,
    ) -> BinaryIO:
        """Open for streaming; an in-place change of the file under the reader is an ObjectChangedError.

        If the file is *replaced* meanwhile, the reader goes on with the old object.
        """
        path, uri = self._path(key, followed=True), self.uri(key)
        if version_id is not None:
            raise ObjectMissingError(f"{uri} has no version {version_id}: folders keep no versions.")
        with storage_errors("read", uri, path):
            try:
                stream = open_file(path, uri, etag=etag, first_byte=first_byte, byte_count=byte_count)
            except (NotADirectoryError, IsADirectoryError) as error:
                raise ObjectMissingError(f"Could not read {uri}: it is not there.") from error
        return cast(BinaryIO, io.BufferedReader(stream, _BUFFER_BYTES))

    def read(self, key: str) -> bytes:
        """Return a small object's bytes."""
        with self.open(key) as stream:
            return stream.read()

    def read_small(self, key: str, *, etag: str, version_id: str | None = None) -> bytes:
        """Return the bytes of a small object, as it was listed."""
        with self.open(key, etag=etag, version_id=version_id) as stream:
            return stream.read()

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> StoredObject:
        """Write a small object, atomically and durably."""
        with self._upload(key, group=None, if_absent=if_absent, if_match=if_match) as upload:
            upload.write(data)
            return upload.complete()

    def upload(self, key: str, *, if_absent: bool = False, group: str | None = None) -> FileUpload:
        """Start writing one object in pieces."""
        return self._upload(key, group=group, if_absent=if_absent, if_match=None)

    def _upload(self, key: str, *, group: str | None, if_absent: bool, if_match: str | None) -> FileUpload:
        target = self._path(key)
        uploads = self._uploads(group)
        return FileUpload(
            key,
            self.uri(key),
            target=target,
            staging=self._staging,
            folder=uploads / key.rpartition("/")[0] if group is not None else uploads,
            keep=uploads.parent if group is not None else uploads,
            lock=lambda: self._lock(key),
            if_absent=if_absent,
            if_match=if_match,
        )

    def prepare_stored(self, source: str, key: str, *, group: str) -> PreparedObject:
        """Move a file to the staged uploads, in one step."""
        path = self._path(source)
        self._path(key)
        folder = self._uploads(group) / key.rpartition("/")[0]
        with storage_errors("prepare", self.uri(source), path):
            staged, size_bytes = stage_file(path, folder)
        token = {"staged": staged.relative_to(self._staging).as_posix()}
        return PreparedObject(key=key, size_bytes=size_bytes, token=token)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, and folders that are then empty."""
        failures: list[StorageError] = []
        for key in keys:
            path = self._path(key)
            try:
                if os.path.lexists(path):
                    with self._lock(key):
                        path.unlink()
                    remove_empty_folders(path.parent, below=self._folder)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                failures.append(storage_error(error, "delete", self.uri(key), path))
        if failures:
            raise type(failures[0])(" ".join(str(failure) for failure in failures))

    def publish(self, prefix: str, prepared: Sequence[PreparedObject], mark: bytes, *, group: str) -> None:
        """Swap a folder of the prepared objects and `_SUCCESS` with the published folder, in one step."""
        prefix = checked_publication_prefix(self._root, prefix)
        uploads = self._uploads(group) / prefix
        target = self._folder / prefix
        with storage_errors("publish to", self.uri(prefix), target), self._lock(prefix, "publish"):
            staged = {item.key.removeprefix(prefix): self._staged(prefix, item) for item in prepared}
            if len(staged) != len(prepared):
                raise StorageError(f"Two prepared objects for {self.uri(prefix)} have the same key: prepare each once.")
            publish_folder(target, self._workspace(prefix), staged, mark, prefix=prefix)
            for folder in {path.parent for path in staged.values()}:
                remove_empty_folders(folder, below=self._staging / "uploads")
            remove_empty_folders(uploads, below=self._staging / "uploads")

    def _staged(self, prefix: str, prepared: PreparedObject) -> Path:
        checked_key(self._root, prepared.key)
        staged = PurePosixPath(str(prepared.token.get("staged", "")))
        if not prepared.key.startswith(prefix) or staged.parts[:1] != ("uploads",) or ".." in staged.parts:
            raise StorageError(f"{self.uri(prepared.key)} was not prepared for {self.uri(prefix)}: prepare it again.")
        path = self._staging / staged
        size_bytes = path.stat().st_size if path.exists() else None
        if size_bytes != prepared.size_bytes:
            raise ObjectMissingError(
                f"{self.uri(prepared.key)} was prepared with {prepared.size_bytes} bytes, but "
                f"{'its upload is gone' if size_bytes is None else f'{size_bytes} are there'}: run again."
            )
        return path

    def recover(self, prefix: str) -> None:
        """Finish or discard killed publications."""
        for begun in self._begun_publications(checked_publication_prefix(self._root, prefix)):
            target = self._folder / begun
            with storage_errors("recover", self.uri(begun), target), self._lock(begun, "publish"):
                recover_folder(target, self._workspace(begun))

    def discard(self, prefix: str, *, group: str | None) -> None:
        """Remove every unpublished upload to the prefix that was started under the group, or under any."""
        prefix = checked_prefix(self._root, prefix)
        uploads = self._staging / "uploads"
        with storage_errors("discard uploads to", self.uri(prefix), uploads):
            for folder in uploads.glob("=*") if group is None else [self._uploads(group)]:
                remove_tree(folder / prefix)
                remove_empty_folders((folder / prefix).parent, below=uploads)
            for begun in self._begun_publications(prefix):
                with self._lock(begun, "publish"):
                    forget_builds(self._workspace(begun))

    def _begun_publications(self, prefix: str) -> set[str]:
        """Return the prefixes, this one and below, whose publication has started and not ended."""
        begun = {found for found in begun_publications(self._publications) if found.startswith(prefix)}
        return begun | ({prefix} if prefix and self._workspace(prefix).exists() else set())

    @property
    def _staging(self) -> Path:
        return self._folder / STAGING_FOLDER

    @property
    def _publications(self) -> Path:
        return self._staging / "publications"

    def _path(self, key: str, *, followed: bool = False) -> Path:
        """Return the file of a key. A folder that is a link out of the root is not followed; `followed`: nor a file."""
        path = self._folder / checked_key(self._root, key)
        if not is_inside(path if followed else path.parent, self._folder):
            raise NoObjectError(f"{self.uri(key)} is, or lies behind, a link out of the root, which is not followed.")
        return path

    def _uploads(self, group: str | None) -> Path:
        name = "_" if group is None else "=" + quote(checked_group(group), safe="=:@+,~ ")
        return self._staging / "uploads" / name

    def _workspace(self, prefix: str) -> Path:
        return self._publications / hashlib.sha256(prefix.encode()).hexdigest()[:32]

    def _lock(self, name: str, kind: str = "write") -> AbstractContextManager[None]:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2]) % (_LOCKS // 2)
        return locked(self._staging / "locks" / f"{kind}-{number}")
