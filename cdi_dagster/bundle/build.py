"""Builds the bundle: our wheel, the wheels it needs, hashes, the bootstrap script, the entry points, the log pattern.

Runs pip of this environment; its configuration decides where packages come from. The same sources and constraints give
the same bundle, byte for byte, so its name is a hash of its content.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cdi_dagster
from cdi_dagster.bundle.source_digest import PACKAGES, source_digest
from cdi_dagster.core.failures import CdiError, FailureClass

REQUIREMENTS = (
    "boto3",
    "cryptography",
    "dagster-pipes",
    "isal",
    "msgspec",
    "obstore",
    "orjson",
    "pybase64",
    "tenacity",
    "urllib3",
)
"""What those packages import. Not PySpark: the cluster has its own."""
PYTHON_VERSION = "3.11"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""Amazon Linux 2023 has glibc 2.34; pip takes the first of these that a package offers."""

_SHIPPED_PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "cdi_dagster_spark"
version = "0"
requires-python = ">=3.11"

[tool.setuptools.packages.find]
include = ["cdi_dagster*"]

[tool.setuptools.package-data]
cdi_dagster = ["**/*.json"]
"""
_EPOCH = "315532800"  # 1980-01-01, the first moment a zip can hold


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on this machine.

    Attributes:
        id: the digest of the code it was made of (`source_digest`), `-`, and that of its content.
        folder: where it is; its last part is the id.
        files: how many.
        size_bytes: of all files.
    """

    id: str
    folder: Path
    files: int
    size_bytes: int


def build_bundle(output: Path, *, constraints: Path) -> Bundle:
    """Build the bundle below `output` and return it; an equal one that exists already is kept.

    Raises:
        CdiError: LAUNCH_FAILED where pip cannot build or find a wheel, with the end of its output.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".building-") as scratch:
        content = Path(scratch) / "bundle"
        wheels = content / "wheels"
        wheels.mkdir(parents=True)
        _build_our_wheel(Path(scratch) / "source", wheels)
        _download_wheels(wheels, constraints)
        (content / "requirements.txt").write_text(_requirements(wheels))
        source = Path(cdi_dagster.__file__).parent
        shutil.copyfile(source / "bundle" / "bootstrap.sh", content / "bootstrap.sh")
        shutil.copyfile(source / "spark" / "log4j2.json", content / "log4j2.json")
        shutil.copytree(source / "spark" / "entry_points", content / "entry_points", ignore=_no_caches)
        sums = _sums(content)
        (content / "SHA256SUMS").write_text(sums)
        bundle_id = f"{source_digest()}-{content_digest(sums.encode())}"
        folder = output / bundle_id
        if not folder.exists():
            content.rename(folder)
    return describe(folder)


def content_digest(sums: bytes) -> str:
    """Return 16 hex digits over the names and hashes of a bundle's files, as its SHA256SUMS lists them."""
    return hashlib.sha256(sums).hexdigest()[:16]


def describe(folder: Path) -> Bundle:
    """Return the bundle in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Bundle(
        id=folder.name, folder=folder, files=len(files), size_bytes=sum(path.stat().st_size for path in files)
    )


def bundle_files(folder: Path) -> list[Path]:
    """Return the files of a bundle, the list of hashes last: if it is there, everything is."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: path.name == "SHA256SUMS")


_no_caches = shutil.ignore_patterns("__pycache__")


def _build_our_wheel(source: Path, wheels: Path) -> None:
    package = source / "cdi_dagster"
    package.mkdir(parents=True)
    ours = Path(cdi_dagster.__file__).parent
    shutil.copyfile(ours / "__init__.py", package / "__init__.py")
    for name in PACKAGES:
        shutil.copytree(ours / name, package / name, ignore=_no_caches)
    (source / "pyproject.toml").write_text(_SHIPPED_PROJECT)
    _pip("wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", str(wheels), str(source))


def _download_wheels(wheels: Path, constraints: Path) -> None:
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    _pip(
        *("download", "--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON_VERSION),
        *(*platforms, "--constraint", str(constraints), "--dest", str(wheels), *REQUIREMENTS),
    )


def _pip(*arguments: str) -> None:
    command: Sequence[str] = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        last = " ".join(done.stderr.strip().splitlines()[-2:])
        raise CdiError(
            FailureClass.LAUNCH_FAILED,
            f"pip {arguments[0]} failed while making the bundle: {last}",
            next_step="Check that a package index can be reached and that constraints.txt names versions it has.",
        )


def _requirements(wheels: Path) -> str:
    """Pin every wheel by its hash, so that nothing else can be installed."""
    lines = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{_sha256(wheel)}\n")
    return "".join(lines)


def _sums(content: Path) -> str:
    files: Iterable[Path] = sorted(path for path in content.rglob("*") if path.is_file())
    return "".join(f"{_sha256(path)}  {path.relative_to(content).as_posix()}\n" for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
