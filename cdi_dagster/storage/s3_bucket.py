"""One bucket and prefix, its boto3 client, and S3's errors as StorageErrors.

For the S3 adapter of this package only; nothing else uses boto for objects.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

from cdi_dagster.aws.clients import client as new_client
from cdi_dagster.storage.encryption import encrypt_writes
from cdi_dagster.storage.interface import (
    ObjectChangedError,
    ObjectMissingError,
    StorageError,
    StorageUnavailableError,
    TransientStorageError,
)

# Standard mode backs off up to 20 s between attempts; 60 s without a byte is a dead connection, not a slow one.
_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5},
    connect_timeout=10,
    read_timeout=60,
    tcp_keepalive=True,
    max_pool_connections=48,  # the coalescer's readers and batches; where fewer work, fewer are made
)
_ROOT = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")

_MISSING = {"404", "NotFound", "NoSuchKey", "NoSuchVersion", "NoSuchUpload", "MethodNotAllowed", "405"}
_CHANGED = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict", "OperationAborted"}
_FIXES = {
    "NoSuchBucket": "the bucket does not exist. Create it, or correct the root",
    "AccessDenied": "access denied. Give this role the S3 permission that the operation needs, on bucket and keys, "
    "and the use of its KMS key",
    "ExpiredToken": "the AWS session has expired. Log in again",
    "InvalidAccessKeyId": "AWS does not know this access key. Check which AWS identity is configured",
    "SignatureDoesNotMatch": "the secret key does not match the access key. Check the AWS credentials",
    "RequestTimeTooSkewed": "this machine's clock is wrong. Set it",
    "PermanentRedirect": "the bucket is in another region. Set CDI_AWS_REGION to the bucket's",
    "InvalidObjectState": "the object is archived. Restore it first",
    "SlowDown": "S3 still throttles our requests after all retries. Run again later",
}
_TRANSIENT_CODES = frozenset({"SlowDown", "RequestTimeout"})
_SERVER_ERROR = 500
_SAME_AS = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "RequestExpired": "ExpiredToken",
    "InvalidToken": "ExpiredToken",
    "301": "PermanentRedirect",
    "AuthorizationHeaderMalformed": "PermanentRedirect",
    "503": "SlowDown",
}


class S3Bucket:
    """A bucket, a prefix in it, and a client made at first use; pickled without the client.

    Args:
        root: `s3://bucket[/prefix]`.
        endpoint_url: for an S3 other than AWS's; None for boto3's configuration.
        region_name: None for this installation's.

    Raises:
        ValueError: the root is not of that form.
    """

    def __init__(self, root: str, *, endpoint_url: str | None, region_name: str | None) -> None:
        match = _ROOT.fullmatch(root.rstrip("/"))
        parts = (match["prefix"] or "").split("/") if match else []
        if match is None or any(part in (".", "..") for part in parts) or (len(parts) > 1 and "" in parts):
            raise ValueError(f"{root!r} is not an S3 root: write it as s3://bucket or s3://bucket/prefix.")
        self.root = root.rstrip("/")
        self.name = match["bucket"]
        self.base = f"{match['prefix']}/" if match["prefix"] else ""
        self._options = {"endpoint_url": endpoint_url, "region_name": region_name}
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None
        self._client_process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_client")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def uri(self, key: str) -> str:
        """Return the full URI of a key below the root."""
        return f"{self.root}/{key}"

    def full(self, key: str) -> str:
        """Return the key in the bucket of a key below the root."""
        return self.base + key

    @property
    def client(self) -> Any:
        """The boto3 S3 client of this process; a forked child makes its own, because sockets cannot be shared."""
        with self._lock:
            if self._client is None or self._client_process != os.getpid():
                try:
                    self._client = encrypt_writes(new_client("s3", config=_CONFIG, **self._options))
                except ValueError as error:
                    raise StorageUnavailableError(
                        f"No S3 client for {self.root}: {error}. Correct AWS_ENDPOINT_URL or CDI_AWS_REGION."
                    ) from error
                self._client_process = os.getpid()
            return self._client

    def call(self, operation: str, doing: str, key: str, **parameters: Any) -> dict[str, Any]:
        """Call an S3 operation on the bucket.

        Args:
            operation: the client's method, `get_object`.
            doing: the operation for the message: "read".
            key: key or prefix below the root, for the message.
            parameters: of the operation, without Bucket.

        Raises:
            StorageError: as `storage_error` maps it.
        """
        with self.storage_errors(doing, key):
            result: dict[str, Any] = getattr(self.client, operation)(Bucket=self.name, **parameters)
            return result

    def pages(self, operation: str, doing: str, key: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield every page of an S3 operation that has pages; arguments and errors as `call`."""
        with self.storage_errors(doing, key):
            yield from self.client.get_paginator(operation).paginate(Bucket=self.name, **parameters)

    @contextmanager
    def storage_errors(self, doing: str, key: str) -> Iterator[None]:
        """Turn boto's errors in the block into StorageErrors."""
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise storage_error(error, doing, self.uri(key)) from error


def storage_error(error: ClientError | BotoCoreError, doing: str, uri: str) -> StorageError:
    """Return the StorageError of an error of boto."""
    failed = f"Could not {doing} {uri}: "
    if not isinstance(error, ClientError):
        # Credentials missing, endpoint unreachable, timeouts: botocore's text names the endpoint, never a secret.
        unanswered = isinstance(error, (HTTPClientError, NoConnectionError))
        kind = TransientStorageError if unanswered else StorageUnavailableError
        return kind(f"{failed}{error} Check the AWS configuration and the network, then run again.")
    code = error.response.get("Error", {}).get("Code", "")
    code = _SAME_AS.get(code, code)
    if code in _MISSING:
        return ObjectMissingError(f"{failed}it is not there ({code}).")
    if code in _CHANGED:
        return ObjectChangedError(f"{failed}the object has changed ({code}).")
    transient = (
        code in _TRANSIENT_CODES or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _SERVER_ERROR
    )
    kind = TransientStorageError if transient else StorageUnavailableError
    if code in _FIXES:
        return kind(f"{failed}{_FIXES[code]} ({code}).")
    message = error.response.get("Error", {}).get("Message", "")
    return kind(f"{failed}S3 answered {code or 'without an error code'}: {message} Run again later.")


def code_of(error: StorageError) -> str:
    """Return S3's error code of a StorageError, "" if it has none."""
    cause = error.__cause__
    return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""


def access_denied(error: StorageError) -> bool:
    """Return whether S3 refused the request for want of a permission."""
    return code_of(error) in ("AccessDenied", "403")


def was_retried(error: StorageError) -> bool:
    """Return whether boto sent the request more than once: then our first try may have succeeded."""
    cause = error.__cause__
    return isinstance(cause, ClientError) and cause.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0


def etag_in(answer: dict[str, Any]) -> str:
    """Return an answer's ETag without its quotes."""
    return str(answer["ETag"]).strip('"')


def version_in(answer: dict[str, Any]) -> str | None:
    """Return an answer's version id; None where it names no lasting version ("null" is overwritten in place)."""
    version_id = answer.get("VersionId")
    return None if version_id in (None, "null") else str(version_id)
