"""Compiled kernels, and which precision is faster, kept on disk in a folder of the user's own. A cache: without it
things only take longer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path


def folder() -> Path:
    """Folder of compiled kernels: `$XDG_CACHE_HOME/brgm-med/kernels`, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brgm-med" / "kernels"


def digest(*parts: str) -> str:
    """The name under which what was made of `parts` is kept, 64 hexadecimal digits."""
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part.encode() for part in parts)).hexdigest()


def read(key: str) -> bytes | None:
    """Content written under `key`; None where there is nothing, or where it is not what was written."""
    try:
        if not _private(folder()):
            return None
        content = (folder() / key).read_bytes()
    except OSError:
        return None
    check, code = content[:32], content[32:]
    return code if hashlib.sha256(key.encode() + code).digest() == check else None


def write(key: str, code: bytes) -> None:
    """Keep `code` under `key`, whole or not at all; nothing where the folder cannot be used."""
    with contextlib.suppress(OSError):
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _private(folder()):
            return
        number, name = tempfile.mkstemp(dir=folder())  # 0600
        try:
            with open(number, "wb") as file:
                file.write(hashlib.sha256(key.encode() + code).digest() + code)
            os.replace(name, folder() / key)
        except BaseException:
            os.unlink(name)
            raise


def _private(path: Path) -> bool:
    """True for a real folder that is the user's and only the user's: what lies in it is run on the device."""
    status = path.lstat()
    owned = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o077)
    return stat.S_ISDIR(status.st_mode) and owned
