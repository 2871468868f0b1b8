"""Pickles of networks, read as data: nothing in the file is run.

A pickle is a program for a small stack machine, and Python's own machine imports and calls whatever the program names.
This one imports nothing and calls nothing of Python's. Of the instructions it knows those that build numbers, texts,
lists and dictionaries. A name (such as `torch._utils._rebuild_tensor_v2`) stays a text, and where the program calls one
it must be a key of `RULES`, which says in our own terms what the call means. Memory stays in proportion to the file: a
size is never believed before the bytes are there.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_STEPS = 1_000_000
"""Instructions in one pickle: ten times what the largest published networks have."""

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How files of torch.save before version 1.6 begin, and the bytes in which a pickle holds a tensor's numbers."""

STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "BFloat16Storage": "V2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""torch's types of numbers as numpy writes them."""


class MalformedError(ValueError):
    """The file is not what it should be. The message says what it does, as the rest of a sentence about it."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a class or function: a text, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        # From the file, so in ASCII and short: it must not write on the user's terminal as it likes.
        return ascii(f"{self.module[:40]}.{self.name[:40]}")[1:-1]


@dataclass(frozen=True, slots=True)
class Inert:
    """Something that a network's weights do not depend on, such as a numpy number in its settings."""

    name: str


@dataclass(slots=True)
class Storage:
    """`count` numbers of type `dtype` (numpy's name), little-endian, in the file."""

    dtype: str
    count: int
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize

    def fill(self, data: memoryview) -> None:
        if len(data) != self.nbytes:
            raise MalformedError("is cut short, or says wrongly how many numbers it holds")
        self.data = data


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor whose numbers still lie in the file."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.size)

    def array(self) -> NDArray[np.float32]:
        """The numbers, copied, float32. Raises MalformedError where there are none such."""
        kind = np.dtype(self.storage.dtype)
        if kind.kind != "f":
            raise MalformedError("holds a weight that is no floating-point number (of 16, 32 or 64 bits)")
        if self.count > self.storage.count:
            raise MalformedError("has a tensor with more numbers than it holds")
        steps = [s * kind.itemsize for s in self.stride]
        try:
            view = np.ndarray(self.size, kind, self.storage.data, self.offset * kind.itemsize, steps)
        except (ValueError, TypeError) as error:
            raise MalformedError("has a tensor that reaches beyond what the file holds") from error
        with np.errstate(all="ignore"):
            return view.astype(np.float32, order="C")


@dataclass(frozen=True, slots=True)
class Persistent:
    """An object that StyleGAN2-ADA's persistence keeps: the name of its class, and its attributes."""

    kind: str
    state: dict[str, Any]


Rule = Callable[..., Any] | None
Pid = Callable[[Any], Any]


def interpret(stream: BinaryIO, rules: Mapping[tuple[str, str], Rule], persistent: Pid | None = None) -> Any:
    """What the pickle at the position of `stream` describes; leaves the position behind it.

    `rules` says of (module, name) what a call of it means, None for a name that is only named; `persistent` what a
    persistent id stands for. Raises MalformedError, or one of the errors of a container for what is no such pickle.
    """
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def name(module: Any, text: Any) -> Name:
        if not type(module) is type(text) is str:
            raise MalformedError("asks for what has no name")
        if (module, text) not in rules:
            raise MalformedError(f"asks for {Name(module, text)}, which no network needs")
        return Name(module, text)

    def store(target: Any, pairs: list[Any]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Only plain keys: the hash of a deeply nested one would overflow Python's own stack.
            if type(target) is not dict or type(key) not in (str, int):
                raise MalformedError("has a dictionary that no network has")
            target[key] = value

    def extend(target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise MalformedError("appends to what is no list")
        target.extend(items)

    argument: Any
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step == MOST_STEPS:
            raise MalformedError("has more instructions than any network needs")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(stack)
                stack = []
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT":
                stack.append(argument)
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "EMPTY_LIST" | "EMPTY_SET":  # a set becomes a list: nothing is hashed
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                items, stack = stack, marks.pop()
                stack.append(tuple(items))
            case "APPEND":
                item = stack.pop()
                extend(stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items, stack = stack, marks.pop()
                extend(stack[-1], items)
            case "SETITEM":
                items = [stack.pop(-2), stack.pop()]
                store(stack[-1], items)
            case "SETITEMS":
                items, stack = stack, marks.pop()
                store(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                text, module = stack.pop(), stack.pop()
                stack.append(name(module, text))
            case "REDUCE" | "NEWOBJ":
                given, called = stack.pop(), stack.pop()
                rule = rules[called.module, called.name] if type(called) is Name else None
                if rule is None or type(given) is not tuple:
                    raise MalformedError("calls what is no function")
                stack.append(rule(*given))
            case "BUILD":
                # Attributes of a dictionary (a state dict's versions) or of something inert: no weights.
                stack.pop()
                if type(stack[-1]) not in (dict, Inert):
                    raise MalformedError("sets attributes of what has none")
            case "BINPERSID" if persistent is not None:
                stack.append(persistent(stack.pop()))
            case _:
                raise MalformedError(f"has an instruction ({opcode.name}) that no network needs")
    raise MalformedError("is cut short")


def storage_of(pid: Any) -> tuple[Storage, str]:
    """The storage that torch's persistent id describes, still empty, and its key."""
    match pid:
        case ("storage", Name(module="torch", name=kind), str(key), str(), int(count), *rest) if (
            kind in STORAGES and 0 <= count < 1 << 40 and all(part is None for part in rest)
        ):
            return Storage(STORAGES[kind], count), key
    raise MalformedError("refers to numbers in a way that torch does not")


def legacy(data: bytes, rules: Mapping[tuple[str, str], Rule]) -> Any:
    """What a file of torch.save before version 1.6 holds: four pickles and then the numbers of every storage."""
    stream = io.BytesIO(data)
    if stream.read(len(MAGIC)) != MAGIC or interpret(stream, {}) != 1001:
        raise MalformedError("holds numbers in a way that torch does not")
    if interpret(stream, {}).get("little_endian") is not True:
        raise MalformedError("was written by a big-endian machine")
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        storage, key = storage_of(pid)
        return storages.setdefault(key, storage)

    tree = interpret(stream, rules, persistent)
    for key in interpret(stream, {}):
        count = int.from_bytes(stream.read(8), "little")
        if type(key) is not str:
            raise MalformedError("holds numbers in a way that torch does not")
        storage, start = storages[key], stream.tell()
        if count != storage.count:
            raise MalformedError("says wrongly how many numbers it holds")
        storage.fill(memoryview(data)[start : start + storage.nbytes])
        stream.seek(start + storage.nbytes)
    return tree


def _persistent(meta: Any) -> Persistent:
    """The object of a persistence record. Its `module_src`, a program, is never looked at."""
    match meta:
        case {"type": "class", "class_name": str(kind), "state": dict(state)}:
            return Persistent(kind, state)
    raise MalformedError("has a persistence record of another kind")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Stored:
    match storage, size, stride:
        case Storage(), tuple(), tuple() if len(size) == len(stride) <= 8:
            if all(type(n) is int and 0 <= n < 1 << 40 for n in (offset, *size, *stride)):
                return Stored(storage, offset, size, stride)
    raise MalformedError("has a tensor of another kind")


def _storage(data: Any) -> Storage:
    # Names of storages and nothing else: torch itself would read any pickle in here.
    found = legacy(data, _STORAGE_NAMES) if type(data) is bytes else None
    if type(found) is not Storage:
        raise MalformedError("holds numbers in a way that torch does not")
    return found


def _set(items: Any) -> list[Any]:
    if type(items) is not list:
        raise MalformedError("has a set that no network has")
    return items


def _dictionary() -> dict[str, Any]:
    return {}


def _inert(name: str) -> Callable[..., Inert]:
    return lambda *_: Inert(name)


_STORAGE_NAMES: dict[tuple[str, str], Rule] = {("torch", kind): None for kind in STORAGES}

RULES: dict[tuple[str, str], Rule] = _STORAGE_NAMES | {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): _dictionary,
    ("dnnlib.util", "EasyDict"): _dictionary,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _inert("bytes"),
    ("argparse", "Namespace"): _inert("settings"),
    ("numpy", "dtype"): _inert("dtype"),
    ("numpy", "ndarray"): None,
    **{(f"numpy.{core}.multiarray", "scalar"): _inert("number") for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _inert("array") for core in ("core", "_core")},
}
"""What the calls of a network's pickle mean, by (module, name)."""
