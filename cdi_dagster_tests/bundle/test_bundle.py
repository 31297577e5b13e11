"""The bundle as a cluster meets it: fetched, checked, installed without an index, and run without dagster."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import cdi_dagster
from cdi_dagster.bundle.build import Bundle, build_bundle
from cdi_dagster.bundle.source_digest import source_digest, why_not_this_code
from cdi_dagster.cli.app import cdi
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.package_index import require_package_index
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

CONSTRAINTS = Path(cdi_dagster.__file__).parents[1] / "constraints.txt"
BOOTSTRAP = Path(cdi_dagster.__file__).parent / "bundle" / "bootstrap.sh"

pytestmark = [
    pytest.mark.slow,  # pip downloads and builds the wheels, and installs them into an environment
    pytest.mark.skipif(
        shutil.which("python3.11") is None, reason="the bundle's wheels are for Python 3.11, which is not on PATH"
    ),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    require_package_index()
    return build_bundle(tmp_path_factory.mktemp("bundles"), constraints=CONSTRAINTS)


@pytest.fixture(scope="module")
def installed(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix that a bootstrap of the bundle filled, with every index out of reach."""
    prefix = tmp_path_factory.mktemp("opt") / "cdi"
    done = bootstrap(bundle.folder, prefix)
    assert done.returncode == 0, done.stderr
    return prefix


def bootstrap(folder: Path, prefix: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(prefix.parent),
        "CDI_PREFIX": str(prefix),
        "PIP_INDEX_URL": "http://127.0.0.1:9/nothing",
        "PIP_CONFIG_FILE": os.devnull,
    }
    return subprocess.run(
        ["bash", "-c", 'umask 027 && exec bash "$0" "$1"', str(BOOTSTRAP), str(folder)],  # as on hardened images
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def test_the_same_sources_give_the_same_bundle(bundle: Bundle) -> None:
    again = build_bundle(bundle.folder.parent, constraints=CONSTRAINTS)
    assert again == bundle
    assert [path.name for path in bundle.folder.parent.iterdir()] == [bundle.id]


def test_it_holds_no_dagster_and_no_pyspark(bundle: Bundle) -> None:
    names = {path.name.split("-")[0] for path in (bundle.folder / "wheels").iterdir()}
    assert "cdi_dagster_spark" in names
    assert names.isdisjoint({"dagster", "dagster_aws", "dagster_shared", "pyspark"})


def test_it_installs_without_an_index_and_the_jobs_import_without_dagster(installed: Path) -> None:
    program = (
        "import sys; sys.path.append(sys.argv[1]); "
        "import cdi_dagster.spark.ingest.job, cdi_dagster.spark.tables.job, cdi_dagster.spark.cluster_checks.job; "
        "import importlib.util as u; "
        "print([u.find_spec(name) is not None for name in ('dagster', 'dagster_aws')])"
    )
    # pyspark (and py4j) are the cluster's own: here those of this environment, and nothing else of it.
    only_pyspark = installed / "pyspark-only"
    only_pyspark.mkdir()
    import py4j
    import pyspark

    for package in (pyspark, py4j):
        folder = Path(package.__file__).parent
        (only_pyspark / folder.name).symlink_to(folder)
    python = installed / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", program, only_pyspark],
        capture_output=True,
        text=True,
        check=False,
        cwd=installed,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[False, False]"
    assert (installed / "log4j2.json").read_text() == (
        Path(cdi_dagster.__file__).parent / "spark" / "log4j2.json"
    ).read_text()


def test_the_doctor_finds_every_wheel_at_its_version_and_names_one_that_was_replaced(installed: Path) -> None:
    program = (
        "import json; from cdi_dagster.spark.cluster_checks.node import check_python; "
        "print(json.dumps(check_python(None).to_json()))"
    )

    def finding() -> dict[str, Any]:
        command = [installed / "venv" / "bin" / "python", "-c", program]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=installed).stdout
        return dict(json.loads(printed))

    pins = installed / "bundle" / "requirements.txt"
    before = pins.read_text()
    found = finding()
    assert found["result"] == "ok", found
    assert f"{len(before.splitlines())} wheels of the bundle import at their pinned versions" in found["text"]
    try:
        pins.write_text(before.replace("orjson==", "orjson==0."))
        found = finding()
        assert found["result"] == "failed"
        assert "orjson is" in found["text"]
    finally:
        pins.write_text(before)


@pytest.mark.spark
def test_the_installed_job_runs_a_day(installed: Path, tmp_path: Path) -> None:
    """The whole job from the bundle: its own Python, its own entry point, the cluster's Spark."""
    from datetime import date

    import pyspark

    from cdi_dagster.core.collections import find_collection
    from cdi_dagster.core.storage_keys import daily_records_prefix, pinned_input_key
    from cdi_dagster.demo.key_service import DevelopmentKeyService
    from cdi_dagster.demo.sample import write_sample
    from cdi_dagster.ingestion.pinning import pin_storage_day

    collection, day = find_collection("data:businessAudit"), date(2023, 3, 26)
    corporate, published = (open_storage((tmp_path / name).as_uri()) for name in ("corporate", "published"))
    write_sample(corporate, collection.on(day), records=200, objects=4, seed=1)
    pin_storage_day(Roots(corporate=corporate, published=published), collection.on(day))
    spark_home = Path(pyspark.__file__).parent
    python = str(installed / "venv" / "bin" / "python")
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "SPARK_HOME": str(spark_home),
    }
    environment.pop("PYTHONPATH", None)
    with DevelopmentKeyService() as key_service:
        done = subprocess.run(
            [
                *(str(spark_home / "bin" / "spark-submit"), "--master", "local[2]"),
                *("--conf", "spark.driver.host=127.0.0.1", "--conf", "spark.ui.enabled=false"),
                str(installed / "entry_points" / "ingest_daily.py"),
                *("--pinned-input", published.uri(pinned_input_key(collection.on(day)))),
                *("--published-root", published.root, "--correlation-id", "bundle-test", "--dks-url", key_service.url),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=PATIENCE_SECONDS,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    mark = json.loads(published.read(f"{daily_records_prefix(collection.on(day))}_SUCCESS"))
    assert mark["published"] == 200


def test_every_user_may_use_what_is_installed_also_under_a_strict_umask(installed: Path) -> None:
    closed = [
        path
        for path in (installed, *installed.rglob("*"))
        if not path.is_symlink() and not path.stat().st_mode & (stat.S_IXOTH if path.is_dir() else stat.S_IROTH)
    ]
    assert closed == []


def test_its_name_begins_with_the_digest_of_the_code_it_was_made_of(bundle: Bundle) -> None:
    assert bundle.id.startswith(f"{source_digest()}-")
    assert why_not_this_code(f"s3://bucket/bundles/{bundle.id}/") is None


def test_a_spoilt_file_is_found_before_anything_is_installed(bundle: Bundle, tmp_path: Path) -> None:
    spoilt = tmp_path / "bundle"
    shutil.copytree(bundle.folder, spoilt)
    wheel = next((spoilt / "wheels").iterdir())
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"!")
    done = bootstrap(spoilt, tmp_path / "cdi")
    assert done.returncode != 0
    assert wheel.name in done.stdout + done.stderr
    assert not (tmp_path / "cdi" / "venv").exists()


def test_it_is_deployed_once_and_whole(bundle: Bundle, tmp_path: Path) -> None:
    root = (tmp_path / "bundles").as_uri()
    answers = [CliRunner().invoke(cdi, ["deploy", str(bundle.folder), "--to", root, "--json"]) for _ in range(2)]
    uri = f"{root}/{bundle.id}"
    assert [json.loads(answer.stdout) for answer in answers] == [
        {"uri": uri, "uploaded": True},
        {"uri": uri, "uploaded": False},
    ]
    stored = [path for path in (tmp_path / "bundles" / bundle.id).rglob("*") if path.is_file()]
    assert len(stored) == bundle.files
    assert all(
        path.read_bytes() == (bundle.folder.parent / path.relative_to(tmp_path / "bundles")).read_bytes()
        for path in stored
    )
