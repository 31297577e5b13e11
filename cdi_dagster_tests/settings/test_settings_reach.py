"""One knob, one field: every setting reaches the resource or definition that it is for."""

from pathlib import Path
from typing import Any

from cdi_dagster.bundle.source_digest import source_digest
from cdi_dagster.definitions import build_definitions, installation_resources
from cdi_dagster.settings import Settings, load_settings

LOCAL: dict[str, tuple[str, str, Any]] = {
    "corporate_root": ("roots", "corporate_root", "s3://corporate-2"),
    "published_root": ("roots", "published_root", "s3://published-2"),
    "max_rejected": ("options", "max_rejected", "7"),
    "dks_url": ("options", "dks_url", "https://dks-2"),
    "dks_ca": ("options", "dks_ca", "/ca"),
    "dks_certificate": ("options", "dks_certificate", "/certificate"),
    "dks_private_key": ("options", "dks_private_key", "/key"),
    "dks_retry_budget_seconds": ("options", "dks_retry_budget_seconds", 61),
    "runbook_url": ("options", "runbook_url", "https://runbook"),
    "dagster_url": ("options", "dagster_url", "https://dagster"),
    "spark_master": ("step_launcher", "master", "local[1,2]"),
    "spark_driver_memory": ("step_launcher", "driver_memory", "3g"),
    "spark_conf": ("step_launcher", "conf", {"spark.x": "1"}),
    "s3a_jars": ("step_launcher", "s3a_jars", "/jars"),
    "coalescer_source": ("coalescer_status", "source", "quiet"),
    "coalescer_lease_seconds": ("coalescer_status", "lease_seconds", 121),
    "coalescer_quiet_seconds": ("coalescer_status", "quiet_seconds", 3601),
    "coalescer_batch_queues": ("coalescer_status", "batch_queues", ["a", "b"]),
    "status_table_name": ("status_table", "table_name", "other_table"),
    "status_weeks_to_exist": ("status_table", "weeks_to_exist", 53),
    "alert_target": ("alerts", "target", "https://hook"),
    "alert_on": ("options", "alert_on", "STARTED"),
    "alert_token": ("alerts", "token", "secretsmanager://token"),
    "environment": ("alerts", "environment", "production"),
    "metrics": ("metrics", "target", "cloudwatch"),
}
EMR: dict[str, tuple[str, Any]] = {
    "emr_overrides": ("overrides", {"tags": {"Installation": "cdi"}}),
    "emr_bundle_uri": ("bundle_uri", f"s3://published-2/bundles/{source_digest()}-1"),
    "emr_cluster_id": ("existing_cluster_id", "j-1"),
    "emr_idle_seconds": ("idle_seconds", 301),
    "emr_poll_interval_seconds": ("poll_interval_seconds", 21),
    "emr_start_deadline_seconds": ("start_deadline_seconds", 1201),
    "emr_bootstrap_deadline_seconds": ("bootstrap_deadline_seconds", 1202),
    "emr_run_deadline_seconds": ("run_deadline_seconds", 21601),
    "emr_log_wait_seconds": ("log_wait_seconds", 301),
    "emr_blind_seconds": ("blind_seconds", 901),
    "emr_live_stdio": ("live_stdio", False),
}
ELSEWHERE = {
    "deployment": "chooses the launcher and the status table: below",
    "aws_region": "every AWS client: cdi_dagster_tests/aws",
    "coalescer_in_dagster": "an asset and the status that a run may change: cdi_dagster_tests/assets/test_coalesced.py",
    "coalescer_processes": "the asset that coalesces, as an argument: cdi_dagster_tests/assets/test_coalesced.py",
    "emr_role_arn": "clients of EMR: cdi_dagster_tests/aws/test_roles.py",
    "batch_role_arn": "clients of AWS Batch: cdi_dagster_tests/aws/test_roles.py",
    "dagster_token": "cdi relaunch: cdi_dagster_tests/cli/test_relaunch_token.py",
    "dagster_token_header": "as dagster_token",
    "home": "the folders below it: cdi_dagster_tests/settings/test_settings.py",
    "emr_template": "a file that must be usable: below",
    "emr_environment": "a name in that file: cdi_dagster_tests/emr/test_template.py",
    "s3_encryption": "every client that writes, Spark and clusters: cdi_dagster_tests/storage/test_encryption.py",
    "s3_kms_key": "as s3_encryption",
    "collections": "the assets, status and watch: cdi_dagster_tests/definitions/test_definitions.py",
    "table_definitions": "the tables' assets: cdi_dagster_tests/table_definitions",
    "first_storage_day": "partitions, schedules and sensors, as an argument of each",
    "due_time": "the schedules' cron: cdi_dagster_tests/schedules",
    "late_time": "sensors and the on-time check: cdi_dagster_tests/gate/test_late.py",
    "look_back_days": "sensors and the on-time check, as an argument of each",
    "snapshot_most_fall_percent": "the check of the snapshot: cdi_dagster_tests/assets/test_snapshot.py",
    "local_time_zone": "the schedules' text: cdi_dagster_tests/schedules",
    "automation": "default status: cdi_dagster_tests/definitions/test_definitions.py",
}


def test_every_setting_is_listed_once() -> None:
    assert sorted([*LOCAL, *EMR, *ELSEWHERE]) == sorted(Settings.model_fields)


def test_each_setting_reaches_its_resource(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, **{name: value for name, (_, _, value) in LOCAL.items()})
    resources = installation_resources(settings)
    reached = {name: getattr(resources[resource], field) for name, (resource, field, _) in LOCAL.items()}
    assert reached == {name: value for name, (_, _, value) in LOCAL.items()}
    assert (build_definitions(settings=settings).resources or {}).keys() == resources.keys()


def test_each_setting_of_emr_reaches_the_launcher(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "deploy" / "emr" / "cluster.yaml"
    template = tmp_path / "cluster.yaml"
    template.write_text(shipped.read_text().replace("CHANGE-ME", "ours"))
    local = {name: value for name, (_, _, value) in LOCAL.items()}
    emr = {name: value for name, (_, value) in EMR.items()}
    settings = load_settings(
        home=tmp_path, deployment="emr", first_storage_day="2023-01-01", emr_template=template, **local, **emr
    )
    resources = installation_resources(settings)
    launcher = resources["step_launcher"]
    assert {name: getattr(launcher, field) for name, (field, _) in EMR.items()} == emr
    assert (launcher.conf, launcher.published_root) == ({"spark.x": "1"}, "s3://published-2")
    assert launcher.template_path == str(template)
    assert resources["status_table"].kind == "dynamodb"
    pools = {asset.op.name: asset.op.pool for asset in build_definitions(settings=settings).assets or ()}
    # On EMR a step that waits would leave its cluster idle; Glue takes the tables of several days at a time.
    assert (pools["business_audit__tables"], pools["business_audit__daily_records"]) == (None, "cdi_business_audit")
