"""Where metrics go: CloudWatch, or nowhere. Inert until figures are put."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import dagster as dg

from cdi_dagster.aws.clients import client
from cdi_dagster.core.metrics import NAMESPACE, Figure
from cdi_dagster.interfaces import MetricsSink
from cdi_dagster.settings import knob

_MOST_IN_A_REQUEST = 1000
"""CloudWatch takes so many in one PutMetricData."""


class MetricsResource(dg.ConfigurableResource):
    """Keeps figures; sensors use the `MetricsSink` interface."""

    kind: Literal["", "cloudwatch"] = knob("metrics")
    environment: str = knob("environment")

    def create_resource(self, context: dg.InitResourceContext) -> MetricsSink:
        """Return the sink of the configured kind."""
        return CloudWatchMetrics(self.environment) if self.kind == "cloudwatch" else NoMetrics()


class NoMetrics:
    """Keeps nothing."""

    def put(self, figures: Sequence[Figure]) -> None:
        """Do nothing."""


class CloudWatchMetrics:
    """Puts figures into the namespace `CDI`, each with the dimension `Environment` and those of its labels."""

    def __init__(self, environment: str) -> None:
        self._environment = environment

    def put(self, figures: Sequence[Figure]) -> None:
        """Put the figures; raises what botocore raises."""
        cloudwatch = client("cloudwatch")
        data = [_datum(figure, {"Environment": self._environment, **figure.labels}) for figure in figures]
        for first in range(0, len(data), _MOST_IN_A_REQUEST):
            cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data[first : first + _MOST_IN_A_REQUEST])


def _datum(figure: Figure, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "MetricName": figure.name,
        "Value": figure.value,
        "Unit": figure.unit,
        "Timestamp": figure.at,
        "Dimensions": [{"Name": name, "Value": value} for name, value in labels.items()],
    }
