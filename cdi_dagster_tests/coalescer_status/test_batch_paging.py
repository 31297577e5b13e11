"""AWS Batch pages its lists, which moto does not: unmodified boto3 against a server that pages as Batch does."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest

from cdi_dagster.coalescer_status.batch_jobs import ENDED_STATUSES, LIVE_STATUSES, QUEUES
from cdi_dagster.coalescer_status.batch_status import BatchCoalescerStatus
from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.storage import Roots, open_roots

DAY = date(2023, 3, 26)
NOW = datetime(2023, 3, 27, 9, 30, tzinfo=UTC)
CALCULATOR = find_collection("core:statement")
PAGE, MOST_DESCRIBED = 7, 100


class PagingBatch:
    """Jobs by id, listed in pages of seven; a status that is not named lists nothing but RUNNING."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        self.url = ""

    def submit(self, name: str, status: str, *, queue: str = QUEUES[0], day: str = str(DAY)) -> str:
        job_id = f"job-{len(self.jobs):05d}"
        at = NOW.timestamp() * 1000 - 7_200_000 + len(self.jobs)
        self.jobs[job_id] = {
            "jobId": job_id,
            "jobName": name,
            "jobQueue": queue,
            "status": status,
            "createdAt": at,
            "startedAt": at + 1,
            "jobDefinition": "coalescer",
            "parameters": {"s3-prefix": "corporate_storage/ucfs_main", "date-to-add": day},
            **({"stoppedAt": at + 60_000} if status in ENDED_STATUSES else {}),
        }
        return job_id

    def answer(self, path: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        operation = path.rsplit("/", 1)[-1]
        self.calls[operation] += 1
        if operation == "describejobs":
            if len(request["jobs"]) > MOST_DESCRIBED:
                return 400, {"message": "Too many jobs"}
            return 200, {"jobs": [self.jobs[job_id] for job_id in request["jobs"]]}
        wanted = (request["jobQueue"], request.get("jobStatus", "RUNNING"))
        found = [job for job in self.jobs.values() if (job["jobQueue"], job["status"]) == wanted]
        start = int(request.get("nextToken", "0"))
        page = [{"jobId": job["jobId"], "jobName": job["jobName"]} for job in found[start : start + PAGE]]
        more = {"nextToken": str(start + PAGE)} if start + PAGE < len(found) else {}
        return 200, {"jobSummaryList": page, **more}


@pytest.fixture
def batch() -> Iterator[PagingBatch]:
    paging = PagingBatch()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, answer = paging.answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    paging.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield paging
    server.shutdown()
    server.server_close()


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return open_roots((tmp_path / "corporate").as_uri(), (tmp_path / "published").as_uri())


def source(batch: PagingBatch, roots: Roots) -> BatchCoalescerStatus:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "eu-west-2"}
    return BatchCoalescerStatus(
        lambda: boto3.client("batch", endpoint_url=batch.url, **keys), roots, cache_seconds=0, clock=lambda: NOW
    )


def a_week_of_main(batch: PagingBatch) -> None:
    """Twenty jobs a day for a week, and the day's own twenty last, so that they lie on the last pages."""
    for number in range(140):
        batch.submit(f"run_coalescer_batch_storage_main_partition_{number % 20}", "SUCCEEDED", day="2023-03-20")
    for number in range(20):
        batch.submit(f"run_coalescer_batch_storage_main_partition_{number}", "SUCCEEDED")


def test_all_pages_are_read_and_described_in_hundreds(batch: PagingBatch, roots: Roots) -> None:
    a_week_of_main(batch)
    status = source(batch, roots).status(CALCULATOR.on(DAY))
    assert status.state is CoalescerState.COMPLETE
    assert "20 AWS Batch jobs succeeded" in status.reason
    lists = len(QUEUES) * len((*LIVE_STATUSES, *ENDED_STATUSES))
    assert batch.calls == {"listjobs": lists + 22, "describejobs": 2}  # 160 jobs are 23 pages


@pytest.mark.parametrize("status", [*LIVE_STATUSES, "FAILED"])
def test_the_one_job_on_the_last_page_decides(batch: PagingBatch, status: str, roots: Roots) -> None:
    a_week_of_main(batch)
    for _ in range(20):
        batch.submit("something_else", status, queue=QUEUES[1])
    batch.submit("run_coalescer_batch_storage_main_partition_7", status, queue=QUEUES[1])
    found = source(batch, roots).status(CALCULATOR.on(DAY))
    assert found.state is (CoalescerState.FAILED if status == "FAILED" else CoalescerState.RUNNING)


def test_what_is_known_to_have_ended_is_not_described_again(batch: PagingBatch, roots: Roots) -> None:
    a_week_of_main(batch)
    coalescer = source(batch, roots)
    coalescer.status(CALCULATOR.on(DAY))
    batch.calls.clear()
    batch.submit("run_coalescer_batch_storage_main_partition_3", "RUNNING")
    assert coalescer.status(CALCULATOR.on(DAY)).state is CoalescerState.RUNNING
    assert batch.calls["describejobs"] == 1
