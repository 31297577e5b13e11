"""Looks for secrets in everything that lies below a folder, now and while others work there.

A secret is found as it is and as programs tend to write it: hex, base64 (wherever it begins in what was encoded),
UTF-16, a Python repr; and within gzip.
"""

import base64
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

_GZIP_MAGIC = b"\x1f\x8b"
_POLL_SECONDS = 0.1


class Secrets:
    """What must not be found, by name."""

    def __init__(self, secrets: dict[str, bytes]) -> None:
        self._forms = [(name, form) for name, secret in secrets.items() for form in set(_forms(secret))]

    def found_in(self, data: bytes) -> set[str]:
        """Return the names of the secrets that data holds in some form."""
        found = {name for name, form in self._forms if form in data}
        if data.startswith(_GZIP_MAGIC):
            inflated = _inflated(data)
            found |= {name for name, form in self._forms if form in inflated}
        return found


def _forms(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield repr(secret)[2:-1].encode()
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        # The characters at both ends depend on the neighbours.
        core = encoded[(0, 2, 3)[before] : len(encoded) // 4 * 4 - 4]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))
    if secret.isascii():
        yield secret.decode().encode("utf-16-le")


def _inflated(data: bytes) -> bytes:
    """Return what all members of a gzip inflate to, as far as they are there."""
    parts = []
    while data.startswith(_GZIP_MAGIC):
        inflater = zlib.decompressobj(wbits=31)
        try:
            parts.append(inflater.decompress(data))
        except zlib.error:
            break
        data = inflater.unused_data
    return b"".join(parts)


def leaks(folder: Path, secrets: Secrets, *, besides: Iterable[Path] = ()) -> dict[str, set[str]]:
    """Return which secrets lie in which file below a folder; names of files are searched too."""
    allowed = tuple(besides)
    found = {}
    for path in _files(folder):
        if not any(path.is_relative_to(place) for place in allowed):
            names = secrets.found_in(str(path).encode()) | secrets.found_in(_content(path))
            if names:
                found[str(path)] = names
    return found


class Watcher:
    """Searches folders over and over while it is entered: what was there for a moment was there.

    Attributes:
        found: secrets by file.
        looked_at: files that were read at least once.
        looked_into: folders that were listed at least once.
    """

    def __init__(self, folders: Iterable[Path], secrets: Secrets, *, besides: Iterable[Path] = ()) -> None:
        self.found: dict[str, set[str]] = {}
        self.looked_at: set[str] = set()
        self.looked_into: set[str] = set()
        self._folders = tuple(folders)
        self._besides = tuple(besides)
        self._secrets = secrets
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="leak watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_POLL_SECONDS):
            for folder in self._folders:
                for path in _files(folder, self.looked_into):
                    if not any(path.is_relative_to(place) for place in self._besides):
                        self._look_at(path)

    def _look_at(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError:
            return
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._seen.get(path) == version:
            return
        self._seen[path] = version
        self.looked_at.add(str(path))
        names = self._secrets.found_in(_content(path))
        if names:
            self.found.setdefault(str(path), set()).update(names)


def _files(folder: Path, looked_into: set[str] | None = None) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        if looked_into is not None:
            looked_into.add(parent)
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
