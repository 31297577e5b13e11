"""Which rules apply to a record: they depend on its db and collection only.

Internal to `records`; the rules themselves are in `plain` and `fast`.
"""

from dataclasses import dataclass

_AUDIT = ("data", "businessAudit")
# The exporter before this one dropped line breaks there; downstream still expects it.
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
    audit = (db, name) == _AUDIT
    named = isinstance(db, str) and isinstance(name, str)
    return Rules(audit=audit, drops_line_breaks=named and (db, name) in _WITHOUT_LINE_BREAKS)
