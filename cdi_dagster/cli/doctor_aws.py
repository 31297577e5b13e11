"""The checks of `cdi doctor` that query AWS: who we are, and everything that a cluster needs before it can run a step.

boto3 is imported by the checks themselves: the terminal starts without it.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cdi_dagster.aws.clients import client, region
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.findings import Finding, failed, note, ok
from cdi_dagster.settings import Settings
from cdi_dagster.storage import Storage, StorageError, open_storage

if TYPE_CHECKING:
    from cdi_dagster.emr.clusters.template import ClusterTemplate

_MAY_NOT = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def check_aws(settings: Settings) -> Finding:
    """Who we are in AWS, where a root is a bucket."""
    roots = (settings.corporate_root, settings.published_root)
    if settings.deployment == "local" and not any(root.startswith("s3://") for root in roots):
        return note("not needed: both roots are folders")
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if (ours := region()) is None:
            return failed(f"no AWS region is set{_ignored_region()}", "Set CDI_AWS_REGION, for example to eu-west-2.")
        identity = client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        return failed(f"AWS refuses our identity: {error}", "Set AWS_PROFILE or the instance role.")
    return ok(f"{identity['Arn']}, in {ours}{_ignored_region(ours)}")


def _ignored_region(ours: str | None = None) -> str:
    value = os.environ.get("AWS_REGION")
    return f"; AWS_REGION={value} has no effect, boto3 does not read it" if value and value != ours else ""


def check_emr_template(settings: Settings) -> Finding:
    """Whether the cluster template can be used, for every collection."""
    from cdi_dagster.emr.clusters.request import template_problems
    from cdi_dagster.emr.clusters.template import load_template

    path, environment, overrides = settings.emr_template, settings.emr_environment, settings.emr_overrides
    problems = template_problems(path, environment=environment, overrides=overrides)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return failed(f"{path}: {problems[0]}{more}", "Correct the file; each line states how.")
    template = load_template(path, environment=environment, overrides=overrides)
    text = f"{path}, profiles {', '.join(profile.name for profile in template.profiles)}"
    idle = template.idle_cores()
    if idle:
        fix = "Change spark.executor.cores, .memory and .memoryOverhead of these profiles, or their types."
        return note("; ".join([text, *idle]), fix)
    return ok(text)


def check_emr_api(settings: Settings) -> Finding:
    """Whether EMR responds, and how many clusters of ours run there."""
    from cdi_dagster.emr.backend import UnreachableError
    from cdi_dagster.emr.clusters.api import EmrApi
    from cdi_dagster.emr.resume import NAME_PREFIX

    try:
        api = EmrApi()
        clusters = api.our_clusters(name_prefix=NAME_PREFIX)
    except UnreachableError as error:
        fix = "Check CDI_AWS_REGION; allow elasticmapreduce:ListClusters and DescribeCluster."
        return failed(f"EMR does not respond: {error}", fix)
    return ok(f"responds in {api.region}; clusters of ours that run: {len(clusters)}")


def check_emr_roles(template: "ClusterTemplate") -> Finding:
    """Whether the service role and the instance profile are there, and trust whom they must."""
    iam = client("iam")
    service_role, profile = (str(template.cluster[name]).rpartition("/")[2] for name in ("ServiceRole", "JobFlowRole"))
    role = iam.get_role(RoleName=service_role)["Role"]
    roles = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    if not roles:
        return failed(f"instance profile {profile} has no role", f"Add to {profile} the role that clusters work as.")
    for owner, service in ((role, "elasticmapreduce.amazonaws.com"), (roles[0], "ec2.amazonaws.com")):
        if service not in str(owner["AssumeRolePolicyDocument"]):
            return failed(f"role {owner['RoleName']} does not trust {service}", f"Add {service} to its trust policy.")
    return ok(f"service role {service_role}, instance profile {profile} with role {roles[0]['RoleName']}")


def check_emr_subnets(template: "ClusterTemplate") -> Finding:
    """Whether the subnets are there, and each has addresses for the largest profile."""
    from cdi_dagster.emr.clusters.request import instances_by_type

    instances = template.cluster.get("Instances") or {}
    ids = instances.get("Ec2SubnetIds") or [subnet for subnet in (instances.get("Ec2SubnetId"),) if subnet]
    if not ids:
        return note("the template names none: EMR takes one of the default VPC", "Set cluster.Instances.Ec2SubnetIds.")
    largest = max(sum(instances_by_type(profile).values()) for profile in template.profiles)
    found = client("ec2").describe_subnets(SubnetIds=ids)["Subnets"]
    free = {str(subnet["SubnetId"]): int(subnet["AvailableIpAddressCount"]) for subnet in found}
    text = ", ".join(f"{subnet} has {count} free addresses" for subnet, count in free.items())
    if min(free.values()) < largest:
        return failed(
            text, f"The largest profile starts {largest} instances: name a larger subnet or a smaller profile."
        )
    return ok(text)


def check_emr_encryption(template: "ClusterTemplate") -> Finding:
    """Whether clusters have a security configuration: without one, disks and traffic are not encrypted by EMR."""
    name = template.cluster.get("SecurityConfiguration")
    if not name:
        return note(
            "the template names no security configuration: decrypted records lie on local disks while a step runs, and "
            "EMR encrypts neither these disks nor the traffic between nodes",
            "Create one (local disks at rest, in transit) and name it in cluster.SecurityConfiguration.",
        )
    return ok(f"security configuration {name}")


def check_emr_logs(template: "ClusterTemplate") -> Finding:
    """Whether we can list where EMR writes its logs: without them a failed step is not explained."""
    try:
        next(iter(open_storage(template.log_uri).list("")), None)
    except (StorageError, ValueError) as error:
        return failed(str(error), "Create the bucket, and let us list and read it; or correct cluster.LogUri.")
    return ok(f"{template.log_uri} can be listed")


def check_emr_bundle(settings: Settings) -> Finding:
    """Whether the bundle is where clusters fetch it, whole, and has the hashes in its list and its id."""
    from cdi_dagster.bundle.build import content_digest
    from cdi_dagster.bundle.source_digest import why_not_this_code

    uri = settings.emr_bundle_uri.rstrip("/")
    fix = "Deploy it again: make bundle, cdi deploy; set CDI_EMR_BUNDLE_URI to what it prints."
    try:
        storage = open_storage(uri)
        sums = storage.read("SHA256SUMS")
        if content_digest(sums) != uri.rpartition("-")[2]:
            return failed(f"{uri} does not match its id: its list of hashes was changed", fix)
        named = [line.split("  ", 1) for line in sums.decode().splitlines()]
        changed = next((name for digest, name in named if _sha256(storage, name) != digest), None)
        size = sum(stored.size_bytes for stored in storage.list(""))
    except (StorageError, ValueError) as error:
        return failed(f"{uri}: {error}", fix)
    if changed is not None:
        return failed(f"{uri}/{changed} is not what was deployed: its hash differs", fix)
    other_code = why_not_this_code(uri)
    if other_code:
        return failed(other_code, fix)
    return ok(f"{uri}, {len(named)} files, {size_text(size)}, every hash as deployed")


def _sha256(storage: Storage, key: str) -> str:
    digest = hashlib.sha256()
    with storage.open(key) as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _of_template(check: Callable[["ClusterTemplate"], Finding]) -> Callable[[Settings], Finding]:
    """Return the check of what the template names; a missing permission of ours is no failure: EMR has its own."""

    def check_template(settings: Settings) -> Finding:
        from botocore.exceptions import BotoCoreError, ClientError

        from cdi_dagster.emr.clusters.template import TemplateError, load_template

        try:
            environment, overrides = settings.emr_environment, settings.emr_overrides
            return check(load_template(settings.emr_template, environment=environment, overrides=overrides))
        except TemplateError:
            return note("not checked: the template that names it cannot be used")
        except ClientError as error:
            if error.response["Error"].get("Code", "") in _MAY_NOT:
                return note(f"not checked: no permission ({error.operation_name})")
            return failed(str(error), "Create it, or correct its name in the cluster template (CDI_EMR_TEMPLATE).")
        except BotoCoreError as error:
            return failed(
                f"AWS cannot be queried: {error}", "Set AWS_PROFILE or the instance role, and CDI_AWS_REGION."
            )

    return check_template


EMR_CHECKS: Mapping[str, tuple[str, Callable[[Settings], Finding]]] = {
    "emr-template": ("EMR template", check_emr_template),
    "emr-api": ("EMR", check_emr_api),
    "emr-roles": ("EMR roles", _of_template(check_emr_roles)),
    "emr-subnets": ("EMR subnets", _of_template(check_emr_subnets)),
    "emr-encryption": ("EMR encryption", _of_template(check_emr_encryption)),
    "emr-logs": ("EMR logs", _of_template(check_emr_logs)),
    "emr-bundle": ("EMR bundle", check_emr_bundle),
}
"""For `CDI_DEPLOYMENT=emr`."""
