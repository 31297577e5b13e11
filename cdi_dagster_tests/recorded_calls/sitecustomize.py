"""Records which operations of AWS our own clients request, in whatever process: a line for each new one in a file.

`cdi_dagster_tests.aws_actions` puts this folder on PYTHONPATH, so that the child processes of a test record theirs
before anything else of them runs. Only clients of `cdi_dagster.aws.clients` count, not those that a test makes itself.
"""

import os
from collections.abc import Callable
from typing import Any

CALLS_FILE = "AWS_CALLS_OF_TESTS"
"""Variable: where the lines go, `<role> <service>:<operation> <test>`. Not `CDI_…`: tests clear these for children."""
NODE, ANYWHERE = "node", "anywhere"
Heard = Callable[[str], None]
"""Gets `<service>:<operation>`, of each request."""


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


if __name__ == "sitecustomize" and CALLS_FILE in os.environ:
    try:
        hear_calls(into_file(os.environ[CALLS_FILE]))
    except ImportError:
        pass  # not a Python of ours
