"""The DICOM files of a source (a file, a folder and all below it, a DICOMDIR, a zip); nothing outside it is read."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from brgm_med.errors import InputRefusedError, refuse
from brgm_med.staging import scratch_folder
from brgm_med.transforms.formats.absent import LONGEST
from brgm_med.transforms.formats.dicom.file import MAGIC, MEDIA_DIRECTORY, PREAMBLE, is_dicom, read_whole, strict
from brgm_med.transforms.formats.dicom.passed import Passed, passed, passed_content, refuse_missing, with_missing
from brgm_med.transforms.formats.visible import is_hidden, visible_files
from brgm_med.transforms.formats.zipped import checked_members, is_zip


@dataclass(frozen=True)
class Files:
    """The DICOM files of `source`, sorted, and the others. `root` is where they lie unpacked."""

    source: Path
    root: Path
    dicom: tuple[Path, ...]
    others: tuple[Passed, ...] = ()


_unpacked: dict[tuple[str, int, int], Files] = {}
"""Zips by path, time and size: unpacked once in a command."""


def files_in(path: Path) -> Files:
    """The DICOM files (PS3.10) that `path` is, or holds. Raises InputRefusedError where there is none.

    Files and folders in it whose names begin with a dot do not count: copies by git-annex, notes by macOS.
    A DICOMDIR names files beside or below it, and a zip's members are below the zip's own root: `..`, absolute names
    and links that lead elsewhere are refused. So are zips that unpack to more than 8 GiB, and members beyond 1 MiB that
    unpack to more than 200 times their size.
    """
    if path.is_dir():
        files = Files(path, path, *walk(path))
    elif not path.exists():
        refuse(path, "no such file or folder", "check the name")
    elif is_zip(path):
        files = _zipped(path)
    elif not is_dicom(path):
        refuse(path, "is no DICOM file (PS3.10)", "export it again")
    elif is_directory(path):
        files = Files(path, path.parent, _referenced(path))
    else:
        files = Files(path, path.parent, (path,))
    if not files.dicom:
        refuse_missing(path, files.others)
        refuse(
            path, f"holds no DICOM file ({len(files.others)} others)", "give a folder, zip or DICOMDIR of DICOM files"
        )
    return files


def is_directory(path: Path) -> bool:
    """True where `path` is a DICOMDIR."""
    from pydicom.filereader import read_file_meta_info

    with strict(path):
        return read_file_meta_info(path).get("MediaStorageSOPClassUID") == MEDIA_DIRECTORY


@contextmanager
def named_by_zip() -> Iterator[None]:
    """Messages name a zip's members by the zip, not by where they are unpacked."""
    try:
        yield
    except InputRefusedError as error:
        text = str(error)
        for files in _unpacked.values():
            text = text.replace(str(files.root), str(files.source))
        raise InputRefusedError(text) from error


def walk(folder: Path) -> tuple[tuple[Path, ...], tuple[Passed, ...]]:
    """The DICOM files in `folder` and below, by name, and the others."""
    every = visible_files(folder)
    dicom = tuple(p for p in every if p.is_file() and is_dicom(p))
    others = [passed(p, p.relative_to(folder)) for p in sorted(set(every) - set(dicom))]
    return dicom, with_missing(others, [p.relative_to(folder).as_posix() for p in dicom])


def _referenced(directory: Path) -> tuple[Path, ...]:
    """The files that a DICOMDIR names (Referenced File ID, PS3.3 F.3.2.2, PS3.10 section 8.2)."""
    with strict(directory):
        records = read_whole(directory).DirectoryRecordSequence
        names = [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
    root, paths = directory.parent.resolve(), []
    for name in names:
        parts = [name] if isinstance(name, str) else list(name)
        path = directory.parent.joinpath(*parts)
        if any(p in ("", ".", "..") or set(p) & set("/\\\0") for p in parts) or not path.resolve().is_relative_to(root):
            refuse(directory, f"names a file outside of its folder ({'/'.join(parts)})", "do not trust it")
        if not path.is_file():
            problem = f"names a file that is not there ({'/'.join(parts)})"
            refuse(directory, problem, "copy the whole medium again, or give the folder")
        paths.append(path)
    return tuple(sorted(set(paths)))


def _zipped(path: Path) -> Files:
    """The DICOM files of a zip, unpacked into a private folder of this process (`staging.scratch_folder`)."""
    state = path.stat()
    key = str(path.resolve()), state.st_mtime_ns, state.st_size
    if key not in _unpacked or not _unpacked[key].root.is_dir():
        root = scratch_folder()
        try:
            with strict(path), zipfile.ZipFile(path) as archive:
                _unpacked[key] = Files(path, root, *_unpack(path, archive, root))
        except InputRefusedError as error:
            shutil.rmtree(root.parent, ignore_errors=True)
            text = str(error).replace(str(root), str(path))
            raise InputRefusedError(text.replace("is truncated or damaged", "is no zip, or a damaged one")) from error
    return _unpacked[key]


def _unpack(path: Path, archive: zipfile.ZipFile, root: Path) -> tuple[tuple[Path, ...], tuple[Passed, ...]]:
    """Unpack the DICOM files of a zip; gives them, and the other files. Checks before it writes."""
    members = checked_members(path, archive)
    unpacked: list[Path] = []
    others: list[Passed] = []
    for number, member in enumerate(members):
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if any(is_hidden(part) for part in name.parts):
            continue
        with archive.open(member) as source:
            start = source.read(LONGEST)
            if start[PREAMBLE:][: len(MAGIC)] != MAGIC:
                others.append(passed_content(start, name))
                continue
            target = root / name
            if os.path.lexists(target):  # two members of one name: keep both, so that duplicates are seen
                target = target.with_name(f"{target.name}.{number}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(start)
                shutil.copyfileobj(source, file)  # at most file_size bytes: zipfile stops there
            unpacked.append(target)
    return tuple(sorted(unpacked)), with_missing(others, [p.relative_to(root).as_posix() for p in unpacked])
