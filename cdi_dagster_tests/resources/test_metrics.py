"""Figures of what was published, and a heartbeat at each tick, arrive in CloudWatch and in a file for Prometheus."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest

from cdi_dagster import names
from cdi_dagster.assets.attempts import cluster_metadata
from cdi_dagster.assets.plots import PLOTTED
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.days import due_at, storage_day_of
from cdi_dagster.core.metrics import BY_METADATA, HEARTBEAT, NAMES, NAMESPACE, Figure, heartbeat
from cdi_dagster.core.prometheus import metric_name, updated
from cdi_dagster.definitions import build_definitions
from cdi_dagster.interfaces import LaunchAttempt
from cdi_dagster.resources.metrics import CloudWatchMetrics, MetricsResource, PrometheusFile
from cdi_dagster.sensors.metrics import metrics_sensor
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.repository.files import REPOSITORY
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = storage_day_of(NOW.date()) - timedelta(days=1)
CALENDAR = DayCalendar(first_storage_day=date(2023, 1, 1), due_time=time(9, 30), late_time=time(12), look_back_days=7)
METADATA = {
    "records_published": 90,
    "records_rejected": 1,
    "input_bytes": 1000,
    "published_bytes": 2000,
    "seconds": 12.5,
    "cost_usd": 0.25,
    "cluster_minutes": 7.5,
    "parts": "4",
}


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return boto3.client("cloudwatch")


def total(cloudwatch: Any, name: str, **dimensions: str) -> float:
    found = cloudwatch.get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=NOW - timedelta(minutes=10),
        EndTime=NOW + timedelta(minutes=10),
        Period=3600,
        Statistics=["Sum"],
    )
    return sum(point["Sum"] for point in found["Datapoints"])


class Sensor:
    """The metrics sensor, tick after tick, on an instance that days are materialised in."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self._sensor = metrics_sensor([AUDIT], calendar=CALENDAR, running=True, clock=lambda: NOW)

    def materialise(self, day: date = DAY) -> None:
        for key in (names.daily_records_key(AUDIT), *names.table_keys(AUDIT)[:1]):
            metadata = METADATA if key == names.daily_records_key(AUDIT) else {"seconds": 3.0, "cost_usd": 0.5}
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(asset_key=key, partition=day.isoformat(), metadata=metadata)
            )

    def tick(self, sink: Any) -> None:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources={"metrics": sink})
        self._sensor(context)
        self.cursor = context.cursor


@pytest.fixture
def sensor() -> Iterator[Sensor]:
    with dg.instance_for_test() as instance:
        yield Sensor(instance)


def test_a_published_day_is_put_once_with_its_heartbeats(cloudwatch: Any, sensor: Sensor) -> None:
    environment = uuid.uuid4().hex
    of = {"Environment": environment, "Collection": AUDIT.id}
    sink = CloudWatchMetrics(environment)
    sensor.materialise()  # before the sensor was there: history
    sensor.tick(sink)
    sensor.materialise()
    sensor.tick(sink)
    sensor.tick(sink)
    assert total(cloudwatch, HEARTBEAT, Environment=environment) == 3
    assert total(cloudwatch, HEARTBEAT, Environment="another") == 0
    sums = {name: total(cloudwatch, name, **of) for name in NAMES if name not in (HEARTBEAT, "StepSeconds")}
    assert sums.pop("SecondsAfterDue") == pytest.approx((NOW - due_at(DAY, time(9, 30))).total_seconds(), abs=300)
    assert sums == {
        "RecordsPublished": 90,
        "RecordsRejected": 1,
        "InputBytes": 1000,
        "PublishedBytes": 2000,
        "CostUsd": 0.75,
        "ClusterMinutes": 7.5,
    }
    assert total(cloudwatch, "StepSeconds", **of, Step="daily_records") == 12.5


def test_figures_that_could_not_be_put_are_put_by_the_next_tick_and_old_days_are_not_late(
    tmp_path: Path, sensor: Sensor
) -> None:
    class Refusing:
        def put(self, figures: list[Figure]) -> None:
            raise ConnectionError("CloudWatch does not respond")

    file = tmp_path / "metrics" / "cdi.prom"
    sensor.tick(PrometheusFile(file, "production"))
    sensor.materialise(day=NOW.date() - timedelta(days=30))
    with pytest.raises(Exception, match="does not respond"):
        sensor.tick(Refusing())
    sensor.tick(PrometheusFile(file, "production"))
    text = file.read_text()
    day = NOW.date() - timedelta(days=30)
    labels = f'environment="production",collection="{AUDIT.id}"'
    assert f'cdi_records_published{{{labels},storage_day="{day}"}} 90.0\n' in text
    assert f'cdi_step_seconds{{{labels},step="daily_records",storage_day="{day}"}} 12.5\n' in text
    assert f'cdi_cost_usd{{{labels},storage_day="{day}"}} 0.75\n' in text
    assert f'cdi_heartbeat_timestamp_seconds{{environment="production"}} {NOW.timestamp()}\n' in text
    assert "cdi_seconds_after_due" not in text
    assert [path.name for path in file.parent.iterdir()] == ["cdi.prom"]


def test_the_file_keeps_one_value_a_series_and_forgets_old_days() -> None:
    def figure(day: date, value: float) -> Figure:
        return Figure(
            name="RecordsPublished", value=value, unit="Count", at=NOW, collection_id='d:"b"', storage_day=day
        )

    today = date(2026, 11, 26)
    text = updated("", [figure(date(2026, 10, 22), 1), figure(today, 1)], "e", today)
    text = updated(text, [figure(today, 2), heartbeat(NOW)], "e", today)
    assert text.splitlines()[:2] == [
        "# TYPE cdi_heartbeat_timestamp_seconds gauge",
        f'cdi_heartbeat_timestamp_seconds{{environment="e"}} {NOW.timestamp()}',
    ]
    assert text.splitlines()[2:] == [
        "# TYPE cdi_records_published gauge",
        'cdi_records_published{environment="e",collection="d:\\"b\\"",storage_day="2026-10-22"} 1',
        'cdi_records_published{environment="e",collection="d:\\"b\\"",storage_day="2026-11-26"} 2',
    ]
    assert "2026-10-22" not in updated(text, [], "e", today + timedelta(days=1))


def test_more_figures_than_one_request_takes_all_arrive(cloudwatch: Any) -> None:
    environment = uuid.uuid4().hex
    CloudWatchMetrics(environment).put(
        [Figure(name="RecordsPublished", value=1, unit="Count", at=NOW, collection_id="c")] * 1001
    )
    assert total(cloudwatch, "RecordsPublished", Environment=environment, Collection="c") == 1001


def test_cluster_minutes_are_those_of_attempts_on_clusters() -> None:
    local = LaunchAttempt(where="here", outcome="SUCCEEDED", seconds=60)
    on_emr = LaunchAttempt(where="j-1", outcome="LOST", seconds=90, detail={"estimated_instance_hours": 0.1})
    assert cluster_metadata([local]) == {}
    assert cluster_metadata([on_emr, on_emr]) == {"cluster_minutes": 3.0}
    assert set(BY_METADATA) <= PLOTTED  # others are text in a materialisation


@pytest.mark.parametrize(
    ("metrics", "kind"), [("", None), ("cloudwatch", CloudWatchMetrics), ("file:///m/cdi.prom", PrometheusFile)]
)
def test_the_setting_chooses_sensor_and_sink(tmp_path: Path, metrics: str, kind: type | None) -> None:
    settings = load_settings(home=tmp_path, metrics=metrics, automation=True)
    found = [each for each in build_definitions(settings=settings).sensors or () if each.name == "metrics_sensor"]
    assert [each.default_status for each in found] == [dg.DefaultSensorStatus.RUNNING] * (kind is not None)
    if kind:
        resource = MetricsResource(target=settings.metrics, environment="e")
        assert isinstance(resource.create_resource(dg.build_init_resource_context()), kind)


@pytest.mark.parametrize("metrics", ["prometheus", "file:///m/cdi.txt", "s3://m/cdi.prom"])
def test_another_place_is_refused(tmp_path: Path, metrics: str) -> None:
    with pytest.raises(SettingsError, match="is no place for metrics: write cloudwatch or file:///folder/cdi.prom"):
        load_settings(home=tmp_path, metrics=metrics)


def test_both_dashboards_show_every_figure_and_no_other() -> None:
    grafana = json.loads((REPOSITORY / "deploy" / "grafana" / "ingestion.json").read_text())
    expressions = " ".join(target["expr"] for panel in grafana["panels"] for target in panel["targets"])
    assert set(re.findall(r"cdi_\w+", expressions)) == {metric_name(name) for name in NAMES}
    template = (REPOSITORY / "deploy" / "aws" / "watch.yaml").read_text()
    body = template.partition("DashboardBody: !Sub |-")[2].partition("\nOutputs:")[0]
    widgets = json.loads(body)["widgets"]
    shown = re.findall(r'MetricName=\\?"(\w+)|"CDI", "(\w+)"', json.dumps(widgets).replace("\\\\", "\\"))
    assert {first or second for first, second in shown} == set(NAMES)
