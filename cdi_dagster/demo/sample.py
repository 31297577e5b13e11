"""The sample writer: raw objects as K2HB writes them, with invented records. A development tool.

Used by `cdi sample`, the demo and tests. The data keys are random (from the seed) and wrapped for the *local* key
service, which keeps nothing secret: never write samples to storage that holds real objects. `sample_records` makes the
records.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson
import pybase64
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from isal import isal_zlib

from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.object_names import ObjectName
from cdi_dagster.demo.key_service import wrap_data_key
from cdi_dagster.demo.sample_records import (
    Damage,
    damages_for,
    event_type,
    hex_id,
    keyed_change,
    message_id,
    moment_of,
    plain_record,
    timestamp,
)
from cdi_dagster.storage.interface import Storage

DATA_KEY_BYTES = 16
_IV_BYTES = 16
_KEY_ENCRYPTION_KEY_ID = "cloudhsm:1,2"
_GZIP = 31
"""zlib's window bits for a gzip member; its header has no time, so the bytes depend on the seed alone."""


@dataclass(frozen=True, kw_only=True)
class SampleSummary:
    """The content of a sample.

    Attributes:
        keys: the raw objects written, in order of Kafka partition and offset.
        records: envelopes written, bad ones included.
        stored_bytes: compressed bytes of all objects.
        plaintext_bytes: bytes of the records before encryption.
        offsets: first and last offset (inclusive) by Kafka partition.
        bad_by_reason: broken envelopes, by the reason family of their rejection.
    """

    keys: tuple[str, ...]
    records: int
    stored_bytes: int
    plaintext_bytes: int
    offsets: Mapping[int, tuple[int, int]]
    bad_by_reason: Mapping[str, int]

    @property
    def objects(self) -> int:
        """How many raw objects were written."""
        return len(self.keys)

    @property
    def bad_envelopes(self) -> int:
        """How many envelopes must be rejected."""
        return sum(self.bad_by_reason.values())

    @property
    def next_offsets(self) -> dict[int, int]:
        """The `first_offsets` of the next storage day, which continue this one's."""
        return {kafka_partition: last + 1 for kafka_partition, (_, last) in self.offsets.items()}


@dataclass(frozen=True, kw_only=True)
class _ObjectPlan:
    name: ObjectName
    bad: Mapping[int, Damage]
    """Damage by index of the record within the object."""


def write_sample(
    storage: Storage,
    day: CollectionDay,
    *,
    records: int,
    objects: int,
    seed: int,
    bad_envelopes: int = 0,
    kafka_partitions: int = 3,
    keys_per_object: int = 2,
    first_offsets: Mapping[int, int] | None = None,
) -> SampleSummary:
    """Write one storage day of invented, encrypted raw objects. For development and tests only.

    The same arguments write the same bytes under the same names, so writing again changes nothing.

    Args:
        storage: the corporate root.
        day: to write; audit messages for `data:businessAudit`, database records for others, dated that day. Of a keyed
            collection inserts, updates and deletes, of ids that the days before insert (`sample_records.keyed_change`).
        records: envelopes in all, bad ones included.
        objects: raw objects in all, one gzip member each.
        seed: another seed makes another sample of the same shape.
        bad_envelopes: how many of the envelopes are broken, spread over the day, each of them rejected.
        kafka_partitions: Kafka partitions to spread the objects over; offsets are contiguous within each.
        keys_per_object: distinct data keys in each object.
        first_offsets: offset to begin with, by Kafka partition (default 0); see `SampleSummary.next_offsets`.

    Raises:
        ValueError: the numbers do not fit each other; the message says which.
    """
    _check_numbers(records, objects, bad_envelopes, kafka_partitions, keys_per_object)
    random = Random(f"{seed}|{day.collection.id}|{day.storage_day}")  # noqa: S311 (reproducible on purpose)
    plans = _plan_objects(
        day.collection, records, objects, bad_envelopes, kafka_partitions, first_offsets or {}, random
    )
    prefix = day.corporate_prefix
    writer = _EnvelopeWriter(day, random, seed)
    keys, stored_bytes = [], 0
    offsets: dict[int, tuple[int, int]] = {}
    bad: Counter[str] = Counter()
    for plan in plans:
        content = writer.raw_object(plan, keys_per_object)
        keys.append(f"{prefix}{plan.name}")
        storage.write(keys[-1], content)
        stored_bytes += len(content)
        bad.update(str(damage.reason) for damage in plan.bad.values())
        first, _ = offsets.get(plan.name.kafka_partition, (plan.name.first_offset, 0))
        offsets[plan.name.kafka_partition] = (first, plan.name.last_offset)
    return SampleSummary(
        keys=tuple(keys),
        records=records,
        stored_bytes=stored_bytes,
        plaintext_bytes=writer.plaintext_bytes,
        offsets=offsets,
        bad_by_reason=dict(sorted(bad.items())),
    )


def _check_numbers(records: int, objects: int, bad_envelopes: int, kafka_partitions: int, keys_per_object: int) -> None:
    if min(records, objects, kafka_partitions, keys_per_object) < 1:
        raise ValueError("records, objects, kafka_partitions and keys_per_object must each be 1 or more")
    if objects > records:
        raise ValueError(f"{objects} objects need at least {objects} records, not {records}: every object holds one")
    if not 0 <= bad_envelopes <= records:
        raise ValueError(f"bad_envelopes must lie between 0 and the number of records ({records})")


def _plan_objects(
    collection: Collection,
    records: int,
    objects: int,
    bad_envelopes: int,
    kafka_partitions: int,
    first_offsets: Mapping[int, int],
    random: Random,
) -> list[_ObjectPlan]:
    bad = _spread(collection, records, bad_envelopes)
    next_offset = dict(first_offsets)
    plans = []
    start = 0
    for number, size in enumerate(_sizes(records, objects, random)):
        kafka_partition = number * min(kafka_partitions, objects) // objects
        first = next_offset.get(kafka_partition, 0)
        next_offset[kafka_partition] = first + size
        name = ObjectName(
            topic=collection.topic,
            kafka_partition=kafka_partition,
            first_offset=first,
            last_offset=first + size - 1,
            coalesced=False,
        )
        own_bad = {index: bad[start + index] for index in range(size) if start + index in bad}
        plans.append(_ObjectPlan(name=name, bad=own_bad))
        start += size
    return plans


def _spread(collection: Collection, records: int, bad_envelopes: int) -> dict[int, Damage]:
    """Return the damage by index of the record, evenly over the day, each kind in turn."""
    damages = damages_for(collection)
    return {
        (2 * number + 1) * records // (2 * bad_envelopes): damages[number % len(damages)]
        for number in range(bad_envelopes)
    }


def _sizes(records: int, objects: int, random: Random) -> list[int]:
    """Split the records over the objects, uneven as K2HB's batches are, at least one in each."""
    weights = [random.uniform(0.5, 1.5) for _ in range(objects)]
    scale = (records - objects) / sum(weights)
    sizes = [1 + int(weight * scale) for weight in weights]
    for number in range(records - sum(sizes)):
        sizes[number % objects] += 1
    return sizes


class _EnvelopeWriter:
    def __init__(self, day: CollectionDay, random: Random, seed: int) -> None:
        self._collection = day.collection
        self._storage_day = day.storage_day
        self._random = random
        self._seed = seed
        self._position = 0
        self.plaintext_bytes = 0

    def raw_object(self, plan: _ObjectPlan, keys: int) -> bytes:
        data_keys = [self._random.randbytes(DATA_KEY_BYTES) for _ in range(keys)]
        wrapped = [wrap_data_key(data_key) for data_key in data_keys]
        size = plan.name.offset_count
        # One key after the other, as a producer uses a key for a while.
        lines = [
            self._line(data_keys[index * keys // size], wrapped[index * keys // size], plan.bad.get(index))
            for index in range(size)
        ]
        return _one_gzip_member(lines)

    def _line(self, data_key: bytes, wrapped_key: str, damage: Damage | None) -> bytes:
        moment = moment_of(self._storage_day, self._random)
        record_id, is_delete = hex_id(self._random), False
        if self._collection.is_keyed:
            change = keyed_change(self._seed, self._storage_day, self._position)
            record_id, is_delete = change.record_id, change.is_delete
        self._position += 1
        record: Any = plain_record(self._collection, record_id, moment, self._random, is_delete=is_delete)
        if damage and damage.plaintext:
            record = damage.plaintext(record)
        plaintext = record if isinstance(record, bytes) else orjson.dumps(record)
        self.plaintext_bytes += len(plaintext)
        envelope = self._envelope(record_id, timestamp(moment), plaintext, data_key, wrapped_key)
        if damage and damage.envelope:
            damage.envelope(envelope)
        line = orjson.dumps(envelope)
        return line[: len(line) // 2] if damage and damage.truncate else line

    def _envelope(
        self, record_id: str, modified_at: str, plaintext: bytes, data_key: bytes, wrapped_key: str
    ) -> dict[str, Any]:
        initialisation_vector = self._random.randbytes(_IV_BYTES)
        cipher = Cipher(algorithms.AES(data_key), modes.CTR(initialisation_vector)).encryptor()
        return {
            "traceId": hex_id(self._random),
            "unitOfWorkId": hex_id(self._random),
            "@type": "V4",
            "message": {
                "db": self._collection.db,
                "collection": self._collection.name,
                "dbObject": pybase64.b64encode_as_string(cipher.update(plaintext) + cipher.finalize()),
                "encryption": {
                    "encryptionKeyId": _KEY_ENCRYPTION_KEY_ID,
                    "keyEncryptionKeyId": _KEY_ENCRYPTION_KEY_ID,
                    "encryptedEncryptionKey": wrapped_key,
                    "initialisationVector": pybase64.b64encode_as_string(initialisation_vector),
                },
                "_lastModifiedDateTime": modified_at,
                "@type": event_type(self._collection),
                "_id": message_id(self._collection, record_id),
            },
            "version": "core-4.release_152.16",
            "timestamp": modified_at,
        }


def _one_gzip_member(lines: Sequence[bytes]) -> bytes:
    compressor = isal_zlib.compressobj(level=2, wbits=_GZIP)
    parts = [compressor.compress(line + b"\n") for line in lines]
    return b"".join([*parts, compressor.flush()])
