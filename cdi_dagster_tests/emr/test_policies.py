"""The shipped IAM policies allow every call that our code sends, and no action that nothing uses.

Calls are recorded by botocore's own events while real code works on the emulated account. What it cannot show, because
EMR, Spark's JVM or another service sends it for us, is listed by hand, each with its source.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from cdi_dagster.aws.clients import use_roles
from cdi_dagster.aws.secrets import read_secret
from cdi_dagster.cli.app import cdi
from cdi_dagster.coalescer_status.sources import _batch_client
from cdi_dagster.core.alert import Alert
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.findings import CheckResult
from cdi_dagster.core.key_service_access import KeyServiceAccess
from cdi_dagster.core.metrics import heartbeat
from cdi_dagster.core.secret_reference import SecretReference
from cdi_dagster.core.storage_keys import daily_prefix
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.emr.clusters.api import EmrApi
from cdi_dagster.ingestion.ingestion_lease import discard_after_failure, ingestion_lease
from cdi_dagster.ingestion.pinning import pin_storage_day
from cdi_dagster.ingestion.steps import cluster_check_step
from cdi_dagster.interfaces import StatusRow
from cdi_dagster.resources.alerts import alert_sink
from cdi_dagster.resources.metrics import CloudWatchMetrics
from cdi_dagster.resources.status_table import DynamoDbStatusTable
from cdi_dagster.spark.cluster_checks.job import parse_arguments, target_of
from cdi_dagster.spark.cluster_checks.node import run_node_checks
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster.storage.s3_small import SmallReads
from cdi_dagster_tests.aws_actions import POLICIES, action_of, allowed
from cdi_dagster_tests.child_processes.sitecustomize import hear_calls
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.emr.emulator import create_status_table
from cdi_dagster_tests.emr.launches import DAY, Bench
from cdi_dagster_tests.emr.test_doctor import installation  # noqa: F401 - a fixture
from cdi_dagster_tests.gate.hearing import hearing
from cdi_dagster_tests.gate.quick_ingestion import ingest_pinned

pytestmark = pytest.mark.slow  # a cluster, a day and every check of `cdi doctor`

DOCS = "https://docs.aws.amazon.com"
KMS = f"S3 with a key of your own: {DOCS}/AmazonS3/latest/userguide/UsingKMSEncryption.html"
GLUE = f"the Glue client of Hive and Spark, in the JVM: {DOCS}/emr/latest/ReleaseGuide/emr-spark-glue.html"
ROLES = f"EMR passes roles: {DOCS}/emr/latest/ManagementGuide/emr-iam-role-for-ec2.html"
BY_HAND: dict[str, dict[str, str]] = {
    "dagster": {
        "elasticmapreduce:PutAutoTerminationPolicy": "RunJobFlow with an AutoTerminationPolicy checks it: "
        f"{DOCS}/emr/latest/ManagementGuide/emr-auto-termination-policy.html",
        "iam:PassRole": ROLES,
        "iam:CreateServiceLinkedRole": "the first cluster of an account: "
        f"{DOCS}/emr/latest/ManagementGuide/using-service-linked-roles-cleanup.html",
        "kms:Decrypt": KMS,
        "kms:GenerateDataKey": KMS,
    },
    "emr-instance-profile": {
        "kms:Decrypt": KMS,
        "kms:GenerateDataKey": KMS,
        **{
            f"glue:{operation}": GLUE
            for operation in (
                *(
                    "GetDatabase",
                    "GetDatabases",
                    "CreateDatabase",
                    "GetTable",
                    "GetTables",
                    "CreateTable",
                    "UpdateTable",
                ),
                *("GetPartition", "GetPartitions", "BatchGetPartition", "CreatePartition", "BatchCreatePartition"),
                *("UpdatePartition", "DeletePartition", "GetUserDefinedFunctions"),
            )
        },
    },
    "emr-service-role": {
        "iam:PassRole": ROLES,
        "secretsmanager:GetSecretValue": "EMR.secret@ in the cluster template: "
        f"{DOCS}/emr/latest/ReleaseGuide/storing-sensitive-data.html",
    },
}


class Recorder:
    """The IAM actions of the calls of this process, by the role that sends them."""

    def __init__(self) -> None:
        self.actions: defaultdict[str, set[str]] = defaultdict(set)
        self._role: str | None = None

    @contextmanager
    def of(self, role: str) -> Iterator[None]:
        self._role = role
        yield
        self._role = None

    def __call__(self, call: str) -> None:
        if self._role and (action := action_of(call)):
            self.actions[self._role].add(action)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    made = Recorder()

    def read(self: SmallReads, key: str, *, etag: str, version_id: str | None) -> bytes | None:
        made("s3:GetObjectVersion" if version_id else "s3:GetObject")
        return read_by_obstore(self, key, etag=etag, version_id=version_id)

    read_by_obstore = SmallReads.read
    monkeypatch.setattr(SmallReads, "read", read)  # obstore has no events
    stop = hear_calls(made)
    yield made
    stop()


@pytest.mark.usefixtures("installation")
def test_each_policy_allows_what_is_sent_and_nothing_more(bench: Bench, recorder: Recorder) -> None:
    corporate, published = f"s3://{bench.bucket}-corporate", bench.published_root
    bench.emr.client("s3").create_bucket(
        Bucket=f"{bench.bucket}-corporate", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"}
    )
    bench.emr.client("s3").put_bucket_versioning(
        Bucket=f"{bench.bucket}-corporate", VersioningConfiguration={"Status": "Enabled"}
    )
    write_sample(open_storage(corporate), AUDIT.on(DAY), records=20, objects=2, seed=1)
    with recorder.of("dagster"):
        roots = Roots(corporate=open_storage(corporate), published=open_storage(published))
        pinned = pin_storage_day(roots, AUDIT.on(DAY))
        launch_and_cancel(bench)
        with_tables_and_topics(bench)
        CliRunner().invoke(cdi, ["doctor"])
        access = KeyServiceAccess(url="https://dks")
        checks = cluster_check_step(AUDIT.on(DAY), roots, correlation_id="c", key_service=access)
    with recorder.of("emr-instance-profile"):
        work_on_node(bench, corporate, pinned)
        target = target_of(parse_arguments(checks.arguments))
        assert [name for name, finding in run_node_checks(target).items() if finding.result is CheckResult.FAILED] == [
            "key-service"  # nobody has that name
        ]
        leave_records_behind(published)
    with recorder.of("dagster"):
        discard_those(published)
        trace(corporate, published)

    for policy in ("dagster", "emr-instance-profile", "emr-service-role"):
        used = recorder.actions[policy] | BY_HAND[policy].keys()
        assert (sorted(used - allowed(policy)), sorted(allowed(policy) - used)) == ([], []), policy


def launch_and_cancel(bench: Bench) -> None:
    assert bench.launch(("report",)).evidence is not None
    name = "cdi-data.businessAudit-2023-03-26-ingest_daily-00000000-a1"
    types = [{"InstanceFleetType": "MASTER", "InstanceTypeConfigs": [{"InstanceType": "m5.xlarge"}]}]
    api = EmrApi()
    instances = {"KeepJobFlowAliveWhenNoSteps": True, "InstanceFleets": types}
    cluster_id = api.run_job_flow({"Name": name, "Instances": instances})
    step = {"Name": name, "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["sleep", "60"]}}
    api.tag(cluster_id, {"cdi:run_id": "another"})
    api.cancel_step(cluster_id, api.add_step(cluster_id, step))
    api.our_clusters(name_prefix="cdi-")
    api.terminate(cluster_id)
    bench.emr.wait(lambda: bench.emr.live() == [])


def with_tables_and_topics(bench: Bench) -> None:
    create_status_table(bench.emr.client("dynamodb"), bench.status_table)
    table = DynamoDbStatusTable(bench.status_table)
    table.put(
        StatusRow(
            correlation_id="c", data_product="CDI-x", status="COMPLETED", export_day=date(2023, 3, 27), current_step="s"
        )
    )
    table.get("c", "CDI-x")
    table.recent("CDI-x")
    topic = bench.emr.client("sns").create_topic(Name=bench.bucket[:40])["TopicArn"]
    late = Alert(kind="LATE", key="k", title="t", text="t", collection_id=AUDIT.id, storage_days=(DAY,), runbook="r")
    alert_sink(topic, token="", environment="test").send(late)
    bench.emr.client("secretsmanager").create_secret(Name=f"{bench.bucket}/token", SecretString="token")
    CloudWatchMetrics("test").put([heartbeat(datetime.now(UTC))])
    with hearing() as heard:
        alert_sink(heard.url, token=f"secretsmanager://{bench.bucket}/token", environment="test").send(late)
    use_roles({"batch": "arn:aws:iam::222222222222:role/cdi-batch"})
    with suppress(ClientError):  # what they return is tested in coalescer_status
        _batch_client().describe_jobs(jobs=["none"])
    with suppress(ClientError):
        _batch_client().list_jobs(jobQueue="none", jobStatus="RUNNING")


def work_on_node(bench: Bench, corporate: str, pinned: Any) -> None:
    published = open_storage(bench.published_root)
    report = ingest_pinned(open_storage(corporate), published, pinned, "c-1")
    assert report.published == 20
    with published.upload(f"{DAY}/part", group="c-2") as upload:
        upload.write(b"x")
        upload.prepare()
    published.discard(f"{DAY}/", group=None)
    published.recover(f"{DAY}/")
    bench.emr.client("secretsmanager").create_secret(Name=f"{bench.bucket}/client", SecretString="pem")
    assert read_secret(SecretReference(secret_id=f"{bench.bucket}/client")) == "pem"


def leave_records_behind(published: str) -> None:
    """As a job that is killed."""
    upload = open_storage(published).upload(f"{daily_prefix(AUDIT.on(DAY))}part", group="c-3")
    upload.write(b"x")
    upload.prepare()


def discard_those(published: str) -> None:
    storage, day = open_storage(published), AUDIT.on(DAY)
    with ingestion_lease(storage, day, holder="c-3") as lease, pytest.raises(CdiError, match="killed"):
        with discard_after_failure(storage, day, lease):
            raise CdiError(FailureClass.OUT_OF_MEMORY, "The job was killed.")


def trace(corporate: str, published: str) -> None:
    where = ["--corporate-root", corporate, "--published-root", published, "--collection", AUDIT.id]
    traced = CliRunner().invoke(cdi, ["show", *where, "--storage-day", str(DAY), "--trace", "0:3", "--json"])
    assert json.loads(traced.stdout)["fate"] == "record", traced.output


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.json")), ids=lambda path: path.stem)
def test_no_policy_has_a_wildcard_action_or_is_longer_than_iam_takes(path: Path) -> None:
    statements = json.loads(path.read_text())["Statement"]
    assert path.stem in BY_HAND
    assert [action for statement in statements for action in statement["Action"] if "*" in action] == []
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    assert len(json.dumps(statements, separators=(",", ":"))) < 6_144  # of a managed policy
