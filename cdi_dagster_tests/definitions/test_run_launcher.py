"""When the run launcher says that a run's process is gone, by what its code server answers."""

import json
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import pytest
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.__generated__ import dagster_api_pb2
from dagster._grpc.__generated__.dagster_api_pb2_grpc import DagsterApiServicer, add_DagsterApiServicer_to_server
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import serialize_value

from cdi_dagster.run_launcher import CodeServerRunLauncher

RUN_ID = str(uuid.uuid4())


class CodeServer(DagsterApiServicer):
    """Answers as `dagster api grpc` does."""

    def __init__(self, *runs: str) -> None:
        self._result = GetCurrentRunsResult(current_runs=runs, serializable_error_info=None)

    def GetCurrentRuns(self, request: Any, context: Any) -> Any:
        return dagster_api_pb2.GetCurrentRunsReply(serialized_current_runs=serialize_value(self._result))


class Proxy(DagsterApiServicer):
    """Answers as `dagster code-server` does: it has no list of runs."""


@contextmanager
def serving(servicer: DagsterApiServicer, address: str) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_DagsterApiServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A path for a socket: the kernel takes some 100 bytes, and the folders of pytest may be longer."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield f"{folder}/socket"


def health(**server: Any) -> WorkerStatus:
    run = dg.DagsterRun(job_name="daily", run_id=RUN_ID, tags={GRPC_INFO_TAG: json.dumps(server)})
    return CodeServerRunLauncher().check_run_worker_health(run).status


@pytest.mark.parametrize(
    ("servicer", "status"),
    [
        (CodeServer("another", RUN_ID), WorkerStatus.RUNNING),
        (CodeServer("another"), WorkerStatus.NOT_FOUND),
        (Proxy(), WorkerStatus.RUNNING),
    ],
)
def test_a_run_that_its_code_server_does_not_have_is_gone_and_a_proxy_is_not_believed(
    servicer: DagsterApiServicer, status: WorkerStatus, socket_path: str
) -> None:
    with serving(servicer, "127.0.0.1:0") as port:
        assert health(host="127.0.0.1", port=port) is status
    with serving(servicer, f"unix:{socket_path}"):
        assert health(host="localhost", socket=socket_path) is status


def test_a_code_server_that_does_not_respond_may_be_starting_again_but_a_socket_without_a_server_is_never_served_again(
    socket_path: str,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert health(host="127.0.0.1", port=free.getsockname()[1]) is WorkerStatus.RUNNING
    assert health(host="localhost", socket=socket_path) is WorkerStatus.NOT_FOUND
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(socket_path)
    assert Path(socket_path).exists()
    assert health(host="localhost", socket=socket_path) is WorkerStatus.NOT_FOUND


def test_a_run_whose_code_server_is_not_known_is_left_alone() -> None:
    run = dg.DagsterRun(job_name="daily", run_id=RUN_ID)
    assert CodeServerRunLauncher().check_run_worker_health(run).status is WorkerStatus.RUNNING


@pytest.mark.parametrize(
    ("message", "raised"),
    [
        ("Tried to start a run on a server after telling it to shut down", DagsterUserCodeUnreachableError),
        ("GRPC server: Subprocess for 1 terminated unexpectedly with exit code 1", DagsterLaunchFailedError),
    ],
)
def test_a_code_server_that_is_being_stopped_counts_as_one_that_does_not_respond(
    message: str, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DagsterLaunchFailedError(message)

    refusing: Callable[..., None] = refuse
    monkeypatch.setattr(DefaultRunLauncher, "launch_run", refusing)
    with pytest.raises(raised, match=message):
        CodeServerRunLauncher().launch_run(None)  # type: ignore[arg-type]


def test_the_message_of_a_server_that_is_being_stopped_is_dagsters() -> None:
    from dagster._grpc import server

    assert "Tried to start a run on a server after telling it to shut down" in Path(server.__file__).read_text()
