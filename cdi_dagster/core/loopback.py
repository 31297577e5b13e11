"""Whether a host is this machine: only there may data keys and alerts go over plain http. Standard library only."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is a loopback address or `localhost`; no other name is, whatever it begins with."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
