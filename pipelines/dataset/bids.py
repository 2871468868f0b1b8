"""BIDS names: which scans a data set holds, what their derivatives are called, and the files that make these one.

Names are those of BIDS 1.10: entities `key-value`, in the order of its derivatives, then a suffix. Masks of lesions are
`label-lesion_mask`, as its derivatives call them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import read_json, replacing
from brgm_med.pipelines.dataset.ignored import ignored
from brgm_med.pipelines.dataset.patterns import matching
from brgm_med.pipelines.reading import say_identical
from brgm_med.pipelines.results.certificate import STATEMENT
from brgm_med.transforms.formats import endings, nifti, stem
from brgm_med.transforms.formats.absent import refuse_absent
from brgm_med.transforms.formats.dicom import is_volume
from brgm_med.transforms.formats.visible import is_hidden, visible_files
from brgm_med.transforms.formats.zipped import is_zip

VERSION = "1.10.0"
T1W = "T1w"
SUFFIXES = (T1W, "T2w", "FLAIR", "PDw")
"""Images that a scan's own prior reconstructs: it knows every contrast. A population prior knows T1w."""
NO_MAGNITUDE = ("phase", "real", "imag")
"""Values of `part-` whose intensities are not a contrast."""
MASK = "mask"
ONE_MASK = "one mask of its hole is needed"
NATIVE = "native"
RAW = "raw"
"""Name, in BIDS URIs, of the data set that is reconstructed."""
NAME = re.compile(r"((?:[a-z]+-[A-Za-z0-9+]+_)+)([A-Za-z0-9]+)\.nii(\.gz)?")
IGNORED = ("*_measured.nii.gz", "*.html", "*.csv", "/study.tsv", "figures/", "logs/", "/prior/")
"""Files outside BIDS: maps, reports, logs, and a prior that was trained. Images are never ignored."""


@dataclass(frozen=True)
class Scan:
    """A scan to work on. `path` is where it is, `series` which of several DICOM volumes, `metadata` its JSON files'
    content. Its derivative is `destination`, a name in the output folder without an ending, and `sidecar` what the JSON
    file beside that says. `group` are the scans of one subject. `problem` says why it cannot be worked on; if it is
    that no mask says where its hole is, there is nothing to be done, and it is `skipped`."""

    path: Path
    destination: str
    group: str
    sidecar: dict[str, Any]
    series: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    mask: Path | None = None
    problem: str | None = None
    skipped: bool = False


LONGEST_NAME = 255 - len("_certificate.json")
"""Bytes of a derivative's name without an ending."""


def entities(name: str) -> dict[str, str] | None:
    """The entities of a file's name, in order, `suffix` last; None where it is no BIDS name of NIfTI."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    pairs = [part.split("-", 1) for part in match[1].rstrip("_").split("_")]
    return {pair[0]: pair[1] for pair in pairs} | {"suffix": match[2]}


def derived_name(source: str, resolution: str | None, description: str) -> str:
    """The source's name with `res-` (None: without) and `desc-`, without its ending; all its entities are kept, so none
    collide."""
    pairs = entities(source)
    assert pairs is not None
    suffix = pairs.pop("suffix")
    pairs |= ({} if resolution is None else {"res": resolution}) | {"desc": description}
    return "_".join([*(f"{key}-{value}" for key, value in pairs.items()), suffix])


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
) -> list[Scan]:
    """The scans of the BIDS data set at `root` that end in one of `suffixes`, of the subjects `labels` (all), by name.

    Phase, real and imaginary images are left out, and files that `.bidsignore` names. `spacing`: the population
    prior's, mm; None: there is none. `own`: the scan's own prior is used; see `result_spacing`.

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
    files = [file for file in files if file not in left_out]
    if not files:
        names = ", ".join(f"*_{suffix}.nii.gz" for suffix in suffixes)
        raise InputRefusedError(f"{root}: holds no {names} of the subjects asked for; check names and --suffix")
    return _each_once([_scan(root, file, task, result_spacing(file, spacing, own), mask_pattern) for file in files])


def is_magnitude(name: str, suffixes: Sequence[str]) -> bool:
    """True if a file's name is that of an image with one of `suffixes`, and neither phase nor a complex part."""
    pairs = entities(name) or {}
    return pairs.get("suffix") in suffixes and pairs.get("part") not in NO_MAGNITUDE


def _scan(root: Path, file: Path, task: str, spacing: float | None, mask_pattern: str | None) -> Scan:
    relative = file.relative_to(root)
    resolution = resolution_label(task, spacing)
    destination = (relative.parent / derived_name(file.name, resolution, task)).as_posix()
    problem, mask, masks, metadata = None, None, [], {}
    sources = [relative]
    try:
        if not file.exists():  # others are refused when they are read
            refuse_absent(file)
        if (entities(file.name) or {}).get("sub") != relative.parts[0].removeprefix("sub-"):
            raise InputRefusedError(
                f"{file}: its name does not begin with {relative.parts[0]}_, its folder's; rename it"
            )
        metadata = metadata_of(root, file)
        if task == "inpaint":
            masks = masks_of(root, file, mask_pattern)
            mask = the_mask(root, file, masks)
            sources.append(mask.relative_to(root))
    except InputRefusedError as error:
        problem = str(error).replace(f"{root}/", "")
    skipped = not masks and problem is not None and ONE_MASK in problem
    sidecar: dict[str, Any] = {"Description": STATEMENT, "Sources": [f"bids:{RAW}:{s.as_posix()}" for s in sources]}
    sidecar["SkullStripped"] = bool(metadata.get("SkullStripped", False))
    if resolution == NATIVE:
        sidecar["Resolution"] = "the scan's own voxels"
    elif spacing is not None:
        sidecar["Resolution"] = f"{spacing:.3g} mm along every axis of the scan"
    return Scan(file, destination, relative.parts[0], sidecar, "", metadata, mask, problem, skipped)


def the_mask(root: Path, scan: Path, masks: Sequence[Path]) -> Path:
    """The only one of `masks`. Raises InputRefusedError where there are none, or several."""
    if len(masks) == 1:
        return masks[0]
    names = ", ".join(m.relative_to(root).as_posix() for m in masks) or "none"
    raise InputRefusedError(f"{scan.name}: {ONE_MASK}, found: {names}; see --mask-pattern")


def resolution_label(task: str, spacing: float | None) -> str | None:
    """`res-`: native where voxels stay what they are, else the result's spacing, such as 2mm or 0p94mm; None: none."""
    if task == "inpaint":
        return NATIVE
    return None if spacing is None else f"{spacing:.3g}mm".replace(".", "p")


def result_spacing(scan: Path, prior: float | None, own: bool) -> float | None:
    """Spacing of the result, mm, as it is known before the work; None where it is not.

    It is the finest of the scan and of a population prior (of `prior` mm) that has a weight. Beside the scan's `own`
    prior that weight is settled by the work; it matters where the scan is coarser than the population prior along every
    axis. A scan that cannot be read is refused later.
    """
    from brgm_med.transforms.acquire import SAME

    try:
        affine = nifti.read_header(scan).affine
    except InputRefusedError:
        return None if own else prior
    finest = min(math.dist(column, (0, 0, 0)) for column in affine[:3, :3].T)
    if own:
        return finest if prior is None or finest <= prior * (1 + SAME) else None
    return finest if prior is None else min(prior, finest)


def _each_once(scans: Sequence[Scan]) -> list[Scan]:
    """The scans; those that would have one derivative (.nii and .nii.gz of one name) are a problem: which is meant?

    So is a name that is too long for what is to be written.
    """
    names = Counter(scan.destination for scan in scans)
    text = "another scan has this name too, with another ending; rename one"
    long = f"its derivative's name would be longer than {LONGEST_NAME} bytes; rename it"
    checked = []
    for scan in scans:
        problem = long if len(os.fsencode(scan.destination.rsplit("/", 1)[-1])) > LONGEST_NAME else None
        problem = problem if names[scan.destination] == 1 else text
        checked.append(scan if problem is None else replace(scan, problem=f"{scan.path.name}: {problem}"))
    return checked


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
    return _each_once(scans)


def describe_dataset(out: Path, root: Path, name: str) -> None:
    """`dataset_description.json` and `.bidsignore` of the derivatives in `out`, made from the data set at `root`."""
    content = {
        "Name": name,
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "brgm-med",
                "Version": __version__,
                "Description": "Bayesian reconstruction with a deep generative prior. Derived images, for research, "
                "not for diagnosis.",
            }
        ],
        "SourceDatasets": [{"URL": Path(os.path.relpath(root, out)).as_posix()}],
        "DatasetLinks": {RAW: Path(os.path.relpath(root, out)).as_posix()},
    }
    write_if_new(out / "dataset_description.json", json.dumps(content, indent=2) + "\n")
    write_if_new(out / "README", f"{STATEMENT}\n\nMade by brgm-med {__version__}; logs/CITATION.md says how.\n")
    write_if_new(out / ".bidsignore", "\n".join(IGNORED) + "\n")


def write_if_new(path: Path, text: str) -> None:
    """Write `text`, atomically, unless the file says so already. Raises CannotWriteError."""
    if path.is_file() and path.read_text() == text:
        return
    with replacing(path, force=True) as temporary:
        temporary.write_text(text)
