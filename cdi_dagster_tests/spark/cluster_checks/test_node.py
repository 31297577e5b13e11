"""Each check of a node finds what would stop a first real run, names it, and says what to do; it leaves nothing."""

import importlib.metadata
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from cdi_dagster.core.findings import CheckResult, Finding, failed, ok
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.spark.cluster_checks import node
from cdi_dagster.spark.cluster_checks.node import Target, run_check
from cdi_dagster.spark.key_service.config import KeyServiceConfig
from cdi_dagster.storage import Encryption, open_storage, use_encryption
from cdi_dagster_tests.s3_server import REGION, s3_endpoint
from cdi_dagster_tests.spark.scripted_key_service import Certificates
from cdi_dagster_tests.storage.faulty_s3 import Proxy

POLICY = "deploy/aws/policies/emr-instance-profile.json"
KMS_KEY = "arn:aws:kms:eu-west-2:123456789012:key/ours"


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint(),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)


def s3() -> Any:
    return boto3.client("s3", endpoint_url=s3_endpoint(), region_name=REGION)


def new_bucket(*, versioned: bool = False) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    s3().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    if versioned:
        s3().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def target(*, published: str = "", corporate: str = "", dks: KeyServiceConfig | None = None, **sample: str) -> Target:
    return Target(
        corporate_root=f"s3://{corporate or 'none'}",
        published_root=f"s3://{published or new_bucket()}",
        sample_key=sample.get("key"),
        sample_version_id=sample.get("version_id"),
        key_service=dks or KeyServiceConfig(url="http://127.0.0.1:9", correlation_id="c"),
    )


def found(check: Any, on: Target) -> tuple[CheckResult, str, str | None]:
    finding = run_check(partial(check, on))
    return finding.result, finding.text, finding.fix


def left_in(bucket: str) -> list[Any]:
    objects = s3().list_objects_v2(Bucket=bucket).get("Contents", [])
    return objects + s3().list_multipart_uploads(Bucket=bucket).get("Uploads", [])


# --- region ---------------------------------------------------------------------------------------------------


def test_the_region_of_boto3_is_compared_with_that_of_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    on = target()
    assert found(node.check_region, on) == (CheckResult.OK, f"{REGION}, as the bucket of {on.published_root}", None)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    result, text, fix = found(node.check_region, on)
    assert (result, text) == (
        CheckResult.FAILED,
        f"boto3 works in eu-west-1, but the bucket of {on.published_root} is in {REGION}",
    )
    assert f"CDI_AWS_REGION={REGION}" in str(fix)


def test_no_region_at_all_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert found(node.check_region, target())[:2] == (CheckResult.FAILED, "boto3 has no region")


# --- corporate root -------------------------------------------------------------------------------------------


def test_a_pinned_version_is_read_though_its_object_was_deleted() -> None:
    bucket = new_bucket(versioned=True)
    version = s3().put_object(Bucket=bucket, Key="corporate_storage/x", Body=b"x")["VersionId"]
    s3().delete_object(Bucket=bucket, Key="corporate_storage/x")
    on = target(corporate=bucket, key="corporate_storage/x", version_id=version)
    assert found(node.check_corporate_read, on)[:2] == (
        CheckResult.OK,
        f"s3://{bucket}/corporate_storage/x can be read, by version {version}",
    )


def test_an_object_that_the_role_may_not_read_by_version_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = new_bucket(versioned=True)
    version = s3().put_object(Bucket=bucket, Key="corporate_storage/x", Body=b"x")["VersionId"]
    on = target(corporate=bucket, key="corporate_storage/x", version_id=version)
    with Proxy(s3_endpoint(), denied=["versionId="]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        result, text, fix = found(node.check_corporate_read, on)
    assert result is CheckResult.FAILED
    assert f"s3://{bucket}/corporate_storage/x: access denied" in text
    assert POLICY in str(fix)


def test_without_an_object_that_is_known_reading_is_not_checked() -> None:
    result, text, _ = found(node.check_corporate_read, target())
    assert (result, text.partition(":")[0]) == (CheckResult.NOTE, "not checked")


# --- published root -------------------------------------------------------------------------------------------


def test_the_published_root_is_written_and_left_as_it_was() -> None:
    bucket = new_bucket(versioned=True)
    assert found(node.check_published_write, target(published=bucket))[0] is CheckResult.OK
    assert found(node.check_encryption, target(published=bucket))[0] is not CheckResult.FAILED
    assert left_in(bucket) == []


@pytest.mark.parametrize("denied", ["PUT /", "uploads", "partNumber=", "GET /", "DELETE /", "uploadId="])
def test_a_role_that_lacks_a_permission_on_the_published_root_fails(
    denied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(s3_endpoint(), denied=[denied]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        result, text, fix = found(node.check_published_write, target())
    assert (result, "access denied" in text) == (CheckResult.FAILED, True), text
    assert POLICY in str(fix)


def test_a_published_folder_is_checked_alike(tmp_path: Path) -> None:
    root = (tmp_path / "published").as_uri()
    on = Target(
        corporate_root=root,
        published_root=root,
        sample_key=None,
        sample_version_id=None,
        key_service=target().key_service,
    )
    assert found(node.check_published_write, on)[0] is CheckResult.OK
    assert list(open_storage(root).list("corporate_data_ingestion/")) == []
    assert [found(check, on)[0] for check in (node.check_region, node.check_encryption)] == [CheckResult.NOTE] * 2


# --- encryption -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen", [Encryption(algorithm="AES256"), Encryption(algorithm="aws:kms", kms_key=KMS_KEY)], ids=str
)
def test_what_was_written_shows_the_encryption_that_was_requested(chosen: Encryption) -> None:
    use_encryption(chosen)
    result, text, _ = found(node.check_encryption, target())
    assert result is CheckResult.OK
    assert chosen.algorithm in text
    assert chosen.kms_key in text


def test_an_encryption_that_is_not_applied_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    use_encryption(Encryption(algorithm="aws:kms", kms_key=KMS_KEY))
    bucket = new_bucket()
    with Proxy(s3_endpoint(), dropped="x-amz-server-side-encryption") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        result, text, fix = found(node.check_encryption, target(published=bucket))
    assert result is CheckResult.FAILED
    assert f"aws:kms {KMS_KEY} was requested, but S3 encrypted with" in text
    assert "CDI_S3_KMS_KEY" in str(fix)
    assert left_in(bucket) == []


@pytest.mark.parametrize(
    ("wanted", "is_it"), [("ours", True), (KMS_KEY, True), ("alias/any", True), ("other", False), ("", True)]
)
def test_a_key_is_known_by_its_id_or_arn(wanted: str, is_it: bool) -> None:
    assert node._is_key(wanted, KMS_KEY) is is_it


# --- key service ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


def test_the_key_service_responds_to_our_certificate_and_to_no_other(certificates: Certificates) -> None:
    with DevelopmentKeyService(tls=certificates.server_tls) as service:
        ours = certificates.config(service)
        assert found(node.check_key_service, target(dks=ours))[:2] == (
            CheckResult.OK,
            f"{service.url} responds to our certificate",
        )
        certificate, key = certificates.stranger_client
        stranger = certificates.config(service, certificate=certificate, private_key=key)
        assert found(node.check_key_service, target(dks=stranger))[0] is CheckResult.FAILED
        untrusted = certificates.config(service, ca=certificates.stranger_ca)
        result, text, fix = found(node.check_key_service, target(dks=untrusted))
        assert (result, "TLS is refused" in text, "CDI_DKS_CA" in str(fix)) == (CheckResult.FAILED, True, True)


def test_a_key_service_that_is_not_there_fails() -> None:
    with DevelopmentKeyService() as service:
        config = KeyServiceConfig(url=service.url, correlation_id="c")
        assert found(node.check_key_service, target(dks=config))[0] is CheckResult.OK
    result, text, fix = found(node.check_key_service, target(dks=config))
    assert (result, f"{service.url} does not respond" in text) == (CheckResult.FAILED, True)
    assert "security group" in str(fix)


def test_a_certificate_that_the_role_cannot_read_fails(certificates: Certificates) -> None:
    with DevelopmentKeyService(tls=certificates.server_tls) as service:
        secret = certificates.config(service, private_key="secretsmanager://cdi/nobody")
        result, text, fix = found(node.check_key_service, target(dks=secret))
        assert (result, "the secret cdi/nobody cannot be read" in text) == (CheckResult.FAILED, True)
        assert "secretsmanager:GetSecretValue" in str(fix)
        absent = certificates.config(service, ca="/etc/cdi/absent.pem")
        result, text, _ = found(node.check_key_service, target(dks=absent))
        assert (result, "cannot be read here (No such file or directory)" in text) == (CheckResult.FAILED, True)


# --- Python ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of a bundle's wheels, as it lies beside the environment that bootstrap makes."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle" / "requirements.txt"


def pins(**changed: str) -> str:
    present = {name: importlib.metadata.version(name) for name in ("boto3", "orjson", "dagster_pipes")}
    return "".join(f"{name}=={version} --hash=sha256:0\n" for name, version in {**present, **changed}.items())


def test_wheels_at_their_pinned_versions_are_ok(bundle: Path) -> None:
    bundle.write_text(pins())
    result, text, _ = found(node.check_python, target())
    assert (result, "3 wheels of the bundle import" in text) == (CheckResult.OK, True)


def test_wheels_of_other_versions_or_that_do_not_import_are_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (tmp_path / "broken-1.dist-info" / "top_level.txt").write_text("broken_module\n")
    (tmp_path / "broken_module.py").write_text("raise ImportError('GLIBC_2.38 not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    bundle.write_text(pins(orjson="0.1", nowhere="2", broken="1"))
    result, text, fix = found(node.check_python, target())
    assert result is CheckResult.FAILED
    assert f"orjson is {importlib.metadata.version('orjson')}, not 0.1" in text
    assert "nowhere 2 is not installed" in text
    assert "broken 1 does not import (ImportError: GLIBC_2.38 not found)" in text
    assert "bootstrap action's log" in str(fix)


def test_without_a_bundle_the_versions_are_not_compared() -> None:
    assert found(node.check_python, target())[0] is CheckResult.NOTE


# --- all of them ----------------------------------------------------------------------------------------------


def test_a_check_that_raises_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Target) -> Finding:
        raise RuntimeError("as never seen")

    checks = {"first": ("First", broken), "second": ("Second", lambda _: ok("fine"))}
    monkeypatch.setattr(node, "NODE_CHECKS", checks)
    first, second = node.run_node_checks(target()).values()
    assert first == failed("the check itself failed (RuntimeError: as never seen)", str(first.fix))
    assert second == ok("fine")


def test_nothing_is_written_to_corporate_storage() -> None:
    bucket = new_bucket()
    open_storage(f"s3://{bucket}").write("corporate_storage/x", b"x")
    node.run_node_checks(target(corporate=bucket, key="corporate_storage/x"))
    assert [row["Key"] for row in left_in(bucket)] == ["corporate_storage/x"]
