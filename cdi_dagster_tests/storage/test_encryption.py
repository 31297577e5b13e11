"""What is written to S3 requests the server-side encryption that the settings choose, in one request or in parts."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from cdi_dagster.cli.app import cdi
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster.spark.reporting import open_reporter
from cdi_dagster.storage import Encryption, encrypt_writes, encryption, open_storage, use_encryption

KMS_KEY = "arn:aws:kms:eu-west-2:123456789012:key/ours"
KMS = Encryption(algorithm="aws:kms", kms_key=KMS_KEY)


def encrypted_with(bucket: str) -> dict[str, tuple[str | None, str | None]]:
    """Return algorithm and key of every object."""
    client = boto3.client("s3")
    heads: dict[str, Any] = {
        row["Key"]: client.head_object(Bucket=bucket, Key=row["Key"])
        for row in client.list_objects_v2(Bucket=bucket)["Contents"]
    }
    return {key: (head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")) for key, head in heads.items()}


def write_in_every_way(bucket: str) -> None:
    storage = pickle.loads(pickle.dumps(open_storage(f"s3://{bucket}")))
    storage.write("small", b"1")
    with storage.upload("parts") as upload:
        upload.write(bytes(9 * 1024 * 1024))
        upload.complete()
    with storage.upload("out/part", group="run-1") as upload:
        upload.write(b"1")
        prepared = upload.prepare()
    storage.publish("out/", [prepared], b"mark", group="run-1")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(KMS, ("aws:kms", KMS_KEY)), (Encryption(algorithm="AES256"), ("AES256", None))],
    ids=["aws:kms", "AES256"],
)
def test_every_object_is_encrypted_as_chosen(
    make_bucket: Callable[..., str], chosen: Encryption, expected: tuple[str, str | None]
) -> None:
    bucket = make_bucket()
    use_encryption(chosen)
    write_in_every_way(bucket)
    assert encrypted_with(bucket) == dict.fromkeys(("small", "parts", "out/part", "out/_SUCCESS"), expected)


def test_nothing_is_requested_by_default(make_bucket: Callable[..., str]) -> None:
    bucket = make_bucket()
    requested: list[set[str]] = []
    storage = open_storage(f"s3://{bucket}")
    storage.write("small", b"1")
    client = encrypt_writes(boto3.client("s3"))
    client.meta.events.register(
        "before-call.s3.PutObject", lambda params, **_: requested.append(set(params["headers"]))
    )
    client.put_object(Bucket=bucket, Key="a", Body=b"1")
    assert not [name for names in requested for name in names if "encryption" in name]


def test_a_child_process_writes_alike_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KMS.environment.items():
        monkeypatch.setenv(name, value)
    assert encryption() == KMS


def test_a_job_writes_as_its_arguments_name_its_reports_too() -> None:
    with open_reporter([*KMS.arguments, "--other"]) as (_, rest):
        assert encryption() == KMS
    assert rest == ["--other"]


def test_the_settings_choose_and_a_key_needs_kms(tmp_path: Path) -> None:
    load_settings(home=tmp_path, s3_encryption="aws:kms", s3_kms_key=KMS_KEY)
    assert encryption() == KMS
    with pytest.raises(SettingsError, match=f"CDI_S3_KMS_KEY='{KMS_KEY}' is used by CDI_S3_ENCRYPTION=aws:kms only"):
        load_settings(home=tmp_path, s3_encryption="AES256", s3_kms_key=KMS_KEY)
    load_settings(home=tmp_path)
    assert encryption() == Encryption()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["CDI_S3_ENCRYPTION=aws:kms", f"CDI_S3_KMS_KEY={KMS_KEY}"], ("aws:kms", KMS_KEY)),
        (["CDI_S3_ENCRYPTION=AES256"], ("AES256", None)),
    ],
    ids=["aws:kms", "AES256"],
)
def test_a_bundle_is_deployed_as_the_file_of_settings_chooses(
    make_bucket: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    expected: tuple[str, str | None],
) -> None:
    bucket, bundle = make_bucket(), tmp_path / "0123456789abcdef"
    (bundle / "wheels").mkdir(parents=True)
    (bundle / "SHA256SUMS").touch()
    (bundle / "wheels" / "large.whl").write_bytes(bytes(9 * 1024 * 1024))  # in parts
    # Nothing is deployed yet, so the other settings of EMR are not complete.
    (tmp_path / "cdi.env").write_text("\n".join(["CDI_DEPLOYMENT=emr", *lines]))
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    result = CliRunner().invoke(cdi, ["deploy", str(bundle), "--to", f"s3://{bucket}/bundles"])
    assert result.exit_code == 0, result.output
    keys = [f"bundles/{bundle.name}/{name}" for name in ("SHA256SUMS", "wheels/large.whl")]
    assert encrypted_with(bucket) == dict.fromkeys(keys, expected)


def test_a_key_without_kms_is_refused_before_anything_is_uploaded(
    make_bucket: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, bundle = make_bucket(), tmp_path / "0123456789abcdef"
    bundle.mkdir()
    (bundle / "SHA256SUMS").touch()
    (tmp_path / "cdi.env").write_text(f"CDI_S3_KMS_KEY={KMS_KEY}\n")
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    result = CliRunner().invoke(cdi, ["deploy", str(bundle), "--to", f"s3://{bucket}/bundles"])
    assert result.exit_code == 2
    assert f"CDI_S3_KMS_KEY='{KMS_KEY}' is used by CDI_S3_ENCRYPTION=aws:kms only" in result.stderr
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=bucket)
