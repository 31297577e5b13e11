"""The plain chain: the baseline, a Spark program that does what `ingest_daily` does, written in the obvious way.

An RDD of text lines, a Python function for each step, keys kept for as long as a task lives, text written by Spark's
own writer with gzip. It publishes the same records as the job and counts the same rejects. It does less than the
job: no conditional reads, no reconciled counts, no kept rejects, no atomic publication. No step is slowed down on
purpose. Run by spark-submit.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

from pyspark import AccumulatorParam, SparkConf, SparkContext

from benchmarks import plain_steps
from benchmarks.plain_steps import Keys, Message, RejectedEnvelope
from cdi_dagster.core.collections import Collection, find_collection
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.spark.ingest.arguments import storage_and_key

Step: TypeAlias = Callable[[Any], Any]

READING = "Reading"
REJECTED = "Rejected by reason: "
_GZIP = "org.apache.hadoop.io.compress.GzipCodec"


class Counts(AccumulatorParam["Counter[str]"]):
    """Adds up rejects by reason."""

    def zero(self, value: "Counter[str]") -> "Counter[str]":
        """Return the count of nothing."""
        return Counter()

    def addInPlace(self, value1: "Counter[str]", value2: "Counter[str]") -> "Counter[str]":  # noqa: N802 - Spark's name
        """Return the sum."""
        return value1 + value2


def main(argv: Sequence[str]) -> int:
    """Run the chain over the objects that the manifest pins."""
    parser = argparse.ArgumentParser(prog="plain_chain", description=__doc__)
    parser.add_argument("--pinned-input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--correlation-id", required=True)
    for option in ("--dks-url", "--dks-ca", "--dks-certificate", "--dks-private-key"):
        parser.add_argument(option, required=True)
    found = parser.parse_args(list(argv))
    storage, key = storage_and_key(found.pinned_input)
    pinned = PinnedInput.from_json(json.loads(storage.read(key)))
    paths = [f"{pinned.corporate_root}/{each.key}" for each in pinned.objects]
    spark = SparkContext(conf=SparkConf().setAppName("plain chain"))
    try:
        rejected = spark.accumulator(Counter(), Counts())
        print(f"{READING} {len(paths)} objects", flush=True)
        lines = spark.textFile(",".join(paths)).filter(lambda line: bool(line.strip()))
        keys = Keys(
            url=found.dks_url,
            ca=found.dks_ca,
            certificate=found.dks_certificate,
            private_key=found.dks_private_key,
            correlation_id=found.correlation_id,
        )
        records = chain(lines, find_collection(pinned.collection_id), keys, rejected)
        records.saveAsTextFile(found.output, _GZIP)
        print(f"{REJECTED}{json.dumps(rejected.value)}", flush=True)
    finally:
        spark.stop()
    return 0


def chain(lines: Any, collection: Collection, keys: Keys, rejected: Any) -> Any:
    """Return the RDD of records of an RDD of envelopes; rejects are dropped and counted."""
    messages = lines.mapPartitions(_each(parse_envelope_of(collection), rejected))
    messages = messages.mapPartitions(partial(decrypt_task, keys, rejected))
    for step in (plain_steps.transform, plain_steps.validate, plain_steps.sanitise, plain_steps.canonical):
        messages = messages.mapPartitions(_each(step, rejected))
    return messages


def parse_envelope_of(collection: Collection) -> Step:
    """Return the first step, for envelopes that state no collection of their own."""
    return partial(plain_steps.parse_envelope, db=collection.db, collection=collection.name)


def decrypt_task(keys: Keys, rejected: Any, messages: Iterable[Message]) -> Iterator[Message]:
    """Decrypt the messages of one task; data keys are cached until it ends."""
    data_key_of = cache(partial(plain_steps.request_data_key, keys, plain_steps.tls_context(keys)))
    return step_task(partial(plain_steps.decrypt, data_key_of=data_key_of), rejected, messages)


def step_task(step: Step, rejected: Any, items: Iterable[Any]) -> Iterator[Any]:
    """Yield the result of a step for each item; rejects are counted and dropped."""
    for item in items:
        try:
            made = step(item)
        except RejectedEnvelope as reject:
            rejected.add(Counter([str(reject)]))
            continue
        yield made


def _each(step: Step, rejected: Any) -> Callable[[Iterable[Any]], Iterator[Any]]:
    return partial(step_task, step, rejected)


if __name__ == "__main__":
    # By its name, so that the workers import it instead of being sent its code.
    from benchmarks.plain_chain import main as run

    sys.exit(run(sys.argv[1:]))
