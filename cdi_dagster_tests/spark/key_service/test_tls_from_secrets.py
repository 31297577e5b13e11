"""Client certificates in Secrets Manager: read by the process that needs them, into memory, and never quoted."""

import json
import logging
import os
import uuid
from pathlib import Path

import pytest

from cdi_dagster.aws.clients import client as aws_client
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.key_service.client import KeyServiceClient
from cdi_dagster_tests.s3_server import REGION, s3_endpoint
from cdi_dagster_tests.spark.key_service.test_client import data_key, failure_of, ref
from cdi_dagster_tests.spark.scripted_key_service import Certificates, ScriptedKeyService

KINDS = ("ca", "certificate", "private_key")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def references(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The authority as a secret of its own, by ARN; certificate and key in one, as a JSON object."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint(),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    pem = dict(zip(KINDS, (Path(path).read_text() for path in (certificates.ca, *certificates.client)), strict=True))
    own, secrets = uuid.uuid4().hex, aws_client("secretsmanager")
    authority = secrets.create_secret(Name=f"cdi/{own}/ca", SecretString=pem.pop("ca"))["ARN"]
    secrets.create_secret(Name=f"cdi/{own}/client", SecretString=json.dumps(pem))
    return {"ca": authority} | {kind: f"secretsmanager://cdi/{own}/client#{kind}" for kind in pem}


@pytest.mark.parametrize("memory", [True, False])
def test_certificates_from_secrets_open_the_door_and_leave_nothing(
    certificates: Certificates,
    references: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    memory: bool,
) -> None:
    if not memory:  # as on a system without files in memory
        monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    caplog.set_level(logging.INFO)
    before = set(os.listdir("/proc/self/fd"))
    with ScriptedKeyService(tls=certificates.server_tls) as service:
        with KeyServiceClient(certificates.config(service, **references)) as client:
            assert client.data_keys([ref(1)]) == {ref(1): data_key(1)}
    assert list(tmp_path.iterdir()) == []
    left = [os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before if _is_open(fd)]
    assert [path for path in left if "pem" in path] == []
    assert "BEGIN" not in caplog.text


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize(
    ("spoilt", "cause"),
    [
        ("secretsmanager://cdi/nobody", "the secret cdi/nobody cannot be read (ResourceNotFoundException)"),
        ("#other", "has no text under other: it must be a JSON object with that key"),
    ],
)
def test_a_secret_that_cannot_be_used_stops_the_job_and_is_named(
    certificates: Certificates, references: dict[str, str], spoilt: str, cause: str
) -> None:
    whole = references["private_key"].partition("#")[0] + spoilt if spoilt.startswith("#") else spoilt
    failure = failure_with(certificates, {**references, "private_key": whole})
    assert failure.failure_class is FailureClass.DKS_FORBIDDEN
    assert cause in failure.cause
    assert "secretsmanager:GetSecretValue" in failure.next_step
    assert "BEGIN" not in repr(failure.to_json())


def test_a_secret_that_is_no_key_is_not_quoted(certificates: Certificates, references: dict[str, str]) -> None:
    whole = references["private_key"].partition("#")[0]
    failure = failure_with(certificates, {**references, "private_key": whole})
    assert failure.failure_class is FailureClass.DKS_FORBIDDEN
    assert "BEGIN" not in repr(failure.to_json())


def test_a_secrets_manager_that_does_not_respond_is_tried_again(
    certificates: Certificates, references: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    failure = failure_with(certificates, references, budget_seconds=10)
    assert failure.failure_class is FailureClass.DKS_UNAVAILABLE
    assert "cannot be read (EndpointConnectionError)" in failure.cause
    assert failure.detail["tries"] > 1


def failure_with(certificates: Certificates, references: dict[str, str], *, budget_seconds: int = 1) -> CdiError:
    with ScriptedKeyService(tls=certificates.server_tls) as service:
        config = certificates.config(service, retry_budget_seconds=budget_seconds, **references)
        with KeyServiceClient(config) as client:
            return failure_of(client)
