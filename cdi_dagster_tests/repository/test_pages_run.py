"""The Python of the pages runs as it is written, on a day that the real jobs published."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster_tests.repository.files import REPOSITORY
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

STORAGE_DAY = "2023-03-26"
DAY = ("--collection", "data:businessAudit", "--storage-day", STORAGE_DAY)
RECORDS = 120

pytestmark = pytest.mark.spark
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run Python in a clean environment whose home holds one day, published with its tables."""
    home = tmp_path_factory.mktemp("a home")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CDI_", "DAGSTER_HOME"))}

    def run_python(*arguments: str, **environment: str) -> str:
        ended = subprocess.run(
            [sys.executable, *arguments],
            env={**clean, "CDI_HOME": str(home), "CDI_SPARK_MASTER": "local[2]", "STORAGE_DAY": STORAGE_DAY}
            | environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,  # two starts of Spark with its metastore
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    cdi = ("-m", "cdi_dagster.cli")
    run_python(*cdi, "sample", *DAY, "--records", str(RECORDS), "--objects", "6")
    run_python(*cdi, "coalesce", *DAY)
    with DevelopmentKeyService() as service:
        run_python(*cdi, "ingest", *DAY, CDI_DKS_URL=service.url)
    run_python(*cdi, "tables", *DAY)
    return run_python


def python_of(page: str) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    return block


def test_a_day_in_a_notebook(run: Run) -> None:
    printed = run("-c", python_of("reading.md"))
    assert f"{RECORDS} records" in printed
    assert "of the same objects: True" in printed
    assert f"auditlog_managed: {RECORDS} rows" in printed


MATERIALISE = """
import json, my_assets
import dagster as dg

dg.Definitions.validate_loadable(my_assets.defs)
result = dg.materialize(
    [my_assets.audit_events_by_type], partition_key={day!r}, resources={{"tables": my_assets.defs.resources["tables"]}}
)
(made,) = result.asset_materializations_for_node("my_team__audit_events_by_type")
print(json.dumps({{name: value.value for name, value in made.metadata.items()}}))
"""


def test_an_asset_of_ones_own_and_the_day_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my_assets.py").write_text(python_of("extending.md"))
    # Twice in one process: the first run must have left the metastore to others.
    program = MATERIALISE.format(day=STORAGE_DAY) * 2
    printed = run("-c", program, PYTHONPATH=str(tmp_path)).splitlines()
    first, again = (json.loads(line) for line in printed if line.startswith("{"))
    assert first == again
    assert first["events"] == RECORDS
    assert first["types"] > 1
    assert first["plot"].count("█") > 30
