"""The TLS context for the key service, from files or from Secrets Manager: a private key only passes through here.

For `http`, and for `cdi doctor`. What a secret holds goes into OpenSSL's memory, and no message quotes it.
"""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cdi_dagster.aws.secrets import read_secret
from cdi_dagster.core.secret_reference import secret_reference
from cdi_dagster.spark.key_service.config import KeyServiceConfig


def tls_context(config: KeyServiceConfig) -> ssl.SSLContext:
    """Return a context that trusts the service's authority and shows our certificate.

    Raises:
        OSError: the PEM cannot be used, or a file of it not be read.
        SecretError: a secret cannot be read.
    """
    with _pem_file(config.ca) as authority:
        context = ssl.create_default_context(cafile=authority)
    with _pem_file(config.certificate) as certificate, _pem_file(config.private_key) as private_key:
        if certificate and private_key:
            # The empty password makes an encrypted key an error where OpenSSL would prompt on the terminal.
            context.load_cert_chain(certificate, private_key, password="")
    return context


@contextmanager
def _pem_file(path_or_secret: str | None) -> Iterator[str | None]:
    """Yield a path for OpenSSL: the file's own, or that of a secret's content, which is gone after the block."""
    reference = secret_reference(path_or_secret) if path_or_secret else None
    if reference is None:
        yield path_or_secret
        return
    pem = read_secret(reference).encode()
    if hasattr(os, "memfd_create"):
        # A file in memory that only this process has: a kill leaves nothing on a disk.
        with open(os.memfd_create("pem"), "wb") as file:
            file.write(pem)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile() as file:  # of mode 0600
        file.write(pem)
        file.flush()
        yield file.name
