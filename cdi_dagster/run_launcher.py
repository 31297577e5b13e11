"""Dagster's default run launcher, and how run monitoring notices that a run's process is gone. Named by `dagster.yaml`.

Loaded by webserver, daemon and code location: imports dagster alone. docs/adr/0022-a-run-ends-with-its-code-server.md
"""

import json
import socket

import dagster as dg
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value

_CONNECT_SECONDS = 5.0
_IS_STOPPING = "after telling it to shut down"
"""In the message with which a code server refuses a run (dagster/_grpc/server.py)."""


class CodeServerRunLauncher(DefaultRunLauncher):
    """Launches runs as processes of their code server, and asks that server whether a run is still one of them.

    A machine or a container that is lost reports no end of its runs, and the default launcher does not look.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run.

        Raises:
            DagsterUserCodeUnreachableError: its code server does not respond or is being stopped; the queue retries.
            DagsterLaunchFailedError: its code server cannot start it.
        """
        try:
            super().launch_run(context)
        except DagsterLaunchFailedError as error:
            if _IS_STOPPING in str(error):
                raise DagsterUserCodeUnreachableError(str(error)) from error
            raise

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring checks the runs of this launcher."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return NOT_FOUND where the run is certainly gone, else RUNNING: Dagster fails a run on any other status.

        A server that does not respond may be starting again, and the proxy `dagster code-server` does not know the runs
        of the servers behind it: both count as RUNNING.
        """
        if GRPC_INFO_TAG not in run.tags:
            return _running("It is not known which code server has it.")
        server = json.loads(run.tags[GRPC_INFO_TAG])
        path = server.get("socket")
        if path and not _listens(path):
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Its code server, on {path}, has ended.")
        client = DagsterGrpcClient(
            host=server.get("host"), port=server.get("port"), socket=path, use_ssl=server.get("use_ssl", False)
        )
        try:
            current = deserialize_value(client.get_current_runs(), GetCurrentRunsResult).current_runs
        except DagsterUserCodeUnreachableError as error:
            return _running(str(error))
        if run.run_id in current:
            return _running("Its code server has its process.")
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "Its code server was started again, and has no such run.")


def _running(why: str) -> CheckRunHealthResult:
    return CheckRunHealthResult(WorkerStatus.RUNNING, why)


def _listens(path: str) -> bool:
    """Whether a process of this machine listens on a Unix socket; where that cannot be found out, it does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True
