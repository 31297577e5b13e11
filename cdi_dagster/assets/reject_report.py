"""How rejects are shown on a run page: how many by reason, and a few places of each. Places, never content.

For `daily_records`, where rejects are within the limit, and for `steps`, where they are over it and fail the run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg


def reject_metadata(by_reason: Mapping[str, int], samples: Sequence[Mapping[str, Any]]) -> dict[str, dg.MetadataValue]:
    """Return the two tables of a run page.

    Args:
        by_reason: rejects by reason family.
        samples: `reason`, `detail`, `key` and `line_number` of a few of each.
    """
    places = [(row["reason"], row["detail"], f"`{row['key']}`", row["line_number"]) for row in samples]
    return {
        "rejected_by_reason": _table(("reason", "records"), by_reason.items()),
        "reject_samples": _table(("reason", "detail", "object", "line"), places),
    }


def _table(headings: Sequence[str], rows: Any) -> dg.MetadataValue:
    lines = [headings, ["---"] * len(headings), *rows]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines))
