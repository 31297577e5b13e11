"""The webhook that alerts are posted to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Heard:
    """What was posted."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    def of(self, kind: str, **values: object) -> list[dict[str, Any]]:
        """Return the alerts of a kind with these values, oldest first; of a storage day those that name it."""
        wanted = {"kind": kind, **{name: str(value) for name, value in values.items()}}
        day = wanted.pop("storage_day", None)
        found = [alert for alert in self.alerts if wanted.items() <= alert.items()]
        return [alert for alert in found if day is None or day in alert.get("storage_days", [])]


@contextmanager
def hearing(*answers: int) -> Iterator[Heard]:
    """Hear what is posted; answer with these statuses first, then 200."""
    heard, statuses = Heard(), iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.headers.append(dict(self.headers))
            heard.alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(next(statuses, 200))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
