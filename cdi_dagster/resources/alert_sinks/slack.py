"""Slack's incoming webhooks: https://api.slack.com/messaging/webhooks."""

from typing import Any

from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.alert_text import alert_text, alert_title, links_of, shortened
from cdi_dagster.resources.alert_sinks.posting import post

_COLOURS = {AlertLevel.ERROR: "#d00000", AlertLevel.WARNING: "#e8a200", AlertLevel.INFORMATION: "#2eb67d"}
_MOST_SECTION_CHARACTERS = 3000
"""Slack refuses a longer text of a section; counted after escaping."""


class SlackAlerts:
    """Posts alerts to a channel."""

    def __init__(self, url: str, *, environment: str) -> None:
        self._url, self._environment = url, environment

    def send(self, alert: Alert) -> None:
        """Post the alert.

        Raises:
            AlertNotSentError: no response, or none with a 2xx status.
        """
        post(self._url, slack_message(alert, self._environment), named="Slack")


def slack_message(alert: Alert, environment: str) -> dict[str, Any]:
    """Return what the webhook takes: the title for the notification, the whole text below it."""
    title = _escaped(alert_title(alert, environment))
    sections = [_section(shortened(_escaped(alert_text(alert, environment)), _MOST_SECTION_CHARACTERS))]
    links = " · ".join(f"<{url}|{name}>" for name, url in links_of(alert))
    if links:
        sections.append(_section(links))
    return {"text": f"*{title}*", "attachments": [{"color": _COLOURS[alert.level], "blocks": sections}]}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _escaped(text: str) -> str:
    """Escape what Slack takes for markup or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
