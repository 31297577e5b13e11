"""The columns of the tables: from lines of records to DataFrames, without I/O.

Each function is DataFrame -> DataFrame and uses Spark's own functions only. A value that is not of its column's type
becomes null, on Spark 3.5 and 4 alike, and is counted; it never fails the job.
"""

from collections.abc import Mapping, Sequence

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F  # noqa: N812 (the usual name)
from pyspark.sql.types import StringType, StructField, StructType

from cdi_dagster.core.table_definition import Column

RAW_SCHEMA = "val STRING"

_UNREADABLE = "__not_json__"
_PARSED = "__parsed__"
_TEXT = "__text_of__"
# Jackson's own limits (1,000 digits, 20 MB of text, depth 1,000) would turn the whole row of such a record into nulls.
_JSON_OPTIONS = {
    "columnNameOfCorruptRecord": _UNREADABLE,
    "maxNumLen": "1000000",
    "maxStringLen": "2000000000",
    "maxNestingDepth": "100000",
}


def managed_rows(records: DataFrame, columns: Sequence[Column], observation: Observation | None = None) -> DataFrame:
    """Return the managed table's rows: one per record, in the configured columns.

    Args:
        records: the column `val`, one record a row.
        columns: the columns to extract.
        observation: gets `unparsable_counts` while the rows are computed.
    """
    typed = typed_beside_texts(column_texts(records, columns), columns)
    counts = unparsable_counts(columns)
    observed = typed.observe(observation, *counts) if observation and counts else typed
    return observed.select(*(column.name for column in columns))


def typed_beside_texts(texts: DataFrame, columns: Sequence[Column]) -> DataFrame:
    """Return `column_texts` in their types (null where a text is not of its type), and the texts beside them."""
    plain = texts.select(*(F.expr(_plain_text(column)).alias(_TEXT + column.name) for column in columns))
    return plain.select(*plain.columns, *(_typed(column).alias(column.name) for column in columns))


def unparsable_counts(columns: Sequence[Column]) -> list[SparkColumn]:
    """Return aggregates over `typed_beside_texts`: for each typed column, how many values became null."""
    return [
        F.count(F.when(F.col(_TEXT + column.name).isNotNull() & F.col(column.name).isNull(), True)).alias(column.name)
        for column in columns
        if column.type != "string"
    ]


def column_texts(records: DataFrame, columns: Sequence[Column]) -> DataFrame:
    """Return, for each column, the text at its path (JSON text for an object or list), under the column's name.

    Parses level by level and takes a level's values by position: two JSON keys that differ only in case stay two,
    and a key may be both a value and the parent of values below it.
    """
    frame = records.select("val")
    below: Mapping[tuple[str, ...], str] = {(): "val"}
    found: dict[tuple[str, ...], str] = {}
    depth = max(len(column.path) for column in columns)
    for level in range(depth):
        for parent, parent_name in dict(below).items():
            keys = sorted(
                {column.path[level] for column in columns if len(column.path) > level and column.path[:level] == parent}
            )
            if not keys:
                continue
            names = {(*parent, key): f"__{len(found) + number}__" for number, key in enumerate(keys)}
            frame = _with_keys(frame, parent_name, names)
            found |= names
        below = {path: name for path, name in found.items() if len(path) == level + 1}
    return frame.select(*(F.col(found[column.path]).alias(column.name) for column in columns))


def _with_keys(frame: DataFrame, parent_name: str, names: Mapping[tuple[str, ...], str]) -> DataFrame:
    """Add the values of an object's keys as text columns, under the given names by path."""
    keys = [path[-1] for path in names]
    schema = StructType([StructField(key, StringType()) for key in [*keys, _UNREADABLE]])
    kept = frame.columns
    parsed = frame.select(*kept, F.from_json(F.col(parent_name), schema, _JSON_OPTIONS).alias(_PARSED))
    # `.*` selects by position; by name, Spark would find "status" and "Status" ambiguous.
    spread = parsed.select(*kept, f"{_PARSED}.*").toDF(*kept, *names.values(), _UNREADABLE)
    return spread.select(*kept, *names.values())


def _plain_text(column: Column) -> str:
    """SQL for a column's text before the cast: `{"d_date": …}` unwrapped, and the empty text as null."""
    text = f"`{column.name}`"
    if column.type == "string":
        return text
    if column.type in ("timestamp", "date"):
        # The platform's form of a date: the validator wraps it, the sanitiser renames "$date".
        text = f"CASE WHEN {text} LIKE '{{%' THEN coalesce(get_json_object({text}, '$.d_date'), {text}) ELSE {text} END"
    return f"nullif({text}, '')"


def _typed(column: Column) -> SparkColumn:
    text = f"`{_TEXT}{column.name}`"
    return F.expr(text if column.type == "string" else f"try_cast({text} AS {column.type})")
