"""Shifts the clock of a Python process from its first line on: see `cdi_dagster_tests.clock`.

That puts this folder on PYTHONPATH and the shift into the environment.

grpc is spared: it hands deadlines to a core that has the real clock. Files that storage writes take their time from
Python.
"""

import os
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any

SHIFT = "CDI_TEST_CLOCK_SHIFT_SECONDS"


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


if __name__ == "sitecustomize" and SHIFT in os.environ:
    shift_clock(float(os.environ[SHIFT]))
