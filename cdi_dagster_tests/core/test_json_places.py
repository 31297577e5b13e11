"""Where the values of a JSON text are."""

import json
from typing import Any

import pytest

from cdi_dagster.core.json_places import JsonPlaces, Place

TEXT = """{
  "a": [1, {"b\\u00e9 {[": "x\\"]}, y"},

    []],
  "c": {}, "d": null
}"""


def test_every_value_has_the_line_that_it_begins_on() -> None:
    assert JsonPlaces(TEXT).lines == {
        (): 1,
        ("a",): 2,
        ("a", 0): 2,
        ("a", 1): 2,
        ("a", 1, "bé {["): 2,
        ("a", 2): 4,
        ("c",): 5,
        ("d",): 5,
    }


@pytest.mark.parametrize("indent", [None, 0, 3])
def test_every_value_of_any_text_is_found(indent: int | None) -> None:
    value = {"x": [[{"y": -1.5e-7}, "\\", '"'], True], "": {"": ["\n"]}, "z": "[{,:}]"}

    def places(part: Any, place: Place = ()) -> list[Place]:
        below = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        return [place, *(found for key, inner in below for found in places(inner, (*place, key)))]

    assert sorted(JsonPlaces(json.dumps(value, indent=indent)).lines, key=str) == sorted(places(value), key=str)


def test_a_key_that_is_there_twice_is_reported() -> None:
    assert JsonPlaces('{"a": {"b": 1, "b": 2}, "b": 1}').repeated == [("a", "b")]


@pytest.mark.parametrize(
    ("place", "written"),
    [
        (("a", 1, "bé {["), "a[1].bé {[ (line 2)"),
        (("c", "missing"), "c.missing (line 5)"),
        ((), "the definition"),
        (("missing",), "missing"),
    ],
)
def test_a_place_is_written_with_the_line_of_what_is_there(place: Place, written: str) -> None:
    assert JsonPlaces(TEXT).describe(place) == written
