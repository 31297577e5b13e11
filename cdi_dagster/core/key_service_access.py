"""How runs reach the Data Key Service, as a value: what starts a job passes it as the job's arguments.

Here and not in `spark/key_service`, because Dagster and `cdi` load without that.
"""

from dataclasses import dataclass

DEFAULT_RETRY_BUDGET_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class KeyServiceAccess:
    """Where the key service is.

    `ca`, `certificate` and `private_key` are paths on the machine on which the job runs, or references to secrets
    (`secret_reference`), which the job reads there.

    Attributes:
        url: base URL.
        ca: the authority that signed the service's certificate (PEM). None: the system's authorities.
        certificate: our client certificate chain (PEM), for mutual TLS.
        private_key: its private key (PEM).
        retry_budget_seconds: how long one data key is requested before the job gives up.
    """

    url: str
    ca: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    retry_budget_seconds: int = DEFAULT_RETRY_BUDGET_SECONDS

    def arguments(self) -> tuple[str, ...]:
        """Return a job's arguments, only for what is set."""
        named = {
            "--dks-url": self.url,
            "--dks-ca": self.ca,
            "--dks-certificate": self.certificate,
            "--dks-private-key": self.private_key,
            "--dks-retry-budget-seconds": str(self.retry_budget_seconds),
        }
        return tuple(part for name, value in named.items() if value for part in (name, value))
