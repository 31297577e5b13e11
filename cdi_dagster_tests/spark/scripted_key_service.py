"""A real key service on loopback that misbehaves as scripted, and certificates that it accepts or refuses.

For tests only. Faults live here and not in the shipped service.
"""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import trustme

from cdi_dagster.demo.key_service import DevelopmentKeyService, TlsFiles
from cdi_dagster.demo.key_service_server import KeyServiceHandler
from cdi_dagster.spark.key_service.client import KeyServiceConfig
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

Behaviour = Callable[["ScriptedHandler"], None]


class ScriptedHandler(KeyServiceHandler):
    """Takes the next behaviour of the script for each decryption; the ordinary answer when the script is over."""

    request_id: tuple[str, str, bytes]

    def decrypt(self, key_id: str, correlation_id: str, body: bytes) -> None:
        script = cast("ScriptedKeyService", self.server.owner)  # type: ignore[attr-defined]
        self.request_id = (key_id, correlation_id, body)
        with script.lock:
            script.requests.append(self.request_id)
            script.peers.add(self.client_address[1])
            behaviour = script.behaviours.pop(0) if script.behaviours else script.afterwards
            script.now += 1
            script.most_at_once = max(script.most_at_once, script.now)
        try:
            behaviour(self)
        finally:
            with script.lock:
                script.now -= 1

    def as_usual(self) -> None:
        super().decrypt(*self.request_id)


class ScriptedKeyService(DevelopmentKeyService):
    """Attributes: its requests, over how many connections, and how many at once at most."""

    handler_class = ScriptedHandler

    def __init__(
        self,
        *behaviours: Behaviour,
        afterwards: Behaviour = ScriptedHandler.as_usual,
        tls: TlsFiles | None = None,
        latency_seconds: float = 0.0,
    ) -> None:
        super().__init__(tls=tls, latency_seconds=latency_seconds)
        self._server.owner = self  # type: ignore[attr-defined]
        self.lock = threading.Lock()
        self.behaviours = list(behaviours)
        self.afterwards = afterwards
        self.requests: list[tuple[str, str, bytes]] = []
        self.peers: set[int] = set()
        self.now = self.most_at_once = 0


def status(code: int) -> Behaviour:
    return lambda handler: handler.answer(code, {"error": "scripted"})


def answer(value: object) -> Behaviour:
    return lambda handler: handler.answer(200, value)


def slow(seconds: float) -> Behaviour:
    def behave(handler: ScriptedHandler) -> None:
        time.sleep(seconds)
        handler.as_usual()

    return behave


def together(number: int) -> Behaviour:
    """Answer as usual once so many requests are here at the same time, however long that takes."""
    all_here = threading.Barrier(number)

    def behave(handler: ScriptedHandler) -> None:
        all_here.wait(PATIENCE_SECONDS)
        handler.as_usual()

    return behave


def raw(payload: bytes) -> Behaviour:
    """Send exactly these bytes and end the connection."""

    def behave(handler: ScriptedHandler) -> None:
        handler.wfile.write(payload)
        handler.close_connection = True

    return behave


def reset(before: bytes = b"") -> Behaviour:
    """Reset the connection (RST), in the middle of an answer where `before` is the beginning of one."""

    def behave(handler: ScriptedHandler) -> None:
        handler.wfile.write(before)
        handler.wfile.flush()
        time.sleep(0.02)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.rfile.close()
        handler.close_connection = True

    return behave


def chunked(payload: bytes) -> Behaviour:
    """Answer as many Java servers do: in chunks, without a length, the connection kept."""

    def behave(handler: ScriptedHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 \r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (payload[:7], payload[7:]):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    return behave


@contextmanager
def breaking_off_handshakes(times: int) -> Iterator[int]:
    """A port that accepts and hangs up before any TLS, so many times, and is gone after that."""
    listener = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        for _ in range(times):
            connection, _ = listener.accept()
            connection.recv(1)
            connection.close()
        listener.close()

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


class Certificates:
    """Two authorities, ours and a stranger, and what they issued, as PEM files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ours = trustme.CA()
        self._stranger = trustme.CA()
        self.ca = self._pem("ca", self._ours.cert_pem)
        self.stranger_ca = self._pem("stranger-ca", self._stranger.cert_pem)
        self.client = self._issue("client", self._ours, "spark-worker")
        self.stranger_client = self._issue("stranger-client", self._stranger, "spark-worker")
        self.server_tls = self._server("server", "127.0.0.1")
        self.other_name_tls = self._server("other", "dks.example.test")

    def config(self, service: DevelopmentKeyService, **changes: object) -> KeyServiceConfig:
        """A configuration that the service accepts, except for the changes."""
        values = {
            "url": service.url,
            "correlation_id": "run-1",
            "ca": self.ca,
            "certificate": self.client[0],
            "private_key": self.client[1],
            **changes,
        }
        return KeyServiceConfig(**values)  # type: ignore[arg-type]

    def _server(self, name: str, identity: str) -> TlsFiles:
        certificate, private_key = self._issue(name, self._ours, identity)
        return TlsFiles(certificate=certificate, private_key=private_key, ca=self.ca)

    def _issue(self, name: str, authority: trustme.CA, identity: str) -> tuple[str, str]:
        issued = authority.issue_cert(identity)
        certificate = self._folder / f"{name}.pem"
        for blob in issued.cert_chain_pems:
            blob.write_to_path(certificate, append=True)
        return str(certificate), self._pem(f"{name}-key", issued.private_key_pem)

    def _pem(self, name: str, blob: trustme.Blob) -> str:
        path = self._folder / f"{name}.pem"
        blob.write_to_path(path)
        return str(path)


def older_tls(tls: TlsFiles) -> ssl.SSLContext:
    """A server context that ends at TLS 1.2, where a refused certificate shows in the handshake itself."""
    context = tls.server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
