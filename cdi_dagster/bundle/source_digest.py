"""Which code a bundle was made of: a digest that its name begins with, so that a code location knows its own bundle.

Known without a request: definitions compare the digest of the code that runs with the name in CDI_EMR_BUNDLE_URI.
"""

import hashlib
from pathlib import Path

import cdi_dagster

PACKAGES = ("aws", "core", "storage", "published", "table_definitions", "spark")
"""What runs on the cluster, and nothing else."""
_SHIPPED = ("__init__.py", *PACKAGES, "bundle/bootstrap.sh")
_SUFFIXES = (".py", ".json", ".sh")
_DIGITS = 8


def source_digest() -> str:
    """Return 8 hex digits over names and contents of everything of this code that a bundle holds."""
    root = Path(cdi_dagster.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for part in _SHIPPED for path in _files(root / part)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\t{len(content)}\n".encode() + content)
    return digest.hexdigest()[:_DIGITS]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.suffix in _SUFFIXES]


def why_not_this_code(bundle_uri: str) -> str | None:
    """Return why clusters would run other code than this with a bundle, and the commands that fix it; None if not."""
    ours = source_digest()
    root, _, name = bundle_uri.rstrip("/").rpartition("/")
    if name.partition("-")[0] == ours:
        return None
    return (
        f"CDI_EMR_BUNDLE_URI={bundle_uri} is a bundle of other code than this code location ({ours}-…): run "
        f"`make bundle`, then `cdi deploy --to {root} dist/bundle/{ours}-…`, and set the variable to what that prints"
    )
