"""Our own coalescer: merges the small raw objects of a storage day, and cannot lose or double a record.

A program that also runs alone (`cdi coalesce`, `python -m cdi_dagster.coalescer`). `plan` decides, `run` carries the
plan out, `marker` publishes the state. Imports storage and core only.
"""

from cdi_dagster.coalescer.run import CoalesceProgress, CoalesceSummary, coalesce

__all__ = ["CoalesceProgress", "CoalesceSummary", "coalesce"]
