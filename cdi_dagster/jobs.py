"""The jobs: one for each collection, from pinned input to tables of one storage day."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection


def build_jobs(collections: Iterable[Collection], *, coalesce: bool = False) -> list[Any]:
    """Return the daily job of every collection, with the checks but that of lateness, which the sensor reports.

    With `coalesce` it coalesces the day first. And the job that makes the snapshot of every keyed collection. (What
    `define_asset_job` returns has no public name.)
    """
    jobs = []
    for collection in collections:
        jobs.append(_daily_job(collection, coalesce=coalesce))
        if collection.is_keyed:
            jobs.append(_snapshot_job(collection))
    return jobs


def _snapshot_job(collection: Collection) -> Any:
    return dg.define_asset_job(
        names.snapshot_job_name(collection),
        selection=dg.AssetSelection.assets(*names.snapshot_keys(collection)),
        description=f"Makes the snapshot of `{collection.id}` for one Friday (the partition), from the newest before "
        "it and the daily rows since. Safe to run again: it replaces exactly that snapshot, or changes nothing.",
        tags=names.collection_tag(collection),
    )


def _daily_job(collection: Collection, *, coalesce: bool) -> Any:
    coalesced = (names.coalesced_key(collection),) if coalesce else ()
    first = "coalesces it" if coalesce else "checks the coalescer"
    output = collection.output_name.replace("_", " ")
    tables = " and publishes the tables" if collection.tables else ""
    return dg.define_asset_job(
        names.daily_job_name(collection),
        selection=dg.AssetSelection.assets(*coalesced, *names.keys_of(collection))
        - dg.AssetSelection.checks(names.on_time_check_key(collection)),
        description=f"Processes one storage day of `{collection.id}`: {first}, pins the input, decrypts "
        f"and publishes the {output}{tables}. Safe to run again: it replaces exactly that day.",
        tags=names.collection_tag(collection),
    )
