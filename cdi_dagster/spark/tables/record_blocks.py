"""The lines of a part of published records, in blocks to parse at once. Also used where there is no Spark."""

from collections.abc import Iterator
from contextlib import closing

from cdi_dagster.published.mark import PublishedPart
from cdi_dagster.spark.ingest.gunzip import Gunzip
from cdi_dagster.storage import Storage


def record_blocks(storage: Storage, part: PublishedPart) -> Iterator[bytes]:
    """Yield the text of a part in blocks of whole lines, of some 256 kB unless a record is longer."""
    with closing(storage.open(part.key)) as stream:
        pending: list[bytes] = []
        for chunk in Gunzip(stream, part.key).chunks():
            if chunk is None:
                continue
            end = chunk.rfind(b"\n") + 1
            if not end:
                pending.append(chunk)
                continue
            yield b"".join([*pending, chunk[:end]])
            pending = [chunk[end:]]
        rest = b"".join(pending)
        if rest:
            yield rest + b"\n"
