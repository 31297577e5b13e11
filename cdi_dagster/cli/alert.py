"""`cdi alert test`: sends an alert to the configured target, so that nobody finds out at night that none arrives."""

import click

from cdi_dagster.cli.console import json_option, print_json
from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.settings import load_settings


@click.group("alert")
def alert_group() -> None:
    """Alerts: whether they arrive."""


@alert_group.command("test", short_help="Send a test alert, then that it is over.")
@json_option
@click.pass_context
def test_command(ctx: click.Context, as_json: bool) -> None:
    """Send a test alert to CDI_ALERT_TARGET, then that it is over: PagerDuty opens an incident, and resolves it.

    Exits 1 where the target does not take it, with the reason. STARTED and COMPLETED, where CDI_ALERT_ON has them, go
    to the same target.
    """
    from cdi_dagster.resources.alerts import AlertNotSentError, alert_sink, described

    settings = load_settings()
    if not settings.alert_target:
        raise click.UsageError(
            "CDI_ALERT_TARGET is not set: alerts are only logged. Set it, in the environment or in CDI_HOME/cdi.env, "
            "to where they go: a webhook's URL, or the ARN of an SNS topic (docs/runbook.md, Alerts)."
        )
    where = described(settings.alert_target)
    sink = alert_sink(settings.alert_target, token=settings.alert_token, environment=settings.environment)
    try:
        for alert in _alerts(settings.runbook_url, settings.dagster_url):
            sink.send(alert)
    except AlertNotSentError as error:
        if as_json:
            print_json({"sent": False, "target": where, "reason": str(error)})
        click.echo(f"Not sent to {where}: {error}", err=True)
        ctx.exit(1)
    if as_json:
        print_json({"sent": True, "target": where})
    else:
        click.echo(f"Sent to {where}: one alert, and that it is over. Check that both arrived.")


def _alerts(runbook_url: str, dagster_url: str) -> tuple[Alert, Alert]:
    runbook = f"{runbook_url}#alerts"
    test = Alert(
        kind="TEST",
        key="test",
        level=AlertLevel.WARNING,
        title="TEST: an alert of cdi_dagster, sent by cdi alert test",
        text="Nothing has failed. This is what an alert looks like, and how it arrives.",
        runbook=runbook,
        owner="CDI on-call engineer",
        next_step="Nothing.",
        run_url=f"{dagster_url}/runs",
    )
    over = Alert(
        kind="TEST_OVER",
        key="test",
        level=AlertLevel.INFORMATION,
        title="TEST: it is over",
        text="Nothing had failed.",
        runbook=runbook,
    )
    return test, over
