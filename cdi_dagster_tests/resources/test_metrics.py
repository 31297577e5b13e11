"""Figures arrive in CloudWatch; the metrics sensor puts the heartbeat that an alarm counts."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import dagster as dg
import pytest

from cdi_dagster.core.metrics import HEARTBEAT, NAMESPACE, Figure
from cdi_dagster.definitions import build_definitions
from cdi_dagster.resources.metrics import CloudWatchMetrics
from cdi_dagster.sensors.metrics import metrics_sensor
from cdi_dagster.settings import load_settings
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

NOW = datetime.now(UTC).replace(microsecond=0)


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


def test_a_tick_of_the_sensor_puts_the_heartbeat_of_this_environment(cloudwatch: Any) -> None:
    environment = uuid.uuid4().hex
    context = dg.build_sensor_context(resources={"metrics": CloudWatchMetrics(environment)})
    metrics_sensor(running=True, clock=lambda: NOW)(context)
    assert total(cloudwatch, HEARTBEAT, Environment=environment) == 1
    assert total(cloudwatch, HEARTBEAT, Environment="another") == 0


def test_more_figures_than_one_request_takes_all_arrive(cloudwatch: Any) -> None:
    environment = uuid.uuid4().hex
    figures = [Figure(name="Records", value=1, unit="Count", at=NOW, labels={"Collection": "c"})] * 1001
    CloudWatchMetrics(environment).put(figures)
    assert total(cloudwatch, "Records", Environment=environment, Collection="c") == 1001


@pytest.mark.parametrize(("metrics", "there"), [("", False), ("cloudwatch", True)])
def test_the_sensor_is_there_by_the_setting(tmp_path, metrics: str, there: bool) -> None:
    definitions = build_definitions(settings=load_settings(home=tmp_path, metrics=metrics, automation=True))
    found = [sensor for sensor in definitions.sensors or () if sensor.name == "metrics_sensor"]
    assert [sensor.default_status for sensor in found] == [dg.DefaultSensorStatus.RUNNING] * there
