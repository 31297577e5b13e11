"""How many rejects a day may have."""

import pytest

from cdi_dagster.core.reject_limit import parse_reject_limit


@pytest.mark.parametrize(
    ("text", "rejected", "read", "allowed"),
    [
        ("0", 0, 10, True),
        ("0", 1, 1_000_000, False),
        ("25", 25, 30, True),
        ("25", 26, 1_000_000, False),
        ("0.5%", 5, 1_000, True),
        ("0.5%", 6, 1_000, False),
        ("0.1%", 1, 999, False),
        ("100%", 7, 7, True),
        (" 3 ", 3, 7, True),
        ("0%", 0, 0, True),
    ],
)
def test_a_limit_is_a_count_or_a_share_and_is_reached_inclusively(
    text: str, rejected: int, read: int, allowed: bool
) -> None:
    assert parse_reject_limit(text).allows(rejected=rejected, read=read) is allowed


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "none", "5 %", "1e3", "%", "٣"])
def test_anything_else_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a count such as 25, or a share such as 0\.5%"):
        parse_reject_limit(text)
