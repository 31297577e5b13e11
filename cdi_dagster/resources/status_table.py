"""The status table: `data_pipeline_metadata` in DynamoDB, read by downstream products, or a folder in its place.

Both hold the same items under the same column names (`item_of`), so a reader of one can read the other. Nothing is
connected or written before the first row. Wired in `definitions` and `cli` only.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cdi_dagster.aws.clients import resource
from cdi_dagster.clock import utc_now
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.full_disk import is_full, storage_full
from cdi_dagster.core.status_rows import DEFAULT_WEEKS_TO_EXIST
from cdi_dagster.interfaces import StatusRow, StatusTable
from cdi_dagster.settings import Settings

_MAX_NAME = 180
_SERVER_ERROR = 500
_THROTTLED = frozenset({"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"})


def item_of(row: StatusRow, *, now: datetime, weeks_to_exist: int) -> dict[str, Any]:
    """Return a row under the table's column names; what is None is left out.

    Run_Id is the text of a number: downstream tools call `int()` on it. TimeToExist is a number of epoch *seconds*,
    which is what DynamoDB expires by. S3_Prefix_CDI_Export is a snapshot's key prefix, without a slash at its
    end: rows of days have none. Dagster_Run_Id, Daily_Records_URI, Failure, Detail (JSON text) and Updated_At are ours.
    """
    kept_for = timedelta(weeks=weeks_to_exist)
    item = {
        "Correlation_Id": row.correlation_id,
        "DataProduct": row.data_product,
        "Run_Id": str(row.run_number),
        "Status": row.status,
        "Cluster_Id": row.cluster_id,
        "Date": row.export_day.isoformat(),
        "CurrentStep": row.current_step,
        "TimeToExist": int((now + kept_for).timestamp()),
        "Dagster_Run_Id": row.dagster_run_id,
        "S3_Prefix_CDI_Export": row.snapshot_prefix.rstrip("/") if row.snapshot_prefix else None,
        "Daily_Records_URI": row.daily_records_uri,
        "Failure": row.failure,
        "Detail": json.dumps(dict(row.detail), sort_keys=True, default=str) if row.detail else None,
        "Updated_At": now.astimezone(UTC).isoformat(timespec="milliseconds"),
    }
    return {name: value for name, value in item.items() if value is not None}


def row_of(item: Mapping[str, Any]) -> StatusRow:
    """Return the row of an item, also of one of the old platform, or of an earlier version of ours.

    The old platform may have a number in Run_Id, and lacks columns; earlier versions wrote Dagster's run id into
    Run_Id, and the daily records' URI into S3_Prefix_CDI_Export.
    """
    run_id, prefix = str(item.get("Run_Id", "1")), str(item.get("S3_Prefix_CDI_Export", ""))
    return StatusRow(
        correlation_id=str(item["Correlation_Id"]),
        data_product=str(item["DataProduct"]),
        status=str(item.get("Status", "")),
        export_day=date.fromisoformat(str(item["Date"])),
        current_step=str(item.get("CurrentStep", "")),
        run_number=int(run_id) if run_id.isdecimal() else 1,
        dagster_run_id=item.get("Dagster_Run_Id"),
        cluster_id=item.get("Cluster_Id"),
        daily_records_uri=item.get("Daily_Records_URI") or (prefix if "://" in prefix else None),
        snapshot_prefix=f"{prefix}/" if prefix and "://" not in prefix else None,
        failure=item.get("Failure"),
        detail=json.loads(item["Detail"]) if item.get("Detail") else {},
    )


def _latest(items: Iterable[Mapping[str, Any]], data_product: str, limit: int, now: datetime) -> list[StatusRow]:
    """Return the rows of a product that still exist, the latest first."""
    alive = [
        item
        for item in items
        if item.get("DataProduct") == data_product
        and item.get("Date")
        # DynamoDB may take days to remove what has expired.
        and float(item.get("TimeToExist", "inf")) > now.timestamp()
    ]
    alive.sort(key=lambda item: (str(item.get("Updated_At", "")), str(item["Date"])), reverse=True)
    return [row_of(item) for item in alive[:limit]]


class FileStatusTable:
    """A folder with one JSON file per row, written atomically; for one machine.

    Args:
        folder: created with the first row.
        weeks_to_exist: after how many weeks a row is removed.
        clock: the present time (aware).
    """

    def __init__(
        self, folder: Path, *, weeks_to_exist: int = DEFAULT_WEEKS_TO_EXIST, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._folder = folder
        self._weeks_to_exist = weeks_to_exist
        self._clock = clock

    def put(self, row: StatusRow) -> None:
        """Write or replace the row of its correlation id and product.

        Raises:
            CdiError: STORAGE_FULL where the disk is full, JOB_FAILED where the folder cannot be written otherwise.
        """
        now = self._clock()
        item = item_of(row, now=now, weeks_to_exist=self._weeks_to_exist)
        target = self._path(row.correlation_id, row.data_product)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _replace(target, json.dumps(item, indent=1).encode())
            self._remove_expired(now)
        except OSError as error:
            cause = f"The status row could not be written to {target}: {error.strerror}."
            raise (storage_full(cause) if is_full(error) else _unusable(cause)) from error

    def get(self, correlation_id: str, data_product: str) -> StatusRow | None:
        """Return a row, or None."""
        path = self._path(correlation_id, data_product)
        try:
            return row_of(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            raise _unusable(f"The status row {path} cannot be read: {type(error).__name__}.") from error

    def recent(self, data_product: str, limit: int = 10) -> list[StatusRow]:
        """Return the latest rows of a product, the latest first; a file that is not a row is left out."""
        return _latest((item for _, item in self._items()), data_product, limit, self._clock())

    def _items(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in self._folder.glob("*.json"):
            try:
                item = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(item, dict):
                yield path, item

    def _remove_expired(self, now: datetime) -> None:
        for path, item in self._items():
            if float(item.get("TimeToExist", "inf")) <= now.timestamp():
                path.unlink(missing_ok=True)

    def _path(self, correlation_id: str, data_product: str) -> Path:
        name = f"{quote(correlation_id, safe='')}__{quote(data_product, safe='')}"
        if len(name) > _MAX_NAME:
            name = sha256(name.encode()).hexdigest()
        return self._folder / f"{name}.json"


class DynamoDbStatusTable:
    """The table in DynamoDB: partition key Correlation_Id, sort key DataProduct.

    Args:
        table_name: of the table.
        weeks_to_exist: after how many weeks DynamoDB removes a row.
        clock: the present time (aware).
        client_options: for boto3 (`region_name`, `endpoint_url`); default: as `aws.clients.resource`.
    """

    def __init__(
        self,
        table_name: str,
        *,
        weeks_to_exist: int = DEFAULT_WEEKS_TO_EXIST,
        clock: Callable[[], datetime] = utc_now,
        **client_options: Any,
    ) -> None:
        self._table_name = table_name
        self._weeks_to_exist = weeks_to_exist
        self._clock = clock
        self._client_options = client_options

    def put(self, row: StatusRow) -> None:
        """Write or replace the row of its correlation id and product.

        Raises:
            CdiError: JOB_FAILED where DynamoDB refuses, STORAGE_UNAVAILABLE where it fails, throttles or is silent.
        """
        item = item_of(row, now=self._clock(), weeks_to_exist=self._weeks_to_exist)
        with self._as_cdi_errors("written to"):
            self._table.put_item(Item=item)

    def get(self, correlation_id: str, data_product: str) -> StatusRow | None:
        """Return a row, or None."""
        key = {"Correlation_Id": correlation_id, "DataProduct": data_product}
        with self._as_cdi_errors("read from"):
            found = self._table.get_item(Key=key, ConsistentRead=True).get("Item")
        return row_of(found) if found else None

    def recent(self, data_product: str, limit: int = 10) -> list[StatusRow]:
        """Return the latest rows of a product, the latest first. Scans the table, all products' rows: for a person."""
        from boto3.dynamodb.conditions import Attr

        request: dict[str, Any] = {"FilterExpression": Attr("DataProduct").eq(data_product)}
        items: list[dict[str, Any]] = []
        with self._as_cdi_errors("listed from"):
            while True:
                page = self._table.scan(**request)
                items += page["Items"]
                if "LastEvaluatedKey" not in page:
                    break
                request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return _latest(items, data_product, limit, self._clock())

    @cached_property
    def _table(self) -> Any:
        from botocore.config import Config  # not needed to load definitions

        config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 5})
        return resource("dynamodb", config=config, **self._client_options).Table(self._table_name)

    @contextmanager
    def _as_cdi_errors(self, done: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.exceptions import ConnectionError as NoConnectionError

        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "an error")
            cause = f"Status rows could not be {done} the table {self._table_name}: {code}."
            if code in _THROTTLED or error.response["ResponseMetadata"]["HTTPStatusCode"] >= _SERVER_ERROR:
                raise CdiError(FailureClass.STORAGE_UNAVAILABLE, cause) from error
            raise _unusable(cause) from error
        except BotoCoreError as error:
            cause = f"Status rows could not be {done} the table {self._table_name}: {error}."
            if isinstance(error, (HTTPClientError, NoConnectionError)):
                raise CdiError(FailureClass.STORAGE_UNAVAILABLE, cause) from error
            raise _unusable(cause) from error


def open_status_table(settings: Settings) -> StatusTable:
    """Return the installation's status table, for the terminal."""
    if settings.deployment == "local":
        return FileStatusTable(settings.status_path, weeks_to_exist=settings.status_weeks_to_exist)
    return DynamoDbStatusTable(settings.status_table_name, weeks_to_exist=settings.status_weeks_to_exist)


def _replace(path: Path, content: bytes) -> None:
    """Write a file such that a reader finds the old content or the new, never half of one."""
    handle, scratch = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _unusable(cause: str) -> CdiError:
    return CdiError(
        FailureClass.JOB_FAILED,
        cause,
        next_step="Check the table's name (CDI_STATUS_TABLE_NAME), the permissions on it and the network, or the space "
        "on disk; then run the day again.",
    )
