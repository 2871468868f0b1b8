"""The self prior against cubic interpolation and its projections, on heads that trained nothing.

Every case is a truth and a scan simulated of it; every method's image is resampled once, by a cubic spline, where the
scan was turned, and not at all elsewhere. Scores are taken inside the field of view less a slice.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brgm_med.ops.precision import native_precision
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.volume_methods import cubic, finer_grid, projected
from brgm_med.pipelines.evaluation.volumes import Case, Judge, turned_case
from brgm_med.search import VOLUME
from brgm_med.self_prior import Acquisition, ThickScan, learn, weights
from brgm_med.self_prior.network import SubSliceNetwork, averaged, condition
from brgm_med.self_prior.prior import IntensityScale
from brgm_med.self_prior.thick_axis import ThickAxis, cubic_matrix
from brgm_med.self_prior.tune import Lesson, smoothing, tune
from brgm_med.transforms.prepare import Heads, heads_in
from brgm_med.transforms.simulate import degrade, thick_slices
from brgm_med.weights import lpips_features, lpips_heads

BASELINES = {
    "cubic": cubic,
    "cubic + consistency": projected(orthogonal=True),
    "cubic + consistency, weighted": projected(orthogonal=False),
}
GAINS = (0.0, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6)
SPLIT = {
    "validation": (slice(120, 124), slice(4, 6), slice(36, 38)),
    "test": (slice(135, 150), slice(6, 9), slice(40, 50)),
}


FIELDS = ("case", "method", "psnr", "ssim", "lpips", "best_gain", "gain", "extra_blur", "noise", "step", "pixel_mm")
FIELDS += ("iterations", "cpu", "wall")
Row = dict[str, Any]


def straight_case(name: str, path: Path, world: str, blur: float = 0.0) -> Case:
    """Slices of 5 mm along R or A; `blur`: voxels by which the truth is blurred through plane."""
    ((truth, grid),) = Heads([path])
    coarse, model = thick_slices(grid, world, 5.0)
    axis = model.axis
    matrix = smoothing(grid.shape[axis], blur)
    if matrix is not None:
        truth = torch.movedim(torch.tensordot(matrix, truth, ([1], [axis + 1])), 0, axis + 1).contiguous()
    return Case(name, truth, grid, degrade(truth, grid, coarse, model), coarse, model)


def noisy(case: Case, noise: float) -> Case:
    """White Gaussian noise of that part of the truth's 99.5th percentile."""
    values = case.truth.flatten()[::50].double()
    case.noise = noise * float(values.quantile(0.995))
    case.scan = case.scan + case.noise * torch.randn(case.scan.shape, generator=torch.Generator().manual_seed(7))
    case.name += f", {100 * noise:g} % noise"
    return case


def cases(data: Path, which: str) -> Iterator[Case]:
    ixi, other, brains = SPLIT[which]
    ixi_paths = heads_in(data / "ixi-hh-2mm" / "t1")[ixi]
    other_paths = sorted((data / "heads-ds000011").glob("*_T1w.nii.gz"))[other]
    brain_paths = sorted((data / "brains-ds002748").glob("*_T1w.nii.gz"))[brains]
    for index, path in enumerate(ixi_paths[: 2 if which == "validation" else None]):
        yield turned_case(f"ixi {path.name[:6]}", path, index)
    for index, path in enumerate(other_paths):
        yield turned_case(f"ds000011 {path.name[:6]}", path, index)
    for path in brain_paths:
        for world in "RA":
            yield straight_case(f"ds002748 {path.name[:6]} {world}", path, world)
    yield noisy(turned_case(f"ixi {ixi_paths[0].name[:6]}", ixi_paths[0], 0), 0.05)
    yield noisy(straight_case(f"ds002748 {brain_paths[0].name[:6]} R", brain_paths[0], "R"), 0.05)
    for blur in (1.0, 2.0):
        name = f"ds002748 {brain_paths[0].name[:6]} R, blurred by {blur:g}"
        yield straight_case(name, brain_paths[0], "R", blur=blur)
    if which == "validation" and len(ixi_paths) > 2:
        for index, path in enumerate(ixi_paths[2:], 2):
            yield turned_case(f"ixi {path.name[:6]}", path, index)


@cache
def perceptual(path: Path) -> LPIPS:
    return LPIPS("alex", lpips_features("alex", path), lpips_heads("alex"))


def scores(case: Case, network: SubSliceNetwork, iterations: tuple[int, ...], model: LPIPS) -> Iterator[Row]:
    """A row per method and gain."""
    judge = Judge(case, {"LPIPS": model})
    truth, scan = case.truth[0], case.scan[0]

    def pictures(image: Tensor) -> Row:
        return {name.lower(): value for name, value in judge.pictures(image).items()}

    for name, baseline in BASELINES.items():
        result = baseline(case)
        image = judge.on_truth(result.image, result.grid)
        error = judge.psnr(judge.mean((image - truth).square()))
        yield {"case": case.name, "method": name, "psnr": error} | pictures(image)
    fine = finer_grid(case)
    for count in iterations:
        began, wall = time.process_time(), time.monotonic()
        slices = case.model
        thickness = slices.thickness[case.axis]
        acquisition = Acquisition.of(scan.shape, case.coarse.spacing, case.axis, thickness, slices.profile)
        (prior,) = learn([ThickScan(scan, acquisition, case.noise)], iterations=count, network=network)
        base, detail = prior.base(scan), prior.detail(scan)
        facts = {
            "gain": prior.gain,
            "extra_blur": round(prior.extra_blur, 4),
            "noise": case.noise,
            "step": acquisition.thick.step,
            "pixel_mm": acquisition.pixel,
            "iterations": count,
            "cpu": time.process_time() - began,
            "wall": time.monotonic() - wall,
        }
        b, d = judge.on_truth(base[None], fine), judge.on_truth(detail[None], fine)
        e = b - truth
        ee, ed, dd = judge.mean(e * e), judge.mean(e * d), judge.mean(d * d)
        facts["best_gain"] = -ed / max(dd, 1e-12)

        def row(name: str, gain: float, ee: float = ee, ed: float = ed, dd: float = dd) -> Row:
            return {"case": case.name, "method": name, "psnr": judge.psnr(ee + 2 * gain * ed + gain**2 * dd)}

        for gain in GAINS:
            yield row(f"self {count} x {gain:g}", gain) | facts
        yield row(f"self {count}", prior.gain) | facts | pictures(b + prior.gain * d)


def flat_scores(path: Path, network: SubSliceNetwork, iterations: tuple[int, ...], factor: int = 3) -> Iterator[Row]:
    """A thick T2 in plane: its rows `factor` times as coarse, learned from the columns of what is left."""
    ((image, _),) = Heads([path])
    truth = IntensityScale.of(image)(image)[0].movedim(2, 0)  # [Z, X, Y]
    axis = ThickAxis.inside(truth.shape[1], float(factor), float(factor), "box")
    truth = truth[:, : axis.thin]
    scan = axis.matrix.float() @ truth
    base = axis.base.float() @ scan
    plane, precision = 3.2, native_precision(torch.device("cpu"))
    mask = torch.zeros_like(truth, dtype=torch.bool)
    mask[2:-2, factor:-factor, 3:-3] = True
    width = float(np.diff(np.quantile(truth[mask].numpy(), (0.005, 0.995)))[0])

    def row(name: str, x: Tensor) -> Row:
        return {
            "case": f"T2 in plane {path.name[:6]}",
            "method": name,
            "psnr": float(10 * np.log10(width**2 / float((x - truth)[mask].square().mean()))),
        }

    cubic = cubic_matrix(axis.slices, (torch.arange(axis.thin, dtype=torch.float64) + 0.5) / axis.step).float() @ scan
    yield row("cubic", cubic)
    yield row("cubic + consistency", base)
    for count in iterations:
        tuned = SubSliceNetwork(network.widths).to(memory_format=torch.channels_last)
        tuned.load_state_dict(network.state_dict())
        lesson = Lesson.of(base.transpose(1, 2).contiguous(), factor, factor, "box", plane=plane)
        tune(tuned, [lesson], iterations=count, precision=precision)
        y = averaged(tuned, scan, condition(axis, 0.0, plane), precision)
        detail = axis.null.float() @ axis.expand(y)
        best = float(((truth - base) * detail)[mask].mean() / detail[mask].square().mean().clamp(min=1e-12))
        for gain in GAINS:
            yield row(f"self {count} x {gain:g}", base + gain * detail) | {"best_gain": best}


def measure(
    data: Path, which: str, file: Path, out: Path, only: str = "", iterations: tuple[int, ...] = (0, VOLUME.learning)
) -> None:
    """Every case with `only` in its name: rows are written as they are known, then the gains of all are printed."""
    network, model = weights.load(file), perceptual(data.parent / "weights" / "alexnet_features_fp16.pth")
    subjects = ("01", "05") if which == "validation" else ("07", "08", "09")

    def rows() -> Iterator[Row]:
        for case in cases(data, which):
            if only in case.name:
                yield from scores(case, network, iterations, model)
        for subject in subjects if only in "T2 in plane" else ():
            yield from flat_scores(data / "heads-ds000011" / f"sub-{subject}_T2w.nii.gz", network, iterations)

    written = []
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        for row in rows():
            writer.writerow(row)
            stream.flush()
            written.append(row)
            if " x " not in row["method"]:
                print(line(row), flush=True)
    print(curve(written, iterations[-1]))


def line(row: Row) -> str:
    """A row of the table: PSNR / SSIM / LPIPS, and what the scan said of itself."""
    values = [f"{row[k]:.{d}f}" if k in row else "" for k, d in (("psnr", 2), ("ssim", 3), ("lpips", 3))]
    facts = [f"{row[k]:.3g}" if k in row else "" for k in ("gain", "best_gain", "extra_blur", "cpu")]
    return f"| {row['case']} | {row['method']} | {' | '.join(values + facts)} |"


def curve(rows: list[Row], iterations: int) -> str:
    """PSNR over that of the orthogonal projection of cubic, by case and gain, after `iterations` of tuning."""
    lines = ["| case | " + " | ".join(f"{g:g}" for g in GAINS) + " |", "|---" * (len(GAINS) + 1) + "|"]
    for case in dict.fromkeys(row["case"] for row in rows):
        of = {row["method"]: row["psnr"] for row in rows if row["case"] == case}
        over = [of[f"self {iterations} x {g:g}"] - of["cubic + consistency"] for g in GAINS]
        lines.append(f"| {case} | " + " | ".join(f"{v:+.2f}" for v in over) + " |")
    return "\n".join(lines)
