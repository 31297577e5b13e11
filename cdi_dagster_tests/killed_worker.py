"""A run whose worker is killed: by itself, with SIGKILL, at a step of its Spark."""

import os
import signal
from dataclasses import dataclass
from typing import Any

from cdi_dagster.interfaces import LaunchEvidence, PySparkStepLauncher, SparkStep


@dataclass(frozen=True)
class KillsItsWorker:
    """Stands where the step launcher stands, and kills the process that launches.

    Attributes:
        spark: does the work.
        after: the step whose work is done then, unknown to the worker; None for the first, before it begins.
    """

    spark: PySparkStepLauncher
    after: str | None = None

    def launch(self, context: Any, step: SparkStep) -> LaunchEvidence:
        if self.after is None:
            os.kill(os.getpid(), signal.SIGKILL)
        evidence = self.spark.launch(context, step)
        if step.name == self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        return evidence
