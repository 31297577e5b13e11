"""A task's files of rows: divided by size, in bounded memory, whatever the parts and records look like."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from pyarrow import orc

from cdi_dagster.core.table_definition import Column, Showing
from cdi_dagster.published.mark import PublishedPart
from cdi_dagster.spark.tables import orc_parts
from cdi_dagster.spark.tables.rows_job import plan_rows
from cdi_dagster.spark.tables.rows_task import RowsResult, RowsSettings, RowsTask, TableOutput, run_rows_task
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.spark.tables.test_values import column
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

MB = 1024 * 1024


def written(
    storage: Storage, *parts: list[str], columns: tuple[Column, ...], shown: tuple[Column, ...] = ()
) -> tuple[RowsResult, dict[str, list[Path]]]:
    """Run one task over parts of records; return what it counted and the files of each table, published."""
    found = []
    for number, lines in enumerate(parts):
        content = gzip.compress("".join(f"{line}\n" for line in lines).encode(), 1)
        stored = storage.write(f"records/part-{number}.gz", content)
        found.append(PublishedPart(key=stored.key, size_bytes=stored.size_bytes, records=len(lines)))
    outputs = {
        "raw": TableOutput(prefix="raw/", columns=None),
        "managed": TableOutput(prefix="managed/", columns=columns),
        **({"over": TableOutput(prefix="over/", columns=shown)} if shown else {}),
    }
    settings = RowsSettings(
        published_root=storage.root, outputs=outputs, attempt="a", correlation_id="c", task_count=2, progress=None
    )
    (result,) = run_rows_task(settings, RowsTask(index=1, parts=tuple(found)))
    root = Path(storage.root.removeprefix("file://"))
    paths = {}
    for name, files in result.files.items():
        storage.publish(f"{name}/", [file.prepared for file in files], b"{}", group="c")
        paths[name] = [root / file.prepared.key for file in files]
    return result, paths


def values(paths: list[Path], name: str) -> list[object]:
    return [value for path in paths for value in orc.ORCFile(path).read().column(name).to_pylist()]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path.as_uri())


def test_a_table_over_managed_shows_columns_in_the_same_pass(storage: Storage) -> None:
    columns = (column("name", "n"), column("number", "i", type="bigint"), column("day", "d", type="date"))
    name, number, _ = columns
    plain = replace(number, name="plain")
    shown = (replace(number, showing=Showing.HASH), replace(name, showing=Showing.MASK), plain)
    records = ['{"n":"Zoë","i":7,"d":"2023-03-26"}', '{"i":"7 pounds","d":"soon"}']
    result, paths = written(storage, records, columns=columns, shown=shown)
    assert values(paths["over"], "name") == ["REDACTED", None]
    assert values(paths["over"], "number") == [sha256(b"7").hexdigest(), None]
    assert values(paths["over"], "plain") == values(paths["managed"], "number") == [7, None]
    assert result.unparsable == {"raw": {}, "managed": {"number": 1, "day": 1}, "over": {"number": 1, "plain": 1}}


def test_rows_of_several_parts_and_blocks_keep_their_order(storage: Storage) -> None:
    lines = [json.dumps({"a": i, "pad": "é" * (i % 700)}, ensure_ascii=False) for i in range(3_000)]
    result, paths = written(storage, lines[:10], [], lines[10:], columns=(column("a", "a", type="int"),))
    assert values(paths["raw"], "val") == lines
    assert values(paths["managed"], "a") == list(range(3_000))
    assert (result.rows, result.text_bytes) == (3_000, sum(len(line.encode()) for line in lines))
    assert [path.name for path in paths["raw"]] == ["part-00001-a.zlib.orc"]


def test_a_large_table_has_many_stripes_and_then_another_file(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orc_parts, "STRIPE_BYTES", 16 * 1024)
    monkeypatch.setattr(orc_parts, "MOST_FILE_BYTES", 256 * 1024)
    monkeypatch.setattr("cdi_dagster.spark.tables.orc.encodings.CHUNK_BYTES", 4 * 1024)
    import random

    seeded = random.Random(1)
    lines = [json.dumps({"a": i, "b": f"{seeded.getrandbits(4000):x}"}) for i in range(2_000)]
    result, paths = written(storage, lines, columns=(column("a", "a", type="bigint"), column("b", "b")))
    assert len(paths["raw"]) > 2
    assert [path.name[:10] for path in paths["raw"][:2]] == ["part-00001", "part-00003"]
    assert values(paths["raw"], "val") == lines
    assert values(paths["managed"], "a") == list(range(2_000))
    assert all(file.prepared.size_bytes < 512 * 1024 for file in result.files["raw"])
    assert orc.ORCFile(paths["raw"][0]).nstripes > 1


_LARGE_RECORD = """
import resource, sys
from pathlib import Path
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.spark.tables.test_rows_task import MB, values, written
from cdi_dagster_tests.spark.tables.test_values import column
storage = open_storage(Path(sys.argv[1]).as_uri())
large = '{"a":1,"text":"' + "x" * (64 * MB) + '"}'
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
columns = (column("a", "a", type="int"), column("t", "text"))
result, paths = written(storage, ['{"a":0}', large, '{"a":2}'], columns=columns)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(result.rows, (after - before) // 1024)
"""


def test_a_record_of_64_mb_takes_a_bounded_multiple_of_its_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LARGE_RECORD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 3
    assert megabytes < 10 * 64


@pytest.mark.parametrize(
    ("sizes", "cores", "tasks"),
    [
        ([1_000] * 16, 2, 1),
        ([3 * MB] * 16, 2, 2),
        ([10 * MB] * 16, 2, 2),
        ([100 * MB] * 16, 2, 6),
        ([200 * MB] * 400, 1440, 400),
        ([2 * MB] * 2_880, 1440, 90),
        ([1 * MB] * 40, 1440, 10),
        ([], 2, 0),
    ],
)
def test_tasks_are_few_enough_for_large_files_and_many_enough_for_the_cores(
    sizes: list[int], cores: int, tasks: int
) -> None:
    parts = [PublishedPart(key=f"p{i}", size_bytes=size, records=1) for i, size in enumerate(sizes)]
    planned = plan_rows(parts, cores=cores)
    assert len(planned) == tasks
    assert sorted(part.key for task in planned for part in task.parts) == sorted(part.key for part in parts)
    assert planned == plan_rows(parts, cores=cores)
