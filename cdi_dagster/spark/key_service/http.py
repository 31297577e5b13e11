"""Requests one data key over HTTP: the request, the meaning of each response and error, and the retries.

No cache and no threads here (`client` has them; only it imports this module). No message made here holds a response
body or an encrypted data key. Rules of the service: 200 the data key; 400 it cannot be decrypted; 403 our certificate
is revoked; 503 try again.
"""

import base64
import binascii
import logging
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from urllib3 import exceptions as http_errors
from urllib3.connection import HTTPSConnection

from cdi_dagster.aws.secrets import SecretError
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.key_service.config import KeyServiceConfig
from cdi_dagster.spark.key_service.tls import tls_context
from cdi_dagster.spark.records.keys import KeyRef

_log = logging.getLogger(__name__)

_HEADERS = {"Content-Type": "text/plain; charset=utf-8", "Accept": "application/json"}
_LONGEST_ANSWER_BYTES = 65_536  # a valid response has some 200
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 5.0
_jitter = wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS)
_SHORTEST_TRY_SECONDS = 1.0  # for a last try at the end of the budget
_QUIET_SECONDS = 10.0  # an outage is logged this often, not once for every try of every key
_RETRIED_STATUSES = frozenset({408, 425, 429})  # and every 5xx

# Transient TLS errors; every other TLS error is a refusal, and a retry does not help.
_TRANSIENT_TLS_REASONS = ("INTERNAL_ERROR", "USER_CANCELLED", "BAD_RECORD_MAC", "DECRYPTION_FAILED", "UNEXPECTED_EOF")
_TRANSIENT_TLS_ERRORS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

Sleep = Callable[[float], None]
Clock = Callable[[], float]


class _Connection(HTTPSConnection):
    """Reads the reason of a TLS refusal.

    In TLS 1.3 the service checks our certificate after our side of the handshake is done. It may have closed the
    connection by then: our request cannot be sent (two times in three), and its alert with the reason is still unread.
    """

    def request(self, *args: Any, **options: Any) -> None:
        try:
            super().request(*args, **options)
        except ssl.SSLEOFError:
            if self.sock is not None:
                self.sock.recv(1)  # raises the alert, if there is one
            raise


class _TransientError(Exception):
    """This request failed, but a retry may succeed. The message says how it failed."""


class KeyServiceHttp:
    """Requests one data key at a time from the key service, over kept connections. Thread-safe."""

    def __init__(self, config: KeyServiceConfig, *, sleep: Sleep = time.sleep, clock: Clock = time.monotonic) -> None:
        self._config = config
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._logged_at: float | None = None
        parts = urlsplit(config.url)
        self.host = parts.netloc
        self._path = f"{parts.path.rstrip('/')}/datakey/actions/decrypt"
        self._correlation_id = quote(config.correlation_id, safe="")

    def decrypt(
        self, ref: KeyRef, *, given_up: Callable[[], bool] = lambda: False, on_retry: Callable[[], None] = lambda: None
    ) -> bytes | None:
        """Return a data key, or None where the service answers that it cannot decrypt it.

        The length of the key is not checked here: a key that AES cannot use is a reject of the record.

        Args:
            ref: the key to request.
            given_up: called before every retry; True ends them.
            on_retry: called for every retry.

        Raises:
            CdiError: DKS_UNAVAILABLE when the budget is used up, DKS_FORBIDDEN at once, JOB_FAILED at once where the
                address is not a key service's.
        """
        started = self._clock()
        deadline = started + self._config.retry_budget_seconds
        try:
            return self._request(ref, deadline)
        except _TransientError as error:
            # Only now, because setting up tenacity costs as much as a response.
            return self._retry(ref, started, deadline, error, given_up, on_retry)

    def _retry(
        self,
        ref: KeyRef,
        started: float,
        deadline: float,
        first: _TransientError,
        given_up: Callable[[], bool],
        on_retry: Callable[[], None],
    ) -> bytes | None:
        """Retry after a first failure, as `decrypt`."""
        known = [first]
        tries = 1

        def request() -> bytes | None:
            if known:
                raise known.pop()
            return self._request(ref, deadline)

        def is_over(state: RetryCallState) -> bool:
            return given_up() or self._clock() >= deadline

        def wait(state: RetryCallState) -> float:
            return min(_jitter(state), max(deadline - self._clock(), 0.0))

        def before_sleep(state: RetryCallState) -> None:
            nonlocal tries
            tries = state.attempt_number + 1
            on_retry()
            self._log_failure(state)

        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            wait=wait,
            stop=is_over,
            before_sleep=before_sleep,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(request)
        except _TransientError as error:
            seconds = self._clock() - started
            times = "1 try" if tries == 1 else f"{tries} tries"
            raise CdiError(
                FailureClass.DKS_UNAVAILABLE,
                f"The key service at {self.host} gave no data key in {seconds:.0f} s and {times}; "
                f"the last error: {error}.",
                detail={"host": self.host, "tries": tries, "seconds": round(seconds, 3), "last_trouble": str(error)},
            ) from error

    def close(self) -> None:
        """Close the kept connections; a later call opens new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _request(self, ref: KeyRef, deadline: float) -> bytes | None:
        """Send one request. Raises _TransientError where a retry may help, else CdiError."""
        left = max(deadline - self._clock(), _SHORTEST_TRY_SECONDS)
        config = self._config
        timeout = urllib3.Timeout(
            connect=min(config.connect_timeout_seconds, left), read=min(config.read_timeout_seconds, left)
        )
        failure: Exception
        try:
            status, payload = self._post(ref, timeout)
        except http_errors.SSLError as error:
            failure = self._tls_failure(error)
        except http_errors.HTTPError as error:
            failure = _TransientError(_describe(error, timeout))
        else:
            return self._meaning(status, payload)
        raise failure  # not in the handlers: an error of urllib3 may hold the response's bytes and would be chained

    def _post(self, ref: KeyRef, timeout: urllib3.Timeout) -> tuple[int, bytes]:
        """Return the status and the body (cut at a length that no valid response reaches)."""
        key_id = quote(ref.key_encryption_key_id, safe="")
        response = self._connections().urlopen(
            "POST",
            f"{self._path}?keyId={key_id}&correlationId={self._correlation_id}",
            body=ref.encrypted_data_key.encode(),
            headers=_HEADERS,
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
        )
        payload = response.read(_LONGEST_ANSWER_BYTES)
        if len(payload) == _LONGEST_ANSWER_BYTES:
            response.close()  # there may be gigabytes more
        response.release_conn()
        return response.status, payload

    def _meaning(self, status: int, payload: bytes) -> bytes | None:
        if status == 200:
            data_key = _data_key(payload)
            if data_key is None:
                raise _TransientError("it answered 200 but not a data key")
            return data_key
        if status == 400:
            return None
        if status >= 500 or status in _RETRIED_STATUSES:
            raise _TransientError(f"it answered {status}")
        if status in (401, 403):
            raise self._forbidden(f"The key service at {self.host} refused us: it answered {status}.")
        raise CdiError(
            FailureClass.JOB_FAILED,
            f"{self.host} answered {status} to {self._path}: this is not where the key service is.",
            next_step="Check dks_url (CDI_DKS_URL): the base URL, without /datakey; then run again.",
            detail={"host": self.host, "status": status},
        )

    def _tls_failure(self, error: http_errors.SSLError) -> Exception:
        """Distinguish a transient TLS error from a refusal, and who refused whom."""
        cause = error.args[0] if error.args else error
        reason = getattr(cause, "reason", None) or ""
        text = getattr(cause, "verify_message", None) or reason or type(cause).__name__
        if isinstance(cause, _TRANSIENT_TLS_ERRORS) or any(transient in reason for transient in _TRANSIENT_TLS_REASONS):
            return _TransientError(f"the TLS connection was lost ({text})")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return self._forbidden(
                f"We do not trust the certificate of the key service at {self.host}: {text}.",
                next_step="Check the authority in dks_ca and the host name in dks_url against the service's "
                "certificate, then run the day again.",
            )
        return self._forbidden(f"The key service at {self.host} and we could not agree on TLS: {text}.")

    def _forbidden(self, cause: str, next_step: str | None = None) -> CdiError:
        return CdiError(FailureClass.DKS_FORBIDDEN, cause, next_step=next_step, detail={"host": self.host})

    def _connections(self) -> urllib3.HTTPConnectionPool:
        with self._lock:
            if self._pool is None:
                self._pool = self._open_pool()
            return self._pool

    def _open_pool(self) -> urllib3.HTTPConnectionPool:
        parts = urlsplit(self._config.url)
        host = parts.hostname or ""
        size = self._config.max_concurrency
        if parts.scheme == "http":
            return urllib3.HTTPConnectionPool(host, parts.port, maxsize=size)
        pool = urllib3.HTTPSConnectionPool(host, parts.port, maxsize=size, ssl_context=self._tls_context())
        pool.ConnectionCls = _Connection
        return pool

    def _tls_context(self) -> ssl.SSLContext:
        config = self._config
        try:
            return tls_context(config)
        except SecretError as error:
            if error.is_transient:
                raise _TransientError(str(error)) from error
            raise self._forbidden(
                f"The TLS files for the key service cannot be used: {error}.",
                next_step="Check the reference in dks_ca, dks_certificate or dks_private_key, and that the cluster's "
                "instance role may read the secret (secretsmanager:GetSecretValue; kms:Decrypt of its key); then run "
                "the day again.",
            ) from error
        except OSError as error:  # ssl.SSLError is one
            why = getattr(error, "reason", None) or error.strerror or type(error).__name__
            paths = ", ".join(path for path in (config.ca, config.certificate, config.private_key) if path)
            raise self._forbidden(
                f"The TLS files for the key service cannot be used: {why} ({paths}).",
                next_step="Check dks_ca, dks_certificate and dks_private_key: PEM, readable where the Spark job runs, "
                "the key not encrypted and of that certificate; then run the day again.",
            ) from error

    def _log_failure(self, state: RetryCallState) -> None:
        now = self._clock()
        with self._lock:
            if self._logged_at is not None and now - self._logged_at < _QUIET_SECONDS:
                return
            self._logged_at = now
        error = state.outcome.exception() if state.outcome else None
        _log.warning(
            "Key service %s: %s; try %d in %.1f s (correlation id %s).",
            self.host,
            error,
            state.attempt_number + 1,
            state.upcoming_sleep,
            self._config.correlation_id,
        )


def _data_key(payload: bytes) -> bytes | None:
    """Return the data key of a 200 response; None where it has none. Lenient base64, as in the record contract."""
    try:
        return base64.b64decode(orjson.loads(payload)["plaintextDataKey"]) or None
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None  # and no chained error: it may quote the response


def _describe(error: http_errors.HTTPError, timeout: urllib3.Timeout) -> str:
    if isinstance(error, http_errors.NameResolutionError):
        return "its name does not resolve"
    if isinstance(error, http_errors.NewConnectionError):
        reason = getattr(error.__cause__, "strerror", None) or "no connection"
        return str(reason).lower()
    if isinstance(error, http_errors.ConnectTimeoutError):
        return f"no connection within {timeout.connect_timeout:.1f} s"
    if isinstance(error, http_errors.TimeoutError):
        return f"no answer within {timeout.read_timeout:.1f} s"
    inner = error.args[1] if len(error.args) > 1 else error
    return f"the connection was lost ({type(inner).__name__})"
