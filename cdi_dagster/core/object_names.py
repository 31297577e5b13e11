"""Names of the objects in corporate storage, and the Kafka offsets they state.

A raw object, as K2HB wrote it: `<topic>_<partition>_<first>-<last>.jsonl.gz`. A coalesced object has an underscore
between the offsets, and `.2`, `.3`, ... after the name where the name was taken. Offsets are inclusive.
"""

import re
from dataclasses import dataclass

_NAME = re.compile(
    r"(?P<topic>.+)_(?P<kafka_partition>[0-9]+)_(?P<first>[0-9]+)(?P<separator>[-_])(?P<last>[0-9]+)"
    r"\.jsonl\.gz(?:\.(?P<copy>[0-9]+))?"
)


class InvalidObjectNameError(ValueError):
    """The name is neither a raw nor a coalesced object's; the message names what was expected."""


@dataclass(frozen=True, kw_only=True)
class ObjectName:
    """The parts of an object's name.

    Attributes:
        topic: Kafka topic; may hold dots, hyphens and underscores.
        kafka_partition: Kafka partition number.
        first_offset: first Kafka offset, inclusive.
        last_offset: last Kafka offset, inclusive.
        coalesced: True for a coalesced object, False for a raw one.
        copy: 1, or the number after the name where it was taken (`….jsonl.gz.2`).
    """

    topic: str
    kafka_partition: int
    first_offset: int
    last_offset: int
    coalesced: bool
    copy: int = 1

    @property
    def offset_count(self) -> int:
        """How many offsets the name states: the number of records, where the topic has no holes."""
        return self.last_offset - self.first_offset + 1

    def covers(self, other: "ObjectName") -> bool:
        """Whether every offset of `other` lies within this object's, on the same topic and Kafka partition."""
        return (
            self.topic == other.topic
            and self.kafka_partition == other.kafka_partition
            and self.first_offset <= other.first_offset
            and other.last_offset <= self.last_offset
        )

    def __str__(self) -> str:
        separator = "_" if self.coalesced else "-"
        copy = f".{self.copy}" if self.copy > 1 else ""
        return f"{self.topic}_{self.kafka_partition}_{self.first_offset}{separator}{self.last_offset}.jsonl.gz{copy}"


def parse_object_of_day(prefix: str, key: str) -> ObjectName:
    """Read the name of an object of a storage day: one directly under the day's prefix.

    The one rule of coalescer and pin: what lies in a folder below the day is no object of it, whatever its name.

    Raises:
        InvalidObjectNameError: it lies in a folder below, or its name is of neither form.
    """
    if "/" in key.removeprefix(prefix):
        raise InvalidObjectNameError("it lies in a folder below the storage day, where K2HB writes nothing")
    return parse_object_name(key)


def parse_object_name(key: str) -> ObjectName:
    """Read an object's name, with or without the prefix before it.

    Raises:
        InvalidObjectNameError: the name is of neither form, or its last offset is before its first.
    """
    name = key.rsplit("/", 1)[-1]
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidObjectNameError(
            f"{name!r} is not <topic>_<partition>_<first>-<last>.jsonl.gz (raw) "
            "nor <topic>_<partition>_<first>_<last>.jsonl.gz (coalesced)"
        )
    topic, kafka_partition, first, separator, last, copy = match.groups()
    parsed = ObjectName(
        topic=topic,
        kafka_partition=int(kafka_partition),
        first_offset=int(first),
        last_offset=int(last),
        coalesced=separator == "_",
        copy=int(copy or 1),
    )
    if parsed.last_offset < parsed.first_offset:
        raise InvalidObjectNameError(f"{name!r} states a last offset before its first")
    return parsed
