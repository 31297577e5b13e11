"""The two roots that a day's work needs, as one value."""

from dataclasses import dataclass

from cdi_dagster.storage.interface import Storage


@dataclass(frozen=True, kw_only=True)
class Roots:
    """Where a day is read from and where it is published.

    Attributes:
        corporate: K2HB and the coalescer write here; ingestion only reads.
        published: what we publish, and what we keep about it.
    """

    corporate: Storage
    published: Storage
