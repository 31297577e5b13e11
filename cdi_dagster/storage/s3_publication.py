"""Publishing to a prefix of S3, which cannot swap folders: decide in one object, then roll forward (docs/adr/0001).

    1  write the journal `journals/<prefix>journal.json`          <- the decision; before it nothing has changed
    2  delete `_SUCCESS`                                                 from here readers must not use the prefix
    3  complete the prepared uploads
    4  delete the objects of the previous publication
    5  write `_SUCCESS` with the mark                                    from here it is complete again
    6  delete the journal

The journal is below `PUBLICATIONS_PREFIX`. After a kill between 1 and 6, `recover` does the rest; every step may be
done twice. Old objects are deleted only when all new ones are there, so that a publication whose uploads were aborted
can still be rolled back. The caller ensures one publisher per prefix at a time. For `s3` only.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.storage_keys import PUBLICATIONS_PREFIX, SUCCESS_MARK
from cdi_dagster.storage.interface import (
    ObjectExistsError,
    ObjectMissingError,
    PreparedObject,
    StorageError,
)
from cdi_dagster.storage.s3_bucket import S3Bucket
from cdi_dagster.storage.s3_stream import S3Stream
from cdi_dagster.storage.s3_upload import (
    complete_upload,
    head_if_ours,
    own_rows,
    put_object,
    registry_key,
    upload_is_there,
)

_JOURNALS = "journals/"
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_THREADS = 8  # keeps the time without `_SUCCESS` short: a hundred parts in about a second


@dataclass(frozen=True, kw_only=True)
class _Journal:
    """A decided publication.

    Attributes:
        prefix: what is published.
        group: its owner.
        prepared: the objects to publish.
        mark: content of the new `_SUCCESS`.
        mark_before: content of the `_SUCCESS` that is replaced, None if there was none.
    """

    prefix: str
    group: str
    prepared: tuple[PreparedObject, ...]
    mark: bytes
    mark_before: bytes | None

    @property
    def key(self) -> str:
        return _journal_key(self.prefix)

    def to_bytes(self) -> bytes:
        before = None if self.mark_before is None else base64.b64encode(self.mark_before).decode()
        return json.dumps(
            {
                "prefix": self.prefix,
                "group": self.group,
                "prepared": [asdict(item) for item in self.prepared],
                "mark": base64.b64encode(self.mark).decode(),
                "mark_before": before,
            }
        ).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "_Journal":
        value: dict[str, Any] = json.loads(data)
        before = value["mark_before"]
        return cls(
            prefix=value["prefix"],
            group=value["group"],
            prepared=tuple(PreparedObject(**item) for item in value["prepared"]),
            mark=base64.b64decode(value["mark"]),
            mark_before=None if before is None else base64.b64decode(before),
        )


def _journal_key(prefix: str) -> str:
    return f"{PUBLICATIONS_PREFIX}{_JOURNALS}{prefix}journal.json"


class S3Publisher:
    """Publishes to prefixes of one bucket.

    Args:
        bucket: where.
        list_objects: yields every object under a prefix.
        delete: deletes keys, raising for those it could not delete.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        list_objects: Callable[[str], Iterator[StoredObject]],
        delete: Callable[[Iterable[str]], None],
    ) -> None:
        self._bucket = bucket
        self._list_objects = list_objects
        self._delete = delete

    def publish(self, prefix: str, prepared: Sequence[PreparedObject], mark: bytes, *, group: str) -> None:
        """As `Storage.publish`."""
        self.recover(prefix)
        self._require_uploads(prefix, prepared)
        journal = _Journal(
            prefix=prefix,
            group=group,
            prepared=tuple(prepared),
            mark=mark,
            mark_before=self._read(prefix + SUCCESS_MARK),
        )
        try:
            put_object(self._bucket, journal.key, journal.to_bytes(), if_absent=True)
        except ObjectExistsError as error:
            raise StorageError(
                f"Another publication to {self._bucket.uri(prefix)} has just started: let one run at a time publish it."
            ) from error
        self._roll_forward(journal)

    def recover_all(self, prefix: str) -> None:
        """As `Storage.recover`."""
        for journal in list(self._journals(prefix)):
            self._recover(journal)

    def recover(self, prefix: str) -> None:
        """Finish the publication to exactly this prefix."""
        data = self._read(_journal_key(prefix))
        if data is not None:
            self._recover(_Journal.from_bytes(data))

    def _recover(self, journal: _Journal) -> None:
        if all(_in_parallel(self._can_appear, journal.prepared)):
            self._roll_forward(journal)
        else:
            self._roll_back(journal)

    def decided_uploads(self) -> set[str]:
        """Return the ids of the uploads that any publication, not finished yet, has decided on."""
        return {item.token["upload_id"] for journal in self._journals("") for item in journal.prepared}

    def _journals(self, prefix: str) -> Iterator[_Journal]:
        """Yield the journals of the publications to a prefix, or below it, that are decided and not finished."""
        for row in own_rows(self._bucket, _JOURNALS + prefix):
            data = self._read(row["Key"].removeprefix(self._bucket.base))
            if data is not None:
                yield _Journal.from_bytes(data)

    def _require_uploads(self, prefix: str, prepared: Sequence[PreparedObject]) -> None:
        keys = [item.key for item in prepared]
        if len(set(keys)) != len(keys) or not all(
            item.key.startswith(prefix) and item.key != prefix + SUCCESS_MARK and "upload_id" in item.token
            for item in prepared
        ):
            raise StorageError(
                f"Objects were not prepared for {self._bucket.uri(prefix)}, or twice: prepare them again."
            )
        for item, there in zip(prepared, _in_parallel(self._can_appear, prepared), strict=True):
            if not there:
                raise ObjectMissingError(f"The upload to {self._bucket.uri(item.key)} is gone: run again.")

    def _can_appear(self, prepared: PreparedObject) -> bool:
        return upload_is_there(self._bucket, prepared) or self._has_appeared(prepared)

    def _has_appeared(self, prepared: PreparedObject) -> bool:
        return head_if_ours(self._bucket, prepared.key, prepared.token["write_id"]) is not None

    def _complete(self, prepared: PreparedObject) -> None:
        if upload_is_there(self._bucket, prepared) or not self._has_appeared(prepared):
            complete_upload(self._bucket, prepared)

    def _roll_forward(self, journal: _Journal) -> None:
        success = journal.prefix + SUCCESS_MARK
        self._delete([success])
        _in_parallel(self._complete, journal.prepared)
        if self._finished_by_another(journal):
            return
        ours = {item.key for item in journal.prepared}
        self._delete(stored.key for stored in self._list_objects(journal.prefix) if stored.key not in ours)
        put_object(self._bucket, success, journal.mark)
        self._forget(journal)

    def _finished_by_another(self, journal: _Journal) -> bool:
        """Check before deleting anything: a second publisher, against the rule, may have recovered ours."""
        present = self._read(journal.key)
        if present == journal.to_bytes():
            return False
        if present is None and self._read(journal.prefix + SUCCESS_MARK) == journal.mark:
            return True
        raise StorageError(
            f"Another process took over the publication to {self._bucket.uri(journal.prefix)}: "
            "let one run at a time publish it, then run again."
        )

    def _roll_back(self, journal: _Journal) -> None:
        """Roll back a publication whose uploads were aborted: the previous one is still complete."""
        success = journal.prefix + SUCCESS_MARK
        self._delete([success])
        self._delete(item.key for item in journal.prepared if self._has_appeared(item))
        if journal.mark_before is not None:
            put_object(self._bucket, success, journal.mark_before)
        self._forget(journal)

    def _forget(self, journal: _Journal) -> None:
        notes = [registry_key(journal.group, item.key, item.token["upload_id"]) for item in journal.prepared]
        self._delete([journal.key])
        self._delete(notes)

    def _read(self, key: str) -> bytes | None:
        try:
            with S3Stream(self._bucket, key, etag=None, version_id=None, first_byte=0) as stream:
                return stream.readall()
        except ObjectMissingError:
            return None


def _in_parallel(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(work, items))
