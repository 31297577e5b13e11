"""Launches runs of the demo through Dagster's webserver, follows them, and reads their results.

Counts are read where any reader finds them: in the report that the run left below the published root.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from cdi_dagster.cli.demo_home import DemoHome
from cdi_dagster.cli.servers import Guarded
from cdi_dagster.cli.webserver import REQUESTED_BY_TAG, Webserver
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import run_prefix
from cdi_dagster.storage.interface import ObjectMissingError

_START_PATIENCE_SECONDS = 120.0
_RUN_PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.5
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_REQUESTED = {REQUESTED_BY_TAG: "cdi demo"}


@dataclass(frozen=True, kw_only=True)
class DayResult:
    """The result of the run of one storage day, or of a snapshot.

    Attributes:
        storage_day: the partition; of a snapshot its last.
        run_id: Dagster's.
        status: SUCCESS or the class of its failure.
        seconds: from launch to end, everything included.
        report: the closing report of the ingestion, or the snapshot; empty where it left none.
        tables: the tables' closing report, empty where none was published.
        failure: as the run wrote it, where it failed.
        checks: asset checks by name, and whether they passed.
    """

    storage_day: date
    run_id: str
    status: str
    seconds: float
    report: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    failure: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)

    @property
    def export_day(self) -> date:
        """The date of what was published."""
        return export_day_of(self.storage_day)

    def total(self, name: str) -> int:
        """Return one of the report's totals."""
        return int(self.report.get("totals", {}).get(name, 0))

    @property
    def was_published(self) -> bool:
        """Whether records were published."""
        return bool(self.report.get("published_prefix")) and self.status == "SUCCESS"


def wait_until_loaded(webserver: Webserver, dagster: Guarded) -> None:
    """Wait until the webserver answers and has loaded the code location.

    Raises:
        CdiError: LAUNCH_FAILED with the load error, or with the last log lines.
    """
    deadline = time.monotonic() + _START_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        dagster.require_running("Dagster")
        if webserver.answers():
            for name, error in webserver.locations():
                if error is None:
                    return
                raise CdiError(
                    FailureClass.LAUNCH_FAILED,
                    f"The code location {name} does not load: {error}",
                    next_step=f"Fix what it names; the whole trace is in {dagster.log_path}.",
                )
        time.sleep(_POLL_SECONDS)
    raise CdiError(
        FailureClass.LAUNCH_FAILED,
        f"Dagster was not up after {_START_PATIENCE_SECONDS:.0f} s.",
        next_step=f"Read {dagster.log_path}, then run again.",
    )


def materialise(
    home: DemoHome,
    webserver: Webserver,
    dagster: Guarded,
    day: CollectionDay,
    report: Callable[[str], None],
    *,
    snapshot: bool = False,
) -> DayResult:
    """Launch a run that materialises every asset of a day, follow it to its end, and return its result.

    Args:
        home: of the demo.
        webserver: that launches it.
        dagster: which must go on running.
        day: which day; of a snapshot its last.
        report: gets the progress.
        snapshot: whether the snapshot is made, and its tables.
    """
    started = time.monotonic()
    assets = webserver.assets_of(day.collection, snapshot=snapshot)
    partition = day.export_day if snapshot else day.storage_day
    run_id = webserver.launch_run(assets, str(partition), tags=_REQUESTED)
    status, checks = _follow(webserver, dagster, run_id, report)
    return _result(home, day, run_id, status, time.monotonic() - started, checks)


def materialise_days(home: DemoHome, webserver: Webserver, dagster: Guarded) -> Iterator[DayResult]:
    """Launch one backfill of all days, and yield the result of each as its run ends.

    Their seconds are the time since the one before: the runs wait for each other in the collection's pool.
    """
    days = {str(day.storage_day): home.collection.on(day.storage_day) for day in home.days}
    backfill_id = webserver.launch_backfill(
        webserver.assets_of(home.collection), list(days), title="cdi demo", tags=_REQUESTED
    )
    last = time.monotonic()
    while days and time.monotonic() < last + _RUN_PATIENCE_SECONDS:
        dagster.require_running("Dagster")
        for run in webserver.runs_of_backfill(backfill_id):
            partition = next(tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition")
            if run["status"] in _ENDED and partition in days:
                seconds, last = time.monotonic() - last, time.monotonic()
                yield _result(home, days.pop(partition), run["runId"], run["status"], seconds, {})
        time.sleep(_POLL_SECONDS)
    if days:
        raise CdiError(
            FailureClass.LAUNCH_FAILED,
            f"Backfill {backfill_id} ended no run for {_RUN_PATIENCE_SECONDS:.0f} s; missing: {', '.join(days)}.",
            next_step=f"Open the UI (cdi dev --home {home.folder}) on that backfill, and read {dagster.log_path}.",
        )


def _result(
    home: DemoHome, day: CollectionDay, run_id: str, status: str, seconds: float, checks: dict[str, bool]
) -> DayResult:
    left = _left_by_run(home, day, run_id)
    if status != "SUCCESS":
        status = str(left.get("failure", {}).get("failure_class", status))
    return DayResult(
        storage_day=day.storage_day,
        run_id=run_id,
        status=status,
        seconds=seconds,
        report=left.get("ingest_report") or left.get("snapshot_report", {}),
        tables=left.get("tables_report", {}),
        failure=left.get("failure", {}),
        checks=checks,
    )


def _follow(
    webserver: Webserver, dagster: Guarded, run_id: str, report: Callable[[str], None]
) -> tuple[str, dict[str, bool]]:
    cursor: str | None = None
    checks: dict[str, bool] = {}
    deadline = time.monotonic() + _RUN_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        dagster.require_running("Dagster")
        run = webserver.run(run_id, cursor)
        events = run["eventConnection"]
        cursor = events["cursor"]
        for event in events["events"]:
            text = _progress_text(event)
            if text:
                report(text)
            if event["__typename"] == "AssetCheckEvaluationEvent":
                checks[event["evaluation"]["checkName"]] = event["evaluation"]["success"]
        if run["status"] in _ENDED and not events["hasMore"]:
            return run["status"], checks
        time.sleep(_POLL_SECONDS)
    raise CdiError(
        FailureClass.LAUNCH_FAILED,
        f"Run {run_id} did not end within {_RUN_PATIENCE_SECONDS:.0f} s.",
        next_step=f"Open the UI (make dev) on that run, and read {dagster.log_path}.",
    )


def _progress_text(event: dict[str, Any]) -> str | None:
    """Return the progress that an event means to a person, or None."""
    kind = event["__typename"]
    if kind == "RunEnqueuedEvent":
        return "queued"
    if kind == "RunStartingEvent":
        return "run worker starts"
    if kind == "MaterializationEvent":
        return f"materialised {'/'.join(event['assetKey']['path'])}"
    if kind == "LogMessageEvent" and event["level"] == "INFO" and not event["message"].startswith("[pipes]"):
        return str(event["message"])
    return None


def _left_by_run(home: DemoHome, day: CollectionDay, run_id: str) -> dict[str, Any]:
    """Return the reports and the failure that the run left, by name without `.json`; its id is the correlation id."""
    prefix = run_prefix(day, run_id)
    left = {}
    for name in ("ingest_report", "snapshot_report", "tables_report", "failure"):
        with contextlib.suppress(ObjectMissingError):
            left[name] = json.loads(home.published.read(f"{prefix}{name}.json"))
    return left
