"""Makes every client of an AWS service, in the region of this installation (`CDI_AWS_REGION`); nothing else does.

Services of another account (`CDI_EMR_ROLE_ARN`, `CDI_BATCH_ROLE_ARN`) get credentials of the role that we assume there,
which renew themselves.

botocore's own variable is `AWS_DEFAULT_REGION`; it does not read `AWS_REGION`, and takes no region from the instance.
"""

import functools
import os
import re
from collections.abc import Mapping
from threading import Lock
from typing import Any

REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]+")
REGION_VARIABLE = "AWS_DEFAULT_REGION"
_METADATA_VARIABLES = {"AWS_METADATA_SERVICE_NUM_ATTEMPTS": "5", "AWS_METADATA_SERVICE_TIMEOUT": "5"}
"""botocore requests the role's credentials once, for a second: too little for all workers of a node at once."""

_region = ""
_roles: dict[str, str] = {}
_assumed: dict[str, Any] = {}
_assuming = Lock()


def use_region(region: str) -> None:
    """Make the clients of this process in a region from now on; "" leaves it to botocore's own configuration."""
    global _region
    _region = region


def use_roles(roles: Mapping[str, str]) -> None:
    """Make the clients of these services as another role from now on, by service; "" is our own."""
    with _assuming:
        _roles.clear()
        _roles.update(roles)
        _assumed.clear()


def region() -> str | None:
    """Return the region of new clients; None where neither we nor botocore's configuration have one."""
    return _region or _session().get_config_variable("region")


def region_environment() -> dict[str, str]:
    """Return what a child process on this machine needs in its environment to work in our region."""
    return {REGION_VARIABLE: _region} if _region else {}


def node_environment(region: str) -> dict[str, str]:
    """Return what a process on a node of a cluster needs in its environment, to find region and credentials."""
    return {REGION_VARIABLE: region, **_METADATA_VARIABLES}


def work_on_node(region: str) -> None:
    """Set up this process, on a node of a cluster, for clients in a region."""
    use_region(region)
    os.environ.update(node_environment(region))


def client(service: str, *, region_name: str | None = None, **options: Any) -> Any:
    """Return a client of its own session: boto3's default session is not thread-safe.

    Args:
        service: as botocore names it: `s3`.
        region_name: another region than this installation's.
        options: of botocore's `create_client`.
    """
    session = _session()
    if role := _roles.get(service):
        session.register_component("credential_provider", _AssumedRole(role))
    return session.create_client(service, region_name=region_name or _region or None, **options)


def resource(service: str, *, region_name: str | None = None, **options: Any) -> Any:
    """Return a boto3 resource, as `client`."""
    import boto3

    session = boto3.Session(botocore_session=_session())
    return session.resource(service, region_name=region_name or _region or None, **options)


def credentials() -> Any:
    """Return botocore's credentials, which renew themselves; None where there are none."""
    return _session().get_credentials()


def _session() -> Any:
    from botocore.session import Session

    session = Session()
    session.register_component("data_loader", _shared_loader())
    return session


class _AssumedRole:
    """What botocore takes credentials from: those of a role, one set for all clients of this process."""

    def __init__(self, role_arn: str) -> None:
        self._role_arn = role_arn

    def load_credentials(self) -> Any:
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        with _assuming:
            if self._role_arn not in _assumed:
                ours = _session()
                fetcher = AssumeRoleCredentialFetcher(
                    client_creator=functools.partial(ours.create_client, region_name=_region or None),
                    source_credentials=ours.get_credentials(),
                    role_arn=self._role_arn,
                    extra_args={"RoleSessionName": "cdi_dagster"},
                )
                _assumed[self._role_arn] = DeferredRefreshableCredentials(
                    method="assume-role", refresh_using=fetcher.fetch_credentials
                )
            return _assumed[self._role_arn]


@functools.cache
def _shared_loader() -> Any:
    """Load each service's model once a process: a client then takes 30 ms, not 150 (every Spark task makes one)."""
    from botocore.loaders import create_loader

    return create_loader()
