"""Who is measured, and one measured run of each: the plain chain, the job, the job with a slow key service, the floor.

Every run is a process of its own, over the same pinned input, into an output of its own that is read back, compared
by its caller and removed.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from benchmarks import floor, plain_chain
from benchmarks.data import COLLECTION, STORAGE_DAY, SampleDay
from benchmarks.line_digest import LineDigest, digest_lines
from benchmarks.measured_process import Measured, MeasuredProcessError, run_measured
from cdi_dagster.core.places import daily_records_prefix, pinned_input_key
from cdi_dagster.ingestion.local_metastore import local_metastore_conf
from cdi_dagster.ingestion.pinning import pin_storage_day
from cdi_dagster.ingestion.spark_submit import (
    SparkProcessConfig,
    require_java,
    spark_environment,
    spark_submit_command,
)
from cdi_dagster.storage import open_storage

_REPOSITORY: Final = Path(__file__).parents[1]
_CORRELATION_ID: Final = "benchmark"
_JOB_IS_DONE: Final = "ingest_daily is done: "


class Contender(StrEnum):
    """Who is measured."""

    CHAIN = "plain chain"
    JOB = "job"
    SLOW_KEYS = "job, slow key service"
    FLOOR = "floor"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs share.

    Attributes:
        work_folder: for outputs, scratch space and logs.
        master: Spark master.
        driver_memory: heap of the one JVM.
        spark_conf: further Spark settings, for chain and job alike.
        dks_url: the key service.
        slow_dks_url: the same with latency.
    """

    work_folder: Path
    master: str
    driver_memory: str
    spark_conf: Mapping[str, str]
    dks_url: str
    slow_dks_url: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measured run.

    Attributes:
        measured: what the process took.
        reading_seconds: from when it began to read, Spark being up, to its end.
        records: the lines it published.
        rejected: envelopes it rejected, by reason.
    """

    measured: Measured
    reading_seconds: float
    records: LineDigest
    rejected: Mapping[str, int]


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
        pin_storage_day(corporate, published, COLLECTION, STORAGE_DAY)
        command = _command(contender, day, setting, folder)
        try:
            measured = run_measured(command, environment=_environment(), work_folder=scratch)
        except MeasuredProcessError as error:
            raise MeasuredProcessError(f"The {contender} failed. {error}") from error
        records = folder / ("output" if contender is Contender.CHAIN else f"published/{_RECORDS_PREFIX}")
        return Run(
            measured=measured,
            reading_seconds=measured.seconds_since(plain_chain.READING),
            records=digest_lines(sorted(records.glob("part-*.gz"))),
            rejected=_rejected(measured),
        )
    finally:
        shutil.rmtree(folder)


_RECORDS_PREFIX: Final = daily_records_prefix(COLLECTION, STORAGE_DAY)


def _command(contender: Contender, day: SampleDay, setting: Setting, folder: Path) -> list[str]:
    published_root = (folder / "published").as_uri()
    slow = contender is Contender.SLOW_KEYS
    common = [
        *("--pinned-input", f"{published_root}/{pinned_input_key(COLLECTION, STORAGE_DAY)}"),
        *("--dks-url", setting.slow_dks_url if slow else setting.dks_url),
        *("--correlation-id", _CORRELATION_ID),
    ]
    job = [*common, "--published-root", published_root, "--max-rejected", str(day.bad_envelopes)]
    if contender is Contender.FLOOR:
        return [sys.executable, floor.__file__, *job]
    config = SparkProcessConfig(
        work_folder=folder,
        master=setting.master,
        driver_memory=setting.driver_memory,
        # As every local step is started (cdi ingest, the demo); the chain too.
        conf={
            **local_metastore_conf(folder / "metastore"),
            "spark.local.dir": str(folder / "scratch"),
            **setting.spark_conf,
        },
    )
    if contender is not Contender.CHAIN:
        return spark_submit_command("ingest_daily", job, config=config)
    *spark_submit, _entry_point_of_the_job = spark_submit_command("ingest_daily", [], config=config)
    return [*spark_submit, plain_chain.__file__, *common, "--output", (folder / "output").as_uri()]


def _environment() -> dict[str, str]:
    environment = spark_environment(require_java())
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(_REPOSITORY), path] if path else [str(_REPOSITORY)])
    return environment


def _rejected(measured: Measured) -> Mapping[str, int]:
    for _, line in measured.log:
        if _JOB_IS_DONE in line:
            return dict(json.loads(line.partition(_JOB_IS_DONE)[2])["rejected_by_reason"])
        if line.startswith(plain_chain.REJECTED):
            return dict(json.loads(line.removeprefix(plain_chain.REJECTED)))
    raise MeasuredProcessError("The program never said what it rejected.")
