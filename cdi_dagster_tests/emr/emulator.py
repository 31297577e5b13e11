"""An EMR that really runs things, on one loopback port with moto's S3 and the rest of AWS behind it.

It speaks the part of the EMR API that the launcher uses, moves clusters and steps through EMR's states, runs bootstrap
actions and `command-runner.jar` steps as local processes, writes their logs gzipped under `LogUri`, and injects the
faults that a test asks for. For tests only. moto alone will not do: its steps never finish.
"""

import json
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any

import boto3
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from cdi_dagster_tests.emr.cluster import Cluster, ClusterFaults
from cdi_dagster_tests.moto_application import MotoApplication
from cdi_dagster_tests.waiting import wait_until

REGION = "eu-west-2"
_TARGET = "ElasticMapReduce."
_FORBIDDEN = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized</Message></Error></ErrorResponse>"


@dataclass
class Faults:
    """What goes wrong, asked for by the test; each entry is used up by the call or cluster that meets it.

    Attributes:
        throttle: how many of the next calls of an operation are throttled.
        lose_answer: operations whose next call is carried out, but whose connection is cut instead of answered.
        unlisted: how many of the next ListClusters do not show what was started yet.
        reject: operations whose next call is refused, with the error code and message.
        no_capacity: instance types without capacity, and how that shows: `fail` or `hang` in STARTING.
        deaf: whether TerminateJobFlows is answered and does nothing.
        forbidden: services that we may not use, by the name that requests are signed for.
        clusters: faults of the next clusters, in the order of their launch; a missing one is none.
    """

    throttle: Counter[str] = field(default_factory=Counter)
    lose_answer: list[str] = field(default_factory=list)
    unlisted: int = 0
    reject: dict[str, tuple[str, str]] = field(default_factory=dict)
    no_capacity: dict[str, str] = field(default_factory=dict)
    deaf: bool = False
    forbidden: set[str] = field(default_factory=set)
    clusters: list[ClusterFaults] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class EmrEmulator:
    """The server. Use as a context manager; `endpoint` goes into AWS_ENDPOINT_URL.

    Args:
        folder: where clusters keep their files.
        start_seconds: how long a cluster is STARTING.
        idle_scale: the share of its auto-termination policy's idle time after which a cluster ends.
        page_size: clusters and steps a page, small so that paging is met.
        step_environment: added to the environment of bootstrap actions and steps.
        spark_master: where Spark runs what is submitted to YARN; None runs it as a plain Python program.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start_seconds: float = 0.05,
        idle_scale: float = 1.0,
        page_size: int = 10,
        step_environment: dict[str, str] | None = None,
        spark_master: str | None = "local[2]",
    ) -> None:
        self.folder = folder
        self.start_seconds = start_seconds
        self.idle_scale = idle_scale
        self.page_size = page_size
        self.step_environment = dict(step_environment or {})
        self.spark_master = spark_master
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.clusters: dict[str, Cluster] = {}
        self.endpoint = ""
        self._lock = RLock()
        self._stopping = Event()
        self._moto = MotoApplication()

    def __enter__(self) -> "EmrEmulator":
        self._server = make_server("127.0.0.1", 0, self._application, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for cluster in self.clusters.values():
            cluster.terminate("emulator stopped", code="USER_REQUEST")
        for cluster in self.clusters.values():
            cluster.join(timeout=20)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def client(self, service: str) -> Any:
        """Return a boto3 client of any service, with boto3's own defaults."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def live(self) -> list[Cluster]:
        """Return the clusters that cost money now."""
        return [cluster for cluster in self.clusters.values() if not cluster.has_ended]

    def wait(self, until: Callable[[], bool], what: str = "the clusters are as the test wants them") -> None:
        """Wait until something is so; in vain, report the clusters."""
        wait_until(until, what, seen=self._seen, pause_seconds=0.05)

    def _seen(self) -> str:
        clusters = [f"{c.cluster_id} {c.state} {[step.state for step in c.steps]}" for c in self.clusters.values()]
        return f"{clusters}, calls {dict(self.calls)}"

    # --- HTTP -------------------------------------------------------------------------------------------------

    def _application(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if any(
            f"/{service}/aws4_request" in environ.get("HTTP_AUTHORIZATION", "") for service in self.faults.forbidden
        ):
            return Response(_FORBIDDEN, status=403)(environ, start_response)
        if not target.startswith(_TARGET):
            return self._moto(environ, start_response)
        operation = target.removeprefix(_TARGET)
        body = json.loads(Request(environ).get_data() or b"{}")
        with self._lock:
            self.calls[operation] += 1
            response, lost = self._answer(operation, body)
        if lost:
            # Cutting the connection under the server is how an answer is lost on the way.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("answer lost on purpose")
        return response(environ, start_response)

    def _answer(self, operation: str, body: dict[str, Any]) -> tuple[Response, bool]:
        try:
            self._inject_refusal(operation)
            answer = getattr(self, f"_{operation}", self._unknown)(body)
        except _Refused as refused:
            return _json({"__type": refused.code, "message": refused.message}, status=400), False
        lost = operation in self.faults.lose_answer
        if lost:
            self.faults.lose_answer.remove(operation)
        return _json(answer), lost

    def _inject_refusal(self, operation: str) -> None:
        if self.faults.throttle[operation] > 0:
            self.faults.throttle[operation] -= 1
            raise _Refused("ThrottlingException", "Rate exceeded")
        if operation in self.faults.reject:
            raise _Refused(*self.faults.reject.pop(operation))

    def _unknown(self, _: dict[str, Any]) -> dict[str, Any]:
        raise _Refused("InvalidRequestException", "The emulator does not speak this operation")

    # --- operations -------------------------------------------------------------------------------------------

    def _RunJobFlow(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - EMR's name
        if not body.get("Name") or "Instances" not in body:
            raise _Refused("ValidationException", "Name and Instances are required")
        for step in body.get("Steps", []):
            _check_arguments(step)
        cluster_id = f"j-{uuid.uuid4().hex[:13].upper()}"
        faults = self.faults.clusters.pop(0) if self.faults.clusters else ClusterFaults()
        missing = [kind for kind in instance_types(body) if kind in self.faults.no_capacity]
        if missing and len(missing) == len(instance_types(body)):
            faults.capacity = self.faults.no_capacity[missing[0]]
        cluster = Cluster(
            cluster_id=cluster_id,
            request=body,
            folder=self.folder / cluster_id,
            endpoint=self.endpoint,
            start_seconds=self.start_seconds,
            environment=self.step_environment,
            faults=faults,
            idle_scale=self.idle_scale,
            spark_master=self.spark_master,
        )
        self.clusters[cluster_id] = cluster
        cluster.start()
        return {"JobFlowId": cluster_id, "ClusterArn": f"arn:aws:elasticmapreduce:{REGION}:1:cluster/{cluster_id}"}

    def _DescribeCluster(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"Cluster": self._cluster(body).describe()}

    def _ListClusters(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if self.faults.unlisted > 0:
            self.faults.unlisted -= 1
            return {"Clusters": []}
        states = body.get("ClusterStates") or []
        after, before = body.get("CreatedAfter", 0), body.get("CreatedBefore", float("inf"))
        found = [
            cluster.summarise()
            for cluster in reversed(self.clusters.values())
            if (not states or cluster.shown_state in states) and after <= cluster.created_at <= before
        ]
        return self._page("Clusters", found, body)

    def _ListSteps(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        ids = body.get("StepIds") or []
        steps = [step.describe() for step in reversed(self._cluster(body).steps) if not ids or step.step_id in ids]
        return self._page("Steps", steps, body)

    def _DescribeStep(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        for step in self._cluster(body).steps:
            if step.step_id == body["StepId"]:
                return {"Step": step.describe()}
        raise _Refused("InvalidRequestException", f"Step id '{body['StepId']}' is not valid.")

    def _AddJobFlowSteps(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        cluster = self._cluster({"ClusterId": body["JobFlowId"]})
        if cluster.is_ending:
            raise _Refused("ValidationException", "A job flow that is shutting down may not be modified.")
        for step in body["Steps"]:
            _check_arguments(step)
        if cluster.faults.end_at_added_step:
            cluster.terminate("Terminated by its auto-termination policy", code="USER_REQUEST")
        return {"StepIds": [cluster.add_step(step).step_id for step in body["Steps"]]}

    def _CancelSteps(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        cluster = self._cluster(body)
        cancelled = [{"StepId": step_id, "Status": cluster.cancel(step_id)} for step_id in body["StepIds"]]
        return {"CancelStepsInfoList": cancelled}

    def _TerminateJobFlows(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        for cluster_id in () if self.faults.deaf else body["JobFlowIds"]:
            self._cluster({"ClusterId": cluster_id}).terminate("Terminated by user request", code="USER_REQUEST")
        return {}

    def _AddTags(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        request = self._cluster({"ClusterId": body["ResourceId"]}).request
        tags = {tag["Key"]: tag for tag in [*request.get("Tags", []), *body["Tags"]]}
        request["Tags"] = list(tags.values())
        return {}

    def _ListInstanceFleets(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"InstanceFleets": self._cluster(body).instance_fleets()}

    def _cluster(self, body: dict[str, Any]) -> Cluster:
        cluster = self.clusters.get(body["ClusterId"])
        if cluster is None:
            raise _Refused("InvalidRequestException", f"Cluster id '{body['ClusterId']}' is not valid.")
        return cluster

    def _page(self, name: str, rows: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
        start = int(body.get("Marker") or 0)
        answer: dict[str, Any] = {name: rows[start : start + self.page_size]}
        if start + self.page_size < len(rows):
            answer["Marker"] = str(start + self.page_size)
        return answer


def create_status_table(client: Any, name: str = "data_pipeline_metadata") -> None:
    """Make the table that downstream products read."""
    keys = ("Correlation_Id", "HASH"), ("DataProduct", "RANGE")
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
        BillingMode="PAY_PER_REQUEST",
    )


def instance_types(request: dict[str, Any]) -> list[str]:
    """Return the instance types that a request could start with, over its fleets or groups."""
    instances = request["Instances"]
    fleets = instances.get("InstanceFleets", [])
    return [choice["InstanceType"] for fleet in fleets for choice in fleet.get("InstanceTypeConfigs", [])] + [
        group["InstanceType"] for group in instances.get("InstanceGroups", [])
    ]


def _check_arguments(step: dict[str, Any]) -> None:
    for argument in step["HadoopJarStep"].get("Args", []):
        if len(argument) > 10_280:
            raise _Refused("ValidationException", "Member must have length less than or equal to 10280")


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(value), status=status, content_type="application/x-amz-json-1.1")
