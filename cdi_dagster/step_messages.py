"""What a Spark job reports through Dagster Pipes: progress goes to the run page, report and failure are kept.

For every step launcher, wherever the job runs.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg


class StepMessages:
    """Reads a Pipes session's messages; call `drain` regularly from the thread that runs the step.

    Attributes:
        report: the job's closing report, once it has arrived.
        failure: why the job failed (`CdiError.to_json`), once it has reported that.
    """

    def __init__(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, session: dg.PipesSession) -> None:
        self.report: Mapping[str, Any] | None = None
        self.failure: Mapping[str, Any] | None = None
        self._context = context
        self._session = session
        self._seen = 0

    def drain(self) -> None:
        """Process every message that has arrived since the last call."""
        messages = self._session.get_custom_messages()
        for message in messages[self._seen :]:
            self._process(message)
        self._seen = len(messages)

    def _process(self, message: Any) -> None:
        kind = message.get("kind") if isinstance(message, Mapping) else None
        if kind == "progress":
            self._context.log.info(str(message.get("text")))
        elif kind == "report":
            self.report = message["report"]
        elif kind == "failure":
            self.failure = message["failure"]
        else:
            self._context.log.warning("The Spark job sent a message of a kind that this version does not know.")
