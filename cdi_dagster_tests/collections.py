"""The collections that tests are about, by their names."""

from cdi_dagster.core.collections import find_collection

AUDIT = find_collection("data:businessAudit")
"""Append-only, in a group of its own, with tables."""
EQUALITY = find_collection("data:equality")
"""Append-only, in another group, with one table."""
CLAIMANT = find_collection("core:claimant")
"""One that the registry does not know, without tables."""
