"""Writes S3 objects: small ones in one request, others as a multipart upload that may be left unfinished on purpose.

Every object has a write id in its metadata. After a lost response and a retry it shows whether we
wrote the object that is there now, which S3 does not. For `s3` and `s3_publication` only.
"""

import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.storage_keys import PUBLICATIONS_PREFIX
from cdi_dagster.storage.interface import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    PreparedObject,
    StorageError,
)
from cdi_dagster.storage.s3_bucket import S3Bucket, etag_in, version_in, was_retried

# S3 takes 10,000 parts of at least 5 MiB. The size doubles every 2,000 parts, so an upload may reach 484 GiB while
# memory holds one part.
_PART_BYTES = 8 * 1024 * 1024
_PARTS_PER_SIZE = 2_000
_COPIED_BYTES = 1024 * 1024 * 1024  # S3 copies parts of at most 5 GiB, and ranges only of objects of more than 5 MB
_WRITE_ID = "cdi-write-id"
UPLOAD_NOTES = "uploads/"
"""Below `PUBLICATIONS_PREFIX`: a note for each unfinished upload, by group."""


def put_object(
    bucket: S3Bucket, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
) -> StoredObject:
    """Write a whole object in one request; conditions and errors as `Storage.write`."""
    if if_absent and if_match is not None:
        raise ValueError("if_absent and if_match exclude each other.")
    write_id = uuid.uuid4().hex
    condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": f'"{if_match}"'} if if_match is not None else {}
    try:
        answer = bucket.call(
            "put_object",
            "write",
            key,
            Key=bucket.full(key),
            Body=data,
            Metadata={_WRITE_ID: write_id},
            ChecksumAlgorithm="CRC32",
            **condition,
        )
    except (ObjectChangedError, ObjectMissingError) as error:
        if was_retried(error) and (written := head_if_ours(bucket, key, write_id)) is not None:
            return written
        if if_absent:
            raise ObjectExistsError(f"{bucket.uri(key)} exists already; it was not changed.") from error
        if if_match is not None:
            raise ObjectChangedError(f"{bucket.uri(key)} no longer has ETag {if_match}; it was not changed.") from error
        raise
    return _written(key, len(data), answer)


def head_if_ours(bucket: S3Bucket, key: str, write_id: str) -> StoredObject | None:
    """Return the object's description if it is there and was written under that write id."""
    try:
        answer = bucket.call("head_object", "check", key, Key=bucket.full(key))
    except ObjectMissingError:
        return None
    return described(key, answer) if answer.get("Metadata", {}).get(_WRITE_ID) == write_id else None


def described(key: str, answer: Mapping[str, Any]) -> StoredObject:
    """Return an object's description from the response of HeadObject."""
    return StoredObject(
        key=key,
        size_bytes=answer["ContentLength"],
        etag=etag_in(dict(answer)),
        version_id=version_in(dict(answer)),
        modified_at=answer["LastModified"].astimezone(UTC),
    )


def _written(key: str, size_bytes: int, answer: dict[str, Any]) -> StoredObject:
    server_time = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return StoredObject(
        key=key,
        size_bytes=size_bytes,
        etag=etag_in(answer),
        version_id=version_in(answer),
        modified_at=parsedate_to_datetime(server_time).astimezone(UTC) if server_time else datetime.now(UTC),
    )


def registry_key(group: str, key: str, upload_id: str) -> str:
    """Return the key of the note about an upload under a group: `discard` finds it by group and prefix."""
    return f"{PUBLICATIONS_PREFIX}{UPLOAD_NOTES}{group}/{key}/{upload_id}"


def own_rows(bucket: S3Bucket, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield what the storage keeps for itself below `PUBLICATIONS_PREFIX`."""
    prefix = PUBLICATIONS_PREFIX + prefix
    for page in bucket.pages("list_objects_v2", "list", prefix, Prefix=bucket.full(prefix)):
        yield from page.get("Contents", ())


def parse_registry_key(note: str) -> tuple[str, str, str]:
    """Return group, key and upload id of a note: a group and an upload id hold no `/`."""
    group, _, rest = note.partition(UPLOAD_NOTES)[2].partition("/")
    key, _, upload_id = rest.rpartition("/")
    return group, key, upload_id


def complete_upload(bucket: S3Bucket, prepared: PreparedObject, *, if_absent: bool = False) -> StoredObject:
    """Make a prepared object appear; fine if an earlier try already did.

    Raises:
        ObjectMissingError: the upload is gone and its object is not there: it was aborted.
        ObjectExistsError: with `if_absent`, another object has the key.
    """
    token = prepared.token
    parts = [
        {"PartNumber": number, "ETag": etag} | ({"ChecksumCRC32": crc32} if crc32 else {})
        for number, etag, crc32 in token["parts"]
    ]
    try:
        answer = bucket.call(
            "complete_multipart_upload",
            "complete the upload to",
            prepared.key,
            Key=bucket.full(prepared.key),
            UploadId=token["upload_id"],
            MultipartUpload={"Parts": parts},
            **({"IfNoneMatch": "*"} if if_absent else {}),
        )
    except StorageError as error:
        if (written := head_if_ours(bucket, prepared.key, token["write_id"])) is not None:
            return written
        if isinstance(error, ObjectChangedError) and if_absent:
            raise ObjectExistsError(f"{bucket.uri(prepared.key)} exists already; it was not changed.") from error
        raise
    return _written(prepared.key, prepared.size_bytes, answer)


def upload_is_there(bucket: S3Bucket, prepared: PreparedObject) -> bool:
    """Return whether the prepared object's upload can still be completed."""
    try:
        bucket.call(
            "list_parts",
            "check the upload to",
            prepared.key,
            Key=bucket.full(prepared.key),
            UploadId=prepared.token["upload_id"],
            MaxParts=1,
        )
    except ObjectMissingError:
        return False
    return True


def abort_upload(bucket: S3Bucket, key: str, upload_id: str) -> None:
    """Abort an upload with its parts; fine if it is completed or gone."""
    try:
        bucket.call("abort_multipart_upload", "abort the upload to", key, Key=bucket.full(key), UploadId=upload_id)
    except ObjectMissingError:
        return


class S3Upload:
    """An `Upload` to S3, one part in memory.

    Args:
        bucket: its bucket.
        key: key of the object.
        if_absent: refuse to replace anything.
        group: its owner, noted before the first byte is sent.
    """

    def __init__(self, bucket: S3Bucket, key: str, *, if_absent: bool, group: str | None) -> None:
        self._bucket = bucket
        self._key = key
        self._if_absent = if_absent
        self._group = group
        self._write_id = uuid.uuid4().hex
        self._upload_id: str | None = None
        self._parts: list[tuple[int, str, str]] = []
        self._pending = bytearray()
        self._sent_bytes = 0
        self._ended = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes; sends a part whenever one is full."""
        self._require_open()
        view = memoryview(data).cast("B")
        self._pending += view
        while len(self._pending) >= (part_bytes := _PART_BYTES << len(self._parts) // _PARTS_PER_SIZE):
            self._send_part(bytes(memoryview(self._pending)[:part_bytes]))
            del self._pending[:part_bytes]
        return len(view)

    def _send_part(self, data: bytes) -> None:
        number = len(self._parts) + 1
        answer = self._bucket.call(
            "upload_part",
            "write",
            self._key,
            Key=self._bucket.full(self._key),
            UploadId=self._begun(),
            PartNumber=number,
            Body=data,
            ChecksumAlgorithm="CRC32",
        )
        self._parts.append((number, answer["ETag"], answer.get("ChecksumCRC32", "")))
        self._sent_bytes += len(data)

    def copy(self, source: StoredObject) -> None:
        """Send the bytes of an object of the same bucket, which S3 copies by itself; before anything is written."""
        for first in range(0, source.size_bytes, _COPIED_BYTES):
            last = min(first + _COPIED_BYTES, source.size_bytes) - 1
            number = len(self._parts) + 1
            is_whole = last + 1 - first == source.size_bytes
            answer = self._bucket.call(
                "upload_part_copy",
                "copy",
                source.key,
                Key=self._bucket.full(self._key),
                UploadId=self._begun(),
                PartNumber=number,
                CopySource={"Bucket": self._bucket.name, "Key": self._bucket.full(source.key)},
                CopySourceIfMatch=source.etag,
                **({} if is_whole else {"CopySourceRange": f"bytes={first}-{last}"}),
            )["CopyPartResult"]
            self._parts.append((number, answer["ETag"], answer.get("ChecksumCRC32", "")))
            self._sent_bytes += last + 1 - first

    def _begun(self) -> str:
        if self._upload_id is None:
            answer = self._bucket.call(
                "create_multipart_upload",
                "write",
                self._key,
                Key=self._bucket.full(self._key),
                ChecksumAlgorithm="CRC32",
                Metadata={_WRITE_ID: self._write_id},
            )
            self._upload_id = str(answer["UploadId"])
            if self._group is not None:
                # A kill between the two requests leaves an upload without parts, which stores and costs nothing.
                put_object(self._bucket, registry_key(self._group, self._key, self._upload_id), b"")
        return self._upload_id

    def complete(self) -> StoredObject:
        """Make the object appear as a whole."""
        self._require_open()
        try:
            if self._upload_id is None:
                stored = put_object(self._bucket, self._key, bytes(self._pending), if_absent=self._if_absent)
            else:
                stored = complete_upload(self._bucket, self._finished(), if_absent=self._if_absent)
        except BaseException:
            self.abort()
            raise
        self._end()
        self._forget_registry()
        return stored

    def prepare(self) -> PreparedObject:
        """Store all parts; `publish` completes the upload."""
        self._require_open()
        try:
            prepared = self._finished()
        except BaseException:
            self.abort()
            raise
        self._end()
        return prepared

    def _finished(self) -> PreparedObject:
        if self._pending or not self._parts:  # an empty object is one empty part
            self._send_part(bytes(self._pending))
            self._pending.clear()
        return PreparedObject(
            key=self._key,
            size_bytes=self._sent_bytes,
            token={"upload_id": self._upload_id, "write_id": self._write_id, "parts": [list(p) for p in self._parts]},
        )

    def abort(self) -> None:
        """Abort the upload; does nothing after complete, prepare or abort."""
        if self._ended:
            return
        self._end()
        if self._upload_id is not None:
            abort_upload(self._bucket, self._key, self._upload_id)
            self._forget_registry()

    def _forget_registry(self) -> None:
        if self._group is not None and self._upload_id is not None:
            note = registry_key(self._group, self._key, self._upload_id)
            self._bucket.call("delete_object", "delete", note, Key=self._bucket.full(note))

    def _end(self) -> None:
        self._ended = True
        self._pending = bytearray()

    def _require_open(self) -> None:
        if self._ended:
            raise StorageError(f"The upload to {self._bucket.uri(self._key)} has ended: start another one.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
