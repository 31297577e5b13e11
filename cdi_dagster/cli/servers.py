"""The processes of a development installation: the local key service, and Dagster's webserver and daemon.

Each runs under the process guard, which ends the whole process tree when we end, however we end. For `cdi demo` and
`cdi dev` only.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cdi_dagster
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.log_lines import last_lines
from cdi_dagster.local_spark import process_guard

REPOSITORY = Path(cdi_dagster.__file__).parent.parent
"""Where workspace.yaml and deploy/ are: the checkout (an editable install)."""
_GRACE_SECONDS = 10.0
_KEY_SERVICE_PATIENCE_SECONDS = 30.0


class Guarded:
    """One guarded process: leaving the `with` block ends it and everything it started.

    Its output goes to a log file, so that a crash can be explained. What has not ended `grace_seconds` after it was
    asked to is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self._command = [sys.executable, "-I", process_guard.__file__, "--grace-seconds", str(grace_seconds), "--"]
        self._command += command
        self._grace_seconds = grace_seconds
        self._environment = environment
        self.log_path = log_path

    def __enter__(self) -> "Guarded":
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                env=dict(self._environment),
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is ours to handle: the guard ends its tree in order when the lifeline closes.
                start_new_session=True,
            )
        return self

    def __exit__(self, *_error: object) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if self._process.stdin:
                self._process.stdin.close()
            try:
                self._process.wait(timeout=self._grace_seconds + 10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def has_ended(self) -> bool:
        """Whether it ended: none of ours does by itself unless something is wrong."""
        return self._process.poll() is not None

    def log(self) -> str:
        """Return what it has written so far."""
        return self.log_path.read_text(errors="replace")

    def require_running(self, what: str) -> None:
        """Return where it still runs.

        Raises:
            CdiError: LAUNCH_FAILED with its last log lines.
        """
        if self.has_ended:
            raise CdiError(
                FailureClass.LAUNCH_FAILED,
                f"{what} ended with code {self._process.returncode}: {last_lines(self.log().splitlines(), 5)}",
                next_step=f"Read {self.log_path}, fix what it names, then start again.",
            )


@contextmanager
def key_service(home: Path) -> Iterator[str]:
    """Run the local key service on a free port and yield its URL."""
    command = [sys.executable, "-m", "cdi_dagster.cli", "dks", "--port", "0", "--json"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with Guarded(command, environment=environment, log_path=home / "logs" / "key_service.log") as service:
        deadline = time.monotonic() + _KEY_SERVICE_PATIENCE_SECONDS
        while "\n" not in service.log():
            service.require_running("The local key service")
            if time.monotonic() > deadline:
                raise CdiError(FailureClass.DKS_UNAVAILABLE, f"The local key service is silent: {service.log_path}.")
            time.sleep(0.05)
        yield str(json.loads(service.log().splitlines()[0])["url"])


@contextmanager
def dagster_dev(environment: Mapping[str, str], *, port: int, log_path: Path) -> Iterator[Guarded]:
    """Run Dagster's webserver and daemon on the code location, through `workspace.yaml`, on loopback."""
    require_free(port)
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    with Guarded(command, environment=environment, log_path=log_path) as dagster:
        yield dagster


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int) -> None:
    """Return where the port is free.

    Raises:
        CdiError: LAUNCH_FAILED, naming another port to take.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CdiError(
                FailureClass.LAUNCH_FAILED,
                f"Port {port} of this machine is in use: {error.strerror}.",
                next_step=f"Stop what listens there, or choose another: cdi dev --port {port + 1}.",
            ) from error
