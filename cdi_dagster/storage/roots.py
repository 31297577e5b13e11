"""The two roots of an installation, as one value."""

from dataclasses import dataclass

from cdi_dagster.storage.interface import Storage


@dataclass(frozen=True, kw_only=True)
class Roots:
    """Where a day is read from and where it is published.

    Attributes:
        corporate: K2HB and the coalescer write here; ingestion only reads.
        published: our publications and what we record about them.
    """

    corporate: Storage
    published: Storage
