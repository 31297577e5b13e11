import base64
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cdi_dagster.core.collections import Collection, find_collection
from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster.core.pinned_input import pin
from cdi_dagster.demo.key_service import unwrap_data_key
from cdi_dagster.demo.sample import SampleSummary, write_sample
from cdi_dagster.demo.sample_records import damages_for
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.collections import AUDIT, CALCULATION_PARTS

DAY = date(2023, 3, 26)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "corporate").as_uri())


def sample(storage: Storage, collection: Collection = AUDIT, day: date = DAY, **numbers: object) -> SampleSummary:
    return write_sample(storage, collection.on(day), **{"records": 300, "objects": 12, "seed": 7, **numbers})  # type: ignore[arg-type]


def lines(storage: Storage, key: str) -> list[bytes]:
    content = gzip.decompress(storage.read(key))
    assert content.endswith(b"\n")
    return content.splitlines()


def decrypt(line: bytes) -> bytes:
    message = json.loads(line)["message"]
    materials = message["encryption"]
    data_key = base64.b64decode(materials["encryptedEncryptionKey"])[::-1]
    start = base64.b64decode(materials["initialisationVector"])
    cipher = Cipher(algorithms.AES(data_key), modes.CTR(start)).decryptor()
    return cipher.update(base64.b64decode(message["dbObject"])) + cipher.finalize()


def test_every_envelope_decrypts_to_an_audit_message_with_names_that_are_not_ascii(storage: Storage) -> None:
    summary = sample(storage)
    plaintexts = [decrypt(line) for key in summary.keys for line in lines(storage, key)]
    assert len(plaintexts) == summary.records == 300
    assert sum(map(len, plaintexts)) == summary.plaintext_bytes
    assert 1200 < summary.plaintext_bytes / summary.records < 1600
    records = [json.loads(plaintext) for plaintext in plaintexts]
    assert all(record["context"]["AUDIT_ID"] and record["auditType"] for record in records)
    assert any(not plaintext.isascii() for plaintext in plaintexts)


def test_names_state_what_the_objects_hold_and_the_day_can_be_pinned_without_a_gap(storage: Storage) -> None:
    summary = sample(storage)
    for key in summary.keys:
        assert len(lines(storage, key)) == parse_object_name(key).offset_count
        assert not parse_object_name(key).coalesced
    pinned = pin(AUDIT.on(DAY), storage.root, storage.list(AUDIT.on(DAY).corporate_prefix))
    assert (pinned.gaps, pinned.left_out, pinned.offset_count) == ((), (), 300)
    assert len(pinned.objects) == summary.objects == 12
    assert pinned.input_bytes == summary.stored_bytes
    assert sorted(summary.offsets) == [0, 1, 2]


def test_a_raw_object_is_a_single_gzip_member(storage: Storage) -> None:
    for key in sample(storage).keys:
        member = zlib.decompressobj(wbits=31)
        member.decompress(storage.read(key))
        assert member.eof
        assert member.unused_data == b""


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    def write(folder: str, seed: int) -> list[bytes]:
        storage = open_storage((tmp_path / folder).as_uri())
        return [storage.read(key) for key in sample(storage, seed=seed, bad_envelopes=5).keys]

    assert write("one", 7) == write("two", 7)
    assert write("three", 8) != write("one", 7)


def test_the_next_day_goes_on_at_the_next_offset_with_other_records(storage: Storage) -> None:
    first = sample(storage)
    second = sample(storage, day=date(2023, 3, 27), first_offsets=first.next_offsets)
    assert {p: start for p, (start, _) in second.offsets.items()} == {
        p: end + 1 for p, (_, end) in first.offsets.items()
    }
    assert lines(storage, first.keys[0])[0] != lines(storage, second.keys[0])[0]


def test_an_object_holds_as_many_data_keys_as_asked(storage: Storage) -> None:
    for key in sample(storage, records=400, objects=4, keys_per_object=3).keys:
        wrapped = {json.loads(line)["message"]["encryption"]["encryptedEncryptionKey"] for line in lines(storage, key)}
        assert len(wrapped) == 3


def test_bad_envelopes_are_spread_over_the_day_and_each_is_broken(storage: Storage) -> None:
    summary = sample(storage, bad_envelopes=24)
    assert summary.bad_envelopes == 24
    assert sum(summary.bad_by_reason.values()) == 24
    assert set(summary.bad_by_reason) == {str(damage.reason) for damage in damages_for(AUDIT)}
    broken_objects = {key for key in summary.keys for line in lines(storage, key) if is_broken(line)}
    assert sum(is_broken(line) for key in summary.keys for line in lines(storage, key)) == 24
    assert len(broken_objects) > 6


def is_broken(line: bytes) -> bool:
    try:
        record = json.loads(decrypt(line))
        return "auditType" not in record or "2023-02-30" in json.dumps(record)
    except (KeyError, ValueError):
        return True


def test_every_envelope_may_be_bad(storage: Storage) -> None:
    summary = sample(storage, records=20, objects=2, bad_envelopes=20)
    assert all(is_broken(line) for key in summary.keys for line in lines(storage, key))


def test_other_collections_hold_records_without_context(storage: Storage) -> None:
    for collection_id in ("core:claimant", "calculator:calculationParts"):
        summary = sample(storage, find_collection(collection_id), records=50, objects=5)
        for line in (line for key in summary.keys for line in lines(storage, key)):
            record = json.loads(decrypt(line))
            assert "context" not in record
            assert json.loads(line)["message"]["_id"] == record["_id"]


def test_events_of_a_keyed_collection_insert_update_and_delete_ids_over_days(storage: Storage) -> None:
    inserted: dict[str, date] = {}
    deletes: list[str] = []
    updates: list[str] = []
    for number in range(8):
        day = DAY + timedelta(days=number)
        summary = sample(storage, CALCULATION_PARTS, day, records=96, objects=4)
        records = [json.loads(decrypt(line)) for key in summary.keys for line in lines(storage, key)]
        changed = [record["_id"]["id"] for record in records]
        assert len(set(changed)) == 96
        for record_id, record in zip(changed, records, strict=True):
            if "_removedDateTime" in record:
                deletes.append(record_id)
            elif record_id in inserted:
                updates.append(record_id)
            else:
                inserted[record_id] = day
    assert not set(deletes) & set(updates)
    assert len(set(deletes)) == len(deletes) == 8 * 24
    late = [record_id for record_id in deletes[-48:] if record_id in inserted]
    assert len(late) == 48  # of the last two days, each had been inserted
    assert len(set(updates)) == len(updates) > 24


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"records": 0, "objects": 1}, "1 or more"),
        ({"records": 3, "objects": 4}, "4 objects need at least 4 records"),
        ({"bad_envelopes": 301}, "bad_envelopes"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(storage: Storage, numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(storage, **numbers)


class LocalKeys:
    """Answers as the local key service does."""

    def data_keys(self, refs: Iterable[KeyRef]) -> dict[KeyRef, bytes | None]:
        answers: dict[KeyRef, bytes | None] = {}
        for ref in refs:
            try:
                answers[ref] = unwrap_data_key(ref.encrypted_data_key)
            except ValueError:
                answers[ref] = None
        return answers


@pytest.mark.parametrize("collection_id", ["data:businessAudit", "data:equality", "core:claimant"])
def test_ingestion_rejects_exactly_the_bad_envelopes_each_for_its_reason(storage: Storage, collection_id: str) -> None:
    collection = find_collection(collection_id)
    summary = sample(storage, collection, bad_envelopes=40)
    engine = RecordEngine(collection, LocalKeys())
    results = [engine.process(lines(storage, key)) for key in summary.keys]
    rejected = Counter(str(reject.reason) for result in results for reject in result.rejects)
    assert rejected == summary.bad_by_reason
    assert sum(result.published for result in results) == summary.records - 40
