"""The files in which networks travel: a pickle, or one of the two containers of torch.save. See `pickles`."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from brgm_med.priors.pickles import Rule, interpret
from brgm_med.priors.records import STORAGES, Inert, MalformedError, Name, Persistent, Storage, Stored

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How files of torch.save before version 1.6 begin, and the bytes in which a pickle holds a tensor's numbers."""

UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, MemoryError, RuntimeError),
    *(struct.error, zipfile.BadZipFile),
)
"""What parsers stumble over in junk. A `MalformedError` among them says itself what is wrong."""


def parse(data: bytes) -> Any:
    """Values that a file with the content `data` describes: plain numbers, texts, lists and dictionaries, and the
    records of `records`. Runs nothing of it. Raises one of `UNREADABLE`."""
    if data.startswith(b"PK\x03\x04"):
        return archive(data)
    if data.startswith(MAGIC):
        return legacy(data, RULES)
    if data.startswith(b"\x80"):
        return interpret(io.BytesIO(data), RULES)
    raise MalformedError("is neither a pickle, nor a file of torch.save, nor safetensors")


def archive(data: bytes) -> Any:
    """Content of a file of torch.save since version 1.6: a zip archive, of one folder, of a pickle and storages."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        root = _root(entries)
        # All of it is stored as it is, so it cannot be larger than the file; each number is read once, checked by CRC.
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > len(data):
            raise MalformedError("is an archive that torch did not make")
        if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
            raise MalformedError("was written by a big-endian machine")
        storages: dict[str, Storage] = {}

        def persistent(pid: Any) -> Storage:
            storage, key = storage_of(pid)
            if key not in storages:
                storage.fill(memoryview(archive.read(f"{root}/data/{key}")))
                storages[key] = storage
            return storages[key]

        return interpret(io.BytesIO(archive.read(f"{root}/data.pkl")), RULES, persistent)


def _root(entries: list[zipfile.ZipInfo]) -> str:
    """The one folder of the entries. Nothing is unpacked, yet what would leave that folder is refused."""
    names = [e.filename for e in entries]
    paths = [PurePosixPath(n) for n in names]
    if any(p.is_absolute() or ".." in p.parts or "\\" in n for n, p in zip(names, paths, strict=True)):
        raise MalformedError("is an archive with paths that lead out of it")
    if any(stat.S_ISLNK(e.external_attr >> 16) for e in entries) or len(set(names)) < len(names):
        raise MalformedError("is an archive with links, or with two files of one name")
    roots = [p.parts[0] for p in paths if p.parts[1:] == ("data.pkl",)]
    if len(roots) != 1 or any(p.parts[:1] != tuple(roots) for p in paths):
        raise MalformedError("is an archive that torch did not make")
    return roots[0]


def read(path: Path) -> tuple[Any, int]:
    """`parse` of a file, and its size in bytes. Raises OSError, or one of `UNREADABLE`."""
    if not path.is_file():
        raise MalformedError("is no file" if path.exists() else "does not exist")
    data = path.read_bytes()
    return parse(data), len(data)


def storage_of(pid: Any) -> tuple[Storage, str]:
    """The storage that torch's persistent id describes, still empty, and its key."""
    match pid:
        case ("storage", Name(module="torch", name=kind), str(key), str(), int(count), *rest) if (
            kind in STORAGES and 0 <= count < 1 << 40 and all(part is None for part in rest)
        ):
            return Storage(STORAGES[kind], count), key
    raise MalformedError("refers to numbers in a way that torch does not")


def legacy(data: bytes, rules: Mapping[tuple[str, str], Rule]) -> Any:
    """Content of a file of torch.save before version 1.6: four pickles and then the numbers of every storage."""
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
    storage = legacy(data, _STORAGE_NAMES) if type(data) is bytes else None
    if type(storage) is not Storage:
        raise MalformedError("holds numbers in a way that torch does not")
    return storage


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
