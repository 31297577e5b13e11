"""Turns an unexpected error in a Spark job into a failure: its class, and a cause without payload.

For the job modules only. Expected errors are raised as `CdiError` where they occur.
"""

import json
import logging
import re
from typing import Any

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import AnalysisException, PySparkException

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.full_disk import is_full, reports_full, storage_full
from cdi_dagster.core.log_lines import scrub
from cdi_dagster.storage import (
    Storage,
    StorageError,
    StorageFullError,
    TransientStorageError,
    storage_failure,
)

_log = logging.getLogger(__name__)

_DERBY_IS_OPEN = "Another instance of Derby"
_MEMORY = re.compile(
    r"java\.lang\.OutOfMemoryError|SparkOutOfMemoryError|^(?:pyarrow\.lib\.Arrow)?MemoryError\b"
    r"|exceeding memory limits|exceeding physical memory|beyond the 'PHYSICAL' memory limit",
    re.MULTILINE,
)
_TASK_LOST = re.compile("Python worker exited unexpectedly|ExecutorLostFailure|worker lost|FetchFailedException")
_SPARK_LOST = re.compile("Answer from Java side is empty|SparkContext was shut down")
_STORAGE_ERRORS = {kind.__name__: kind for kind in (TransientStorageError, StorageFullError)}
_OF_STORAGE = re.compile(rf"^cdi_dagster\.storage\.\w+\.({'|'.join(_STORAGE_ERRORS)}): (.*)", re.MULTILINE)
"""The last line of a Python worker's traceback: Spark passes a task's error on as text."""
_MOST_CAUSES = 30

_OF_A_TASK = re.compile(
    r"Job aborted due to stage failure|Lost task \d|SQLSTATE: 22|\[(CAST_|FAILED_|INCONSISTENT_BEHAVIOR)"
)
_JAVA_ERROR = re.compile(r"(?<![\w.$])(?:[a-z]\w*\.)+([A-Z]\w*(?:Exception|Error))(?=[:\s])")
_SPARK_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_.]{4,60})\]")


def failure_of(error: Exception) -> CdiError:
    """Return the failure of an error; a `CdiError` is returned unchanged."""
    if isinstance(error, CdiError):
        return error
    text = "\n".join([str(error), *_java_causes(error)])
    if _DERBY_IS_OPEN in text:
        return CdiError(
            FailureClass.LAUNCH_FAILED,
            "Another local Spark process has the metastore open (an embedded Derby database, one process at a time).",
            next_step="Wait until the other one has ended and run again, or run with another CDI_HOME.",
        )
    if isinstance(error, StorageError):
        return storage_failure(error)
    if of_storage := _OF_STORAGE.search(text):
        return storage_failure(_STORAGE_ERRORS[of_storage[1]](of_storage[2]))
    if is_full(error) or reports_full(text):  # also what keeps Spark from spilling or fetching
        return storage_full(
            f"A disk is full: {_gist(error)}.",
            next_step="Free space where the published root, Spark's scratch folder (CDI_HOME) and the temp folder are, "
            "then run the day again.",
        )
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return CdiError(FailureClass.OUT_OF_MEMORY, f"Spark ran out of memory: {_line(_MEMORY, text) or _gist(error)}.")
    if lost := _line(_TASK_LOST, text):
        return CdiError(
            FailureClass.CLUSTER_LOST,
            "A task was lost as often as Spark tries one: its worker process or machine ended under it (a worker that "
            f"the system kills for memory looks the same). {lost}",
        )
    if isinstance(error, Py4JNetworkError | ConnectionRefusedError) or _SPARK_LOST.search(text):
        return CdiError(FailureClass.CLUSTER_LOST, "Spark itself ended under the job.")
    return CdiError(FailureClass.JOB_FAILED, f"{type(error).__name__}: {_gist(error)}")


def _java_causes(error: Exception) -> list[str]:
    """Return the texts of the Java exceptions of an error: PySpark's own text has the outermost only."""
    # `_origin` of PySpark's errors has no public name; py4j's own errors have `java_exception`.
    cause: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    texts: list[str] = []
    try:
        while cause is not None and len(texts) < _MOST_CAUSES:
            texts.append(str(cause.toString()))
            cause = cause.getCause()
    except (Py4JError, OSError):
        return texts  # the JVM is gone
    return texts


def _line(sign: re.Pattern[str], text: str) -> str:
    """Return the line that has the sign, scrubbed: Spark's own, the row of a task's error is not on it."""
    return next((scrub(line.strip().lstrip(": ")) for line in text.splitlines() if sign.search(line)), "")


def _gist(error: Exception) -> str:
    """Return the first non-empty line, scrubbed: Spark's errors quote plans and values further down.

    For an error within a task, only its class and Spark's error condition: its text may quote the row.
    """
    if isinstance(error, Py4JError) and getattr(error, "java_exception", None) is not None:
        text = str(error.java_exception)
    else:
        text = str(error)
    if _OF_A_TASK.search(text) or _is_of_running(error):
        names = dict.fromkeys(_JAVA_ERROR.findall(text) + _SPARK_CONDITION.findall(text))
        return f"a task failed with {', '.join(names) or 'an error without a name'}; its text may hold payload"
    return scrub(next((line for line in text.splitlines() if line.strip()), "it gave no reason"))


def _is_of_running(error: Exception) -> bool:
    """Whether the error is from running, not planning: Spark 4 gives errors of tasks without a frame."""
    from_java = isinstance(error, PySparkException) and getattr(error, "_origin", None) is not None
    return from_java and not isinstance(error, AnalysisException)


def write_failure(published: Storage, key: str, failure: CdiError) -> None:
    """Write why a job failed where `cdi` finds it; the reporter reports it in any case."""
    try:
        published.write(key, json.dumps(failure.to_json(), indent=1).encode())
    except StorageError as error:
        _log.warning("The failure could not be written to %s: %s", key, error)
