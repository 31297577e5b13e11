"""Who is measured, and one measured run of each: the plain chain, the job, the job with a slow key service, the floor.

The plain chain is started as a Spark program usually is: by plain spark-submit, its modules sent along in a zip.
`TUNED_CHAIN` is the same program with what this project learned about Spark: the settings of the job, and modules
unpacked.

Every run is a separate process over the same pinned input. Its own output is read back, compared by the caller and
removed.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile

from benchmarks import floor, plain_chain, plain_tables
from benchmarks.data import COLLECTION, STORAGE_DAY, SampleDay
from benchmarks.key_services import KeyServices
from benchmarks.line_digest import LineDigest, digest_lines
from benchmarks.measured_process import Measured, MeasuredProcessError, run_measured
from benchmarks.tables import TablesRun, run_tables
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.spark_jobs import INGEST_DAILY, PUBLISH_TABLES
from cdi_dagster.core.storage_keys import daily_records_prefix, pinned_input_key
from cdi_dagster.ingestion.pinning import pin_storage_day
from cdi_dagster.local_spark.java import find_java
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.spark_submit import (
    SparkProcessConfig,
    pyspark_folder,
    spark_environment,
    spark_submit_command,
)
from cdi_dagster.spark.tables.locations import table_prefix
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster.table_definitions import read_table_definition

_REPOSITORY: Final = Path(__file__).parents[1]
_CORRELATION_ID: Final = "benchmark"
_JOB_IS_DONE: Final = "ingest_daily is done: "


class Contender(StrEnum):
    """Who is measured."""

    CHAIN = "plain chain"
    TUNED_CHAIN = "plain chain, tuned Spark"
    JOB = "job"
    SLOW_KEYS = "job, slow key service"
    FLOOR = "floor"


CHAINS: Final = (Contender.CHAIN, Contender.TUNED_CHAIN)
WITH_TABLES: Final = (Contender.CHAIN, Contender.JOB)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings of all runs.

    Attributes:
        work_folder: for outputs, scratch space and logs.
        master: Spark master.
        driver_memory: heap of the one JVM.
        spark_conf: further Spark settings, for chain and job alike.
        keys: the key services.
        tables: whether chain and job go on to make the day's tables.
    """

    work_folder: Path
    master: str
    driver_memory: str
    spark_conf: Mapping[str, str]
    keys: KeyServices
    tables: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measured run.

    Attributes:
        measured: time and CPU of the process.
        reading_seconds: from the start of reading, with Spark running, to its end.
        records: the lines it published.
        rejected: envelopes it rejected, by reason.
        tables: of the day, where they were made too.
    """

    measured: Measured
    reading_seconds: float
    records: LineDigest
    rejected: Mapping[str, int]
    tables: TablesRun | None = None


def run_once(contender: Contender, day: SampleDay, setting: Setting) -> Run:
    """Run one contender over the day.

    Raises:
        MeasuredProcessError: it failed.
    """
    folder = setting.work_folder / "run"
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    try:
        corporate, published = open_storage(day.folder.as_uri()), open_storage((folder / "published").as_uri())
        pin_storage_day(Roots(corporate=corporate, published=published), COLLECTION.on(STORAGE_DAY))
        command, environment = _command(contender, day, setting, folder)
        try:
            measured = run_measured(command, environment=environment, work_folder=scratch)
        except MeasuredProcessError as error:
            raise MeasuredProcessError(f"The {contender} failed. {error}") from error
        records = folder / ("output" if contender in CHAINS else f"published/{_RECORDS_PREFIX}")
        return Run(
            measured=measured,
            reading_seconds=measured.seconds_since(plain_chain.READING),
            records=digest_lines(sorted(records.glob("part-*.gz"))),
            rejected=_rejected(measured),
            tables=_run_tables(contender, setting, folder) if setting.tables and contender in WITH_TABLES else None,
        )
    finally:
        shutil.rmtree(folder)


_DEFINITION: Final = str(files("cdi_dagster.table_definitions").joinpath(f"{COLLECTION.asset_name}.json"))
_RECORDS_PREFIX: Final = daily_records_prefix(COLLECTION.on(STORAGE_DAY))


def _run_tables(contender: Contender, setting: Setting, folder: Path) -> TablesRun:
    """Make the tables of the records that this contender has just published: plain Spark SQL, or the job."""
    output, published = folder / "tables", folder / "published"
    environment = spark_environment(find_java().path)
    scratch = folder / "scratch"
    if contender is Contender.CHAIN:
        metastore = f"jdbc:derby:;databaseName={folder / 'plain-metastore'};create=true"
        command = [
            *_plain_spark_submit(setting, folder),
            *("--conf", f"spark.hadoop.javax.jdo.option.ConnectionURL={metastore}"),
            *("--conf", "spark.driver.extraJavaOptions=-Duser.timezone=UTC"),
            *(plain_tables.__file__, "--records", (folder / "output").as_uri(), "--output", output.as_uri()),
            *("--export-day", str(export_day_of(STORAGE_DAY)), "--table-definition", _DEFINITION),
        ]
        folders = {name: output / name for name in ("raw", "managed")}
        return run_tables(command, environment={**environment, "PYTHONPATH": ""}, work_folder=scratch, folders=folders)
    config = SparkProcessConfig(
        work_folder=folder,
        metastore_folder=folder / "metastore",
        master=setting.master,
        driver_memory=setting.driver_memory,
        conf={"spark.local.dir": str(scratch), **setting.spark_conf},
    )
    arguments = [
        *("--published-root", published.as_uri(), "--collection", COLLECTION.id, "--storage-day", str(STORAGE_DAY)),
        *("--correlation-id", _CORRELATION_ID, "--table-definition", _DEFINITION),
    ]
    command = spark_submit_command(PUBLISH_TABLES, arguments, config=config)
    raw, managed, *_ = read_table_definition(_DEFINITION).tables
    folders = {str(table.kind): published / table_prefix(table) for table in (raw, managed)}
    return run_tables(command, environment=environment, work_folder=scratch, folders=folders)


def _command(contender: Contender, day: SampleDay, setting: Setting, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return a contender's command line and environment."""
    published_root = (folder / "published").as_uri()
    slow = contender is Contender.SLOW_KEYS
    common = [
        *("--pinned-input", f"{published_root}/{pinned_input_key(COLLECTION.on(STORAGE_DAY))}"),
        *("--dks-url", setting.keys.slow_url if slow else setting.keys.url),
        *setting.keys.tls,
        *("--correlation-id", _CORRELATION_ID),
    ]
    job = [*common, "--published-root", published_root, "--max-rejected", str(day.bad_envelopes)]
    chain = [plain_chain.__file__, *common, "--output", (folder / "output").as_uri()]
    environment = spark_environment(find_java().path)
    unpacked = {**environment, "PYTHONPATH": str(_REPOSITORY)}
    if contender is Contender.FLOOR:
        return [sys.executable, floor.__file__, *job], unpacked
    if contender is Contender.CHAIN:
        return [*_plain_spark_submit(setting, folder), *chain], {**environment, "PYTHONPATH": ""}
    config = SparkProcessConfig(
        work_folder=folder,
        master=setting.master,
        driver_memory=setting.driver_memory,
        # As cdi ingest and the demo start every local step.
        conf={
            **local_metastore_conf(folder / "metastore"),
            "spark.local.dir": str(folder / "scratch"),
            **setting.spark_conf,
        },
    )
    if contender is not Contender.TUNED_CHAIN:
        return spark_submit_command(INGEST_DAILY, job, config=config), environment
    *spark_submit, _entry_point_of_the_job = spark_submit_command(INGEST_DAILY, [], config=config)
    return [*spark_submit, *chain], unpacked


def _plain_spark_submit(setting: Setting, folder: Path) -> list[str]:
    conf = {
        "spark.log.level": "WARN",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(folder / "scratch"),
        **setting.spark_conf,
    }
    return [
        *(str(pyspark_folder() / "bin" / "spark-submit"), "--master", setting.master),
        *("--driver-memory", setting.driver_memory, "--py-files", str(_zipped_modules(folder))),
        *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
    ]


def _zipped_modules(folder: Path) -> Path:
    """Zip the imports of the plain chain, as is usual for a Spark program."""
    path = folder / "modules.zip"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for package in ("benchmarks", "cdi_dagster"):
            for module in sorted((_REPOSITORY / package).rglob("*.py")):
                archive.write(module, module.relative_to(_REPOSITORY))
    return path


def _rejected(measured: Measured) -> Mapping[str, int]:
    for _, line in measured.log:
        if _JOB_IS_DONE in line:
            return dict(json.loads(line.partition(_JOB_IS_DONE)[2])["rejected_by_reason"])
        if line.startswith(plain_chain.REJECTED):
            return dict(json.loads(line.removeprefix(plain_chain.REJECTED)))
    raise MeasuredProcessError("The program did not log what it rejected.")
