"""The step `evaluate`: a result and the truth in, PSNR, SSIM, RMSE and MAE out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from brgm_med.errors import InputRefusedError
from brgm_med.files import check_apart, check_output, write_json
from brgm_med.transforms.formats import for_reading


def evaluate(result: Path, truth: Path, out: Path, *, force: bool = False) -> dict[str, float]:
    """Compare `result` with `truth`, volumes on one grid; writes the numbers to `out` (JSON) and returns them.

    (In JSON the infinite PSNR of equal volumes is null.)

    `psnr` (dB), `rmse` and `mae` (in 255ths of the range, as in `metrics`) over all voxels, `ssim` as the mean over
    coronal slices; the range is the truth's 0.5th to 99.5th percentile. Raises InputRefusedError for volumes on
    different grids.
    """
    check_apart([out], [result, truth])
    check_output(out, force)
    ours, true = for_reading(result).read(result, "auto"), for_reading(truth).read(truth, "auto")
    if ours.array.shape != true.array.shape or not np.allclose(ours.affine, true.affine, rtol=0, atol=1e-2):
        raise InputRefusedError(f"{result}: lies on another grid than {truth}; resample one of the two")
    low, high = np.percentile(true.array, [0.5, 99.5])
    if not high > low:
        raise InputRefusedError(f"{truth}: nearly all its voxels are {low:g}; give the truth")

    import torch

    from brgm_med.metrics import mae, psnr, rmse, ssim
    from brgm_med.transforms.geometry import Grid

    coronal = Grid(true.header.shape, true.affine).index_axis(1)
    x, t = (torch.from_numpy(a.array).movedim(coronal, 0)[:, None] for a in (ours, true))
    if min(x.shape[2:]) < 11:
        raise InputRefusedError(f"{truth}: is smaller than 11 voxels; SSIM needs a window of these")
    width = float(high - low)
    numbers = {
        "psnr": float(psnr(x[None], t[None], width)),
        "ssim": float(ssim(x, t, width).mean()),
        "rmse": float(rmse(x[None], t[None], width)),
        "mae": float(mae(x[None], t[None], width)),
    }
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    write_json(out, {"result": result.name, "truth": truth.name, "range": [float(low), float(high)], **finite}, force)
    return numbers
