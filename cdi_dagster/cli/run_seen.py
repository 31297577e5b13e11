"""A run of a day or a snapshot for a person: its state, how long it took, why it failed, and its page."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cdi_dagster.cli.dagster_runs import DagsterRuns
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError
from cdi_dagster.core.launch_decision import PastRun, RunState
from cdi_dagster.settings import Settings


@dataclass(frozen=True, kw_only=True)
class RunSeen:
    """One run of a day or a snapshot.

    Attributes:
        run_id: Dagster's, or the correlation id of a run of `cdi`.
        state: of the run.
        failure: why it failed.
        started_at: aware, UTC; None where it is queued, or not known.
        ended_at: aware, UTC; None while it is live.
        url: its page in the Dagster UI, where Dagster runs it.
    """

    run_id: str
    state: RunState
    failure: CdiError | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    url: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return seconds_between(self.started_at, self.ended_at)

    @property
    def text(self) -> str:
        """Which run, its state, and since when or how long."""
        if self.started_at and not self.ended_at:
            return f"{self.run_id}, at work since {self.started_at:%Y-%m-%d %H:%M} UTC"
        if not self.ended_at:
            return f"{self.run_id}, queued"
        took = "" if self.seconds is None else f" after {duration_text(self.seconds)}"
        return f"{self.run_id}, {self.state.lower()} at {self.ended_at:%Y-%m-%d %H:%M} UTC{took}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        failure = self.failure
        return {
            "run_id": self.run_id,
            "state": self.state,
            "started_at": self.started_at and self.started_at.isoformat(),
            "ended_at": self.ended_at and self.ended_at.isoformat(),
            "seconds": self.seconds,
            "url": self.url,
            "failure": {**failure.to_json(), "owner": FAILURE_GUIDE[failure.failure_class].owner} if failure else None,
        }


def run_of_dagster(
    run: PastRun, dagster_runs: DagsterRuns, settings: Settings, *, row_failure: str | None = None
) -> RunSeen:
    """Return a run as a person sees it: why it failed, and its page.

    Args:
        run: which Dagster knows.
        dagster_runs: for its failure.
        settings: for the address of the UI.
        row_failure: the failure in its status row, if there is one.
    """
    failed = run.state is RunState.FAILED
    return RunSeen(
        run_id=run.run_id,
        state=run.state,
        failure=dagster_runs.failure(run.run_id, row_failure) if failed else None,
        started_at=run.started_at,
        ended_at=run.ended_at,
        url=f"{settings.dagster_url}/runs/{run.run_id}",
    )


def seconds_between(started_at: datetime | None, ended_at: datetime | None) -> float | None:
    """Return how long something took, where both is known."""
    return (ended_at - started_at).total_seconds() if ended_at and started_at else None
