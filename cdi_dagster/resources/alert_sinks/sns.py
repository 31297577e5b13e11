"""An SNS topic: text for mail, JSON for queues, functions and webhooks, and attributes to filter by."""

import json
from typing import Any

from cdi_dagster.aws.clients import client
from cdi_dagster.core.alert import Alert
from cdi_dagster.core.alert_text import alert_text, alert_title, shortened
from cdi_dagster.resources.alert_sinks.posting import AlertNotSentError

_SUBJECT_CHARACTERS = 100
_MOST_CHARACTERS = 20_000
_MOST_OF_A_VALUE = 4_000
"""SNS takes 256 kB, in which the JSON is four times."""
_ATTRIBUTES = ("kind", "collection", "failure_class", "owner", "notification_type", "severity")


class SnsAlerts:
    """Publishes alerts to a topic."""

    def __init__(self, topic_arn: str, *, environment: str) -> None:
        self._topic_arn, self._environment = topic_arn, environment

    def send(self, alert: Alert) -> None:
        """Publish the alert.

        Raises:
            AlertNotSentError: SNS refused it or did not respond.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client("sns", region_name=self._topic_arn.split(":")[3]).publish(
                TopicArn=self._topic_arn, **sns_message(alert, self._environment)
            )
        except (BotoCoreError, ClientError) as error:
            raise AlertNotSentError(f"SNS topic {self._topic_arn} did not accept it: {error}") from error


def sns_message(alert: Alert, environment: str) -> dict[str, Any]:
    """Return the arguments of `Publish`; a subject is ASCII, in one line."""
    text = shortened(alert_text(alert, environment), _MOST_CHARACTERS)
    values = alert.to_json() | {"environment": environment, "message": text}
    short = {
        name: shortened(value, _MOST_OF_A_VALUE) if isinstance(value, str) else value for name, value in values.items()
    }
    machines = dict.fromkeys(("sqs", "lambda", "http", "https"), json.dumps(short, ensure_ascii=False))
    subject = " ".join(alert_title(alert, environment).split()).encode("ascii", "replace").decode()
    return {
        "Subject": subject[:_SUBJECT_CHARACTERS],
        "Message": json.dumps({"default": text, **machines}, ensure_ascii=False),
        "MessageStructure": "json",
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in values.items() if name in _ATTRIBUTES
        },
    }
