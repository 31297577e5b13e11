"""A Markdown table of a run page. For assets only."""

from collections.abc import Iterable, Sequence

import dagster as dg


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, note: str = "") -> dg.MetadataValue:
    """Return a table, and a note below it."""
    lines = [headings, ["---"] * len(headings), *rows]
    table = [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]
    return dg.MetadataValue.md("\n".join([*table, f"\n{note}"] if note else table))
