"""What people and machines are shown of a launch: its attempts, what they cost, where their logs are."""

from collections.abc import Mapping
from typing import Any

from cdi_dagster.core.failures import CdiError
from cdi_dagster.emr.backend import Backend
from cdi_dagster.emr.ledger import AttemptEntry, LaunchEntry
from cdi_dagster.interfaces import LaunchAttempt, LaunchEvidence


def evidence_of(entry: LaunchEntry, report: Mapping[str, Any], backend: Backend) -> LaunchEvidence:
    """Return the proof of a launch that succeeded; the last attempt is the one that did."""
    last = entry.attempts[-1]
    return LaunchEvidence(
        report=report,
        attempts=tuple(launch_attempt(attempt, backend) for attempt in entry.counted),
        log_location=backend.describe(last).log_location,
        cluster_id=last.compute_id or "",
    )


def launch_attempt(attempt: AttemptEntry, backend: Backend) -> LaunchAttempt:
    """Return one attempt as every launcher shows it."""
    details = backend.describe(attempt)
    failure = CdiError.from_json(attempt.failure) if attempt.failure else None
    detail: dict[str, Any] = {
        "cluster_id": attempt.compute_id,
        "cluster_name": attempt.name,
        "profile": attempt.profile,
        "kind": str(attempt.outcome),
        "estimated_instance_hours": details.instance_hours,
        "estimated_cost_usd": details.cost_usd,
        "log": details.log_location,
    }
    if failure is not None:
        detail |= {"failure_class": str(failure.failure_class), "cause": failure.cause}
    return LaunchAttempt(
        where=f"{attempt.profile}, {details.where}",
        outcome=f"{attempt.outcome} ({failure.failure_class})" if failure else str(attempt.outcome),
        seconds=round(attempt.seconds, 1),
        link=details.link,
        detail=detail,
    )


def failure_with_attempts(failure: CdiError, why: str, entry: LaunchEntry, backend: Backend) -> CdiError:
    """Return the last attempt's failure as the run page shows it: with every attempt, and why there is no other."""
    attempts = [launch_attempt(attempt, backend) for attempt in entry.counted]
    cause = failure.cause if len(attempts) < 2 else f"{failure.cause} After {len(attempts)} attempts: {why}."
    shown = [
        {"where": shown.where, "outcome": shown.outcome, "seconds": shown.seconds, "link": shown.link, **shown.detail}
        for shown in attempts
    ]
    last = attempts[-1]
    detail = {"cluster_id": last.detail["cluster_id"], "cluster": last.link, "log": last.detail["log"]}
    return CdiError(
        failure.failure_class,
        cause,
        next_step=failure.next_step,
        detail={**failure.detail, **detail, "no_other_attempt": why, "attempts": shown},
    )


def attempt_line(attempt: AttemptEntry, backend: Backend) -> str:
    """Return one line about an attempt that is over."""
    details = backend.describe(attempt)
    cost = f"about {details.instance_hours:.2f} instance-hours"
    if details.cost_usd is not None:
        cost += f", {details.cost_usd:.2f} USD"
    line = f"Attempt {attempt.number} ({attempt.profile}, {details.where}): {attempt.outcome} "
    line += f"after {attempt.seconds:.0f} s, {cost}"
    return f"{line}. {CdiError.from_json(attempt.failure).cause}" if attempt.failure else line
