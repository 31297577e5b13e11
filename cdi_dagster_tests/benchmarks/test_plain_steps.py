"""The baseline is right: were it wrong, or did it less, its figures would prove nothing."""

from functools import partial, reduce
from pathlib import Path

from benchmarks import plain_steps
from benchmarks.plain_steps import RejectedEnvelope
from cdi_dagster.core.collections import find_collection
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.spark.ingest.reading import EnvelopeBlock, EnvelopeReader
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.spark.ingest_support import DAY
from cdi_dagster_tests.spark.records.vectors import ReversedKeys, Vector, read_vectors, unwrapped

TOO_DEEP = "too deep"


def _vectors() -> list[Vector]:
    """Return the golden records of the collections that are benchmarked or like them."""
    return [vector for vector in read_vectors() if vector.group != "equality"]


def made_by_the_chain(line: bytes, collection_id: str) -> bytes | str:
    """The record, or the reason family of the reject."""
    collection = find_collection(collection_id)
    steps = (
        partial(plain_steps.parse_envelope, db=collection.db, collection=collection.name),
        partial(plain_steps.decrypt, data_key_of=lambda key_id, encrypted_key: unwrapped(encrypted_key)),
        plain_steps.transform,
        plain_steps.validate,
        plain_steps.sanitise,
        plain_steps.canonical,
    )
    try:
        return str(reduce(lambda made, step: step(made), steps, line.decode())).encode()
    except RejectedEnvelope as reject:
        return str(reject)


def test_the_chain_makes_the_golden_records() -> None:
    wrong = []
    for vector in _vectors():
        try:
            made = made_by_the_chain(vector.envelope, vector.collection_id)
        except RecursionError:
            made = TOO_DEEP
        right = made == vector.expected if vector.expected is not None else made == (vector.reason or made)
        if not right or isinstance(made, bytes) != (vector.expected is not None):
            wrong.append((vector.name, made))
    assert [name for name, made in wrong if made != TOO_DEEP] == []
    # Nesting that no plain program survives; the record engine does.
    assert len(wrong) <= 2


def test_the_chain_and_the_record_engine_agree_on_good_and_broken_envelopes(tmp_path: Path) -> None:
    storage = open_storage(tmp_path.as_uri())
    summary = write_sample(storage, AUDIT.on(DAY), records=300, objects=2, seed=5, bad_envelopes=18)
    engine = RecordEngine(AUDIT, ReversedKeys())
    compared = rejected = 0
    for key in summary.keys:
        with storage.open(key) as stream:
            for block in EnvelopeReader(stream, key).blocks():
                assert isinstance(block, EnvelopeBlock)
                result = engine.process(block.lines)
                made = [made_by_the_chain(line, AUDIT.id) for line in block.lines]
                assert [record for record in made if isinstance(record, bytes)] == result.records.splitlines()
                assert [reason for reason in made if isinstance(reason, str)] == [r.reason for r in result.rejects]
                compared += len(made)
                rejected += len(result.rejects)
    assert (compared, rejected) == (300, 18)
