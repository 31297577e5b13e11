"""An S3 in memory that costs little itself: what the coalescer uses of it, each response after a fixed latency.

`python -m benchmarks.stand_in_s3 PORT LATENCY_SECONDS` on loopback. Objects, conditions (If-Match, If-None-Match),
ranges, ListObjectsV2, DeleteObjects and multipart uploads; no authentication. moto takes several milliseconds of CPU a
request, so that it measures moto.
"""

import asyncio
import base64
import hashlib
import re
import sys
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

_PAGE = 1000
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}
REQUESTS_PATH = "/-/requests"
"""Responds with the number of requests since the last time, by operation, a line each; not an operation of S3."""


@dataclass(frozen=True)
class _Object:
    data: bytes
    etag: str
    crc32: str
    metadata: dict[str, str]
    modified: datetime


@dataclass
class _Upload:
    key: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request of HTTP; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """One response; `body` is sent even to HEAD's length header, but not to HEAD itself."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Objects:
    """The objects of all buckets, and what S3 does with them."""

    def __init__(self) -> None:
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _Upload] = {}
        self.counts: Counter[str] = Counter()

    def respond(self, request: Request) -> Response:
        """Carry out a request."""
        if request.path == REQUESTS_PATH:
            lines = "".join(f"{operation} {count}\n" for operation, count in sorted(self.counts.items()))
            self.counts.clear()
            return Response(200, lines.encode())
        bucket, _, key = request.path.lstrip("/").partition("/")
        operation = self._operation(request, has_key=bool(key))
        self.counts[operation] += 1
        response: Response = getattr(self, f"_{operation}")(request, f"{bucket}/{key}")
        return response

    def _operation(self, request: Request, *, has_key: bool) -> str:
        query = request.query
        if not has_key:
            if request.method == "GET":
                return "versioning" if "versioning" in query else "list_objects"
            return {"PUT": "create_bucket", "HEAD": "head_bucket", "POST": "delete_objects"}[request.method]
        if "uploads" in query:
            return "create_upload"
        if "uploadId" in query:
            of_upload = {"GET": "list_parts", "PUT": "upload_part", "POST": "complete_upload", "DELETE": "abort_upload"}
            return of_upload[request.method]
        return {"GET": "get_object", "HEAD": "head_object", "PUT": "put_object", "DELETE": "delete_object"}[
            request.method
        ]

    def _create_bucket(self, request: Request, path: str) -> Response:
        return Response(200)

    def _head_bucket(self, request: Request, path: str) -> Response:
        return Response(200)

    def _versioning(self, request: Request, path: str) -> Response:
        return _xml("VersioningConfiguration", "")

    def _get_object(self, request: Request, path: str) -> Response:
        found = self._objects.get(path)
        if found is None:
            return _error(404, "NoSuchKey")
        if request.headers.get("if-match", found.etag) != found.etag:
            return _error(412, "PreconditionFailed")
        headers = _describing(found)
        if "range" in request.headers:
            first = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(found.data) - 1}/{len(found.data)}"
            return Response(206, found.data[first:], headers)
        return Response(200, found.data, headers | {"x-amz-checksum-crc32": found.crc32})

    def _head_object(self, request: Request, path: str) -> Response:
        return self._get_object(request, path)

    def _put_object(self, request: Request, path: str) -> Response:
        present = self._objects.get(path)
        if "if-none-match" in request.headers and present is not None:
            return _error(412, "PreconditionFailed")
        if "if-match" in request.headers and (present is None or present.etag != request.headers["if-match"]):
            return _error(412, "PreconditionFailed") if present else _error(404, "NoSuchKey")
        return Response(200, b"", _describing(self._put(path, request.body, _metadata(request))))

    def _put(self, path: str, data: bytes, metadata: dict[str, str]) -> _Object:
        crc32 = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self._objects[path] = _Object(data, etag, crc32, metadata, datetime.now(UTC))
        return self._objects[path]

    def _delete_object(self, request: Request, path: str) -> Response:
        self._objects.pop(path, None)
        return Response(204)

    def _delete_objects(self, request: Request, path: str) -> Response:
        for key in _KEY.findall(request.body):
            self._objects.pop(path + _unescaped(key.decode()), None)
        return _xml("DeleteResult", "")

    def _list_objects(self, request: Request, path: str) -> Response:
        after = unquote(request.query.get("continuation-token", ""))
        if start_after := request.query.get("start-after", ""):
            after = max(after, f"{path}{start_after}")
        prefix = path + request.query.get("prefix", "")
        keys = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
        page = keys[: int(request.query.get("max-keys", _PAGE))]
        rows = "".join(self._row(key, path) for key in page)
        more = len(page) < len(keys)
        token = f"<NextContinuationToken>{escape(quote(page[-1]))}</NextContinuationToken>" if more else ""
        return _xml("ListBucketResult", f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}")

    def _row(self, key: str, path: str) -> str:
        found = self._objects[key]
        return (
            f"<Contents><Key>{quote(key.removeprefix(path))}</Key><Size>{len(found.data)}</Size>"
            f"<ETag>{escape(found.etag)}</ETag><LastModified>{found.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            "</Contents>"
        )

    def _create_upload(self, request: Request, path: str) -> Response:
        upload_id = uuid.uuid4().hex
        self._uploads[upload_id] = _Upload(path, _metadata(request))
        return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")

    def _upload_part(self, request: Request, path: str) -> Response:
        upload = self._uploads.get(request.query["uploadId"])
        if upload is None:
            return _error(404, "NoSuchUpload")
        upload.parts[int(request.query["partNumber"])] = request.body
        etag = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
        return Response(200, b"", {"ETag": f'"{etag}"'})

    def _list_parts(self, request: Request, path: str) -> Response:
        is_there = request.query["uploadId"] in self._uploads
        return _xml("ListPartsResult", "") if is_there else _error(404, "NoSuchUpload")

    def _complete_upload(self, request: Request, path: str) -> Response:
        if "if-none-match" in request.headers and path in self._objects:
            return _error(412, "PreconditionFailed")
        upload = self._uploads.pop(request.query["uploadId"], None)
        if upload is None:
            return _error(404, "NoSuchUpload")
        stored = self._put(path, b"".join(upload.parts[number] for number in sorted(upload.parts)), upload.metadata)
        return _xml("CompleteMultipartUploadResult", f"<ETag>{escape(stored.etag)}</ETag>")

    def _abort_upload(self, request: Request, path: str) -> Response:
        self._uploads.pop(request.query["uploadId"], None)
        return Response(204)


def _describing(stored: _Object) -> dict[str, str]:
    return {"ETag": stored.etag, "Last-Modified": format_datetime(stored.modified, usegmt=True), **stored.metadata}


def _metadata(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}


def _xml(name: str, content: str) -> Response:
    body = f'<?xml version="1.0"?><{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{content}</{name}>'
    return Response(200, body.encode(), {"Content-Type": "application/xml"})


def _error(status: int, code: str) -> Response:
    return Response(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())


def _unescaped(text: str) -> str:
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    return text


class _Connection(asyncio.Protocol):
    """One connection: requests in, responses out after the latency, in order."""

    def __init__(self, objects: Objects, latency_seconds: float) -> None:
        self._objects, self._latency_seconds = objects, latency_seconds
        self._received = bytearray()
        self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP connection
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while request := self._next():
            response = self._objects.respond(request)
            content = _on_the_wire(request.method, response)
            asyncio.get_running_loop().call_later(self._latency_seconds, self._transport.write, content)

    def _next(self) -> Request | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "expect" in headers and not self._continued:
            self._continued = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(headers.get("content-length", 0))
        if len(self._received) < end + 4 + length:
            return None
        body = bytes(self._received[end + 4 : end + 4 + length])
        del self._received[: end + 4 + length]
        self._continued = False
        method, target, _ = first.split(" ")
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        return Request(method, unquote(parts.path), query, headers, body)


def _on_the_wire(method: str, response: Response) -> bytes:
    headers = {"Content-Length": str(len(response.body)), "x-amz-request-id": "0", **response.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {response.status} X\r\nDate: {format_datetime(datetime.now(UTC), usegmt=True)}\r\n{lines}\r\n"
    return head.encode("latin-1") + (b"" if method == "HEAD" else response.body)


async def serve(port: int, latency_seconds: float) -> None:
    """Serve on loopback until the process ends; print the port once it listens."""
    objects = Objects()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(objects, latency_seconds), "127.0.0.1", port
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(argv: Iterable[str]) -> None:
    """Run the server."""
    port, latency_seconds = argv
    asyncio.run(serve(int(port), float(latency_seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
