"""Reports from a Spark job to its launcher: progress, the closing report, a failure.

The only module that knows Dagster Pipes. Without Pipes it only logs. Imported by the job modules; no logic of a job
belongs here.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    DagsterPipesError,
    PipesContext,
    PipesContextLoader,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    PipesMappingParamsLoader,
    PipesMessageWriter,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
)

from cdi_dagster.aws.clients import client, work_on_node
from cdi_dagster.core.failures import CdiError
from cdi_dagster.storage import Encryption, encrypt_writes, use_encryption

_log = logging.getLogger(__name__)
_S3_MESSAGE_INTERVAL_SECONDS = 3


class Reporter:
    """Reports to the log and, if there is a Pipes session, to the launcher."""

    def __init__(self, pipes: PipesContext | None = None) -> None:
        self._pipes = pipes

    def progress(self, text: str, **numbers: float | int | str | None) -> None:
        """Report progress. Never fails the job: if sending fails, that is only logged."""
        _log.info(text)
        try:
            self._send({"kind": "progress", "text": text, **numbers})
        except (OSError, DagsterPipesError) as error:
            _log.warning("Progress could not be sent to the launcher: %s", type(error).__name__)

    def report(self, step: str, report: Mapping[str, Any]) -> None:
        """Send the closing report. For the launcher the job succeeded only if this arrives."""
        totals = report.get("totals", {})
        _log.info("%s is done: %s", step, json.dumps(totals, sort_keys=True, default=str))
        self._send({"kind": "report", "step": step, "report": dict(report)})

    def failure(self, failure: CdiError) -> None:
        """Send the failure of the job."""
        _log.error("%s", failure)
        self._send({"kind": "failure", "failure": failure.to_json()})

    def _send(self, message: dict[str, Any]) -> None:
        if self._pipes is not None:
            self._pipes.report_custom_message(message)


@contextmanager
def open_reporter(argv: Sequence[str]) -> Iterator[tuple[Reporter, list[str]]]:
    """Open the Pipes session that the arguments name, if any, and close it at the end.

    What the job's requests to AWS need comes first, for on a cluster reports go to S3 too: the region, and the
    encryption to write with. (Executors get both by `spark.executorEnv`.)

    Yields:
        The reporter, and the arguments without those of Pipes, region and encryption.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dagster-pipes-context")
    parser.add_argument("--dagster-pipes-messages")
    parser.add_argument("--aws-region")
    parser.add_argument("--s3-encryption", default="")
    parser.add_argument("--s3-kms-key", default="")
    found, rest = parser.parse_known_args(list(argv))
    if found.aws_region is not None:
        work_on_node(found.aws_region)
    if found.s3_encryption:
        use_encryption(Encryption(algorithm=found.s3_encryption, kms_key=found.s3_kms_key))
    if found.dagster_pipes_context is None or found.dagster_pipes_messages is None:
        yield Reporter(), rest
        return
    params = PipesMappingParamsLoader(
        {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: found.dagster_pipes_context,
            DAGSTER_PIPES_MESSAGES_ENV_VAR: found.dagster_pipes_messages,
        }
    )
    pipes = PipesContext(
        params,
        _context_loader(params.load_context_params()),
        _message_writer(params.load_messages_params()),
    )
    try:
        yield Reporter(pipes), rest
    finally:
        pipes.close()


@contextmanager
def correlated_logging(correlation_id: str) -> Iterator[None]:
    """Send our log lines to standard error, each with the UTC time and the correlation id."""
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)s [{correlation_id.replace('%', '%%')}] %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = _StandardErrorHandler()
    handler.setFormatter(formatter)
    ours = logging.getLogger("cdi_dagster")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


class _StandardErrorHandler(logging.Handler):
    """Writes to the current standard error, also if it is redirected later."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


def _context_loader(params: Mapping[str, Any]) -> PipesContextLoader:
    """Choose by the launcher's parameters: a file or inline on the same machine, a bucket on EMR."""
    return PipesS3ContextLoader(_s3_client()) if "bucket" in params else PipesDefaultContextLoader()


def _message_writer(params: Mapping[str, Any]) -> PipesMessageWriter[Any]:
    if "bucket" in params:
        return PipesS3MessageWriter(_s3_client(), interval=_S3_MESSAGE_INTERVAL_SECONDS)
    return PipesDefaultMessageWriter()


def _s3_client() -> Any:
    return encrypt_writes(client("s3"))
