"""Which figures of a materialisation Dagster plots over the days: it plots every number. For assets only."""

from collections.abc import Mapping

import dagster as dg

Metadata = dict[str, dg.MetadataValue | str | int | float]

PLOTTED = frozenset(
    {
        *("offsets", "records_published", "dagster/row_count"),  # records: pinned, published, in a table
        "records_rejected",
        "input_bytes",
        *("published_bytes", "stored_bytes"),  # bytes out: of the records, of a table
        "seconds",
        "cost_usd",
        "cluster_minutes",
    }
)
"""Records, rejects, bytes in and out, seconds, cost, cluster time: a curve of the others means nothing."""


def only_plotted_as_numbers(metadata: Mapping[str, dg.MetadataValue | str | int | float]) -> Metadata:
    """Return the metadata with the figures that are not plotted as text."""
    return {
        name: f"{value:,}" if type(value) in (int, float) and name not in PLOTTED else value
        for name, value in metadata.items()
    }
