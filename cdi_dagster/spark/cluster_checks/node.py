"""The checks that every node must pass: functions of a `Target` that return a `Finding`.

They run in the driver and in a worker of an executor, as the instance role. No pyspark here.
"""

import importlib
import importlib.metadata
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import urllib3

from cdi_dagster.aws.clients import region
from cdi_dagster.aws.secrets import SecretError
from cdi_dagster.core.findings import CheckResult, Finding, failed, note, ok
from cdi_dagster.core.log_lines import scrub
from cdi_dagster.core.storage_keys import doctor_key
from cdi_dagster.spark.key_service.config import KeyServiceConfig
from cdi_dagster.spark.key_service.handshake import check_handshake
from cdi_dagster.storage import Storage, StorageError, encryption, open_storage
from cdi_dagster.storage.inspection import bucket_region, encryption_of, is_upload_listed

_ROLE_POLICY = "deploy/aws/policies/emr-instance-profile.json"
_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)")
_OLDEST_PYTHON = (3, 11)
_CONTENT = b"written by cdi doctor"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is checked; crosses to a worker, so plain values only.

    Attributes:
        corporate_root: is read, never written.
        published_root: gets a few small objects, which are deleted again.
        sample_key: an object of corporate storage; None where none is known.
        sample_version_id: its version, where the bucket keeps versions.
        key_service: how the job reaches it.
    """

    corporate_root: str
    published_root: str
    sample_key: str | None
    sample_version_id: str | None
    key_service: KeyServiceConfig

    @property
    def is_s3(self) -> bool:
        """Whether either root is a bucket."""
        return any(root.startswith("s3://") for root in (self.corporate_root, self.published_root))


def check_region(target: Target) -> Finding:
    """Whether boto3 has a region, and the published bucket is there."""
    ours = region()
    if not target.is_s3:
        return note(f"not needed: both roots are folders (boto3 has {ours or 'no region'})")
    if ours is None:
        return failed("boto3 has no region", "Set CDI_AWS_REGION, for example to eu-west-2.")
    if not target.published_root.startswith("s3://"):
        return ok(ours)
    bucket = bucket_region(target.published_root)
    if bucket and bucket != ours:
        return failed(
            f"boto3 works in {ours}, but the bucket of {target.published_root} is in {bucket}",
            f"Set CDI_AWS_REGION={bucket}, or use a bucket in {ours}.",
        )
    return ok(f"{ours}, as the bucket of {target.published_root}" if bucket else ours)


def check_corporate_read(target: Target) -> Finding:
    """Whether an object of corporate storage can be read, by its version where there are versions."""
    if target.sample_key is None:
        return note(
            f"not checked: no object below {target.corporate_root} is known that could be read",
            "cdi doctor --only corporate-root shows whether it can be listed.",
        )
    storage, version = open_storage(target.corporate_root), target.sample_version_id
    with storage.open(target.sample_key, version_id=version) as stream:
        stream.read(1)
    how = f"by version {version}" if version else "by its key: no versions are kept there"
    return ok(f"{storage.uri(target.sample_key)} can be read, {how}")


def check_published_write(target: Target) -> Finding:
    """Whether objects below the published root can be written, listed, read and deleted, uploads begun and aborted."""
    storage, own = open_storage(target.published_root), uuid.uuid4().hex
    folder, key = doctor_key(f"{own}/"), doctor_key(f"{own}/object")
    storage.write(key, _CONTENT)
    try:
        is_whole = [stored.key for stored in storage.list(folder)] == [key] and storage.read(key) == _CONTENT
        _upload_and_abort(storage, doctor_key(f"{own}/upload"), own)
    finally:
        storage.delete([key])
    left = [stored.key for stored in storage.list(folder)]
    if left or not is_whole:
        what = f"{left} are left" if left else "what was written is not listed, or not read as it was written"
        return failed(f"below {storage.uri(folder)} {what}", "Report it as a defect, with the step's log.")
    return ok(f"{target.published_root}: written, listed, read, deleted; an upload begun, listed, aborted")


def _upload_and_abort(storage: Storage, key: str, group: str) -> None:
    with storage.upload(key, group=group) as upload:
        upload.write(_CONTENT)
        prepared = upload.prepare()
    try:
        if storage.root.startswith("s3://") and not is_upload_listed(storage.root, prepared):
            raise StorageError(f"The unfinished upload to {storage.uri(key)} is not listed.")
    finally:
        storage.discard(f"{key.rpartition('/')[0]}/", group=group)


def check_encryption(target: Target) -> Finding:
    """Whether S3 encrypted what we wrote as the settings request."""
    if not target.published_root.startswith("s3://"):
        return note(f"not needed: {target.published_root} is a folder")
    storage, key, wanted = open_storage(target.published_root), doctor_key(uuid.uuid4().hex), encryption()
    storage.write(key, _CONTENT)
    try:
        found = encryption_of(target.published_root, key)
    finally:
        storage.delete([key])
    shown = f"{found.algorithm or 'nothing'}{f' with {found.kms_key}' if found.kms_key else ''}"
    if not wanted.algorithm:
        fix = None if found.algorithm else "Give the bucket a default encryption, or set CDI_S3_ENCRYPTION."
        text = f"CDI_S3_ENCRYPTION requests none; the bucket encrypts with {shown}"
        return ok(text) if found.algorithm else note(text, fix)
    if found.algorithm != wanted.algorithm or not _is_key(wanted.kms_key, found.kms_key):
        return failed(
            f"{wanted.algorithm} {wanted.kms_key} was requested, but S3 encrypted with {shown}",
            "Correct CDI_S3_ENCRYPTION and CDI_S3_KMS_KEY, or what replaces them in the bucket.",
        )
    return ok(f"encrypted with {shown}, as CDI_S3_ENCRYPTION requests")


def _is_key(wanted: str, found: str) -> bool:
    """Whether S3's ARN of a key is the configured one; that of an alias is another, which only KMS could compare."""
    return not wanted or "alias/" in wanted or found == wanted or found.endswith(f"/{wanted}")


def check_key_service(target: Target) -> Finding:
    """Whether the Data Key Service responds, to the certificate that the installation names."""
    config = target.key_service
    try:
        finding = check_handshake(config)
    except SecretError as error:
        fix = f"Correct CDI_DKS_…, or let the instance role read it (secretsmanager:GetSecretValue, {_ROLE_POLICY})."
        return failed(str(error), fix)
    except urllib3.exceptions.HTTPError as error:
        fix = "Check CDI_DKS_URL, and route and security group from the cluster's subnet to it."
        return failed(f"{config.url} does not respond ({type(error).__name__})", fix)
    except OSError as error:
        fix = (
            "Put the PEM there by a bootstrap action, or name a secret: CDI_DKS_PRIVATE_KEY=secretsmanager://name#key."
        )
        return failed(f"{error.filename or 'a certificate'} cannot be read here ({error.strerror})", fix)
    if finding.result is CheckResult.OK and config.certificate:
        return ok(f"{finding.text} to our certificate")
    return finding


def check_python(target: Target) -> Finding:
    """Whether this is a Python that our code runs on, and the wheels of the bundle are in it, import, and are its."""
    python = f"Python {'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}"
    fix = "Deploy the bundle again (make bundle, cdi deploy), and read the bootstrap action's log."
    if sys.version_info < _OLDEST_PYTHON:
        return failed(f"{python}: our code needs 3.11", fix)
    pins_path = Path(sys.prefix).parent / "bundle" / "requirements.txt"  # where bootstrap.sh keeps it
    if not pins_path.is_file():
        return note(f"{python}; no bundle is installed here, so versions are this environment's")
    found = (_PIN.match(line) for line in pins_path.read_text().splitlines())
    pins = {match["name"]: match["version"] for match in found if match}
    problems = list(_problems_of(pins))
    if problems:
        return failed(f"{python}: {'; '.join(problems)}", fix)
    return ok(f"{python}, {len(pins)} wheels of the bundle import at their pinned versions")


def _problems_of(pins: Mapping[str, str]) -> Iterator[str]:
    modules: dict[str, list[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(_normal(distribution), []).append(module)
    for name, pinned in sorted(pins.items()):
        try:
            present = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} {pinned} is not installed"
            continue
        if present != pinned:
            yield f"{name} is {present}, not {pinned}"
        for module in modules.get(_normal(name), []):
            try:
                importlib.import_module(module)
            except Exception as error:  # noqa: BLE001 - a module may fail in any way as it loads
                yield f"{name} {present} does not import ({type(error).__name__}: {scrub(str(error))})"
                break


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


NODE_CHECKS: Mapping[str, tuple[str, Callable[[Target], Finding]]] = {
    "region": ("Region", check_region),
    "corporate-read": ("Corporate root", check_corporate_read),
    "published-write": ("Published root", check_published_write),
    "encryption": ("Encryption", check_encryption),
    "key-service": ("Key service", check_key_service),
    "python": ("Python", check_python),
}
"""By name, with the title of its line."""


def run_check(check: Callable[[], Finding]) -> Finding:
    """Return what a check found; whatever it raises is a finding too, so that the next one runs."""
    try:
        return check()
    except StorageError as error:
        return failed(str(error), f"Fix what it names; the instance role needs what {_ROLE_POLICY} allows.")
    except Exception as error:  # noqa: BLE001 - a check must not stop the others
        text = f"the check itself failed ({type(error).__name__}: {scrub(str(error))})"
        return failed(text, "Read the step's log; if that does not show why, report it as a defect.")


def run_node_checks(target: Target) -> dict[str, Finding]:
    """Run all of them in this process."""
    return {name: run_check(partial(check, target)) for name, (_, check) in NODE_CHECKS.items()}
