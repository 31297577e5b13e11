"""One emulated cluster: a thread that moves through EMR's states and runs what it is given as local processes."""

import gzip
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event, RLock, Thread, Timer
from typing import Any
from urllib.parse import urlsplit

import boto3

OPT_FOLDER = "/opt/cdi"
"""Where the bundle lies on a real cluster; here it is a folder of the cluster's own."""

_LOG_SIZE = 1_000_000
Watcher = tuple[float | None, Callable[[], None]]


@dataclass
class ClusterFaults:
    """What goes wrong with one cluster.

    Attributes:
        capacity: `fail` or `hang` while STARTING.
        validation: end with VALIDATION_ERROR and this message.
        internal: end with INTERNAL_ERROR while STARTING.
        bootstrap: let the first bootstrap action fail, or pretend there was one.
        kill_step_after: seconds after which the step's process gets SIGKILL, as YARN kills it for memory.
        lose_instance_after: seconds after which the running cluster loses its core instance.
        console_kill_after: seconds after which somebody terminates the cluster in the console.
        step_exit: let the step end at once, with this exit code, without running anything.
        step_stderr: written to the step's stderr before it runs.
        copy_logs_after: seconds after which what a step has logged so far is copied, as EMR does every five minutes.
        log_late_seconds: for so long after a step's end its logs are not copied, unless the cluster ends.
        end_at_added_step: let the cluster end, as one that idled too long, in the moment in which a step is added.
    """

    capacity: str | None = None
    validation: str | None = None
    internal: bool = False
    bootstrap: bool = False
    kill_step_after: float | None = None
    lose_instance_after: float | None = None
    console_kill_after: float | None = None
    step_exit: int | None = None
    step_stderr: str = ""
    copy_logs_after: float | None = None
    log_late_seconds: float = 0
    end_at_added_step: bool = False


@dataclass
class Step:
    """One step and its times (epoch seconds)."""

    request: dict[str, Any]
    step_id: str = field(default_factory=lambda: f"s-{uuid.uuid4().hex[:13].upper()}")
    state: str = "PENDING"
    reason: str = ""
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None

    def describe(self) -> dict[str, Any]:
        """As DescribeStep shows it."""
        timeline = {"CreationDateTime": self.created_at, "StartDateTime": self.started_at, "EndDateTime": self.ended_at}
        status: dict[str, Any] = {
            "State": self.state,
            "Timeline": {name: moment for name, moment in timeline.items() if moment is not None},
        }
        if self.state == "FAILED":
            status["FailureDetails"] = {"Reason": self.reason, "LogFile": "stderr.gz"}
        jar = self.request["HadoopJarStep"]
        return {
            "Id": self.step_id,
            "Name": self.request["Name"],
            "Config": {"Jar": jar["Jar"], "Args": jar.get("Args", [])},
            "ActionOnFailure": self.request.get("ActionOnFailure", "TERMINATE_CLUSTER"),
            "Status": status,
        }


class Cluster(Thread):
    """A cluster. Its thread is its life; the API's calls only ask and signal."""

    def __init__(
        self,
        *,
        cluster_id: str,
        request: dict[str, Any],
        folder: Path,
        endpoint: str,
        start_seconds: float,
        environment: dict[str, str],
        faults: ClusterFaults,
        idle_scale: float = 1.0,
        spark_master: str | None = None,
    ) -> None:
        super().__init__(name=cluster_id, daemon=True)
        self.cluster_id = cluster_id
        self.request = request
        self.folder = folder
        self.faults = faults
        self.state = "STARTING"
        self.states = ["STARTING"]
        self.reason_code = ""
        self.reason = ""
        self.created_at = time.time()
        self.ready_at: float | None = None
        self.ending_at: float | None = None
        self.ended_at: float | None = None
        self.steps: list[Step] = []
        self._endpoint = endpoint
        self._start_seconds = start_seconds
        self._environment = environment
        self._idle_scale = idle_scale
        self._spark_master = spark_master
        self._lock = RLock()
        self._ending = Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._current: Step | None = None
        for step in request.get("Steps", []):
            self.add_step(step)

    # --- what the API asks ------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether it costs nothing any more."""
        return self.state in ("TERMINATED", "TERMINATED_WITH_ERRORS")

    @property
    def is_ending(self) -> bool:
        """Whether it takes no steps any more."""
        return self._ending.is_set() or self.state == "TERMINATING" or self.has_ended

    @property
    def shown_state(self) -> str:
        """The state that EMR would show: one that is to end does so at once, whenever its thread gets to it."""
        return "TERMINATING" if self._ending.is_set() and not self.has_ended else self.state

    def add_step(self, request: dict[str, Any]) -> Step:
        """Queue a step."""
        step = Step(request)
        with self._lock:
            self.steps.append(step)
        return step

    def cancel(self, step_id: str) -> str:
        """Cancel a step, also a running one; returns what CancelSteps answers."""
        with self._lock:
            step = next(step for step in self.steps if step.step_id == step_id)
            if step.state not in ("PENDING", "RUNNING"):
                return "FAILED"
            if step is self._current:
                step.state = "CANCEL_PENDING"
                self._kill()
            else:
                step.state = "CANCELLED"
            return "SUBMITTED"

    def terminate(self, reason: str, *, code: str) -> None:
        """Begin the end, unless it has begun."""
        with self._lock:
            if self._ending.is_set() or self.has_ended:
                return
            self.reason_code, self.reason, self.ending_at = code, reason, time.time()
            self._ending.set()
            self._kill()

    def summarise(self) -> dict[str, Any]:
        """As ListClusters shows it."""
        timeline = {"CreationDateTime": self.created_at, "ReadyDateTime": self.ready_at, "EndDateTime": self.ended_at}
        return {
            "Id": self.cluster_id,
            "Name": self.request["Name"],
            "Status": {
                "State": self.shown_state,
                "StateChangeReason": {"Code": self.reason_code, "Message": self.reason} if self.reason_code else {},
                "Timeline": {name: moment for name, moment in timeline.items() if moment is not None},
            },
            "NormalizedInstanceHours": 0,
        }

    def describe(self) -> dict[str, Any]:
        """As DescribeCluster shows it."""
        return {
            **self.summarise(),
            "Tags": self.request.get("Tags", []),
            "LogUri": self.request.get("LogUri", ""),
            "ReleaseLabel": self.request.get("ReleaseLabel", ""),
            "AutoTerminate": not self._keep_alive,
        }

    def instance_fleets(self) -> list[dict[str, Any]]:
        """As ListInstanceFleets shows it."""
        fleets = self.request["Instances"].get("InstanceFleets", [])
        return [
            {
                "Id": f"if-{n}",
                "InstanceFleetType": fleet["InstanceFleetType"],
                "InstanceTypeSpecifications": fleet.get("InstanceTypeConfigs", []),
                "TargetOnDemandCapacity": fleet.get("TargetOnDemandCapacity", 0),
                "ProvisionedOnDemandCapacity": fleet.get("TargetOnDemandCapacity", 0) if self.ready_at else 0,
            }
            for n, fleet in enumerate(fleets)
        ]

    # --- its life ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live: start, bootstrap, run steps, end."""
        self.folder.mkdir(parents=True)
        if self._starts_up() and self._bootstrap_actions():
            self.ready_at = time.time()
            self._run_steps()
        self._end()

    @property
    def _keep_alive(self) -> bool:
        return bool(self.request["Instances"].get("KeepJobFlowAliveWhenNoSteps", False))

    @property
    def _idle_seconds(self) -> float:
        policy = self.request.get("AutoTerminationPolicy")
        return policy["IdleTimeout"] * self._idle_scale if policy else float("inf")

    def _go(self, state: str) -> None:
        with self._lock:
            if self.state != state:
                self.state = state
                self.states.append(state)

    def _starts_up(self) -> bool:
        self._ending.wait(self._start_seconds)
        if self.faults.capacity == "hang":
            self._ending.wait()
        if self.faults.capacity == "fail":
            self.terminate("Insufficient instance capacity in the Availability Zone", code="INTERNAL_ERROR")
        elif self.faults.validation:
            self.terminate(self.faults.validation, code="VALIDATION_ERROR")
        elif self.faults.internal:
            self.terminate("An internal error occurred.", code="INTERNAL_ERROR")
        return not self._ending.is_set()

    def _bootstrap_actions(self) -> bool:
        self._go("BOOTSTRAPPING")
        for number, action in enumerate(self.request.get("BootstrapActions", []), start=1):
            script = action["ScriptBootstrapAction"]
            path = self._fetch(script["Path"])
            logs = f"node/i-0/bootstrap-actions/{number}"
            exit_code = self._execute(["bash", str(path), *script.get("Args", [])], logs)
            self._copy_logs(logs)
            if exit_code != 0 and not self._ending.is_set():
                self.terminate(
                    f"On the master instance, bootstrap action {number} returned a non-zero return code",
                    code="BOOTSTRAP_FAILURE",
                )
        if self.faults.bootstrap:
            self.terminate(
                "On the master instance, bootstrap action 1 returned a non-zero return code", code="BOOTSTRAP_FAILURE"
            )
        return not self._ending.is_set()

    def _run_steps(self) -> None:
        self._go("WAITING" if self._keep_alive and not self.steps else "RUNNING")
        idle_since = time.monotonic()
        while not self._ending.is_set():
            step = next((step for step in self.steps if step.state == "PENDING"), None)
            if step is not None:
                self._go("RUNNING")
                self._run_step(step)
                idle_since = time.monotonic()
            elif self._keep_alive:
                self._go("WAITING")
                if time.monotonic() - idle_since > self._idle_seconds:
                    self.terminate("Terminated by its auto-termination policy", code="USER_REQUEST")
                self._ending.wait(0.02)
            else:
                self.terminate("Steps completed", code="ALL_STEPS_COMPLETED")

    def _run_step(self, step: Step) -> None:
        with self._lock:
            if self._ending.is_set():
                return
            step.state, step.started_at = "RUNNING", time.time()
            self._current = step
        logs = f"steps/{step.step_id}"
        exit_code = self._execute_step(step, logs)
        ended_at = time.time()
        if not self.faults.log_late_seconds:
            self._copy_logs(logs)
        with self._lock:
            self._current = None
            step.ended_at = ended_at
            if step.state == "CANCEL_PENDING" or (self._ending.is_set() and self.reason_code == "USER_REQUEST"):
                step.state = "CANCELLED"
            elif self._ending.is_set():
                step.state, step.reason = "FAILED", "The cluster was lost."
            elif exit_code == 0:
                step.state = "COMPLETED"
            else:
                step.state, step.reason = "FAILED", "Unknown Error."
        if step.state == "FAILED" and step.request.get("ActionOnFailure", "TERMINATE_CLUSTER") in (
            "TERMINATE_CLUSTER",
            "TERMINATE_JOB_FLOW",
        ):
            self.terminate("Shut down as step failed", code="STEP_FAILURE")
        if self.faults.log_late_seconds:
            self._ending.wait(self.faults.log_late_seconds)
            self._copy_logs(logs)

    def _execute_step(self, step: Step, logs: str) -> int:
        if self.faults.step_exit is not None:
            (self.folder / logs).mkdir(parents=True)
            (self.folder / logs / "stderr").write_text(self.faults.step_stderr)
            return self.faults.step_exit
        watchers: list[Watcher] = [
            (self.faults.copy_logs_after, lambda: self._copy_logs(logs)),
            (self.faults.kill_step_after, self._kill),
            (
                self.faults.lose_instance_after,
                lambda: self.terminate("The core instance group was lost.", code="INSTANCE_FAILURE"),
            ),
            (
                self.faults.console_kill_after,
                lambda: self.terminate("Terminated by user request", code="USER_REQUEST"),
            ),
        ]
        arguments = [a.replace(OPT_FOLDER, str(self._opt)) for a in step.request["HadoopJarStep"].get("Args", [])]
        if arguments[0] == "spark-submit":
            arguments = self._spark_submit(arguments[1:])
        return self._execute(arguments, logs, watchers)

    def _spark_submit(self, arguments: list[str]) -> list[str]:
        """Turn a submission to YARN into one to Spark here, or into plain Python where the test needs no Spark."""
        if self._spark_master is None:
            program = next(n for n, argument in enumerate(arguments) if argument.endswith(".py"))
            # spark-submit joins what its Python program writes to stderr with its stdout.
            return ["sh", "-c", 'exec "$@" 2>&1', "sh", sys.executable, *arguments[program:]]
        kept, skip = [], False
        for argument in arguments:
            if skip:
                skip = False
            elif argument in ("--master", "--deploy-mode"):
                skip = True
            else:
                kept.append(argument)
        import pyspark

        home = Path(pyspark.__file__).parent
        return [str(home / "bin" / "spark-submit"), "--master", self._spark_master, *kept]

    def _end(self) -> None:
        self._go("TERMINATING")
        with self._lock:
            for step in self.steps:
                if step.state == "PENDING":
                    step.state = "CANCELLED"
            self.ended_at = time.time()
        bad = self.reason_code not in ("ALL_STEPS_COMPLETED", "USER_REQUEST")
        self._go("TERMINATED_WITH_ERRORS" if bad else "TERMINATED")

    # --- processes and logs -----------------------------------------------------------------------------------

    @property
    def _opt(self) -> Path:
        return self.folder / "opt" / "cdi"

    def _execute(self, command: list[str], logs: str, watchers: Sequence[Watcher] = ()) -> int:
        """Run a command and return its exit code.

        Args:
            command: on the node.
            logs: folder of its logs.
            watchers: what happens how many seconds after its start, None for never.
        """
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "PYSPARK_PYTHON": sys.executable,
            "CDI_PREFIX": str(self._opt),
            **self._environment,
        }
        # On a node boto3 takes no region from the instance.
        environment.pop("AWS_DEFAULT_REGION", None)
        folder = self.folder / logs
        folder.mkdir(parents=True)
        controller, said = folder / "controller", shlex.join(command)
        controller.write_text(f"INFO startExec '{said}'\n")
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            stderr.write(self.faults.step_stderr.encode())
            stderr.flush()
            with self._lock:
                if self._ending.is_set() or (self._current and self._current.state == "CANCEL_PENDING"):
                    return -signal.SIGKILL
                self._process = subprocess.Popen(
                    command, stdout=stdout, stderr=stderr, cwd=self.folder, env=environment, start_new_session=True
                )
            for seconds, action in watchers:
                if seconds is not None:
                    timer = Timer(seconds, action)
                    timer.daemon = True
                    timer.start()
            exit_code = self._process.wait()
        with self._lock:
            self._process = None
        exit_code = 128 - exit_code if exit_code < 0 else exit_code
        with controller.open("a") as lines:
            lines.write(f"INFO waitProcessCompletion ended with exit code {exit_code} : {said}\n")
        return exit_code

    def _copy_logs(self, logs: str) -> None:
        for name in ("controller", "stdout", "stderr"):
            path = self.folder / logs / name
            if path.exists():
                self._write_log(f"{logs}/{name}.gz", path.read_bytes()[-_LOG_SIZE:])

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def _fetch(self, uri: str) -> Path:
        where = urlsplit(uri)
        path = self.folder / Path(where.path).name
        if where.scheme != "s3":
            return Path(where.path)
        path.write_bytes(self._s3.get_object(Bucket=where.netloc, Key=where.path.lstrip("/"))["Body"].read())
        return path

    def _write_log(self, name: str, content: bytes) -> None:
        where = urlsplit(self.request.get("LogUri", ""))
        if where.scheme:
            key = f"{where.path.strip('/')}/{self.cluster_id}/{name}".lstrip("/")
            self._s3.put_object(Bucket=where.netloc, Key=key, Body=gzip.compress(content))

    @cached_property
    def _s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self._endpoint,
            region_name="eu-west-2",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
