"""PagerDuty's Events API v2: https://developer.pagerduty.com/docs/events-api-v2-overview."""

from typing import Any

from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.alert_text import alert_facts, alert_text, alert_title, links_of, shortened
from cdi_dagster.resources.alert_sinks.posting import AlertNotSentError, Token, post

_SEVERITIES = {AlertLevel.ERROR: "critical", AlertLevel.WARNING: "warning", AlertLevel.INFORMATION: "info"}
_MOST_SUMMARY_CHARACTERS = 1024
_MOST_KEY_CHARACTERS = 255
_MOST_TEXT_CHARACTERS = 50_000
"""An event has at most 512 kB."""


class PagerDutyAlerts:
    """Triggers an incident for each cause, and resolves it when the cause is over."""

    def __init__(self, url: str, *, environment: str, routing_key: Token) -> None:
        self._url, self._environment, self._routing_key = url, environment, routing_key

    def send(self, alert: Alert) -> None:
        """Send the event.

        Raises:
            AlertNotSentError: there is no routing key, no response, or none with a 2xx status.
        """
        routing_key = self._routing_key()
        if not routing_key:
            raise AlertNotSentError("PagerDuty needs CDI_ALERT_TOKEN: the secret with the integration's routing key")
        post(self._url, pagerduty_event(alert, self._environment, routing_key), named="PagerDuty")


def pagerduty_event(alert: Alert, environment: str, routing_key: str) -> dict[str, Any]:
    """Return the event: the same key for all messages about one cause, so that they are one incident."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if alert.is_over else "trigger",
        "dedup_key": f"{environment}|{alert.key}"[:_MOST_KEY_CHARACTERS],
    }
    if alert.is_over:
        return event
    details = {"text": shortened(alert_text(alert, environment), _MOST_TEXT_CHARACTERS)}
    payload = {
        "summary": shortened(alert_title(alert, environment), _MOST_SUMMARY_CHARACTERS),
        "source": f"cdi_dagster {environment}",
        "severity": _SEVERITIES[alert.level],
        "component": alert.collection_id,
        "class": alert.failure_class or alert.kind,
        "custom_details": details | dict(alert_facts(alert, environment)),
    }
    return event | {
        "payload": {name: value for name, value in payload.items() if value is not None},
        "links": [{"href": url, "text": name} for name, url in links_of(alert)],
    }
