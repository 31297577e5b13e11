"""The text format of Prometheus: figures as the last value of each series, in the text of a file. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import date

from cdi_dagster.core.days import days_before
from cdi_dagster.core.metrics import HEARTBEAT, Figure

DAYS_KEPT = 35
"""Series of older storage days are taken out, so that the file stays small."""
_DAY = re.compile(r'storage_day="(\d{4}-\d{2}-\d{2})"')
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def updated(text: str, figures: Sequence[Figure], environment: str, today: date) -> str:
    """Return the text with the figures in it; costs and cluster time of one day's steps are added up."""
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    for figure in figures:
        name = _series(figure, environment)
        value = figure.at.timestamp() if figure.name == HEARTBEAT else figure.value
        if figure.name in _ADDED and name in series:
            value += float(series[name])
        series[name] = repr(round(value, 4))
    oldest = days_before(today, DAYS_KEPT)
    kept = {name: value for name, value in series.items() if not _is_before(name, oldest)}
    names = sorted({name.partition("{")[0] for name in kept})
    blocks = [
        "\n".join(
            [f"# TYPE {name} gauge", *(f"{one} {kept[one]}" for one in sorted(kept) if one.startswith(f"{name}{{"))]
        )
        for name in names
    ]
    return "\n".join(blocks) + "\n"


_ADDED = frozenset({"CostUsd", "ClusterMinutes"})
"""Of several launches of a day: each was paid for."""


def metric_name(name: str) -> str:
    """Return a figure's name as Prometheus has it: `cdi_records_published`."""
    return "cdi_heartbeat_timestamp_seconds" if name == HEARTBEAT else f"cdi_{_WORD.sub('_', name).lower()}"


def _series(figure: Figure, environment: str) -> str:
    labels: Mapping[str, str] = {
        "environment": environment,
        **{name.lower(): value for name, value in figure.labels.items()},
        **({"storage_day": figure.storage_day.isoformat()} if figure.storage_day else {}),
    }
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{metric_name(figure.name)}{{{inside}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _is_before(series: str, oldest: date) -> bool:
    named = _DAY.search(series)
    return named is not None and date.fromisoformat(named[1]) < oldest
