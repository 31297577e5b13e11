"""What tests do to every Python process that they start, before anything else of it runs.

The clock is shifted (see `cdi_dagster_tests.clock`), and a file gets a line for each operation of AWS that our own
clients request (see `cdi_dagster_tests.aws_actions`). Both put this folder on PYTHONPATH: it is one folder because
Python imports one `sitecustomize` only.

grpc's clock is spared: it hands deadlines to a core that has the real one. Files that storage writes take their time
from Python. Only clients of `cdi_dagster.aws.clients` count, not those that a test makes itself.
"""

import os
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

SHIFT = "CLOCK_SHIFT_OF_TESTS"
"""Variable: by how many seconds. Neither is named `CDI_…`: tests clear these for what they start."""
CALLS_FILE = "AWS_CALLS_OF_TESTS"
"""Variable: where the lines go, `<role> <service>:<operation> <test>`."""
NODE, ANYWHERE = "node", "anywhere"
Heard = Callable[[str], None]
"""Gets `<service>:<operation>`, of each request."""


def shift_clock(seconds: float) -> Any:
    """Shift the clock by so much against the one that it has, and return what ends that by `stop`."""
    modules: dict[str, Any] = sys.modules
    left_out = {name: modules.setdefault(name, None) for name in ("pytest", "dateutil", "dateutil.parser")}
    try:
        # It imports these two where it can, and every process of a test would wait for that.
        import time_machine
    finally:
        for name, module in left_out.items():
            if module is None:
                del sys.modules[name]
    travel = time_machine.travel(time.time() + seconds)
    travel.start()
    time.time()  # its clock starts to tick when it is first read
    prepare()
    return travel


def prepare() -> None:
    """Spare what does not go by Python's clock, now or when it is imported."""
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
        for name in _PATCHES:
            if name in sys.modules:
                _PATCHES[name](sys.modules[name])


def _real_time() -> float:
    import time_machine

    try:
        return time_machine.escape_hatch.time.time()
    except ValueError:  # the clock is not shifted (any more)
        return time.time()


def _spare(module: Any) -> None:
    module.time = SimpleNamespace(**{**vars(time), "time": _real_time})


_GRPC = ("_channel", "_common", "_cython.cygrpc", "_server", "_utilities", "aio._utils")
_PATCHES = {f"grpc.{name}": _spare for name in _GRPC}


class _AfterImport(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _PATCHES or name in sys.modules:
            return None
        spec: Any = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _PATCHES[name](module)

        spec.loader.exec_module = exec_module
        return spec


def hear_calls(heard: Heard) -> Callable[[], None]:
    """Have a function called with each request of clients that are made from now on; return how to stop that."""
    from cdi_dagster.aws import clients

    make = clients._session

    def session() -> Any:
        made = make()
        made.register("before-call", lambda model, params, **_: heard(_name(model, params)))
        return made

    def stop() -> None:
        clients._session = make

    clients._session = session
    return stop


def _name(model: Any, params: dict[str, Any]) -> str:
    by_version = "Version" if "versionId" in params.get("query_string", {}) else ""
    return f"{model.service_model.endpoint_prefix}:{model.name}{by_version}"


def into_file(path: str) -> Heard:
    """Return a function that appends each request to a file, once for a process."""
    known: set[str] = set()
    # The emulated nodes of a cluster have it, and nothing else.
    role = NODE if "CDI_PREFIX" in os.environ else ANYWHERE

    def heard(call: str) -> None:
        if call not in known:
            known.add(call)
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{role} {call} {test}\n")

    return heard


def python_path() -> str:
    """Return PYTHONPATH with this folder first."""
    folder = str(Path(__file__).parent)
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([folder, *(other for other in others if other not in ("", folder))])


if __name__ == "sitecustomize":
    if SHIFT in os.environ:
        shift_clock(float(os.environ[SHIFT]))
    if CALLS_FILE in os.environ:
        try:
            hear_calls(into_file(os.environ[CALLS_FILE]))
        except ImportError:
            pass  # not a Python of ours
