"""The columns of random records, against the plain reference: values, and what counts as unparsable."""

import json
import math
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster_tests.spark.tables import reference
from cdi_dagster_tests.spark.tables.test_values import column

KINDS = ("string", "timestamp", "date", "bigint", "int", "double", "boolean", "decimal(5,2)", "decimal(38,0)")
PATHS = (["a"], ["b"], ["a", "b"], ["a", "b", "c"], ["d_date"], ["a", "d_date"])

_digits = st.text("0123456789", min_size=1, max_size=4)
_days = st.one_of(
    st.dates().map(str),
    st.builds(
        "{}-{}-{}".format, st.integers(0, 10_000).map("{:04d}".format), st.integers(0, 13).map("{:02d}".format), _digits
    ),
    st.sampled_from(["1582-10-04", "1582-10-05", "1582-10-14", "1582-10-15", "1969-12-31", "1970-01-01", "0001-01-01"]),
)
_clocks = st.one_of(
    st.times().map(lambda time: time.isoformat("seconds")),
    st.sampled_from(["23:59:59", "24:00:00", "00:00:60", "1:00:00", "10:00"]),
)
_moments = st.builds(
    "{}{}{}{}{}".format,
    _days,
    st.sampled_from("TTT t"),
    _clocks,
    st.one_of(
        st.just(""), _digits.map(".{}".format), st.sampled_from([".", ",5", ".000", ".0009999", ".001", ".123456789"])
    ),
    st.sampled_from(["", "Z", "Z", "+0100", "-08:00", "+2400", "+01", "z", " "]),
)
_numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-120, 120).map(str),
    st.floats().map(json.dumps),
    st.builds(
        "{}{}.{}{}".format,
        st.sampled_from(["", "-"]),
        st.sampled_from(["0", "1", "12", "007"]),
        _digits,
        st.sampled_from(["", "e2", "E-3", "e400"]),
    ),
    st.sampled_from(["-0", "-0.0", "1e5", "2147483648", "-2147483649", "9223372036854775808", "-9223372036854775808"]),
)
_texts = st.one_of(
    _moments,
    _days,
    _numbers,
    st.sampled_from(
        ["", "true", "false", "True", "+1", " 1", "1 ", "٤٢", "now", "NaN", "12f", "160637", "{}", '{"b":1}']
    ),
    st.text(st.characters(codec="utf-8"), max_size=5),
)


def _json_number(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# As the text of a record has them: not only the canonical form.
_values = st.recursive(
    st.one_of(
        _texts.map(lambda text: json.dumps(text, ensure_ascii=False)),
        _texts.map(json.dumps),
        _numbers.filter(_json_number),
        st.sampled_from(["null", "true", "false", "NaN", "Infinity", "-Infinity", "{}", "[]"]),
        st.one_of(_moments, _days).map(lambda text: f'{{"d_date":{json.dumps(text)}}}'),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d_date", "é"]), values), max_size=4).map(
            lambda members: f"{{{','.join(f'{json.dumps(key)}:{value}' for key, value in members)}}}"
        ),
    ),
    max_leaves=8,
)
_records = st.lists(st.tuples(st.sampled_from(["a", "b", "d_date", "é"]), _values), max_size=5).map(
    lambda members: f"{{{','.join(f'{json.dumps(key)}:{value}' for key, value in members)}}}"
)


def comparable(value: Any) -> Any:
    return repr(value) if isinstance(value, float) and (math.isnan(value) or value == 0) else value


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_records, min_size=1, max_size=5))
def test_columns_are_those_of_the_reference(records: list[str]) -> None:
    columns = [column(f"c{i}", *path, type=kind) for i, (kind, path) in enumerate((k, p) for k in KINDS for p in PATHS)]
    reader = ColumnReader(columns)
    read = reader.read("".join(f"{record}\n" for record in records).encode(), len(records))
    for of_column, values in zip(columns, read, strict=True):
        expected = [reference.value_of(record, list(of_column.path), of_column.type) for record in records]
        assert list(map(comparable, values)) == [comparable(value) for value, _ in expected], of_column
        assert reader.unparsable[of_column.name] == sum(counted for _, counted in expected), of_column


# Of one path each, so that a block of usual records is read by its types at once.
SEPARATE_PATHS = (["b"], ["a", "b"], ["a", "c"], ["d_date"], ["é"])
_TIMES = st.builds("{:%Y-%m-%dT%H:%M:%S}.{:03d}Z".format, st.datetimes(), st.integers(0, 999))
_quoted = st.one_of(_TIMES, st.dates().map(str), st.just("")).map(json.dumps)
_usual = {
    "string": st.text(max_size=5).map(json.dumps),
    "timestamp": st.one_of(_quoted, _quoted.map('{{"d_date":{}}}'.format)),
    "date": st.one_of(_quoted, _quoted.map('{{"d_date":{}}}'.format)),
    "bigint": st.integers(-(2**63) - 1, 2**63).map(str),
    "int": st.integers(-(2**31) - 1, 2**31).map(str),
    "double": st.one_of(st.floats(allow_nan=False, allow_infinity=False).map(json.dumps), st.integers().map(str)),
    "boolean": st.sampled_from(["true", "false"]),
    "decimal(5,2)": st.one_of(st.integers(-120_000, 120_000).map(lambda n: str(n / 100)), st.just('"1.5"')),
}


@st.composite
def _mostly_usual(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """Draw a type for each path, and three blocks of records that mostly are of these types."""
    kinds = [draw(st.sampled_from(sorted(_usual))) for _ in SEPARATE_PATHS]
    odd_values = draw(st.booleans())

    def value(kind: str) -> str:
        usual = st.one_of(_usual[kind], _usual[kind], st.just("null"))
        return draw(st.one_of(usual, usual, _values) if odd_values else usual)

    def member(path: list[str], kind: str) -> str:
        return f"{json.dumps(path[-1])}:{value(kind)}"

    def record() -> str:
        b, a_b, a_c, d_date, accented = (member(*each) for each in zip(SEPARATE_PATHS, kinds, strict=True))
        inner = draw(st.sampled_from([f"{a_b},{a_c}", a_b, f"{a_c},{a_c}", "", f'"more":[1.50, "x"],{a_b}']))
        of_a = draw(st.sampled_from([f'"a":{{{inner}}}', f'"a":{{{inner}}}', '"a":null', '"z":{}']))
        outer = draw(st.permutations([b, of_a, d_date, accented]))
        return f"{{{','.join(outer[draw(st.integers(0, 2)) :])}}}"

    return kinds, [[record() for _ in range(draw(st.integers(1, 4)))] for _ in range(3)]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_mostly_usual())
def test_columns_of_usual_records_are_those_of_the_reference(drawn: tuple[list[str], list[list[str]]]) -> None:
    kinds, blocks = drawn
    columns = [
        column(f"c{i}", *path, type=kind) for i, (path, kind) in enumerate(zip(SEPARATE_PATHS, kinds, strict=True))
    ]
    reader = ColumnReader(columns)
    unparsable = Counter[str]()
    for records in blocks:
        read = reader.read("".join(f"{record}\n" for record in records).encode(), len(records))
        for of_column, values in zip(columns, read, strict=True):
            expected = [reference.value_of(record, list(of_column.path), of_column.type) for record in records]
            assert list(map(comparable, values)) == [comparable(value) for value, _ in expected], of_column
            unparsable[of_column.name] += sum(counted for _, counted in expected)
    assert reader.unparsable == +unparsable
