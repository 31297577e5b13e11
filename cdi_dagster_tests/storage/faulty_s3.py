"""S3 as it is on a bad day: a proxy that cuts connections, and a server with one fixed answer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from cdi_dagster_tests.waiting import PATIENCE_SECONDS

Cut = Callable[[str, str, int], int | None]


_DENIED = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"


class Proxy:
    """Passes requests on to an S3 server; `cut(method, path, count)` returns after how many bytes of body to hang up.

    What has one of `denied` in its method and path is answered with AccessDenied. Request headers that begin with
    `dropped` do not reach the server.

    Attributes:
        requests: method, path and Range header of every request, in order.
    """

    def __init__(
        self,
        endpoint: str,
        cut: Cut = lambda method, path, count: None,
        *,
        denied: Sequence[str] = (),
        dropped: str = "none are",
    ) -> None:
        self.requests: list[tuple[str, str, str | None]] = []
        self.between: Callable[[], None] = lambda: None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if any(part in f"{self.command} {self.path}" for part in denied):
                    self.send_response(403)
                    self.send_header("Content-Length", str(len(_DENIED)))
                    self.end_headers()
                    self.wfile.write(_DENIED)
                    return
                connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=PATIENCE_SECONDS)
                headers = {name: v for name, v in self.headers.items() if not name.lower().startswith(dropped)}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                cut_at = cut(self.command, self.path, len(proxy.requests))
                proxy.requests.append((self.command, self.path, self.headers.get("Range")))
                if cut_at == 0:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data[:cut_at])
                if cut_at is not None:
                    self.wfile.flush()
                    proxy.between()
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def fixed_answer(status: int, body: str) -> Iterator[str]:
    """Yield the URL of a server that answers every request alike."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
