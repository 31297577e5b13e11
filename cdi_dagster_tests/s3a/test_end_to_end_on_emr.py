"""A day and a snapshot as production runs them: CDI_DEPLOYMENT=emr, clusters that install the bundle, Spark over S3A.

Real: sample, coalescer, gate, pin, launcher, bundle and its bootstrap, the Spark jobs, S3A, publication, checks and
status row. Emulated: EMR (its clusters are processes here), S3 and DynamoDB (moto). What a node has of itself, on EMR
by the release and the template, is here a `spark-defaults.conf` and a stand-in for the AWS CLI.
"""

import gzip
import io
import json
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.orc as orc
import pytest

import cdi_dagster
from cdi_dagster.bundle.build import build_bundle
from cdi_dagster.bundle.upload import upload_bundle
from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.spark_jobs import LOCAL_METASTORE
from cdi_dagster.core.storage_keys import tables_report_key
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.definitions import build_definitions, installation_resources
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.s3a_conf import s3a_class_path, s3a_conf
from cdi_dagster.published.read import read_mark
from cdi_dagster.published.snapshots import require_snapshot, snapshot_of
from cdi_dagster.settings import load_settings
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.collections import AUDIT, CALCULATION_PARTS
from cdi_dagster_tests.emr.emulator import REGION, EmrEmulator, create_status_table
from cdi_dagster_tests.package_index import require_package_index
from cdi_dagster_tests.s3a import aws_shim
from cdi_dagster_tests.spark.snapshot.daily_rows import history, publish_history, read_snapshot, reference

pytestmark = [
    pytest.mark.spark,
    pytest.mark.timeout(1800),  # a bundle, two virtual environments, two JVMs: two minutes alone
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bundle's wheels are for Python 3.11"),
]

DAY = date(2023, 3, 26)
FIRST_DAY, FRIDAY, ONE_DAY = date(2023, 6, 2), date(2023, 6, 9), timedelta(days=1)
REPOSITORY = Path(cdi_dagster.__file__).parents[1]
RECORDS = 400


@dataclass(frozen=True)
class Account:
    """An AWS account, as far as it is needed."""

    emr: EmrEmulator
    corporate: Storage
    published: Storage
    bundle_uri: str
    template: Path


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, s3a_jars: tuple[Path, ...]) -> Iterator[Account]:
    """Buckets, the status table, the bundle as `cdi deploy` stores it, and EMR."""
    require_package_index()
    tmp_path = tmp_path_factory.mktemp("account")
    with EmrEmulator(tmp_path / "emr") as emr, pytest.MonkeyPatch.context() as monkeypatch:
        environment = {
            "AWS_ENDPOINT_URL": emr.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        emr.step_environment = node_environment(tmp_path / "node", s3a_jars, emr.endpoint)
        name = f"cdi-{uuid.uuid4().hex[:12]}"
        for bucket in (f"{name}-corporate", f"{name}-published", f"{name}-ops"):
            emr.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        create_status_table(emr.client("dynamodb"))
        bundle = build_bundle(tmp_path / "bundles", constraints=REPOSITORY / "constraints.txt")
        bundles = f"s3://{name}-ops/bundles"
        upload_bundle(bundle.folder, open_storage(bundles))
        template = REPOSITORY / "cdi_dagster_tests" / "emr" / "template.yaml"
        (tmp_path / "cluster.yaml").write_text(template.read_text().replace("LOGS", f"{name}-ops"))
        yield Account(
            emr=emr,
            corporate=open_storage(f"s3://{name}-corporate"),
            published=open_storage(f"s3://{name}-published"),
            bundle_uri=f"{bundles}/{bundle.id}",
            template=tmp_path / "cluster.yaml",
        )


def node_environment(folder: Path, jars: tuple[Path, ...], endpoint: str) -> dict[str, str]:
    """Make what a node of an EMR cluster has of itself: the AWS CLI, a Python 3.11, S3A, a metastore."""
    folder.mkdir()
    aws = folder / "aws"
    aws.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{aws_shim.__file__}" "$@"\n')
    aws.chmod(0o755)
    conf = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.log.level": "WARN",
        **s3a_conf(endpoint_url=endpoint, region=REGION),
        **local_metastore_conf(folder / "metastore"),
    }
    del conf[LOCAL_METASTORE]  # as on a cluster, whose metastore takes any number of processes
    (folder / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in conf.items()))
    return {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "CDI_PYTHON": sys.executable,
        "SPARK_CONF_DIR": str(folder),
        "SPARK_LOCAL_IP": "127.0.0.1",
        **s3a_class_path(jars, {}),
    }


def test_a_day_goes_from_raw_objects_to_checked_tables_through_dagster_on_emr(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(account.corporate, AUDIT.on(DAY), records=RECORDS, objects=24, seed=1)
    coalesce(account.corporate, AUDIT.on(DAY))

    with DevelopmentKeyService() as key_service, dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        definitions = as_in_production(account, tmp_path, monkeypatch, dks_url=key_service.url)
        result = run_job(definitions, "business_audit_daily", DAY, instance)
        # A keyed collection's day: two stages, with Spark's encrypted shuffle between them.
        write_sample(account.corporate, CALCULATION_PARTS.on(DAY), records=20, objects=4, seed=1)
        coalesce(account.corporate, CALCULATION_PARTS.on(DAY))
        of_rows = run_job(definitions, "calculation_parts_daily", DAY, instance)

    assert of_rows.success
    rows_mark = read_mark(account.published, CALCULATION_PARTS.on(DAY))
    assert rows_mark is not None
    assert (rows_mark.published, rows_mark.db_types) == (20, {"INSERT": 15, "DELETE": 5})
    assert result.success
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "counts_reconcile": True,
        "offsets_are_whole": True,
        "nothing_rejected": True,
    }
    mark = read_mark(account.published, AUDIT.on(DAY))
    assert mark is not None
    assert mark.published == RECORDS
    records = sorted(line for part in mark.parts for line in lines_of(account.published, part.key))
    report = TablesReport.from_json(json.loads(account.published.read(tables_report_key(AUDIT.on(DAY), result.run_id))))
    assert [(table.kind, table.rows) for table in report.tables] == [
        (kind, RECORDS) for kind in ("raw", "managed", "view", "view")
    ]
    assert report.tables[0].location is not None
    assert sorted(values_of(account.published, report.tables[0].location, "val")) == records

    # One cluster installed the bundle, ran our entry points one after the other, and is gone.
    cluster, for_rows = account.emr.clusters.values()
    assert [step.state for step in for_rows.steps] == ["COMPLETED"]
    assert [step.state for step in cluster.steps] == ["COMPLETED"] * 2
    account.emr.wait(lambda: cluster.state == "TERMINATED")
    python = cluster.folder / "opt" / "cdi" / "venv" / "bin" / "python"
    assert python.exists()
    # Where the launcher tells Spark's log to look for its pattern (emr/test_spark_log.py shows what that does).
    assert (python.parents[2] / "log4j2.json").exists()
    row = status_row(account, result.run_id)
    assert (row["Status"], row["Cluster_Id"]) == ("COMPLETED", cluster.cluster_id)


def test_a_snapshot_and_its_tables_are_made_on_one_cluster(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = history(3, FIRST_DAY, FRIDAY - ONE_DAY, ids=60)
    publish_history(account.published, rows, FIRST_DAY, FRIDAY - ONE_DAY)
    definitions = as_in_production(account, tmp_path, monkeypatch, first_storage_day=FIRST_DAY)
    before = set(account.emr.clusters)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        result = run_job(definitions, "calculation_parts_snapshot", FRIDAY, instance)

    assert result.success
    assert read_snapshot(account.published, FRIDAY) == reference(rows)
    day = snapshot_of(CALCULATION_PARTS, FRIDAY)
    assert require_snapshot(account.published, day).correlation_id == result.run_id
    report = TablesReport.from_json(json.loads(account.published.read(tables_report_key(day, result.run_id))))
    assert [table.rows for table in report.tables] == [len(reference(rows))] * 3
    for table in report.tables:
        assert table.location is not None
        assert len(values_of(account.published, table.location, "id")) == len(reference(rows))
    assert status_row(account, result.run_id, CALCULATION_PARTS)["Status"] == "COMPLETED"
    [cluster] = [cluster for cluster_id, cluster in account.emr.clusters.items() if cluster_id not in before]
    assert [step.state for step in cluster.steps] == ["COMPLETED"] * 2
    account.emr.wait(lambda: cluster.state == "TERMINATED")


def as_in_production(
    account: Account,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dks_url: str = "https://not.used",
    first_storage_day: date = date(2023, 3, 1),
) -> dg.Definitions:
    """Return the definitions as the environment of production sets them up."""
    environment = {
        "CDI_DEPLOYMENT": "emr",
        "CDI_HOME": str(folder / "home"),
        "CDI_CORPORATE_ROOT": account.corporate.root,
        "CDI_PUBLISHED_ROOT": account.published.root,
        "CDI_FIRST_STORAGE_DAY": str(first_storage_day),
        "CDI_DKS_URL": dks_url,
        "CDI_EMR_TEMPLATE": str(account.template),
        "CDI_EMR_BUNDLE_URI": account.bundle_uri,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # The one thing that is not as in production: looks every second, not every twenty.
    launcher = installation_resources(load_settings())["step_launcher"]
    launcher = type(launcher)(**{**launcher.model_dump(), "poll_interval_seconds": 1.0})
    return build_definitions(settings=load_settings(), resource_overrides={"step_launcher": launcher})


def run_job(
    definitions: dg.Definitions, job: str, partition: date, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def(job).execute_in_process(
        partition_key=partition.isoformat(), instance=instance, raise_on_error=False
    )


def lines_of(storage: Storage, key: str) -> list[str]:
    return gzip.decompress(storage.read(key)).decode().split("\n")[:-1]


def values_of(storage: Storage, location: str, column: str) -> list[str]:
    """A column of a table, read from its files without Spark."""
    prefix = location.removeprefix(f"{storage.root}/").replace("%3D", "=")
    files = [stored.key for stored in storage.list(prefix) if stored.key.endswith(".orc")]
    assert files
    return [value for key in files for value in orc.ORCFile(io.BytesIO(storage.read(key))).read()[column].to_pylist()]


def status_row(account: Account, run_id: str, collection: Collection = AUDIT) -> dict[str, str]:
    key = {"Correlation_Id": {"S": run_id}, "DataProduct": {"S": f"CDI-{collection.id}"}}
    item = account.emr.client("dynamodb").get_item(TableName="data_pipeline_metadata", Key=key)["Item"]
    return {name: next(iter(value.values())) for name, value in item.items()}
