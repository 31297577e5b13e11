"""The collections that tests are about, by their names, each with the tables that ship for it."""

from cdi_dagster.core.collections import find_collection
from cdi_dagster.table_definitions import with_tables

AUDIT = with_tables(find_collection("data:businessAudit"), {})
"""Append-only, in a group of its own, with tables and views."""
EQUALITY = with_tables(find_collection("data:equality"), {})
"""Append-only, in another group, with one table."""
CALCULATION_PARTS = find_collection("calculator:calculationParts")
"""Keyed: published as rows."""
CLAIMANT = find_collection("core:claimant")
"""One that the registry does not know, without tables."""
