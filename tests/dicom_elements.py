"""Elements of a DICOM file in Explicit VR Little Endian, put in, replaced and taken out as bytes, sound or not."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
"""Value representations whose length has 32 bits (PS3.5, 7.1.2)."""
START = 132


def element(group: int, number: int, representation: str, value: bytes) -> bytes:
    """One element, its length as it is: even or not."""
    head = struct.pack("<HH", group, number) + representation.encode()
    if representation in LONG:
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _elements(content: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    position = START
    while position < len(content):
        group, number = struct.unpack_from("<HH", content, position)
        if content[position + 4 : position + 6].decode("latin-1") in LONG:
            end = position + 12 + struct.unpack_from("<I", content, position + 8)[0]
        else:
            end = position + 8 + struct.unpack_from("<H", content, position + 6)[0]
        yield (group, number), content[position:end]
        position = end


def with_element(content: bytes, group: int, number: int, new: bytes) -> bytes:
    """The file `content` with `new` in the place of one of its elements, or put in there; without it for b""."""
    result, placed = content[:START], False
    for tag, old in _elements(content):
        if not placed and tag >= (group, number):
            result, placed = result + new, True
        if tag != (group, number):
            result += old
    return result


@dataclass
class Node:
    """One element, `value` its bytes or, of a sequence, its items, each a list of elements."""

    group: int
    number: int
    representation: str
    value: bytes | list[list[Node]]

    def encoded(self) -> bytes:
        if isinstance(self.value, bytes):
            return element(self.group, self.number, self.representation, self.value)
        items = [b"".join(node.encoded() for node in item) for item in self.value]
        whole = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return element(self.group, self.number, self.representation, whole)


def parsed(content: bytes) -> list[Node]:
    """The elements of a data set in Explicit VR Little Endian whose sequences state their lengths."""
    nodes: list[Node] = []
    for (group, number), whole in _elements(bytes(START) + content):
        representation = whole[4:6].decode("latin-1")
        value: bytes | list[list[Node]] = whole[12 if representation in LONG else 8 :]
        if representation == "SQ" and isinstance(value, bytes):
            items, position = [], 0
            while position < len(value):
                length = struct.unpack_from("<I", value, position + 4)[0]
                items.append(parsed(value[position + 8 : position + 8 + length]))
                position += 8 + length
            value = items
        nodes.append(Node(group, number, representation, value))
    return nodes


def lists_in(nodes: list[Node]) -> list[list[Node]]:
    """The list itself and those of all items in it, at every depth."""
    nested = [item for node in nodes if isinstance(node.value, list) for item in node.value]
    return [nodes, *(one for item in nested for one in lists_in(item))]
