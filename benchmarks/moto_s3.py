"""moto's S3 on loopback, each response after a fixed latency: `python -m benchmarks.moto_s3 PORT LATENCY_SECONDS`.

A full S3, at several milliseconds of CPU a request: `stand_in_s3` measures us, this one mostly itself.
"""

import sys
import time
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Silent(WSGIRequestHandler):
    """Logs no request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def main(argv: Iterable[str]) -> None:
    """Serve until the process ends; print the port once it listens."""
    port, latency_seconds = argv
    moto = DomainDispatcherApplication(create_backend_app)

    def late(environ: Any, start_response: Any) -> Any:
        time.sleep(float(latency_seconds))
        return moto(environ, start_response)

    server = make_server("127.0.0.1", int(port), late, threaded=True, request_handler=_Silent)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
