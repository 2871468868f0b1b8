"""The scans of a BIDS data set: their metadata, their masks and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import read_json
from brgm_med.pipelines.dataset.filters import Filters, passes
from brgm_med.pipelines.dataset.ignored import ignored
from brgm_med.pipelines.dataset.join import Stacks, joined
from brgm_med.pipelines.dataset.names import (
    MASK,
    NATIVE,
    T1W,
    derived_name,
    entities,
    is_magnitude,
    resolution_label,
)
from brgm_med.pipelines.dataset.patterns import matching
from brgm_med.pipelines.dataset.scan import ONE_MASK, Scan, each_once, the_mask
from brgm_med.pipelines.results.certificate import STATEMENT
from brgm_med.transforms.formats import nifti, stem
from brgm_med.transforms.formats.absent import refuse_absent

RAW = "raw"
"""Name, in BIDS URIs, of the data set that is reconstructed."""


def metadata_of(root: Path, scan: Path) -> dict[str, Any]:
    """The content of the JSON files of `scan`, nearer ones last (BIDS's inheritance principle).

    Raises InputRefusedError for one that is damaged.
    """
    own = entities(scan.name) or {}
    parts = scan.relative_to(root).parts[:-1]
    folders = [root.joinpath(*parts[:n]) for n in range(len(parts) + 1)]
    content: dict[str, Any] = {}
    for folder in folders:
        matching = []
        for file in folder.glob(f"*{own.get('suffix', T1W)}.json"):
            name = file.name.removesuffix(".json")
            pairs = dict(part.split("-", 1) for part in name.split("_")[:-1] if "-" in part)
            if all(own.get(key) == value for key, value in pairs.items()):
                matching.append((len(pairs), file.name, file))
        for *_, file in sorted(matching):
            content |= read_json(file)
    return content


def masks_of(root: Path, scan: Path, pattern: str | None) -> list[Path]:
    """The masks that say where the hole in `scan` is.

    `pattern` is a path from `root` with wildcards, in which {sub}, {ses} ... are the scan's entities and {stem} its
    name without ending; without one, files *_label-lesion*_mask of the same subject, in `root` and in its derivatives,
    none of whose entities (but those that describe a mask) differ from the scan's.
    """
    own = entities(scan.name) or {}
    if pattern is not None:
        return matching(root, pattern, own | {"stem": stem(scan)}, scan.name)
    masks = []
    for folder in (root, *sorted(p for p in (root / "derivatives").glob("*") if p.is_dir())):
        for mask in sorted((folder / f"sub-{own.get('sub')}").rglob(f"*label-lesion*_{MASK}.nii*")):
            theirs = entities(mask.name) or {}
            same = {k: v for k, v in theirs.items() if k not in ("label", "suffix", "desc", "space", "res")}
            if theirs and theirs.get("space", "orig") == "orig" and all(own.get(k) == v for k, v in same.items()):
                masks.append(mask)
    return masks


def find_scans(
    root: Path,
    *,
    task: str,
    spacing: float | None,
    own: bool = False,
    suffixes: Sequence[str] = (T1W,),
    labels: Sequence[str] = (),
    mask_pattern: str | None = None,
    stated: float | None = None,
    sessions: Sequence[str] = (),
    filters: Filters | None = None,
    join: Sequence[str] = (),
) -> list[Scan]:
    """The scans of the BIDS data set at `root` that end in one of `suffixes`, of the subjects `labels` (all), by name.

    Phase, real and imaginary images are left out, and files that `.bidsignore` names. `spacing`: the population
    prior's, mm; None: there is none. `own`: the scan's own prior is used; see `result_spacing`. `stated`: the result's
    spacing, mm, where a person states it. `sessions`: only these (all); `filters`: see `filters.passes`; `join`: see
    `join.joined`.

    Raises UsageError for labels that are not there, InputRefusedError where there is no data set or no scan.
    """
    if not (root / "dataset_description.json").is_file():
        raise InputRefusedError(
            f"{root}: holds no dataset_description.json, so it is no BIDS data set; give one, or add --layout plain"
        )
    subjects = {p.name.removeprefix("sub-"): p for p in sorted(root.glob("sub-*")) if p.is_dir()}
    wanted = [label.removeprefix("sub-") for label in labels] or list(subjects)
    for label in wanted:
        if label not in subjects:
            raise UsageError(f"--participant-label {label}: {root} has no sub-{label}")
    files: list[Path] = []
    for label in wanted:
        images = [*subjects[label].glob("anat/*"), *subjects[label].glob("ses-*/anat/*")]
        files += [image for image in sorted(images) if is_magnitude(image.name, suffixes)]
    left_out = ignored(root, files)
    files = [file for file in files if file not in left_out and passes(file, filters or {})]
    if sessions:
        files = of_sessions(files, [session.removeprefix("ses-") for session in sessions])
    if not files:
        names = ", ".join(f"*_{suffix}.nii.gz" for suffix in suffixes)
        more = ", and --bids-filter-file" if filters else ""
        raise InputRefusedError(f"{root}: holds no {names} of the subjects asked for; check names and --suffix{more}")
    groups = [(group, stated or result_spacing(group, spacing, own)) for group in joined(files, join)]
    return each_once([_scan(root, group, task, resolution, mask_pattern) for group, resolution in groups])


def of_sessions(files: Sequence[Path], labels: Sequence[str]) -> list[Path]:
    """The files of these sessions. Raises UsageError for a label that none has."""
    own = {file: (entities(file.name) or {}).get("ses") for file in files}
    for label in labels:
        if label not in own.values():
            raise UsageError(f"--session-label {label}: no image of the subjects asked for is of ses-{label}")
    return [file for file in files if own[file] in labels]


def _scan(root: Path, stacks: Stacks, task: str, spacing: float | None, mask_pattern: str | None) -> Scan:
    file, *further = stacks
    relative = file.relative_to(root)
    resolution = resolution_label(task, spacing)
    destination = (relative.parent / derived_name(file.name, resolution, task)).as_posix()
    problem, mask, masks, metadata, others = None, None, [], {}, []
    sources = [stack.relative_to(root) for stack in stacks]
    try:
        for stack in stacks:
            if not stack.exists():  # others are refused when they are read
                refuse_absent(stack)
        if (entities(file.name) or {}).get("sub") != relative.parts[0].removeprefix("sub-"):
            raise InputRefusedError(
                f"{file}: its name does not begin with {relative.parts[0]}_, its folder's; rename it"
            )
        metadata, *others = [metadata_of(root, stack) for stack in stacks]
        if task == "inpaint":
            masks = masks_of(root, file, mask_pattern)
            mask = the_mask(root, file, masks)
            sources.append(mask.relative_to(root))
    except InputRefusedError as error:
        problem = str(error).replace(f"{root}/", "")
    skipped = not masks and problem is not None and ONE_MASK in problem
    sidecar: dict[str, Any] = {"Description": STATEMENT, "Sources": [f"bids:{RAW}:{s.as_posix()}" for s in sources]}
    sidecar["SkullStripped"] = all(bool(one.get("SkullStripped", False)) for one in (metadata, *others))
    if resolution == NATIVE:
        sidecar["Resolution"] = "the scan's own voxels"
    elif spacing is not None:
        sidecar["Resolution"] = f"{spacing:.3g} mm along every axis of the scan"
    rest = {"further": tuple(zip(further, others, strict=False))}
    return Scan(file, destination, relative.parts[0], sidecar, "", metadata, mask, problem, skipped, **rest)


def result_spacing(stacks: Stacks, prior: float | None, own: bool) -> float | None:
    """Spacing of the result of a scan, or of several, mm, as it is known before the work; None where it is not.

    It is the finest of the scans and of a population prior (of `prior` mm) that has a weight. Beside a scan's `own`
    prior that weight is settled by the work; it matters where the scan is coarser than the population prior along every
    axis. A scan that cannot be read is refused later.
    """
    from brgm_med.transforms.acquire import SAME

    try:
        affines = [nifti.read_header(scan).affine for scan in stacks]
    except InputRefusedError:
        return None if own else prior
    finest = min(math.dist(column, (0, 0, 0)) for affine in affines for column in affine[:3, :3].T)
    if own:
        return finest if prior is None or finest <= prior * (1 + SAME) else None
    return finest if prior is None else min(prior, finest)
