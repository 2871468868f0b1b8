"""The supervised baseline: a network that is trained for one measurement, as the users of such networks train it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from brgm_med._version import __version__
from brgm_med.corruptions import SliceProfile
from brgm_med.errors import PriorError
from brgm_med.files import replacing
from brgm_med.pipelines.console import progress
from brgm_med.pipelines.evaluation.interpolation import interpolated, resampled, sample_positions
from brgm_med.pipelines.evaluation.setting import Method, Setting

BLOCKS, CHANNELS = 8, 48
IMAGES = 40_000
"""So many images are shown in training, if nothing else is said; see `STANDARD`. Ten minutes of one core."""

BATCH, RATE = 4, 5e-4
STANDARD, MOST = 16, 2
"""Of averages of so many pixels as many images are shown as is asked for; of others as many coarse pixels, but at most
so many times the images: to train costs about the same."""


class EDSR(nn.Module):
    """Enhanced deep super-resolution (Lim et al. 2017): residual blocks without normalisation on the coarse grid, then
    one sub-pixel convolution. It adds to the cubic interpolation, of which it need not learn anything.

    [N, C, h, w] -> [N, C, h block0, w block1], what is missing beside the interpolation.
    """

    def __init__(self, channels: int, block: tuple[int, int], blocks: int = BLOCKS, width: int = CHANNELS) -> None:
        super().__init__()
        self.block = block
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.tail = nn.Conv2d(width, channels * block[0] * block[1], 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, y: Tensor) -> Tensor:
        x = start = self.head(y)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + 0.1 * second(first(x).relu())
        n, _, h, w = y.shape
        rows, columns = self.block
        fine = self.tail(x + start).reshape(n, -1, rows, columns, h, w)
        return fine.permute(0, 1, 4, 2, 5, 3).reshape(n, -1, h * rows, w * columns)


def enlarged(network: EDSR, y: Tensor, plain: Tensor) -> Tensor:
    """The network's image, of the shape of the interpolation `plain`: rows and columns that no sample covers are left
    interpolated."""
    with torch.autocast("cpu", torch.bfloat16):
        added = network(y.contiguous(memory_format=torch.channels_last)).float()
    rows, columns = (n - m for n, m in zip(plain.shape[2:], added.shape[2:], strict=True))
    return plain + F.pad(added, (0, columns, 0, rows))


def train(
    stacks: Sequence[Tensor], corruption: SliceProfile, block: tuple[int, int], out: Path, *, images: int, seed: int = 0
) -> None:
    """Train a network on pairs (A x, x) of slices x of `stacks` [Y, C, H, W] and their mirror images, and write it.

    Mean absolute error, Adam, a rate that falls as a half cosine; `images` (see `STANDARD`) are drawn at random with
    `seed`. The file's metadata hold what was done. Deterministic for a number of threads.
    """
    slices = torch.cat([torch.as_tensor(stack) for stack in stacks])
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = EDSR(slices.shape[1], block)
    network = network.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(network.parameters(), RATE)
    steps = max(1, round(images * min(MOST, block[0] * block[1] / STANDARD)) // BATCH)
    begun, recent = time.monotonic(), 0.0
    with progress(out.name, steps) as advance:
        for step in range(steps):
            x = slices[torch.randint(len(slices), (BATCH,), generator=random)].float()
            flip = torch.rand(BATCH, generator=random) < 0.5
            x = torch.where(flip[:, None, None, None], x.flip(3), x)
            y = corruption(x)
            adam.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = (enlarged(network, y, interpolated(y, corruption, tuple(x.shape), "cubic")) - x).abs().mean()
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            error = float(loss.detach())
            recent = 0.98 * recent + 0.02 * error if step else error
            advance(f"error {recent:.4f}")
    record = {
        "images": steps * BATCH,
        "seconds": time.monotonic() - begun,
        "error": recent,
        "slices": len(slices),
        "block": block,
        "channels": slices.shape[1],
        "seed": seed,
        "threads": torch.get_num_threads(),
        "shape": list(slices.shape[2:]),
        "software": f"brgm-med {__version__}",
    }
    with replacing(out, force=True) as temporary:
        tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(tensors, temporary, {"record": json.dumps(record)})


def supervised(setting: Setting) -> Method:
    """The network that `setting.trained_for` names. Another measurement is first resampled to the samples that it was
    trained on, as its users would do it."""
    file = setting.baselines / f"supervised-{setting.trained_for}.safetensors"
    network, record = loaded(file)

    @torch.no_grad()
    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        plain = interpolated(y, corruption, setting.shape, "cubic")
        targets = [_centres(n, step) for n, step in zip(setting.shape[1:], record["block"], strict=True)]
        assert isinstance(corruption, SliceProfile)
        for axis, (matrix, wanted) in enumerate(zip(corruption.matrices[1:], targets, strict=True)):
            if matrix is None or wanted is None:
                continue
            known = sample_positions(matrix)
            if len(known) == len(wanted) and torch.allclose(known, wanted):
                targets[axis] = None  # as trained
        return enlarged(network, resampled(y, corruption, (targets[0], targets[1]), "cubic"), plain)

    return reconstruct


def _centres(size: int, step: int) -> Tensor | None:
    """Centres of samples of `step` pixels in `size` pixels; None for one of every pixel."""
    return None if step == 1 else torch.arange(size // step, dtype=torch.float64) * step + (step - 1) / 2


def record_of(file: Path) -> dict[str, Any]:
    """The training record of a trained network's file. Raises PriorError where it is missing or damaged."""
    try:
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {})["record"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PriorError(f"{file}: missing or damaged ({error}); give --train to make it anew") from error


@lru_cache(maxsize=16)
def loaded(file: Path) -> tuple[EDSR, dict[str, Any]]:
    """A trained network and its record. Raises PriorError where it is missing or damaged."""
    record = record_of(file)
    network = EDSR(record["channels"], tuple(record["block"]))
    try:
        network.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise PriorError(f"{file}: is not a network of this version; remove it") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last), record
