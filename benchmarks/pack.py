"""What a machine with a GPU needs of a training run, in one folder: benchmarks/gpu.py goes on from it.

    python benchmarks/pack.py RUN --out gpu --megabytes 24

slices.xz             the run's sources.safetensors, images in 6 bits and thinned to fit
snapshot.safetensors  the run's last state, averaged, in half precision (`TrainState.save_snapshot`)
lpips.safetensors     AlexNet's features in half precision and the heads of LPIPS, where both are on this machine
training.json         architecture, recipe and what was lost

RUN is a folder of benchmarks/population.py. The other files of the machine's copy are those that git tracks; with the
folder, which git ignores, they stay under --tree megabytes: the slices get what is left, at most --megabytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import lzma
import math
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from brgm_med.errors import PriorError
from brgm_med.training.loop import Recipe
from brgm_med.training.sources import LEVELS, Sources
from brgm_med.training.state import Architecture, TrainState
from brgm_med.weights import lpips_features, lpips_heads

ROOT = Path(__file__).resolve().parent.parent
SLICES, SNAPSHOT = "slices.xz", "snapshot.safetensors"
LPIPS_WEIGHTS, TRAINING = "lpips.safetensors", "training.json"
DROPPED = 4
"""Intensities are rounded to multiples of so many of their 8-bit steps: 1/16 of the brain's brightness above air, which
compresses 1.7 times as well, at a root mean square error of 0.015."""


def rounded(stack: Tensor) -> Tensor:
    """Stored intensities (0: not known, else 1 to 255) in multiples of `DROPPED` steps above air."""
    steps = (stack.int() - 1 + DROPPED // 2) // DROPPED * DROPPED
    return torch.where(stack > 0, steps.clamp(0, 254) + 1, 0).to(torch.uint8)


def thinned(sources: Sources, every: int) -> Sources:
    """Images rounded, and of each head and label map one slice in `every`: the others are empty, so that they are never
    drawn and positions stay as they are. Heads begin with different slices."""
    fewer = []
    for source in sources.sources:
        stacks = [torch.zeros_like(stack) for stack in source.stacks]
        for h, (stack, whole) in enumerate(zip(stacks, source.stacks, strict=True)):
            chosen = whole[h % every :: every]
            stack[h % every :: every] = rounded(chosen) if source.tissue is None else chosen
        fewer.append(dataclasses.replace(source, stacks=stacks))
    return Sources(fewer)


def compress(sources: Sources, path: Path) -> int:
    """Write `sources`; returns the bytes."""
    with tempfile.TemporaryDirectory() as folder:
        sources.save(Path(folder) / "sources")
        with open(Path(folder) / "sources", "rb") as plain, lzma.open(path, "wb", preset=4) as file:
            shutil.copyfileobj(plain, file, 1 << 20)
    return path.stat().st_size


def unpack(path: Path) -> Sources:
    """What `compress` wrote. Raises PriorError for a file that is damaged."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with lzma.open(path) as file, open(Path(folder) / "sources", "wb") as plain:
                shutil.copyfileobj(file, plain, 1 << 20)
        except (EOFError, lzma.LZMAError) as error:
            raise PriorError(f"{path}: damaged ({error}); pack the run again") from error
        return Sources.load(Path(folder) / "sources")


def pack(sources: Sources, path: Path, size: int) -> dict[str, float]:
    """Write as many slices of every head and label map as go into `size` bytes; returns what was lost.

    Raises PriorError where one of each is too much.
    """
    images = [stack for source in sources.sources if source.tissue is None for stack in source.stacks]
    longest = max(len(stack) for source in sources.sources for stack in source.stacks)
    every = min(16, longest)  # tells about how many fit
    written = compress(thinned(sources, every), path)
    every = min(max(1, math.ceil(1.02 * every * written / size)), longest)
    while (written := compress(thinned(sources, every), path)) > size:
        if every == longest:
            path.unlink()
            raise PriorError(f"one slice of each head and label map takes {written / 1e6:.1f} MB; give more")
        every = min(max(every + 1, math.ceil(every * written / size)), longest)
    chosen = [stack[h % every :: every] for h, stack in enumerate(images)]
    error = sum(float((rounded(s).double() - s.double()).square().sum()) for s in chosen)
    count = max(1, sum(int((s > 0).sum()) for s in chosen))
    return {
        "one slice in": every,
        "slices": sum(map(len, chosen)),
        "of": sum(map(len, images)),
        "rms error": math.sqrt(error / count) / LEVELS,
    }


def pack_lpips(path: Path, weights: Path | None) -> None:
    """Write the perceptual network, where this machine has it."""
    try:
        tensors = {key: value.half() for key, value in lpips_features("alex", weights).items()}
        tensors |= {f"head.{i}": head for i, head in enumerate(lpips_heads("alex"))}
    except PriorError as error:
        print(f"no perceptual term on the GPU: {error}")
        path.unlink(missing_ok=True)
        return
    save_file(tensors, path)


def describe(folder: Path, architecture: Architecture, recipe: Recipe, lost: dict[str, float]) -> None:
    """Write training.json."""
    content = {"architecture": dataclasses.asdict(architecture), "recipe": dataclasses.asdict(recipe), "lost": lost}
    (folder / TRAINING).write_text(json.dumps(content, indent=1) + "\n")


def tree_size() -> int:
    """Bytes of the files that git tracks or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return sum((ROOT / name).lstat().st_size for name in set(names) if name and (ROOT / name).is_file())


def main() -> None:
    from population import ARCHITECTURE, RECIPE

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "gpu")
    parser.add_argument("--megabytes", type=float, default=24.0, help="of slices, at most")
    parser.add_argument("--tree", type=float, default=60.0, help="megabytes of the tree with the folder, at most")
    parser.add_argument("--lpips-weights", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        state = TrainState.new(ARCHITECTURE, seed=0, rate=0.0)
        state.load(options.run / "state.pt")
        state.save_snapshot(options.out / SNAPSHOT)
        pack_lpips(options.out / LPIPS_WEIGHTS, options.lpips_weights)
        (options.out / SLICES).unlink(missing_ok=True)
        tree = tree_size()
        others = tree + sum(path.stat().st_size for path in options.out.iterdir())
        size = min(options.megabytes * 1e6, options.tree * 1e6 - others - 1e4)
        if size <= 0:
            raise PriorError(f"the tree has {others / 1e6:.1f} MB without slices, and --tree is {options.tree:g}")
        lost = pack(Sources.load(options.run / "sources.safetensors"), options.out / SLICES, int(size))
    except PriorError as error:
        parser.exit(5, f"{error}\n")
    names = {field.name for field in dataclasses.fields(Recipe)} & set(state.identity)
    recipe = dataclasses.replace(RECIPE, **{name: state.identity[name] for name in names})
    describe(options.out, ARCHITECTURE, recipe, lost)
    print(
        f"one slice in {lost['one slice in']}, {lost['slices']} of {lost['of']}; root mean square error of an "
        f"intensity {lost['rms error']:.4f} of the brain's brightness above air"
    )
    files = {path.name: path.stat().st_size for path in sorted(options.out.iterdir())}
    print("\n".join(f"{size / 1e6:6.1f} MB  {name}" for name, size in files.items()))
    print(f"{tree / 1e6:6.1f} MB  tree\n{(tree + sum(files.values())) / 1e6:6.1f} MB  together, of {options.tree:g}")


if __name__ == "__main__":
    main()
