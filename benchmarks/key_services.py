"""The key services of a benchmark: mutual TLS as in production, one quick and one with latency, in this process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from cdi_dagster.demo.key_service import DevelopmentKeyService, TlsFiles


@dataclass(frozen=True, kw_only=True)
class KeyServices:
    """Where they are.

    Attributes:
        url: of the quick one.
        slow_url: of the slow one.
        tls: a program's TLS arguments for either.
    """

    url: str
    slow_url: str
    tls: Sequence[str]


@contextmanager
def key_services(folder: Path, *, latency_seconds: float) -> Iterator[KeyServices]:
    """Run both during the block, with new certificates in the folder.

    Args:
        folder: for PEM files; made here.
        latency_seconds: latency that the slow one adds to every decryption.
    """
    folder.mkdir(parents=True)
    authority = trustme.CA()
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    server, server_key = _issued(authority, "127.0.0.1", folder / "server.pem")
    client, client_key = _issued(authority, "spark-worker", folder / "client.pem")
    tls = TlsFiles(certificate=server, private_key=server_key, ca=str(ca))
    with (
        DevelopmentKeyService(tls=tls) as quick,
        DevelopmentKeyService(tls=tls, latency_seconds=latency_seconds) as slow,
    ):
        yield KeyServices(
            url=quick.url,
            slow_url=slow.url,
            tls=("--dks-ca", str(ca), "--dks-certificate", client, "--dks-private-key", client_key),
        )


def _issued(authority: trustme.CA, identity: str, path: Path) -> tuple[str, str]:
    issued = authority.issue_cert(identity)
    key = path.with_suffix(".key")
    issued.cert_chain_pems[0].write_to_path(path)
    issued.private_key_pem.write_to_path(key)
    return str(path), str(key)
