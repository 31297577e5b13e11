"""Running a played step through the real launcher, in a real Dagster run, against the emulator; shared by the tests."""

import gzip
import importlib.util
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

import cdi_dagster
from cdi_dagster.bundle.source_digest import source_digest
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.emr.clusters.launcher import EmrPySparkStepLauncher
from cdi_dagster.interfaces import LaunchEvidence, SparkStep
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.emr import played_step
from cdi_dagster_tests.emr.emulator import REGION, EmrEmulator

DAY = date(2023, 3, 26)
BUNDLE = f"{source_digest()}-b1"
"""Of the code that runs here; another is refused when the code location is loaded."""
WAITS: list[float] = []
"""How long launchers of this process waited, in seconds."""
Play = Sequence[str]


class QuickLauncher(EmrPySparkStepLauncher):
    """The launcher, whose waits are as short as a test can bear, and remembered."""

    def sleep(self, seconds: float) -> None:
        WAITS.append(seconds)
        time.sleep(min(seconds, 0.15))


def in_a_run(work: Callable[[dg.OpExecutionContext], Any]) -> list[str]:
    """Do something in a Dagster run; return the lines of its page."""

    @dg.op
    def only(context: dg.OpExecutionContext) -> None:
        work(context)

    @dg.job(executor_def=dg.in_process_executor)
    def job() -> None:
        only()

    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
        return [entry.user_message for entry in instance.all_logs(result.run_id)]


@dataclass
class Launched:
    """What came of one launch, as an operator sees it."""

    run_id: str
    logged: list[str] = field(default_factory=list)
    evidence: LaunchEvidence | None = None
    failure: CdiError | None = None

    @property
    def attempts(self) -> list[tuple[str, str]]:
        """Profile and kind of every attempt."""
        if self.evidence:
            return [(a.detail["profile"], a.detail["kind"]) for a in self.evidence.attempts]
        assert self.failure is not None
        return [(a["profile"], a["kind"]) for a in self.failure.detail["attempts"]]

    @property
    def text(self) -> str:
        """The whole run page."""
        return "\n".join(self.logged)


@dataclass
class Bench:
    """An emulated account with buckets, bundle and template."""

    emr: EmrEmulator
    folder: Path
    bucket: str

    @property
    def published_root(self) -> str:
        return f"s3://{self.bucket}/published"

    @property
    def status_table(self) -> str:
        """Its own, since moto has one DynamoDB for all."""
        return f"status-{self.bucket}"

    def prepare(self) -> None:
        s3 = self.emr.client("s3")
        s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        bootstrap = (
            f'set -e; [ "$1" = s3://{self.bucket}/bundles/{BUNDLE} ]; mkdir -p "$CDI_PREFIX/entry_points"\n'
            f'cp {shlex.quote(str(played_step.__file__))} "$CDI_PREFIX/entry_points/ingest_daily.py"\n'
        )
        s3.put_object(Bucket=self.bucket, Key=f"bundles/{BUNDLE}/bootstrap.sh", Body=bootstrap.encode())
        template = Path(__file__).with_name("template.yaml").read_text().replace("LOGS", self.bucket)
        (self.folder / "cluster.yaml").write_text(template)

    def run_spark(
        self, entry_point: Path, *, master: str, name: str = "ingest_daily", conf: Mapping[str, str] | None = None
    ) -> None:
        """Have clusters run a Spark program with this environment's Python, logging as the bundle has it.

        `name` is the job's, `conf` what EMR has in its spark-defaults.
        """
        python = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
        log4j2 = Path(cdi_dagster.__file__).parent / "spark" / "log4j2.json"
        bootstrap = (
            f'set -e; mkdir -p "$CDI_PREFIX/entry_points" "$CDI_PREFIX/venv/bin"; cd "$CDI_PREFIX"\n'
            f"cp {shlex.quote(str(entry_point))} entry_points/{name}.py\n"
            f"cp {shlex.quote(str(log4j2))} log4j2.json\n"
            f"while [ -e {self.folder}/hold ]; do sleep 0.1; done\n"
            f"printf %s {shlex.quote(python)} > venv/bin/python; chmod +x venv/bin/python\n"
        )
        self.emr.client("s3").put_object(
            Bucket=self.bucket, Key=f"bundles/{BUNDLE}/bootstrap.sh", Body=bootstrap.encode()
        )
        self.emr.spark_master = master
        events, defaults = self.folder / "spark-events", self.folder / "spark-conf"
        events.mkdir()
        defaults.mkdir()
        # As EMR has it in its own spark-defaults.
        given = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": events.as_uri(), **(conf or {})}
        lines = [f"{key} {value}" for key, value in given.items()]
        (defaults / "spark-defaults.conf").write_text("\n".join(lines))
        self.emr.step_environment |= {
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_HOSTNAME": "127.0.0.1",
            "SPARK_CONF_DIR": str(defaults),
            "SPARK_HOME": str(self._spark_home()),
        }

    def settings(self, *, dks_url: str, first_storage_day: date) -> dict[str, str]:
        """Return the environment of an installation on this account."""
        return {
            "CDI_DEPLOYMENT": "emr",
            "CDI_HOME": str(self.folder / "home"),
            "CDI_CORPORATE_ROOT": f"s3://{self.bucket}/corporate",
            "CDI_PUBLISHED_ROOT": self.published_root,
            "CDI_FIRST_STORAGE_DAY": first_storage_day.isoformat(),
            "CDI_DKS_URL": dks_url,
            "CDI_STATUS_TABLE_NAME": self.status_table,
            "CDI_EMR_TEMPLATE": str(self.folder / "cluster.yaml"),
            "CDI_EMR_BUNDLE_URI": f"s3://{self.bucket}/bundles/{BUNDLE}",
            "CDI_EMR_POLL_INTERVAL_SECONDS": "5",
            "CDI_SPARK_CONF": json.dumps({"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}),
        }

    def hold_clusters(self) -> None:
        """Have clusters stay in BOOTSTRAPPING until they are let go."""
        (self.folder / "hold").touch()

    def let_clusters_go(self) -> None:
        (self.folder / "hold").unlink()

    def _spark_home(self) -> Path:
        """Make a SPARK_HOME like pyspark's own, but where executors of a local cluster may leave their logs."""
        home = self.folder / "spark_home"
        home.mkdir()
        spec = importlib.util.find_spec("pyspark")
        assert spec is not None
        assert spec.origin is not None
        for path in Path(spec.origin).parent.iterdir():
            (home / path.name).symlink_to(path)
        return home

    def logs(self) -> dict[str, str]:
        """Return every log of every cluster by where it is: under LogUri, of executors, and of Spark's events."""
        s3 = self.emr.client("s3")
        kept = s3.list_objects_v2(Bucket=self.bucket, Prefix="emr/").get("Contents", [])
        bodies = {row["Key"]: s3.get_object(Bucket=self.bucket, Key=row["Key"])["Body"].read() for row in kept}
        logs = {key: gzip.decompress(body).decode() for key, body in bodies.items()}
        files = [*self.folder.glob("spark_home/work/*/*/std*"), *self.folder.glob("spark-events/*")]
        return logs | {str(path): path.read_text() for path in files}

    def config(self, **more: Any) -> dict[str, Any]:
        return {
            "published_root": self.published_root,
            "template_path": str(self.folder / "cluster.yaml"),
            "bundle_uri": f"s3://{self.bucket}/bundles/{BUNDLE}",
            "live_stdio": False,
            "poll_interval_seconds": 15.0,
            **more,
        }

    def step(self, *plays: Play, correlation_id: str, input_bytes: int = 10, **arguments: str) -> SparkStep:
        named = [part for name, value in arguments.items() for part in (f"--{name.replace('_', '-')}", value)]
        return SparkStep(
            job=INGEST_DAILY,
            arguments=(
                *("--plays", json.dumps(plays)),
                *("--correlation-id", correlation_id),
                *named,
            ),
            collection=AUDIT,
            storage_day=DAY,
            correlation_id=correlation_id,
            input_bytes=input_bytes,
        )

    def launch(self, *plays: Play, input_bytes: int = 10, **config: Any) -> Launched:
        """Launch in a run of its own."""
        launched: dict[str, Any] = {}

        @dg.asset
        def daily_records(context: dg.AssetExecutionContext, step_launcher: QuickLauncher) -> dg.MaterializeResult:
            step = self.step(*plays, correlation_id=context.run.run_id, input_bytes=input_bytes)
            try:
                launched["evidence"] = step_launcher.launch(context, step)
            except CdiError as error:
                launched["failure"] = error
                raise dg.Failure(str(error), allow_retries=False) from error
            return dg.MaterializeResult()

        WAITS.clear()
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                [daily_records],
                resources={"step_launcher": QuickLauncher(**self.config(**config))},
                instance=instance,
                raise_on_error=False,
            )
            logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
        print("\n".join(logged), file=sys.stderr)
        return Launched(run_id=result.run_id, logged=logged, **launched)

    def waits(self) -> list[float]:
        """The waits that were not for a poll, in whole tens of seconds: from the end of an attempt, so a bit less."""
        return [math.ceil(seconds / 10) * 10 for seconds in WAITS if seconds != 15.0]
