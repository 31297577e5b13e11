"""No plaintext and no data key outside the published outputs: after good runs and failing ones, and while they run."""

import base64
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cdi_dagster.core.storage_keys import daily_records_prefix, run_prefix, tables_prefix
from cdi_dagster.definitions import build_definitions
from cdi_dagster.names import table_keys
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.leaks.leak_search import Secrets, Watcher, leaks
from cdi_dagster_tests.leaks.planted_day import (
    BAD_KEY,
    BAD_VALUE,
    DATA_KEYS,
    KEY,
    NESTED,
    SECRETS,
    TEXTS,
    VALUE,
    bad_envelopes,
    good_envelopes,
    write_day,
)
from cdi_dagster_tests.spark.scripted_key_service import ScriptedHandler, ScriptedKeyService, slow, status
from cdi_dagster_tests.waiting import wait_until

DAY = date(2023, 3, 26)
INPUT = "corporate_storage/business_audit"
RECORDS = "business_audit/daily_records"

# Python runs this file as it starts: the engine in Spark's workers then fails as nobody foresaw, with all it knows.
BROKEN_ENGINE = """
import sys
if any("worker_daemon" in part for part in sys.orig_argv):
    from cdi_dagster.spark.records import decrypt, fast
    data_keys = []
    def decryptor(data_key, ordinary=decrypt._decryptor):
        data_keys.append(data_key)
        return ordinary(data_key)
    def write(plaintext, *rest):
        try:
            raise ValueError(plaintext.decode())
        except ValueError as cause:
            cause.add_note(repr(data_keys))
            raise RuntimeError(plaintext, data_keys, plaintext.decode()) from cause
    decrypt._decryptor, fast.write = decryptor, write
"""

# And this makes the rows of the tables fail in the workers, with errors that quote the records.
BROKEN_TABLES = """
import sys
if any("worker_daemon" in part for part in sys.orig_argv):
    from cdi_dagster.spark.tables.columns import ColumnReader
    def read(self, text, count):
        try:
            raise ValueError(text.decode())
        except ValueError as cause:
            raise RuntimeError(text, text.decode()) from cause
    ColumnReader.read = read
"""


@dataclass
class Run:
    """One run of the real code location: how it ended, and what was found while it ran."""

    result: dg.ExecuteInProcessResult
    watcher: Watcher

    @property
    def failure(self) -> dict[str, Any]:
        (event,) = [event for event in self.result.all_events if event.is_step_failure]
        data = event.step_failure_data.user_failure_data
        assert data is not None, event.step_failure_data.error
        return {name: value.value for name, value in data.metadata.items()}


class Installation:
    """A home with a real DAGSTER_HOME, real Spark with event log and uncompressed spill, its own temp folder."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.home = home
        self._instance = instance
        self._settings = load_settings(home=home)
        self.corporate = open_storage(self._settings.corporate_root)
        self.published = open_storage(self._settings.published_root)
        self._event_logs = home / "spark-events"
        self._event_logs.mkdir()

    @property
    def outputs(self) -> list[Path]:
        """Where plaintext is meant to be."""
        root = Path(self._settings.published_root.removeprefix("file://"))
        return [root / daily_records_prefix(AUDIT.on(DAY)).partition("json/")[0] / "json", root / tables_prefix()]

    @property
    def unpublished(self) -> Path:
        """Where outputs are while they are written."""
        return Path(self._settings.published_root.removeprefix("file://")) / ".cdi-staging"

    def settings(self, dks_url: str, *, event_log: bool) -> Settings:
        return load_settings(
            home=self.home,
            dks_url=dks_url,
            dks_retry_budget_seconds=1,
            spark_master="local[2,4]",
            spark_driver_memory="1g",
            spark_conf={
                "spark.eventLog.enabled": str(event_log).lower(),
                "spark.eventLog.dir": self._event_logs.as_uri(),
                **dict.fromkeys(
                    ("spark.shuffle.compress", "spark.shuffle.spill.compress", "spark.broadcast.compress"), "false"
                ),
                # A task's result goes through Spark's block store, not straight to the driver.
                "spark.task.maxDirectResultSize": "1",
            },
        )

    def run(
        self,
        storage_day: date,
        service: ScriptedKeyService,
        assets: Sequence[str] = (INPUT, RECORDS),
        *,
        event_log: bool = True,
    ) -> Run:
        definitions = build_definitions(settings=self.settings(service.url, event_log=event_log))
        job = definitions.resolve_job_def(f"{AUDIT.asset_name}_daily")
        # What is removed again; what stays is searched afterwards.
        watcher = Watcher([self.home / "runs", self.home / "temp"], SECRETS)
        with watcher:
            result = job.execute_in_process(
                partition_key=storage_day.isoformat(),
                instance=self._instance,
                raise_on_error=False,
                asset_selection=[dg.AssetKey.from_user_string(name) for name in assets] or None,
            )
        return Run(result, watcher)

    def require_no_leak(self, run: Run) -> None:
        assert run.watcher.found == {}
        assert leaks(self.home, SECRETS, besides=self.outputs) == {}
        assert [path for path in self.unpublished.rglob("*") if path.is_file() and "locks" not in path.parts] == []


@contextmanager
def temp_folders_below(home: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = home / "temp"
    folder.mkdir()
    patch.setenv("TMPDIR", str(folder))
    patch.setattr(tempfile, "tempdir", None)
    patch.setenv("JAVA_TOOL_OPTIONS", f"-Djava.io.tmpdir={folder}")
    yield


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("home")
    dagster_home = home / "dagster_home"
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.MonkeyPatch.context() as patch, temp_folders_below(home, patch):
        patch.setenv("DAGSTER_HOME", str(dagster_home))
        with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
            yield Installation(home, instance)


def rows_of(installation: Installation, storage_day: date) -> list[bytes]:
    prefix = daily_records_prefix(AUDIT.on(storage_day))
    return [
        line
        for stored in installation.published.list(prefix)
        if stored.key.endswith(".gz")
        for line in gzip.decompress(installation.published.read(stored.key)).splitlines()
    ]


@pytest.fixture(scope="module")
def good_run(installation: Installation) -> Run:
    write_day(installation.corporate, DAY, good_envelopes(120))
    with ScriptedKeyService(afterwards=slow(0.3)) as service:  # time to look at what is there meanwhile
        run = installation.run(DAY, service, assets=())
    assert run.result.success
    return run


@pytest.mark.spark
def test_a_good_run_leaves_plaintext_in_its_outputs_only(installation: Installation, good_run: Run) -> None:
    run = good_run
    lines = rows_of(installation, DAY)
    assert len(lines) == 120
    assert all(text.encode() in b"".join(lines) for text in (VALUE, NESTED, KEY))
    installation.require_no_leak(run)
    # It was looked where leaks would be: Spark's scratch space and event log, the run page's events and step logs.
    for job in ("ingest_daily", "publish_tables"):
        assert any(f"/{job}-" in folder and "/spark-" in folder for folder in run.watcher.looked_into)
    there = {path.name: path.stat().st_size for path in installation.home.rglob("*") if path.is_file()}
    assert there["ingest_daily.log"]
    assert there[f"{run.result.run_id}.db"]
    assert sum(size for name, size in there.items() if name.endswith(".err")) > 1_000
    assert sum(size for name, size in there.items() if name.startswith("local-")) > 10_000


@pytest.mark.spark
def test_rejects_over_the_limit_leave_none(installation: Installation) -> None:
    day = DAY + timedelta(days=1)
    bad = bad_envelopes()
    write_day(installation.corporate, day, good_envelopes(60) + bad)
    with ScriptedKeyService() as service:
        run = installation.run(day, service)
    assert run.failure["failure_class"] == "RECORDS_REJECTED"
    reasons = ("ciphertext", "payload", "audit", "date", "encoding", "encryption")
    assert all(f"| {reason} |" in run.failure["reject_samples"] for reason in reasons)
    kept = list(installation.published.list(f"{run_prefix(AUDIT.on(day), run.result.run_id)}rejects/"))
    lines = b"".join(gzip.decompress(installation.published.read(stored.key)) for stored in kept[1:]).splitlines()
    assert sorted(json.loads(line)["envelope"].encode() for line in lines) == sorted(bad)
    installation.require_no_leak(run)


@pytest.mark.spark
@pytest.mark.parametrize("trouble", ["damaged gzip", "key service refuses", "key service is down", "unforeseen"])
def test_a_failing_run_leaves_none(
    installation: Installation, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, days_on, answer = {
        "damaged gzip": ("INPUT_INVALID", 2, None),
        "key service refuses": ("DKS_FORBIDDEN", 3, 403),
        "key service is down": ("DKS_UNAVAILABLE", 4, 503),
        "unforeseen": ("JOB_FAILED", 5, None),
    }[trouble]
    day = DAY + timedelta(days=days_on)
    write_day(installation.corporate, day, good_envelopes(120), damaged=trouble == "damaged gzip")
    if trouble == "unforeseen":
        (tmp_path / "sitecustomize.py").write_text(BROKEN_ENGINE)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # In trouble only after some keys were given, so that there is something to leak.
    first = [ScriptedHandler.as_usual] * 2
    afterwards: Callable[[ScriptedHandler], None] = status(answer) if answer else ScriptedHandler.as_usual
    with ScriptedKeyService(*first, afterwards=afterwards) as service:
        run = installation.run(day, service)
    assert run.failure["failure_class"] == expected
    if trouble == "unforeseen":
        assert "RuntimeError in write" in run.failure["cause"]
    assert rows_of(installation, day) == []
    installation.require_no_leak(run)


@pytest.mark.spark
def test_tables_whose_rows_fail_leave_none(
    installation: Installation, good_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN_TABLES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ScriptedKeyService() as service:
        tables = [key.to_user_string() for key in table_keys(AUDIT)]
        run = installation.run(DAY, service, tables)
    assert run.failure["failure_class"] == "JOB_FAILED"
    assert "RuntimeError in read" in run.failure["cause"]
    installation.require_no_leak(run)


def test_the_search_finds_every_form_of_a_secret_wherever_it_lies(tmp_path: Path) -> None:
    secret = DATA_KEYS[0]
    forms = [
        secret,
        repr(secret).encode(),
        secret.hex().encode(),
        *(json.dumps({"k": f"{'x' * n}{VALUE}"}).encode() for n in range(3)),
        gzip.compress(b"first") + gzip.compress(VALUE.encode()),
        gzip.compress(VALUE.encode() * 50, mtime=0)[:-6],
        VALUE.encode("utf-16-le"),
    ]
    forms += [base64.b64encode(b"y" * n + secret + b"z") for n in range(3)]
    forms += [base64.b64encode(secret)]
    for number, form in enumerate(forms):
        (tmp_path / f"{number}").write_bytes(b"before " * (form[:1] != b"\x1f") + form)
    assert len(leaks(tmp_path, SECRETS)) == len(forms)
    assert leaks(tmp_path, SECRETS, besides=[tmp_path]) == {}
    assert leaks(tmp_path, Secrets({"another": BAD_VALUE.encode(), "too": BAD_KEY.encode()})) == {}
    assert TEXTS


def test_the_watcher_sees_what_is_there_for_a_moment(tmp_path: Path) -> None:
    with Watcher([tmp_path], SECRETS) as watcher:
        (tmp_path / "spill").write_bytes(b"x" + NESTED.encode())
        wait_until(lambda: watcher.found, "it is seen")
        (tmp_path / "spill").unlink()
    assert watcher.found == {str(tmp_path / "spill"): {"nested value"}}
