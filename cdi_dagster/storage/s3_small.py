"""Reads and lists very many small S3 objects by obstore, whose client is in Rust: a tenth of boto3's CPU, or less.

It counts where a day is tens of thousands of objects. Only the quick way for what is there: what obstore does not
return, the caller requests by boto3, so that errors, retries and resuming are in one place. For `s3` only.
"""

import logging
import math
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cdi_dagster.aws.clients import credentials
from cdi_dagster.storage.pace import Pace
from cdi_dagster.storage.s3_bucket import S3Bucket

_CREDENTIALS_KEPT = timedelta(minutes=5)
_FAILURES_FORGIVEN = 3
_PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""After each time that S3 throttled a request; then it is boto3's, with its own retries and error."""
_PAGE_KEYS = 1000
_THROTTLING = ("status code: 503", "status code: 429")

_log = logging.getLogger(__name__)
_began_in_process: int | None = None
"""Where obstore's threads are; a process forked from there has none of them, and would wait for ever."""


class GaveUpError(Exception):
    """obstore does not list on: boto3 has to, from the last row."""


class SmallReads:
    """Reads and long listings of one bucket.

    Args:
        bucket: the bucket.
    """

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._store: Any = None
        self._failures: float = 0
        self._pace = Pace()

    def __reduce__(self) -> tuple[Any, ...]:
        return SmallReads, (self._bucket,)

    def read(self, key: str, *, etag: str, version_id: str | None) -> bytes | None:
        """Return the bytes of the object of that ETag, or None where boto3 has to find out.

        They are not compared with a checksum of S3's: only for content that has its own, as gzip has.
        """
        if not self._is_usable():
            return None
        from obstore.exceptions import NotFoundError, PreconditionError

        options = {"if_match": f'"{etag}"'} | ({"version": version_id} if version_id else {})
        for pause_seconds in _PAUSES_SECONDS:
            with self._pace.turn() as began:
                try:
                    content: bytes = self._opened().get(self._bucket.full(key), options=options).bytes().to_bytes()
                except (NotFoundError, PreconditionError):
                    return None
                except Exception as error:  # noqa: BLE001 - whatever it is, boto3 is asked then
                    if not _is_throttling(error):
                        self._failed(error)
                        return None
                    self._pace.slow_down(began)
                else:
                    self._succeeded()
                    self._pace.speed_up()
                    return content
            time.sleep(pause_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - not secret
        return None

    def rows(self, prefix: str, *, after: str) -> Iterator[dict[str, Any]]:
        """Yield every object below a prefix of the bucket whose key comes after another, as boto3's list has them.

        Raises:
            GaveUpError: obstore cannot list, or shows something in another way than boto3.
        """
        if not self._is_usable():
            raise GaveUpError
        try:
            for page in self._opened().list(prefix or None, offset=after, chunk_size=_PAGE_KEYS):
                for found in page:
                    yield _row(found)
        except GaveUpError:
            raise
        except Exception as error:
            self._failed(error)
            raise GaveUpError from error
        self._succeeded()

    def _is_usable(self) -> bool:
        return self._failures <= _FAILURES_FORGIVEN and _began_in_process in (None, os.getpid())

    def _succeeded(self) -> None:
        """It is configured for this storage: what fails from now on does so for another reason, and passes."""
        self._failures = -math.inf

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures > _FAILURES_FORGIVEN:
            _log.warning("obstore does not read %s; boto3 does, slower: %s", self._bucket.root, error)

    def _opened(self) -> Any:
        with self._lock:
            self._store = self._store or self._new_store()
            return self._store

    def _new_store(self) -> Any:
        global _began_in_process
        from obstore.store import S3Store

        meta, found = self._bucket.client.meta, credentials()

        def provide() -> dict[str, Any]:
            frozen = found.get_frozen_credentials()
            return {
                "access_key_id": frozen.access_key,
                "secret_access_key": frozen.secret_key,
                "token": frozen.token,
                "expires_at": datetime.now(UTC) + _CREDENTIALS_KEPT,
            }

        _began_in_process = os.getpid()
        return S3Store(
            self._bucket.name,
            endpoint=meta.endpoint_url,
            region=meta.region_name,
            client_options={"allow_http": True, "connect_timeout": "10s", "timeout": "60s"},
            retry_config={"max_retries": 0},
            credential_provider=provide,  # type: ignore[arg-type]
        )


def _is_throttling(error: Exception) -> bool:
    return any(sign in str(error) for sign in _THROTTLING)


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    if not found["size"] or not found["e_tag"]:
        raise GaveUpError  # it may be a console's empty `folder/`, of which obstore leaves out the slash
    names = {"Key": "path", "Size": "size", "ETag": "e_tag", "LastModified": "last_modified"}
    return {name: found[theirs] for name, theirs in names.items()}
