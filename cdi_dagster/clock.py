"""The clock: the default of every `clock` parameter, so that a test can give another. Imports nothing."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present moment, aware."""
    return datetime.now(UTC)
