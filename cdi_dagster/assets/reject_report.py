"""How rejects are shown on a run page: how many by reason, and a few locations of each, never content.

For `daily_records`, where rejects are within the limit, and for `steps`, where they are over it and fail the run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from cdi_dagster.assets.markdown import markdown_table


def reject_metadata(by_reason: Mapping[str, int], samples: Sequence[Mapping[str, Any]]) -> dict[str, dg.MetadataValue]:
    """Return the two tables of a run page.

    Args:
        by_reason: rejects by reason family.
        samples: `reason`, `detail`, `key` and `line_number` of a few of each.
    """
    places = [(row["reason"], row["detail"], f"`{row['key']}`", row["line_number"]) for row in samples]
    return {
        "rejected_by_reason": markdown_table(("reason", "records"), by_reason.items()),
        "reject_samples": markdown_table(("reason", "detail", "object", "line"), places),
    }
