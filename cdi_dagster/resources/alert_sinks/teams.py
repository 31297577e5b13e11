"""Microsoft Teams: a webhook of Power Automate ("Workflows"), or an older one; both take adaptive cards."""

from typing import Any

from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.alert_text import alert_facts, alert_title, links_of, shortened
from cdi_dagster.resources.alert_sinks.posting import post

_COLOURS = {AlertLevel.ERROR: "Attention", AlertLevel.WARNING: "Warning", AlertLevel.INFORMATION: "Good"}
_MOST_CHARACTERS = 6000
"""Of each of two texts: Teams refuses a message of more than 28 kB."""


class TeamsAlerts:
    """Posts alerts to a channel."""

    def __init__(self, url: str, *, environment: str) -> None:
        self._url, self._environment = url, environment

    def send(self, alert: Alert) -> None:
        """Post the alert.

        Raises:
            AlertNotSentError: no response, or none with a 2xx status.
        """
        post(self._url, teams_message(alert, self._environment), named="Teams")


def teams_message(alert: Alert, environment: str) -> dict[str, Any]:
    """Return the message with one adaptive card."""
    title = _text(alert_title(alert, environment)) | {"weight": "Bolder", "color": _COLOURS[alert.level]}
    facts = [{"title": name, "value": value} for name, value in alert_facts(alert, environment)]
    # A card needs two line ends for one.
    body = [title, _text(alert.text.replace("\n", "\n\n")), {"type": "FactSet", "facts": facts}]
    if alert.last_log_lines:
        body.append(_text(alert.last_log_lines) | {"fontType": "Monospace"})
    content = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        "actions": [{"type": "Action.OpenUrl", "title": name, "url": url} for name, url in links_of(alert)],
    }
    card = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": content}
    return {"type": "message", "attachments": [card]}


def _text(text: str) -> dict[str, Any]:
    return {"type": "TextBlock", "text": shortened(text, _MOST_CHARACTERS), "wrap": True}
