"""What every run passes to the Spark jobs and to people who read a failure: the key service, limits, links."""

import dagster as dg

from cdi_dagster.core.failures import FailureClass, runbook_link
from cdi_dagster.core.key_service_access import KeyServiceAccess
from cdi_dagster.settings import knob


class IngestOptions(dg.ConfigurableResource):
    """Options of an installation that are arguments of its Spark jobs. Paths are those on the machine of the job."""

    dks_url: str = knob("dks_url")
    dks_ca: str | None = knob("dks_ca")
    dks_certificate: str | None = knob("dks_certificate")
    dks_private_key: str | None = knob("dks_private_key")
    dks_retry_budget_seconds: int = knob("dks_retry_budget_seconds")
    max_rejected: str = knob("max_rejected")
    runbook_url: str = knob("runbook_url")
    dagster_url: str = knob("dagster_url")
    alert_on: str = knob("alert_on")

    @property
    def alert_kinds(self) -> frozenset[str]:
        """The optional kinds of alerts that are sent."""
        return frozenset(kind.strip() for kind in self.alert_on.split(",") if kind.strip())

    @property
    def key_service(self) -> KeyServiceAccess:
        """How jobs reach the key service."""
        return KeyServiceAccess(
            url=self.dks_url,
            ca=self.dks_ca,
            certificate=self.dks_certificate,
            private_key=self.dks_private_key,
            retry_budget_seconds=self.dks_retry_budget_seconds,
        )

    def runbook_link(self, failure_class: FailureClass) -> str:
        """Return the link to the runbook's section about a failure class."""
        return runbook_link(self.runbook_url, failure_class)
