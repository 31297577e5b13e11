"""`cdi doctor` with CDI_DEPLOYMENT=emr: everything that a cluster needs, looked at before the first morning."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cdi_dagster.bundle.source_digest import source_digest
from cdi_dagster.cli.app import cdi
from cdi_dagster_tests.emr.launches import DAY, Bench

EMR = ("aws", "emr-template", "emr-api", "emr-roles", "emr-subnets", "emr-encryption", "emr-logs", "emr-bundle")


@dataclass
class Installation:
    """An account in which everything is as it must be, until a test spoils a part."""

    bench: Bench
    bundle_key: str
    vpc: str
    own: str
    """Ends every name of this account's own: moto has one IAM for all."""

    def doctor(self, *only: str) -> tuple[int, dict[str, dict[str, str]]]:
        options = [part for name in only or EMR for part in ("--only", name)]
        result = CliRunner().invoke(cdi, ["doctor", "--json", *options])
        return result.exit_code, json.loads(result.stdout)["checks"]

    def finding(self, name: str) -> dict[str, str]:
        """Return what one check found that must fail."""
        exit_code, checks = self.doctor(name)
        assert (exit_code, checks[name]["result"]) == (1, "failed"), checks
        assert checks[name]["fix"]
        return checks[name]

    def change_template(self, **cluster: Any) -> None:
        path = self.bench.folder / "cluster.yaml"
        template = yaml.safe_load(path.read_text())
        template["cluster"] |= cluster
        path.write_text(yaml.safe_dump(template))


def trusting(service: str) -> str:
    principal = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [principal]})


@pytest.fixture
def installation(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Installation:
    own = uuid.uuid4().hex[:8]
    iam, ec2, s3 = (bench.emr.client(name) for name in ("iam", "ec2", "s3"))
    for role, service in ((f"emr-{own}", "elasticmapreduce"), (f"node-{own}", "ec2")):
        principal = {
            "Effect": "Allow",
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps({"Statement": [principal]}))
    iam.create_instance_profile(InstanceProfileName=f"nodes-{own}")
    iam.add_role_to_instance_profile(InstanceProfileName=f"nodes-{own}", RoleName=f"node-{own}")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]

    files = {"bootstrap.sh": b"echo", "wheels/x.whl": b"wheel"}
    sums = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in files.items()).encode()
    key = f"bundles/{source_digest()}-{hashlib.sha256(sums).hexdigest()[:16]}"
    for name, body in {**files, "SHA256SUMS": sums}.items():
        s3.put_object(Bucket=bench.bucket, Key=f"{key}/{name}", Body=body)
    settings = bench.settings(dks_url="https://dks", first_storage_day=DAY)
    for name, value in {**settings, "CDI_EMR_BUNDLE_URI": f"s3://{bench.bucket}/{key}"}.items():
        monkeypatch.setenv(name, value)
    made = Installation(bench, key, vpc, own)
    made.change_template(
        ServiceRole=f"arn:aws:iam::123456789012:role/emr-{own}",
        JobFlowRole=f"nodes-{own}",
        SecurityConfiguration="ours",
        Instances={"Ec2SubnetIds": [subnet]},
    )
    return made


def test_an_account_that_is_ready_is_said_to_be_line_by_line(installation: Installation) -> None:
    exit_code, checks = installation.doctor()
    assert {name: finding["result"] for name, finding in checks.items()} == dict.fromkeys(EMR, "ok")
    assert exit_code == 0
    assert "profiles small, medium, large" in checks["emr-template"]["text"]
    own = installation.own
    assert f"service role emr-{own}, instance profile nodes-{own} with role node-{own}" in checks["emr-roles"]["text"]
    assert "2 files" in checks["emr-bundle"]["text"]


def test_no_java_is_needed_where_dagster_itself_runs(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    exit_code, checks = installation.doctor("java", "spark")
    assert (exit_code, {finding["text"] for finding in checks.values()}) == (
        0,
        {"not needed here: Spark runs on EMR"},
    )


def test_roles_that_are_not_there_or_trust_nobody_are_named(installation: Installation) -> None:
    iam, own = installation.bench.emr.client("iam"), installation.own
    iam.update_assume_role_policy(RoleName=f"emr-{own}", PolicyDocument=trusting("lambda"))
    assert f"emr-{own} does not trust elasticmapreduce.amazonaws.com" in installation.finding("emr-roles")["text"]
    iam.remove_role_from_instance_profile(InstanceProfileName=f"nodes-{own}", RoleName=f"node-{own}")
    assert f"instance profile nodes-{own} has no role" in installation.finding("emr-roles")["text"]
    installation.change_template(JobFlowRole="nobody")
    assert "nobody" in installation.finding("emr-roles")["text"]


def test_a_subnet_that_is_missing_or_too_small_for_the_ladder_is_named(installation: Installation) -> None:
    ec2 = installation.bench.emr.client("ec2")
    small = ec2.create_subnet(VpcId=installation.vpc, CidrBlock="10.0.2.0/29")["Subnet"]["SubnetId"]
    installation.change_template(Instances={"Ec2SubnetIds": [small]})
    finding = installation.finding("emr-subnets")
    assert f"{small} has 3 free addresses" in finding["text"]
    assert "The largest profile starts 9 instances" in finding["fix"]
    installation.change_template(Instances={"Ec2SubnetIds": ["subnet-00000000"]})
    assert "subnet-00000000" in installation.finding("emr-subnets")["text"]


def test_a_bundle_that_is_missing_or_not_what_was_deployed_is_named(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, bucket, key = installation.bench.emr.client("s3"), installation.bench.bucket, installation.bundle_key
    s3.put_object(Bucket=bucket, Key=f"{key}/wheels/x.whl", Body=b"weasel")
    assert "wheels/x.whl is not what was deployed" in installation.finding("emr-bundle")["text"]
    s3.delete_object(Bucket=bucket, Key=f"{key}/wheels/x.whl")
    assert "wheels/x.whl" in installation.finding("emr-bundle")["text"]
    s3.put_object(Bucket=bucket, Key=f"{key}/SHA256SUMS", Body=b"")
    assert "its list of hashes was changed" in installation.finding("emr-bundle")["text"]
    other = f"bundles/0123abcd-{hashlib.sha256(b'').hexdigest()[:16]}"
    s3.put_object(Bucket=bucket, Key=f"{other}/SHA256SUMS", Body=b"")
    monkeypatch.setenv("CDI_EMR_BUNDLE_URI", f"s3://{bucket}/{other}")
    assert "is a bundle of other code" in installation.finding("emr-bundle")["text"]
    monkeypatch.setenv("CDI_EMR_BUNDLE_URI", f"s3://{bucket}/bundles/none")
    assert "cdi deploy" in installation.finding("emr-bundle")["fix"]


def test_a_template_or_log_bucket_that_cannot_be_used_is_named(installation: Installation) -> None:
    installation.change_template(LogUri="s3://no-such-bucket-of-ours/emr")
    assert "no-such-bucket-of-ours" in installation.finding("emr-logs")["text"]
    installation.change_template(ServiceRole="CHANGE-ME")
    assert "cluster.ServiceRole still has CHANGE-ME" in installation.finding("emr-template")["text"]
    assert installation.doctor("emr-roles")[1]["emr-roles"]["result"] == "note"


def test_clusters_without_a_security_configuration_are_noted(installation: Installation) -> None:
    installation.change_template(SecurityConfiguration="")
    exit_code, checks = installation.doctor("emr-encryption")
    assert (exit_code, checks["emr-encryption"]["result"]) == (0, "note")
    assert "names no security configuration" in checks["emr-encryption"]["text"]


def test_an_emr_that_refuses_us_fails_and_what_we_may_not_look_at_is_a_note(installation: Installation) -> None:
    installation.bench.emr.faults.reject["ListClusters"] = ("AccessDeniedException", "not authorized")
    assert "not authorized" in installation.finding("emr-api")["text"]
    installation.bench.emr.faults.forbidden.add("iam")
    checks = installation.doctor("emr-roles")[1]
    assert (checks["emr-roles"]["result"], checks["emr-roles"]["text"]) == (
        "note",
        "not checked: no permission (GetRole)",
    )


def test_a_laptop_is_not_told_about_clusters(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_DEPLOYMENT", "local")
    result = CliRunner().invoke(cdi, ["doctor", "--json"])
    assert not [name for name in json.loads(result.stdout)["checks"] if name.startswith("emr-")]


def test_a_secret_that_only_the_cluster_may_read_is_a_note(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_DKS_CERTIFICATE", "secretsmanager://cdi/client#certificate")
    monkeypatch.setenv("CDI_DKS_PRIVATE_KEY", "secretsmanager://cdi/client#key")
    installation.bench.emr.faults.forbidden.add("secretsmanager")
    exit_code, checks = installation.doctor("key-service")
    assert (exit_code, checks["key-service"]["result"]) == (0, "note")
    assert "the secret cdi/client cannot be read" in checks["key-service"]["text"]
