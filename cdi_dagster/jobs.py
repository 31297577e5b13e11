"""The jobs: one for each collection, from pinned input to tables of one storage day."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection


def build_jobs(collections: Iterable[Collection]) -> list[Any]:
    """Return the daily job of every collection, with the checks but that of lateness: the sensor reports that.

    (What `define_asset_job` returns has no public name.)
    """
    return [_daily_job(collection) for collection in collections]


def _daily_job(collection: Collection) -> Any:
    output = collection.output_name.replace("_", " ")
    tables = " and publishes the tables" if collection.tables else ""
    return dg.define_asset_job(
        names.daily_job_name(collection),
        selection=dg.AssetSelection.assets(*names.keys_of(collection))
        - dg.AssetSelection.checks(names.on_time_check_key(collection)),
        description=f"Processes one storage day of `{collection.id}`: checks the coalescer, pins the input, decrypts "
        f"and publishes the {output}{tables}. Safe to run again: it replaces exactly that day.",
        tags=names.collection_tag(collection),
    )
