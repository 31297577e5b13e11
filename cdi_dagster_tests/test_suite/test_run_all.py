"""The runner of all tests: it loses no package, no failure and no output, however a package ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cdi_dagster_tests import run_all
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

PACKAGES = {
    "good": "import atexit\natexit.register(print, 'said after pytest')\ndef test_one(): pass\ndef test_two(): pass",
    "bad": "def test_one(): pass\ndef test_two():\n    print('what it printed')\n    raise ValueError('why')",
    "broken": "import no_such_module",
    "killed": "import os, signal\ndef test_one(): os.kill(os.getpid(), signal.SIGKILL)",
    "marked": "import pytest\n@pytest.mark.spark\ndef test_one(): pass",
    "slow": "import time\nfrom pathlib import Path\n"
    "def test_one():\n    Path('started').touch()\n    time.sleep(60)\n"
    "def teardown_module(): Path('cleaned').touch()",
}


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take half of the start of each pytest
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # whoever selects tests does not mean these
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\nmarkers =\n  spark: starts Spark\n")
    for name, tests in PACKAGES.items():
        package = tmp_path / "suite" / name
        package.mkdir(parents=True)
        (package / f"test_{name}.py").write_text(tests)
    return tmp_path / "suite"


def run(suite: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(suite, *arguments), capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )


def command(suite: Path, *arguments: str) -> list[str]:
    program = "import sys; from pathlib import Path; from cdi_dagster_tests.run_all import main; "
    program += "sys.exit(main(sys.argv[2:], folder=Path(sys.argv[1])))"
    return [sys.executable, "-c", program, str(suite), *arguments]


def test_a_failure_of_any_kind_is_shown_and_fails_the_whole(suite: Path) -> None:
    ran = run(suite, "good", "bad", "broken", "killed")
    assert ran.returncode == 1
    assert sorted(ran.stderr.split()) == ["Failed:", "bad", "broken", "killed"]
    closing = [line.rpartition(" in ")[0] for line in ran.stdout.splitlines()]
    assert {"2 passed", "1 failed, 1 passed", "1 error"} <= set(closing)
    assert "So far 4 of 4 packages, 3 passed, 2 failed, " in ran.stdout
    at_the_end = ran.stdout.partition("So far 4 of 4")[2]
    for output in ("== bad failed with exit code 1:", "what it printed", "ValueError: why", "no_such_module"):
        assert output in at_the_end
    assert "== killed failed with exit code -9:" in at_the_end
    assert ran.stdout.splitlines()[-1] == "== 3 passed, 2 failed, 0 skipped"


def test_a_package_without_a_selected_test_is_no_failure(suite: Path) -> None:
    ran = run(suite, "good", "marked", "-m", "not spark")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "1 deselected in" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "== 2 passed, 0 failed, 0 skipped"


@pytest.mark.kill
def test_terminated_it_starts_no_other_package_and_lets_the_running_one_clean_up(suite: Path) -> None:
    with subprocess.Popen(command(suite, "slow", "good", "-w", "1"), stdout=subprocess.PIPE, text=True) as process:
        wait_until((suite.parent / "started").exists, "the slow package is at work", seen=process.poll)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert (suite.parent / "cleaned").exists()
    assert "== slow: FAILED" in output
    assert "good: ok" not in output


def test_every_folder_with_tests_is_run_and_the_longest_first() -> None:
    packages = run_all.packages_of_tests()
    assert packages[: len(run_all.LONGEST_FIRST)] == list(run_all.LONGEST_FIRST)
    assert {path.parent.name for path in run_all.TESTS.glob("*/test_*.py")} <= set(packages)
    assert len(packages) == len(set(packages))


def test_a_file_with_a_process_of_its_own_is_run_once_and_with_its_package(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (suite / "good" / "test_long.py").write_text("def test_three(): pass")
    monkeypatch.setattr(run_all, "LONGEST_FIRST", ("bad", "good/test_long.py"))
    assert run_all.packages_of_tests(suite, ["good", "bad"]) == ["good/test_long.py", "good", "bad"]
    assert run_all.packages_of_tests(suite)[:3] == ["bad", "good/test_long.py", "broken"]
    options = ["-p", "no:cacheprovider"]
    ran = list(run_all.run_packages(["good/test_long.py", "good"], options, workers=1, folder=suite))
    assert [(ended.package, ended.counts["passed"]) for ended in ran] == [("good/test_long.py", 1), ("good", 2)]


@pytest.mark.parametrize(
    ("cpu", "memory", "workers"),
    [
        ("200000 100000", "max", 3),
        ("50000 100000", "max", 2),
        ("max 100000", "max", 5),
        ("max 100000", str(1 << 30), 1),
    ],
)
def test_a_container_is_given_what_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: str, memory: str, workers: int
) -> None:
    machine = {"SC_PHYS_PAGES": 4 << 20, "SC_PAGE_SIZE": 4096}  # 16 GiB
    monkeypatch.setattr(os, "sysconf", machine.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(f"{cpu}\n")
    (tmp_path / "memory.max").write_text(f"{memory}\n")
    assert run_all.usual_workers(tmp_path) == workers
