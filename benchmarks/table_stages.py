"""The cost of one record's rows, stage by stage, in one process without Spark: from the text of records to ORC.

For `command`; the records are those of `record_stages`.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from isal import isal_zlib

from benchmarks.data import COLLECTION
from benchmarks.record_stages import _COLLECTION, Best, _ReversedKeys, gunzip, sample_objects
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster.spark.tables.orc.encodings import StringColumn
from cdi_dagster.spark.tables.orc.writer import OrcWriter
from cdi_dagster.spark.tables.orc_parts import column_type
from cdi_dagster.table_definitions import shipped_table_definition

_GZIP = 31  # zlib's window bits for a gzip member


def measure(records: int, seed: int, rounds: int) -> Mapping[str, float]:
    """Return CPU µs a record, by stage; `columns` includes `parse`, and each table its compression."""
    objects, _ = sample_objects(records, seed)
    engine = RecordEngine(_COLLECTION, _ReversedKeys())
    texts = [bytes(engine.process(block).records) for stored in objects for block in gunzip(stored)]
    definition = shipped_table_definition(COLLECTION)
    columns = definition.managed.columns if definition and definition.managed else ()
    reader = ColumnReader(columns)
    blocks = [(text, text.count(b"\n")) for text in texts]
    read = [reader.read(text, count) for text, count in blocks]
    zipped = [isal_zlib.compress(text, 1, wbits=_GZIP) for text in texts]
    managed = OrcWriter(len, [column.name for column in columns], [column_type(column.type) for column in columns])
    raw = OrcWriter(len, ["val"], [StringColumn])

    def write_raw(block: tuple[bytes, int]) -> None:
        lengths = list(map(len, block[0].split(b"\n")))
        raw.columns[0].write_text(block[0].replace(b"\n", b""), lengths[:-1])  # type: ignore[attr-defined]

    best = Best(records, rounds)
    costs = {
        "gunzip": best(lambda stored: isal_zlib.decompress(stored, _GZIP), zipped),
        "parse": best(lambda block: orjson.loads(b"[%b]" % block[0][:-1].replace(b"\n", b",")), blocks),
        "columns": best(lambda block: reader.read(*block), blocks),
        "managed table": best(_and_end(managed, managed.write), read),
        "raw table": best(_and_end(raw, write_raw), blocks),
    }
    total = costs["gunzip"] + costs["columns"] + costs["managed table"] + costs["raw table"]
    return {stage: round(cost, 2) for stage, cost in {**costs, "total": total}.items()}


def _and_end(writer: OrcWriter, write: Any) -> Any:
    """Write a block; end the stripe now and then, so that memory stays bounded and its cost counts."""

    def write_and_end(block: Any) -> None:
        write(block)
        if writer.stripe_bytes > 1024 * 1024:
            writer.end_stripe()

    return write_and_end
