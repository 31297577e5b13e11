"""S3Storage: objects under an `s3://` root.

Conditional requests (If-Match, If-None-Match), version ids where the bucket keeps versions, all pages, all per-key
errors. Opened by `open_storage`; `interface` is the contract. The storage's own data is under `PUBLICATIONS_PREFIX`:
journals of publications, and notes of unfinished uploads by group.
"""

import io
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from typing import Any, BinaryIO, cast

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.storage.interface import (
    ObjectMissingError,
    PreparedObject,
    StorageError,
    StorageUnavailableError,
)
from cdi_dagster.storage.keys import (
    checked_group,
    checked_key,
    checked_prefix,
    checked_publication_prefix,
    is_reserved,
)
from cdi_dagster.storage.s3_bucket import S3Bucket, access_denied, etag_in, version_in
from cdi_dagster.storage.s3_publication import S3Publisher
from cdi_dagster.storage.s3_small import GaveUpError, SmallReads
from cdi_dagster.storage.s3_stream import S3Stream
from cdi_dagster.storage.s3_upload import (
    UPLOAD_NOTES,
    S3Upload,
    abort_upload,
    described,
    own_rows,
    parse_registry_key,
    put_object,
)

_BUFFER_BYTES = 256 * 1024
_PAGE_KEYS = 1000  # the most that S3 lists or deletes in one request
_DELETE_TRIES = 3
_WORTH_RETRYING = {"InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted"}

_log = logging.getLogger(__name__)


class S3Storage:
    """Objects under one bucket and prefix.

    Args:
        root: `s3://bucket[/prefix]`.
        endpoint_url: for anything but AWS itself (default: boto3's own configuration, AWS_ENDPOINT_URL).
        region_name: default: this installation's (`CDI_AWS_REGION`).

    Raises:
        ValueError: the root is not of that form.
    """

    def __init__(self, root: str, *, endpoint_url: str | None = None, region_name: str | None = None) -> None:
        self._bucket = S3Bucket(root, endpoint_url=endpoint_url, region_name=region_name)
        self._small = SmallReads(self._bucket)
        self._keeps_versions: bool | None = None
        self._bucket_is_there = False

    def __repr__(self) -> str:
        return f"S3Storage({self.root!r})"

    @property
    def root(self) -> str:
        """The root URI, without a trailing slash."""
        return self._bucket.root

    @property
    def is_near(self) -> bool:
        """False: the first byte takes some 20 ms."""
        return False

    def uri(self, key: str) -> str:
        """Return the full URI of a key or prefix."""
        return self._bucket.uri(key)

    def list(self, prefix: str, *, versions: bool = False) -> Iterator[StoredObject]:
        """Yield every object under a prefix, in key order, all pages."""
        prefix = checked_prefix(self.root, prefix)
        for row in self._version_rows(prefix) if versions and self._versioned() else self._rows(prefix):
            key = row["Key"].removeprefix(self._bucket.base)
            if not is_reserved(key) and not key.endswith("/"):  # consoles make empty `folder/` objects
                yield StoredObject(
                    key=key,
                    size_bytes=row["Size"],
                    etag=etag_in(row),
                    version_id=version_in(row),
                    modified_at=row["LastModified"].astimezone(UTC),
                )

    def _rows(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield a page by boto3, the rest by the cheaper client: a page where that gave up is boto3's again."""
        full = self._bucket.full(prefix)
        position: dict[str, str] = {}
        while True:
            page = self._bucket.call("list_objects_v2", "list", prefix, Prefix=full, MaxKeys=_PAGE_KEYS, **position)
            rows = page.get("Contents", ())
            yield from rows
            if not page.get("IsTruncated"):
                return
            position = {"ContinuationToken": page["NextContinuationToken"]}
            if not rows:
                continue
            try:
                for row in self._small.rows(full, after=rows[-1]["Key"]):
                    yield row
                    position = {"StartAfter": row["Key"]}
            except GaveUpError:
                continue
            return

    def _version_rows(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._pages("list_object_versions", prefix)
        try:
            first = next(pages)
        except StorageUnavailableError as error:
            if not access_denied(error):
                raise
            _log.warning("s3:ListBucketVersions is not allowed on %s: version ids are unknown", self.root)
            self._keeps_versions = False
            yield from self._rows(prefix)
            return
        for page in itertools.chain([first], pages):
            yield from (row for row in page.get("Versions", ()) if row["IsLatest"])

    def _pages(self, operation: str, prefix: str) -> Iterator[dict[str, Any]]:
        return self._bucket.pages(
            operation, "list", prefix, Prefix=self._bucket.full(prefix), PaginationConfig={"PageSize": _PAGE_KEYS}
        )

    def _versioned(self) -> bool:
        """Return whether the bucket keeps, or kept, versions; False where we may not read that."""
        if self._keeps_versions is None:
            try:
                answer = self._bucket.call("get_bucket_versioning", "read the versioning of", "")
                self._keeps_versions = answer.get("Status") in ("Enabled", "Suspended")
            except StorageUnavailableError as error:
                if not access_denied(error):
                    raise
                _log.warning("s3:GetBucketVersioning is not allowed on %s: version ids are unknown", self.root)
                self._keeps_versions = False
        return self._keeps_versions

    def head(self, key: str) -> StoredObject | None:
        """Return the object's description, or None where there is none."""
        checked_key(self.root, key)
        try:
            answer = self._bucket.call("head_object", "check", key, Key=self._bucket.full(key))
        except ObjectMissingError:
            self._require_bucket()
            return None
        return described(key, answer)

    def _require_bucket(self) -> None:
        # HEAD answers 404 for a missing bucket too: check once, so that it never counts as a missing object.
        if self._bucket_is_there:
            return
        try:
            self._bucket.call("head_bucket", "check", "")
        except ObjectMissingError as error:
            raise StorageUnavailableError(
                f"The bucket of {self.root} does not exist. Create it, or correct the root."
            ) from error
        self._bucket_is_there = True

    def open(
        self,
        key: str,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        first_byte: int = 0,
        byte_count: int | None = None,
    ) -> BinaryIO:
        """Open for streaming; a lost connection is resumed."""
        checked_key(self.root, key)
        stream = S3Stream(
            self._bucket, key, etag=etag, version_id=version_id, first_byte=first_byte, byte_count=byte_count
        )
        return cast(BinaryIO, io.BufferedReader(stream, _BUFFER_BYTES))

    def read(self, key: str) -> bytes:
        """Return a small object's bytes."""
        with self.open(key) as stream:
            return stream.read()

    def read_small(self, key: str, *, etag: str, version_id: str | None = None) -> bytes:
        """Return the bytes of a small object, as it was listed; one request by the cheaper client."""
        checked_key(self.root, key)
        content = self._small.read(key, etag=etag, version_id=version_id)
        if content is not None:
            return content
        with self.open(key, etag=etag, version_id=version_id) as stream:
            return stream.read()

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> StoredObject:
        """Write a small object, atomically, in one request."""
        checked_key(self.root, key)
        return put_object(self._bucket, key, data, if_absent=if_absent, if_match=if_match)

    def upload(self, key: str, *, if_absent: bool = False, group: str | None = None) -> S3Upload:
        """Start writing one object in pieces; at most one part (8 MiB and up) is held in memory."""
        checked_key(self.root, key)
        return S3Upload(self._bucket, key, if_absent=if_absent, group=None if group is None else checked_group(group))

    def prepare_stored(self, source: str, key: str, *, group: str) -> PreparedObject:
        """Copy an object within S3, as an upload that `publish` completes."""
        stored = self.head(source)
        if stored is None:
            raise ObjectMissingError(f"Could not prepare {self._bucket.uri(source)}: it is not there.")
        with self.upload(key, group=group) as upload:
            upload.copy(stored)
            return upload.prepare()

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, a thousand in a request; after a failed batch the next is still tried."""
        self._delete(checked_key(self.root, key) for key in keys)

    def _delete(self, keys: Iterable[str]) -> None:
        failures: dict[str, str] = {}
        remaining = iter(keys)
        while batch := list(itertools.islice(remaining, _PAGE_KEYS)):
            failures |= self._delete_batch(batch)
        if failures:
            kinds = ", ".join(sorted(set(failures.values())))
            raise StorageError(
                f"{len(failures)} objects under {self.root} could not be deleted ({kinds}): {', '.join(failures)}. "
                "Give this role s3:DeleteObject, or lift the object lock, then run again."
            )

    def _delete_batch(self, keys: Sequence[str]) -> dict[str, str]:
        """Delete up to a thousand keys; return key -> code of those that S3 refused (it answers 200 anyway)."""
        refused: dict[str, str] = {}
        for _ in range(_DELETE_TRIES):
            answer = self._bucket.call(
                "delete_objects",
                f"delete {len(keys)} objects, {keys[0]} first, under",
                "",
                Delete={"Objects": [{"Key": self._bucket.full(key)} for key in keys], "Quiet": True},
            )
            errors = {
                row["Key"].removeprefix(self._bucket.base): row.get("Code", "unknown")
                for row in answer.get("Errors", ())
                if row.get("Code") != "NoSuchKey"
            }
            refused = {key: code for key, code in refused.items() if key not in keys} | errors
            keys = [key for key, code in errors.items() if code in _WORTH_RETRYING]
            if not keys:
                break
        return refused

    def publish(self, prefix: str, prepared: Sequence[PreparedObject], mark: bytes, *, group: str) -> None:
        """Publish with a journal: complete or unchanged for readers that respect `_SUCCESS`."""
        checked_publication_prefix(self.root, prefix)
        self._publisher.publish(prefix, prepared, mark, group=checked_group(group))

    def recover(self, prefix: str) -> None:
        """Finish every publication that a killed process had decided."""
        self._publisher.recover_all(checked_publication_prefix(self.root, prefix))

    @property
    def _publisher(self) -> S3Publisher:
        return S3Publisher(self._bucket, self.list, self._delete)

    def discard(self, prefix: str, *, group: str | None) -> None:
        """Abort every upload to the prefix started under the group, or under any, unless its publication is decided."""
        checked_prefix(self.root, prefix)
        notes = UPLOAD_NOTES if group is None else f"{UPLOAD_NOTES}{checked_group(group)}/{prefix}"
        decided = self._publisher.decided_uploads()
        forgotten = []
        for row in own_rows(self._bucket, notes):
            note = row["Key"].removeprefix(self._bucket.base)
            _, key, upload_id = parse_registry_key(note)
            if key.startswith(prefix) and upload_id not in decided:
                abort_upload(self._bucket, key, upload_id)
                forgotten.append(note)
        self._delete(forgotten)
