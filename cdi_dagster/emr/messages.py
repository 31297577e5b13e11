"""How the job's messages travel: Dagster Pipes over objects under the published root.

Their keys are deterministic and kept, one folder for each attempt: a process that takes over a launch reads the same
messages from the first chunk on, and a retry never mixes with the attempt before it.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
from dagster import PipesContextInjector, PipesMessageReader
from dagster_pipes import PipesBlobStoreMessageWriter, PipesContextData, PipesParams

from cdi_dagster.core.log_lines import scrub
from cdi_dagster.storage.interface import ObjectExistsError, ObjectMissingError, Storage


class StorageContextInjector(PipesContextInjector):
    """Writes the Pipes context to an object, once: whoever takes over leaves what the job may be reading."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage = storage
        self._key = key

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Iterator[PipesParams]:
        """Write the context; yield where it is."""
        try:
            self._storage.write(self._key, json.dumps(context_data).encode(), if_absent=True)
        except ObjectExistsError:
            pass
        bucket, key = bucket_and_key(self._storage.uri(self._key))
        yield {"bucket": bucket, "key": key}

    def no_messages_debug_text(self) -> str:
        """Return where the context was."""
        return f"The job was to read its Pipes context from {self._storage.uri(self._key)}."


class StorageMessageReader(PipesMessageReader):
    """Reads what `PipesS3MessageWriter` wrote: every chunk that waits, whenever `poll` is called. Has no thread."""

    def __init__(self, storage: Storage, prefix: str, *, live_stdio: bool) -> None:
        """Begin before the first chunk.

        Args:
            storage: the published root.
            prefix: of the chunks, without an ending.
            live_stdio: have the job send what its Python process writes to stdout and stderr, too.
        """
        self._storage = storage
        self._prefix = prefix
        self._live_stdio = live_stdio
        self._next_chunk = 1
        self._handler: Any = None

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[PipesParams]:
        """Yield where the messages go; what was not polled until the end is polled then."""
        self._handler = handler
        bucket, key = bucket_and_key(self._storage.uri(self._prefix))
        yield {
            "bucket": bucket,
            "key_prefix": key,
            PipesBlobStoreMessageWriter.INCLUDE_STDIO_IN_MESSAGES_KEY: self._live_stdio,
        }

    def poll(self) -> None:
        """Handle every chunk that is there. Raises StorageError where the storage cannot be read."""
        while True:
            try:
                chunk = self._storage.read(f"{self._prefix}/{self._next_chunk}.json")
            except ObjectMissingError:
                return
            self._next_chunk += 1
            for line in chunk.decode("utf-8", errors="replace").split("\n"):
                self._handle(line)

    def _handle(self, line: str) -> None:
        try:
            message = json.loads(line)
            if message["method"] == "log_external_stream":
                _show(message["params"])
            else:
                self._handler.handle_message(message)
        except (ValueError, KeyError, TypeError, dg.DagsterError):
            # One damaged message must not end a run whose job goes on; a missing report is noticed at the end.
            print("A message of the Spark job could not be parsed; it was skipped.", file=sys.stderr)

    def no_messages_debug_text(self) -> str:
        """Return where messages were looked for."""
        return f"Its messages were looked for under {self._storage.uri(self._prefix)}/; it may not have started."


def _show(params: Mapping[str, Any]) -> None:
    stream = sys.stdout if params["stream"] == "stdout" else sys.stderr
    for line in str(params["text"]).splitlines():
        print(scrub(line), file=stream)
    stream.flush()


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Split an s3:// URI."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")
