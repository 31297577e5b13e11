"""Settings: everything that an installation configures, in one place, validated before anything starts.

Read from environment variables (`CDI_` and the name in capitals), then from `cdi.env` in the home folder, then the
defaults below, which are safe on a laptop. Definitions, resources and the terminal read settings; what runs on the
cluster never does: it gets everything it needs as arguments.
"""

import difflib
import json
import logging
import os
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cdi_dagster.aws.clients import REGION, use_region, use_roles
from cdi_dagster.coalescer.shard import MOST_SHARDS
from cdi_dagster.coalescer_status.batch_jobs import QUEUES as BATCH_QUEUES
from cdi_dagster.core.alert_target import AlertTargetKind, alert_target
from cdi_dagster.core.collections import REGISTRY, Collection, find_collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.key_service_access import DEFAULT_RETRY_BUDGET_SECONDS, KeyServiceAccess
from cdi_dagster.core.loopback import is_loopback
from cdi_dagster.core.reject_limit import parse_reject_limit
from cdi_dagster.core.secret_reference import secret_reference
from cdi_dagster.core.status_rows import DEFAULT_WEEKS_TO_EXIST
from cdi_dagster.local_spark.spark_submit import DEFAULT_DRIVER_MEMORY, DEFAULT_MASTER, SparkProcessConfig
from cdi_dagster.storage import Encryption, use_encryption

_log = logging.getLogger(__name__)
PREFIX = "CDI_"
ENV_FILE_NAME = "cdi.env"
DEFAULT_HOME = Path(".cdi")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MASTER = re.compile(r"local(\[([1-9][0-9]*|\*)(\s*,\s*[1-9][0-9]*)?\])?|yarn|(spark|k8s)://\S+")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+", re.ASCII)
_MEMORY = re.compile(r"[1-9][0-9]*[mg]")
_NOT_IN_DAGSTER_HOME = "%?[]*"
"""Dagster puts the folder into URLs of SQLite, and looks for `dagster.yaml` with a glob."""


class SettingsError(Exception):
    """The settings cannot be used; the text has one line for each problem, with its fix."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class AwsSettings(BaseSettings):
    """What AWS clients need to know, also of an installation whose other settings are not complete yet.

    `use` is the one place where a process takes it.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    aws_region: str = Field(
        default="",
        description="AWS region (`eu-west-2`) of everything here: buckets, clusters, queues. Every client gets it, "
        "also in drivers and executors. Default: botocore's own configuration, `AWS_DEFAULT_REGION` or the profile; "
        "it does not read `AWS_REGION`, and takes none from the instance.",
    )
    s3_encryption: Literal["", "AES256", "aws:kms"] = Field(
        default="",
        description="Server-side encryption that every object written to S3 requests, by boto3 and by Spark alike: "
        "`AES256` or `aws:kms`. Default: none is requested, and the bucket's own default applies. A bucket policy that "
        "refuses writes without one needs it.",
    )
    s3_kms_key: str = Field(
        default="",
        description="Id or ARN of the KMS key for `aws:kms`. Default: the bucket's, or else the account's own for S3. "
        "Whoever reads needs `kms:Decrypt` on it, whoever writes `kms:GenerateDataKey` too.",
    )

    emr_role_arn: str = Field(
        default="",
        description="ARN of a role in the account where clusters run, if that is another: EMR is used as this role, "
        "which our own assumes. Buckets, status table and alerts stay with ours. Default: our own account.",
    )
    batch_role_arn: str = Field(
        default="",
        description="ARN of a role in the account of the coalescer's AWS Batch, if that is another; as "
        "CDI_EMR_ROLE_ARN.",
    )

    def use(self) -> None:
        """Have this process's AWS clients made, and its writes to S3 encrypted, as set, from now on."""
        use_region(self.aws_region)
        # What `cdi doctor` looks up of a cluster's roles and subnets is in its account.
        use_roles(
            {"emr": self.emr_role_arn, "iam": self.emr_role_arn, "ec2": self.emr_role_arn}
            | {"batch": self.batch_role_arn}
        )
        use_encryption(Encryption(algorithm=self.s3_encryption, kms_key=self.s3_kms_key))

    @field_validator("aws_region")
    @classmethod
    def _is_region(cls, value: str) -> str:
        if value and not REGION.fullmatch(value):
            raise ValueError(f"{value!r} is not an AWS region: write it as eu-west-2")
        return value

    @field_validator("emr_role_arn", "batch_role_arn")
    @classmethod
    def _is_role(cls, value: str) -> str:
        if value and not _ROLE.fullmatch(value):
            raise ValueError(f"{value!r} is not the ARN of a role: write arn:aws:iam::<account>:role/<name>")
        return value

    @field_validator("s3_kms_key")
    @classmethod
    def _is_of_kms(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("s3_encryption", "aws:kms") != "aws:kms":
            raise ValueError(f"{value!r} is used by CDI_S3_ENCRYPTION=aws:kms only: set that too, or take the key out")
        return value


class Settings(AwsSettings):
    """What one installation of `cdi_dagster` needs to know."""

    deployment: Literal["local", "emr"] = Field(
        default="local",
        description="Where Spark jobs run: `local` as a child process on this machine, `emr` on EMR clusters. "
        "`local` is the default because it cannot cost anything.",
    )
    home: Path = Field(
        default=DEFAULT_HOME,
        description="Folder of everything an installation keeps locally: Dagster home, metastore, status rows and, "
        "unless the roots are set, the data. Set it to an absolute one: otherwise it is below the current folder, and "
        "every process logs which that is.",
    )
    corporate_root: str = Field(
        default="",
        description="Root of corporate storage, `file:///absolute/folder` or `s3://bucket`: K2HB and the coalescer "
        "write here, we only read. Default: `corporate/` in the home folder.",
    )
    published_root: str = Field(
        default="",
        description="Root of what we publish, `file:///absolute/folder` or `s3://bucket`. Never the corporate root, "
        "or one mistake there could touch the input. Default: `published/` in the home folder.",
    )
    first_storage_day: date = Field(
        default=date(2023, 1, 1),
        description="First storage day (YYYY-MM-DD) that is a partition; earlier days can be neither materialised nor "
        "backfilled. Set it to the first day that corporate storage still holds.",
    )
    collections: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="The collections that this installation ingests, separated by commas: "
        "`data:businessAudit,data:equality`. Default: all of the registry. The others have no assets, no alerts, and "
        "`cdi watch` does not wait for them.",
    )
    max_rejected: str = Field(
        default="0",
        description="How many rejected records a day may have and still be published: a number (`10`) or a share of "
        "the records read (`0.1%`). Default none: an analyst who misses records does not know it.",
    )

    dks_url: str = Field(
        default="http://127.0.0.1:8443",
        description="Base URL of the Data Key Service. Default: where `cdi dks` listens.",
    )
    dks_ca: str | None = Field(
        default=None,
        description="PEM of the authority that signed the service's certificate: a path where the Spark job runs, or a "
        "secret, as for CDI_DKS_PRIVATE_KEY. Default: the system's authorities.",
    )
    dks_certificate: str | None = Field(
        default=None,
        description="PEM of our client certificate, for mutual TLS: a path where the Spark job runs, or a secret, as "
        "for CDI_DKS_PRIVATE_KEY.",
    )
    dks_private_key: str | None = Field(
        default=None,
        description="PEM of the private key of our client certificate: a path where the Spark job runs, or a secret in "
        "Secrets Manager, `secretsmanager://name` or its ARN, each with `#key` where it is a JSON object. The job "
        "reads it on the node, as the instance role, into memory only.",
    )
    dks_retry_budget_seconds: int = Field(
        default=DEFAULT_RETRY_BUDGET_SECONDS,
        ge=0,
        le=3600,
        description="Seconds for which the request for one data key is retried while the key service responds with 503 "
        "or not at all; 0 tries once. Beyond two minutes it is cheaper to retry the run later than to wait on a paid "
        "cluster.",
    )

    spark_master: str = Field(
        default=DEFAULT_MASTER,
        description="Spark master of local steps: `local[*,4]` uses every core of this machine, and tries a task "
        "four times. Without the second number (`local[2]`) the first killed worker ends the step.",
    )
    spark_driver_memory: str = Field(
        default=DEFAULT_DRIVER_MEMORY,
        description="Heap of local Spark (`2g`, `1500m`). Locally the driver is also the executor; records stream, so "
        "a day's size hardly matters.",
    )
    spark_conf: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description='More Spark configuration for every step, as a JSON object: {"spark.sql.shuffle.partitions": "8"}.',
    )
    s3a_jars: Path | None = Field(
        default=None,
        description="Folder of the jars with which local Spark writes tables to `s3://` (docs/s3.md). Default: where "
        "`make s3a-jars` puts them, `.cdi/jars/spark-<version>` below the current folder. EMR has its own.",
    )

    table_definitions: Annotated[dict[str, str | None], NoDecode] = Field(
        default_factory=dict,
        description="The tables of a collection where they are not the shipped ones, as a JSON object of paths, "
        '`file://` or `s3://` URIs: {"data:businessAudit": "/etc/cdi/audit_tables.json"} (docs/tables.md); null in the '
        "place of one: only the files are published. A path is absolute or below the current folder. Definitions are "
        "read and checked when the code location is loaded.",
    )
    coalescer_source: Literal["marker", "batch", "quiet"] = Field(
        default="marker",
        description="Where the coalescer's status is read: `marker`, the marker that our own coalescer writes; "
        "`batch`, AWS Batch, which runs the platform's; `quiet`, the listing: without change for "
        "CDI_COALESCER_QUIET_SECONDS it counts as complete. That is a guess, only for where there is no other source.",
    )
    coalescer_in_dagster: bool = Field(
        default=False,
        description="Whether runs coalesce their day first, in an asset of their own, by our own coalescer: for an "
        "installation where nothing else does. Schedule and sensor then launch days that nobody has coalesced. Only "
        "with CDI_COALESCER_SOURCE=marker.",
    )
    coalescer_processes: int = Field(
        default=1,
        ge=1,
        le=MOST_SHARDS,
        description="Processes by which a run coalesces its day, each with its own Kafka partitions, on the machine of "
        "the run. Only where runs coalesce.",
    )
    emr_template: Path = Field(
        default=Path("deploy/emr/cluster.yaml"),
        description="Path of the cluster template (`emr`), absolute or below the current folder.",
    )
    emr_environment: str = Field(
        default="", description="Which of the template's `overrides.environments` applies, for example `production`."
    )
    emr_overrides: Annotated[dict[str, Any], NoDecode] = Field(
        default_factory=dict,
        description="What only the account knows of the cluster template (roles, subnets, log bucket), as a JSON "
        'object on top of its environment: {"cluster": {"LogUri": "s3://our-logs/emr"}}. `cdi deploy settings` writes '
        "it from the stack `emr`.",
    )
    emr_bundle_uri: str = Field(
        default="", description="s3:// URI of the bundle that clusters install (`emr`); `cdi deploy` prints it."
    )
    emr_cluster_id: str | None = Field(
        default=None,
        description="Id (`j-...`) of a cluster to add every step to, and never to end: for trying things out.",
    )
    emr_idle_seconds: int = Field(
        default=300,
        ge=60,
        le=604800,
        description="Seconds that a cluster may idle between two steps before EMR ends it (its auto-termination "
        "policy): it limits what a cluster costs that nobody needs any more. Usually it is ended at once.",
    )
    emr_poll_interval_seconds: int = Field(
        default=20,
        ge=5,
        le=300,
        description="Seconds between two polls of a cluster. EMR throttles DescribeCluster for the whole account, and "
        "a step takes minutes.",
    )
    emr_start_deadline_seconds: int = Field(
        default=1200,
        ge=60,
        description="Seconds that a cluster may be STARTING before the next profile is tried. Minutes are usual; "
        "without capacity EMR may wait for ever.",
    )
    emr_run_deadline_seconds: int = Field(
        default=21600,
        ge=600,
        description="Seconds for one step with all its attempts, after which its cluster is terminated: it limits what "
        "a job that hangs can cost.",
    )

    emr_bootstrap_deadline_seconds: int = Field(
        default=1200,
        ge=60,
        description="Seconds that a cluster may be BOOTSTRAPPING, on top of the start deadline: ours takes a minute or "
        "two.",
    )
    emr_log_wait_seconds: int = Field(
        default=360,
        ge=0,
        description="Seconds to wait for the log of a step that failed without reporting why. EMR copies logs to S3 "
        "every five minutes, and when the cluster ends; a copy from before the step's end does not show why.",
    )
    emr_blind_seconds: int = Field(
        default=900,
        ge=60,
        description="Seconds for which EMR may fail to respond before the run fails. The cluster is left running then.",
    )
    emr_live_stdio: bool = Field(
        default=True,
        description="Whether the job sends what it writes to stdout and stderr, so that the run page shows it live.",
    )

    coalescer_lease_seconds: int = Field(
        default=120,
        ge=10,
        description="Seconds without a heartbeat after which a RUNNING coalescer marker is that of a killed one (the "
        "state is then FAILED: the day still waits, with that reason). As long as the coalescer's own lease, in which "
        "it beats six times: every 20 s. Only for `marker`.",
    )
    coalescer_batch_queues: Annotated[tuple[str, ...], NoDecode] = Field(
        default=BATCH_QUEUES,
        min_length=1,
        description="AWS Batch job queues that coalescer jobs may be in, separated by commas. All of them are queried: "
        "a job in a queue that is left out would run unseen beside ingestion. Only for `batch`.",
    )
    coalescer_quiet_seconds: int = Field(
        default=3600,
        ge=60,
        description="Seconds for which a day's listing must not change to count as complete; longer than the "
        "coalescer's longest pause, which is one batch (an hour is ten times a slow one). Only for `quiet`.",
    )
    due_time: time = Field(
        default=time(9, 30), description="UTC time of the export day from which a storage day is due (HH:MM)."
    )
    late_time: time = Field(
        default=time(12, 0),
        description="UTC time of the export day after which a day that is not ingested is late and an alert is sent. "
        "After `due_time`; the default leaves the coalescer two and a half hours.",
    )
    look_back_days: int = Field(
        default=7,
        ge=1,
        le=90,
        description="How many storage days back automation looks for a day that was missed or coalesced again. A week "
        "covers a long weekend without a daemon.",
    )
    snapshot_most_fall_percent: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="By how many percent the rows of an id_part may fall from one weekly snapshot to the next before "
        "the check turns red. Deleted ids stay in a snapshot, so none should fall.",
    )
    local_time_zone: str = Field(
        default="Europe/London",
        description="Time zone in which times are also shown, beside UTC. Schedules use UTC only.",
    )
    alert_target: str = Field(
        default="",
        description="Where alerts of late days and failed runs are sent: the address of a webhook of Slack or Teams, "
        "`pagerduty`, `arn:aws:sns:…`, or any other `https://…`, which gets JSON. Behind a proxy of your own a prefix "
        "names the format: `slack+https://…`, `teams+https://…`, `pagerduty+https://…`. Default: nowhere; the log, the "
        "check and the pages of asset and run show them.",
    )
    alert_token: str = Field(
        default="",
        description="Secret that is sent with each alert: PagerDuty's routing key, or the bearer token of a webhook of "
        "your own. `secretsmanager://name` or its ARN, each with `#key` where it is a JSON object; read when an alert "
        "is sent, as the role of Dagster. Default: none.",
    )
    alert_on: str = Field(
        default="",
        description="For what else alerts are sent, by comma: `STARTED` when an automated run begins, `COMPLETED` when "
        "it has succeeded. Not for PagerDuty. Default: only what failed or is late, which is always sent.",
    )
    environment: str = Field(
        default="",
        description="Name of this installation in alerts, for example `production`. Default: CDI_EMR_ENVIRONMENT, else "
        "`local` or `emr` after CDI_DEPLOYMENT.",
    )
    automation: bool = Field(
        default=False,
        description="Whether schedules and sensors are on by default. Off, so that a laptop that loads the code starts "
        "nothing by itself; production sets it to true.",
    )

    metrics: str = Field(
        default="",
        description="Where metrics go: `cloudwatch`, its namespace `CDI`, or `file:///folder/cdi.prom`, a text file "
        "for Prometheus (the node exporter's textfile collector). Default: nowhere.",
    )

    status_table_name: str = Field(
        default="data_pipeline_metadata",
        min_length=3,
        description="DynamoDB table of the status rows (`emr`); downstream products read it under this name.",
    )
    status_weeks_to_exist: int = Field(
        default=DEFAULT_WEEKS_TO_EXIST,
        ge=1,
        description="Weeks after which a status row is removed (`TimeToExist`). Two years, as the platform before kept "
        "them: downstream products look back.",
    )
    runbook_url: str = Field(
        default="docs/runbook.md",
        description="Where the runbook is published; failures link to `<runbook_url>#<class in lower case>`.",
    )

    dagster_url: str = Field(
        default="http://127.0.0.1:3000",
        description="Address of the Dagster UI as people reach it; alerts link to the run that failed.",
    )

    dagster_token: str = Field(
        default="",
        description="Secret with which `cdi relaunch` passes the load balancer in front of the UI: "
        "`secretsmanager://name` or its ARN, each with `#key` where it is a JSON object, or `env://VARIABLE`. "
        "Default: none is sent.",
    )
    dagster_token_header: str = Field(
        default="X-Cdi-Token",
        pattern=r"^[A-Za-z0-9-]+$",
        description="HTTP header that carries CDI_DAGSTER_TOKEN. For `Authorization` the secret is `Bearer …` as a "
        "whole.",
    )

    @property
    def dagster_home(self) -> Path:
        """Folder for DAGSTER_HOME."""
        return self.home / "dagster_home"

    @property
    def metastore_path(self) -> Path:
        """Folder of the local Hive metastore (Derby: one process at a time)."""
        return self.home / "metastore"

    @property
    def status_path(self) -> Path:
        """Folder of the local status table."""
        return self.home / "status"

    @property
    def ingested_collections(self) -> tuple[Collection, ...]:
        """The collections of this installation, in the registry's order."""
        return tuple(each for each in REGISTRY if not self.collections or each.id in self.collections)

    @property
    def calendar(self) -> DayCalendar:
        """Which storage days automation looks at, and when each is due and late."""
        return DayCalendar(
            first_storage_day=self.first_storage_day,
            due_time=self.due_time,
            late_time=self.late_time,
            look_back_days=self.look_back_days,
        )

    @property
    def watch_state_path(self) -> Path:
        """File in which `cdi watch` keeps what it has alerted."""
        return self.home / "watch.json"

    @property
    def key_service(self) -> KeyServiceAccess:
        """How jobs reach the key service."""
        return KeyServiceAccess(
            url=self.dks_url,
            ca=self.dks_ca,
            certificate=self.dks_certificate,
            private_key=self.dks_private_key,
            retry_budget_seconds=self.dks_retry_budget_seconds,
        )

    @property
    def local_spark(self) -> SparkProcessConfig:
        """How Spark runs on this machine, for Dagster's runs and for `cdi`."""
        return SparkProcessConfig(
            work_folder=self.home / "runs",
            metastore_folder=self.metastore_path,
            master=self.spark_master,
            driver_memory=self.spark_driver_memory,
            conf=self.spark_conf,
            s3a_jars=self.s3a_jars,
        )

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("corporate_root", "published_root")
    @classmethod
    def _is_root(cls, value: str) -> str:
        return value and check_root(value)

    @field_validator("dks_ca", "dks_certificate", "dks_private_key")
    @classmethod
    def _is_path_or_secret(cls, value: str | None) -> str | None:
        secret_reference(value or "")
        return value

    @field_validator("dks_url", "dagster_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not an address: write https://host:port")
        return value.rstrip("/")

    @field_validator("local_time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is not a time zone: write Europe/London or UTC") from None
        return value

    @field_validator("alert_target")
    @classmethod
    def _is_target(cls, value: str) -> str:
        alert_target(value)
        return value

    @field_validator("alert_on")
    @classmethod
    def _are_kinds(cls, value: str) -> str:
        if {kind.strip() for kind in value.split(",")} - {"STARTED", "COMPLETED", ""}:
            raise ValueError(f"{value!r} is not known: write STARTED, COMPLETED, or STARTED,COMPLETED")
        return value

    @field_validator("alert_token")
    @classmethod
    def _is_secret(cls, value: str) -> str:
        if value and "://" not in value and not value.startswith("arn:"):
            raise ValueError("this may be the secret itself: write secretsmanager://name[#json-key], where it is kept")
        secret_reference(value)
        return value

    @field_validator("metrics")
    @classmethod
    def _are_metrics(cls, value: str) -> str:
        if value not in ("", "cloudwatch") and not (value.startswith("file:///") and value.endswith(".prom")):
            raise ValueError(f"{value!r} is no place for metrics: write cloudwatch or file:///folder/cdi.prom")
        return value

    @field_validator("dagster_token")
    @classmethod
    def _is_token(cls, value: str) -> str:
        if value and not value.startswith(("secretsmanager://", "arn:", "env://")):
            raise ValueError("this may be the token itself: write secretsmanager://name[#json-key] or env://VARIABLE")
        if not value.startswith("env://"):
            secret_reference(value)
        return value

    @field_validator("collections", mode="before")
    @classmethod
    def _are_collections(cls, value: Any) -> Any:
        ids = tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value
        registered = [collection.id for collection in REGISTRY]
        for collection_id in ids:
            if collection_id not in registered:
                raise ValueError(
                    f"{collection_id!r} is not a collection of the registry: write {', '.join(registered)}"
                )
        return ids

    @field_validator("max_rejected")
    @classmethod
    def _is_limit(cls, value: str) -> str:
        return parse_reject_limit(value).text

    @field_validator("first_storage_day")
    @classmethod
    def _is_past(cls, value: date) -> date:
        today = datetime.now(UTC).date()
        if value > today:
            raise ValueError(f"'{value}' is in the future, so no day could be ingested: write {today} or earlier")
        return value

    @field_validator("spark_master")
    @classmethod
    def _is_master(cls, value: str) -> str:
        if not _MASTER.fullmatch(value):
            raise ValueError(
                f"{value!r} is not a Spark master: write local[*,4], local[2,4], yarn or spark://host:port"
            )
        return value

    @field_validator("spark_driver_memory")
    @classmethod
    def _is_memory(cls, value: str) -> str:
        if not _MEMORY.fullmatch(value.lower()):
            raise ValueError(f"{value!r} is not an amount of memory: write 2g or 1500m")
        return value.lower()

    @field_validator("table_definitions", mode="before")
    @classmethod
    def _are_definitions(cls, value: Any) -> Any:
        paths = _json_object(value) if isinstance(value, str) else value
        given = [path for path in paths.values() if path is not None] if isinstance(paths, dict) else [None]
        if not all(isinstance(path, str) and path for path in given):
            raise ValueError('not a JSON object of paths: write {"data:businessAudit": "/etc/cdi/audit_tables.json"}')
        registered = [collection.id for collection in REGISTRY]
        for collection_id in paths:
            try:
                find_collection(collection_id)
            except CdiError as error:
                raise ValueError(error.cause) from None
            close = difflib.get_close_matches(collection_id, registered, n=1, cutoff=0.85)
            if close and collection_id not in registered:
                raise ValueError(f"{collection_id!r} is not a collection of the registry: did you mean {close[0]}?")
        return paths

    @field_validator("emr_overrides", mode="before")
    @classmethod
    def _are_overrides(cls, value: Any) -> Any:
        overrides = _json_object(value) if isinstance(value, str) else value
        if not isinstance(overrides, dict):
            raise ValueError(  # noqa: TRY004 - pydantic takes ValueError
                'not a JSON object: write {"cluster": {"LogUri": "s3://our-logs/emr"}}'
            )
        return overrides

    @field_validator("coalescer_batch_queues", mode="before")
    @classmethod
    def _are_queues(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("spark_conf", mode="before")
    @classmethod
    def _is_conf(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        conf = _json_object(value)
        if not isinstance(conf, dict) or any(not isinstance(item, str | int | float) for item in conf.values()):
            raise ValueError('not a JSON object of texts: write {"spark.sql.shuffle.partitions": "8"}')
        return {name: str(item) for name, item in conf.items()}

    @model_validator(mode="after")
    def _local_defaults(self) -> Self:
        if self.deployment == "local":
            for name, folder in (("corporate_root", "corporate"), ("published_root", "published")):
                if not getattr(self, name):
                    object.__setattr__(self, name, (self.home / folder).as_uri())
        return self

    @model_validator(mode="after")
    def _named(self) -> Self:
        object.__setattr__(self, "environment", self.environment or self.emr_environment or self.deployment)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = list(self._contradictions())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        if self.late_time <= self.due_time:
            yield f"CDI_LATE_TIME {self.late_time:%H:%M} is not after CDI_DUE_TIME {self.due_time:%H:%M}: make it later"
        if bool(self.dks_certificate) != bool(self.dks_private_key):
            yield "CDI_DKS_CERTIFICATE and CDI_DKS_PRIVATE_KEY belong together: set both, or neither"
        if self.dks_certificate and self.dks_url.startswith("http://"):
            yield "CDI_DKS_CERTIFICATE is set but CDI_DKS_URL is plain http: write https://host:port"
        if self.dks_url.startswith("http://") and not is_loopback(urlsplit(self.dks_url).hostname):
            yield f"CDI_DKS_URL={self.dks_url!r} would carry data keys over the network in the clear: write https://…"
        if self.corporate_root and _place(self.published_root).startswith(_place(self.corporate_root)):
            yield "CDI_PUBLISHED_ROOT is CDI_CORPORATE_ROOT, or lies in it: publish to another bucket or folder"
        if alert_target(self.alert_target)[0] is AlertTargetKind.PAGERDUTY and self.alert_on:
            yield "CDI_ALERT_ON is not for PagerDuty: each message would be an incident"
        if alert_target(self.alert_target)[0] is AlertTargetKind.PAGERDUTY and not self.alert_token:
            yield "CDI_ALERT_TARGET=pagerduty needs CDI_ALERT_TOKEN: the secret with the integration's routing key"
        if self.coalescer_in_dagster and self.coalescer_source != "marker":
            yield "CDI_COALESCER_IN_DAGSTER needs CDI_COALESCER_SOURCE=marker: runs open the gate by their marker"
        if self.deployment == "emr":
            yield from self._missing_for_emr()

    def _missing_for_emr(self) -> Iterator[str]:
        for name in ("corporate_root", "published_root"):
            if not getattr(self, name).startswith("s3://"):
                yield f"CDI_DEPLOYMENT=emr needs {PREFIX}{name.upper()}: set it to s3://bucket (clusters read buckets)"
        if not self.emr_bundle_uri.startswith("s3://"):
            yield "CDI_DEPLOYMENT=emr needs CDI_EMR_BUNDLE_URI: set it to the s3:// URI that `cdi deploy` prints"
        for name in ("dks_url", "first_storage_day"):
            if name not in self.model_fields_set:
                yield f"CDI_DEPLOYMENT=emr needs {PREFIX}{name.upper()}: its default only suits a laptop"


def knob(name: str) -> Any:
    """Return a field of a resource that has the default and the description of a setting.

    Its bounds are the setting's alone: it is checked once, where a person writes it.
    """
    setting = Settings.model_fields[name]
    if setting.default_factory is not None:
        return Field(default_factory=setting.default_factory, description=setting.description)
    # Dagster's configuration has lists only.
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    return Field(default=default, description=setting.description)


def _json_object(text: str) -> Any:
    """Return the value of a JSON text, an empty object for an empty text, None for another text."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return None


def check_root(root: str) -> str:
    """Return a root URI without its trailing slash.

    Raises:
        ValueError: neither `file:///absolute/folder` nor `s3://bucket[/prefix]`; the message states how to write it.
    """
    parts = urlsplit(root)
    is_file = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/") and root.startswith("file:///")
    is_s3 = parts.scheme == "s3" and bool(_BUCKET.fullmatch(parts.netloc))
    if not (is_file or is_s3) or parts.query or parts.fragment:
        raise ValueError(f"{root!r} is not a root: write file:///absolute/folder or s3://bucket")
    return root.rstrip("/")


def _place(root: str) -> str:
    """Return the one spelling of what a root means, with a closing slash: links and `..` of a folder are followed."""
    folder = unquote(urlsplit(root).path) if root.startswith("file://") else ""
    return f"{Path(folder).resolve().as_uri() if folder else root}/"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings of this process: arguments, environment, `cdi.env` in the home folder, defaults.

    From then on its AWS clients are made in the region of these settings, and it writes to S3 with their encryption.

    Raises:
        SettingsError: with a line for every problem found.
    """
    home = Path(overrides.get("home") or os.environ.get(f"{PREFIX}HOME") or DEFAULT_HOME).expanduser()
    problems = [*_misspelt_variables(), *why_no_dagster_home(os.environ.get("DAGSTER_HOME", ""))]
    try:
        settings = Settings(_env_file=home / ENV_FILE_NAME, home=home, **_without_home(overrides))  # type: ignore[call-arg]
    except ValidationError as error:
        problems += [line for detail in error.errors() for line in _problem_lines(detail)]
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    _name_relative_home(home)
    settings.use()
    return settings


@cache
def _name_relative_home(home: Path) -> None:
    """Log, once in a process, which folder a home that depends on the current folder is."""
    if not home.is_absolute():
        why = f"{PREFIX}HOME is {home}" if os.environ.get(f"{PREFIX}HOME") else f"{PREFIX}HOME is not set"
        _log.warning("%s: this uses %s, below the current folder. Set it to an absolute folder.", why, home.absolute())


def why_no_dagster_home(folder: str | Path) -> list[str]:
    """Return why a folder cannot be DAGSTER_HOME, or nothing: Dagster itself fails there late, or in silence."""
    found = [character for character in _NOT_IN_DAGSTER_HOME if character in str(folder)]
    if not found:
        return []
    return [
        f"DAGSTER_HOME={str(folder)!r} holds {', '.join(map(repr, found))}: Dagster would not find its databases, or "
        "not read dagster.yaml (no pools, no run monitoring). Name a folder without % ? [ ] *"
    ]


def home_folder() -> Path:
    """Return the home folder of this process's environment, also where its settings cannot be used yet."""
    return Path(os.environ.get(f"{PREFIX}HOME") or DEFAULT_HOME).expanduser()


def problems_of(env_file: Path) -> list[str]:
    """Return why an installation could not run by a file of settings and the environment, a line each with its fix."""
    try:
        Settings(_env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        return [line for detail in error.errors() for line in _problem_lines(detail)]
    return []


def use_aws_settings() -> None:
    """Have AWS clients of this process work as the settings state, for work that needs no other setting.

    Raises:
        SettingsError: with a line for every problem found.
    """
    try:
        AwsSettings(_env_file=home_folder() / ENV_FILE_NAME).use()  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError([line for detail in error.errors() for line in _problem_lines(detail)]) from None


def _without_home(overrides: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in overrides.items() if name != "home"}


def _misspelt_variables() -> Iterator[str]:
    """A variable that is nearly a setting is a typo, and its value would silently be a default."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
            if close:
                yield f"{variable} is not a setting: did you mean {close[0]}?"


def _problem_lines(detail: ErrorDetails) -> Iterator[str]:
    """Yield one line for each problem: variable, value, fix. Secrets are not settings, so values may be shown."""
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        yield from message.split("\n")
        return
    variable = PREFIX + str(detail["loc"][0]).upper()
    value = detail["input"]
    if detail["type"] == "value_error":
        yield f"{variable}={message}" if message.startswith("'") else f"{variable}: {message}"
    elif "date" in detail["type"]:
        yield f"{variable}={str(value)!r} is not a day: write it as YYYY-MM-DD, for example 2023-03-26"
    elif "time" in detail["type"]:
        yield f"{variable}={str(value)!r} is not a time of day: write HH:MM (UTC), for example 09:30"
    else:
        yield f"{variable}={str(value)!r} cannot be used: {message[:1].lower()}{message[1:]}"
