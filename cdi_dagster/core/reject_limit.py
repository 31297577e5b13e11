"""How many records may be rejected before nothing is published: `0`, a count, or a share.

Settings read it, the Spark job applies it.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

_LIMIT = re.compile(r"(?P<number>[0-9]{1,18}(?:\.[0-9]{1,9})?)(?P<percent>%?)")


@dataclass(frozen=True, kw_only=True)
class RejectLimit:
    """The most rejects that a published day may have.

    Attributes:
        text: as it was written: `0`, `25`, `0.5%`.
        count: most rejects, or None where a share is meant.
        percent: most rejects in percent of the envelopes read, or None where a count is meant.
    """

    text: str
    count: int | None
    percent: Decimal | None

    def allows(self, *, rejected: int, read: int) -> bool:
        """Whether a day with these counts may be published."""
        if self.percent is not None:
            return 100 * rejected <= self.percent * read
        return rejected <= (self.count or 0)


def parse_reject_limit(text: str) -> RejectLimit:
    """Read a limit.

    Raises:
        ValueError: it is neither a whole number nor a percentage from 0% to 100%; the message shows the form.
    """
    match = _LIMIT.fullmatch(text.strip())
    if match:
        number = Decimal(match["number"])
        if match["percent"] and number <= 100:
            return RejectLimit(text=text.strip(), count=None, percent=number)
        if not match["percent"] and "." not in match["number"]:
            return RejectLimit(text=text.strip(), count=int(number), percent=None)
    raise ValueError(f"{text!r} is not a limit: write a count such as 25, or a share such as 0.5%")
