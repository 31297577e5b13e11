"""The code location: loads alone and quickly, and everything in it is described for the person who reads it."""

import os
import subprocess
import sys

import dagster as dg
import pytest
import yaml
from dagster._core.snap import JobSnap
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap

from cdi_dagster.core.collections import REGISTRY, CollectionKind
from cdi_dagster.definitions import build_definitions
from cdi_dagster.settings import SettingsError, load_settings


@pytest.fixture(scope="module")
def definitions(tmp_path_factory):
    return build_definitions(settings=load_settings(home=tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def specs(definitions):
    return list(definitions.resolve_all_asset_specs())


def _load(environment):
    program = """
import sys
from cdi_dagster.definitions import defs
import dagster as dg
dg.Definitions.validate_loadable(defs)
print([name for name in ("pyspark", "boto3", "dagster_aws", "cdi_dagster.spark") if name in sys.modules])
"""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | environment, check=False
    )


def test_it_loads_in_a_fresh_interpreter_without_spark_or_aws_and_touches_nothing(tmp_path):
    home = tmp_path / "home"
    loaded = _load({"CDI_HOME": str(home)})
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "[]"
    assert not home.exists()


def test_wrong_settings_are_refused_with_the_fix_and_not_with_a_stack_of_validation(tmp_path):
    loaded = _load({"CDI_HOME": str(tmp_path), "CDI_DUE_TIME": "nine"})
    assert loaded.returncode == 1
    assert "CDI_DUE_TIME='nine' is not a time of day: write HH:MM" in loaded.stderr
    assert "pydantic" not in loaded.stderr.rpartition("SettingsError")[2]


def test_every_collection_of_the_registry_has_its_assets_job_schedule_and_sensor(definitions, specs):
    keys = {spec.key.to_user_string() for spec in specs}
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    named = [collection.asset_name for collection in REGISTRY]
    for collection in REGISTRY:
        output = "daily_rows" if collection.kind is CollectionKind.KEYED else "daily_records"
        assert {f"corporate_storage/{collection.asset_name}", f"{collection.asset_name}/{output}"} <= keys
        assert f"{collection.asset_name}_daily" in jobs
    assert {"business_audit", "equality", "calculation_parts"} <= set(named)
    assert {schedule.name for schedule in definitions.schedules} == {f"{name}_daily_schedule" for name in named}
    assert {sensor.name for sensor in definitions.sensors} == {
        "calculation_parts_snapshot_sensor",
        "failed_runs_sensor",
        *(f"{name}_coalescer_completion_sensor" for name in named),
    }


def test_an_installation_has_the_collections_that_it_chose_and_no_others(tmp_path):
    chosen = build_definitions(settings=load_settings(home=tmp_path, collections="data:equality"))
    assert {each.name for each in chosen.schedules} == {"equality_daily_schedule"}
    assert {spec.key.path[0] for spec in chosen.resolve_all_asset_specs()} == {"corporate_storage", "equality"}
    with pytest.raises(SettingsError, match="'data:equalty' is not a collection of the registry: write data:"):
        load_settings(home=tmp_path, collections="data:equalty")


def test_every_asset_declares_group_owner_kinds_partitions_tags_and_grain(specs):
    assert specs
    for spec in specs:
        assert spec.group_name in {collection.asset_name for collection in REGISTRY}, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.tags["cdi/layer"], spec.key
        assert spec.tags["cdi/collection"], spec.key
        assert "**Grain**: " in spec.description, spec.key
        weekly = spec.tags["cdi/layer"].startswith("snapshot")
        expected = dg.TimeWindowPartitionsDefinition if weekly else dg.DailyPartitionsDefinition
        assert isinstance(spec.partitions_def, expected), spec.key
        assert spec.partitions_def.timezone == "UTC", spec.key


def test_no_asset_has_a_backfill_policy_so_that_every_run_carries_its_partition(definitions):
    for asset in definitions.assets:
        assert asset.backfill_policy is None, asset.keys


def test_every_ingestion_takes_turns_in_a_pool(definitions):
    pools = {key.to_user_string(): asset.op.pool for asset in definitions.assets for key in asset.keys}
    assert pools["business_audit/daily_records"] == "cdi_business_audit"
    assert pools["equality/daily_records"] == "cdi_equality"
    assert pools["calculation_parts/daily_rows"] == "cdi_calculation_parts"
    assert pools["business_audit/auditlog_raw"] == "cdi_local_metastore"


def test_every_job_schedule_sensor_and_check_is_described(definitions):
    described = [
        *(job for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")),
        *definitions.schedules,
        *definitions.sensors,
    ]
    assert all(thing.description for thing in described)
    for checks in definitions.asset_checks:
        assert all(spec.description for spec in checks.check_specs)


def test_automation_is_off_unless_a_setting_turns_it_on(definitions, tmp_path):
    assert all(schedule.default_status == dg.DefaultScheduleStatus.STOPPED for schedule in definitions.schedules)
    assert all(sensor.default_status == dg.DefaultSensorStatus.STOPPED for sensor in definitions.sensors)
    on = build_definitions(settings=load_settings(home=tmp_path, automation=True))
    assert all(schedule.default_status == dg.DefaultScheduleStatus.RUNNING for schedule in on.schedules)
    assert all(sensor.default_status == dg.DefaultSensorStatus.RUNNING for sensor in on.sensors)


def test_the_launchpad_shows_the_choices_of_a_run_alone(definitions):
    job = definitions.resolve_job_def("business_audit_daily")
    snap = JobSnap.from_job_def(job)
    root = snap.config_schema_snapshot.get_config_snap(snap.mode_def_snaps[0].root_config_key)
    shown = yaml.safe_load(
        default_values_yaml_from_type_snap(snap.config_schema_snapshot, root)
    )  # what the UI fills in
    assert shown == {
        "ops": {
            "corporate_storage__business_audit": {
                "config": {
                    "allow_empty": False,
                    "allow_fewer_offsets": False,
                    "override_gate": False,
                    "wait_for_coalescer_minutes": 0,
                }
            },
            "business_audit__daily_records": {"config": {"allow_sparse_offsets": False, "override_gate": False}},
        }
    }


@pytest.mark.parametrize(
    ("resource", "config"),
    [
        ("roots", {"published_root": "file:///elsewhere"}),
        ("options", {"dks_url": "http://127.0.0.1:1"}),
        ("step_launcher", {"master": "yarn"}),
    ],
)
def test_no_run_can_replace_what_the_installation_sets(definitions, resource, config):
    job = definitions.resolve_job_def("business_audit_daily")
    with pytest.raises(dg.DagsterInvalidConfigError, match=f'unexpected config entry "{next(iter(config))}"'):
        dg.validate_run_config(job, {"resources": {resource: {"config": config}}})
