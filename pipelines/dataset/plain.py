"""The scans of a folder in no order: NIfTI files in any folders, and a folder or zip of DICOM for each volume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brgm_med.errors import InputRefusedError
from brgm_med.files import read_json
from brgm_med.pipelines.dataset.patterns import matching
from brgm_med.pipelines.dataset.scan import Scan, each_once, the_mask
from brgm_med.pipelines.reading import say_identical
from brgm_med.pipelines.results.certificate import STATEMENT
from brgm_med.transforms.formats import endings, stem
from brgm_med.transforms.formats.absent import refuse_absent
from brgm_med.transforms.formats.dicom import is_volume
from brgm_med.transforms.formats.visible import is_hidden, visible_files
from brgm_med.transforms.formats.zipped import is_zip


def find_plain(
    root: Path, *, task: str, series: str | None = None, mask_pattern: str | None = None, without: Sequence[Path] = ()
) -> list[Scan]:
    """Every NIfTI file below `root`, and every folder or zip right in it that holds DICOM, by name; none in `without`,
    and none that is hidden.

    A mask is what `mask_pattern` finds, a path from `root` in which {stem} is the scan's name without ending (default:
    {stem}_mask.nii.gz beside the scan); masks are no scans. Raises InputRefusedError where there is nothing.
    """
    if not root.is_dir():
        raise InputRefusedError(f"{root}: is no folder; give one of NIfTI files, or of folders of DICOM")
    hidden = [p.resolve() for p in without]

    def visible(path: Path) -> bool:
        return not any(Path(os.path.realpath(path)).is_relative_to(p) for p in hidden)

    files = [p for p in visible_files(root) if p.name.endswith(endings("volume")) and not p.is_dir() and visible(p)]
    folders = (p for p in root.iterdir() if not is_hidden(p.name) and (p.is_dir() or is_zip(p)) and visible(p))
    others = sorted(p for p in folders if is_volume(p))
    say_identical([p for p in files if p.is_file()])
    masks: dict[Path, list[Path]] = {}
    for file in [*files, *others]:
        if mask_pattern is None:
            masks[file] = [p for p in [file.with_name(f"{stem(file)}_mask.nii.gz")] if os.path.isfile(p)]
        else:
            masks[file] = matching(root, mask_pattern, {"stem": stem(file)}, file.name)
    taken = {mask for several in masks.values() for mask in several}
    scans = []
    for file in [*files, *others]:
        if file in taken:
            continue
        relative = file.relative_to(root)
        destination = (relative.parent / f"{stem(file)}_{task}").as_posix()
        problem, mask, metadata = None, None, {}
        sources = [relative.as_posix()]
        try:
            if not file.exists():  # others are refused when they are read
                refuse_absent(file)
            if task == "inpaint":
                mask = the_mask(root, file, masks[file])
                sources.append(mask.relative_to(root).as_posix())
            beside = file.with_name(f"{stem(file)}.json")
            metadata = read_json(beside) if file.is_file() and beside.is_file() else {}
        except InputRefusedError as error:
            problem = str(error).replace(f"{root}/", "")
        sidecar: dict[str, Any] = {"Description": STATEMENT, "Sources": sources}
        chosen = (series or "") if file in others else ""
        skipped = task == "inpaint" and file.exists() and not masks[file]
        scans.append(Scan(file, destination, destination, sidecar, chosen, metadata, mask, problem, skipped))
    if not scans:
        raise InputRefusedError(f"{root}: holds no scan, neither NIfTI nor folders of DICOM; check the name")
    return each_once(scans)
