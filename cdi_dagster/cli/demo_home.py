"""The demo's home: a folder with invented corporate storage, what is published of it, and a real DAGSTER_HOME.

`cdi demo` fills it, `cdi dev` opens it. Nothing outside the folder is touched: settings of a real installation that
may be in the environment are ignored, so that invented data can never land in a real bucket.
"""

import os
import shutil
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import click

from cdi_dagster.cli.servers import REPOSITORY
from cdi_dagster.core.collections import Collection, CollectionDay, find_collection
from cdi_dagster.core.days import days_before, storage_day_of, storage_days_between
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster.core.snapshot import ONE_WEEK, first_snapshot_day, is_snapshot_day, snapshot_days
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.settings import ENV_FILE_NAME, Settings, SettingsError, load_settings, why_no_dagster_home
from cdi_dagster.storage import Storage, open_storage

DEMO_HOME = Path(".cdi/demo")
KEYED_HOME = Path(".cdi/demo-keyed")
COLLECTION: Collection = find_collection("data:businessAudit")
KEYED_COLLECTION: Collection = find_collection("calculator:calculationParts")
_WEEKS = 2
_BAD_DAY = 1
_RECORDS_AN_OBJECT = 150
_BAD_ENVELOPES = 24
_SPARK_SETTINGS = "CDI_SPARK_"


@dataclass(frozen=True, kw_only=True)
class SampleDay:
    """One storage day of the demo.

    Attributes:
        storage_day: the partition.
        bad_envelopes: how many of its envelopes cannot become records; more than none makes the day end in
            RECORDS_REJECTED.
    """

    storage_day: date
    bad_envelopes: int


@dataclass(frozen=True, kw_only=True)
class DemoHome:
    """The folder, its settings and its days.

    Attributes:
        folder: absolute.
        settings: of everything below it.
        collection: which the demo shows.
        days: the demo's storage days, oldest first.
    """

    folder: Path
    settings: Settings
    collection: Collection
    days: tuple[SampleDay, ...]

    @classmethod
    def open(cls, folder: Path, *, days: int, keep: Container[str] = ()) -> "DemoHome":
        """Open the folder; the first time, choose its days (the last ones that are over) and keep them in `cdi.env`.

        Settings of the environment are left aside, but for those of `keep` (`CDI_…`) and those of Spark.
        """
        settings, storage_days = _open(folder, days_before(datetime.now(UTC).date(), days), days, keep)
        sample_days = tuple(
            SampleDay(storage_day=day, bad_envelopes=_BAD_ENVELOPES if number == _BAD_DAY else 0)
            for number, day in enumerate(storage_days)
        )
        return cls(folder=folder.absolute(), settings=settings, collection=COLLECTION, days=sample_days)

    @classmethod
    def open_keyed(cls, folder: Path) -> "DemoHome":
        """Open the folder of a keyed collection; the first time, choose the two weeks before the last Friday.

        Raises:
            CdiError: INPUT_INVALID where the folder has other days: no two Fridays with a week before each.
        """
        (friday,) = snapshot_days(datetime.now(UTC).date(), weeks=1)
        settings, storage_days = _open(folder, friday - _WEEKS * ONE_WEEK, _WEEKS * ONE_WEEK.days, ())
        days = tuple(SampleDay(storage_day=day, bad_envelopes=0) for day in storage_days)
        home = cls(folder=folder.absolute(), settings=settings, collection=KEYED_COLLECTION, days=days)
        if len(home.snapshots) < _WEEKS:
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"The days of {home.folder} begin on {settings.first_storage_day}: they are not two weeks from a "
                "Friday on.",
                next_step="Name another folder by --home, or remove this one.",
            )
        return home

    @property
    def snapshots(self) -> list[CollectionDay]:
        """The snapshots that the days make, each named by its last storage day; none of an append-only collection."""
        first = first_snapshot_day(self.settings.first_storage_day)
        all_days = [self.collection.on(day.storage_day) for day in self.days if self.collection.is_keyed]
        return [day for day in all_days if is_snapshot_day(day.export_day) and day.export_day >= first]

    @property
    def corporate(self) -> Storage:
        """The invented corporate storage."""
        return open_storage(self.settings.corporate_root)

    @property
    def published(self) -> Storage:
        """What is published of it."""
        return open_storage(self.settings.published_root)

    def environment(self, dks_url: str) -> dict[str, str]:
        """Return the environment of the Dagster processes."""
        return {
            **os.environ,
            "CDI_DKS_URL": dks_url,
            "CDI_RUNBOOK_URL": str(REPOSITORY / "docs" / "runbook.md"),
            "DAGSTER_HOME": str(self.settings.dagster_home),
            "PYTHONUNBUFFERED": "1",
        }

    def make_dagster_home(self) -> None:
        """Make a real DAGSTER_HOME with the configuration that is deployed."""
        source = REPOSITORY / "deploy" / "dagster.yaml"
        if not source.is_file():
            raise CdiError(
                FailureClass.LAUNCH_FAILED,
                f"{source} is missing: the demo runs from a checkout.",
                next_step="Clone the repository and run make demo in it.",
            )
        if problems := why_no_dagster_home(self.settings.dagster_home):
            raise SettingsError(problems)
        self.settings.dagster_home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.settings.dagster_home / "dagster.yaml")

    def write_days(self, records: int, report: Callable[[str], None]) -> None:
        """Write so many records for every day that is not coalesced yet, the Kafka offsets going on from day to day.

        The same day gets the same bytes under the same names, so this completes a day that was half written.
        """
        from cdi_dagster.demo.sample import write_sample

        corporate = self.corporate
        next_offsets: dict[int, int] = {}
        for day in self.days:
            if corporate.head(coalescer_marker_key(self.collection.on(day.storage_day))):
                there = list(_offsets(corporate, self.collection.on(day.storage_day)))
                report(f"{day.storage_day}: {len(there)} objects are there already and are kept")
                next_offsets = _after(there)
                continue
            summary = write_sample(
                corporate,
                self.collection.on(day.storage_day),
                records=records,
                objects=-(-records // _RECORDS_AN_OBJECT),
                seed=1,
                bad_envelopes=day.bad_envelopes,
                first_offsets=next_offsets,
            )
            next_offsets = summary.next_offsets
            bad = f", {summary.bad_envelopes} of them broken on purpose" if summary.bad_envelopes else ""
            report(f"{day.storage_day}: {summary.objects} raw objects, {summary.records:,} encrypted events{bad}")


def _open(folder: Path, first: date, days: int, keep: Container[str]) -> tuple[Settings, list[date]]:
    """Return the folder's settings, in which `first` is kept the first time, and its first days that are over."""
    folder = folder.absolute()
    leave_installation_aside(keep)
    env_file = folder / ENV_FILE_NAME
    if not env_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        env_file.write_text(
            f"# Settings of the demo's home. Written once, so that the demo's days stay the same.\n"
            f"CDI_FIRST_STORAGE_DAY={first}\n"
        )
    os.environ["CDI_HOME"] = str(folder)
    settings = load_settings(home=folder)
    yesterday = storage_day_of(datetime.now(UTC).date())
    return settings, storage_days_between(settings.first_storage_day, yesterday)[:days]


def leave_installation_aside(keep: Container[str]) -> None:
    """Remove the settings of a real installation from the environment; how Spark runs on this machine may stay."""
    for name in [name for name in os.environ if name.startswith("CDI_") and not name.startswith(_SPARK_SETTINGS)]:
        if name not in keep:
            del os.environ[name]


def home_option(
    default: Path | None = DEMO_HOME, help_text: str = "Folder of the demo."
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--home`."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=True,
        help=help_text,
    )


def _offsets(corporate: Storage, day: CollectionDay) -> Iterator[tuple[int, int]]:
    """Yield Kafka partition and last offset of each object of a day."""
    for stored in corporate.list(day.corporate_prefix):
        name = parse_object_name(stored.key)
        yield name.kafka_partition, name.last_offset


def _after(spans: list[tuple[int, int]]) -> dict[int, int]:
    following: dict[int, int] = {}
    for kafka_partition, last_offset in spans:
        following[kafka_partition] = max(following.get(kafka_partition, 0), last_offset + 1)
    return following
