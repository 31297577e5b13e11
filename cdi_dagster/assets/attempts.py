"""The attempts of a launch, as run page and status row show them. For assets only."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from cdi_dagster.interfaces import LaunchAttempt


def attempt_values(attempts: Sequence[LaunchAttempt]) -> list[dict[str, Any]]:
    """Return the attempts as plain JSON values, in the form that the detail of a failed launch has."""
    return [
        {"where": each.where, "outcome": each.outcome, "seconds": each.seconds, "link": each.link, **each.detail}
        for each in attempts
    ]


def attempts_metadata(attempts: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Return a numbered line for each attempt: where (linked), how it ended, when, and its estimated cost."""
    return dg.MetadataValue.md("\n".join(f"{n}. {_line(attempt)}" for n, attempt in enumerate(attempts, start=1)))


def spent_metadata(attempts: Sequence[LaunchAttempt]) -> dict[str, float]:
    """Return what a launch cost, and for how long it held a cluster, where that is known."""
    return cost_metadata(attempts) | cluster_metadata(attempts)


def cost_metadata(attempts: Sequence[LaunchAttempt]) -> dict[str, float]:
    """Return what the attempts cost together, estimated; nothing where that is not known, or nothing was paid for."""
    costs = [float(each.detail["estimated_cost_usd"]) for each in attempts if each.detail.get("estimated_cost_usd")]
    return {"cost_usd": round(sum(costs), 4)} if costs else {}


def cluster_metadata(attempts: Sequence[LaunchAttempt]) -> dict[str, float]:
    """Return for how long the attempts held a cluster; nothing where none did (Spark on this machine)."""
    seconds = [each.seconds for each in attempts if each.detail.get("estimated_instance_hours") is not None]
    return {"cluster_minutes": round(sum(seconds) / 60, 2)} if seconds else {}


def _line(attempt: Mapping[str, Any]) -> str:
    where = f"[{attempt['where']}]({attempt['link']})" if attempt.get("link") else attempt["where"]
    line = f"{where}: {attempt['outcome']} after {attempt['seconds']:.0f} s"
    if attempt.get("estimated_instance_hours"):
        line += f", about {attempt['estimated_instance_hours']:.2f} instance-hours"
    if attempt.get("estimated_cost_usd"):
        line += f" ({attempt['estimated_cost_usd']:.2f} USD)"
    return line
