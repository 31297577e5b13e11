"""The rules that apply to a record, by its db and collection.

Internal to `records`; the rules themselves are in `plain` and `fast`.
"""

from dataclasses import dataclass
from functools import lru_cache

_AUDIT = ("data", "businessAudit")
# The previous exporter dropped line breaks there; downstream still expects it.
_WITHOUT_LINE_BREAKS = frozenset(
    {
        ("penalties-and-deductions", "sanction"),
        ("core", "healthAndDisabilityDeclaration"),
        ("accepted-data", "healthAndDisabilityCircumstances"),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is special about one collection's records.

    Attributes:
        audit: the record is the `context` of the payload, stamped with the envelope's last modified date.
        drops_line_breaks: the escapes of line breaks are dropped from the text.
    """

    audit: bool
    drops_line_breaks: bool


def rules_for(db: object, name: object) -> Rules:
    """Return the rules for a db and collection as an envelope may state them (any JSON value)."""
    return _rules(db, name) if type(db) is type(name) is str else _PLAIN_RULES


@lru_cache(maxsize=256)
def _rules(db: str, name: str) -> Rules:
    return Rules(audit=(db, name) == _AUDIT, drops_line_breaks=(db, name) in _WITHOUT_LINE_BREAKS)


_PLAIN_RULES = Rules(audit=False, drops_line_breaks=False)
