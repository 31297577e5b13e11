"""Checks keys, prefixes, groups and ranges, the same for every storage.

A key that escapes its root, or that has two spellings, is refused before any adapter sees it. For the adapters of this
package only.
"""

from cdi_dagster.core.storage_keys import PUBLICATIONS_PREFIX
from cdi_dagster.storage.interface import StorageError

STAGING_FOLDER = ".cdi-staging"
RESERVED_PREFIXES = (f"{STAGING_FOLDER}/", PUBLICATIONS_PREFIX)
"""What belongs to the storage itself: never listed, never written by key."""

# The longest key that S3 allows, in UTF-8 bytes; the same limit everywhere keeps roots interchangeable.
MAX_KEY_BYTES = 1024


def checked_key(root: str, key: str) -> str:
    """Return the key if it names exactly one object below the root.

    Raises:
        StorageError: it is empty, absolute, too long, not text, has `..`, or is in a reserved folder.
    """
    if key.endswith("/"):
        raise StorageError(f"{key!r} under {root} is a prefix, not a key: leave out the trailing slash.")
    _check_parts(root, key)
    return key


def checked_prefix(root: str, prefix: str) -> str:
    """Return the prefix if it is empty (everything) or names exactly one folder below the root, `/` at its end.

    Raises:
        StorageError: it does not; the message says how to write it.
    """
    if prefix == "":
        return prefix
    if not prefix.endswith("/"):
        raise StorageError(f"The prefix {prefix!r} under {root} must end with '/'.")
    _check_parts(root, prefix[:-1])
    return prefix


def checked_publication_prefix(root: str, prefix: str) -> str:
    """Return the prefix if it can be published to: any but the root itself."""
    if prefix == "":
        raise StorageError(f"{root} itself cannot be replaced by a publication: name a prefix below it.")
    return checked_prefix(root, prefix)


def checked_group(group: str) -> str:
    """Return the group if it is valid: not empty, at most 200 characters, printable, without `/`."""
    if not group or len(group) > 200 or "/" in group or not group.isprintable():
        raise StorageError(f"{group!r} is not a valid group: use a run's correlation id (letters, digits, - and _).")
    return group


def require_range(first_byte: int, byte_count: int | None) -> None:
    """Check what a reader wants of an object.

    Raises:
        ValueError: `first_byte` is negative, or `byte_count` below 1.
    """
    if first_byte < 0 or (byte_count is not None and byte_count < 1):
        raise ValueError(f"first_byte is {first_byte}, byte_count {byte_count}: count from 0, read 1 or more.")


def is_reserved(key: str) -> bool:
    """Return whether a key is in a folder that belongs to the storage itself."""
    return f"{key}/".startswith(RESERVED_PREFIXES)


def _check_parts(root: str, path: str) -> None:
    wrong = None
    if not path:
        wrong = "is empty"
    elif any(part in ("", ".", "..") for part in path.split("/")):
        wrong = "has an empty part, '.' or '..'"
    elif "\0" in path:
        wrong = "has a NUL character"
    elif is_reserved(path):
        reserved = next(prefix for prefix in RESERVED_PREFIXES if f"{path}/".startswith(prefix))
        wrong = f"lies in {reserved}, which is reserved for the storage itself"
    else:
        try:
            if len(path.encode()) > MAX_KEY_BYTES:
                wrong = f"is longer than {MAX_KEY_BYTES} bytes"
        except UnicodeEncodeError:
            wrong = "is not valid text (UTF-8)"
    if wrong:
        raise StorageError(f"The key {path!r} under {root} {wrong}; keys are relative, parts separated by '/'.")
