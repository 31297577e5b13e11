"""Whether the key service takes our certificate and responds: one request, no data key. For `cdi doctor`, anywhere."""

import ssl

import urllib3

from cdi_dagster.core.findings import Finding, failed, ok
from cdi_dagster.spark.key_service.config import KeyServiceConfig
from cdi_dagster.spark.key_service.tls import tls_context

_FORBIDDEN = 403
_TIMEOUT_SECONDS = 10


def check_handshake(config: KeyServiceConfig) -> Finding:
    """Return what the service responds to a request for its health, with our certificate where one is set.

    Raises:
        SecretError: a secret cannot be read.
        OSError, urllib3.exceptions.HTTPError: the service does not respond, or a file cannot be read.
    """
    url = f"{config.url}/healthcheck"
    try:
        pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT_SECONDS, ssl_context=tls_context(config))
        status = pool.request("GET", url).status
    except (urllib3.exceptions.SSLError, ssl.SSLError) as error:
        return failed(f"{url}: TLS is refused ({error})", "Check CDI_DKS_CA, CDI_DKS_CERTIFICATE and its expiry.")
    if status == _FORBIDDEN:
        return failed(f"{url} refuses our certificate (403)", "Renew or restore the client certificate.")
    if status != 200:
        return failed(f"{url} responds with {status}", "Check the state of the Data Key Service with its team.")
    return ok(f"{config.url} responds")
