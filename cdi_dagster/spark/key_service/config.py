"""The configuration of the key service client, and the command line that carries it to the cluster.

Values and arguments only; nothing connects here. `key_service` re-exports all of it.
"""

import argparse
from dataclasses import dataclass
from urllib.parse import urlsplit

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.key_service_access import DEFAULT_RETRY_BUDGET_SECONDS
from cdi_dagster.core.loopback import is_loopback
from cdi_dagster.core.secret_reference import secret_reference


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyServiceConfig:
    """Address, TLS files and time-outs of the key service; is sent to Spark's workers.

    Holds no secrets: `certificate`, `private_key` and `ca` are paths, or references to secrets
    (`core.secret_reference`) that each worker reads itself.

    Attributes:
        url: base URL. Plain `http://` only to this machine: data keys do not cross a network in the clear.
        correlation_id: of the run; sent with every call.
        certificate: our client certificate chain (PEM), for mutual TLS.
        private_key: its private key (PEM, not encrypted).
        ca: the authority that signed the service's certificate (PEM). None: the system's authorities.
        connect_timeout_seconds: for one connection.
        read_timeout_seconds: for one answer.
        retry_budget_seconds: how long one data key is requested, tries and waits together, before DKS_UNAVAILABLE. The
            last try may exceed it by one second.
        cache_size: data keys remembered per worker process, the least recently used evicted first; about 1 kB each.
        max_concurrency: data keys of one block requested at the same time. 16 hides 10 ms of latency a call and
            limits the load on a service that every worker uses at once.

    Raises:
        ValueError: the values do not fit together; the message says how to fix them.
    """

    url: str
    correlation_id: str
    certificate: str | None = None
    private_key: str | None = None
    ca: str | None = None
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 15.0
    retry_budget_seconds: float = DEFAULT_RETRY_BUDGET_SECONDS
    cache_size: int = 10_000
    max_concurrency: int = 16

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ValueError("the key service's address is not usable: write it as https://host[:port][/base]")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(
                f"http://{parts.netloc} is another machine: data keys would cross the network in the clear; use https"
            )
        if bool(self.certificate) != bool(self.private_key):
            raise ValueError("give the client certificate and its private key together, or neither")
        if self.certificate and parts.scheme == "http":
            raise ValueError("a client certificate needs an https:// key service; remove it or change the address")
        for name in ("ca", "certificate", "private_key"):
            secret_reference(getattr(self, name) or "")
        for name in ("connect_timeout_seconds", "read_timeout_seconds", "cache_size", "max_concurrency"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")
        if self.retry_budget_seconds < 0:
            raise ValueError("retry_budget_seconds must not be negative; 0 means one try")


def add_key_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--dks-url` and its companions to a job's command line."""
    group = parser.add_argument_group("key service")
    group.add_argument("--dks-url", required=True, help="base URL of the Data Key Service")
    group.add_argument("--dks-ca", help="authority of its certificate (PEM): path or secret; default: the system's")
    group.add_argument("--dks-certificate", help="our client certificate (PEM): path or secret, for mutual TLS")
    group.add_argument("--dks-private-key", help="its private key (PEM): path or secretsmanager://name[#json-key]")
    group.add_argument(
        "--dks-retry-budget-seconds",
        type=float,
        default=DEFAULT_RETRY_BUDGET_SECONDS,
        help="how long one data key is requested before the job fails with DKS_UNAVAILABLE (default: %(default)s)",
    )


def key_service_config(arguments: argparse.Namespace) -> KeyServiceConfig:
    """Read what `add_key_service_arguments` added, and `--correlation-id`, which the job adds itself.

    Raises:
        CdiError: JOB_FAILED, where the arguments do not fit together.
    """
    try:
        return KeyServiceConfig(
            url=arguments.dks_url,
            correlation_id=arguments.correlation_id,
            certificate=arguments.dks_certificate,
            private_key=arguments.dks_private_key,
            ca=arguments.dks_ca,
            retry_budget_seconds=arguments.dks_retry_budget_seconds,
        )
    except ValueError as error:
        raise CdiError(
            FailureClass.JOB_FAILED,
            f"The key service arguments cannot be used: {error}.",
            next_step="Correct the --dks-… arguments (settings CDI_DKS_URL, CDI_DKS_…) and run again.",
        ) from error
