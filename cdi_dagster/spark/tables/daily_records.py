"""The published daily records that tables are made from: their mark, and exactly the parts that it names."""

import json
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import SUCCESS_MARK, daily_records_prefix
from cdi_dagster.spark.tables.locations import escape_glob, spark_path
from cdi_dagster.spark.tables.transforms import RAW_SCHEMA
from cdi_dagster.storage import ObjectMissingError, Storage


@dataclass(frozen=True, kw_only=True)
class DailyRecords:
    """What the `_SUCCESS` mark says of the daily records of one collection and storage day.

    Attributes:
        fingerprint: of the pinned input they were made from.
        records: how many there are.
        record_bytes: their bytes before compression, newlines included.
        parts: (key below the published root, size in bytes) of each part.
    """

    fingerprint: str
    records: int
    record_bytes: int
    parts: tuple[tuple[str, int], ...]

    @property
    def text_bytes(self) -> int:
        """Bytes of the records without their newlines."""
        return self.record_bytes - self.records


def require_daily_records(published: Storage, day: CollectionDay) -> DailyRecords:
    """Read the mark, and see that every part it names is there.

    Raises:
        CdiError: INPUT_INVALID where the day is not published, or a part is not as marked.
        StorageError: the storage does not answer.
    """
    prefix = daily_records_prefix(day)
    where = published.uri(prefix)
    try:
        value = json.loads(published.read(f"{prefix}{SUCCESS_MARK}"))
        marked = DailyRecords(
            fingerprint=str(value["fingerprint"]),
            records=int(value["published"]),
            record_bytes=int(value["record_bytes"]),
            parts=tuple((str(part["key"]), int(part["size_bytes"])) for part in value["parts"]),
        )
    except ObjectMissingError as error:
        raise _unusable(
            f"The daily records of {day.collection.id} for storage day {day.storage_day} are not published: "
            f"there is no {SUCCESS_MARK} in {where}.",
            "Publish the records of the day first, then its tables.",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(f"The mark {where}{SUCCESS_MARK} cannot be read: {type(error).__name__} at {error}.") from error
    present = {stored.key: stored.size_bytes for stored in published.list(prefix)}
    for key, size_bytes in marked.parts:
        if present.get(key) != size_bytes:
            found = f"it has {present[key]}" if key in present else "it is gone"
            raise _unusable(f"{published.uri(key)} is marked as a part of {size_bytes} bytes, but {found}.")
    return marked


def read_records(spark: SparkSession, published: Storage, records: DailyRecords, *, s3_scheme: str) -> DataFrame:
    """Return the records as lines in the column `val`, from exactly the marked parts."""
    if not records.parts:
        return spark.createDataFrame([], RAW_SCHEMA)
    paths = [escape_glob(spark_path(published.uri(key), s3_scheme=s3_scheme)) for key, _ in records.parts]
    # A line ends at \n only: a lone \r in a record would else be one.
    return spark.read.option("lineSep", "\n").text(paths).toDF("val")


def _unusable(cause: str, next_step: str = "Run the day again, then its tables.") -> CdiError:
    return CdiError(FailureClass.INPUT_INVALID, cause, next_step=next_step)
