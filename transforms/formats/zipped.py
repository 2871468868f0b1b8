"""Zip files: what is checked before anything is unpacked, and data sets of pictures in one."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from brgm_med.errors import InputRefusedError, refuse
from brgm_med.staging import scratch_folder
from brgm_med.transforms.formats.visible import is_hidden

MAX_MEMBERS = 100_000
MAX_BYTES = 2**33
MAX_RATIO = 200
"""Of a zip's members: their number; their unpacked size together; that of each to its packed size, beyond 1 MiB."""

LABELS = "dataset.json"
LARGEST_LABELS = 1 << 26
"""Bytes of that file."""


def is_zip(path: Path) -> bool:
    """True for a zip by its name, as other zips (such as .npz) are not meant."""
    return path.name.lower().endswith(".zip")


def checked_members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of a zip at `path`, none of which was unpacked.

    Raises InputRefusedError for a member outside of the zip's root, for one beyond 1 MiB that unpacks to more than
    `MAX_RATIO` times its size, for more than `MAX_MEMBERS` or `MAX_BYTES` together, and for encrypted ones.
    """
    members = [m for m in archive.infolist() if not m.is_dir()]
    if len(members) > MAX_MEMBERS or sum(m.file_size for m in members) > MAX_BYTES:
        size = sum(m.file_size for m in members) / 2**30
        refuse(path, f"unpacks to {len(members)} files of {size:.3g} GiB", "unpack it and give the folder")
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or parts[:1] == ("/",) or ":" in parts[0] or "\0" in member.filename:
            refuse(path, f"has a member outside of itself ({member.filename})", "do not trust it")
        if member.file_size > max(1 << 20, MAX_RATIO * member.compress_size):
            refuse(path, f"has a member packed {MAX_RATIO} times or more ({member.filename})", "do not trust it")
        if member.flag_bits & 1:
            refuse(path, "is encrypted", "unpack it and give the folder")
    return members


def unpacked_pictures(path: Path, endings: tuple[str, ...]) -> tuple[Path, bool]:
    """The pictures of a zip in a private folder of this process, under their own names, and whether they are labelled.

    A data set of StyleGAN2-ADA is such a zip: pictures in folders of a thousand, and `dataset.json`, whose "labels" are
    null or a list. Raises InputRefusedError for a damaged zip, as `checked_members` does, and for one without pictures.
    """
    root = scratch_folder()
    try:
        with zipfile.ZipFile(path) as archive:
            labelled = False
            count = 0
            for member in checked_members(path, archive):
                name = PurePosixPath(member.filename.replace("\\", "/"))
                if name.name == LABELS:
                    labelled |= _has_labels(archive, member)
                if any(is_hidden(part) for part in name.parts) or not name.name.lower().endswith(endings):
                    continue
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, (root / name).open("xb") as file:
                    shutil.copyfileobj(source, file)
                count += 1
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, zlib.error) as error:
        shutil.rmtree(root.parent, ignore_errors=True)
        raise InputRefusedError(f"{path}: is no zip, or a damaged one ({error}); copy it again") from error
    if not count:
        refuse(path, "holds no pictures", "give a zip or a folder of PNG, JPEG or TIFF files")
    return root, labelled


def _has_labels(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if member.file_size > LARGEST_LABELS:
        return True
    try:
        return bool(json.loads(archive.read(member)).get("labels"))
    except (ValueError, AttributeError, RecursionError):
        return False
