"""Where alerts go, by the target: the log, Slack, Teams, PagerDuty, SNS, or a webhook. Inert until one is sent."""

import json
import logging
from functools import partial
from urllib.parse import urlsplit

import dagster as dg

from cdi_dagster.core.alert import Alert
from cdi_dagster.core.alert_target import AlertTargetKind, alert_target
from cdi_dagster.core.secret_reference import secret_reference
from cdi_dagster.interfaces import AlertSink
from cdi_dagster.resources.alert_sinks.pagerduty import PagerDutyAlerts
from cdi_dagster.resources.alert_sinks.posting import AlertNotSentError
from cdi_dagster.resources.alert_sinks.slack import SlackAlerts
from cdi_dagster.resources.alert_sinks.sns import SnsAlerts
from cdi_dagster.resources.alert_sinks.teams import TeamsAlerts
from cdi_dagster.resources.alert_sinks.webhook import WebhookAlerts
from cdi_dagster.settings import knob

_log = logging.getLogger(__name__)


class LogAlerts:
    """Writes alerts to the log of the process, as warnings: something else must watch the log."""

    def send(self, alert: Alert) -> None:
        """Log the alert."""
        _log.warning("ALERT %s", json.dumps(alert.to_json()))


class AlertResource(dg.ConfigurableResource):
    """Sends alerts; schedules, sensors and assets use the `AlertSink` interface."""

    target: str = knob("alert_target")
    token: str = knob("alert_token")
    environment: str = knob("environment")

    def create_resource(self, context: dg.InitResourceContext) -> AlertSink:
        """Return the sink of the configured target."""
        return alert_sink(self.target, token=self.token, environment=self.environment)


def alert_sink(target: str, *, token: str, environment: str) -> AlertSink:
    """Return the sink of a target (`CDI_ALERT_TARGET`); the log where there is none.

    Args:
        target: as the settings have checked it.
        token: reference to the secret that is sent with each alert; read then, and not kept.
        environment: of the installation, in every message.
    """
    kind, address = alert_target(target)
    secret = partial(_read_token, token)
    match kind:
        case AlertTargetKind.LOG:
            return LogAlerts()
        case AlertTargetKind.SNS:
            return SnsAlerts(address, environment=environment)
        case AlertTargetKind.SLACK:
            return SlackAlerts(address, environment=environment)
        case AlertTargetKind.TEAMS:
            return TeamsAlerts(address, environment=environment)
        case AlertTargetKind.PAGERDUTY:
            return PagerDutyAlerts(address, environment=environment, routing_key=secret)
        case AlertTargetKind.WEBHOOK:
            return WebhookAlerts(address, environment=environment, token=secret)


def described(target: str) -> str:
    """Return a target in words, without the path of its address: that of a webhook is a secret."""
    kind, address = alert_target(target)
    if kind in (AlertTargetKind.LOG, AlertTargetKind.SNS):
        return f"{kind} {address}".strip()
    return f"{kind} at {urlsplit(address).netloc}"


def _read_token(reference: str) -> str:
    from cdi_dagster.aws.secrets import SecretError, read_secret

    secret = secret_reference(reference) if reference else None
    if secret is None:
        return ""
    try:
        return read_secret(secret).strip()
    except SecretError as error:
        raise AlertNotSentError(f"CDI_ALERT_TOKEN: {error}") from error
