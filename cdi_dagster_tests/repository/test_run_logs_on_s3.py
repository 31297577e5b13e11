"""The option of deploy/dagster.yaml that keeps the logs of runs in a bucket works as it is written there."""

import re
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.execution.compute_logs import should_disable_io_stream_redirect

from cdi_dagster_tests.repository.files import REPOSITORY
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint

DEPLOYED = (REPOSITORY / "deploy" / "dagster.yaml").read_text(encoding="utf-8")


def test_it_is_an_option() -> None:
    assert "compute_logs" not in yaml.safe_load(DEPLOYED)


@pytest.mark.skipif(should_disable_io_stream_redirect(), reason="Dagster does not capture output on this system")
def test_the_output_of_a_run_is_in_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = new_s3_storage()
    bucket = logs.uri("").removeprefix("s3://").strip("/")
    (block,) = re.findall(r"(?:^# compute_logs:\n)(?:^# .*\n?)+", DEPLOYED, re.MULTILINE)
    option = re.sub(r"^# ", "", block, flags=re.MULTILINE).replace("<bucket>", bucket)
    (tmp_path / "dagster.yaml").write_text(DEPLOYED + "\n" + option, encoding="utf-8")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)

    @dg.op
    def prints() -> None:
        print("a line on stdout", file=sys.stdout, flush=True)

    @dg.job
    def printing() -> None:
        prints()

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert printing.execute_in_process(instance=instance).success
        instance.compute_log_manager.dispose()
    kept = [stored.key for stored in logs.list("dagster-run-logs/") if stored.key.endswith(".out")]
    assert any(b"a line on stdout" in logs.read(key) for key in kept), kept
