"""The protocol buffers of an ORC file's metadata: written field by field, and read back as numbers and bytes."""

from collections.abc import Iterable


def varint(number: int) -> bytes:
    """Return an unsigned number in base 128, the lowest seven bits first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> int:
    """Return a signed number as an unsigned one: 0, -1, 1, -2 are 0, 1, 2, 3."""
    return number << 1 if number >= 0 else (-number << 1) - 1


def number_field(field: int, number: int) -> bytes:
    """Return a field that holds an unsigned number (or, through `zigzag`, a signed one)."""
    return varint(field << 3) + varint(number)


def bytes_field(field: int, content: bytes) -> bytes:
    """Return a field that holds bytes, a text or another message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def packed_field(field: int, numbers: Iterable[int]) -> bytes:
    """Return a field that holds a list of unsigned numbers."""
    return bytes_field(field, b"".join(map(varint, numbers)))


def read_fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Return the fields of a message by number, of the two kinds that ORC's own metadata needs."""
    fields: dict[int, list[int | bytes]] = {}
    position = 0
    while position < len(message):
        key, position = read_varint(message, position)
        number, position = read_varint(message, position)
        value: int | bytes = number
        if key & 7 == 2:
            value, position = message[position : position + number], position + number
        elif key & 7:
            raise ValueError(f"a field of wire type {key & 7}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Return the unsigned number that begins at a position, and where it ends."""
    number = shift = 0
    while True:
        byte = message[position]
        number |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return number, position
