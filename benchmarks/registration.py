"""False refusals and false acceptances of registration, on genuine heads and on what is none.

    python benchmarks/registration.py --data ../shared/data --which validation [--out table.md]

Genuine heads: validation or test heads of every source as they are; of validation heads also thick slices, slabs and
other sizes, whose error is the largest distance (mm) of the box's corners, 20 % inside, from the head's own pose. Wrong
labels: every genuine head with its header turned by 90 or 180 degrees, another of the 23 turns for each. Non-heads: 15
volumes, some drawn from seeds. Prints a table in Markdown; about 6 CPU seconds a scan.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import scipy.ndimage as ndi
import torch
from torch import Tensor

from benchmarks.population import FLUID, GREY, RIGHT, WHITE
from brgm_med.errors import InputRefusedError
from brgm_med.priors.bundle import DEFAULT, load
from brgm_med.transforms.formats import for_reading
from brgm_med.transforms.formats.affine import make_affine
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.orientation import Hypothesis, check_orientation, recognise, turns
from brgm_med.transforms.prepare import Heads
from brgm_med.transforms.pyramid import clipped
from brgm_med.transforms.register import pose_of, similarity
from brgm_med.transforms.template import Pose, Template, centred_grid, load_template

Volume = tuple[Tensor, Grid]
CONTRASTS = {"T1": (0.15, 0.5, 0.8), "T2": (0.95, 0.55, 0.35), "FLAIR": (0.1, 0.6, 0.45), "PD": (0.75, 0.7, 0.55)}
"""Brightness of fluid, grey and white matter; other tissues at random from .1 to 1."""


@dataclass
class Case:
    """A scan `name`; `variants`: the same head otherwise acquired, with its size over the first's."""

    name: str
    volume: Volume
    variants: list[tuple[str, Volume, float]] = field(default_factory=list)


def thick(volume: Volume, world: int, mm: float) -> Volume:
    """Means over about `mm` along a world axis."""
    values, grid = volume
    axis = grid.index_axis(world)
    factor = max(1, round(mm / grid.spacing[axis]))
    values = values.unfold(axis + 1, factor, factor).mean(-1).contiguous()
    steps, first = np.ones(3), np.zeros(3)
    steps[axis], first[axis] = factor, (factor - 1) / 2
    return values, Grid.of(values, grid.affine @ make_affine(np.diag(steps), first))


def slab(volume: Volume, world: int, low: float, high: float) -> Volume:
    """The part of the field of view from `low` to `high` (0 to 1) along a world axis."""
    values, grid = volume
    axis = grid.index_axis(world)
    n = values.shape[axis + 1]
    if grid.affine[world, axis] < 0:
        low, high = 1 - high, 1 - low
    first = np.zeros(3)
    first[axis] = round(low * n)
    values = values.narrow(axis + 1, round(low * n), round(high * n) - round(low * n)).contiguous()
    return values, Grid.of(values, grid.affine @ make_affine(np.eye(3), first))


def sized(volume: Volume, size: float) -> Volume:
    return volume[0], Grid(volume[1].shape, make_affine(size * np.eye(3), np.zeros(3)) @ volume[1].affine)


def drawn(path: Path, seed: int, contrast: tuple[float, float, float]) -> Volume:
    """A head from a label map."""
    image = nib.nifti1.load(path)
    labels = np.asarray(image.dataobj).astype(np.int64)
    random = np.random.default_rng(seed)
    means = random.uniform(0.1, 1, 1000)
    for group, level in zip((FLUID, GREY, WHITE), contrast, strict=True):
        means[list(group)] = level + random.uniform(-0.05, 0.05, len(group))
    for right, left in RIGHT.items():
        means[right] = means[left]
    means[0] = 0
    values = np.abs(means[labels] + random.normal(0, 0.05, labels.shape)).astype(np.float32)
    return torch.from_numpy(values)[None], Grid(labels.shape, image.affine.astype(np.float64))


def of(paths: list[Path]) -> Iterator[Case]:
    for path, volume in zip(paths, Heads(paths), strict=True):
        yield Case(path.name.removesuffix(".nii.gz"), volume)


def validation_heads(data: Path) -> Iterator[Case]:
    ixi = sorted((data / "ixi-hh-2mm" / "t1").glob("*.nii.gz"))[120:135:3]
    for number, case in enumerate(of(ixi)):
        head = case.volume
        case.variants = [
            [("6 mm along S", thick(head, 2, 6), 1.0), ("of size .76", sized(head, 0.76), 0.76)],
            [
                ("half of S in 6 mm", thick(slab(head, 2, 0.5, 0.92), 2, 6), 1.0),
                ("of size 1.13", sized(head, 1.13), 1.13),
            ],
            [("60 % of A", slab(head, 1, 0.15, 0.75), 1.0), ("7 mm along A", thick(head, 1, 7), 1.0)],
            [("half of R in 6 mm", thick(slab(head, 0, 0.3, 0.8), 0, 6), 1.0)],
            [("of size .87, 6 mm along R", thick(sized(head, 0.87), 0, 6), 0.87)],
        ][number]
        yield case
    other = data / "heads-ds000011"
    for case in of([other / f"sub-{n}.nii.gz" for n in ("05_T1w", "06_T1w", "01_T2w", "05_T2w")]):
        if case.name == "sub-06_T1w":
            case.variants = [("6 mm along R", thick(case.volume, 0, 6), 1.0)]
        if case.name == "sub-05_T2w":
            part = slab(case.volume, 2, 0.4, 0.9)
            case.variants = [("half of S", part, 1.0), ("of size .8", sized(case.volume, 0.8), 0.8)]
        yield case
    for case in of([data / "brains-ds002748" / f"sub-{n}_T1w.nii.gz" for n in (37, 39)]):
        if case.name == "sub-39_T1w":
            case.variants = [
                ("6 mm along A", thick(case.volume, 1, 6), 1.0),
                ("of size .8", sized(case.volume, 0.8), 0.8),
            ]
        yield case
    with tempfile.TemporaryDirectory() as folder, tarfile.open(data / "labels-synthseg.tar.xz") as archive:
        archive.extractall(folder, filter="data")
        maps = sorted(Path(folder).glob("*/training_seg_*.nii.gz"))[16:18]
        for seed, (name, contrast) in enumerate(CONTRASTS.items()):
            head = drawn(maps[seed % 2], seed, contrast)
            yield Case(f"drawn {name}", head, [("7 mm along S", thick(head, 2, 7), 1.0)] if name == "T2" else [])


def test_heads(data: Path) -> Iterator[Case]:
    yield from of(sorted((data / "ixi-hh-2mm" / "t1").glob("*.nii.gz"))[135::5])
    yield from of(sorted((data / "heads-ds000011").glob("sub-0[789]_T?w.nii.gz")))
    yield from of([data / "brains-ds002748" / f"sub-{n}_T1w.nii.gz" for n in (41, 45, 50)])
    yield from of(sorted((data / "brain-4contrast").glob("*.nii.gz")))
    yield from of(sorted((data / "thick-openms").glob("*.nii.gz")))
    for name in ("dicom-papaya-pd", "dicom-structural"):
        with tempfile.TemporaryDirectory() as folder, tarfile.open(data / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
            scan = for_reading(Path(folder)).read(Path(folder))
            yield Case(name, (torch.from_numpy(scan.array)[None], Grid.of(scan.array, scan.affine)))


def blocks(values: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """Cubes of `side` voxels in another order."""
    x, y, z = (n // side for n in values.shape)
    cubes = values[: x * side, : y * side, : z * side].reshape(x, side, y, side, z, side)
    cubes = random.permutation(cubes.transpose(0, 2, 4, 1, 3, 5).reshape(-1, side, side, side))
    return cubes.reshape(x, y, z, side, side, side).transpose(0, 3, 1, 4, 2, 5).reshape(x * side, y * side, z * side)


def non_heads(data: Path, seed: int = 0) -> Iterator[Case]:
    """Volumes that hold no head, in fields of view of 220 x 260 x 220 mm."""
    random = np.random.default_rng(seed)
    grid = centred_grid((110, 130, 110), 2.0, (0.0, 0.0, 0.0))
    points = np.stack(np.meshgrid(*(2.0 * np.arange(n) - n + 1 for n in grid.shape), indexing="ij"), -1)

    def ball(radii: tuple[float, float, float], centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
        return np.linalg.norm((points - centre) / np.asarray(radii), axis=-1) < 1

    noise = random.normal(size=grid.shape)
    leg = np.hypot(points[..., 0], 0.9 * points[..., 1])
    bone = np.hypot(points[..., 0], points[..., 1] + 5) < 25 + 14 * np.exp(-np.abs(points[..., 2]) / 20)
    knee = 0.5 * (leg < 70) + 0.4 * ((leg < 70) & (leg > 60))
    knee[bone & (np.abs(points[..., 2]) > 4) | ball((20, 9, 22), (0, 48, 10))] = 0.75
    lumps = np.zeros(grid.shape)
    for _ in range(12):
        centre = tuple(random.uniform(-50, 50, 3))
        lumps[ball(tuple(random.uniform(10, 60, 3)), centre)] = random.uniform(0.1, 1)
    textured = (1 + 20 * ndi.gaussian_filter(noise, 5)) * ball((80, 95, 80))
    layers = ball((80, 95, 80)) - 0.8 * ball((72, 87, 72)) + 0.6 * ball((65, 80, 65)) + 0.3 * ball((50, 60, 50))
    shapes = {
        "noise": np.abs(noise),
        "smooth noise": ndi.gaussian_filter(noise, 5) * 20,
        "textured ball": textured,
        "sphere": 1.0 * ball((80, 80, 80)),
        "ellipsoid": 1.0 * ball((75, 95, 85)),
        "shell": 1.0 * ball((80, 95, 80)) - ball((72, 87, 72)),
        "layers like scalp, skull, brain": layers,
        "knee": knee,
        "lumps": lumps,
        "ball of lumps": np.where(ball((75, 92, 85)), 0.5 + lumps, 0),
        "gradient": points[..., 2] / 100 + 2,
    }
    for name, values in shapes.items():
        noisy = np.abs(values + random.normal(0, 0.03, grid.shape)).astype(np.float32)
        yield Case(name, (torch.from_numpy(noisy)[None], grid))
    picture = matplotlib.image.imread(sorted((data / "xray-hannover").rglob("*.png"))[seed])
    picture = (picture if picture.ndim == 2 else picture[..., 0])[::-2, ::2].T[:, None].astype(np.float32)
    for name, depth in (("stacked radiograph", np.ones(60)), ("radiograph with a depth", np.hanning(62)[1:-1])):
        stack = torch.from_numpy(picture * depth.astype(np.float32)[:, None])[None]
        yield Case(name, (stack, centred_grid((128, 60, 128), 1.8, (0.0, 0.0, 0.0))))
    head, head_grid = Heads(sorted((data / "ixi-hh-2mm" / "t1").glob("*.nii.gz"))[121:122])[0]
    for side in (12, 20):
        mixed = blocks(head[0].numpy(), side, random)
        yield Case(
            f"head in shuffled cubes of {2 * side} mm",
            (torch.from_numpy(mixed)[None], Grid.of(mixed, head_grid.affine)),
        )


def accepted(stated: Hypothesis, turned: Hypothesis) -> bool:
    try:
        check_orientation(stated, turned)
    except InputRefusedError:
        return False
    return True


def apart(template: Template, one: Pose, other: Pose) -> float:
    """The largest distance (mm) between where two poses put the corners of the box, 20 % inside."""
    corners = np.c_[0.8 * template.box.corners(), np.ones(8)]
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())


class Table:
    """Rows as they come, and rates."""

    def __init__(self, template: Template, out: Path | None) -> None:
        self.template, self.out = template, out
        self.counts: dict[str, list[bool]] = {}
        self.say(
            "| kind | scan | accepted | information | advantage | size | skull | covered | Pearson | error mm | s |"
        )
        self.say("|---|---|---|---|---|---|---|---|---|---|---|")

    def say(self, line: str) -> None:
        print(line, flush=True)
        if self.out is not None:
            with self.out.open("a") as file:
                file.write(line + "\n")

    def row(self, kind: str, name: str, volume: Volume, reference: Pose | None = None) -> Pose | None:
        values, grid = volume
        start = time.process_time()
        stated, turned = recognise(clipped(values[0].numpy()), grid, self.template)
        passes = accepted(stated, turned)
        pose, correlation, error = None, "", ""
        if passes and kind == "head":
            pose = pose_of(stated, values, grid, self.template)
            pearson, covered = similarity(values, grid, self.template, pose)
            correlation, passes = f"{pearson:.2f}", covered >= 0.5
            error = "" if reference is None else f"{apart(self.template, pose, reference):.1f}"
        seconds = time.process_time() - start
        self.counts.setdefault(kind, []).append(passes)
        ratio = stated.information / max(turned.information, 1e-9)
        self.say(
            f"| {kind} | {name} | {'yes' if passes else 'no'} | {stated.information:.2f} | {ratio:.2f} | "
            f"{stated.size} | {'no' if stated.stripped else 'yes'} | {stated.covered:.2f} | {correlation} | {error} | "
            f"{seconds:.1f} |"
        )
        return pose

    def rates(self) -> None:
        for kind, passes in self.counts.items():
            what = ("refused", passes.count(False)) if kind == "head" else ("accepted", passes.count(True))
            self.say(f"\n{kind}: {what[1]} of {len(passes)} falsely {what[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=("validation", "test"), required=True)
    parser.add_argument("--out", type=Path, help="also append to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(load_template(load(DEFAULT)), options.out)
    heads = validation_heads if options.which == "validation" else test_heads
    for number, case in enumerate(heads(options.data)):
        pose = table.row("head", case.name, case.volume)
        for name, volume, size in case.variants:
            reference = None if pose is None else make_affine(size * np.eye(3), np.zeros(3)) @ pose
            table.row("head", f"{case.name} {name}", volume, reference)
        values, grid = case.volume
        turn = make_affine(turns()[1 + number * 5 % 23], np.zeros(3))
        table.row("wrong label", f"{case.name} turned", (values, Grid(grid.shape, turn @ grid.affine)))
    for case in non_heads(options.data, seed=0 if options.which == "validation" else 1):
        table.row("no head", case.name, case.volume)
    table.rates()


if __name__ == "__main__":
    main()
