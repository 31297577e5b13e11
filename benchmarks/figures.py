"""The figures of the measured runs: medians, ratios, goals. Pure; `report` formats them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.contenders import Contender, Run
from benchmarks.data import SampleDay, describe


@dataclass(frozen=True, kw_only=True)
class Case:
    """All runs over one day.

    Attributes:
        day: the input.
        rounds: the runs of each round; each has the same contenders.
    """

    day: SampleDay
    rounds: Sequence[Mapping[Contender, Run]]

    def has(self, contender: Contender) -> bool:
        """Return whether this contender was measured."""
        return all(contender in runs for runs in self.rounds)

    @property
    def has_tables(self) -> bool:
        """Return whether chain and job made the tables too."""
        return all(
            runs[contender].tables is not None
            for runs in self.rounds
            for contender in (Contender.CHAIN, Contender.JOB)
            if contender in runs
        )

    def median(self, contender: Contender, of: Callable[[Run], float]) -> float:
        """Return the median of one figure over the rounds."""
        return median(of(runs[contender]) for runs in self.rounds)

    def ratio(self, one: Contender, other: Contender, of: Callable[[Run], float]) -> float:
        """Return the median of a round's ratio: only runs of the same round are compared."""
        return median(of(runs[one]) / of(runs[other]) for runs in self.rounds)


def wall_seconds(run: Run) -> float:
    """The whole process: Java, Spark and Python starting and ending included."""
    return run.measured.wall_seconds


def reading_seconds(run: Run) -> float:
    """From the start of reading, with Spark running, to the end of the process."""
    return run.reading_seconds


def cpu_seconds(run: Run) -> float:
    """User and system time of all processes."""
    return run.measured.cpu_seconds


def tables_wall_seconds(run: Run) -> float:
    """The process that makes the tables."""
    return run.tables.measured.wall_seconds if run.tables else 0.0


def tables_cpu_seconds(run: Run) -> float:
    """User and system time of all processes that make the tables."""
    return run.tables.measured.cpu_seconds if run.tables else 0.0


def tables_jvm_cpu_seconds(run: Run) -> float:
    """The JVM's part of the tables' CPU."""
    return run.tables.measured.own_cpu_seconds if run.tables else 0.0


def day_wall_seconds(run: Run) -> float:
    """Records, then tables: what somebody waits for."""
    return wall_seconds(run) + tables_wall_seconds(run)


def day_cpu_seconds(run: Run) -> float:
    """User and system time of records and tables."""
    return cpu_seconds(run) + tables_cpu_seconds(run)


def jvm_cpu_seconds(run: Run) -> float:
    """The JVM's part of the CPU (for the floor: all)."""
    return run.measured.own_cpu_seconds


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One goal and whether these runs meet it.

    Attributes:
        name: the goal.
        value: the measured value.
        at_least: bound below, or None.
        at_most: bound above, or None.
    """

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


_SMALL_OBJECT_RECORDS: Final = 1_000
"""Objects with fewer records than this are of a day on which K2HB did not batch."""


def goals(case: Case) -> list[Goal]:
    """Return the goals for this size: for days of at least 320,000 records (fixed costs dominate smaller ones)."""
    size = case.day.size
    records = size.records - case.day.bad_envelopes
    if records < 320_000:
        return []
    small_objects = size.records / size.objects < _SMALL_OBJECT_RECORDS
    large = records >= 1_280_000
    found = []
    if case.has(Contender.CHAIN):
        cpu = case.ratio(Contender.CHAIN, Contender.JOB, cpu_seconds)
        found.append(Goal(name="CPU of the plain chain by the job's", value=cpu, at_least=7))
        wall = case.ratio(Contender.CHAIN, Contender.JOB, wall_seconds)
        bound = 30 if small_objects else 9 if large else 6
        found.append(Goal(name="wall clock of the plain chain by the job's", value=wall, at_least=bound))
    if case.has(Contender.CHAIN) and case.has_tables and not small_objects:
        for what, of, bound in (
            ("CPU of plain tables by the job's", tables_cpu_seconds, 4),
            ("wall clock of plain tables by the job's", tables_wall_seconds, 4 if large else 3.5),
            ("CPU of the plain day by ours", day_cpu_seconds, 6 if large else None),
            ("wall clock of the plain day by ours", day_wall_seconds, 5 if large else None),
        ):
            value = case.ratio(Contender.CHAIN, Contender.JOB, of)
            if bound:
                found.append(Goal(name=what, value=value, at_least=bound))
    if large and case.has(Contender.FLOOR):
        cpu = case.ratio(Contender.JOB, Contender.FLOOR, cpu_seconds)
        found.append(Goal(name="CPU of the job by the floor's", value=cpu, at_most=1.5))
    if case.has(Contender.SLOW_KEYS):
        loss = case.ratio(Contender.SLOW_KEYS, Contender.JOB, wall_seconds)
        found.append(Goal(name="wall clock with a slow key service by that with a quick one", value=loss, at_most=1.1))
    return found


def for_machines(case: Case) -> dict[str, Any]:
    """Return every run and the figures, as plain JSON values."""
    others = [contender for contender in Contender if contender is not Contender.JOB and case.has(contender)]
    return {
        "day": describe(case.day),
        "runs": [
            {
                str(contender): {
                    "wall_seconds": round(wall_seconds(run), 3),
                    "reading_seconds": round(reading_seconds(run), 3),
                    "cpu_seconds": round(cpu_seconds(run), 3),
                    "jvm_cpu_seconds": None if contender is Contender.FLOOR else round(jvm_cpu_seconds(run), 3),
                    "tables_wall_seconds": round(tables_wall_seconds(run), 3),
                    "tables_cpu_seconds": round(tables_cpu_seconds(run), 3),
                    "tables_bytes": run.tables.stored_bytes if run.tables else 0,
                    "records": run.records.lines,
                    "rejected": dict(run.rejected),
                }
                for contender, run in runs.items()
            }
            for runs in case.rounds
        ],
        "ratios_to_job": {
            str(other): {
                "wall": round(case.ratio(other, Contender.JOB, wall_seconds), 3),
                "reading": round(case.ratio(other, Contender.JOB, reading_seconds), 3),
                "cpu": round(case.ratio(other, Contender.JOB, cpu_seconds), 3),
            }
            for other in others
        },
        "goals": [
            {
                "name": goal.name,
                "value": round(goal.value, 3),
                "at_least": goal.at_least,
                "at_most": goal.at_most,
                "met": goal.met,
            }
            for goal in goals(case)
        ],
    }
