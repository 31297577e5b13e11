"""A webhook of one's own: the alert as plain JSON, with an optional bearer token."""

from cdi_dagster.core.alert import Alert
from cdi_dagster.core.alert_text import alert_text
from cdi_dagster.resources.alert_sinks.posting import Token, post


class WebhookAlerts:
    """Posts alerts as JSON; `message` is the whole text."""

    def __init__(self, url: str, *, environment: str, token: Token) -> None:
        self._url, self._environment, self._token = url, environment, token

    def send(self, alert: Alert) -> None:
        """Post the alert.

        Raises:
            AlertNotSentError: no response, or none with a 2xx status.
        """
        token = self._token()
        message = alert_text(alert, self._environment)
        post(
            self._url,
            {**alert.to_json(), "environment": self._environment, "message": message},
            named="the webhook",
            headers={"Authorization": f"Bearer {token}"} if token else None,
        )
