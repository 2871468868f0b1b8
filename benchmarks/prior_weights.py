"""Weights a and b of base + a (self - base) + b (population - base): PSNR gain and LPIPS ratio over the base.

    python benchmarks/prior_weights.py --data ../shared/data [--only TEXT] [--prior NAME|DIR]
                                       [--thickness MM | --factor F | --hole MM]

The cases and the scores are those of benchmarks/self_prior.py measure; a table for each case, a down, b across. Or of
the first two validation heads of IXI: in turned slices of so many mm; with voxels F times as large along R and S; with
a spherical hole of so many mm in the middle of the head, filled from its rim plus b times what that prior adds to it
(PSNR in the hole, LPIPS of the slices through it).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from brgm_med.consistency import project
from brgm_med.metrics import lpips
from brgm_med.perceptual import LPIPS
from brgm_med.pipelines.evaluation.volumes import Case, Judge, turned_case
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.reconstruct.consistent import generated
from brgm_med.pipelines.reconstruct.hole import inpaint_volume
from brgm_med.pipelines.reconstruct.measurement import Scan
from brgm_med.pipelines.reconstruct.own import teach
from brgm_med.pipelines.reconstruct.population import most_probable, register_to
from brgm_med.pipelines.reconstruct.registration import error_covariance, output_grid
from brgm_med.priors import DEFAULT
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.seams import blend_seamless
from brgm_med.search import VOLUME
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.prepare import Heads, heads_in
from brgm_med.transforms.simulate import coarse_in_plane, degrade
from fills import ball
from self_prior_measure import SPLIT, cases, perceptual

OWN, POPULATION = (0.0, 0.9, 1.1, 1.3), (0.0, 0.15, 0.3, 0.5, 1.0)
POPULATION_ALONE = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)


def table(case: Case, prior: PriorBundle, judge: Judge) -> list[str]:
    scan = Scan(case.scan, case.coarse, case.model, case.noise, case.name)
    grid = output_grid([case.coarse], prior.spacing)
    population = register_to(prior, [scan], grid, VOLUME, beside=True)
    taught = teach([scan], grid, VOLUME)
    detail = (taught.image - taught.base) / taught.priors[0].gain
    correction = torch.zeros_like(detail)
    operator, covariance = taught.measurements[0].operator, error_covariance(grid)
    if population.registration is not None:
        fitted = most_probable(replace(population, weight=replace(population.weight, weight=1.0)), VOLUME)
        image, weight = generated(fitted.registration, fitted.stack, fitted.box)
        correction = weight * (image - taught.base)
        correction = project(correction.float(), operator, torch.zeros_like(case.scan), covariance)
    base, d, c = (judge.on_truth(x, grid) for x in (taught.base, detail, correction))
    truth = case.truth[0]

    def score(a: float, b: float) -> tuple[float, float]:
        image = base + a * d + b * c
        return judge.psnr(judge.mean((image - truth).square())), judge.pictures(image)["LPIPS"]

    zero = score(0, 0)
    lines = [f"\n{case.name}: {population.why()}; base {zero[0]:.2f} dB, LPIPS {zero[1]:.3f}\n"]
    lines += ["| a | " + " | ".join(f"b {b:g}" for b in POPULATION) + " |", "|---" * (len(POPULATION) + 1) + "|"]
    for a in OWN:
        scores = [score(a, b) for b in POPULATION]
        cells = (f"{psnr - zero[0]:+.2f} {lpips / zero[1]:.2f}" for psnr, lpips in scores)
        lines.append(f"| {a:g} | " + " | ".join(cells) + " |")
    return lines


def in_plane_case(name: str, path: Path, factor: int) -> Case:
    ((truth, grid),) = Heads([path])
    coarse, model = coarse_in_plane(grid, factor)
    return Case(name, truth, grid, degrade(truth, grid, coarse, model), coarse, replace(model, axis=grid.index_axis(0)))


def hole_table(path: Path, size: float, prior: PriorBundle, model: LPIPS) -> list[str]:
    ((truth, grid),) = Heads([path])
    middle = (np.asarray(grid.shape) - 1) / 2
    hole = ball(grid, grid.affine[:3, :3] @ middle + grid.affine[:3, 3], size)
    scan = Scan(truth, grid, AcquisitionModel(grid.spacing, stated=True), 0.0, path.name)
    rim = blend_seamless(truth, torch.zeros_like(truth), hole, grid.spacing)
    guess = inpaint_volume(scan, hole, prior).unprojected
    low, high = torch.quantile(truth.flatten()[::20].double(), torch.tensor([0.005, 0.995]).double()).tolist()
    axis = grid.index_axis(1)
    through = [int(i) for i in hole.movedim(axis, 0).flatten(1).any(1).nonzero()]
    cells = []
    for b in POPULATION_ALONE:
        image = blend_seamless(truth, rim + b * (guess - rim), hole, grid.spacing)
        error = float((image - truth)[0][hole].square().mean())
        shown, true = (x[0].movedim(axis, 0)[through, None] for x in (image, truth))
        distance = float(lpips(shown, true, (low, high), model).mean())
        cells.append(f"{10 * np.log10((high - low) ** 2 / error):.2f} {distance:.4f}")
    head = "| " + " | ".join(f"b {b:g}" for b in POPULATION_ALONE) + " |"
    title = f"\n{path.name[:6]}, a hole of {size:g} mm: PSNR in it, LPIPS\n"
    return [title, head, "|---" * len(cells) + "|", "| " + " | ".join(cells) + " |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--which", choices=("validation", "test"), default="validation")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--prior", default=DEFAULT)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--thickness", type=float, metavar="MM")
    other.add_argument("--factor", type=int)
    other.add_argument("--hole", type=float, metavar="MM")
    options = parser.parse_args()
    set_up_torch(1)
    prior = load(options.prior)
    model = perceptual(options.data.parent / "weights" / "alexnet_features_fp16.pth")
    every = cases(options.data, options.which)
    paths = heads_in(options.data / "ixi-hh-2mm" / "t1")[SPLIT["validation"][0]][:2]
    if options.hole is not None:
        for path in paths:
            print("\n".join(hole_table(path, options.hole, prior, model)), flush=True)
        return
    if options.factor is not None:
        every = (in_plane_case(f"ixi {p.name[:6]} factor {options.factor}", p, options.factor) for p in paths)
    if options.thickness is not None:
        name = f"{options.thickness:g} mm"
        every = (turned_case(f"ixi {p.name[:6]} {name}", p, i, options.thickness) for i, p in enumerate(paths))
    for case in every:
        if options.only in case.name:
            print("\n".join(table(case, prior, Judge(case, {"LPIPS": model}))), flush=True)


if __name__ == "__main__":
    main()
