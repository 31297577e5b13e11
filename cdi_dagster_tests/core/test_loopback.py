"""Plain http goes to this machine only, and a name that merely looks like it is another machine."""

import pytest

from cdi_dagster.core.loopback import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_addresses_and_localhost_are_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "::2", "", None]
)
def test_any_other_name_is_not(host: str | None) -> None:
    assert not is_loopback(host)
