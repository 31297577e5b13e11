"""What a process does with a launch that it finds in the ledger: go on, repeat what was found, or begin anew. Pure."""

from dataclasses import dataclass, replace

from cdi_dagster.resources.emr.ledger import SUCCEEDED, LaunchEntry


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks for the launch.

    Attributes:
        run_id: Dagster run.
        launch_id: id of the first of the runs that belong together.
        owner: this process, and no other.
        is_continuation: this is the run that began, or an automatic retry of it, so budgets go on; otherwise a person
            has asked again, and they begin anew.
    """

    run_id: str
    launch_id: str
    owner: str
    is_continuation: bool


def taken_up(found: LaunchEntry | None, fresh: LaunchEntry, asker: Asker) -> LaunchEntry:
    """Return the entry that this process goes on from.

    Args:
        found: the ledger's; None where the launch is new.
        fresh: an entry without attempts, for what is asked now.
        asker: who asks.
    """
    if found is None:
        return fresh
    if found.work != fresh.work:
        # Other work: attempts are history. One that still runs is the caller's to end.
        return replace(fresh, attempts=found.attempts, counted_from=len(found.attempts) + 1)
    mine = replace(found, owner=asker.owner)
    if asker.is_continuation:
        # What failed is judged again from its attempts, and by their budgets ends the same; success is believed.
        return mine if found.outcome == SUCCEEDED else replace(mine, outcome=None)
    if found.outcome is not None:
        return replace(fresh, attempts=found.attempts, counted_from=len(found.attempts) + 1)
    first = found.current.number if found.current else len(found.attempts) + 1
    return replace(mine, begun_at=fresh.begun_at, counted_from=first)
