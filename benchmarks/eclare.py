"""ECLARE beside the scan's own prior: slices of 5 mm along R, of brains that trained and chose nothing.

    python benchmarks/eclare.py --data ../shared/data --eclare NAME=COMMAND [NAME=COMMAND ...] [--which validation]

ECLARE (Remedios et al., GPL-3.0, PyPI's eclare==1.0.1) is a program of its own, in an environment of its own, and no
part of this project. COMMAND: its `run-eclare` with the options of a setting, such as --n-patches and --batch-size;
the scan, the output folder and the true slice profile are added here. Both run on the CPU, with one thread. Every image
that is not on the truth's grid is brought there once, by a cubic B-spline. CPU seconds of ECLARE are those of its
processes, of ours those of the reconstruction; neither has reading weights of LPIPS or scores in it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from brgm_med.consistency import project
from brgm_med.pipelines.evaluation.volume_methods import Finer, cubic, projected
from brgm_med.pipelines.evaluation.volumes import Case, Judge
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.reconstruct.measurement import Scan
from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
from brgm_med.transforms.geometry import Grid
from self_prior_measure import perceptual, straight_case

HEADS = {"validation": slice(36, 37), "test": slice(40, 43)}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1") | {
    "CUDA_VISIBLE_DEVICES": ""
}
COLUMNS = ("head", "method", "PSNR", "SSIM", "LPIPS", "CPU s")


def run(command: str, case: Case) -> tuple[Finer, float]:
    """ECLARE's volume of a scan in box slices, and its CPU seconds. Raises RuntimeError with the end of its messages
    where it fails."""
    thickness = case.model.thickness[case.axis] / min(case.coarse.spacing)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nib.nifti1.save(nib.nifti1.Nifti1Image(case.scan[0].numpy(), case.coarse.affine), folder / "scan.nii.gz")
        np.save(folder / "box.npy", np.full(round(thickness), 1 / thickness))
        asked: list[str | Path] = ["--in-fpath", folder / "scan.nii.gz", "--out-dir", folder / "out", "--gpu-id", "-1"]
        asked += ["--relative-slice-thickness", f"{thickness:g}", "--relative-slice-profile-fpath", folder / "box.npy"]
        with (folder / "log").open("wb") as log:
            words = [*shlex.split(command), *asked]
            process = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | ONE_THREAD)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command}: {(folder / 'log').read_text()[-2000:]}")
        result = nib.nifti1.load(folder / "out" / "scan_eclare.nii.gz")
        image = torch.from_numpy(np.asarray(result.dataobj, dtype=np.float32))
        x, y, z = image.shape
        return Finer(image[None], Grid((x, y, z), result.affine)), usage.ru_utime + usage.ru_stime


def ours(case: Case) -> tuple[Finer, float]:
    """The volume by the prior that the scan's own planes teach, and its CPU seconds."""
    began = time.process_time()
    result = reconstruct_volume(Scan(case.scan, case.coarse, case.model, case.noise, case.name))
    return Finer(result.image, result.grid), time.process_time() - began


def consistent(result: Finer, case: Case) -> Finer:
    """Projected onto what the scan measured, orthogonally."""
    image: Tensor = project(result.image, case.model.corruption(result.grid, case.coarse), case.scan)
    return Finer(image, result.grid)


def results(case: Case, runs: dict[str, Future[tuple[Finer, float]]]) -> Iterator[tuple[str, Finer, float | None]]:
    """Every method's name, volume and CPU seconds."""
    yield "cubic", cubic(case), None
    yield "cubic + consistency", projected(orthogonal=True)(case), None
    yield "ours", *ours(case)
    for name, future in runs.items():
        volume, seconds = future.result()
        yield f"ECLARE {name}", volume, seconds
        yield f"ECLARE {name} + projection", consistent(volume, case), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eclare", nargs="+", required=True, metavar="NAME=COMMAND", help="a stated setting each")
    parser.add_argument("--which", choices=tuple(HEADS), default="validation")
    parser.add_argument("--processes", type=int, default=1, help="of ECLARE at a time")
    options = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in options.eclare)
    set_up_torch(1)
    model = perceptual(options.data.parent / "weights" / "alexnet_features_fp16.pth")
    paths = sorted((options.data / "brains-ds002748").glob("*_T1w.nii.gz"))[HEADS[options.which]]
    cases = [straight_case(path.name.removesuffix("_T1w.nii.gz"), path, "R") for path in paths]
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    with ThreadPoolExecutor(options.processes) as pool:
        started = [{name: pool.submit(run, command, case) for name, command in settings.items()} for case in cases]
        for case, runs in zip(cases, started, strict=True):
            judge = Judge(case, {"LPIPS": model})
            for name, volume, seconds in results(case, runs):
                scores = judge.scores(judge.on_truth(volume.image, volume.grid))
                values = [f"{scores['PSNR']:.2f}", f"{scores['SSIM']:.3f}", f"{scores['LPIPS']:.3f}"]
                values += ["" if seconds is None else f"{seconds:.0f}"]
                print(f"| {case.name} | {name} | {' | '.join(values)} |", flush=True)
    print(f"\n{judge.statement()}")


if __name__ == "__main__":
    main()
