"""How parts of a cluster template are put on top of each other. Pure."""

from collections.abc import Mapping
from typing import Any


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` on top: mappings merged, `configurations` and `profiles` by name, all else replaced."""
    merged = dict(base)
    for name, value in over.items():
        present = merged.get(name)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            merged[name] = merge(present, value)
        elif name == "configurations" and present:
            merged[name] = merge_by(present, value, "Classification")
        elif name == "profiles" and present:
            merged[name] = merge_by(present, value, "name")
        else:
            merged[name] = value
    return merged


def merge_by(base: list[dict[str, Any]], over: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Merge two lists of mappings that a key identifies; new ones come last."""
    merged = {entry.get(key): entry for entry in base}
    for entry in over:
        merged[entry.get(key)] = merge(merged.get(entry.get(key), {}), entry)
    return list(merged.values())
