"""The server of the local key service: wrapping of keys, TLS, the request handler, the threads.

It implements the Data Key Service's contract in its STANDALONE profile, which keeps nothing secret. Imported by
`demo.key_service` and by tests that make it misbehave.
"""

import base64
import binascii
import contextlib
import json
import logging
import secrets
import socket
import socketserver
import ssl
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

_log = logging.getLogger(__name__)

NOTICE = "Development key service, STANDALONE profile: no secrecy, never for production."
_MASTER_KEY_ID = "STANDALONE"
_DATA_KEY_BYTES = 16  # what the real service generates in this profile
_LONGEST_BODY_BYTES = 65_536  # a wrapped data key has some hundred characters
_HANDSHAKE_SECONDS = 10.0  # a connection that is silent for longer is not a client


def wrap_data_key(data_key: bytes) -> str:
    """Return the encrypted data key that this service (or a real one in the STANDALONE profile) unwraps."""
    return base64.b64encode(data_key[::-1]).decode("ascii")


def unwrap_data_key(encrypted_data_key: str) -> bytes:
    """Return the data key; ValueError where the text is empty or not strict base64."""
    try:
        wrapped = base64.b64decode(encrypted_data_key, validate=True)
    except binascii.Error as error:
        raise ValueError("the encrypted data key is not base64") from error
    if not wrapped:
        raise ValueError("the encrypted data key is empty")
    return wrapped[::-1]


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files for mutual TLS.

    Attributes:
        certificate: the server's certificate chain.
        private_key: its private key.
        ca: the authority whose client certificates are accepted.
    """

    certificate: str
    private_key: str
    ca: str

    def server_context(self) -> ssl.SSLContext:
        """Return a context that requires a client certificate; OSError (ssl.SSLError) if a file is unusable."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(self.certificate, self.private_key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class KeyServiceHandler(BaseHTTPRequestHandler):
    """Handles the requests of one connection one after another; answers JSON."""

    protocol_version = "HTTP/1.1"
    server_version = "cdi-development-key-service"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body are sent in one packet
    server: "KeyServiceServer"

    def do_POST(self) -> None:
        """Decrypt a data key: 200, or 400 if it cannot be decrypted."""
        body = self._body()
        if body is None:
            return
        address = urlsplit(self.path)
        if address.path != "/datakey/actions/decrypt":
            self.answer(404, {"error": f"No such path. {NOTICE}"})
            return
        query = parse_qs(address.query, keep_blank_values=True)
        self.decrypt(query.get("keyId", [""])[0], query.get("correlationId", ["NOT_SET"])[0], body)

    def decrypt(self, key_id: str, correlation_id: str, body: bytes) -> None:
        """Answer one decrypt request."""
        if self.server.latency_seconds:
            time.sleep(self.server.latency_seconds)
        known = key_id and key_id not in self.server.forgotten
        try:
            data_key = unwrap_data_key(body.decode("ascii")) if known else None
        except ValueError:  # not ASCII, not base64, empty
            data_key = None
        if data_key is None:
            why = "this is not a wrapped data key" if known else "its data key encryption key is not known here"
            self.answer(400, {"error": f"The data key cannot be decrypted: {why}."})
            return
        self.answer(
            200,
            {
                "dataKeyDecryptionKeyId": key_id,
                "plaintextDataKey": base64.b64encode(data_key).decode("ascii"),
                "correlationId": correlation_id,
            },
        )

    def do_GET(self) -> None:
        """Generate a data key, report health, or describe the service."""
        path = urlsplit(self.path).path
        if path == "/datakey":
            data_key = secrets.token_bytes(_DATA_KEY_BYTES)
            self.answer(
                201,
                {
                    "dataKeyEncryptionKeyId": _MASTER_KEY_ID,
                    "plaintextDataKey": base64.b64encode(data_key).decode("ascii"),
                    "ciphertextDataKey": wrap_data_key(data_key),
                },
            )
        elif path == "/healthcheck":
            parts = ("encryptionService", "masterKey", "dataKeyGenerator", "encryption", "decryption")
            self.answer(200, dict.fromkeys(parts, "OK") | {"trustedCertificates": {}})
        elif path == "/":
            self.answer(200, {"notice": NOTICE})
        else:
            self.answer(404, {"error": f"No such path. {NOTICE}"})

    def answer(self, status: int, value: Any) -> None:
        """Send one JSON answer."""
        payload = json.dumps(value).encode("ascii")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _body(self) -> bytes | None:
        """Return the request's body, or answer 411 or 413 and close the connection."""
        stated = self.headers.get("Content-Length", "")
        if stated.isdecimal() and int(stated) <= _LONGEST_BODY_BYTES:
            return self.rfile.read(int(stated))
        self.close_connection = True
        self.answer(413 if stated.isdecimal() else 411, {"error": "Send one encrypted data key with its length."})
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Log what http.server reports (never a body) at debug level."""
        _log.debug(format, *args)


class KeyServiceServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread per connection; TLS handshakes happen in that thread, so that a silent client blocks nobody."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[KeyServiceHandler], tls: ssl.SSLContext | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.tls = tls
        self.latency_seconds = 0.0
        self.forgotten: set[str] = set()
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end, the TLS handshake first."""
        connection = cast("socket.socket", request)
        if self.tls is not None:
            connection.settimeout(_HANDSHAKE_SECONDS)
            connection = self.tls.wrap_socket(connection, server_side=True)
            connection.settimeout(None)
        self._open.add(connection)
        try:
            super().finish_request(connection, client_address)
        finally:
            self._open.discard(connection)
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a refused handshake or a lost connection; the server continues."""
        _log.info("A connection from %s failed.", client_address[0], exc_info=True)

    def end_connections(self) -> None:
        """Close the open connections, which ends their threads."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
