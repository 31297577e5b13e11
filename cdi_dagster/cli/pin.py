"""`cdi pin`: the pinned input of a day, written below the published root, and to a file if one is named."""

import json
import os
from datetime import date
from pathlib import Path

import click

from cdi_dagster.cli.console import facts, json_option, print_json, result_console
from cdi_dagster.cli.options import (
    allow_fewer_offsets_option,
    collection_option,
    corporate_root_option,
    given,
    override_gate_option,
    published_root_option,
    storage_day_option,
)
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.pinned_input import PinnedInput


def _in_a_folder(ctx: click.Context, parameter: click.Parameter, output: Path | None) -> Path | None:
    """Refuse a file that cannot be written before anything is pinned."""
    if output and not os.access(output.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{output.parent} is not a folder that can be written to: make it, or name another.")
    return output


_MOST_SHOWN = 20


@click.command("pin")
@corporate_root_option()
@published_root_option()
@collection_option()
@storage_day_option()
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_in_a_folder,
    metavar="FILE",
    help="Write the manifest to this file too.",
)
@click.option("--allow-empty", is_flag=True, help="Pin a day that has no objects.")
@allow_fewer_offsets_option()
@override_gate_option()
@json_option
def pin_command(
    corporate_root: str | None,
    published_root: str | None,
    collection: Collection,
    storage_day: date,
    output: Path | None,
    allow_empty: bool,
    allow_fewer_offsets: bool,
    override_gate: bool,
    as_json: bool,
) -> None:
    """Decide which objects a run of the day reads, and write the manifest of them.

    The manifest goes where the next run reads it, below the published root. Refuses, with the reason, while the
    coalescer is not done, where there are no objects, where a name is wrong, and where offsets overlap.
    """
    from cdi_dagster.cli.gate import require_gate
    from cdi_dagster.core.storage_keys import pinned_input_key
    from cdi_dagster.ingestion.pinning import pin_storage_day
    from cdi_dagster.settings import load_settings
    from cdi_dagster.storage import open_roots

    settings = load_settings(**given(corporate_root=corporate_root, published_root=published_root))
    roots, day = open_roots(settings.corporate_root, settings.published_root), collection.on(storage_day)
    require_gate(settings, roots, day, override=override_gate)
    pinned = pin_storage_day(
        roots,
        day,
        allow_empty=allow_empty,
        allow_fewer_offsets=allow_fewer_offsets,
    )
    if output:
        _write(output, pinned)
    if as_json:
        print_json(pinned.to_json())
        return
    written_to = [roots.published.uri(pinned_input_key(day)), *([str(output)] if output else [])]
    result_console().print(facts([*pinned_facts(pinned), *(("written to", location) for location in written_to)]))


def pinned_facts(pinned: PinnedInput) -> list[tuple[str, str]]:
    """List what a pinned input holds."""
    rows = [
        ("pinned", f"{len(pinned.objects)} objects, {size_text(pinned.input_bytes)}, {pinned.offset_count:,} offsets"),
        ("fingerprint", pinned.fingerprint),
    ]
    for left in pinned.left_out[:_MOST_SHOWN]:
        rows.append(("left out", f"{left.key.rsplit('/', 1)[-1]}: {left.why}"))
    for gap in pinned.gaps[:_MOST_SHOWN]:
        span = f"{gap.first_offset} to {gap.last_offset}"
        rows.append(("offset gap", f"Kafka partition {gap.kafka_partition}: {span} ({gap.offset_count:,} missing)"))
    for name, count in (("left out", len(pinned.left_out)), ("offset gap", len(pinned.gaps))):
        if count > _MOST_SHOWN:
            rows.append((name, f"{count - _MOST_SHOWN:,} more in the manifest"))
    return rows


def _write(output: Path, pinned: PinnedInput) -> None:
    try:
        output.write_text(json.dumps(pinned.to_json(), indent=1) + "\n")
    except OSError as error:
        raise click.FileError(str(output), hint=error.strerror) from error
