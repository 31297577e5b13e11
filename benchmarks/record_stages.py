"""The cost of one record, stage by stage, in one process without Spark.

    python benchmarks/record_stages.py --records 20000 [--seed 1] [--rounds 5] [--json]

Invents audit records (about 1.4 kB of plaintext each, the same for the same seed), encrypts them into gzipped raw
objects below a temporary folder, and takes the CPU time of every stage over blocks as the job reads them: the best of
some rounds, because other processes only add to it. `engine` is `RecordEngine.process`, which does envelope to dates
itself; `total` is gunzip, engine and compress as one loop.
"""

import argparse
import base64
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import orjson
from isal import isal_zlib

from cdi_dagster.core.collections import find_collection, record_rules
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.spark.records import fast
from cdi_dagster.spark.records.decrypt import DecryptorCache, decode_base64
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.spark.records.envelope import parse_envelope
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster.storage.files import FileStorage

BLOCK_LINES = 200
_GZIP = 31  # zlib's window bits for a gzip member
_COLLECTION = find_collection("data:businessAudit")
_MODIFIED = "2023-03-26T11:07:30.076+0000"


@dataclass(frozen=True, kw_only=True)
class Result:
    """CPU µs a record, by stage, and the size of the input."""

    records: int
    plaintext_bytes: int
    fallbacks: int
    microseconds: Mapping[str, float]


class _ReversedKeys:
    """Unwraps the sample's data keys without a key service."""

    def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        return {ref: base64.b64decode(ref.encrypted_data_key)[::-1] for ref in refs}


def sample_objects(records: int, seed: int) -> tuple[list[bytes], int]:
    """Return gzipped raw objects with that many envelopes, and the bytes of their plaintexts."""
    with tempfile.TemporaryDirectory() as folder:
        storage = FileStorage(f"file://{folder}")
        summary = write_sample(
            storage, _COLLECTION.on(date(2023, 3, 26)), records=records, objects=max(1, records // 5000), seed=seed
        )
        return [storage.read(key) for key in summary.keys], summary.plaintext_bytes


def gunzip(stored: bytes) -> list[list[bytes]]:
    """Return the blocks of one object."""
    lines = isal_zlib.decompress(stored, _GZIP).splitlines()
    return [lines[start : start + BLOCK_LINES] for start in range(0, len(lines), BLOCK_LINES)]


def measure(records: int, seed: int, rounds: int) -> Result:
    """Measure every stage."""
    objects, plaintext_bytes = sample_objects(records, seed)
    blocks = [block for stored in objects for block in gunzip(stored)]
    engine = RecordEngine(_COLLECTION, _ReversedKeys())
    outputs = [engine.process(block) for block in blocks]

    def each_record(result: Any) -> Any:
        return isal_zlib.compress(result.records, 1, wbits=_GZIP)

    def whole(stored: bytes) -> None:
        for block in gunzip(stored):
            each_record(engine.process(block))

    best = Best(records, rounds)
    costs = {"gunzip": best(gunzip, objects)}
    costs |= _stages(blocks, best)
    costs["compress"] = best(each_record, outputs)
    costs["engine"] = best(engine.process, blocks)
    costs["total"] = best(whole, objects)
    return Result(
        records=records,
        plaintext_bytes=plaintext_bytes,
        fallbacks=sum(output.fallbacks for output in outputs),
        microseconds={stage: round(cost, 2) for stage, cost in costs.items()},
    )


class Best:
    """Times work: the best of some rounds."""

    def __init__(self, records: int, rounds: int) -> None:
        self._records = records
        self._rounds = rounds

    def __call__(self, work: Callable[[Any], Any], items: Sequence[Any]) -> float:
        """Return the CPU µs a record that `work` takes over all items: each item's best of the rounds, summed."""
        best = [float("inf")] * len(items)
        for _ in range(self._rounds):
            for index, item in enumerate(items):
                begun = time.process_time_ns()
                work(item)
                best[index] = min(best[index], time.process_time_ns() - begun)
        return sum(best) / 1000 / self._records


def _stages(blocks: Sequence[Sequence[bytes]], best: Best) -> dict[str, float]:
    """Take the engine apart: each stage by itself over all blocks."""
    rules = record_rules(_COLLECTION.db, _COLLECTION.name)
    envelopes = [[parse_envelope(line, rules) for line in block] for block in blocks]
    decryptors = DecryptorCache(_ReversedKeys()).decryptors({e.key for block in envelopes for e in block}, None)
    encrypted = [
        [(decryptors[e.key], decode_base64(e.initialisation_vector), decode_base64(e.ciphertext)) for e in block]
        for block in envelopes
    ]

    def aes(item: Any) -> bytes:
        decryptor, counter, ciphertext = item
        decryptor.reset_nonce(counter)
        return bytes(decryptor.update(ciphertext))

    def over(work: Callable[[Any], Any]) -> Callable[[Sequence[Any]], list[Any]]:
        return lambda block: [work(item) for item in block]

    def decoded(envelope: Any) -> tuple[bytes, bytes]:
        return decode_base64(envelope.initialisation_vector), decode_base64(envelope.ciphertext)

    plaintexts = [[aes(item) for item in block] for block in encrypted]
    contexts = [[orjson.loads(plaintext)["context"] for plaintext in block] for block in plaintexts]
    written = [[fast.write(plaintext, _MODIFIED, "", rules) or b"" for plaintext in block] for block in plaintexts]
    dump = over(lambda context: orjson.dumps(context, None, orjson.OPT_SORT_KEYS))
    write = over(lambda plaintext: fast.write(plaintext, _MODIFIED, "", rules))
    costs = {
        "envelope": best(over(lambda line: parse_envelope(line, rules)), blocks),
        "base64": best(over(decoded), envelopes),
        "aes": best(over(aes), encrypted),
        "payload": best(over(orjson.loads), plaintexts),
        "dump": best(dump, contexts),
        "dates and sanitising": best(lambda texts: fast.finish(b"\n".join([*texts, b""]), rules), written),
    }
    return {**costs, "stamping": best(write, plaintexts) - costs["payload"] - costs["dump"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The cost of one record, stage by stage, in CPU µs.")
    parser.add_argument("--records", type=int, default=20_000, help="audit records to invent (default 20000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    result = measure(arguments.records, arguments.seed, arguments.rounds)
    if arguments.json:
        print(json.dumps(asdict(result)))
        return 0
    mean = result.plaintext_bytes / result.records
    print(f"{result.records:,} audit records, {mean:,.0f} bytes of plaintext each, CPU µs a record:")
    for stage, cost in result.microseconds.items():
        print(f"  {stage:<24}{cost:8.2f}")
    print(f"took the plain algorithm: {result.fallbacks} ({result.fallbacks / result.records:.3%})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
