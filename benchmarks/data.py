"""The storage day that the benchmark reads: written once from a seed, by as many processes as there are cores.

The records are the sample writer's. Kept below one folder, with a stamp file once it is complete.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from operator import add
from pathlib import Path
from random import Random
from typing import Final

from cdi_dagster.core.collections import find_collection
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.storage import open_storage

COLLECTION: Final = find_collection("data:businessAudit")
STORAGE_DAY: Final = date(2023, 3, 26)
_STAMP: Final = "whole.json"
_WORTH_PROCESSES: Final = 5_000
"""Records; fewer are written faster in one process."""


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """What to write.

    Attributes:
        records: envelopes in all.
        objects: raw objects in all, of uneven size.
        bad_envelopes: how many envelopes of each object are broken.
        keys_per_object: distinct data keys in each object.
        seed: another seed makes another day of the same shape.
    """

    records: int
    objects: int
    bad_envelopes: int = 0
    keys_per_object: int = 2
    seed: int = 1

    @property
    def name(self) -> str:
        """A folder name with all of these."""
        parts = (self.records, self.objects, self.bad_envelopes, self.keys_per_object, self.seed)
        return "day-" + "-".join(str(part) for part in parts)


@dataclass(frozen=True, kw_only=True)
class SampleDay:
    """A written day.

    Attributes:
        folder: its corporate root.
        size: the requested size.
        stored_bytes: compressed bytes of its objects.
        plaintext_bytes: bytes of its records before encryption.
        bad_envelopes: broken envelopes in all.
    """

    folder: Path
    size: SampleSize
    stored_bytes: int
    plaintext_bytes: int
    bad_envelopes: int


def sample_day(folder: Path, size: SampleSize, log: Callable[[str], None]) -> SampleDay:
    """Return the day of this size below `folder`, written now unless it exists."""
    day_folder = folder / size.name
    stamp = day_folder / _STAMP
    if not stamp.exists():
        log(f"writing {size.records:,} records in {size.objects:,} objects")
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps(_write(day_folder, size, log)))
    stored_bytes, plaintext_bytes, bad_envelopes = json.loads(stamp.read_text())
    return SampleDay(
        folder=day_folder,
        size=size,
        stored_bytes=stored_bytes,
        plaintext_bytes=plaintext_bytes,
        bad_envelopes=bad_envelopes,
    )


@dataclass(frozen=True, kw_only=True)
class _ObjectPlan:
    number: int
    first_offset: int
    records: int


def _write(folder: Path, size: SampleSize, log: Callable[[str], None]) -> tuple[int, ...]:
    """Write every object; return stored bytes, plaintext bytes and broken envelopes of all."""
    plans = _plan(size)
    totals: tuple[int, ...] = (0, 0, 0)
    with ExitStack() as stack:
        for done, counts in enumerate(_each_written(folder, size, plans, stack), start=1):
            totals = tuple(map(add, totals, counts))
            if done * 10 // len(plans) > (done - 1) * 10 // len(plans):
                log(f"written {done:,} of {len(plans):,} objects")
    return totals


def _each_written(
    folder: Path, size: SampleSize, plans: Sequence[_ObjectPlan], stack: ExitStack
) -> Iterable[tuple[int, int, int]]:
    workers = min(os.cpu_count() or 1, len(plans))
    write = partial(_write_object, folder, size)
    if workers == 1 or size.records < _WORTH_PROCESSES:
        return map(write, plans)
    pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
    # In chunks: otherwise each small object would cost a round trip.
    return pool.map(write, plans, chunksize=math.ceil(len(plans) / (8 * workers)))


def _plan(size: SampleSize) -> Sequence[_ObjectPlan]:
    """Split the records over the objects, uneven as K2HB's batches are, at least one in each."""
    random = Random(size.seed)  # noqa: S311 - reproducible on purpose
    weights = [random.uniform(0.5, 1.5) for _ in range(size.objects)]
    scale = (size.records - size.objects) / sum(weights)
    counts = [1 + int(weight * scale) for weight in weights]
    for number in range(size.records - sum(counts)):
        counts[number % size.objects] += 1
    offsets = accumulate(counts, initial=0)
    return [
        _ObjectPlan(number=number, first_offset=first_offset, records=records)
        for number, (first_offset, records) in enumerate(zip(offsets, counts, strict=False))
    ]


def _write_object(folder: Path, size: SampleSize, plan: _ObjectPlan) -> tuple[int, int, int]:
    """Write one object and return its stored, plaintext and broken sizes."""
    summary = write_sample(
        open_storage(folder.as_uri()),
        COLLECTION.on(STORAGE_DAY),
        records=plan.records,
        objects=1,
        seed=size.seed * 1_000_003 + plan.number,
        bad_envelopes=min(size.bad_envelopes, plan.records),
        kafka_partitions=1,
        keys_per_object=min(size.keys_per_object, plan.records),
        first_offsets={0: plan.first_offset},
    )
    return summary.stored_bytes, summary.plaintext_bytes, summary.bad_envelopes


def describe(day: SampleDay) -> dict[str, object]:
    """Return the day's figures for machines."""
    return {
        **asdict(day.size),
        "stored_bytes": day.stored_bytes,
        "plaintext_bytes": day.plaintext_bytes,
        "bad_envelopes_in_all": day.bad_envelopes,
    }
