"""Posting JSON to a target over HTTP, once."""

from collections.abc import Callable, Mapping
from typing import Any

import urllib3

_TIMEOUT = urllib3.Timeout(connect=3, read=7)
"""A sensor's tick has one minute in all."""
_SHOWN = 200


class AlertNotSentError(Exception):
    """The alert was not sent; the text names the reason. The caller retries later."""


Token = Callable[[], str]
"""Reads the token of a target, when an alert is sent; "" where there is none."""


def post(url: str, payload: Mapping[str, Any], *, named: str, headers: Mapping[str, str] | None = None) -> None:
    """Post the payload.

    Args:
        url: never shown: that of a webhook is a secret.
        payload: JSON values.
        named: how the target is called in an error: `Slack`.
        headers: beside the content type.

    Raises:
        AlertNotSentError: no response, or none with a 2xx status.
    """
    try:
        response = urllib3.PoolManager(timeout=_TIMEOUT, retries=False).request(
            "POST", url, json=dict(payload), headers={"Content-Type": "application/json", **(headers or {})}
        )
    except urllib3.exceptions.HTTPError as error:
        raise AlertNotSentError(f"{named} of CDI_ALERT_TARGET does not respond ({type(error).__name__})") from error
    if not 200 <= response.status < 300:
        reason = response.data[:_SHOWN].decode(errors="replace").strip()
        raise AlertNotSentError(
            f"{named} of CDI_ALERT_TARGET responded with HTTP {response.status}{f': {reason}' if reason else ''}"
        )
