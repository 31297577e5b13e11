"""The assets: corporate storage inputs, daily records, tables. Thin: each calls a step and reports its result.

`build_assets` makes those of every collection in the registry; adding a collection is one entry there.
"""

import time
from collections.abc import Callable, Iterable

import dagster as dg

from cdi_dagster.assets.corporate_input import corporate_input_asset
from cdi_dagster.assets.daily_records import daily_records_asset
from cdi_dagster.assets.tables import tables_asset
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection


def build_assets(
    collections: Iterable[Collection],
    partitions: dg.DailyPartitionsDefinition,
    *,
    automation: Automation,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dg.AssetsDefinition]:
    """Return input, daily records and, where there are any, tables of each collection.

    Args:
        collections: whose assets.
        partitions: the storage days.
        automation: for what happens by itself after a failure.
        sleep: waits so many seconds for a closed gate, where the config of a run requests that.
    """
    assets = []
    for collection in collections:
        assets += [
            corporate_input_asset(collection, partitions, automation=automation, sleep=sleep),
            daily_records_asset(collection, partitions, automation=automation),
        ]
        if collection.tables:
            assets.append(tables_asset(collection, collection.tables, partitions, automation=automation))
    return assets
