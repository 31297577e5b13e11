"""What the runs amount to, and how it is said."""

from pathlib import Path

import pytest
from isal import igzip

from benchmarks.contenders import Contender, Run
from benchmarks.data import SampleDay, SampleSize
from benchmarks.figures import Case, cpu_seconds, goals, wall_seconds
from benchmarks.line_digest import LineDigest, digest_lines
from benchmarks.measured_process import Measured
from benchmarks.report import BEGIN, END, as_markdown, write_into

NOTHING = LineDigest(lines=0, text_bytes=0, digest_sum=0)


def day_of(records: int, objects: int = 16) -> SampleDay:
    size = SampleSize(records=records, objects=objects)
    return SampleDay(folder=Path("/day"), size=size, stored_bytes=1, plaintext_bytes=1, bad_envelopes=0)


def run_of(wall: float, cpu: float = 1.0) -> Run:
    took = Measured(wall_seconds=wall, cpu_seconds=cpu, own_cpu_seconds=0.5, largest_process_bytes=1, log=())
    return Run(measured=took, reading_seconds=wall, records=NOTHING, rejected={})


def case_of(*rounds: tuple[float, float], records: int = 320_000, objects: int = 16) -> Case:
    return Case(
        day=day_of(records, objects),
        rounds=[{Contender.CHAIN: run_of(chain), Contender.JOB: run_of(job)} for chain, job in rounds],
    )


def test_ratios_are_taken_within_a_round() -> None:
    # A busy minute slowed both runs of the second round; across rounds the ratio would be anything.
    case = case_of((60, 10), (600, 100), (70, 10))
    assert case.ratio(Contender.CHAIN, Contender.JOB, wall_seconds) == 6
    assert case.median(Contender.JOB, wall_seconds) == 10
    assert case.ratio(Contender.CHAIN, Contender.JOB, cpu_seconds) == 1


@pytest.mark.parametrize(
    ("records", "objects", "wanted"), [(320_000, 16, 6), (1_280_000, 16, 9), (320_000, 2_000, 30), (20_000, 16, None)]
)
def test_goals_depend_on_the_day(records: int, objects: int, wanted: float | None) -> None:
    found = [goal for goal in goals(case_of((90, 10), records=records, objects=objects)) if "wall" in goal.name]
    assert [goal.at_least for goal in found] == ([wanted] if wanted else [])
    assert all(goal.met is (9 >= wanted) for goal in found if wanted)


def test_the_same_lines_have_the_same_digest_however_they_are_divided(tmp_path: Path) -> None:
    def digest(*files: bytes) -> LineDigest:
        paths = [tmp_path / f"part-{number}.gz" for number in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(igzip.compress(content))
        return digest_lines(paths)

    assert digest(b"a\nb\nb\n") == digest(b"b\n", b"b\na\n")
    assert digest(b"a\nb\nb\n") != digest(b"a\na\nb\n")
    assert digest(b"a\nb\nb\n") != digest(b"a\nb\n")


def test_tables_go_between_the_marks_of_a_document(tmp_path: Path) -> None:
    text = as_markdown([case_of((90, 10))], {"gunzip": 1.5}, command="make bench", setting="local[2]")
    assert ["", "wall, whole process, s", "90.0", "10.0", "9.0x", ""] in [
        [cell.strip() for cell in line.split("|")] for line in text.splitlines()
    ]
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_into(document, text)
    write_into(document, text)
    assert document.read_text() == f"before\n{BEGIN}\n\n{text}\n\n{END}\nafter\n"
    document.write_text("no marks")
    with pytest.raises(ValueError, match="put <!-- figures"):
        write_into(document, text)
