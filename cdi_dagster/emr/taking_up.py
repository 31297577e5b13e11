"""What a process does with a launch that it finds in the ledger: go on, repeat what was found, or begin anew. Pure."""

from dataclasses import dataclass, replace

from cdi_dagster.emr.ledger import SUCCEEDED, LaunchEntry


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks for the launch.

    Attributes:
        run_id: Dagster run.
        launch_id: id of the first of the runs that belong together.
        owner: this process, and no other.
        is_continuation: this is the first of those runs, or an automatic retry, so that budgets go on; otherwise
            somebody has asked again, and they begin anew.
    """

    run_id: str
    launch_id: str
    owner: str
    is_continuation: bool


def goes_on(found: LaunchEntry | None, asker: Asker) -> bool:
    """Whether the asker goes on with the very launch that was found, budgets and all."""
    return found is not None and found.launch_id == asker.launch_id and asker.is_continuation


def taken_up(found: LaunchEntry | None, fresh: LaunchEntry, asker: Asker) -> LaunchEntry:
    """Return the entry that this process goes on from.

    Args:
        found: the ledger's; None where there is none yet.
        fresh: an entry without attempts, for what is asked now.
        asker: who asks.
    """
    if found is None:
        return fresh
    history = replace(fresh, attempts=found.attempts, counted_from=len(found.attempts) + 1)
    if found.work != fresh.work:
        # An attempt at other work that still runs is the caller's to end.
        return history
    if goes_on(found, asker):
        # What failed is judged again from its attempts, and by their budgets ends the same; success is believed.
        return replace(found, owner=asker.owner, outcome=found.outcome if found.outcome == SUCCEEDED else None)
    return replace(history, counted_from=found.current.number) if found.current else history
