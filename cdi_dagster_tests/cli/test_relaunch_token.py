"""`cdi relaunch` passes a load balancer that wants a header, with a token that is in no argument and no message."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from cdi_dagster.cli.app import cdi
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

DAY = ("relaunch", "--collection", "data:businessAudit", "--storage-day", "2023-03-26")
TOKEN = "the-token-itself"
RESPONSES: dict[str, Any] = {
    "CdiAssets": {
        "assetNodes": [
            {
                "assetKey": {"path": ["business_audit", "daily_records"]},
                "isPartitioned": True,
                "isMaterializable": True,
                "jobNames": ["business_audit_daily"],
                "repository": {"name": "r", "location": {"name": "l"}},
            }
        ]
    },
    "CdiPartitions": {"assetNodeOrError": {"partitionKeysByDimension": [{"partitionKeys": ["2023-03-26"]}]}},
    "CdiBackfill": {"launchPartitionBackfill": {"__typename": "LaunchBackfillSuccess", "backfillId": "b1"}},
}
"""As Dagster's webserver responds; that it does is tested in test_relaunch.py."""


@contextmanager
def load_balancer(header: str) -> Iterator[str]:
    """Who does not send the token is sent to sign in, as AWS's load balancer does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
            passes = self.headers.get(header) == TOKEN
            body = json.dumps({"data": next(value for name, value in RESPONSES.items() if name in query)}).encode()
            self.send_response(200 if passes else 302)
            if not passes:
                body = b""
                self.send_header("Location", "https://identity/authorize")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    name = uuid.uuid4().hex
    boto3.client("secretsmanager").create_secret(Name=name, SecretString=f"{TOKEN}\n")
    return f"secretsmanager://{name}"


@pytest.mark.parametrize("header", ["X-Cdi-Token", "Authorization"])
def test_the_secret_is_sent_in_the_header(tmp_path, secret: str, header: str) -> None:
    with load_balancer(header) as url:
        environment = {"CDI_HOME": str(tmp_path), "CDI_DAGSTER_URL": url, "CDI_DAGSTER_TOKEN_HEADER": header}
        without = CliRunner().invoke(cdi, DAY, env=environment)
        assert (without.exit_code, "wants a sign-in (HTTP 302)" in without.stderr) == (1, True)
        assert "Set CDI_DAGSTER_TOKEN" in without.stderr

        with_secret = CliRunner().invoke(cdi, [*DAY, "--json"], env=environment | {"CDI_DAGSTER_TOKEN": secret})
        assert (with_secret.exit_code, json.loads(with_secret.stdout)["backfill_id"]) == (0, "b1"), with_secret.output
        from_variable = environment | {"CDI_DAGSTER_TOKEN": "env://OUR_TOKEN", "OUR_TOKEN": TOKEN}
        assert CliRunner().invoke(cdi, DAY, env=from_variable).exit_code == 0


def test_a_token_is_never_sent_in_the_clear_nor_taken_as_a_setting(tmp_path) -> None:
    environment = {"CDI_HOME": str(tmp_path), "CDI_DAGSTER_TOKEN": "env://OUR_TOKEN", "OUR_TOKEN": TOKEN}
    result = CliRunner().invoke(cdi, [*DAY, "--url", "http://cdi.example.org"], env=environment)
    assert (result.exit_code, "in the clear" in result.stderr, TOKEN in result.output) == (2, True, False)
    with pytest.raises(SettingsError, match="this may be the token itself") as refused:
        load_settings(home=tmp_path, dagster_token=TOKEN)
    assert TOKEN not in str(refused.value)


def test_a_token_that_cannot_be_read_is_named(tmp_path, secret: str) -> None:
    with load_balancer("X-Cdi-Token") as url:
        environment = {"CDI_HOME": str(tmp_path), "CDI_DAGSTER_URL": url}
        missing = CliRunner().invoke(cdi, DAY, env=environment | {"CDI_DAGSTER_TOKEN": f"{secret}x"})
        assert (missing.exit_code, f"{secret.rpartition('/')[2]}x cannot be read" in missing.stderr) == (1, True)
        unset = CliRunner().invoke(cdi, DAY, env=environment | {"CDI_DAGSTER_TOKEN": "env://NOT_SET"})
        assert (unset.exit_code, "names the variable NOT_SET" in unset.stderr) == (2, True)
