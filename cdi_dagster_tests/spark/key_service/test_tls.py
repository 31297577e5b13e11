"""Mutual TLS, really spoken: who is let in, and what each refusal becomes."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.key_service.client import KeyServiceClient, KeyServiceConfig
from cdi_dagster_tests.spark import scripted_key_service as scripted
from cdi_dagster_tests.spark.key_service.test_client import data_key, failure_of, ref
from cdi_dagster_tests.spark.scripted_key_service import Certificates, ScriptedKeyService


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["TLS 1.3", "TLS 1.2"])
def service(certificates: Certificates, request: pytest.FixtureRequest) -> Iterator[ScriptedKeyService]:
    running = ScriptedKeyService(tls=certificates.server_tls)
    if request.param == "TLS 1.2":
        running._server.tls = scripted.older_tls(certificates.server_tls)
    with running:
        yield running


def refused(config: KeyServiceConfig) -> CdiError:
    with KeyServiceClient(config) as client:
        failure = failure_of(client, ref(1), ref(2))
        assert client.counts.retries == 0
    assert failure.failure_class is FailureClass.DKS_FORBIDDEN
    return failure


def test_our_certificate_opens_the_door_over_kept_connections(
    certificates: Certificates, service: ScriptedKeyService
) -> None:
    with KeyServiceClient(certificates.config(service, max_concurrency=3)) as client:
        for block in range(5):
            refs = [ref(number) for number in range(block * 10, block * 10 + 10)]
            assert client.data_keys(refs) == {ref(n): data_key(n) for n in range(block * 10, block * 10 + 10)}
        assert client.counts.retries == 0
    assert len(service.peers) <= 3


def test_no_client_certificate_is_dks_forbidden(certificates: Certificates, service: ScriptedKeyService) -> None:
    failure = refused(certificates.config(service, certificate=None, private_key=None))
    assert "could not agree on TLS" in failure.cause
    assert "client certificate" in failure.next_step


def test_a_client_certificate_of_a_stranger_is_dks_forbidden(
    certificates: Certificates, service: ScriptedKeyService
) -> None:
    certificate, private_key = certificates.stranger_client
    failure = refused(certificates.config(service, certificate=certificate, private_key=private_key))
    assert "UNKNOWN_CA" in failure.cause


def test_a_service_with_a_certificate_of_a_stranger_is_not_trusted(
    certificates: Certificates, service: ScriptedKeyService
) -> None:
    failure = refused(certificates.config(service, ca=certificates.stranger_ca))
    assert "We do not trust" in failure.cause
    assert "dks_ca" in failure.next_step
    assert service.requests == []


def test_a_service_with_another_name_in_its_certificate_is_not_trusted(certificates: Certificates) -> None:
    with ScriptedKeyService(tls=certificates.other_name_tls) as service:
        failure = refused(certificates.config(service))
    assert "not valid for '127.0.0.1'" in failure.cause


def test_a_service_that_speaks_no_tls_at_all_is_dks_forbidden(certificates: Certificates) -> None:
    with ScriptedKeyService() as service:
        url = service.url.replace("http:", "https:")
        refused(certificates.config(service, url=url))


def test_plain_http_to_a_tls_service_is_unavailable_and_not_a_hang(service: ScriptedKeyService) -> None:
    url = service.url.replace("https:", "http:")
    with KeyServiceClient(KeyServiceConfig(url=url, correlation_id="c", retry_budget_seconds=0.2)) as client:
        assert failure_of(client).failure_class is FailureClass.DKS_UNAVAILABLE


def test_a_handshake_that_is_cut_is_a_transient_failure(certificates: Certificates) -> None:
    with ScriptedKeyService() as service, scripted.breaking_off_handshakes(3) as port:
        config = certificates.config(service, url=f"https://127.0.0.1:{port}", retry_budget_seconds=2)
        with KeyServiceClient(config) as client:
            failure = failure_of(client)
    assert failure.failure_class is FailureClass.DKS_UNAVAILABLE
    assert failure.detail["tries"] > 3


@pytest.mark.parametrize("missing", ["ca", "certificate", "private_key"])
def test_a_missing_file_is_dks_forbidden_and_named(certificates: Certificates, missing: str, tmp_path: Path) -> None:
    with ScriptedKeyService(tls=certificates.server_tls) as service:
        failure = refused(certificates.config(service, **{missing: str(tmp_path / "not-here.pem")}))
    assert "not-here.pem" in failure.cause
    assert "No such file" in failure.cause


def test_a_private_key_of_another_certificate_is_dks_forbidden(certificates: Certificates) -> None:
    with ScriptedKeyService(tls=certificates.server_tls) as service:
        failure = refused(certificates.config(service, private_key=certificates.stranger_client[1]))
    assert "KEY_VALUES_MISMATCH" in failure.cause


def test_an_encrypted_private_key_is_refused_without_a_password_prompt(
    certificates: Certificates, tmp_path: Path
) -> None:
    key = serialization.load_pem_private_key(Path(certificates.client[1]).read_bytes(), password=None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    with ScriptedKeyService(tls=certificates.server_tls) as service:
        failure = refused(certificates.config(service, private_key=str(locked)))
    assert "not encrypted" in failure.next_step


def test_a_revoked_certificate_is_dks_forbidden_over_tls(
    certificates: Certificates, service: ScriptedKeyService
) -> None:
    service.afterwards = scripted.status(403)
    assert "403" in refused(certificates.config(service)).cause


def test_a_silent_client_does_not_hold_up_the_others(certificates: Certificates, service: ScriptedKeyService) -> None:
    with (
        socket.create_connection(("127.0.0.1", service.port)),
        KeyServiceClient(certificates.config(service)) as client,
    ):
        assert client.data_keys([ref(1)]) == {ref(1): data_key(1)}


def test_the_client_never_speaks_older_than_tls_1_2(certificates: Certificates) -> None:
    with ScriptedKeyService(tls=certificates.server_tls) as service:
        with KeyServiceClient(certificates.config(service)) as client:
            context = client._http._tls_context()
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
