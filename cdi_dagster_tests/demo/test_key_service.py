"""The local key service: its contract, its refusals, and its command."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import urllib3
from click.testing import CliRunner

from cdi_dagster.demo.key_service import DevelopmentKeyService, dks_command, is_loopback, unwrap_data_key, wrap_data_key
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, reserved_port

DATA_KEY = bytes(range(16))
WRAPPED = "Dw4NDAsKCQgHBgUEAwIBAA=="


@pytest.fixture
def service() -> Iterator[DevelopmentKeyService]:
    with DevelopmentKeyService() as running:
        yield running


def decrypt(
    service: DevelopmentKeyService, body: str | bytes, key_id: str = "cloudhsm:1,2"
) -> urllib3.BaseHTTPResponse:
    url = f"{service.url}/datakey/actions/decrypt?keyId={key_id}&correlationId=run-1"
    return urllib3.request("POST", url, body=body, retries=False)


def test_a_wrapped_key_is_its_bytes_reversed() -> None:
    assert wrap_data_key(DATA_KEY) == WRAPPED
    assert unwrap_data_key(WRAPPED) == DATA_KEY


def test_it_answers_as_in_the_contract(service: DevelopmentKeyService) -> None:
    answer = decrypt(service, WRAPPED)
    assert answer.status == 200
    assert answer.json() == {
        "dataKeyDecryptionKeyId": "cloudhsm:1,2",
        "plaintextDataKey": base64.b64encode(DATA_KEY).decode(),
        "correlationId": "run-1",
    }


@pytest.mark.parametrize("body", ["", "not base64!", '"' + WRAPPED + '"', "AAAAA", "é".encode(), b"\xff\xfe"])
def test_what_cannot_be_decrypted_is_400(service: DevelopmentKeyService, body: str | bytes) -> None:
    assert decrypt(service, body).status == 400


def test_a_forgotten_key_is_400_until_it_is_restored() -> None:
    with DevelopmentKeyService(forget=["gone"]) as service:
        assert decrypt(service, WRAPPED, "gone").status == 400
        assert decrypt(service, WRAPPED, "").status == 400
        assert decrypt(service, WRAPPED).status == 200
        service.restore("gone")
        assert decrypt(service, WRAPPED, "gone").status == 200
        service.forget("gone")
        assert decrypt(service, WRAPPED, "gone").status == 400


def test_a_generated_key_is_wrapped_as_it_is_unwrapped(service: DevelopmentKeyService) -> None:
    answer = urllib3.request("GET", f"{service.url}/datakey?correlationId=c", retries=False)
    assert answer.status == 201
    generated = answer.json()
    key = base64.b64decode(generated["plaintextDataKey"])
    assert len(key) == 16
    assert unwrap_data_key(generated["ciphertextDataKey"]) == key
    assert generated["dataKeyEncryptionKeyId"] == "STANDALONE"


def test_it_reports_health_and_describes_itself(service: DevelopmentKeyService) -> None:
    health = urllib3.request("GET", f"{service.url}/healthcheck", retries=False)
    assert (health.status, health.json()["decryption"]) == (200, "OK")
    assert "never for production" in urllib3.request("GET", service.url, retries=False).json()["notice"]


def test_other_places_are_404_and_the_connection_stays_usable(service: DevelopmentKeyService) -> None:
    with urllib3.HTTPConnectionPool("127.0.0.1", service.port, maxsize=1) as pool:
        assert pool.request("POST", "/elsewhere", body="abc", retries=False).status == 404
        assert pool.request("GET", "/elsewhere", retries=False).status == 404
        path = "/datakey/actions/decrypt?keyId=k"
        assert pool.request("POST", path, body=WRAPPED, retries=False).json()["correlationId"] == "NOT_SET"
        assert pool.num_connections == 1


def test_a_body_without_a_sane_length_is_refused(service: DevelopmentKeyService) -> None:
    assert decrypt(service, "A" * 70_000).status == 413
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"POST /datakey/actions/decrypt?keyId=k HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 411")


def test_closing_ends_the_kept_connections_and_frees_the_port() -> None:
    with (
        reserved_port() as port,  # so that nobody else gets it between the two
        DevelopmentKeyService(port) as service,
        urllib3.HTTPConnectionPool("127.0.0.1", service.port) as pool,
    ):
        pool.request("GET", "/healthcheck", retries=False)
        service.close()
        with pytest.raises(urllib3.exceptions.HTTPError):
            pool.request("GET", "/healthcheck", retries=False)
        with DevelopmentKeyService(service.port) as again:
            assert again.port == service.port


def test_loopback_is_recognised() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "dks")] == [
        *(True, True, True),
        *(False, False, False),
    ]


# The terminal


def started(*arguments: str) -> subprocess.Popen[str]:
    code = "from cdi_dagster.demo.key_service import dks_command; dks_command()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_one_line_serves_and_ends_gracefully(number: signal.Signals) -> None:
    with started("--json", "--forget", "gone", "--forget", "lost") as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        answer = urllib3.request("POST", f"{url}/datakey/actions/decrypt?keyId=k", body=WRAPPED, retries=False)
        assert answer.status == 200
        lost = urllib3.request("POST", f"{url}/datakey/actions/decrypt?keyId=lost", body=WRAPPED, retries=False)
        assert lost.status == 400
        os.kill(process.pid, number)
        rest, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, rest, errors) == (0, "", "")


def test_the_command_warns_where_other_machines_can_reach_it() -> None:
    with started("--host", "0.0.0.0") as process:
        assert process.stdout is not None
        assert "http://0.0.0.0:" in process.stdout.readline()
        process.terminate()
        assert "other machines" in process.communicate(timeout=PATIENCE_SECONDS)[1]


def test_a_taken_port_is_a_clear_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(dks_command, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "choose another --port" in result.output


def test_half_of_the_tls_files_is_wrong_usage() -> None:
    result = CliRunner().invoke(dks_command, ["--certificate", __file__])
    assert result.exit_code == 2
    assert "together" in result.output


def test_the_help_warns_that_it_is_for_development_only() -> None:
    text = CliRunner().invoke(dks_command, ["--help"]).output
    assert "For development and tests only" in " ".join(text.split())
