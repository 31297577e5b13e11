"""`cdi compare` finds exactly the lines that two folders do not share, by place and never by content."""

import gzip
import json
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_dagster.cli.app import cdi
from cdi_dagster.cli.line_comparison import Comparison, Side, compare
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint


def put(folder: Path, **objects: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in objects.items():
        (folder / name).write_bytes(data)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cdi, ["compare", *map(str, arguments)])


def of(folder: Path, other: Path, most_places: int = 10) -> Comparison:
    sides = (Side.of(open_storage(folder.as_uri())), Side.of(open_storage(other.as_uri())))
    return compare(sides, most_places=most_places, progress=lambda _: None)


def test_order_objects_names_and_compression_do_not_matter(tmp_path: Path) -> None:
    a = put(
        tmp_path / "a", one=b"1\n2\n", two=gzip.compress(b"3\n") + gzip.compress(b"2\n4"), _SUCCESS=b"{}", _x=b"9\n"
    )
    b = put(tmp_path / "b" / "deep", only=b"2\n4\n2\n1\n3\n")
    result = run(a, b.parent.as_uri(), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["same"], found["lines"], found["differences"]) == (True, [5, 5], [])


def test_differences_are_named_by_place_and_never_by_content(tmp_path: Path) -> None:
    a = put(tmp_path / "a", one=b"same\nof-a\nsame\n", two=gzip.compress(b"twice\ntwice\n"))
    b = put(tmp_path / "b", one=b"twice\nsame\nof-b\n", two=b"same\n")
    result = run(a, b, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["same"], found["only_in_a"], found["only_in_b"]) == (False, 2, 1)
    assert found["differences"] == [
        {"only_in": "a", "object": f"{a.as_uri()}/one", "line": 2},
        {"only_in": "a", "object": f"{a.as_uri()}/two", "line": 2},
        {"only_in": "b", "object": f"{b.as_uri()}/one", "line": 3},
    ]
    text = run(a, b)
    assert text.exit_code == 1
    assert f"only in A  {a.as_uri()}/one line 2" in text.stdout
    for content in ("of-a", "of-b", "twice"):
        assert content not in text.output + result.output
    assert json.loads(run(a, b, "--json", "--differences", 1).stdout)["differences"] == [
        found["differences"][0],
        found["differences"][2],
    ]


def test_a_bucket_is_compared_with_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    bucket = new_s3_storage()
    bucket.write("day/part-0.gz", gzip.compress(b"1\n2\n"))
    bucket.write("day-2/part-0", b"3\n")
    folder = put(tmp_path / "a", one=b"2\n1\n")
    assert run(bucket.uri("day"), folder).exit_code == 0
    assert run(bucket.uri("day-2"), folder).exit_code == 1


def test_what_cannot_be_compared_is_no_difference(tmp_path: Path) -> None:
    a = put(tmp_path / "a", one=b"1\n")
    empty = run(a, tmp_path / "nothing")
    assert (empty.exit_code, "There is nothing below file://" in empty.stderr) == (2, True)
    assert run(a, "ftp://x").exit_code == 2
    cut = run(a, put(tmp_path / "b", one=gzip.compress(b"1\n" * 1000)[:-4]))
    assert (cut.exit_code, cut.stderr.startswith("Comparing") and "INPUT_INVALID" in cut.stderr) == (1, True)
    assert f"{tmp_path.as_uri()}/b/one" in cut.stderr.replace("\n", "")
    assert run(put(tmp_path / "c", _SUCCESS=b"{}"), put(tmp_path / "d", _SUCCESS=b"{}")).exit_code == 0  # empty days


@settings(max_examples=20)  # each makes 256 files
@given(sides=st.tuples(*[st.lists(st.sampled_from([b"", b"a", b"b", b"c"]), max_size=8)] * 2))
def test_it_counts_as_multisets_do(tmp_path_factory: pytest.TempPathFactory, sides: Sequence[list[bytes]]) -> None:
    folder = tmp_path_factory.mktemp("case")
    a, b = (
        put(folder / name, one=b"".join(line + b"\n" for line in side)) for name, side in zip("ab", sides, strict=True)
    )
    found, (left, right) = of(a, b), map(Counter, sides)
    assert found.surplus == ((left - right).total(), (right - left).total())
    assert Counter(sides[0][place.line - 1] for place in found.places[0]) == left - right
    assert Counter(sides[1][place.line - 1] for place in found.places[1]) == right - left


def test_memory_is_bounded_where_everything_differs(tmp_path: Path) -> None:
    lines = 40_000
    a, b = (put(tmp_path / name, one=b"".join(b"%s %d\n" % (name.encode(), n) for n in range(lines))) for name in "ab")
    tracemalloc.start()
    found = of(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.surplus == (lines, lines)
    assert peak < 6_000_000  # a partition and buffers; a hash of each line in memory is over 10 MB
