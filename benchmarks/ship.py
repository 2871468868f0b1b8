"""Export the prior of a population run (benchmarks/population.py), or renew the shipped one's hashes.

    python benchmarks/ship.py --run RUN --out DIR [--images K]
    python benchmarks/ship.py --run RUN --replace
    python benchmarks/ship.py --rehash

`--out` writes a bundle to be measured; `--replace` the shipped one, whose model card and licence are kept, and the
snapshot in resume/, from which training goes on. The statistics of W+ and the linear-Gaussian prior are those of the
whole heads that train.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from brgm_med.files import digest
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.heads import NORMALISATION
from brgm_med.priors.bundle import DEFAULT, SHIPPED, load
from brgm_med.priors.writing import describe
from brgm_med.training.export import export_bundle
from brgm_med.training.sources import Source, Sources, unpacked
from brgm_med.training.state import TrainState
from population import ARCHITECTURE

DESCRIPTION = (
    "Coronal slices of heads, 1.5 mm, of three scanners and of label maps (IXI, OpenNeuro ds000011 and ds002748, "
    "SynthSeg's maps). Research only."
)
WHOLE = ("ixi", "ds000011")
"""Sources of whole heads: the others hold no skull, or no image."""


class Unpacked(Sequence[Tensor]):
    """The heads of a source as float32 slices [Y, 1, H, W], -1 where nothing is known."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.stacks = [stack for source in sources for stack in source.stacks]

    def __len__(self) -> int:
        return len(self.stacks)

    def __getitem__(self, head: int) -> Tensor:  # type: ignore[override]
        return unpacked(self.stacks[head])[0][:, None]


def ship(run: Path, out: Path, card: str, licence: str) -> TrainState:
    """Write the bundle of the averaged networks of a run's last state."""
    state = TrainState.new(ARCHITECTURE, seed=0, rate=0.0)
    state.load(run / "state.pt")
    record = json.loads((run / "prepared.json").read_text())
    sources = [source for source in Sources.load(run / "sources.safetensors").sources if source.name in WHOLE]
    metadata = describe(DEFAULT, DESCRIPTION) | {
        "grid": record["grid"],
        "normalisation": NORMALISATION,
        "heads": {name: [head["name"] for head in parts["sources"]] for name, parts in record["heads"].items()},
        "held_out": {name: [head["name"] for head in parts["validation"]] for name, parts in record["heads"].items()},
        "eval_metrics": state.record.get("snapshots", [{}])[-1],
    }
    space = (run / "template.nii.gz", run / "mask.nii.gz")
    export_bundle(
        *(state, ARCHITECTURE, Unpacked(sources), out), metadata=metadata, card=card, licence=licence, space=space
    )
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--replace", action="store_true")
    parser.add_argument("--rehash", action="store_true")
    options = parser.parse_args()
    folder = SHIPPED / DEFAULT
    set_up_torch(1)
    torch.set_num_threads(1)
    if options.rehash:
        path = folder / "configs" / "metadata.json"
        metadata = json.loads(path.read_text())
        metadata["sha256"] = {name: digest(folder / name) for name in metadata["sha256"]}
        path.write_text(json.dumps(metadata, indent=2) + "\n")
        print(load(DEFAULT).sha256)
        return
    if options.run is None or (options.out is None) != options.replace:
        parser.error("--run and one of --out, --replace; or --rehash")
    out = folder if options.replace else options.out
    card, licence = (folder / "docs" / "README.md").read_text(), (folder / "LICENSE").read_text()
    state = ship(options.run, out, card, licence)
    if options.replace:
        snapshot = Path(__file__).resolve().parent.parent / "resume" / f"{DEFAULT}.safetensors"
        state.save_snapshot(snapshot, adversary=False)
        print(f"{snapshot}: {snapshot.stat().st_size / 1e6:.1f} MB")
    print(load(str(out)).sha256)


if __name__ == "__main__":
    main()
