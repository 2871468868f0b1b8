"""The files in which networks travel: a pickle, or one of the two containers of torch.save. See `pickles`."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from brgm_med.priors.pickles import MAGIC, RULES, MalformedError, Storage, interpret, legacy, storage_of

UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
)
"""What parsers stumble over in junk. A `MalformedError` among them says itself what is wrong."""


def parse(data: bytes) -> Any:
    """What a file with the content `data` describes: plain numbers, texts, lists and dictionaries, and the records of
    `pickles`. Runs nothing of it. Raises one of `UNREADABLE`."""
    if data.startswith(b"PK\x03\x04"):
        return archive(data)
    if data.startswith(MAGIC):
        return legacy(data, RULES)
    if data.startswith(b"\x80"):
        return interpret(io.BytesIO(data), RULES)
    raise MalformedError("is neither a pickle, nor a file of torch.save, nor safetensors")


def archive(data: bytes) -> Any:
    """What a file of torch.save since version 1.6 holds: a zip archive, of one folder, of a pickle and storages."""
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
