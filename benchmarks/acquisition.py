"""Slice-profile widths, gains of every second slice, motion, ghosts: as estimated from simulated and from real scans.

    python benchmarks/acquisition.py --data ../shared/data [--which test] [--out docs/results/acquisition.md]

Heads of all sources, one after another, each along one axis in slices of 4 to 8 mm, box and Gaussian, with gaps of 0
to 2 mm; what is chosen was chosen on `--which validation`. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from brgm_med.corruptions import Profile, along, profile_matrix
from brgm_med.files import overwriting
from brgm_med.slice_checks import ghosts, neighbours
from brgm_med.slice_width import SliceWidth, slice_width

ACQUISITIONS: tuple[tuple[float, float, Profile], ...] = (
    *((4.0, 0.0, "box"), (6.0, 1.0, "box"), (8.0, 2.0, "box")),
    *((4.0, 0.0, "gaussian"), (6.0, 1.0, "gaussian"), (8.0, 2.0, "gaussian")),
)
"""Thickness and gap, mm, and profile."""

HEADS = {
    # folder: pattern, (first, last) of validation and of test heads, slice axis
    "ixi-hh-2mm/t1": ("*.nii.gz", (120, 123), (135, 138), 1),
    "heads-ds000011": ("*_T1w.nii.gz", (4, 6), (6, 9), 1),
    "brains-ds002748": ("*_T1w.nii.gz", (36, 40), (40, 42), 1),
    "brain-4contrast": ("*_[TF][2L]*.nii.gz", (0, 0), (0, 2), 2),
}
FEWEST_PIXELS = 2.4
"""Slices are simulated that are this many pixels thick or more."""


def volume(path: Path) -> tuple[Tensor, list[float]]:
    """Values [X, Y, Z] and spacing, mm."""
    image = nib.nifti1.load(path)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0).tolist()
    return torch.from_numpy(np.asarray(image.dataobj, np.float32)), spacing


def heads(data: Path, which: str) -> Iterator[tuple[str, Tensor, list[float], int]]:
    for folder, (pattern, validation, test, axis) in HEADS.items():
        first, last = validation if which == "validation" else test
        for path in sorted((data / folder).glob(pattern))[first:last]:
            yield f"{folder.split('/')[0]} {path.name.split('.')[0]}", *volume(path), axis


def thick(head: Tensor, spacing: list[float], axis: int, thickness: float, gap: float, profile: Profile) -> Tensor:
    slices = int(head.shape[axis] * spacing[axis] / (thickness + gap))
    rows = profile_matrix(head.shape[axis], spacing[axis], slices, thickness + gap, thickness, profile)
    return along(head.double(), rows, axis).float()


def shown(estimate: SliceWidth | None) -> str:
    if estimate is None:
        return "nothing told"
    low, high = estimate.interval
    text = f"{estimate.width:.2f} ({low:.1f} to {high:.1f})"
    return text if estimate.identified else f"not identified; {text}"


def widths(data: Path, which: str) -> list[str]:
    """A table of widths, and a summary by profile."""
    lines = ["| head | true, mm | gap | profile | estimate, mm (95 %) |", "|---|---|---|---|---|"]
    errors: dict[Profile, list[tuple[float, bool, bool]]] = {"box": [], "gaussian": []}
    for name, head, spacing, axis in heads(data, which):
        for thickness, gap, profile in ACQUISITIONS:
            if thickness < FEWEST_PIXELS * max(s for a, s in enumerate(spacing) if a != axis):
                continue
            scan, apart = thick(head, spacing, axis, thickness, gap, profile), list(spacing)
            apart[axis] = thickness + gap
            estimate = slice_width(scan, axis, apart, profile)
            lines.append(f"| {name} | {thickness:g} | {gap:g} | {profile} | {shown(estimate)} |")
            if estimate is not None:
                covered = estimate.interval[0] <= thickness <= estimate.interval[1]
                errors[profile].append((abs(estimate.width / thickness - 1), estimate.identified, covered))
    summary = ["| profile | scans | within 10 % | identified | of these within 10 % | off by over 20 % | covered |"]
    summary.append("|---|---|---|---|---|---|---|")
    for profile, of in errors.items():
        sure = [error for error, identified, _ in of if identified]
        near, far = sum(e <= 0.1 for e in sure), sum(e > 0.2 for e in sure)
        within, covering = sum(e <= 0.1 for e, _, _ in of), sum(c for _, _, c in of)
        summary.append(f"| {profile} | {len(of)} | {within} | {len(sure)} | {near} | {far} | {covering} |")
    return [*summary, "", *lines]


def checks(data: Path, which: str) -> list[str]:
    """Gains, motion and ghosts as put in, and false alarms without them, in slices of 5 mm (IXI: 6)."""
    random = torch.Generator().manual_seed(0)
    counts: dict[str, list[bool]] = {}
    for _, head, spacing, axis in heads(data, which):
        scan = thick(head, spacing, axis, 3.0 * max(spacing) if max(spacing) > 1.5 else 5.0, 0.0, "box")
        planes = scan.movedim(axis, 0)
        beside = neighbours(planes, 0)
        striped = planes.clone()
        striped[0::2] *= 1.05
        stripes = neighbours(striped, 0).stripes
        judged = beside.gain.isfinite().nonzero()[2:-2, 0]
        k = int(judged[torch.randint(len(judged), (1,), generator=random)])
        moved, scaled = planes.clone(), planes.clone()
        moved[k], scaled[k] = moved[k].roll(2, 0), 1.2 * scaled[k]
        ghost = planes + 0.1 * planes.roll(planes.shape[1] // 2, 1)
        results = {
            "nothing put in, but something named": any(beside.outliers) or bool(ghosts(planes, 0)),
            "gain of 5 %, within 1 point and named": stripes is not None
            and stripes.significant
            and abs(stripes.gain - 0.05) < 0.01,
            "one slice moved by 2 pixels, named": any(k in slices for slices in neighbours(moved, 0).outliers),
            "one slice brighter by 1.2, named": k in neighbours(scaled, 0).outliers[0],
            "ghost of 10 % at half the field of view, named": bool(ghosts(ghost, 0)),
        }
        for name, result in results.items():
            counts.setdefault(name, []).append(result)
    lines = ["| put in | heads |", "|---|---|"]
    return [*lines, *(f"| {name} | {sum(of)} of {len(of)} |" for name, of in counts.items())]


def real(data: Path) -> list[str]:
    """Real scans in thick slices, beside their headers, under both profiles."""
    lines = [
        "| scan | spacing | box, mm | Gaussian, mm | gain of every second slice | named |",
        "|---|---|---|---|---|---|",
    ]
    paths = [*sorted((data / "thick-openms").glob("*.nii.gz")), *sorted((data / "heads-ds000011").glob("*_T2w.nii.gz"))]
    for path in paths:
        values, spacing = volume(path)
        beside, of = neighbours(values, 2), [slice_width(values, 2, spacing, p) for p in ("box", "gaussian")]
        levels, moved = beside.outliers
        named = len(levels) + len(moved) + len(ghosts(values, 2))
        stripes = beside.stripes
        gain = "" if stripes is None else f"{stripes.gain:+.2%} (+-{stripes.deviation:.2%})"
        lines.append(
            f"| {path.name.split('.')[0]} | {spacing[2]:.2f} | {shown(of[0])} | {shown(of[1])} | {gain} | {named} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=("validation", "test"), default="test")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sections = {
        f"Widths of simulated slices ({options.which} heads)": widths(options.data, options.which),
        f"Slices that do not fit ({options.which} heads)": checks(options.data, options.which),
        "Real scans": real(options.data),
    }
    text = "\n".join(f"## {title}\n\n" + "\n".join(of) + "\n" for title, of in sections.items())
    if options.out is None:
        print(text)
    else:
        with overwriting(options.out) as partial:
            partial.write_text(text)


if __name__ == "__main__":
    main()
