"""The guard of the markers: nothing that is left out of `make test-quick` starts in a test without its marker."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
# What these start is only named like it, but the guard goes by the name.
pytestmark = [pytest.mark.spark, pytest.mark.daemon, pytest.mark.browser]

CONFTEST = """
from cdi_dagster_tests.markers import MarkerGuard

def pytest_configure(config):
    config.pluginmanager.register(MarkerGuard())
    for marker in ("spark", "daemon", "browser"):
        config.addinivalue_line("markers", marker)
"""
STARTS = {
    "spark": "subprocess.run(['./java', '-c', 'sleep 0.5; true'])",
    "daemon": "subprocess.run([sys.executable, '-c', 'import time; time.sleep(0.5)', '-m', 'dagster._daemon'])",
    "browser": "subprocess.run(['./chromium', '-c', 'sleep 0.5; true'])",
}


@pytest.fixture
def tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    for name in ("java", "chromium"):
        (pytester.path / name).symlink_to("/bin/sh")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take half of the start of each pytest
    return pytester


def run(tests: pytest.Pytester, what: str, marker: str = "") -> pytest.RunResult:
    decorator = f"@pytest.mark.{marker}\n" if marker else ""
    tests.makepyfile(f"import subprocess, sys, pytest\n{decorator}def test_it():\n    {what}")
    return tests.runpytest_subprocess("-p", "no:cacheprovider")


@pytest.mark.parametrize("marker", STARTS)
def test_a_test_without_the_marker_fails_and_with_it_passes(tests: pytest.Pytester, marker: str) -> None:
    without = run(tests, STARTS[marker])
    without.assert_outcomes(passed=1, errors=1)
    without.stdout.fnmatch_lines([f"mark it @pytest.mark.{marker}: it *"])
    run(tests, STARTS[marker], marker).assert_outcomes(passed=1)


def test_what_a_command_of_the_test_starts_counts_too_and_asking_for_a_version_does_not(
    tests: pytest.Pytester,
) -> None:
    run(tests, "subprocess.run(['sh', '-c', './java -c \"sleep 0.5; true\"; true'])").assert_outcomes(
        passed=1, errors=1
    )
    run(tests, "subprocess.run(['./java', '-c', 'sleep 0.5; true', '-version'])").assert_outcomes(passed=1)


def test_what_a_test_before_started_counts_for_that_test_only(tests: pytest.Pytester) -> None:
    tests.makepyfile(
        "import subprocess, time, pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def shared():\n"
        "    with subprocess.Popen(['./java', '-c', 'read line; true'], stdin=subprocess.PIPE) as process:\n"
        "        yield process\n"
        "        process.stdin.close()\n"
        "@pytest.mark.spark\n"
        "def test_one(shared): time.sleep(0.5)\n"
        "def test_two(): time.sleep(0.5)\n"
    )
    tests.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_whoever_uses_the_shared_spark_is_marked_by_it_and_selected_by_it(tests: pytest.Pytester) -> None:
    tests.makepyfile(
        "import pytest\n"
        "@pytest.fixture\n"
        "def spark(): return None\n"
        "def test_it(spark, request): assert request.node.get_closest_marker('spark')\n"
        "def test_without(): pass\n"
    )
    for selected in ("spark", "not spark"):
        tests.runpytest_subprocess("-p", "no:cacheprovider", "-m", selected).assert_outcomes(passed=1, deselected=1)
