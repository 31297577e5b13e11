"""A job without Spark that reports as the real ones do, and does what the test has it do.

`--plays` is a list for each step of the account, of words: `progress:<text>`, `report`, `bad-report`,
`failure:<class>`, `stderr:<text>`, `wait:<path>`, `exit:<code>`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.reporting import Reporter, open_reporter

_really_sleep = time.sleep
REPORT = {"objects": [{"key": "a.gz", "read": 3, "published": 2, "rejected": {"date": 1}}], "totals": {"read": 3}}
BAD_REPORT = {"objects": [{"key": "a.gz", "read": 3, "published": 2, "rejected": {}}]}


def play(word: str, reporter: Reporter) -> int | None:
    name, _, value = word.partition(":")
    if name == "progress":
        reporter.progress(value)
    elif name == "report":
        reporter.report("ingest_daily", REPORT)
    elif name == "bad-report":
        reporter.report("ingest_daily", BAD_REPORT)
    elif name == "failure":
        reporter.failure(CdiError(FailureClass(value), "As played."))
        return 1
    elif name == "stderr":
        print(value, file=sys.stderr)
    elif name == "wait":
        deadline = time.monotonic() + 600
        while not Path(value).exists() and time.monotonic() < deadline:
            _really_sleep(0.02)
    elif name == "exit":
        return int(value)
    return None


def main(argv: list[str]) -> int:
    # Pipes sends messages every few seconds; a test would spend its time on that.
    time.sleep = lambda seconds: _really_sleep(min(float(seconds), 0.05))
    with open_reporter(argv) as (reporter, rest):
        parser = argparse.ArgumentParser()
        parser.add_argument("--plays", type=json.loads)
        parser.add_argument("--correlation-id")
        parser.add_argument("--pinned-input")
        arguments = parser.parse_args(rest)
        # Each cluster has a folder beside the others', steps run in it, and each has a folder for its logs.
        number = len(list(Path.cwd().parent.glob("*/steps/*")))
        for word in arguments.plays[min(number, len(arguments.plays)) - 1]:
            ended = play(word, reporter)
            if ended is not None:
                return ended
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
