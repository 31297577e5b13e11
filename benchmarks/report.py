"""Formats the figures: one Markdown table a day, for the terminal and for docs/performance.md."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.contenders import Contender, Run
from benchmarks.figures import (
    Case,
    Goal,
    cpu_seconds,
    day_cpu_seconds,
    day_wall_seconds,
    goals,
    jvm_cpu_seconds,
    reading_seconds,
    tables_cpu_seconds,
    tables_jvm_cpu_seconds,
    tables_wall_seconds,
    wall_seconds,
)

BEGIN: Final = "<!-- figures: written by make bench, do not edit -->"
END: Final = "<!-- end of the figures -->"
_MB: Final = 1_000_000
_JVM_ROW: Final = 4


def as_markdown(cases: Sequence[Case], stages: Mapping[str, float] | None, *, command: str, setting: str) -> str:
    """Return the whole report.

    Args:
        cases: the days measured.
        stages: CPU µs a record by stage, or None where they were not measured.
        command: the command that made the figures.
        setting: how Spark ran.
    """
    rounds = len(cases[0].rounds)
    parts = [
        f"`{command}`",
        f"{_machine()}; {setting}; medians of {rounds} round{'s' if rounds > 1 else ''}; "
        "outputs compared line by line after every run: equal.",
    ]
    for case in cases:
        parts += [_title(case), _table(case)]
        parts += [_goals(goals(case))] if goals(case) else []
    parts += [text for text in (_marginal(cases), _stages(stages)) if text]
    return "\n\n".join(parts)


def write_into(path: Path, text: str) -> None:
    """Replace the text between the two marks of a document.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for the figures: put {BEGIN} and {END} on lines of their own")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, Spark {version('pyspark')}"


def _title(case: Case) -> str:
    day, size = case.day, case.day.size
    return (
        f"**{size.records:,} records in {size.objects:,} objects** "
        f"({day.stored_bytes / _MB:,.0f} MB gzip, {day.plaintext_bytes / size.records / 1000:.2f} kB of plaintext each)"
    )


def _table(case: Case) -> str:
    records, stored = case.day.size.records, case.day.stored_bytes
    columns = [contender for contender in Contender if case.has(contender)]
    compared = Contender.CHAIN in columns

    def row(name: str, of: Callable[[Run], float], form: str, *, more_is_better: bool = False) -> list[str]:
        cells = [format(case.median(contender, of), form) for contender in columns]
        if not compared:
            return [name, *cells]
        numerator, denominator = (
            (Contender.JOB, Contender.CHAIN) if more_is_better else (Contender.CHAIN, Contender.JOB)
        )
        return [name, *cells, f"{case.ratio(numerator, denominator, of):.1f}x"]

    rows = [
        row("wall, whole process, s", wall_seconds, ".1f"),
        row("wall, Spark being up, s", reading_seconds, ".1f"),
        row("CPU, s", cpu_seconds, ".1f"),
        row("CPU a record, µs", lambda run: cpu_seconds(run) / records * 1e6, ".1f"),
        row("of it the JVM, µs", lambda run: jvm_cpu_seconds(run) / records * 1e6, ".1f"),
        row("records a second", lambda run: records / wall_seconds(run), ",.0f", more_is_better=True),
        row("MB of gzip a second", lambda run: stored / _MB / wall_seconds(run), ".1f", more_is_better=True),
    ]
    if Contender.FLOOR in columns:
        rows[_JVM_ROW][1 + columns.index(Contender.FLOOR)] = ""
    if case.has_tables:
        rows += [
            row("tables: wall, s", tables_wall_seconds, ".1f"),
            row("tables: CPU, s", tables_cpu_seconds, ".1f"),
            row("tables: CPU a record, µs", lambda run: tables_cpu_seconds(run) / records * 1e6, ".1f"),
            row("of it the JVM, µs", lambda run: tables_jvm_cpu_seconds(run) / records * 1e6, ".1f"),
            row("whole day: wall, s", day_wall_seconds, ".1f"),
            row("whole day: CPU, s", day_cpu_seconds, ".1f"),
        ]
    return _lines([["", *columns, *(["the job is better by"] if compared else [])], *rows])


def _goals(found: Sequence[Goal]) -> str:
    return "\n".join(
        f"- {'met' if goal.met else '**not met**'}: {goal.name} is {goal.value:.2f}, wanted "
        + (f"at least {goal.at_least:g}" if goal.at_least is not None else f"at most {goal.at_most:g}")
        for goal in found
    )


def _marginal(cases: Sequence[Case]) -> str | None:
    """Return what one more record costs, from the smallest and the largest day of large objects."""
    alike = sorted((case for case in cases if case.day.size.objects < 1_000), key=lambda case: case.day.size.records)
    if len(alike) < 2:
        return None
    small, large = alike[0], alike[-1]
    more = large.day.size.records - small.day.size.records
    if not more:
        return None
    costs = [
        f"{contender} {(large.median(contender, cpu_seconds) - small.median(contender, cpu_seconds)) / more * 1e6:.1f}"
        for contender in Contender
        if small.has(contender) and large.has(contender)
    ]
    return f"One more record, between these sizes, costs in CPU µs: {', '.join(costs)}."


def _stages(stages: Mapping[str, float] | None) -> str | None:
    if stages is None:
        return None
    rows = [["stage", "CPU µs a record"], *([stage, f"{cost:.1f}"] for stage, cost in stages.items())]
    return "\n\n".join(["The cost of each stage, alone in one process:", _lines(rows)])


def _lines(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    lines = [
        "| " + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(f"{line} |" for line in lines)
