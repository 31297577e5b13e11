"""Where alerts go: the log, a webhook, or an SNS topic. Inert until one is sent."""

import json
import logging
from typing import Any

import dagster as dg
import urllib3

from cdi_dagster.aws.clients import client
from cdi_dagster.core.alert import Alert
from cdi_dagster.interfaces import AlertSink
from cdi_dagster.settings import knob

_log = logging.getLogger(__name__)
_SNS = "arn:aws:sns:"
_SNS_SUBJECT_CHARACTERS = 100
_SNS_ATTRIBUTES = ("kind", "collection", "failure_class", "owner")
_TIMEOUT = urllib3.Timeout(connect=3, read=7)
"""A sensor's tick has one minute in all."""


class AlertNotSentError(Exception):
    """The alert was not sent; the text says why. The caller retries later."""


class LogAlerts:
    """Writes alerts to the log of the process, as warnings: something else must watch the log."""

    def send(self, alert: Alert) -> None:
        """Log the alert."""
        _log.warning("ALERT %s", json.dumps(alert.to_json()))


class WebhookAlerts:
    """Posts alerts as JSON."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, alert: Alert) -> None:
        """Post the alert.

        Raises:
            AlertNotSentError: no response, or none with a 2xx status.
        """
        try:
            response = urllib3.PoolManager(timeout=_TIMEOUT, retries=False).request(
                "POST", self._url, json=alert.to_json()
            )
        except urllib3.exceptions.HTTPError as error:
            raise AlertNotSentError(
                f"the webhook of CDI_ALERT_TARGET does not respond ({type(error).__name__})"
            ) from error
        if not 200 <= response.status < 300:
            raise AlertNotSentError(f"the webhook of CDI_ALERT_TARGET responded with HTTP {response.status}")


class SnsAlerts:
    """Publishes alerts to an SNS topic; kind, collection, class and owner are message attributes, to filter by."""

    def __init__(self, topic_arn: str) -> None:
        self._topic_arn = topic_arn

    def send(self, alert: Alert) -> None:
        """Publish the alert.

        Raises:
            AlertNotSentError: SNS refused it or did not respond.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        attributes: dict[str, Any] = {
            name: {"DataType": "String", "StringValue": value}
            for name, value in alert.to_json().items()
            if name in _SNS_ATTRIBUTES
        }
        try:
            client("sns", region_name=self._topic_arn.split(":")[3]).publish(
                TopicArn=self._topic_arn,
                Subject=alert.title[:_SNS_SUBJECT_CHARACTERS],
                Message=json.dumps(alert.to_json(), indent=1),
                MessageAttributes=attributes,
            )
        except (BotoCoreError, ClientError) as error:
            raise AlertNotSentError(f"SNS topic {self._topic_arn} did not accept it: {error}") from error


class AlertResource(dg.ConfigurableResource):
    """Sends alerts; schedules, sensors and assets use the `AlertSink` interface."""

    target: str = knob("alert_target")

    def create_resource(self, context: dg.InitResourceContext) -> AlertSink:
        """Return the sink of the configured target."""
        return alert_sink(self.target)


def alert_sink(target: str) -> AlertSink:
    """Return the sink of a target (`CDI_ALERT_TARGET`); the log where there is none."""
    if target.startswith(_SNS):
        return SnsAlerts(target)
    return WebhookAlerts(target) if target else LogAlerts()
