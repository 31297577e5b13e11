"""Each target gets what it takes, from a real request to a real server; each message alone is enough."""

import json
import re
import uuid
from dataclasses import replace
from datetime import date

import boto3
import pytest

from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.alert_target import AlertTargetKind, alert_target
from cdi_dagster.core.alert_text import alert_text, alert_title
from cdi_dagster.resources.alert_sinks.pagerduty import pagerduty_event
from cdi_dagster.resources.alert_sinks.slack import slack_message
from cdi_dagster.resources.alert_sinks.sns import sns_message
from cdi_dagster.resources.alert_sinks.teams import teams_message
from cdi_dagster.resources.alerts import AlertNotSentError, alert_sink, described
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster_tests.gate.hearing import hearing
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

FAILED = Alert(
    kind="FAILED",
    key="failed|data:equality|DKS_FORBIDDEN|backfill abc|left",
    title="DKS_FORBIDDEN: data:equality of 2 storage days, 2023-03-25 to 2023-03-26, failed",
    text="2023-03-25: The certificate <cdi> is refused.\n2023-03-26: The certificate <cdi> is refused.\n"
    "Automatically: nothing.",
    runbook="https://docs/runbook#dks_forbidden",
    collection_id="data:equality",
    storage_days=(date(2023, 3, 25), date(2023, 3, 26)),
    failure_class="DKS_FORBIDDEN",
    owner="CDI on-call engineer",
    next_step="Renew or restore the client certificate, then run the day again.",
    run_url="https://dagster/runs/1234",
    last_log_lines="ERROR 403",
)
OVER = Alert(
    kind="LATE_OVER",
    key="data:equality|late since 2023-03-25",
    level=AlertLevel.INFORMATION,
    title="No longer late: data:equality, storage day 2023-03-25 (export day 2023-03-26)",
    text="Published: 2023-03-25.",
    runbook="docs/runbook.md#late",
    collection_id="data:equality",
    storage_days=(date(2023, 3, 25),),
)
LONG = replace(FAILED, text="x" * 100_000, title="t" * 2_000, key="k" * 300)

TITLE = "[production] DKS_FORBIDDEN: data:equality of 2 storage days, 2023-03-25 to 2023-03-26, failed"
TEXT = """\
2023-03-25: The certificate <cdi> is refused.
2023-03-26: The certificate <cdi> is refused.
Automatically: nothing.

Environment: production
Collection: data:equality
Storage days: 2023-03-25 (export day 2023-03-26), 2023-03-26 (export day 2023-03-27)
Class: DKS_FORBIDDEN
Owner: CDI on-call engineer
Next step: Renew or restore the client certificate, then run the day again.
Run: https://dagster/runs/1234
Runbook: https://docs/runbook#dks_forbidden

Last log lines:
ERROR 403"""
FACTS = dict(line.split(": ", 1) for line in TEXT.splitlines()[4:12])


def test_the_text_alone_is_enough():
    assert alert_title(FAILED, "production") == TITLE
    assert alert_text(FAILED, "production") == TEXT


def test_a_runbook_that_is_no_address_points_to_the_page_of_the_run():
    text = alert_text(replace(FAILED, runbook="docs/runbook.md#dks_forbidden"), "production")
    assert "Runbook: docs/runbook.md#dks_forbidden; the page of the run has its text" in text


def test_slack_gets_title_text_links_and_colour():
    message = slack_message(FAILED, "production")
    escaped = TEXT.replace("<cdi>", "&lt;cdi&gt;")
    links = "<https://dagster/runs/1234|Run> · <https://docs/runbook#dks_forbidden|Runbook>"
    assert message == {
        "text": f"*{TITLE}*",
        "attachments": [
            {
                "color": "#d00000",
                "blocks": [
                    {"type": "section", "text": {"type": "mrkdwn", "text": escaped}},
                    {"type": "section", "text": {"type": "mrkdwn", "text": links}},
                ],
            }
        ],
    }
    assert all(len(each["text"]["text"]) <= 3000 for each in slack_message(LONG, "p")["attachments"][0]["blocks"])


def test_teams_gets_an_adaptive_card_with_facts_and_links():
    message = teams_message(FAILED, "production")
    (card,) = message["attachments"]
    title, text, facts, log = card["content"]["body"]
    assert (message["type"], card["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    assert (title["text"], title["color"], title["weight"]) == (TITLE, "Attention", "Bolder")
    assert text["text"] == FAILED.text.replace("\n", "\n\n")
    assert {fact["title"]: fact["value"] for fact in facts["facts"]} == FACTS
    assert log["text"] == "ERROR 403"
    assert [(action["title"], action["url"]) for action in card["content"]["actions"]] == [
        ("Run", "https://dagster/runs/1234"),
        ("Runbook", "https://docs/runbook#dks_forbidden"),
    ]
    assert len(json.dumps(teams_message(LONG, "p"))) < 28_000


def test_pagerduty_gets_one_incident_for_a_cause_and_resolves_it():
    event = pagerduty_event(FAILED, "production", "key")
    assert event == {
        "routing_key": "key",
        "event_action": "trigger",
        "dedup_key": "production|failed|data:equality|DKS_FORBIDDEN|backfill abc|left",
        "payload": {
            "summary": TITLE,
            "source": "cdi_dagster production",
            "severity": "critical",
            "component": "data:equality",
            "class": "DKS_FORBIDDEN",
            "custom_details": {"text": TEXT, **FACTS},
        },
        "links": [
            {"href": "https://dagster/runs/1234", "text": "Run"},
            {"href": "https://docs/runbook#dks_forbidden", "text": "Runbook"},
        ],
    }
    assert pagerduty_event(OVER, "production", "key") == {
        "routing_key": "key",
        "event_action": "resolve",
        "dedup_key": "production|data:equality|late since 2023-03-25",
    }
    long = pagerduty_event(LONG, "p", "key")
    assert (len(long["payload"]["summary"]), len(long["dedup_key"])) == (1024, 255)


def test_sns_gets_text_for_mail_json_for_machines_and_attributes_to_filter_by():
    message = sns_message(FAILED, "production")
    assert message["Subject"] == TITLE[:100]
    by_protocol = json.loads(message["Message"])
    assert by_protocol["default"] == TEXT
    assert json.loads(by_protocol["sqs"])["storage_days"] == ["2023-03-25", "2023-03-26"]
    assert json.loads(by_protocol["lambda"])["message"] == TEXT
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes == {
        "kind": "FAILED",
        "collection": "data:equality",
        "failure_class": "DKS_FORBIDDEN",
        "owner": "CDI on-call engineer",
        "notification_type": "Error",
        "severity": "Critical",
    }
    long = replace(LONG, text="\n…" * 50_000, last_log_lines="…\n" * 50_000)
    assert len(sns_message(long, "p")["Message"].encode()) < 256_000
    assert sns_message(replace(FAILED, title="two\nlines …"), "p")["Subject"] == "[p] two lines ?"


@pytest.mark.parametrize(
    ("level", "attributes"),
    [
        (AlertLevel.ERROR, ("Error", "Critical")),
        (AlertLevel.WARNING, ("Warning", "High")),
        (AlertLevel.INFORMATION, ("Information", "High")),
    ],
)
def test_the_attributes_of_each_level(level, attributes):
    values = sns_message(replace(FAILED, level=level), "p")["MessageAttributes"]
    assert tuple(values[name]["StringValue"] for name in ("notification_type", "severity")) == attributes


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("https://hooks.slack.com/services/T/B/x", AlertTargetKind.SLACK),
        ("https://prod-1.uksouth.logic.azure.com:443/workflows/1?sig=x", AlertTargetKind.TEAMS),
        ("https://example.webhook.office.com/webhookb2/1", AlertTargetKind.TEAMS),
        ("pagerduty", AlertTargetKind.PAGERDUTY),
        ("https://events.eu.pagerduty.com/v2/enqueue", AlertTargetKind.PAGERDUTY),
        ("arn:aws:sns:eu-west-2:123456789012:alerts", AlertTargetKind.SNS),
        ("https://example.org/hook", AlertTargetKind.WEBHOOK),
        ("slack+https://proxy.example.org/hook", AlertTargetKind.SLACK),
        ("", AlertTargetKind.LOG),
    ],
)
def test_the_kind_of_a_target_is_known_by_its_host_or_prefix(text, kind):
    assert alert_target(text)[0] is kind


@pytest.mark.parametrize(
    "text", ["http://example.org/hook", "somebody@example.org", "slack+ftp://x", "https:///x", "x+y"]
)
def test_what_is_no_target_is_refused_without_being_shown(text):
    with pytest.raises(ValueError, match="not a target: write https://") as refused:
        alert_target(text)
    assert text not in str(refused.value)


@pytest.fixture
def aws(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.mark.parametrize("prefix", ["slack", "teams"])
def test_a_channel_gets_the_message_at_its_address_and_a_refusal_is_an_error_with_its_reason(prefix):
    with hearing(200, 400) as heard:
        sink = alert_sink(f"{prefix}+{heard.url}", token="", environment="production")
        sink.send(FAILED)
        assert TITLE in json.dumps(heard.alerts[0])
        with pytest.raises(
            AlertNotSentError, match=f"{prefix.capitalize()} of CDI_ALERT_TARGET responded with HTTP 400"
        ):
            sink.send(FAILED)
    with pytest.raises(AlertNotSentError, match="does not respond") as refused:
        sink.send(FAILED)
    assert heard.url not in str(refused.value)


def test_the_token_of_a_webhook_and_of_pagerduty_comes_from_secrets_manager_when_an_alert_is_sent(aws):
    name = uuid.uuid4().hex
    with hearing() as heard:
        webhook = alert_sink(heard.url, token=f"secretsmanager://{name}#token", environment="production")
        pagerduty = alert_sink(
            f"pagerduty+{heard.url}", token=f"secretsmanager://{name}#token", environment="production"
        )
        for sink in (webhook, pagerduty):
            with pytest.raises(AlertNotSentError, match=f"CDI_ALERT_TOKEN: the secret {name} cannot be read"):
                sink.send(FAILED)
        secret = json.dumps({"token": "a-token"})
        boto3.client("secretsmanager").create_secret(Name=name, SecretString=secret)
        webhook.send(FAILED)
        pagerduty.send(FAILED)
        pagerduty.send(replace(FAILED, kind="FAILED_OVER"))
    assert heard.headers[0]["Authorization"] == "Bearer a-token"
    assert (heard.alerts[0]["message"], heard.alerts[0]["environment"]) == (TEXT, "production")
    assert [(event["routing_key"], event["event_action"]) for event in heard.alerts[1:]] == [
        ("a-token", "trigger"),
        ("a-token", "resolve"),
    ]


def test_a_topic_delivers_to_those_who_filter_by_its_attributes(aws):
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name=uuid.uuid4().hex)["TopicArn"]
    queues = {}
    for wanted in ("Critical", "High"):
        queue = sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = {"FilterPolicy": json.dumps({"severity": [wanted]})}
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=policy)
        queues[wanted] = queue
    sink = alert_sink(topic, token="", environment="production")
    sink.send(FAILED)
    sink.send(OVER)
    kinds = {}
    for wanted, queue in queues.items():
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
        kinds[wanted] = [json.loads(json.loads(message["Body"])["Message"])["kind"] for message in messages]
    assert kinds == {"Critical": ["FAILED"], "High": ["LATE_OVER"]}


def test_a_target_is_described_without_its_secret():
    assert described("https://hooks.slack.com/services/T/B/secret") == "Slack at hooks.slack.com"
    assert described("") == "the log"


def test_settings_name_what_is_missing_and_never_show_a_token(tmp_path):
    with pytest.raises(SettingsError, match="CDI_ALERT_TARGET=pagerduty needs CDI_ALERT_TOKEN"):
        load_settings(home=tmp_path, alert_target="pagerduty")
    with pytest.raises(SettingsError, match=re.escape("write secretsmanager://name[#json-key]")) as refused:
        load_settings(home=tmp_path, alert_target="pagerduty", alert_token="R0UT1NGKEY")
    assert "R0UT1NGKEY" not in str(refused.value)


def test_the_environment_is_named_by_what_is_known(tmp_path):
    assert load_settings(home=tmp_path).environment == "local"
    assert load_settings(home=tmp_path, emr_environment="staging").environment == "staging"
    assert load_settings(home=tmp_path, emr_environment="staging", environment="production").environment == "production"
