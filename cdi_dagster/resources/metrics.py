"""Where metrics go: CloudWatch, a text file for Prometheus, or nowhere. Inert until figures are put."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import dagster as dg

from cdi_dagster.aws.clients import client
from cdi_dagster.clock import utc_now
from cdi_dagster.core.metrics import NAMESPACE, Figure
from cdi_dagster.core.prometheus import updated
from cdi_dagster.interfaces import MetricsSink
from cdi_dagster.settings import knob

_MOST_IN_A_REQUEST = 1000
"""CloudWatch takes so many in one PutMetricData."""


class MetricsResource(dg.ConfigurableResource):
    """Keeps figures; sensors use the `MetricsSink` interface."""

    target: str = knob("metrics")
    environment: str = knob("environment")

    def create_resource(self, context: dg.InitResourceContext) -> MetricsSink:
        """Return the sink of the configured target."""
        if self.target.startswith("file://"):
            return PrometheusFile(Path(unquote(urlsplit(self.target).path)), self.environment)
        return CloudWatchMetrics(self.environment) if self.target else NoMetrics()


class NoMetrics:
    """Keeps nothing."""

    def put(self, figures: Sequence[Figure]) -> None:
        """Do nothing."""


class CloudWatchMetrics:
    """Puts figures into the namespace `CDI`, with the dimension `Environment` and those of their labels.

    The storage day is no dimension: each would be a metric of its own, and paid for as such.
    """

    def __init__(self, environment: str) -> None:
        self._environment = environment

    def put(self, figures: Sequence[Figure]) -> None:
        """Put the figures; raises what botocore raises."""
        cloudwatch = client("cloudwatch")
        data = [_datum(figure, {"Environment": self._environment, **figure.labels}) for figure in figures]
        for first in range(0, len(data), _MOST_IN_A_REQUEST):
            cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data[first : first + _MOST_IN_A_REQUEST])


class PrometheusFile:
    """Keeps the last value of each series in a text file, replaced as a whole. One process writes it: the sensor's."""

    def __init__(self, path: Path, environment: str) -> None:
        self._path, self._environment = path, environment

    def put(self, figures: Sequence[Figure]) -> None:
        """Write the figures; raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        before = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        new = self._path.with_suffix(".new")  # the collector reads *.prom only
        new.write_text(updated(before, figures, self._environment, utc_now().date()), encoding="utf-8")
        new.replace(self._path)


def _datum(figure: Figure, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "MetricName": figure.name,
        "Value": figure.value,
        "Unit": figure.unit,
        "Timestamp": figure.at,
        "Dimensions": [{"Name": name, "Value": value} for name, value in labels.items()],
    }
