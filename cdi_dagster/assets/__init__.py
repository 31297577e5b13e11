"""The assets: corporate storage inputs, daily records, tables. Thin: each calls a step and reports its result.

`build_assets` makes those of every collection in the registry; adding a collection is one entry there.
"""

import time
from collections.abc import Callable, Iterable

import dagster as dg

from cdi_dagster.assets.coalesced import Coalescing, coalesced_asset
from cdi_dagster.assets.corporate_input import corporate_input_asset
from cdi_dagster.assets.daily_records import daily_records_asset
from cdi_dagster.assets.snapshot import snapshot_asset
from cdi_dagster.assets.snapshot_tables import snapshot_tables_asset
from cdi_dagster.assets.tables import tables_asset
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection


def build_assets(
    collections: Iterable[Collection],
    partitions: dg.DailyPartitionsDefinition,
    *,
    automation: Automation,
    sleep: Callable[[float], None] = time.sleep,
    coalescing: Coalescing | None = None,
    tables_pool: str | None = None,
) -> list[dg.AssetsDefinition]:
    """Return input, daily records and, where there are any, tables of each collection; snapshots of the keyed ones.

    Args:
        collections: whose assets.
        partitions: the storage days.
        automation: for what happens by itself after a failure.
        sleep: waits so many seconds for a closed gate, where the config of a run requests that.
        coalescing: how runs coalesce their day; None where something else does.
        tables_pool: in which the steps that publish the tables of days take turns; None where they need not.
    """
    assets: list[dg.AssetsDefinition] = []
    for collection in collections:
        if coalescing:
            assets.append(coalesced_asset(collection, partitions, automation=automation, coalescing=coalescing))
        assets += [
            corporate_input_asset(
                collection, partitions, automation=automation, sleep=sleep, is_coalesced_here=bool(coalescing)
            ),
            daily_records_asset(collection, partitions, automation=automation),
        ]
        if collection.tables:
            assets.append(
                tables_asset(collection, collection.tables, partitions, automation=automation, pool=tables_pool)
            )
        if collection.is_keyed:
            assets.append(snapshot_asset(collection, automation=automation))
        if collection.snapshot_tables:
            assets.append(snapshot_tables_asset(collection, collection.snapshot_tables, automation=automation))
    return assets
