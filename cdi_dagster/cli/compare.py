"""`cdi compare`: whether two published prefixes hold the same records: for a canary beside the system before."""

from pathlib import Path
from typing import Any

import click

from cdi_dagster.cli.console import facts, json_option, print_json, progress, result_console


class LocationType(click.ParamType):
    """A prefix of a bucket, or a folder."""

    name = "URI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return its URI, or fail with how to write it."""
        from cdi_dagster.settings import check_root

        text = str(value)
        try:
            return check_root(text if "://" in text else Path(text).absolute().as_uri())
        except ValueError:
            self.fail(f"{text!r} is no place: write s3://bucket/prefix, file:///folder or a folder", param, ctx)


@click.command("compare")
@click.argument("a", type=LocationType())
@click.argument("b", type=LocationType())
@click.option(
    "--differences",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="First differences of each side to name.",
)
@json_option
@click.pass_context
def compare_command(ctx: click.Context, a: str, b: str, differences: int, as_json: bool) -> None:
    """Compare the lines of all objects below A and B, as multisets: order and division into objects do not matter.

    Objects are gzip or plain, whatever their names; those that begin with _ or . are left out. Exits 0 where all lines
    are the same, 1 where not: differences are named by object and line, never by content. Needs disk (TMPDIR) for 29
    bytes a line only where they differ.
    """
    from cdi_dagster.cli.line_comparison import Side, compare
    from cdi_dagster.settings import use_aws_settings
    from cdi_dagster.storage import open_storage

    use_aws_settings()
    storages = (open_storage(a), open_storage(b))
    for place, storage in zip((a, b), storages, strict=True):
        if next(iter(storage.list("")), None) is None:
            raise click.UsageError(f"There is nothing below {place}")
    sides = (Side.of(storages[0]), Side.of(storages[1]))
    with progress("Comparing") as report:
        found = compare(sides, most_places=differences, progress=report)
    named = [
        {"only_in": name, **side.described(place)}
        for name, side, places in zip("ab", sides, found.places, strict=True)
        for place in places
    ]
    if as_json:
        counts = {"lines": found.lines, "only_in_a": found.surplus[0], "only_in_b": found.surplus[1]}
        print_json({"same": found.is_same, "a": a, "b": b, **counts, "differences": named})
    else:
        rows = [
            (name, f"{lines:,} lines in {len(side.keys):,} objects, {surplus:,} of them not in the other: {place}")
            for name, place, side, lines, surplus in zip("AB", (a, b), sides, found.lines, found.surplus, strict=True)
        ]
        rows.append(("result", "the same lines" if found.is_same else "different"))
        rows += [(f"only in {str(each['only_in']).upper()}", f"{each['object']} line {each['line']}") for each in named]
        result_console().print(facts(rows))
    ctx.exit(0 if found.is_same else 1)
