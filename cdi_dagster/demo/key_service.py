"""A local key service for development and tests: the Data Key Service's contract in its STANDALONE profile.

It keeps nothing secret: an encrypted data key is the data key with its bytes reversed, base64. It serves loopback by
default, over HTTP or over TLS with required client certificates. Keys are never logged. Not for production: only
`cdi dks`, the demo and tests use it. `key_service_server` answers the requests.
"""

import json
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import ClassVar, Self

import click

from cdi_dagster.core.loopback import is_loopback
from cdi_dagster.demo.key_service_server import (
    NOTICE,
    KeyServiceHandler,
    KeyServiceServer,
    TlsFiles,
    unwrap_data_key,
    wrap_data_key,
)

__all__ = ["DevelopmentKeyService", "TlsFiles", "dks_command", "is_loopback", "unwrap_data_key", "wrap_data_key"]

_FILE = click.Path(exists=True, dir_okay=False, readable=True)


class DevelopmentKeyService:
    """The local key service, running in threads of this process while its `with` block lasts.

    Args:
        port: TCP port; 0 takes a free one.
        tls: serve HTTPS and require client certificates; None serves plain HTTP.
        host: address to listen on.
        latency_seconds: added to every decryption.
        forget: data key encryption keys (`keyId`) for whose data keys it answers 400.

    Raises:
        OSError: the address is taken or not ours, or a TLS file is unusable.
    """

    handler_class: ClassVar[type[KeyServiceHandler]] = KeyServiceHandler

    def __init__(
        self,
        port: int = 0,
        tls: TlsFiles | None = None,
        host: str = "127.0.0.1",
        *,
        latency_seconds: float = 0.0,
        forget: Iterable[str] = (),
    ) -> None:
        context = None if tls is None else tls.server_context()
        self._host = host
        self._server = KeyServiceServer((host, port), self.handler_class, context)
        self._server.latency_seconds = latency_seconds
        self._server.forgotten.update(forget)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="key-service", daemon=True
        )

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The base URL for clients."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._server.tls is None else 'https'}://{host}:{self.port}"

    def forget(self, key_id: str) -> None:
        """Answer 400 for the data keys under this `keyId` from now on."""
        self._server.forgotten.add(key_id)

    def restore(self, key_id: str) -> None:
        """Undo `forget`."""
        self._server.forgotten.discard(key_id)

    def close(self) -> None:
        """Stop listening and close the open connections. May be called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.end_connections()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@click.command("dks", short_help="Run the local key service (development only).")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--certificate", type=_FILE, help="Server certificate chain (PEM). With all three files: mutual TLS.")
@click.option("--private-key", type=_FILE, help="Private key of the certificate (PEM).")
@click.option("--ca", type=_FILE, help="Authority whose client certificates are accepted (PEM).")
@click.option("--latency-milliseconds", default=0.0, type=click.FloatRange(min=0), help="Added to every decryption.")
@click.option("--forget", "forget", metavar="KEYID", multiple=True, help="Answer 400 for this keyId; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the ready line as JSON.")
def dks_command(
    port: int,
    host: str,
    certificate: str | None,
    private_key: str | None,
    ca: str | None,
    latency_milliseconds: float,
    forget: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the local key service until Ctrl-C or SIGTERM. For development and tests only.

    It implements the Data Key Service's contract in its STANDALONE profile, which keeps nothing secret: an encrypted
    data key is the data key with its bytes reversed. Never use it for real data.
    """
    tls = _tls_files(certificate, private_key, ca)
    if not is_loopback(host):
        click.echo(f"Warning: {host} can be reached from other machines, and this service keeps no secret.", err=True)
    try:
        service = DevelopmentKeyService(port, tls, host, latency_seconds=latency_milliseconds / 1000, forget=forget)
    except OSError as error:
        raise click.ClickException(
            f"JOB_FAILED: the key service cannot serve {host}:{port}: {error}. "
            "Next: choose another --port or --host, or check the TLS files."
        ) from error
    with _stop_signal() as stop, service:
        ready = {"url": service.url, "profile": "STANDALONE"}
        click.echo(json.dumps(ready) if as_json else f"{service.url}  {NOTICE}")
        stop.wait()


def _tls_files(certificate: str | None, private_key: str | None, ca: str | None) -> TlsFiles | None:
    if certificate and private_key and ca:
        return TlsFiles(certificate=certificate, private_key=private_key, ca=ca)
    if certificate or private_key or ca:
        raise click.UsageError("Give --certificate, --private-key and --ca together (mutual TLS), or none of them.")
    return None


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set, so that the service closes cleanly."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
