"""Corporate Data Ingestion (CDI) as a Dagster project. Start reading at `definitions.py`.

`from cdi_dagster import pinned_input, publication, tables` reads a day as plain Python (`reading.py`, docs/reading.md).
They are imported when they are first used: this module is also imported on clusters, where little else is installed.
"""

from importlib import import_module
from typing import Any

__all__ = ["pinned_input", "publication", "tables"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("cdi_dagster.reading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
