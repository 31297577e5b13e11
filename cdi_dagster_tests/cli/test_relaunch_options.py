"""The choices of `cdi relaunch` are those of the launchpad, and runs take them; what `cdi dev` passes on."""

from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from cdi_dagster.assets.corporate_input import InputConfig
from cdi_dagster.assets.daily_records import IngestConfig
from cdi_dagster.cli.app import cdi
from cdi_dagster.cli.dev import settings_for_the_demo
from cdi_dagster.cli.relaunch import _run_config
from cdi_dagster_tests.collections import AUDIT, CALCULATION_PARTS
from cdi_dagster_tests.dagster_day import dagster_day

FOR_INPUT = {
    "override_gate": True,
    "wait_for_coalescer_minutes": 30,
    "allow_empty": True,
    "allow_fewer_offsets": True,
}
FOR_RECORDS = {"max_rejected": "0.5%", "allow_sparse_offsets": True}


def test_every_choice_of_the_launchpad_can_be_made_and_the_job_takes_it(tmp_path: Path) -> None:
    assert set(FOR_INPUT) == set(InputConfig.model_fields)
    assert set(FOR_INPUT) | set(FOR_RECORDS) == set(InputConfig.model_fields) | set(IngestConfig.model_fields)
    with dagster_day(tmp_path) as day:
        for collection in (AUDIT, CALCULATION_PARTS):
            job = day.definitions.resolve_job_def(f"{collection.asset_name}_daily")
            assert dg.validate_run_config(job, _run_config(collection, FOR_INPUT, FOR_RECORDS))
    assert _run_config(AUDIT, dict.fromkeys(FOR_INPUT, 0), {}) == {}


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ((), "one of --export-day and --storage-day"),
        (("--export-day", "2023-03-27", "--storage-day", "2023-03-26"), "one of --export-day and --storage-day"),
        (("--storage-day", "2023-03-27", "--to", "2023-03-26"), "is before --storage-day"),
        (("--storage-day", "2023-03-26", "--max-rejected", "few"), "is not a limit"),
        (("--storage-day", "2023-03-26", "--tables-only", "--allow-empty"), "takes no option of input and records"),
    ],
)
def test_wrong_use_says_how_it_is_right(arguments: tuple[str, ...], fix: str) -> None:
    result = CliRunner().invoke(cdi, ["relaunch", "--collection", AUDIT.id, *arguments])
    assert (result.exit_code, fix in result.stderr) == (2, True)


def test_the_demo_gets_settings_but_no_place_or_identity_of_an_installation() -> None:
    given = {
        "CDI_AUTOMATION": "true",
        "CDI_MAX_REJECTED": "1%",
        "CDI_PUBLISHED_ROOT": "s3://production",
        "CDI_DKS_PRIVATE_KEY": "secretsmanager://key",
        "CDI_EMR_BUNDLE_URI": "s3://bundles/1",
        "CDI_ALERT_TARGET": "https://hooks.example.com/x",
        "PATH": "/bin",
    }
    passed_on, aside = settings_for_the_demo(given)
    assert passed_on == ["CDI_AUTOMATION", "CDI_MAX_REJECTED"]
    assert aside == ["CDI_ALERT_TARGET", "CDI_DKS_PRIVATE_KEY", "CDI_EMR_BUNDLE_URI", "CDI_PUBLISHED_ROOT"]
    assert settings_for_the_demo({"CDI_ALERT_TARGET": "http://127.0.0.1:9/x"}) == (["CDI_ALERT_TARGET"], [])
