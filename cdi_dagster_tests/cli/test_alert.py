"""`cdi alert test`: what arrives where alerts go, or why nothing does."""

from cdi_dagster_tests.cli.conftest import Cdi
from cdi_dagster_tests.gate.hearing import hearing


def test_a_test_alert_arrives_and_that_it_is_over(cdi: Cdi) -> None:
    with hearing() as heard:
        answer = cdi("alert", "test", CDI_ALERT_TARGET=heard.url, CDI_ENVIRONMENT="production")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("Sent to webhook at 127.0.0.1:")
    assert [alert["kind"] for alert in heard.alerts] == ["TEST", "TEST_OVER"]
    assert "Environment: production" in heard.alerts[0]["message"]


def test_a_target_that_refuses_is_exit_1_with_the_reason_and_none_is_wrong_use(cdi: Cdi) -> None:
    with hearing(404) as heard:
        answer = cdi("alert", "test", CDI_ALERT_TARGET=f"slack+{heard.url}")
    assert answer.exit_code == 1
    assert "Slack of CDI_ALERT_TARGET responded with HTTP 404" in answer.stderr
    answer = cdi("alert", "test")
    assert answer.exit_code == 2
    assert "CDI_ALERT_TARGET is not set" in answer.stderr
