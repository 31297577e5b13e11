"""moto as its servers here run it, with what S3 promises and moto lacks: a conditional write looks and writes at once.

In moto two writers that were both shown an ETag may both replace it, and one write is lost (5 of 320 of eight threads).
"""

from collections.abc import Iterable
from contextlib import nullcontext
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

_conditional_writes = Lock()


class MotoApplication(DomainDispatcherApplication):
    """All services of moto as one WSGI application; conditional writes come one after another."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        is_write = environ["REQUEST_METHOD"] not in ("GET", "HEAD")
        is_conditional = "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ
        with _conditional_writes if is_write and is_conditional else nullcontext():
            answer: Iterable[bytes] = super().__call__(environ, start_response)
        return answer
