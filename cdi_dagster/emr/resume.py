"""What a process does with a launch that it finds in the ledger: continue, repeat its result, or begin anew. Pure."""

import hashlib
import json
from dataclasses import dataclass, replace

from cdi_dagster.emr.ledger import LaunchEntry
from cdi_dagster.interfaces import SparkStep

NAME_PREFIX = "cdi-"
"""Of the name of everything that we start."""


@dataclass(frozen=True, kw_only=True)
class Requester:
    """Who requests the launch.

    Attributes:
        run_id: Dagster run.
        launch_id: id of the first of the runs that belong together.
        owner: this process, and no other.
        is_continuation: this is the first of those runs, or an automatic retry, so that budgets continue; otherwise
            somebody has requested it again, and they start anew.
    """

    run_id: str
    launch_id: str
    owner: str
    is_continuation: bool


def attempt_name(step: SparkStep, launch_id: str, number: int) -> str:
    """Return the one name of an attempt. Deterministic: after a lost response it is how the job is found again."""
    collection = step.collection.id.replace(":", ".")
    return f"{NAME_PREFIX}{collection}-{step.storage_day}-{step.name}-{launch_id[:8]}-a{number}"


def work_digest(step: SparkStep) -> str:
    """Return what a step works on, as a digest: two with the same one do the same.

    The correlation id is left out: another run requests the same work under its own. The input's size is in it for the
    steps whose arguments do not name what they read.
    """
    arguments = [argument for argument in step.arguments if argument != step.correlation_id]
    return hashlib.sha256(json.dumps([step.name, arguments, step.input_bytes]).encode()).hexdigest()[:16]


def continues(found: LaunchEntry | None, requester: Requester) -> bool:
    """Whether the requester continues the very launch that was found, budgets and all."""
    return found is not None and found.launch_id == requester.launch_id and requester.is_continuation


def resume(found: LaunchEntry | None, fresh: LaunchEntry, requester: Requester) -> LaunchEntry:
    """Return the entry that this process continues from.

    Args:
        found: the ledger's; None where there is none yet.
        fresh: an entry without attempts, for what is requested now.
        requester: who requests it.
    """
    if found is None:
        return fresh
    history = replace(fresh, attempts=found.attempts, counted_from=len(found.attempts) + 1)
    if found.work != fresh.work or (found.current and found.current not in found.counted):
        # An attempt at other work that still runs is the caller's to end, also where an earlier caller could not.
        return history
    if continues(found, requester):
        # A failure is judged again from its attempts, and by their budgets ends the same; success is believed.
        return replace(found, owner=requester.owner)
    return replace(history, counted_from=found.current.number) if found.current else history
