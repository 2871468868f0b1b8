"""What a machine with a GPU needs of a training run, in one folder: benchmarks/gpu.py goes on from it.

    python benchmarks/pack.py RUN --out gpu --megabytes 24

slices.safetensors    the training slices in 8 bits; thinned evenly along each head where they are more than --megabytes
snapshot.safetensors  the run's last state, averaged, in half precision (`TrainState.save_snapshot`)
lpips.safetensors     AlexNet's features in half precision and the heads of LPIPS, where both are on this machine
training.json         architecture, recipe and what the above lost

The folder is ignored by git. With it the tree must stay under --tree megabytes, else nothing is left behind.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.training.loop import Recipe
from brgm_med.training.state import Architecture, TrainState
from brgm_med.weights import lpips_features, lpips_heads

ROOT = Path(__file__).resolve().parent.parent
SLICES, SNAPSHOT, LPIPS_WEIGHTS, TRAINING = (
    "slices.safetensors",
    "snapshot.safetensors",
    "lpips.safetensors",
    "training.json",
)


class Stack:
    """Slices of 8 bits: `values` [Y, C, H, W], air (0) at -1, `step` from one value to the next."""

    def __init__(self, values: Tensor, step: float) -> None:
        self.values, self.step = values, step

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | slice) -> Tensor:
        return self.values[index].float().mul_(self.step).sub_(1)


def pack(stacks: Sequence[Tensor], path: Path, megabytes: float) -> dict[str, float]:
    """Write slices [Y, C, H, W] of each head in 8 bits, at most `megabytes` of them; returns what was lost.

    As many slices of every head, evenly spread from its first to its last.
    """
    highest = max(float(torch.as_tensor(stacks[h]).max()) for h in range(len(stacks)))
    step = (highest + 1) / 255
    total = sum(torch.as_tensor(stacks[h]).numel() for h in range(len(stacks)))
    part = min(1.0, megabytes * 1e6 / (total * 1.001))
    tensors, error, below, written = {}, 0.0, 0, 0
    for h in range(len(stacks)):
        stack = torch.as_tensor(stacks[h]).as_subclass(Tensor).float()
        chosen = torch.linspace(0, len(stack) - 1, max(1, math.floor(len(stack) * part))).round().long()
        exact = stack[chosen]
        values = ((exact + 1) / step).round().clamp(0, 255).to(torch.uint8)
        error += float((Stack(values, step)[:] - exact).double().square().sum())
        below += int((exact < -1 - step / 2).sum())
        written += values.numel()
        tensors[f"{h:05d}"] = values.contiguous()
    save_file(tensors, path, {"step": repr(step)})
    return {
        "slices": sum(len(v) for v in tensors.values()),
        "of": sum(len(stacks[h]) for h in range(len(stacks))),
        "step": step,
        "rms error": math.sqrt(error / written),
        "cut below air": below / written,
    }


def unpack(path: Path) -> list[Stack]:
    """The heads that `pack` wrote."""
    with safe_open(path, "pt") as file:
        step = float(file.metadata()["step"])
        return [Stack(file.get_tensor(key), step) for key in sorted(file.keys())]


def pack_lpips(path: Path, weights: Path | None) -> bool:
    """Write the perceptual network; False where this machine does not have it."""
    try:
        tensors = {key: value.half() for key, value in lpips_features("alex", weights).items()}
        tensors |= {f"head.{i}": head for i, head in enumerate(lpips_heads("alex"))}
    except PriorError as error:
        print(f"no perceptual term on the GPU: {error}")
        return False
    save_file(tensors, path)
    return True


def describe(folder: Path, architecture: Architecture, recipe: Recipe, lost: dict[str, float]) -> None:
    """Write training.json."""
    content = {"architecture": dataclasses.asdict(architecture), "recipe": dataclasses.asdict(recipe), "lost": lost}
    (folder / TRAINING).write_text(json.dumps(content, indent=1) + "\n")


def tree_size() -> int:
    """Bytes of the files that git tracks or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return sum((ROOT / name).lstat().st_size for name in set(names) if name and (ROOT / name).exists())


def main() -> None:
    from brgm_med.pipelines.preparation import slices_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "gpu")
    parser.add_argument("--megabytes", type=float, default=24.0, help="of the packed slices")
    parser.add_argument("--tree", type=float, default=60.0, help="megabytes of the tree with the folder")
    parser.add_argument("--lpips-weights", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    state = TrainState.new(Architecture(), seed=0, rate=0.0)
    if (options.run / "state.pt").is_file():
        state.load(options.run / "state.pt")
        state.save_snapshot(options.out / SNAPSHOT)
    else:
        state.load_snapshot(options.run / SNAPSHOT)
        shutil.copyfile(options.run / SNAPSHOT, options.out / SNAPSHOT)
    lost = pack(slices_of(options.run), options.out / SLICES, options.megabytes)
    pack_lpips(options.out / LPIPS_WEIGHTS, options.lpips_weights)
    describe(options.out, Architecture(), Recipe(), lost)
    print(
        f"{lost['slices']} of {lost['of']} slices in 8 bits: root mean square error {lost['rms error']:.4f} (the "
        f"brain's mean is 1 above air), {lost['cut below air']:.2%} of the pixels were below air and lie at it"
    )
    files = {path.name: path.stat().st_size for path in options.out.iterdir()}
    tree, folder = tree_size(), sum(files.values())
    print("\n".join(f"{size / 1e6:6.1f} MB  {name}" for name, size in sorted(files.items())))
    print(f"{tree / 1e6:6.1f} MB  tree\n{(tree + folder) / 1e6:6.1f} MB  together, of {options.tree:g}")
    if tree + folder > options.tree * 1e6:
        (options.out / SLICES).unlink()
        parser.exit(3, f"too large; give --megabytes {options.megabytes - (tree + folder) / 1e6 + options.tree:.1f}\n")


if __name__ == "__main__":
    main()
