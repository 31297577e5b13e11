"""`cdi watch` reports what nothing else can: days that are not there, a dead daemon, an unreadable root."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cdi_dagster.cli.servers import REPOSITORY, Guarded
from cdi_dagster.core.storage_keys import mark_key, tables_report_key
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.cli.conftest import Cdi
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.gate.hearing import hearing
from cdi_dagster_tests.gate.instigators import publish_mark
from cdi_dagster_tests.processes import descendants_of
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, last_lines_of, reserved_port, wait_until

WATCH = ("watch", "--collection", AUDIT.id)


@pytest.fixture
def late_days() -> Iterator[list[date]]:
    """The last two storage days: both are late from 00:01 UTC on, and midnight must not come in the middle."""
    mid_morning = datetime.now(UTC).replace(hour=10, minute=0)
    yesterday = mid_morning.date() - timedelta(days=1)
    with clock_at(mid_morning):
        yield [yesterday - timedelta(days=1), yesterday]


@pytest.fixture
def times(late_days: list[date]) -> dict[str, str]:
    return {"CDI_FIRST_STORAGE_DAY": str(late_days[0]), "CDI_DUE_TIME": "00:00", "CDI_LATE_TIME": "00:01"}


def _publish(home: Path, *days: date) -> None:
    place = SimpleNamespace(
        corporate=open_storage((home / "corporate").as_uri()), published=open_storage((home / "published").as_uri())
    )
    for day in days:
        publish_mark(place, day, at=datetime.now(UTC))


def test_days_that_are_not_published_are_one_line_and_well_is_exit_0(
    cdi: Cdi, home: Path, late_days: list[date], times: dict[str, str]
) -> None:
    (home / "published").mkdir(parents=True)
    answer = cdi(*WATCH, "--only", "published", **times)
    assert (answer.exit_code, answer.stderr) == (1, "")
    deadline = f"deadline: 00:01 UTC of {late_days[1] + timedelta(days=1)}"
    days = ", ".join(map(str, late_days))
    assert answer.stdout == f"data:businessAudit: not published: storage days {days} ({deadline})\n"
    _publish(home, *late_days)
    answer = cdi(*WATCH, "--only", "published", **times)
    assert (answer.exit_code, answer.stdout) == (0, "All is well.\n")
    # Of the other collections nothing is there.
    answer = cdi("watch", "--only", "published", "--json", **times)
    assert answer.exit_code == 1
    assert [":".join(reason.split(":")[:2]) for reason in answer.json["reasons"]] == [
        "data:equality",
        "calculator:calculationParts",
    ]


def test_records_without_their_tables_are_no_published_day_and_a_damaged_mark_is_named(
    cdi: Cdi, home: Path, late_days: list[date], times: dict[str, str]
) -> None:
    _publish(home, *late_days)
    published = open_storage((home / "published").as_uri())
    published.delete([tables_report_key(AUDIT.on(late_days[0]), "a-run")])
    published.write(mark_key(AUDIT.on(late_days[1])), b"{")
    answer = cdi(*WATCH, "--only", "published", **times)
    assert answer.exit_code == 1
    tables, mark = answer.stdout.splitlines()
    assert f"tables ({', '.join(AUDIT.table_names)}) are not published: storage day {late_days[0]}" in tables
    assert "_SUCCESS cannot be read" in mark


def test_a_daemon_that_never_ran_and_a_home_that_is_gone_are_reasons(cdi: Cdi, home: Path) -> None:
    """The databases of a home are its daemon's to make: two processes that make them at once break them for good."""
    answer = cdi("watch", "--only", "daemon")
    assert answer.exit_code == 1
    assert f"There is no Dagster home at {home / 'dagster_home'}: set DAGSTER_HOME" in answer.stdout
    dagster_home = _dagster_home(home)
    while_it_is_made = dagster_home / "history" / "runs.db"
    for _ in range(2):
        answer = cdi("watch", "--only", "daemon")
        assert answer.stdout == f"The Dagster daemon of {dagster_home} is not running: it never ran\n"
        assert answer.exit_code == 1
        assert not (dagster_home / "schedules").exists()
        while_it_is_made.parent.mkdir(exist_ok=True)
        while_it_is_made.touch()


@pytest.mark.parametrize("in_the_way", ["file", "closed port"])
def test_a_root_that_cannot_be_read_is_a_reason_and_is_alerted(
    cdi: Cdi, tmp_path: Path, times: dict[str, str], in_the_way: str
) -> None:
    (tmp_path / "a_file").write_text("in the way")
    root = {"CDI_PUBLISHED_ROOT": (tmp_path / "a_file" / "published").as_uri()}
    with reserved_port() as port, hearing() as heard:
        if in_the_way == "closed port":
            root = {"CDI_PUBLISHED_ROOT": "s3://bucket", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
            root |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-west-2"}
        answer = cdi(*WATCH, "--only", "published", "--alert", **times, **root, CDI_ALERT_TARGET=heard.url)
        (alert,) = heard.of("WATCH")
    assert answer.exit_code == 1
    (line,) = answer.stdout.splitlines()
    assert line.startswith("The published root cannot be read: ")
    assert "Traceback" not in answer.stderr
    assert alert["text"] == line


def test_an_alert_is_sent_once_and_the_recovery_once_also_where_the_target_is_down_first(
    cdi: Cdi, home: Path, late_days: list[date], times: dict[str, str]
) -> None:
    (home / "published").mkdir(parents=True)
    with hearing(500) as heard:

        def watch() -> tuple[int, str]:
            answer = cdi(*WATCH, "--only", "published", "--alert", **times, CDI_ALERT_TARGET=heard.url)
            return answer.exit_code, answer.stdout

        exit_code, text = watch()
        assert exit_code == 1
        assert "The alert could not be sent, the next run retries: " in text
        heard.alerts.clear()
        assert [watch()[0] for _ in range(2)] == [1, 1]
        (alert,) = heard.alerts
        assert alert["kind"] == "WATCH"
        assert alert["text"].startswith("data:businessAudit: not published: ")
        assert alert["owner"]
        assert alert["next_step"]
        _publish(home, *late_days)
        assert [watch() for _ in range(2)] == [(0, "All is well.\n")] * 2
        assert [alert["kind"] for alert in heard.alerts] == ["WATCH", "WATCH_OVER"]
        assert "well again" in heard.alerts[1]["title"]
        assert heard.alerts[1]["text"] == "Every watched day and snapshot is published by its deadline."


def test_alert_without_a_target_is_used_wrongly(cdi: Cdi) -> None:
    answer = cdi("watch", "--alert")
    assert answer.exit_code == 2
    assert "--alert needs CDI_ALERT_TARGET" in answer.stderr


@pytest.mark.daemon
@pytest.mark.kill
def test_a_daemon_whose_disk_is_full_or_that_is_killed_is_noticed_and_its_recovery_too(
    cdi: Cdi, home: Path, tmp_path: Path
) -> None:
    """A real daemon, first on a full disk (its files may not grow), then with room again, then killed."""
    dagster_home = _dagster_home(home)
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(tmp_path / "workspace.yaml")]
    environment = os.environ | {"DAGSTER_HOME": str(dagster_home)}
    log = tmp_path / "daemon.log"
    with hearing() as heard, Guarded(command, environment=environment, log_path=log):
        answers: list[Any] = []

        def sees(exit_code: int) -> bool:
            options = ("--only", "daemon", "--alert", "--heartbeat-seconds", "45")
            answer = cdi("watch", *options, CDI_ALERT_TARGET=heard.url)
            assert answer.exit_code in (0, 1), answer.stderr
            answers.append(answer)
            return answer.exit_code == exit_code

        def seen() -> str:
            return f"{answers[-1].stdout}Daemons {_daemons()}\n{last_lines_of(log)}"

        def wait_for(exit_code: int, what: str) -> None:
            wait_until(lambda: sees(exit_code), what, seen=seen, pause_seconds=8)

        wait_for(0, "the daemon has left its first heartbeat")
        heard.alerts.clear()
        (daemon,) = _daemons()
        resource.prlimit(daemon, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        wait_for(1, "the daemon with a full disk is noticed")
        resource.prlimit(daemon, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert _daemons() == [daemon], last_lines_of(log)
        wait_for(0, "the daemon has room again")
        os.kill(daemon, 9)
        wait_for(1, "the killed daemon is noticed")
        assert [alert["kind"] for alert in heard.alerts] == ["WATCH", "WATCH_OVER", "WATCH"]
        assert "is not running: its last heartbeat was " in heard.alerts[-1]["text"]


def test_on_a_full_disk_of_its_own_it_still_reports_and_alerts(
    home: Path, tmp_path: Path, times: dict[str, str]
) -> None:
    """Files of the command's process may not grow at all, as on a disk without room."""
    _dagster_home(home)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CDI_", "DAGSTER_HOME"))}
    with hearing() as heard:
        environment = {**clean, "CDI_HOME": str(home), **times, "CDI_ALERT_TARGET": heard.url}
        limited = (
            "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
            "sys.argv[0] = 'cdi'; runpy.run_module('cdi_dagster.cli', run_name='__main__')"
        )
        ended = subprocess.run(
            [sys.executable, "-B", "-c", limited, *WATCH, "--alert"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
    assert ended.returncode == 1, ended.stderr
    assert "The published root cannot be read: " in ended.stdout
    assert "daemon" in ended.stdout
    assert [alert["kind"] for alert in heard.alerts] == ["WATCH"]
    assert "watch.json cannot be written, so the next run sends the alert again" in ended.stderr


def _daemons() -> list[int]:
    command = f"{sys.executable} -m dagster._daemon "
    return [process.pid for process in descendants_of(os.getpid()) if process.command.startswith(command)]


def _dagster_home(home: Path) -> Path:
    dagster_home = home / "dagster_home"
    dagster_home.mkdir(parents=True)
    shutil.copyfile(REPOSITORY / "deploy" / "dagster.yaml", dagster_home / "dagster.yaml")
    return dagster_home


def test_what_was_alerted_is_kept_beside_the_home_and_nonsense_there_is_no_state(
    cdi: Cdi, home: Path, times: dict[str, str]
) -> None:
    home.mkdir()
    (home / "watch.json").write_text("[]")
    with hearing() as heard:
        cdi(*WATCH, "--only", "published", "--alert", **times, CDI_ALERT_TARGET=heard.url)
    assert len(heard.alerts) == 1
    assert json.loads((home / "watch.json").read_text())["alerted_at"]
