"""The coalescer's click command: options, progress on stderr, the summary on stdout, exit codes.

Mounted as `cdi coalesce`; also runs alone (`python -m cdi_dagster.coalescer`), so it prints its own failures.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import click

from cdi_dagster.coalescer.claim import DEFAULT_LEASE_SECONDS
from cdi_dagster.coalescer.corporate_root import why_not_corporate_storage
from cdi_dagster.coalescer.plan import DEFAULT_MAX_BYTES, DEFAULT_MAX_OBJECTS
from cdi_dagster.coalescer.processes import coalesce_by_processes
from cdi_dagster.coalescer.shard import MOST_SHARDS, WHOLE_DAY, Shard
from cdi_dagster.coalescer.summary import CoalesceProgress, CoalesceSummary, progress_text
from cdi_dagster.core.collections import find_collection, ids_beginning_with
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.storage import Storage, StorageError, open_storage

_PROGRESS_SECONDS = 2.0
_WARNINGS_SHOWN = 20
_ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"


def _checked(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return a click callback that parses a value; a wrong one is refused with the expected form."""

    def callback(_context: click.Context, _parameter: click.Parameter, text: str) -> Any:
        try:
            return read(text)
        except CdiError as error:
            raise click.BadParameter(error.cause) from error
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _shard_of_text(text: str | None) -> Shard:
    return WHOLE_DAY if text is None else Shard.from_text(text, default_index=os.environ.get(_ARRAY_INDEX))


@click.command("coalesce", short_help="Run the coalescer on one storage day.")
@click.option(
    "--corporate-root",
    "storage",
    required=True,
    envvar="CDI_CORPORATE_ROOT",
    show_envvar=True,
    metavar="URI",
    callback=_checked(open_storage),
    help="Where K2HB writes: file:///absolute/folder or s3://bucket.",
)
@click.option(
    "--collection",
    required=True,
    metavar="DB:NAME",
    callback=_checked(find_collection),
    shell_complete=lambda _ctx, _param, typed: ids_beginning_with(typed),
    help="Whose objects: data:businessAudit.",
)
@click.option(
    "--storage-day",
    required=True,
    metavar="YYYY-MM-DD",
    callback=_checked(parse_day),
    help="UTC day under whose prefix K2HB wrote: the day before the export day.",
)
@click.option(
    "--max-bytes", default=DEFAULT_MAX_BYTES, show_default=True, type=click.IntRange(1), help="Most bytes of a batch."
)
@click.option(
    "--max-objects",
    default=DEFAULT_MAX_OBJECTS,
    show_default=True,
    type=click.IntRange(1),
    help="Most objects of a batch.",
)
@click.option(
    "--lease-seconds",
    default=DEFAULT_LEASE_SECONDS,
    show_default=True,
    type=click.FloatRange(1),
    help="A claim without a heartbeat for longer than this belongs to a killed coalescer and is taken over.",
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, MOST_SHARDS),
    help="Processes of this machine that share the work: each has the Kafka partitions of a shard.",
)
@click.option(
    "--shard",
    metavar="I/N",
    callback=_checked(_shard_of_text),
    help="Coalesce only shard I (from 0) of N, by Kafka partition; others do the rest, with the same N. In a job of an "
    f"AWS Batch array /N is enough: I is {_ARRAY_INDEX}. The day is complete when all shards are.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def coalesce_command(as_json: bool, **options: Any) -> None:
    """Merge the small raw objects of a storage day into larger ones, then delete them.

    Nothing is deleted before the coalesced object is stored and verified. Objects that cannot be merged stay as they
    are, and the exit code is 1. Run it again to continue where it stopped, also after a kill.
    """
    _require_so_few_shards(options["shard"], options["processes"])
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        _require_corporate_storage(options["storage"])
        day = options.pop("collection").on(options.pop("storage_day"))
        summary = coalesce_by_processes(day=day, progress=_progress_printer(), **options)
    except (CdiError, StorageError) as error:
        _fail(error if isinstance(error, CdiError) else _as_failure(str(error)), as_json=as_json)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2))
    else:
        _print(summary)
    if not summary.succeeded:
        for failure in summary.failures:
            click.echo(f"{FailureClass.COALESCER_FAILED}: {failure}", err=True)
        sys.exit(1)


def _require_so_few_shards(shard: Shard, processes: int) -> None:
    if shard.count * processes > MOST_SHARDS:
        raise click.UsageError(f"{shard.count} shards by {processes} processes are more than {MOST_SHARDS} in all.")


def _require_corporate_storage(storage: Storage) -> None:
    """Refuse a wrong root: it would look like an empty day, and its marker would open the gate."""
    with suppress(StorageError):  # the coalescer fails on it too, and writes it to its marker
        if why_not := why_not_corporate_storage(storage):
            raise CdiError(
                FailureClass.COALESCER_FAILED,
                why_not,
                next_step="Correct the root (--corporate-root, CDI_CORPORATE_ROOT), then run the coalescer again.",
            )


def _stop(_signal: int, _frame: FrameType | None) -> None:
    """Raise, so that the claim is released and the marker becomes FAILED."""
    raise KeyboardInterrupt


def _as_failure(cause: str) -> CdiError:
    return CdiError(
        FailureClass.COALESCER_FAILED, cause, next_step="Fix what the cause names, then run the coalescer again."
    )


def _fail(error: CdiError, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"failure": error.to_json()}, indent=2))
    click.echo(f"{error.failure_class}: {error.cause}\nNext: {error.next_step}", err=True)
    sys.exit(1)


def _progress_printer() -> Callable[[CoalesceProgress], None]:
    started = logged = time.monotonic()

    def log(progress: CoalesceProgress) -> None:
        nonlocal logged
        now = time.monotonic()
        if now - logged < _PROGRESS_SECONDS:
            return
        logged = now
        click.echo(f"  {progress_text(progress, now - started)}", err=True)

    return log


def _print(summary: CoalesceSummary) -> None:
    before, after = summary.before, summary.after
    click.echo(f"{summary.collection_id} of {summary.storage_day}: {'done' if summary.succeeded else 'FAILED'}")
    click.echo(f"  objects  {before.objects} -> {after.objects}")
    click.echo(f"  bytes    {before.bytes} -> {after.bytes}")
    click.echo(f"  offsets  {after.offsets} by the names of the objects there now")
    click.echo(f"  merged   {len(summary.merged)} coalesced objects written, {len(summary.finished)} finished")
    click.echo(f"  seconds  {summary.seconds:.1f}")
    if summary.took_over:
        click.echo(f"  took over from {summary.took_over}, which did not finish")
    for warning in summary.warnings[:_WARNINGS_SHOWN]:
        click.echo(f"  warning: {warning}")
    if len(summary.warnings) > _WARNINGS_SHOWN:
        click.echo(f"  ... and {len(summary.warnings) - _WARNINGS_SHOWN} more warnings (--json shows all)")
