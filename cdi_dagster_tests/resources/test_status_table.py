"""The status table, the folder and DynamoDB: one contract, and the columns that downstream products read."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.interfaces import StatusRow, StatusTable
from cdi_dagster.resources.status_table import DynamoDbStatusTable, FileStatusTable, item_of, row_of

NOW = datetime(2023, 3, 27, 9, 30, tzinfo=UTC)
PRODUCT = "CDI-data:businessAudit"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        keys = ("Correlation_Id", "DataProduct")
        yield boto3.resource("dynamodb").create_table(
            TableName="data_pipeline_metadata",
            KeySchema=[
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
            BillingMode="PAY_PER_REQUEST",
        )


@pytest.fixture(params=["file", "dynamodb"])
def table(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> FileStatusTable | DynamoDbStatusTable:
    if request.param == "file":
        return FileStatusTable(tmp_path / "status", clock=clock)
    request.getfixturevalue("dynamodb")
    return DynamoDbStatusTable("data_pipeline_metadata", clock=clock)


def row(**changes: Any) -> StatusRow:
    values: dict[str, Any] = {
        "correlation_id": "run-1",
        "data_product": PRODUCT,
        "dagster_run_id": "run-1",
        "status": "COMPLETED",
        "export_day": date(2023, 3, 27),
        "current_step": "publish_tables",
        "cluster_id": "j-123",
        "daily_records_uri": "s3://published/corporate_data_ingestion/json/daily/2023-03-27/data/businessAudit/",
        "detail": {"records": 12, "seconds": 1.5, "tables": ["a"]},
    }
    return StatusRow(**{**values, **changes})


def test_a_row_comes_back_as_it_was_put(table: StatusTable) -> None:
    table.put(row())

    assert table.get("run-1", PRODUCT) == row()
    assert table.get("run-1", "CDI-data:equality") is None
    assert table.get("run-2", PRODUCT) is None


def test_a_row_without_optional_columns_comes_back(table: StatusTable) -> None:
    table.put(row(cluster_id=None, daily_records_uri=None, detail={}))

    assert table.get("run-1", PRODUCT) == row(cluster_id=None, daily_records_uri=None, detail={})


def test_putting_again_replaces_the_row_of_that_product_only(table: StatusTable) -> None:
    table.put(row(status="IN_PROGRESS"))
    table.put(row(data_product="CDI-data:equality"))
    table.put(row(status="FAILED", failure="DKS_FORBIDDEN: refused", daily_records_uri=None))

    assert table.get("run-1", PRODUCT) == row(status="FAILED", failure="DKS_FORBIDDEN: refused", daily_records_uri=None)
    assert table.get("run-1", "CDI-data:equality") == row(data_product="CDI-data:equality")


def test_the_latest_rows_of_a_product_come_first_and_expired_ones_not_at_all(
    table: FileStatusTable | DynamoDbStatusTable, clock: Clock
) -> None:
    for number in range(4):
        table.put(row(correlation_id=f"run-{number}"))
        clock.now += timedelta(weeks=30)
    table.put(row(correlation_id="other", data_product="CDI-data:equality"))

    assert [found.correlation_id for found in table.recent(PRODUCT)] == ["run-3", "run-2", "run-1"]
    assert [found.correlation_id for found in table.recent(PRODUCT, limit=1)] == ["run-3"]


def test_an_identifier_may_hold_anything(table: StatusTable) -> None:
    odd = row(correlation_id="../manual/2023 ü:" + "x" * 300)
    table.put(odd)

    assert table.get(odd.correlation_id, PRODUCT) == odd


@pytest.fixture
def stored_item(request: pytest.FixtureRequest, table: StatusTable, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        files = list((tmp_path / "status").glob("*.json"))
        if files:
            item: dict[str, Any] = json.loads(files[0].read_bytes())
            return item
        stored: dict[str, Any] = request.getfixturevalue("dynamodb").scan()["Items"][0]
        return stored

    return read


def test_the_columns_are_those_that_downstream_products_read(
    table: StatusTable, stored_item: Callable[[], dict[str, Any]]
) -> None:
    table.put(row(failure="JOB_FAILED: it broke"))

    item = stored_item()
    assert json.loads(item.pop("Detail")) == {"records": 12, "seconds": 1.5, "tables": ["a"]}
    assert item == {
        "Correlation_Id": "run-1",
        "DataProduct": PRODUCT,
        "Run_Id": "1",
        "Dagster_Run_Id": "run-1",
        "Status": "COMPLETED",
        "Cluster_Id": "j-123",
        "Date": "2023-03-27",
        "CurrentStep": "publish_tables",
        "TimeToExist": int((NOW + timedelta(weeks=104)).timestamp()),
        "Daily_Records_URI": row().daily_records_uri,
        "Failure": "JOB_FAILED: it broke",
        "Updated_At": "2023-03-27T09:30:00.000+00:00",
    }


def test_a_row_of_an_older_writer_can_be_read(dynamodb: Any) -> None:
    dynamodb.put_item(
        Item={"Correlation_Id": "old", "DataProduct": PRODUCT, "Run_Id": 3, "Status": "COMPLETED", "Date": "2023-03-26"}
    )

    found = DynamoDbStatusTable("data_pipeline_metadata").get("old", PRODUCT)
    assert found is not None
    assert (found.run_number, found.export_day, found.current_step) == (3, date(2023, 3, 26), "")


def test_a_row_of_an_earlier_version_of_ours_is_read_and_written_as_downstream_tools_need_it(
    dynamodb: Any, clock: Clock
) -> None:
    key = {"Correlation_Id": "0f3a-11", "DataProduct": PRODUCT}
    uri = "s3://published/corporate_data_ingestion/json/daily/2023-03-27/data/businessAudit/"
    dynamodb.put_item(
        Item={**key, "Run_Id": "0f3a-11", "Status": "IN_PROGRESS", "Date": "2023-03-27", "S3_Prefix_CDI_Export": uri}
    )
    table = DynamoDbStatusTable("data_pipeline_metadata", clock=clock)
    found = table.get("0f3a-11", PRODUCT)
    assert found is not None
    assert found.daily_records_uri == uri
    table.put(found)
    item = dynamodb.get_item(Key=key)["Item"]
    assert int(item["Run_Id"]) == 1
    assert (item["Daily_Records_URI"], "S3_Prefix_CDI_Export" in item) == (uri, False)


def test_the_latest_rows_are_found_on_every_page(dynamodb: Any, clock: Clock) -> None:
    table = DynamoDbStatusTable("data_pipeline_metadata", clock=clock)
    for number in range(6):  # DynamoDB pages at 1 MB
        table.put(row(correlation_id=f"run-{number}", detail={"text": "x" * 300_000}))
        clock.now += timedelta(minutes=1)

    assert dynamodb.scan().get("LastEvaluatedKey")
    assert [found.correlation_id for found in table.recent(PRODUCT)] == [
        f"run-{number}" for number in (5, 4, 3, 2, 1, 0)
    ]


@pytest.mark.usefixtures("dynamodb")
def test_a_table_that_is_not_there_is_said_with_its_fix() -> None:
    with pytest.raises(CdiError, match="no_such_table: ResourceNotFoundException") as failed:
        DynamoDbStatusTable("no_such_table").put(row())
    assert "CDI_STATUS_TABLE_NAME" in failed.value.next_step


def test_a_table_that_does_not_answer_is_no_reason_to_wake_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("DEFAULT_REGION", "eu-west-2")):
        monkeypatch.setenv(f"AWS_{variable}", value)
    for variable in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{variable}", "testing")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # boto's pauses between its tries
    with pytest.raises(CdiError, match=r"127\.0\.0\.1:9") as failed:
        DynamoDbStatusTable("some_table").put(row())
    assert failed.value.failure_class is FailureClass.STORAGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("http_status", "code"),
    [(400, "ThrottlingException"), (400, "ProvisionedThroughputExceededException"), (500, "InternalServerError")],
)
def test_a_table_that_is_busy_or_fails_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, http_status: int, code: str
) -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "busy"}).encode()
            self.send_response(http_status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    for variable in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{variable}", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # boto's pauses between its tries
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server, ThreadPoolExecutor(1) as serving:
        serving.submit(server.serve_forever, 0.05)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(CdiError, match=f"some_table: {code}") as failed:
            DynamoDbStatusTable("some_table").put(row())
        server.shutdown()
    assert failed.value.failure_class is FailureClass.STORAGE_UNAVAILABLE


def test_a_folder_that_cannot_be_written_is_said_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("a file")
    with pytest.raises(CdiError, match="could not be written"):
        FileStatusTable(tmp_path / "status").put(row())


def test_an_expired_row_leaves_the_folder(tmp_path: Path, clock: Clock) -> None:
    table = FileStatusTable(tmp_path, weeks_to_exist=1, clock=clock)
    table.put(row())
    clock.now += timedelta(weeks=1)
    table.put(row(correlation_id="run-2"))

    assert [path.name for path in tmp_path.iterdir()] == ["run-2__CDI-data%3AbusinessAudit.json"]


def test_making_a_table_touches_nothing(tmp_path: Path) -> None:
    FileStatusTable(tmp_path / "status")
    DynamoDbStatusTable("data_pipeline_metadata")

    assert list(tmp_path.iterdir()) == []


def test_the_row_of_a_snapshot_has_its_prefix_as_the_old_platform_wrote_it() -> None:
    prefix = "corporate_data_ingestion/exports/calculator/calculationParts/2023-06-09/"
    row = StatusRow(
        correlation_id="r",
        data_product="CDI-calculator:calculationParts",
        status="IN_PROGRESS",
        export_day=date(2023, 6, 9),
        current_step="build_snapshot",
        snapshot_prefix=prefix,
    )
    item = item_of(row, now=datetime(2023, 6, 9, 10, tzinfo=UTC), weeks_to_exist=104)
    assert (item["Status"], item["Date"], item["S3_Prefix_CDI_Export"]) == ("IN_PROGRESS", "2023-06-09", prefix[:-1])
    assert row_of(item) == row
