"""What people and machines are shown of a launch: its attempts, what they cost, where their logs are."""

from collections.abc import Mapping
from typing import Any

from cdi_dagster.core.failures import CdiError
from cdi_dagster.emr.api import EmrApi
from cdi_dagster.emr.ledger import Attempt, LaunchEntry
from cdi_dagster.emr.request import estimated_cost
from cdi_dagster.emr.template import ClusterTemplate
from cdi_dagster.interfaces import LaunchAttempt, LaunchEvidence


def evidence_of(
    entry: LaunchEntry, report: Mapping[str, Any], template: ClusterTemplate, api: EmrApi
) -> LaunchEvidence:
    """Return the proof of a launch that succeeded; the last attempt is the one that did."""
    last = entry.attempts[-1]
    return LaunchEvidence(
        report=report,
        attempts=tuple(launch_attempt(attempt, template, api) for attempt in entry.counted),
        log_location=log_location(last, template),
        cluster_id=last.cluster_id or "",
    )


def launch_attempt(attempt: Attempt, template: ClusterTemplate, api: EmrApi) -> LaunchAttempt:
    """Return one attempt as every launcher shows it."""
    instance_hours, dollars = estimated_cost(template, attempt.profile, attempt.billed_seconds)
    failure = CdiError.from_json(attempt.failure) if attempt.failure else None
    detail: dict[str, Any] = {
        "cluster_id": attempt.cluster_id,
        "cluster_name": attempt.name,
        "profile": attempt.profile,
        "kind": attempt.outcome,
        "estimated_instance_hours": instance_hours,
        "estimated_cost_usd": dollars,
        "log": log_location(attempt, template),
    }
    if failure is not None:
        detail |= {"failure_class": str(failure.failure_class), "cause": failure.cause}
    return LaunchAttempt(
        where=f"{attempt.profile}, cluster {attempt.cluster_id or 'never started'}",
        outcome=f"{attempt.outcome} ({failure.failure_class})" if failure else str(attempt.outcome),
        seconds=round(attempt.seconds, 1),
        link=api.console_link(attempt.cluster_id) if attempt.cluster_id else None,
        detail=detail,
    )


def failure_with_attempts(
    failure: CdiError, why: str, entry: LaunchEntry, template: ClusterTemplate, api: EmrApi
) -> CdiError:
    """Return the last attempt's failure as the run page shows it: with every attempt, and why there is no other."""
    attempts = [launch_attempt(attempt, template, api) for attempt in entry.counted]
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


def attempt_line(attempt: Attempt, template: ClusterTemplate) -> str:
    """Return one line about an attempt that is over."""
    instance_hours, dollars = estimated_cost(template, attempt.profile, attempt.billed_seconds)
    cost = f"about {instance_hours:.2f} instance-hours" + (f", {dollars:.2f} USD" if dollars is not None else "")
    line = f"Attempt {attempt.number} ({attempt.profile}, {attempt.cluster_id or 'no cluster'}): {attempt.outcome} "
    line += f"after {attempt.seconds:.0f} s, {cost}"
    return f"{line}. {CdiError.from_json(attempt.failure).cause}" if attempt.failure else line


def log_location(attempt: Attempt, template: ClusterTemplate) -> str:
    """Return where EMR puts the full log of an attempt."""
    where = f"{template.log_uri}/{attempt.cluster_id}/"
    return f"{where}steps/{attempt.step_id}/" if attempt.step_id else where
