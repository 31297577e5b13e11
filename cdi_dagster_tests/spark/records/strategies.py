"""What the differential test feeds both implementations: ordinary payloads, and everything known to be nasty."""

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

COLLECTION_IDS = (
    "data:businessAudit",
    "data:businessAudit",
    "data:equality",
    "core:claimant",
    "calculator:calculationParts",
    "penalties-and-deductions:sanction",
    "core:healthAndDisabilityDeclaration",
    "accepted-data:healthAndDisabilityCircumstances",
)

_NASTY_TEXT = st.sampled_from(
    [
        *("", " ", "/", '"', "\\", "\\\\", "\x00", "\\u0000", "\\\\u0000", "u0041", "\\u0041", "\x7f", "\u2028", "é"),
        *("\ud83d", "\ude00", "\U0001f600", "\ue000", "\uffff", "\ud83d\x00\ude00", "_\x00archived", "_arch\nived"),
        *("$", "$$", "$date", "$oid", "d_date", "$archived", "_archived", "_archivedDateTime", "x_archivedDateTimey"),
        *(
            "_archived_archived",
            "$5 and $6",
            "a\nb",
            "a\r\nb",
            "\\n",
            "\\\n",
            "\\|",
            "\n",
            "\r",
            "|",
            "\\r",
            "\\u\n0000",
        ),
        *("T", "Z", "+0000", "Z\n", 'Z",', '{"$date":', '":{"$date":"', "1e22", "1e+22,", "0.00001", "e-5,", ",1e-7]"),
        *(':"2020-05-21T17:18:15.693Z"', ',"2020-05-21T17:18:15.693+0000",', 'x"2020-05-21T17:18:15.693Z'),
    ]
)
_DATES = st.sampled_from(
    [
        *("2020-05-21T17:18:15.693Z", "2020-05-21T17:18:15.693+0000", "1980-01-01T00:00:00.000Z"),
        *("2020-05-21T00:18:15.693+0100", "2020-05-21T17:18:15.693+2359", "2020-05-21T17:18:15.693+0530"),
        *("2020-05-21T17:18:15.693-0100", "2020-05-21T17:18:15.693+010203", "2020-05-21T17:18:15.693+01:00"),
        *("2020-05-21T17:18:15.693+01:02:03", "2020-05-21T17:18:15.693+01:0203", "2020-05-21T17:18:15.693+010203.5"),
        *("2020-05-21T17:18:15.693+0060", "2020-05-21T17:18:15.693+2400", "2020-05-21T17:18:15.693+9999"),
        *("2020-02-29T00:00:00.000Z", "2019-02-29T00:00:00.000+0000", "2020-02-30T00:00:00.000Z"),
        *("2020-04-30T00:00:00.000Z", "2020-04-31T00:00:00.000Z", "2020-01-31T00:00:00.000+0000"),
        *("2020-00-01T00:00:00.000Z", "2020-13-01T00:00:00.000Z", "2020-01-00T00:00:00.000Z"),
        *("2020-01-01T24:00:00.000Z", "2020-01-01T23:60:00.000Z", "2020-01-01T23:59:60.000Z"),
        *("2020-01-01T23:59:61.000+0000", "0000-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z"),
        *("0001-01-01T00:00:00.000+0100", "0999-12-31T00:00:00.000Z", "1000-01-01T00:00:00.000+0100"),
        *("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999-0100", "2020-05-21T17:18:15.693Z\n"),
        *("2020-05-21T17:18:15.693+0000\n", "2020-05-21T17:18:15.693Z ", " 2020-05-21T17:18:15.693Z"),
        *("at 2020-05-21T17:18:15.693Z", "2020-05-21T17:18:15.693Z\\n", '"2020-05-21T17:18:15.693Z'),
        *("٢٠٢٠-05-21T17:18:15.693Z", "2020-05-21T17:18:15.69３+0000", "2020-05-21T17:18:15.693+００00"),
        *("2020-05-２1T17:18:15.693Z", "2020-05-21T1７:18:15.693Z", "é2020-05-21T17:18:15.693Z"),
        *("2020-05-21t17:18:15.693Z", "2020-05-21T17:18:15.693z", "2020-05-21 17:18:15.693Z", "2020-05- 1T17:18:15.6Z"),
        *("2020-5-1T1:2:3.4Z", "2020-05-21T17:18:15.693123Z", "2020-05-21T17:18:15Z", "2020-05-21T17:18:15,693Z"),
        *("2020-05-21", "2020-05-21T17:18:15.693", "2020-05-21T17:18:15.69Z", "2020-W01-1T00:00:00.000+0000"),
        *("2020-05-21T17:18:15.693\x00Z", "\x002020-05-21T17:18:15.693Z", "2020-05-21T17:18:15.693+0000\x00"),
    ]
)
_RANDOM_DATES = st.from_regex(
    r"\A[0129][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\.[0-9]{3}(Z|[+-][0-2][0-9][0-6][0-9])\Z"
)
_TEXT = st.one_of(
    _NASTY_TEXT,
    _DATES,
    _RANDOM_DATES,
    st.text(st.characters(codec=None), max_size=8),
    st.lists(st.one_of(_NASTY_TEXT, _DATES), min_size=2, max_size=4).map("".join),
)
_KEYS = st.one_of(
    st.sampled_from(
        [
            *("a", "A", "b", "", "_id", "_lastModifiedDateTime", "_removedDateTime", "_archivedDateTime", "$date"),
            *("createdDateTime", "$oid", "d_date", "d_oid", "TIME_STAMP", "AUDIT_EVENT", "a$", "a\x00", "_archived"),
        ]
    ),
    _TEXT,
)
_NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30]),
    st.floats(),
    st.floats(-1e3, 1e3),
    st.sampled_from([1e22, 1e16, 1e15, 1e-4, 1e-5, 1.5e-5, 0.0, -0.0, 1e-7, 0.00001234, 123456.00001]),
)
_SCALARS = st.one_of(_TEXT, _NUMBERS, st.booleans(), st.none())


class Raw(str):
    """JSON that `json.dumps` would not write: written as it stands."""

    __slots__ = ()


_RAW = st.sampled_from(["1E400", "-1E400", "1e-400", "1e5", "1E5", "-0", "1.10", "NaN", "-Infinity", "1" * 25]).map(Raw)


def _dollar_objects(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.one_of(
        st.builds(lambda value: {"$date": value}, st.one_of(_DATES, _SCALARS, inner)),
        st.builds(lambda value: {"$oid": value}, st.one_of(_SCALARS, inner)),
    )


_VALUES: SearchStrategy[Any] = st.recursive(
    st.one_of(_SCALARS, _SCALARS, _RAW),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=4), _dollar_objects(inner)
    ),
    max_leaves=12,
)
_ORDINARY_KEYS = st.sampled_from(["user", "name", "startedAt", "amount", "items", "_version", "note", "ref"])
_ORDINARY_DATE = st.sampled_from(
    ["2023-03-26T11:07:30.076+0000", "2024-02-29T11:07:30.076Z", "2023-07-31T11:07:30.076+0100"]
)
_ORDINARY_VALUES: SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.sampled_from(["Zoë", "O'Brien", "£5", "line\nbreak", "1 High St", 'say "x"', "a\\b", "C++", "$status"]),
        _ORDINARY_DATE,
        _ORDINARY_DATE.map(lambda date: {"$date": date}),
        st.integers(0, 10**6),
        st.sampled_from([0.5, 12.25, 1e-6]),
        st.booleans(),
        st.none(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_ORDINARY_KEYS, inner, max_size=3)),
    max_leaves=8,
)
_STATED_DATES = st.one_of(_DATES, _DATES.map(lambda date: {"$date": date}), _SCALARS, st.builds(dict))


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A record as producers hold it, before it is written: sometimes ordinary, sometimes nasty."""
    ordinary = draw(st.booleans())
    keys, values = (_ORDINARY_KEYS, _ORDINARY_VALUES) if ordinary else (_KEYS, _VALUES)
    record = draw(st.dictionaries(keys, values, max_size=6))
    for name in ("_lastModifiedDateTime", "_removedDateTime", "createdDateTime", "_archivedDateTime"):
        if draw(st.integers(0, 5)) == 0:
            record[name] = draw(_ORDINARY_DATE if ordinary else _STATED_DATES)
    if draw(st.integers(0, 2)) == 0:
        record["_id"] = draw(st.one_of(_SCALARS, _RAW, _VALUES))
    return record


def written(draw: st.DrawFn, value: Any) -> str:
    """Write JSON in one of the ways producers write it: escaped or not, keys repeated, spaces here and there."""
    ensure_ascii = draw(st.booleans())
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))

    def write(part: Any) -> str:
        if isinstance(part, Raw):
            return str(part)
        if isinstance(part, dict):
            members = [f"{json.dumps(key, ensure_ascii=ensure_ascii)}{colon}{write(v)}" for key, v in part.items()]
            if members and draw(st.integers(0, 30)) == 0:
                members.append(members[0])
            return "{" + comma.join(members) + "}"
        if isinstance(part, list):
            return "[" + comma.join(map(write, part)) + "]"
        return json.dumps(part, ensure_ascii=ensure_ascii)

    return write(value)


@st.composite
def payloads(draw: st.DrawFn, *, audit: bool) -> bytes:
    """A plaintext: mostly a JSON object of the expected shape, sometimes damaged."""
    value: Any = draw(records())
    if audit and draw(st.integers(0, 30)):
        audit_type = draw(st.one_of(st.just("T"), _SCALARS, _VALUES))
        value = {**draw(st.dictionaries(_KEYS, _SCALARS, max_size=1)), "context": value, "auditType": audit_type}
    if draw(st.integers(0, 40)) == 0:
        value = draw(_VALUES)
    text = written(draw, value).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 25)) == 0:
        at = draw(st.integers(0, len(text)))
        return text[:at] + draw(st.binary(max_size=2)) + text[at + draw(st.integers(0, 1)) :]
    return text


@st.composite
def deep_payloads(draw: st.DrawFn) -> bytes:
    """A plaintext nested about as deep as one of the limits."""
    levels = draw(st.sampled_from([100, 250, 253, 254, 255, 480, 900, 1019, 1020, 1021, 1022, 1023, 1024, 1025, 5000]))
    opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")]))
    levels //= opening.count("[") + opening.count("{")
    inner = draw(st.sampled_from(["1", '"2020-05-21T17:18:15.693Z"', '"$"', "1" * 5000, "NaN"]))
    deep = opening * levels + inner + closing * levels
    shape = draw(
        st.sampled_from(['{"context":{"v":%s},"auditType":"T"}', '{"x":%s,"context":{"v":1},"auditType":"T"}'])
    )
    return (shape % deep).encode()


MODIFIED = st.one_of(
    st.just("2020-05-21T17:18:15.693+0000"), st.just("2020-05-21T17:18:15.693+0000"), _STATED_DATES, _RAW, _VALUES
)
"""`message._lastModifiedDateTime` of the envelope."""
EVENT_TYPES = st.one_of(
    st.just("EQUALITY_QUESTIONS"), st.just("EQUALITY_QUESTIONS"), _TEXT, _STATED_DATES, _RAW, _VALUES
)
"""`message.@type` of the envelope."""
_ROW_ID = st.one_of(
    st.sampled_from(["00aa", "ff", "AB12", "a", "", "é€", "\U0001f600x", "\ud800a", "\x00\x1f", "a/", '"\\', "2020"]),
    _TEXT,
    _SCALARS,
)
ROW_IDS = st.one_of(
    st.builds(lambda text: {"id": text}, st.from_regex(r"\A[0-9a-f]{2,8}\Z")),
    st.builds(lambda text, kind: {"type": kind, "id": text}, _ROW_ID, _VALUES),
    st.dictionaries(_KEYS, _VALUES, max_size=3).flatmap(
        lambda rest: st.builds(lambda text: {**rest, "id": text}, _ROW_ID)
    ),
    _VALUES,
)
"""`message._id` of the envelope: what a row of a keyed collection is found by."""
