"""The error that a step raises where an envelope cannot become a record; the engine turns it into a `Reject`.

Internal to `records`. A detail is written into reports and reject files: it names the problem and its position, and
never holds text of the payload or of a key.
"""

from typing import NoReturn

from cdi_dagster.core.ingest_report import RejectReason


class RejectedError(Exception):
    """This envelope cannot become a record.

    Attributes:
        reason: the reason family.
        detail: what is wrong, without any payload text.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def reject(reason: RejectReason, detail: str) -> NoReturn:
    """Raise RejectedError, without chaining an error that may quote the payload."""
    raise RejectedError(reason, detail) from None
