"""Our own coalescer: merges the small raw objects of a storage day, and cannot lose or double a record.

A program that also runs alone (`cdi coalesce`, `python -m cdi_dagster.coalescer`). `plan` decides, `run` carries the
plan out, `claim` keeps others away, `marker` publishes the state, `processes` shares a day between processes. Imports
storage and core only.
"""

from cdi_dagster.coalescer.processes import coalesce_by_processes
from cdi_dagster.coalescer.run import coalesce
from cdi_dagster.coalescer.summary import CoalesceProgress, CoalesceSummary, progress_text

__all__ = ["CoalesceProgress", "CoalesceSummary", "coalesce", "coalesce_by_processes", "progress_text"]
