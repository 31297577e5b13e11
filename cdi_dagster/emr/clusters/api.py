"""The few requests that are sent to EMR, and the two that cost money. The only module here that knows boto3.

Queries are retried by the SDK, gently. RunJobFlow and AddJobFlowSteps are not: EMR has no client token for them, so a
retry after a lost response starts a second cluster. The exceptions are what their errors mean for the next try.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from cdi_dagster.aws.clients import client
from cdi_dagster.emr.backend import (
    NoCapacityError,
    RefusedError,
    ResponseLostError,
    ThrottledError,
    UnreachableError,
)

_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"}
)
_NEVER_SENT = (NoCredentialsError, PartialCredentialsError, NoRegionError, ParamValidationError, ProfileNotFound)
_CAPACITY = re.compile(
    r"insufficient.?(instance.?)?capacity|capacity[- ]not[- ]available|insufficientinstancecapacity|quota|limitexceeded"
    r"|vcpu.?limit|max.?spot|unfulfillable|not enough (free )?(capacity|addresses)|fleet.?(provisioning )?timeout",
    re.IGNORECASE,
)
_CLOCK_SKEW_SECONDS = 300
_STEP_GOES_ON = ("PENDING", "RUNNING", "CANCEL_PENDING")
_TAKES_STEPS = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """A cluster and our step on it, as observed. Times are epoch seconds.

    `idle_since` is when it became ready or the last of the steps before ours ended; of a cluster that was never
    ready it is None.
    """

    cluster_id: str
    state: str
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    reason_code: str = ""
    reason_message: str = ""
    ready_at: float | None = None
    log_uri: str | None = None
    step_id: str | None = None
    step_state: str | None = None
    step_reason: str = ""
    step_began: bool = False
    step_ended_at: float | None = None
    idle_since: float | None = None
    has_other_steps: bool = False
    """Steps of others that wait or run."""


@dataclass(frozen=True, kw_only=True)
class OurCluster:
    """A cluster that carries our name, with its tags."""

    cluster_id: str
    name: str
    state: str
    created_at: datetime
    tags: Mapping[str, str]
    idle_since: datetime | None = None
    """Of one that waits for a step."""


class EmrApi:
    """EMR in the region of this installation; endpoint and credentials are boto3's own business."""

    @cached_property
    def _queries(self) -> Any:
        # Adaptive: slows down by itself when EMR throttles DescribeCluster, which it does for the whole account.
        return client(
            "emr",
            config=Config(retries={"mode": "adaptive", "total_max_attempts": 8}, connect_timeout=10, read_timeout=30),
        )

    @cached_property
    def _launches(self) -> Any:
        return client("emr", config=Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60))

    @property
    def region(self) -> str:
        """The region of its clients."""
        return str(self._queries.meta.region_name)

    def console_link(self, cluster_id: str) -> str:
        """Return the page of a cluster in the AWS console."""
        return (
            f"https://{self.region}.console.aws.amazon.com/emr/home?region={self.region}#/clusterDetails/{cluster_id}"
        )

    # --- what costs money -------------------------------------------------------------------------------------

    def run_job_flow(self, request: Mapping[str, Any]) -> str:
        """Start a cluster, by one call; return its id.

        Raises:
            RefusedError, ThrottledError: nothing was started.
            ResponseLostError: nobody knows.
        """
        return str(_once(lambda: self._launches.run_job_flow(**request))["JobFlowId"])

    def add_step(self, cluster_id: str, step: Mapping[str, Any]) -> str:
        """Add a step to a cluster, by one call; return its id. Raises as `run_job_flow`."""
        response = _once(lambda: self._launches.add_job_flow_steps(JobFlowId=cluster_id, Steps=[dict(step)]))
        return str(response["StepIds"][0])

    # --- queries ----------------------------------------------------------------------------------------------

    def clusters_named(self, name: str, *, requested_at: float) -> list[str]:
        """Return the ids of the clusters of this name that were made since, oldest first, whatever their state.

        Raises:
            UnreachableError: EMR did not respond, so nobody knows.
        """
        after = datetime.fromtimestamp(requested_at - _CLOCK_SKEW_SECONDS, UTC)
        rows = _query(lambda: list(self._pages("list_clusters", "Clusters", CreatedAfter=after)))
        found = [row for row in rows if row["Name"] == name]
        return [str(row["Id"]) for row in sorted(found, key=lambda row: row["Status"]["Timeline"]["CreationDateTime"])]

    def step_named(self, cluster_id: str, name: str) -> str | None:
        """Return the id of the step of this name. Raises UnreachableError."""
        rows = _query(lambda: list(self._pages("list_steps", "Steps", ClusterId=cluster_id)))
        return next((str(row["Id"]) for row in rows if row["Name"] == name), None)

    def observe(self, cluster_id: str, step_name: str) -> ClusterView:
        """Return how a cluster and its step of this name are. Raises UnreachableError."""
        cluster = _query(lambda: self._queries.describe_cluster(ClusterId=cluster_id))["Cluster"]
        steps = _query(lambda: list(self._pages("list_steps", "Steps", ClusterId=cluster_id)))
        status = cluster["Status"]
        reason, ready = status.get("StateChangeReason", {}), status.get("Timeline", {}).get("ReadyDateTime")
        step = next((row for row in steps if row["Name"] == step_name), None)
        others = [row for row in steps if row is not step]
        details = (step or {}).get("Status", {}).get("FailureDetails", {})
        times = (step or {}).get("Status", {}).get("Timeline", {})
        return ClusterView(
            cluster_id=cluster_id,
            state=status["State"],
            name=cluster["Name"],
            tags=_tags(cluster),
            reason_code=reason.get("Code", ""),
            reason_message=reason.get("Message", ""),
            ready_at=ready.timestamp() if ready else None,
            # EMR gives the URI back with the scheme of a connector that is gone.
            log_uri=re.sub("^s3[an]:", "s3:", cluster.get("LogUri", "")).rstrip("/") or None,
            step_id=step["Id"] if step else None,
            step_state=step["Status"]["State"] if step else None,
            step_reason=" ".join(filter(None, (details.get("Reason"), details.get("Message")))),
            step_began="StartDateTime" in times,
            step_ended_at=times["EndDateTime"].timestamp() if "EndDateTime" in times else None,
            idle_since=_idle_since(cluster, others),
            has_other_steps=any(row["Status"]["State"] in _STEP_GOES_ON for row in others),
        )

    def our_clusters(self, *, name_prefix: str) -> list[OurCluster]:
        """Return the clusters whose name starts so and that are not gone, with their tags. Raises UnreachableError."""
        return [self._with_tags(row) for row in self._in_states(*_TAKES_STEPS, "TERMINATING", name_prefix=name_prefix)]

    def live_clusters(self, *, name_prefix: str) -> set[str]:
        """Return the ids of the clusters whose name starts so, and that do not end yet. Raises UnreachableError."""
        return {str(row["Id"]) for row in self._in_states(*_TAKES_STEPS, name_prefix=name_prefix)}

    def tag(self, cluster_id: str, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a cluster. Raises UnreachableError."""
        rows = [{"Key": key, "Value": value} for key, value in tags.items()]
        _query(lambda: self._queries.add_tags(ResourceId=cluster_id, Tags=rows))

    # --- endings ----------------------------------------------------------------------------------------------

    def terminate(self, cluster_id: str) -> None:
        """Request the end of a cluster; harmless where it ends already. Raises UnreachableError."""
        _query(lambda: self._queries.terminate_job_flows(JobFlowIds=[cluster_id]))

    def cancel_step(self, cluster_id: str, step_id: str) -> None:
        """Request the end of a step, also a running one; harmless where it has ended. Raises UnreachableError."""
        _query(
            lambda: self._queries.cancel_steps(
                ClusterId=cluster_id, StepIds=[step_id], StepCancellationOption="TERMINATE_PROCESS"
            )
        )

    def _pages(self, operation: str, name: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        for page in self._queries.get_paginator(operation).paginate(**arguments):
            yield from page.get(name, [])

    def _in_states(self, *states: str, name_prefix: str) -> list[dict[str, Any]]:
        rows = _query(lambda: list(self._pages("list_clusters", "Clusters", ClusterStates=states)))
        return [row for row in rows if row["Name"].startswith(name_prefix)]

    def _with_tags(self, row: Mapping[str, Any]) -> OurCluster:
        cluster = _query(lambda: self._queries.describe_cluster(ClusterId=row["Id"]))["Cluster"]
        idle_since = None
        if cluster["Status"]["State"] == "WAITING":
            idle_since = _idle_since(
                cluster, _query(lambda: list(self._pages("list_steps", "Steps", ClusterId=row["Id"])))
            )
        return OurCluster(
            cluster_id=row["Id"],
            name=row["Name"],
            state=cluster["Status"]["State"],
            created_at=cluster["Status"]["Timeline"]["CreationDateTime"],
            tags=_tags(cluster),
            idle_since=datetime.fromtimestamp(idle_since, UTC) if idle_since else None,
        )


def _tags(cluster: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in cluster.get("Tags", [])}


def _idle_since(cluster: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> float | None:
    ready = cluster["Status"].get("Timeline", {}).get("ReadyDateTime")
    ends = [step["Status"].get("Timeline", {}).get("EndDateTime") for step in steps]
    moments = [moment.timestamp() for moment in (ready, *ends) if moment is not None]
    return max(moments, default=None)


def request_problems(request: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the form of a RunJobFlow request, by EMR's own model of it; sends nothing."""
    report = ParamValidator().validate(dict(request), _run_job_flow_shape())
    return [line for line in report.generate_report().splitlines() if line]


@cache
def _run_job_flow_shape() -> Any:
    model = ServiceModel(Loader().load_service_model("emr", "service-2"), "emr")
    return model.operation_model("RunJobFlow").input_shape


def is_about_capacity(message: str) -> bool:
    """Whether a message of EMR is about capacity or a quota, so that other instances may do."""
    return _CAPACITY.search(message) is not None


def refusal(message: str) -> RefusedError:
    """Return the error of a request that EMR refused with this message."""
    return NoCapacityError(message) if is_about_capacity(message) else RefusedError(message)


def _once(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except _NEVER_SENT as error:
        raise refusal(str(error)) from error
    except ClientError as error:
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code in _THROTTLED:
            raise ThrottledError(f"{code}: {message}") from error
        if error.response["ResponseMetadata"].get("HTTPStatusCode", 400) >= 500 or code.startswith("InternalServer"):
            raise ResponseLostError(f"{code}: {message}") from error
        raise refusal(f"{code}: {message}") from error
    except BotoCoreError as error:
        # A cut connection, a timeout, a response that cannot be read: whatever is not known never to have been sent.
        raise ResponseLostError(str(error)) from error


def _query(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (ClientError, BotoCoreError) as error:
        raise UnreachableError(str(error)) from error
