"""What a table definition makes of a day's records: the nulls of each column, and the paths that no column takes.

Streams the published records in plain Python, by the same rules as the job's, in bounded memory.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from cdi_dagster.core.table_definition import Column
from cdi_dagster.published.mark import Mark
from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster.spark.tables.record_blocks import record_blocks
from cdi_dagster.storage import Storage

MOST_PATHS = 2_000
"""Different paths that are counted: records keyed by ids would have millions."""

_PLATFORM_DATE = "d_date"
"""The one key of a date in a record: it is a value, not an object with a path of its own."""


@dataclass(frozen=True, kw_only=True)
class ColumnProfile:
    """One column over the records of a day.

    Attributes:
        name: of the column.
        path: where it is taken from.
        type: its type.
        nulls: records for which it is null, unparsable ones included.
        unparsable: records whose value is not of its type.
    """

    name: str
    path: tuple[str, ...]
    type: str
    nulls: int
    unparsable: int


@dataclass(frozen=True, kw_only=True)
class DayProfile:
    """What a definition makes of a day.

    Attributes:
        records: how many were read.
        columns: of the managed table, in order.
        untaken: records by path that no column takes, most frequent first.
        beyond: occurrences of further paths that were not told apart, where there are more than `MOST_PATHS`.
        unwalked: records nested too deeply to look for paths.
    """

    records: int
    columns: tuple[ColumnProfile, ...]
    untaken: dict[tuple[str, ...], int]
    beyond: int
    unwalked: int


def profile_day(published: Storage, records: Mark, columns: Sequence[Column]) -> DayProfile:
    """Read the published records of a day, and count."""
    count, unwalked, beyond = 0, 0, 0
    nulls = [0] * len(columns)
    untaken: Counter[tuple[str, ...]] = Counter()
    taken = {column.path for column in columns}
    reader = ColumnReader(columns)
    for block in chain.from_iterable(record_blocks(published, part) for part in records.parts):
        lines = block.split(b"\n")[:-1]
        count += len(lines)
        for number, values in enumerate(reader.read(block, len(lines))):
            nulls[number] += values.count(None)
        for line in lines:
            try:
                paths = set(_untaken_paths(_parsed(line), taken))
            except (ValueError, RecursionError):
                unwalked += 1
                continue
            for path in paths:
                if path in untaken or len(untaken) < MOST_PATHS:
                    untaken[path] += 1
                else:
                    beyond += 1
    profiles = (
        ColumnProfile(
            name=column.name,
            path=column.path,
            type=column.type,
            nulls=nulls[number],
            unparsable=reader.unparsable[column.name],
        )
        for number, column in enumerate(columns)
    )
    return DayProfile(
        records=count,
        columns=tuple(profiles),
        untaken=dict(sorted(untaken.items(), key=lambda item: (-item[1], item[0]))),
        beyond=beyond,
        unwalked=unwalked,
    )


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)  # NaN, Infinity, deep nesting


def _untaken_paths(record: Any, taken: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield each path to a value, or to an empty object, that is neither a column's nor below one's."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), record)]
    while waiting:
        path, value = waiting.pop()
        if path in taken:
            continue
        if isinstance(value, dict) and value and not (len(value) == 1 and _PLATFORM_DATE in value and path):
            waiting += [((*path, key), below) for key, below in value.items()]
        else:
            yield path
