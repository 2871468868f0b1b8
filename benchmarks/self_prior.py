"""Pre-training of the self prior's network, and its measurement on validation (or test) heads.

    python benchmarks/self_prior.py prepare --data ../shared/data --run RUN
    python benchmarks/self_prior.py train --run RUN --iterations 5000 [--widths 64 64 32 32]
    python benchmarks/self_prior.py measure --data ../shared/data --out OUT.csv [--which validation] [--weights FILE]

`prepare` writes the training and validation volumes of all sources as 8 bits; `train` writes RUN/weights.safetensors
and its record, and goes on where RUN/state.pt stands; what ships is a copy of it in brgm_med/self_prior/.
"""

from __future__ import annotations

import argparse
import json
import math
import tarfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from brgm_med.files import digest, overwriting
from brgm_med.ops.precision import native_precision
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.self_prior import weights
from brgm_med.self_prior.network import SubSliceNetwork, autocast
from brgm_med.self_prior.pairs import detail_loss
from self_prior_draw import Batch, Source, Sources

ALL = tuple((t, u) for t in range(3) for u in range(3) if t != u)
HEADS = {
    # name: pattern, training, validation, share, (t, u) with square pixels and t sharp, pixels per plane
    "ixi": ("ixi-hh-2mm/t1/*.nii.gz", 120, 15, 0.35, ALL, 1.0),
    "ds000011": ("heads-ds000011/*_T1w.nii.gz", 4, 2, 0.15, ((1, 2), (2, 1)), 1.0),
    "ds000011-t2": ("heads-ds000011/*_T2w.nii.gz", 1, 1, 0.05, ((0, 1), (1, 0)), 3.2),
    "ds002748": ("brains-ds002748/*_T1w.nii.gz", 36, 4, 0.25, ((0, 1), (0, 2), (1, 0), (1, 2)), 1.0),
}
BATCH, RATE, DECAY = 24, 5e-3, 0.998


def volume(path: Path) -> Tensor:
    """A head as 8 bits: 0 to 255 from air to its brightest per mille; the mean of tissue at about 100 at most."""
    values = np.asarray(nib.nifti1.load(path).dataobj, dtype=np.float32)
    low, high = np.quantile(values, (0.01, 0.999))
    tissue = values[values > low + 0.15 * (high - low)].mean() - low
    return torch.from_numpy(np.clip((values - low) * min(255 / (high - low), 100 / tissue), 0, 255).astype(np.uint8))


def label_maps(data: Path, run: Path) -> list[Tensor]:
    """SynthSeg's label maps with compact labels."""
    with tarfile.open(data / "labels-synthseg.tar.xz") as archive:
        archive.extractall(run, filter="data")
    folder = run / "labels-synthseg"
    known = np.load(folder / "generation_labels.npy")
    compact = np.zeros(int(known.max()) + 1, np.uint8)
    compact[known] = np.arange(len(known))
    paths = sorted(folder.glob("training_seg_*.nii.gz"))
    return [torch.from_numpy(compact[np.asarray(nib.nifti1.load(p).dataobj).astype(np.int64)]) for p in paths]


def prepare(data: Path, run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Source]] = {"training": [], "validation": []}
    record: dict[str, dict[str, list[str]]] = {"training": {}, "validation": {}}
    for name, (pattern, train, validate, share, pairs, plane) in HEADS.items():
        paths = sorted(data.glob(pattern))
        ends = {"training": paths[:train], "validation": paths[train : train + validate]}
        for part, files in ends.items():
            parts[part].append(Source(name, share, [volume(p) for p in files], pairs, plane))
            record[part][name] = [f"{p.name} {digest(p)}" for p in files]
    maps = label_maps(data, run)
    for part, chosen in (("training", maps[:16]), ("validation", maps[16:18])):
        parts[part].append(Source("labels", 0.2, chosen, ALL, labels=64))
    for part, sources in parts.items():
        Sources(sources).save(run / f"{part}.safetensors", record[part])


@torch.no_grad()
def explained(network: SubSliceNetwork, batches: list[Batch], precision: torch.dtype) -> dict[str, float]:
    """Part of the detail's energy that the network predicts, by source."""
    network.eval()
    left: dict[str, list[float]] = {}
    for batch in batches:
        null = batch.axis.null.float()
        detail = null @ (batch.thin - batch.axis.base.float() @ batch.thick)
        with autocast(precision):
            coefficients = network(batch.thick, batch.conditions)
        error = null @ batch.axis.expand(coefficients.float()) - detail
        sums = left.setdefault(batch.source, [0.0, 0.0])
        sums[0] += float(error.square().sum())
        sums[1] += float(detail.square().sum())
    return {name: 1 - error / total for name, (error, total) in left.items()}


def train(run: Path, iterations: int, widths: tuple[int, ...], seed: int, rate: float) -> None:
    """Adam, the rate falling to 0 as a cosine over the last iterations of all; an exponential average is written."""
    torch.manual_seed(seed)
    sources, record = Sources.load(run / "training.safetensors", seed)
    validation, _ = Sources.load(run / "validation.safetensors", 1)
    judged = [validation.draw(32, s, plain) for s in validation.sources for plain in (True, False) for _ in range(8)]
    precision = native_precision(torch.device("cpu"))
    network = SubSliceNetwork(widths).to(memory_format=torch.channels_last)
    average = SubSliceNetwork(widths).to(memory_format=torch.channels_last)
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), rate, betas=(0.9, 0.99))
    began, total, first = time.process_time(), 0.0, 0
    if (run / "state.pt").is_file():
        state = torch.load(run / "state.pt", weights_only=True)
        for name, part in (("network", network), ("average", average), ("optimizer", optimizer)):
            part.load_state_dict(state[name])
        sources.random.set_state(state["random"])
        first = state["iteration"]
    log = (run / "log.jsonl").open("a")
    for iteration in range(first, iterations):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (iteration + 1) / 100) * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        batch = sources.draw(BATCH)
        loss = detail_loss(network, batch.thin, batch.thick, batch.axis, batch.conditions, precision)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(DECAY, (iteration + 1) / (iteration + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        total += float(loss.detach())
        if (iteration + 1) % 500 == 0 or iteration + 1 == iterations:
            entry = {"iteration": iteration + 1, "seconds": time.process_time() - began, "loss": total / 500}
            entry |= {k: round(v, 4) for k, v in explained(average, judged, precision).items()}
            total = 0.0
            print(json.dumps(entry), flush=True)
            log.write(json.dumps(entry) + "\n")
            log.flush()
            facts = {"iterations": iteration + 1, "of": iterations, "seed": seed, "rate": rate, "batch": BATCH}
            facts |= {"widths": list(widths), "explained": entry, "heads": record}
            weights.save(average, run / "weights.safetensors", facts)
            state = {"network": network.state_dict(), "average": average.state_dict(), "iteration": iteration + 1}
            state |= {"optimizer": optimizer.state_dict(), "random": sources.random.get_state()}
            with overwriting(run / "state.pt") as part_file:
                torch.save(state, part_file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing, training, measuring = (commands.add_parser(name) for name in ("prepare", "train", "measure"))
    for command in (preparing, measuring):
        command.add_argument("--data", type=Path, required=True)
    for command in (preparing, training):
        command.add_argument("--run", type=Path, required=True)
    training.add_argument("--iterations", type=int, required=True)
    training.add_argument("--widths", type=int, nargs=4, default=(64, 64, 32, 32))
    training.add_argument("--rate", type=float, default=RATE)
    training.add_argument("--seed", type=int, default=0)
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--which", choices=("validation", "test"), default="validation")
    measuring.add_argument("--weights", type=Path, default=weights.FILE)
    measuring.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    set_up_torch(1)
    if options.command == "prepare":
        prepare(options.data, options.run)
    elif options.command == "train":
        train(options.run, options.iterations, tuple(options.widths), options.seed, options.rate)
    else:
        from self_prior_measure import measure

        measure(options.data, options.which, options.weights, options.out, options.only)


if __name__ == "__main__":
    main()
