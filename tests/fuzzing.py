"""Damaged content for readers: flipped, cut and lying bytes; elements of DICOM of any kind and value; odd JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.dicom_elements import START, Node, lists_in, parsed

Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS = ("0", "1", "-1", "3.5", "1e999", "NaN", "-0", "1e-320", "65536", "4294967296", "", " ", "abc", "1\\2\\3")
TEXTS = (*NUMBERS, "M\\F", "\\" * 9, "1.2.840.10008.1.2", "ISO_IR 192", "x" * 70, "é\x00\x1b[31m", "MR", "MONOCHROME1")
INTEGERS = (0, 1, 2, 7, 8, 12, 16, 32, 255, 4096, 65535)
REPRESENTATIONS = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OW", "PN", "SH", "SL", "SQ"),
    *("SS", "ST", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV", "??"),
)
TAGS = (
    *((0x8, 0x5), (0x8, 0x8), (0x8, 0x16), (0x8, 0x18), (0x8, 0x60), (0x8, 0x103E), (0x8, 0x2111), (0x8, 0x9215)),
    *((0x10, 0x10), (0x10, 0x20), (0x10, 0x30), (0x18, 0x50), (0x18, 0x81), (0x18, 0x88), (0x18, 0x9087)),
    *((0x18, 0xA001), (0x19, 0x10), (0x19, 0x100A), (0x20, 0xD), (0x20, 0xE), (0x20, 0x11), (0x20, 0x13), (0x20, 0x32)),
    *((0x20, 0x37), (0x20, 0x52), (0x20, 0x4000), (0x20, 0x9161), (0x28, 0x2), (0x28, 0x4), (0x28, 0x8), (0x28, 0x10)),
    *((0x28, 0x11), (0x28, 0x30), (0x28, 0x34), (0x28, 0x100), (0x28, 0x101), (0x28, 0x102), (0x28, 0x103)),
    *((0x28, 0x1050), (0x28, 0x1051), (0x28, 0x1052), (0x28, 0x1053), (0x28, 0x2110), (0x28, 0x3000), (0x28, 0x3010)),
    *((0x65, 0x1050), (0x5200, 0x9229), (0x5200, 0x9230), (0x6000, 0x102), (0x7FE0, 0x10)),
)

values = st.one_of(
    st.sampled_from(TEXTS).map(lambda text: text.encode("latin-1") + b" " * (len(text) % 2)),
    st.sampled_from(INTEGERS).map(lambda n: struct.pack("<H", n)),
    st.sampled_from(INTEGERS).map(lambda n: struct.pack("<I", n)),
    st.sampled_from((0.0, 1.0, -1.0, float("nan"), float("inf"), 1e300)).map(lambda x: struct.pack("<d", x)),
    st.lists(st.sampled_from(NUMBERS), max_size=7).map(lambda parts: "\\".join(parts).encode()),
    st.binary(max_size=20),
)


@st.composite
def damaged(draw: Draw, content: bytes) -> bytes:
    """`content` with some bytes changed, a part of it taken out or doubled, or its end cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(("byte", "word", "cut", "out", "double")))
        if kind == "byte":
            data[start : start + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "word":
            number = draw(st.sampled_from((0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)))
            data[start : start + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
        elif kind == "cut":
            del data[start:]
        else:
            end = start + draw(st.integers(1, 40))
            data[start:end] = b"" if kind == "out" else data[start:end] * 2
    return bytes(data)


@st.composite
def changed_elements(draw: Draw, content: bytes) -> bytes:
    """The DICOM file `content` (Explicit VR Little Endian) with elements, at any depth, of other kinds and values."""
    nodes = parsed(content[START:])
    for _ in range(draw(st.integers(1, 4))):
        lists = lists_in(nodes)
        part = lists[draw(st.integers(0, len(lists) - 1))]
        group, number = draw(st.sampled_from(TAGS))
        at = next((i for i, node in enumerate(part) if (node.group, node.number) >= (group, number)), len(part))
        if part and draw(st.booleans()):  # one that is there
            at = draw(st.integers(0, len(part) - 1))
            group, number = part[at].group, part[at].number
        there = at < len(part) and (part[at].group, part[at].number) == (group, number)
        old = part[at] if there else Node(group, number, "LO", b"")
        kind = draw(st.sampled_from(("value", "representation", "both", "delete", "items")))
        representation = draw(st.sampled_from(REPRESENTATIONS)) if kind in ("representation", "both") else None
        value: Any = draw(values) if kind in ("value", "both") else old.value
        if kind == "items" and isinstance(old.value, list):
            value = old.value[:1] * draw(st.integers(0, 3))
        if kind == "delete":
            part[at : at + there] = []
        else:
            part[at : at + there] = [Node(group, number, representation or old.representation, value)]
    return content[:START] + b"".join(node.encoded() for node in nodes)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_subnormal=False),  # torch may have been told to flush them to 0
        st.sampled_from((*NUMBERS, "R", "A", "S", "box", "gaussian", "../x")),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("RASabc"), inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def changed_json(draw: Draw, content: dict[str, Any]) -> bytes:
    """`content` with entries, at any depth, replaced by any JSON, or left out."""
    result = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        at = result
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = keys[draw(st.integers(0, len(keys) - 1))]
            if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            break
        if draw(st.booleans()):
            at[key] = draw(json_values)
        else:
            del at[key]
        if not result:
            break
    return json.dumps(result).encode()
