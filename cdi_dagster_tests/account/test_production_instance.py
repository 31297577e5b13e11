"""The instance of deploy/production works as written: on a real PostgreSQL, with the logs of runs in a bucket.

A real code server and a real daemon, started as the containers of deploy/aws/dagster.yaml start theirs.
"""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
import yaml

from cdi_dagster.cli.daemon_heartbeat import read_daemon
from cdi_dagster.cli.servers import Guarded
from cdi_dagster.core.metrics import HEARTBEAT, NAMESPACE
from cdi_dagster_tests.account.postgres import Postgres, postgres
from cdi_dagster_tests.account.stacks import aws_environment, shipped, template
from cdi_dagster_tests.s3_server import new_s3_storage, s3_endpoint
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, reserved_port, wait_until

psycopg2 = pytest.importorskip("psycopg2", reason="the extra `postgres` is not installed")
pytestmark = [pytest.mark.daemon, pytest.mark.kill]
BEFORE_THE_LAST_CHANGE = "6b7fb194ff9c"
"""Dagster's schema before its change 7e2f3204cf8e, which adds a column."""
COLUMN = "using_default_limit"


@dataclass(frozen=True, kw_only=True)
class Production:
    """A DAGSTER_HOME of the image, with its database and bucket."""

    home: Path
    database: Postgres
    bucket: str
    environment: dict[str, str]

    def command(self, *command: str) -> list[str]:
        """Return a command of a container, with the programs of this environment."""
        return [str(Path(sys.executable).with_name(command[0])), *command[1:]]

    def sql(self, *statements: str) -> list[Any]:
        """Run statements in one transaction; return the rows of the last."""
        connection = psycopg2.connect(self.database.dsn)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def has_column(self) -> bool:
        """Whether the database has the last change of Dagster's schema."""
        return bool(self.sql(f"SELECT 1 FROM information_schema.columns WHERE column_name = '{COLUMN}'"))


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    home = tmp_path_factory.mktemp("home")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(shipped(f"production/{name}"), home)
    with postgres() as database, pytest.MonkeyPatch.context() as patch:
        bucket = new_s3_storage().uri("").removeprefix("s3://").strip("/")
        environment = {
            **aws_environment(s3_endpoint()),
            **database.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DAGSTER_HOME": str(home),
            "DAGSTER_LOGS_BUCKET": bucket,
            "CDI_HOME": str(home / "cdi"),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        made = Production(home=home, database=database, bucket=bucket, environment={**os.environ, **environment})
        assert migrate(made).returncode == 0  # of an empty database
        yield made


def containers() -> dict[str, list[str]]:
    resources = template("dagster")["Resources"]
    tasks = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::ECS::TaskDefinition"]
    return {each["Name"]: each["Command"] for task in tasks for each in task["ContainerDefinitions"]}


def migrate(production: Production) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        production.command(*containers()["migrate"]),
        env=production.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_it_differs_from_the_instance_of_a_laptop_only_where_it_must() -> None:
    laptop, ours = (yaml.safe_load(shipped(f"{path}dagster.yaml").read_text()) for path in ("", "production/"))
    assert {name: ours[name] for name in laptop if name != "concurrency"} == {
        name: value for name, value in laptop.items() if name != "concurrency"
    }
    assert ours["concurrency"]["pools"] == laptop["concurrency"]["pools"]
    added = {"storage", "compute_logs", "sensors", "schedules", "retention"}
    assert set(ours) - set(laptop) == added


def test_a_run_is_kept_in_the_database_and_its_output_in_the_bucket(production: Production) -> None:
    @dg.op
    def prints() -> None:
        print("a line on stdout", file=sys.stdout, flush=True)

    @dg.job
    def printing() -> None:
        prints()

    with dg.DagsterInstance.from_config(str(production.home)) as instance:
        run_id = printing.execute_in_process(instance=instance).run_id
        instance.compute_log_manager.dispose()
    assert production.sql("SELECT run_id, status FROM runs") == [(run_id, "SUCCESS")]
    stored = boto3.client("s3").list_objects_v2(Bucket=production.bucket, Prefix="dagster-run-logs/")["Contents"]
    outputs = [each["Key"] for each in stored if each["Key"].endswith(".out")]
    bodies = [boto3.client("s3").get_object(Bucket=production.bucket, Key=key)["Body"].read() for key in outputs]
    assert b"a line on stdout" in b"".join(bodies)


def test_a_migration_that_was_killed_is_done_by_the_next_one_and_loses_no_run(production: Production) -> None:
    runs = production.sql("SELECT run_id, status FROM runs")
    assert production.has_column()
    production.sql(
        f"ALTER TABLE concurrency_limits DROP COLUMN {COLUMN}",
        f"UPDATE alembic_version SET version_num = '{BEFORE_THE_LAST_CHANGE}'",
    )
    holding = psycopg2.connect(production.database.dsn)
    holding.cursor().execute("LOCK TABLE concurrency_limits")  # it cannot finish
    killed = subprocess.Popen(production.command(*containers()["migrate"]), env=production.environment)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = 'dagster' AND wait_event_type = 'Lock'"
    wait_until(lambda: production.sql(waiting), "the migration waits for the table")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    holding.close()
    wait_until(lambda: not production.sql(waiting), "the killed migration is gone")

    assert migrate(production).returncode == 0
    assert production.has_column()
    assert production.sql("SELECT run_id, status FROM runs") == runs


def test_code_server_and_daemon_work_on_it_until_the_heartbeat_is_in_cloudwatch(production: Production) -> None:
    environment_name = uuid.uuid4().hex
    with ExitStack() as stack:
        port = str(stack.enter_context(reserved_port()))
        environment = production.environment | {
            "DAGSTER_CODE_HOST": "127.0.0.1",
            "DAGSTER_CODE_PORT": port,
            "CDI_AUTOMATION": "true",
            "CDI_METRICS": "cloudwatch",
            "CDI_ENVIRONMENT": environment_name,
            "CDI_FIRST_STORAGE_DAY": str(datetime.now(UTC).date()),  # no day is due
        }
        for name in ("code", "daemon"):
            command = [port if word == "4000" else word for word in containers()[name]]
            command = [str(production.home / word) if word == "workspace.yaml" else word for word in command]
            started = Guarded(
                production.command(*command), environment=environment, log_path=production.home / f"{name}.log"
            )
            stack.enter_context(started)

        def heartbeats() -> float:
            found = boto3.client("cloudwatch").get_metric_statistics(
                Namespace=NAMESPACE,
                MetricName=HEARTBEAT,
                Dimensions=[{"Name": "Environment", "Value": environment_name}],
                StartTime=datetime.now(UTC) - timedelta(hours=1),
                EndTime=datetime.now(UTC) + timedelta(hours=1),
                Period=3600,
                Statistics=["Sum"],
            )
            return sum(point["Sum"] for point in found["Datapoints"])

        wait_until(heartbeats, "the heartbeat is there", seen=(production.home / "daemon.log").read_text)
        assert read_daemon(production.home, datetime.now(UTC)).is_running
