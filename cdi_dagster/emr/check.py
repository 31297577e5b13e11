"""Whether a template can be used at all, for every collection, asked of nobody: for the code location, as it loads."""

from datetime import date
from pathlib import Path

from cdi_dagster.core.collections import REGISTRY, find_collection
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.emr.api import request_problems
from cdi_dagster.emr.request import job_flow_request, step_request, tags_of
from cdi_dagster.emr.template import TemplateError, load_template, override_names
from cdi_dagster.interfaces import SparkStep


def template_problems(path: Path, *, environment: str = "") -> list[str]:
    """Return what is wrong with a template, a line each with its mend; EMR's own model of a request is asked too."""
    problems: list[str] = []
    try:
        load_template(path, environment=environment)
        overridden = override_names(path)[1]
        for collection_id in sorted({collection.id for collection in REGISTRY} | set(overridden)):
            problems += _problems_of(path, environment, collection_id)
    except TemplateError as error:
        problems += error.problems
    return list(dict.fromkeys(problems))


def _problems_of(path: Path, environment: str, collection_id: str) -> list[str]:
    template = load_template(path, environment=environment, collection_id=collection_id)
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
        submitted = step_request(template, profile, step, name="check", pipes=(), conf={}, end_cluster_on_failure=True)
        request = job_flow_request(
            template,
            profile,
            name="check",
            step=submitted,
            tags=tags_of(step, "check"),
            bundle_uri="s3://bucket/bundle",
        )
        problems += [f"profile {profile.name}: EMR would refuse this: {line}" for line in request_problems(request)]
    return problems
