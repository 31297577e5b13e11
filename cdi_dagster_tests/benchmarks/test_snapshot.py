"""The comparison of snapshots, at a size that says nothing of speed: both leave the same rows, or it says so."""

from pathlib import Path

import pytest

from benchmarks import snapshot
from benchmarks.snapshot_data import SnapshotInputSize, snapshot_input


@pytest.mark.spark
@pytest.mark.timeout(1800)
def test_the_job_and_the_plain_program_leave_the_same_rows_and_the_figures_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert snapshot.main(["--rows", "2000", "--id-parts", "3", "--rounds", "1", "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "3 id_parts, Spark local[2], 2g, medians of 1 round" in printed
    assert "| 2,000 | ours |" in printed
    assert "| 2,000 | plain |" in printed
    assert list(tmp_path.iterdir()) == []


def test_figures_are_void_where_the_rows_differ(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *_: object) -> snapshot.SnapshotRun:
        measured = snapshot.Measured(
            wall_seconds=1.0, cpu_seconds=1.0, own_cpu_seconds=1.0, largest_process_bytes=1, log=()
        )
        rows = {"id_part=00": snapshot.RowDigest(rows=1, digest_sum=len(name))}
        return snapshot.SnapshotRun(measured=measured, rows=rows, files=1, load=0.0)

    monkeypatch.setattr(snapshot, "_run", run)
    assert snapshot.main(["--rows", "100", "--rounds", "1", "--folder", str(tmp_path)]) == 1
    assert "left different rows of 100" in capsys.readouterr().err


def test_an_input_is_written_once_and_alike(tmp_path: Path) -> None:
    size = SnapshotInputSize(rows=210, id_parts=2)
    written: list[str] = []
    roots = [snapshot_input(tmp_path / name, size, written.append) for name in ("a", "a", "b")]
    assert len(written) == 2
    one, _, other = ({path.relative_to(root): path.read_bytes() for path in root.rglob("*.orc")} for root in roots)
    assert one == other
    assert len(one) == 2 * (1 + 7)
