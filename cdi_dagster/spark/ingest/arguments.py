"""The command line of `ingest_daily`: everything the job needs is here or in objects it names.

Environment variables do not reach every EMR deploy mode, so none is read. Used wrongly it exits 2 and prints why.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.reject_limit import RejectLimit, parse_reject_limit
from cdi_dagster.spark.key_service.client import KeyServiceConfig, add_key_service_arguments, key_service_config
from cdi_dagster.storage import Storage, open_storage

_DESCRIPTION = """\
Read one pinned storage day, decrypt and clean its records, and publish them as the daily records: whole or not at all.
Run it by spark-submit; it sets no master. Exits 0 when the day is published, 1 when the work failed (class and next
step on stderr and in failure.json), 2 when used wrongly."""


@dataclass(frozen=True, kw_only=True)
class IngestArguments:
    """What `ingest_daily` is to do.

    Attributes:
        pinned_input: URI of the manifest.
        published_root: root that gets records, rejects and reports.
        correlation_id: of the run.
        key_service: how to reach the Data Key Service.
        max_rejected: most rejects of a day that is still published.
        allow_sparse_offsets: accept objects with fewer records than their names state offsets.
        allow_empty: publish a day without objects as an empty one.
        tasks_per_core: how many tasks to plan for each core.
    """

    pinned_input: str
    published_root: str
    correlation_id: str
    key_service: KeyServiceConfig
    max_rejected: RejectLimit
    allow_sparse_offsets: bool
    allow_empty: bool
    tasks_per_core: int


def parse_arguments(argv: Sequence[str]) -> IngestArguments:
    """Read the command line.

    Raises:
        SystemExit: with 2, after a message with the fix; with 0 after `--help`.
    """
    parser = _parser()
    found = parser.parse_args(list(argv))
    try:
        key_service = key_service_config(found)
    except CdiError as error:
        parser.error(f"{error.cause} {error.next_step}")
    return IngestArguments(
        pinned_input=found.pinned_input,
        published_root=found.published_root,
        correlation_id=found.correlation_id,
        key_service=key_service,
        max_rejected=found.max_rejected,
        allow_sparse_offsets=found.allow_sparse_offsets,
        allow_empty=found.allow_empty,
        tasks_per_core=found.tasks_per_core,
    )


def storage_and_key(uri: str) -> tuple[Storage, str]:
    """Return the storage and key of one object's full URI.

    Raises:
        ValueError: it is not the URI of an object; the message states how to write it.
    """
    folder, _, key = uri.rpartition("/")
    if not key or "://" not in folder or folder.endswith("/"):
        raise ValueError(f"{uri!r} is not an object: write it as file:///folder/name.json or s3://bucket/name.json")
    return open_storage(folder), key


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ingest_daily", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--pinned-input", required=True, type=_object_uri, metavar="URI", help="full URI of the pinned input's manifest"
    )
    parser.add_argument(
        "--published-root", required=True, type=_root_uri, metavar="URI", help="file:///folder or s3://bucket"
    )
    parser.add_argument(
        "--correlation-id", required=True, type=_correlation_id, metavar="ID", help="of this run; in every log line"
    )
    parser.add_argument(
        "--max-rejected",
        default="0",
        type=_reject_limit,
        metavar="N|P%",
        help="publish with at most this many rejects: a count or a share of what was read (default: 0)",
    )
    parser.add_argument(
        "--allow-sparse-offsets",
        action="store_true",
        help="accept objects with fewer records than their names state offsets (compacted topics)",
    )
    parser.add_argument(
        "--allow-empty", action="store_true", help="publish a day without objects as an empty one, instead of failing"
    )
    parser.add_argument(
        "--tasks-per-core",
        default=3,
        type=int,
        choices=range(1, 17),
        metavar="1..16",
        help="tasks planned for each core: more balance the end better, fewer start faster (default: 3)",
    )
    add_key_service_arguments(parser)
    return parser


def _object_uri(text: str) -> str:
    try:
        storage_and_key(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _root_uri(text: str) -> str:
    try:
        return open_storage(text).root
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _correlation_id(text: str) -> str:
    if not text.strip() or "/" in text or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be a correlation id: it becomes a part of paths and log lines"
        )
    return text


def _reject_limit(text: str) -> RejectLimit:
    try:
        return parse_reject_limit(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
