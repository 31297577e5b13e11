"""What an unexpected error in a Spark job means: the failure class, and a cause without payload.

For the job modules only. What a module knows to be wrong it raises as `CdiError` itself; this is for the rest.
"""

import re
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.log_lines import scrub
from cdi_dagster.storage import StorageError, storage_failure

_DERBY_IS_OPEN = "Another instance of Derby"
_MEMORY = ("java.lang.OutOfMemoryError", "SparkOutOfMemoryError")
_DISK_FULL = "No space left on device"
_MOST_CAUSES = 30

_OF_A_TASK = re.compile(
    r"Job aborted due to stage failure|Lost task \d|SQLSTATE: 22|\[(CAST_|FAILED_|INCONSISTENT_BEHAVIOR)"
)
_JAVA_ERROR = re.compile(r"(?<![\w.$])(?:[a-z]\w*\.)+([A-Z]\w*(?:Exception|Error))(?=[:\s])")
_SPARK_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_.]{4,60})\]")


def failure_of(error: Exception) -> CdiError:
    """Return the failure that an error amounts to; a `CdiError` is returned as it is."""
    if isinstance(error, CdiError):
        return error
    text = "\n".join([str(error), *_java_causes(error)])
    if _DERBY_IS_OPEN in text:
        return CdiError(
            FailureClass.LAUNCH_FAILED,
            "Another local Spark process has the metastore open (an embedded Derby database, one process at a time).",
            next_step="Wait until the other one has ended and run again, or run with another CDI_HOME.",
        )
    if any(sign in text for sign in _MEMORY):
        return CdiError(FailureClass.OUT_OF_MEMORY, f"Spark ran out of memory: {_gist(error)}.")
    if _DISK_FULL in text:
        return CdiError(
            FailureClass.JOB_FAILED,
            f"A disk is full: {_gist(error)}.",
            next_step="Make room where the published root and Spark's scratch folder lie, then run again.",
        )
    if isinstance(error, StorageError):
        return storage_failure(error)
    return CdiError(FailureClass.JOB_FAILED, f"{type(error).__name__}: {_gist(error)}")


def _java_causes(error: Exception) -> list[str]:
    """Return what the Java exceptions below an error say: PySpark's own text is of the outermost only."""
    # `_origin` of PySpark's errors has no public name; py4j's own errors have `java_exception`.
    cause: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    said: list[str] = []
    try:
        while cause is not None and len(said) < _MOST_CAUSES:
            said.append(str(cause.toString()))
            cause = cause.getCause()
    except (Py4JError, OSError):
        return said  # the JVM is gone
    return said


def _gist(error: Exception) -> str:
    """Return the first line that says something, scrubbed: Spark's errors quote plans and values further down.

    Of an error within a task only its class and Spark's name for it: it may quote the row it failed on.
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
    """Whether PySpark says that it is no error of planning: Spark 4 gives those of tasks without a frame."""
    from_java = isinstance(error, PySparkException) and getattr(error, "_origin", None) is not None
    return from_java and not isinstance(error, AnalysisException)
