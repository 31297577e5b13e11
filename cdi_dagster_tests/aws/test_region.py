"""One setting is the region of every AWS client: here and in child processes (nodes: `emr/test_region.py`)."""

from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner

from cdi_dagster.aws import clients
from cdi_dagster.cli.app import cdi
from cdi_dagster.coalescer_status.sources import _batch_client
from cdi_dagster.emr.clusters.api import EmrApi
from cdi_dagster.local_spark.s3a_conf import s3a_conf_here
from cdi_dagster.local_spark.spark_submit import spark_environment
from cdi_dagster.reading import pinned_input
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster.storage.s3_bucket import S3Bucket


@pytest.fixture(autouse=True)
def botocore_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def test_the_setting_is_the_region_of_every_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clients.region() == "us-east-1"
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    (tmp_path / "cdi.env").write_text("CDI_AWS_REGION=eu-west-2\n")
    load_settings()
    made = [clients.client(name) for name in ("sns", "secretsmanager")] + [_batch_client()]
    made += [S3Bucket("s3://bucket", endpoint_url=None, region_name=None).client]
    assert {client.meta.region_name for client in made} == {"eu-west-2"}
    assert clients.resource("dynamodb").meta.client.meta.region_name == EmrApi().region == "eu-west-2"
    assert clients.client("sns", region_name="eu-west-1").meta.region_name == "eu-west-1"


def test_commands_that_need_no_other_setting_work_in_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cdi.env").write_text("CDI_DEPLOYMENT=emr\nCDI_AWS_REGION=eu-west-2\n")  # nothing is deployed yet
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    bundle = tmp_path / "0123456789abcdef"
    bundle.mkdir()
    (bundle / "SHA256SUMS").touch()
    result = CliRunner().invoke(cdi, ["deploy", str(bundle), "--to", (tmp_path / "bundles").as_uri()])
    assert (result.exit_code, clients.region()) == (0, "eu-west-2")
    clients.use_region("")
    assert pinned_input("data:businessAudit", "2023-03-26", published_root=tmp_path.as_uri()) is None
    assert clients.region() == "eu-west-2"


def test_local_spark_gets_it_too(tmp_path: Path) -> None:
    load_settings(home=tmp_path, aws_region="eu-west-2")
    assert spark_environment(Path("/java"))["AWS_DEFAULT_REGION"] == "eu-west-2"
    assert s3a_conf_here({"AWS_REGION": "us-west-1"})["spark.hadoop.fs.s3a.endpoint.region"] == "eu-west-2"
    load_settings(home=tmp_path)
    assert "spark.hadoop.fs.s3a.endpoint.region" not in s3a_conf_here(MappingProxyType({"AWS_REGION": "us-west-1"}))


def test_what_is_no_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CDI_AWS_REGION='London' is not an AWS region: write it as eu-west-2"):
        load_settings(home=tmp_path, aws_region="London")


def test_doctor_reports_that_no_region_is_set_and_what_has_no_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    monkeypatch.setenv("CDI_PUBLISHED_ROOT", "s3://published")
    result = CliRunner().invoke(cdi, ["doctor", "--only", "aws"])
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "no AWS region is set; AWS_REGION=eu-west-2 has no effect, boto3 does not read it" in text
    assert "Set CDI_AWS_REGION" in text
