"""Progress is a sentence on the run page: right when all goes well, silent otherwise, and never in the way."""

import socket
from contextlib import closing
from datetime import date

import pytest

from cdi_dagster.core.pinned_input import PinnedInput, PinnedObject
from cdi_dagster.spark.ingest.progress import ProgressAddress, ProgressBoard, ProgressSender

PINNED = PinnedInput(
    collection_id="data:businessAudit",
    storage_day=date(2023, 3, 26),
    corporate_root="file:///corporate",
    fingerprint="f",
    objects=tuple(
        PinnedObject(key=f"data.businessAudit_0_{n}-{n}.jsonl.gz", size_bytes=5_000_000, etag="e", version_id=None)
        for n in range(4)
    ),
    left_out=(),
    gaps=(),
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_the_tasks_say_becomes_objects_bytes_rate_and_time_left() -> None:
    clock = Clock()
    with ProgressBoard("127.0.0.1", objects=len(PINNED.objects), input_bytes=PINNED.input_bytes, clock=clock) as board:
        assert board.text() == "0 of 4 objects read; waits for Spark to start the first worker"
        send(board, 0, 0, 0)
        waiting = "0 of 4 objects read; waits for their first bytes from corporate storage, or their data keys"
        assert board.text() == waiting
        for task, objects, compressed_bytes in [(0, 0, 1_000_000), (1, 1, 5_000_000), (0, 1, 7_000_000)]:
            send(board, task, objects, compressed_bytes)
        clock.now += 4
        assert board.text() == "2 of 4 objects, 12.0 MB of 20.0 MB, 3.0 MB/s, about 3 s left"
        assert board.numbers()["seconds_left"] == 2.7


def test_progress_that_stops_states_what_it_waits_for() -> None:
    clock = Clock()
    with ProgressBoard("127.0.0.1", objects=2, input_bytes=3_000, clock=clock) as board:
        send(board, 0, 1, 900)
        clock.now += 30
        send(board, 0, 1, 900)  # alive, but no further
        assert board.text() == (
            "1 of 2 objects, 900 B of 3.0 kB; nothing for 30 s: waits for corporate storage, data keys or the "
            "published root"
        )
        send(board, 0, 1, 1_500)
        assert board.text() == "1 of 2 objects, 1.5 kB of 3.0 kB, 50 B/s, about 30 s left"
        send(board, 0, 2, 3_000)
        assert board.text() == "2 of 2 objects, 3.0 kB of 3.0 kB; waits for the last records to be written"


def send(board: ProgressBoard, task: int, objects: int, compressed_bytes: int) -> None:
    """Send what a task has done, and let the board receive it."""
    with closing(ProgressSender(board.address, task)) as sender:
        sender.done(objects=objects, compressed_bytes=compressed_bytes)
    board.listen()


def test_foreign_and_broken_datagrams_change_nothing() -> None:
    with ProgressBoard("127.0.0.1", objects=len(PINNED.objects), input_bytes=PINNED.input_bytes) as board:
        assert board.address is not None
        before = board.numbers()["bytes_done"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in (
                b"",
                b"\xff",
                b"[1]",
                b"{}",
                b'["token", 0, 1, 5]',
                f'["{board.address.token}", null, 1, "x"]',
            ):
                payload = datagram.encode() if isinstance(datagram, str) else datagram
                stranger.sendto(payload, (board.address.host, board.address.port))
        board.listen()
        assert board.numbers()["bytes_done"] == before


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_driver_that_cannot_be_reached_does_not_stop_a_task(host: str) -> None:
    sender = ProgressSender(ProgressAddress(host=host, port=9, token="t"), 0)
    for _ in range(3):
        sender.done(objects=1, compressed_bytes=1, last=True)
    sender.close()
    ProgressSender(None, 0).done(objects=1, compressed_bytes=1)


def test_a_board_without_a_socket_still_speaks() -> None:
    with ProgressBoard("no-such-host.invalid", objects=len(PINNED.objects), input_bytes=PINNED.input_bytes) as board:
        assert board.address is None
        board.listen()
        assert board.text().startswith("0 of 4 objects")
