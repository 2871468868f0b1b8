"""Files and folders that are there whole or not at all, JSON files, and the SHA-256 of a file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brgm_med.errors import CannotWriteError, InputRefusedError, UsageError, refuse
from brgm_med.staging import settle, sync, together


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start_of(path: Path, length: int, advice: str) -> tuple[bytes, int]:
    """The first `length` bytes of a file, and its size in bytes.

    Raises InputRefusedError, with `advice`, for what is no file, and for what cannot be read.
    """
    try:
        if path.is_dir():
            refuse(path, "is a folder", advice)
        if not path.exists():
            refuse(path, "no such file", "check the name")
        if not path.is_file():
            refuse(path, "is not a regular file", advice)
        with path.open("rb") as file:
            return file.read(length), os.fstat(file.fileno()).st_size
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})", "check the name and the permissions")


def check_output(path: Path, force: bool = False) -> None:
    """Find out, before any work is done, whether `path` can be written. Leaves nothing behind.

    What killed runs left half done in its folder is undone first (`staging.settle`).

    Raises InputRefusedError where `path` exists and `force` is False, CannotWriteError where it is a folder
    or its folder is missing or unwritable.
    """
    try:
        settle(path.parent)
        if path.is_dir():
            raise CannotWriteError(f"{path}: is a folder; give the name of a file")
        if os.path.lexists(path) and not force:
            raise InputRefusedError(f"{path}: exists already; choose another name or add --force")
        if not path.parent.is_dir():
            raise CannotWriteError(f"{path}: cannot be written, there is no folder {path.parent}; make it first")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CannotWriteError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write where something is read: an output that is an input, or a file in a folder that is one.

    Links count, symbolic and hard ones. Raises UsageError.
    """
    read, inputs = {}, list(inputs)
    for path in inputs:
        for one in (path, *(path.rglob("*") if path.is_dir() else ())):
            with suppress(OSError):
                state = one.stat()
                read[state.st_dev, state.st_ino] = one
    for out in outputs:
        with suppress(OSError):
            state = out.stat()
            same = read.get((state.st_dev, state.st_ino))
            if same is None and out.is_dir():
                same = next((p for p in inputs if p.resolve().is_relative_to(out.resolve())), None)
            if same is not None:
                also = "" if same == out else f" ({same})"
                raise UsageError(f"{out}: would be written where the command reads{also}; choose another output")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there. Raises CannotWriteError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{path}: cannot be made ({error.strerror}); choose another folder") from error


@contextmanager
def replacing(path: Path, force: bool = False, like: Sequence[Path] = ()) -> Iterator[Path]:
    """Give a new, empty file in a private folder to fill; on leaving, flush it to the disk and move it to `path`.

    On any error, interruption included, the new file is removed and `path` is as it was. What appears at `path`
    meanwhile is not replaced without `force`. Nobody may read the file who may not read all of `like`. Raises as
    `check_output` does, and CannotWriteError for an OSError inside (such as a full disk).
    """
    check_output(path, force)
    with moved([path], force, like) as (temporary,):
        temporary.open("xb").close()
        yield temporary


@contextmanager
def moved(paths: Sequence[Path], force: bool = False, like: Sequence[Path] = ()) -> Iterator[list[Path]]:
    """`staging.together`, where an OSError becomes CannotWriteError for the first of `paths`."""
    try:
        with together(paths, force, like) as staged:
            yield staged
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotWriteError(
            f"{paths[0]}: cannot be written ({reason}); free space or choose another folder"
        ) from error


@contextmanager
def reading_back(path: Path) -> Iterator[Callable[[bool], None]]:
    """Check in here that a file, written beside `path`, reads back; gives a function that takes whether it is the same.

    Raises CannotWriteError where it is not, and where reading refuses it.
    """

    def check(same: bool) -> None:
        if not same:
            raise CannotWriteError(f"{path}: reads back differently from what was written; check the disk")

    try:
        yield check
    except InputRefusedError as error:
        raise CannotWriteError(f"{path}: does not read back ({error}); check the disk") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where it holds something else. Raises InputRefusedError for a damaged one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputRefusedError(f"{path}: is no readable JSON ({error}); mend or remove it") from error
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict[str, Any], force: bool, like: Sequence[Path] = ()) -> None:
    """Atomically; raises as `replacing` does, and like it takes `like`."""
    with replacing(path, force, like) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def overwriting(path: Path) -> Iterator[Path]:
    """Give the name of a file beside `path` to write; on leaving, flush it to the disk and rename it to `path`.

    For a file that one process writes over and over: a part that was left by an interruption has the same name,
    `path`'s and `.partial`, and is written over too. Raises OSError.
    """
    partial = path.with_name(path.name + ".partial")
    yield partial
    sync(partial)
    os.replace(partial, path)


def check_new_folder(path: Path, replaced: str | None = None) -> None:
    """Find out whether the folder `path` can be made. Leaves nothing behind; raises as `check_output` does.

    `replaced`: a folder of nothing but files whose names end so may exist, and will be replaced.
    """
    settle(path.parent)
    if os.path.lexists(path):
        if replaced is None:
            raise InputRefusedError(f"{path}: exists already; choose another name")
        try:
            ours = path.is_dir() and not path.is_symlink() and all(_named(p, replaced) for p in path.iterdir())
        except OSError as error:
            raise CannotWriteError(f"{path}: cannot be read ({error.strerror}); choose another name") from error
        if not ours:
            raise CannotWriteError(f"{path}: is not a folder of {replaced} files only; choose another name")
        path = path.with_name(f".brgm-{secrets.token_hex(8)}.part")
    check_output(path)


def _named(path: Path, ending: str) -> bool:
    return path.name.lower().endswith(ending) and path.is_file() and not path.is_symlink()


@contextmanager
def new_folder(path: Path, replaced: str | None = None, like: Sequence[Path] = ()) -> Iterator[Path]:
    """Give a new, empty, private folder to fill; on leaving, flush its files to the disk and move it to `path`.

    On any error, interruption included, nothing is left, and a folder that was to be replaced is as it was; else it
    goes after. `like` as of `replacing`. Raises as `check_new_folder` does, and CannotWriteError for an OSError inside.
    """
    check_new_folder(path, replaced)
    with moved([path], replaced is not None, like) as (temporary,):
        temporary.mkdir()
        yield temporary
