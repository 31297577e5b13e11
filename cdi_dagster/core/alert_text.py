"""An alert as text: all that a person needs, in lines, so that no link has to work. Pure."""

from cdi_dagster.core.alert import Alert
from cdi_dagster.core.days import export_day_of

_MOST_DAYS = 40


def alert_title(alert: Alert, environment: str) -> str:
    """Return the one line: what, where."""
    return f"[{environment}] {alert.title}"


def alert_facts(alert: Alert, environment: str) -> list[tuple[str, str]]:
    """Return what is known beside the text, as names and values, in the order in which a person needs it."""
    facts = [
        ("Environment", environment),
        ("Collection", alert.collection_id),
        ("Storage days" if len(alert.storage_days) > 1 else "Storage day", _days(alert)),
        ("Class", alert.failure_class),
        ("Owner", alert.owner),
        ("Next step", alert.next_step),
        ("Run", alert.run_url),
        ("Runbook", _runbook(alert)),
    ]
    return [(name, value) for name, value in facts if value]


def alert_text(alert: Alert, environment: str) -> str:
    """Return the whole message but its title."""
    lines = [alert.text, "", *(f"{name}: {value}" for name, value in alert_facts(alert, environment))]
    if alert.last_log_lines:
        lines += ["", "Last log lines:", alert.last_log_lines]
    return "\n".join(lines)


def links_of(alert: Alert) -> list[tuple[str, str]]:
    """Return the links that a browser can open, each with its name."""
    links = [("Run", alert.run_url), ("Runbook", alert.runbook)]
    return [(name, url) for name, url in links if url and url.startswith(("http://", "https://"))]


def shortened(text: str, most_characters: int) -> str:
    """Return a text that is no longer than a target takes; the beginning is what a person needs first."""
    return text if len(text) <= most_characters else f"{text[: most_characters - 1]}…"


def _days(alert: Alert) -> str:
    days = [f"{day} (export day {export_day_of(day)})" for day in alert.storage_days]
    more = [f"and {len(days) - _MOST_DAYS} more"] if len(days) > _MOST_DAYS else []
    return ", ".join([*days[:_MOST_DAYS], *more])


def _runbook(alert: Alert) -> str:
    """Return the link; a path of the repository is none, and the run's page has the section's text."""
    if alert.runbook.startswith(("http://", "https://")):
        return alert.runbook
    has_page = alert.run_url and alert.kind == "FAILED"
    return f"{alert.runbook}; the page of the run has its text" if has_page else alert.runbook
