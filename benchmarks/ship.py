"""Replace the shipped prior by that of a training run, or only renew its hashes after its card was edited.

    python benchmarks/ship.py --run RUN
    python benchmarks/ship.py --rehash

The model card and the licence that stand in the bundle are kept. With --run, resume/ gets a snapshot from which
`brgm-med train` can go on: copy it to RUN/snapshot.safetensors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from brgm_med.files import digest
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.heads import export
from brgm_med.priors.bundle import DEFAULT, SHIPPED, load
from brgm_med.training.state import Architecture, TrainState

DESCRIPTION = "Coronal slices of T1-weighted adult heads, 2 mm, 120 heads of IXI (CC BY-SA 3.0). Research only."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path)
    what.add_argument("--rehash", action="store_true")
    options = parser.parse_args()
    folder = SHIPPED / DEFAULT
    set_up_torch()
    if options.run is not None:
        card, licence = (folder / "docs" / "README.md").read_text(), (folder / "LICENSE").read_text()
        export(options.run, folder, name=DEFAULT, description=DESCRIPTION, licence=licence, card=card)
        state = TrainState.new(Architecture(), seed=0, rate=0.0)
        state.load(options.run / "state.pt")
        snapshot = Path(__file__).resolve().parent.parent / "resume" / f"{DEFAULT}.safetensors"
        snapshot.parent.mkdir(exist_ok=True)
        state.save_snapshot(snapshot)
    else:
        path = folder / "configs" / "metadata.json"
        metadata = json.loads(path.read_text())
        metadata["sha256"] = {name: digest(folder / name) for name in metadata["sha256"]}
        path.write_text(json.dumps(metadata, indent=2) + "\n")
    print(load(DEFAULT).sha256)


if __name__ == "__main__":
    main()
