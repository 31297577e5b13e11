"""moto as its servers here run it, with what S3 does and moto does not.

A conditional write looks and writes at once: in moto two writers that were both shown an ETag may both replace it, and
one write is lost (5 of 320 of eight threads). A range is copied only from an object of more than 5 MB.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from threading import Lock
from typing import Any
from urllib.parse import unquote

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends

_conditional_writes = Lock()
_RANGES_ARE_COPIED_ABOVE_BYTES = 5 * 1024 * 1024
_RANGE_REFUSED = (
    b"<Error><Code>InvalidRequest</Code>"
    b"<Message>The specified copy source is not supported as a byte-range copy source</Message></Error>"
)


class MotoApplication(DomainDispatcherApplication):
    """All services of moto as one WSGI application, with conditional writes and copies of ranges as S3 has them."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        if "HTTP_X_AMZ_COPY_SOURCE_RANGE" in environ and _is_small(environ["HTTP_X_AMZ_COPY_SOURCE"]):
            start_response("400 Bad Request", [("Content-Type", "application/xml")])
            return [_RANGE_REFUSED]
        is_write = environ["REQUEST_METHOD"] not in ("GET", "HEAD")
        is_conditional = "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ
        with _conditional_writes if is_write and is_conditional else nullcontext():
            answer: Iterable[bytes] = super().__call__(environ, start_response)
        return answer


def _is_small(copy_source: str) -> bool:
    bucket, _, key = unquote(copy_source.partition("?")[0]).lstrip("/").partition("/")
    source = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].head_object(bucket, key)
    return source is not None and source.size <= _RANGES_ARE_COPIED_ABOVE_BYTES
