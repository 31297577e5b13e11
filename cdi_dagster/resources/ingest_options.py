"""What every run passes on to the Spark jobs and to the people who read a failure: the key service, limits, links."""

import dagster as dg
from pydantic import Field

from cdi_dagster.core.failures import FailureClass


class IngestOptions(dg.ConfigurableResource):
    """Options of an installation that are arguments of its Spark jobs. Paths mean the machine the job runs on."""

    dks_url: str = Field(description="Base URL of the Data Key Service.")
    dks_ca: str | None = Field(default=None, description="PEM file of the authority that signed its certificate.")
    dks_certificate: str | None = Field(default=None, description="Our client certificate, PEM file, for mutual TLS.")
    dks_private_key: str | None = Field(default=None, description="Path of the PEM file with its private key.")
    dks_retry_budget_seconds: int = Field(
        default=120,
        ge=0,
        description="Seconds for which one lookup is tried again before the run gives up; 0 asks once.",
    )
    max_rejected: str = Field(default="0", description="Most rejects a published day may have: `10`, or `0.1%`.")
    runbook_url: str = Field(default="docs/runbook.md", description="Where the runbook is published.")
    dagster_url: str = Field(default="http://127.0.0.1:3000", description="Where the Dagster UI is.")

    def key_service_arguments(self) -> tuple[str, ...]:
        """Return the Spark job's arguments that name the key service."""
        named = {
            "--dks-url": self.dks_url,
            "--dks-ca": self.dks_ca,
            "--dks-certificate": self.dks_certificate,
            "--dks-private-key": self.dks_private_key,
            "--dks-retry-budget-seconds": str(self.dks_retry_budget_seconds),
        }
        return tuple(part for name, value in named.items() if value is not None for part in (name, value))

    def runbook_link(self, failure_class: FailureClass) -> str:
        """Return the place in the runbook that is about a failure class."""
        return f"{self.runbook_url}#{failure_class.lower()}"
