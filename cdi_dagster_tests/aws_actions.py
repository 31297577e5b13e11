"""The IAM actions that our own requests need, and the policies that we ship: a package's tests request nothing else.

A conftest imports `only_allowed_actions`; every request of the package's tests and of their child processes is then
held against the policies when the last of them has ended. For packages that talk to an emulated AWS.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import cdi_dagster
from cdi_dagster_tests.child_processes.sitecustomize import (
    ANYWHERE,
    CALLS_FILE,
    NODE,
    hear_calls,
    into_file,
    python_path,
)

POLICIES = Path(cdi_dagster.__file__).parents[1] / "deploy" / "aws" / "policies"
NODES_POLICY = "emr-instance-profile"
S3_ACTIONS = {
    "HeadObject": "GetObject",
    "HeadObjectVersion": "GetObjectVersion",
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "ListParts": "ListMultipartUploadParts",
}
"""Where S3's action has another name than its operation (user guide, "Required permissions for API operations")."""
SERVICES = {"monitoring": "cloudwatch"}
"""Where IAM has another name for a service than its endpoint."""
NEEDS_NO_PERMISSION = {"sts:GetCallerIdentity"}


def action_of(call: str) -> str | None:
    """Return the IAM action that a request needs; None where it needs none."""
    service, _, operation = call.partition(":")
    is_s3 = service == "s3"
    action = f"s3:{S3_ACTIONS.get(operation, operation)}" if is_s3 else f"{SERVICES.get(service, service)}:{operation}"
    return None if action in NEEDS_NO_PERMISSION else action


def allowed(policy: str) -> set[str]:
    """Return the actions of a shipped policy."""
    statements = json.loads((POLICIES / f"{policy}.json").read_text())["Statement"]
    return {action for statement in statements for action in statement["Action"]}


def not_allowed(lines: Iterable[str]) -> list[str]:
    """Return what no policy allows of the lines that were recorded, each with the first test that requested it.

    Where a test runs code of Dagster's machine and of nodes in one process, either's policy will do; an emulated node
    is held to its own.
    """
    may: Mapping[str, set[str]] = {
        NODE: allowed(NODES_POLICY),
        ANYWHERE: allowed(NODES_POLICY) | allowed("dagster"),
    }
    found: dict[tuple[str, str], str] = {}
    for line in lines:
        role, call, test = line.split(" ", 2)
        action = action_of(call)
        if action is not None and action not in may[role]:
            who = " (an emulated node)" if role == NODE else ""
            found.setdefault((role, action), f"{action}{who}, first in {test}")
    return sorted(found.values())


@contextmanager
def recorded(calls: Path) -> Iterator[None]:
    """Record in a file what this process and its children request by our own clients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CALLS_FILE, str(calls))
        patch.setenv("PYTHONPATH", python_path())
        stop = hear_calls(into_file(str(calls)))
        try:
            yield
        finally:
            stop()


@pytest.fixture(scope="package", autouse=True)
def only_allowed_actions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail, after the last test of the package, for each action that no shipped policy allows."""
    calls = tmp_path_factory.mktemp("aws") / "calls"
    calls.touch()
    with recorded(calls):
        yield
    wrong = not_allowed(calls.read_text().splitlines())
    if wrong:
        pytest.fail("\n".join(["an action that no shipped policy allows was called:", *wrong]), pytrace=False)
