"""Follows runs of the demo through Dagster's webserver, and reads their results.

Counts are read where any reader finds them: in the report that the run left below the published root.
"""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from cdi_dagster.cli.demo_home import COLLECTION, DemoHome
from cdi_dagster.cli.servers import Guarded
from cdi_dagster.cli.webserver import REQUESTED_BY_TAG, Webserver
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import run_prefix
from cdi_dagster.storage.interface import ObjectMissingError

_START_PATIENCE_SECONDS = 120.0
_RUN_PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.5
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True, kw_only=True)
class DayResult:
    """The result of the run of one storage day.

    Attributes:
        storage_day: the partition.
        run_id: Dagster's.
        status: SUCCESS or the class of its failure.
        seconds: from launch to end, everything included.
        report: the ingestion's closing report, empty where it left none.
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


def materialise_day(
    home: DemoHome, webserver: Webserver, dagster: Guarded, storage_day: date, report: Callable[[str], None]
) -> DayResult:
    """Launch a run that materialises every asset of one day, follow it to its end, and return its result."""
    started = time.monotonic()
    assets = webserver.assets_of(COLLECTION)
    run_id = webserver.launch_run(assets, str(storage_day), tags={REQUESTED_BY_TAG: "cdi demo"})
    status, checks = _follow(webserver, dagster, run_id, report)
    left = _left_by_run(home, storage_day, run_id)
    if status != "SUCCESS":
        status = str(left.get("failure", {}).get("failure_class", status))
    return DayResult(
        storage_day=storage_day,
        run_id=run_id,
        status=status,
        seconds=time.monotonic() - started,
        report=left.get("ingest_report", {}),
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


def _left_by_run(home: DemoHome, storage_day: date, run_id: str) -> dict[str, Any]:
    """Return the reports and the failure that the run left, by name without `.json`; its id is the correlation id."""
    prefix = run_prefix(COLLECTION.on(storage_day), run_id)
    left = {}
    for name in ("ingest_report", "tables_report", "failure"):
        with contextlib.suppress(ObjectMissingError):
            left[name] = json.loads(home.published.read(f"{prefix}{name}.json"))
    return left
