"""Tags that state what became of one run, told apart from those that a re-execution copied from its parent.

Dagster copies every tag but a few of its own to a re-execution and to its own retry of a run. So beside each of these
tags a hidden one names the run that it is about.
"""

from collections.abc import Mapping

import dagster as dg

_OF_RUN = ".dagster/cdi_of_run/"


def own_tags(run_id: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with, for each of them, the one that names its run."""
    return {**tags, **{f"{_OF_RUN}{name}": run_id for name in tags}}


def add_own_tags(instance: dg.DagsterInstance, run_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to a run, as its own."""
    instance.add_run_tags(run_id, own_tags(run_id, tags))


def own_tag(run: dg.DagsterRun, name: str) -> str | None:
    """Return a tag of a run; None where there is none, or it is copied from the run's parent.

    One that names no run is of a version before this one: it counts, so that what was reported is not reported again.
    """
    is_own = run.tags.get(f"{_OF_RUN}{name}", run.run_id) == run.run_id
    return run.tags.get(name) if is_own else None
