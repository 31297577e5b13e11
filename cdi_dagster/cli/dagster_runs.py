"""The run records of this machine's Dagster, for commands that only read and also work where there is no Dagster."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from cdi_dagster.cli.dagster_home import dagster_home_of, open_instance
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.launch_decision import PastRun
from cdi_dagster.settings import Settings

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True, kw_only=True)
class DagsterRuns:
    """What Dagster knows about runs; nothing where there is no Dagster.

    Attributes:
        home: its home; None where there is none.
        note: why there is none.
    """

    home: Path | None = None
    note: str | None = None
    _instance: "dg.DagsterInstance | None" = None
    _automation: bool = False

    def past_runs(self, collection: Collection, storage_days: Sequence[date]) -> Mapping[date, tuple[PastRun, ...]]:
        """Return the runs that publish a collection's records or tables, by storage day, oldest first."""
        if self._instance is None:
            return {storage_day: () for storage_day in storage_days}
        from cdi_dagster.run_records import past_runs

        return past_runs(self._instance, collection, storage_days)

    def past_snapshot_runs(
        self, collection: Collection, export_days: Sequence[date]
    ) -> Mapping[date, tuple[PastRun, ...]]:
        """Return the runs that make a collection's snapshots or tables of them, by export day, oldest first."""
        if self._instance is None:
            return {export_day: () for export_day in export_days}
        from cdi_dagster.run_records import past_snapshot_runs

        return past_snapshot_runs(self._instance, collection, export_days)

    def failure(self, run_id: str, row_failure: str | None) -> CdiError | None:
        """Return why a failed run failed, or None where this Dagster does not know the run."""
        from cdi_dagster.sensors.run_failure import read_failure

        run = self._instance.get_run_by_id(run_id) if self._instance else None
        return read_failure(self._instance, run, row_failure) if self._instance and run else None

    def is_automated(self, collection: Collection) -> bool:
        """Whether a sensor launches the collection's days: it is on, as far as this Dagster knows."""
        from cdi_dagster import names

        return self.is_on(names.completion_sensor_name(collection))

    def is_on(self, sensor: str) -> bool:
        """Whether a sensor is on, as far as this Dagster knows."""
        if self._instance is None:
            return False
        from cdi_dagster.run_records import is_sensor_on

        return is_sensor_on(self._instance, sensor, default=self._automation)


@contextmanager
def open_dagster_runs(settings: Settings) -> Iterator[DagsterRuns]:
    """Yield the run records of DAGSTER_HOME, else of the Dagster home below CDI_HOME; without one, why not."""
    home = dagster_home_of(settings)
    with ExitStack() as opened:
        try:
            instance = opened.enter_context(open_instance(home))
            if instance:
                instance.get_run_records(limit=1)  # its database is opened by the first query
        except Exception as error:  # noqa: BLE001 - a database that is down must not hide what storage shows
            yield DagsterRuns(note=f"Dagster's records in {home} cannot be read ({type(error).__name__})")
            return
        if instance is None:
            is_home = home.is_dir() and any(home.iterdir())
            why = f"Dagster has not started at {home} yet" if is_home else f"there is no Dagster home at {home}"
            yield DagsterRuns(note=f"{why}: runs are those that left something in storage")
            return
        yield DagsterRuns(home=home, _instance=instance, _automation=settings.automation)
