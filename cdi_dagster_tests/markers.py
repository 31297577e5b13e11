"""A test that starts Spark, a Dagster server or a browser fails unless its marker says that it does.

So `make test-quick` can leave these out by their markers. A pytest plugin, registered in the conftest beside it.
"""

import os
import re
import threading
from collections.abc import Generator

import pytest

from cdi_dagster_tests.processes import descendants_of

MARKERS_BY_COMMAND = {
    "spark": re.compile(r"java (?!.*-version)"),
    "daemon": re.compile(r"python\S* .*\bdagster(_webserver|\._daemon| dev| api grpc| code-server)\b"),
    "browser": re.compile(r"chrom|headless_shell"),
}
"""How a program's name and arguments begin that only a test with the marker may start."""

LOOK_EVERY_SECONDS = 0.2
"""Short against the life of a JVM or a server, long against the 2 ms of a look."""


class MarkerGuard:
    """Looks at what each test starts."""

    def __init__(self) -> None:
        self._markers: set[str] | None = None  # of the test that runs
        self._missing: dict[str, str] = {}  # markers of that test by what it did
        self._known: set[int] = set()  # processes that were counted
        self._lock = threading.Lock()
        threading.Thread(target=self._look_again_and_again, name="marker guard", daemon=True).start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark what uses the shared Spark, before pytest selects by markers: it is started for the first test only."""
        for item in items:
            if "spark" in getattr(item, "fixturenames", ()):
                item.add_marker("spark")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin to look."""
        self._look()  # what is there already is of the tests before
        self._missing, self._markers = {}, {marker.name for marker in item.iter_markers()}
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, None]:
        """Fail the test if a marker was missing."""
        yield
        self._look()
        self._markers = None
        if self._missing:
            lines = [f"mark it @pytest.mark.{marker}: it {what}" for marker, what in self._missing.items()]
            pytest.fail("\n".join(lines), pytrace=False)

    def _look_again_and_again(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        with self._lock:
            for process in descendants_of(os.getpid()):
                for marker, pattern in MARKERS_BY_COMMAND.items():
                    if process.pid not in self._known and pattern.match(f"{process.program} {process.arguments}"):
                        self._known.add(process.pid)
                        self._require(marker, f"started {process.command[:200]}")

    def _require(self, marker: str, what: str) -> None:
        if self._markers is not None and marker not in self._markers:
            self._missing.setdefault(marker, what)
