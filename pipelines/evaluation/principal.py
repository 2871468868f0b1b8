"""The linear baseline: principal components of the training images, and the Gaussian MAP in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brgm_med.corruptions import Mask, SliceProfile
from brgm_med.errors import PriorError, UsageError
from brgm_med.files import replacing
from brgm_med.gaussian import LinearGaussian
from brgm_med.pipelines.evaluation.setting import Method, Setting

COMPONENTS = 1500
FILE = "pca.safetensors"
AVERAGES, SLICES, HOLES = 0.04, 0.08, 0.2
"""The deviation that the components leave, chosen on the validation heads: of averages, thick slices, beside holes."""


def fit(stacks: Sequence[Tensor], out: Path) -> None:
    """Fit the components to `stacks`, item h the slices [Y, 1, H, W] of head h, and write them to `out`.

    Raises UsageError for images in colour.
    """
    if torch.as_tensor(stacks[0]).shape[1] != 1:
        raise UsageError("--methods pca: is for grey images; leave it out")
    linear = LinearGaussian.fit(stacks, COMPONENTS)
    tensors = {"mean": linear.mean, "basis": linear.basis, "deviation": linear.deviation}
    tensors["nugget"] = torch.tensor(linear.nugget, dtype=torch.float64)
    with replacing(out, force=True) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def principal_components(setting: Setting) -> Method:
    """m + C A' (A C A' + s^2 I)^-1 (y - A m), with components of the baselines' own training."""
    linear = loaded(setting.baselines / FILE).at(setting.index)

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        if isinstance(corruption, Mask):
            return linear.fill(corruption.mask, y, math.hypot(HOLES, setting.noise))
        along_rows = isinstance(corruption, SliceProfile) and corruption.matrices[2] is None
        return linear.estimate(corruption, y, math.hypot(SLICES if along_rows else AVERAGES, setting.noise))

    return reconstruct


def loaded(file: Path) -> LinearGaussian:
    """Raises PriorError where the file is missing or damaged."""
    try:
        tensors = load_file(file)
        return LinearGaussian(tensors["mean"], tensors["basis"], tensors["deviation"], float(tensors["nugget"]))
    except (OSError, SafetensorError, KeyError) as error:
        raise PriorError(f"{file}: missing or damaged ({error}); give --train to make it anew") from error
