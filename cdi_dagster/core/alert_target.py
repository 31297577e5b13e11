"""What kind of target an address of alerts is: `https://hooks.slack.com/…`, `teams+https://…`, a topic. Pure."""

from enum import StrEnum
from urllib.parse import urlsplit

from cdi_dagster.core.loopback import is_loopback

PAGERDUTY_EVENTS = "https://events.pagerduty.com/v2/enqueue"


class AlertTargetKind(StrEnum):
    """Who takes the alerts; the text is what a person reads."""

    LOG = "the log"
    SNS = "SNS topic"
    SLACK = "Slack"
    TEAMS = "Teams"
    PAGERDUTY = "PagerDuty"
    WEBHOOK = "webhook"


_SCHEMES = {"slack": AlertTargetKind.SLACK, "teams": AlertTargetKind.TEAMS, "pagerduty": AlertTargetKind.PAGERDUTY}
_HOSTS = {
    "hooks.slack.com": AlertTargetKind.SLACK,
    "hooks.slack-gov.com": AlertTargetKind.SLACK,
    "events.pagerduty.com": AlertTargetKind.PAGERDUTY,
    "events.eu.pagerduty.com": AlertTargetKind.PAGERDUTY,
}
_TEAMS_DOMAINS = (".webhook.office.com", ".logic.azure.com", ".api.powerplatform.com")


def alert_target(text: str) -> tuple[AlertTargetKind, str]:
    """Return the kind and the address of a target: by its prefix (`slack+https://…`), else by its host.

    Raises:
        ValueError: it is none; the message has how to write it, and not the text, which may be a secret.
    """
    if not text:
        return AlertTargetKind.LOG, ""
    if text.startswith("arn:aws:sns:") and text.count(":") == 5:
        return AlertTargetKind.SNS, text
    if text == "pagerduty":
        return AlertTargetKind.PAGERDUTY, PAGERDUTY_EVENTS
    prefix, plus, address = text.partition("+")
    kind = _SCHEMES.get(prefix) if plus else None
    address = address if kind else text
    parts = urlsplit(address)
    is_address = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
    if not is_address or not parts.hostname:
        raise ValueError(
            "not a target: write https://… (of Slack, Teams or a webhook of your own), pagerduty, or "
            "arn:aws:sns:<region>:<account>:<topic>"
        )
    return kind or _kind_by_host(parts.hostname), address


def _kind_by_host(host: str) -> AlertTargetKind:
    if host.endswith(_TEAMS_DOMAINS):
        return AlertTargetKind.TEAMS
    return _HOSTS.get(host, AlertTargetKind.WEBHOOK)
