"""Temporary data of this process, such as an unpacked zip, in private folders."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from brgm_med.errors import CannotWriteError
from brgm_med.staging.folders import NEW, private_folder, settle

_scratch: list[Path] = []
"""The folder in which temporary data of this process lie; the system's where it is empty, or not there."""


_scratch_folders: list[tuple[Path, int]] = []
"""Those that were made, and the locks on them."""


def scratch_beside(path: Path) -> None:
    """Temporary data of this process, such as an unpacked zip, lie in the folder of `path` from now on."""
    _scratch[:] = [Path(os.path.abspath(path)).parent]


def scratch_folder() -> Path:
    """A new private folder for temporary data, removed when the command or the process ends; after a kill, by the next.

    Raises CannotWriteError.
    """
    parent = next((path for path in _scratch if path.is_dir()), Path(tempfile.gettempdir()))
    settle(parent)
    try:
        folder, lock = private_folder(parent)
    except OSError as error:
        text = f"{parent}: cannot hold temporary data ({error.strerror}); choose another folder for the output"
        raise CannotWriteError(text) from error
    _scratch_folders.append((folder, lock))
    return folder / NEW


@atexit.register
def clear_scratch() -> None:
    """Remove the temporary data of this process."""
    while _scratch_folders:
        folder, lock = _scratch_folders.pop()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
