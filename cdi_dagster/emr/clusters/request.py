"""What is requested from EMR: tags and parameters of RunJobFlow and AddJobFlowSteps, and their check. Sends nothing."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from cdi_dagster.aws.clients import node_environment
from cdi_dagster.core.collections import REGISTRY, find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.emr.clusters.api import request_problems
from cdi_dagster.emr.clusters.template import (
    JAVA_OPTIONS,
    ClusterTemplate,
    ProfileTemplate,
    TemplateError,
    load_template,
    merge_by,
    override_names,
)
from cdi_dagster.interfaces import SparkStep
from cdi_dagster.storage import Encryption

NO_ENCRYPTION = Encryption()
PRODUCT = "cdi_dagster"
TAG_PRODUCT = "cdi:product"
TAG_COLLECTION = "cdi:collection"
TAG_STORAGE_DAY = "cdi:storage_day"
TAG_STEP = "cdi:step"
TAG_RUN_ID = "cdi:run_id"
TAG_CORRELATION_ID = "cdi:correlation_id"
TAG_PROFILE = "cdi:profile"
TAG_DIGEST = "cdi:made_of"
"""`cluster_digest`. On the cluster, so that a process with another template or bundle does not pass it on as its."""

CLUSTER_FOLDER = "/opt/cdi"
"""Where `bootstrap.sh` of the bundle installs."""
CLUSTER_PYTHON = f"{CLUSTER_FOLDER}/venv/bin/python"
LOG_PATTERN = f"{CLUSTER_FOLDER}/log4j2.json"
"""What keeps rows out of Spark's log (`cdi_dagster/spark/log4j2.json`), where the bundle puts it on every node."""
MAX_ARGUMENT_CHARACTERS = 10_280
"""EMR refuses longer ones; long lists go by URI."""


def job_flow_request(
    template: ClusterTemplate,
    profile: ProfileTemplate,
    *,
    name: str,
    step: Mapping[str, Any],
    tags: Mapping[str, str],
    bundle_uri: str,
    idle_seconds: int,
) -> dict[str, Any]:
    """Return the parameters of RunJobFlow: a cluster that runs a step, waits for others, and ends when it idles."""
    request = dict(template.cluster)
    request["Name"] = name
    request["Instances"] = {
        **(request.get("Instances") or {}),
        "InstanceFleets": [{"Name": fleet["InstanceFleetType"].lower(), **fleet} for fleet in profile.fleets],
        "KeepJobFlowAliveWhenNoSteps": True,
        "TerminationProtected": False,
    }
    # The last guard of the bill: it ends by itself, whatever happens to us.
    request["AutoTerminationPolicy"] = {"IdleTimeout": idle_seconds}
    request["StepConcurrencyLevel"] = 1
    request["Configurations"] = template.metastore.configurations
    for configurations in (template.configurations, profile.configurations):
        request["Configurations"] = merge_by(request["Configurations"], configurations, "Classification")
    # Ours last: a platform team's proxy, certificates and agents are there by then.
    request["BootstrapActions"] = [
        *template.bootstrap_actions,
        {
            "Name": "install the bundle",
            "ScriptBootstrapAction": {"Path": f"{bundle_uri}/bootstrap.sh", "Args": [bundle_uri]},
        },
    ]
    request["Tags"] = [{"Key": key, "Value": value} for key, value in {**template.tags, **tags}.items()]
    request["Steps"] = [dict(step)]
    return request


def cluster_digest(template: ClusterTemplate, *, bundle_uri: str, region: str) -> str:
    """Return what a cluster is made of, as a digest: a step may use one that was made of the same."""
    parts = [template.model_dump(), bundle_uri, region]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def tags_of(step: SparkStep, run_id: str) -> dict[str, str]:
    """Return the tags by which a cluster is known to be ours, and whose."""
    return {
        TAG_PRODUCT: PRODUCT,
        TAG_COLLECTION: step.collection.id,
        TAG_STORAGE_DAY: step.storage_day.isoformat(),
        TAG_STEP: step.name,
        TAG_RUN_ID: run_id,
        TAG_CORRELATION_ID: step.correlation_id,
    }


def step_request(
    template: ClusterTemplate,
    profile: ProfileTemplate | None,
    step: SparkStep,
    *,
    name: str,
    pipes: Sequence[str],
    conf: Mapping[str, str],
    region: str,
    encryption: Encryption = NO_ENCRYPTION,
) -> dict[str, Any]:
    """Return the step: spark-submit of the bundle's entry point, with Python 3.11 of the bundle on every node.

    `conf` is the installation's, and stronger than the template's.

    Raises:
        CdiError: LAUNCH_FAILED where an argument is longer than EMR takes.
    """
    merged = _with_log_pattern(
        {
            "spark.pyspark.python": CLUSTER_PYTHON,
            "spark.pyspark.driver.python": CLUSTER_PYTHON,
            "spark.yarn.appMasterEnv.PYSPARK_PYTHON": CLUSTER_PYTHON,
            "spark.executorEnv.PYSPARK_PYTHON": CLUSTER_PYTHON,
            **{f"spark.executorEnv.{variable}": value for variable, value in node_environment(region).items()},
            # EMR keeps event logs, beyond the cluster's life: they quote a failed task's row, and nothing redacts them.
            "spark.eventLog.enabled": "false",
            **encryption.spark_conf,
            **template.step.spark_conf,
            **(profile.spark_conf if profile else {}),
            **conf,
        }
    )
    arguments = ["spark-submit", "--master", "yarn", "--deploy-mode", template.step.deploy_mode, "--name", name]
    for key, value in merged.items():
        arguments += ["--conf", f"{key}={value}"]
    ours = ("--aws-region", region, *encryption.arguments)
    arguments += [f"{CLUSTER_FOLDER}/entry_points/{step.name}.py", *step.arguments, *pipes, *ours]
    too_long = next((argument for argument in arguments if len(argument) > MAX_ARGUMENT_CHARACTERS), None)
    if too_long is not None:
        raise CdiError(
            FailureClass.LAUNCH_FAILED,
            f"An argument of {step.name} has {len(too_long)} characters; EMR takes {MAX_ARGUMENT_CHARACTERS}.",
            next_step="Hand it over as an object in storage, by its URI.",
        )
    return {
        "Name": name,
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": arguments},
    }


def _with_log_pattern(conf: Mapping[str, str]) -> dict[str, str]:
    """Have the JVMs of driver and executors log by our pattern, whatever else they are given.

    By option and absolute path, which holds in both deploy modes and on an existing cluster. EMR's own options are in
    `default…` of the same name, which Spark puts before these (seen in its spark-defaults since emr-6.1).
    """
    option = f"-Dlog4j2.configurationFile=file://{LOG_PATTERN}"
    return {**conf, **{name: f"{option} {conf.get(name, '')}".rstrip() for name in JAVA_OPTIONS}}


def instances_by_type(profile: ProfileTemplate) -> dict[str, int]:
    """Return how many instances a profile starts, if each fleet gets its first type: the base of a cost estimate."""
    counts: dict[str, int] = {}
    for fleet in profile.fleets:
        first = fleet["InstanceTypeConfigs"][0]
        units = int(fleet.get("TargetOnDemandCapacity") or 0) + int(fleet.get("TargetSpotCapacity") or 0)
        count = math.ceil(units / int(first.get("WeightedCapacity") or 1))
        counts[first["InstanceType"]] = counts.get(first["InstanceType"], 0) + count
    return counts


def estimated_cost(template: ClusterTemplate, profile_name: str, seconds: float) -> tuple[float, float | None]:
    """Return instance-hours and US dollars (None where a price is not known) of a profile used for so long."""
    hours = max(seconds, 0) / 3600
    profile = next((profile for profile in template.profiles if profile.name == profile_name), None)
    if profile is None:
        return 0.0, None
    counts = instances_by_type(profile)
    instance_hours = round(sum(counts.values()) * hours, 3)
    prices = template.prices_per_hour
    if any(instance not in prices for instance in counts):
        return instance_hours, None
    return instance_hours, round(sum(count * prices[instance] for instance, count in counts.items()) * hours, 2)


def template_problems(path: Path, *, environment: str = "", overrides: Mapping[str, Any] | None = None) -> list[str]:
    """Return what is wrong with a template, a line each with its fix, by EMR's own model of a request too."""
    problems: list[str] = []
    try:
        load_template(path, environment=environment, overrides=overrides)
        overridden = override_names(path)[1]
        for collection_id in sorted({collection.id for collection in REGISTRY} | set(overridden)):
            problems += _problems_of(path, environment, overrides, collection_id)
    except TemplateError as error:
        problems += error.problems
    return list(dict.fromkeys(problems))


def _problems_of(path: Path, environment: str, overrides: Mapping[str, Any] | None, collection_id: str) -> list[str]:
    template = load_template(path, environment=environment, overrides=overrides, collection_id=collection_id)
    step = SparkStep(
        job=INGEST_DAILY,
        arguments=(),
        collection=find_collection(collection_id),
        storage_day=date(2023, 1, 1),
        correlation_id="check",
        input_bytes=0,
    )
    problems = []
    for profile in template.profiles:
        submitted = step_request(template, profile, step, name="check", pipes=(), conf={}, region="eu-west-2")
        request = job_flow_request(
            template,
            profile,
            name="check",
            step=submitted,
            tags=tags_of(step, "check"),
            bundle_uri="s3://bucket/bundle",
            idle_seconds=60,
        )
        problems += [f"profile {profile.name}: EMR would refuse this: {line}" for line in request_problems(request)]
    return problems
