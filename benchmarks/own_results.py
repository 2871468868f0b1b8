"""`sr` on simulated thick slices of heads of every source and contrast: a table of docs/RESULTS.md.

    python benchmarks/own_results.py --data ../shared/data --out OUT.csv [--which test] [--only TEXT] [--part I/N]

Writes a row per case and method as it is known, and goes on where OUT.csv stands; `table OUT.csv ...` prints the
gains over the best of cubic interpolation and its two projections. `--part 1/2` takes every second case.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brgm_med.pipelines.evaluation.volume_methods import METHODS
from brgm_med.pipelines.evaluation.volumes import Case, Judge
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.reconstruct.measurement import Scan
from brgm_med.pipelines.reconstruct.population import register_to
from brgm_med.pipelines.reconstruct.registration import output_grid
from brgm_med.priors.bundle import load
from brgm_med.search import VOLUME
from brgm_med.self_prior.weights import pretrained
from self_prior_measure import cases, flat_scores, perceptual, straight_case

FIELDS = ("case", "method", "PSNR", "SSIM", "LPIPS", "seconds")
BASELINES = ("cubic", "cubic+consistency", "cubic+orthogonal")


def every_case(data: Path, which: str) -> Iterator[Case]:
    yield from cases(data, which)
    if which == "test":
        for path in sorted((data / "brain-4contrast").glob("*.nii.gz")):
            for world in "SR":
                yield straight_case(f"{path.name.removesuffix('.nii.gz')} {world}", path, world)


def measure(data: Path, which: str, out: Path, only: str, part: tuple[int, int]) -> None:
    weights = data.parent / "weights" / "alexnet_features_fp16.pth"
    prior, model = load(), perceptual(weights)
    done = {row["case"] for row in csv.DictReader(out.open())} if out.exists() else set()
    with out.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        if not done:
            writer.writeheader()
        for number, case in enumerate(every_case(data, which)):
            if only not in case.name or case.name in done or number % part[1] != part[0]:
                continue
            judge = Judge(case, {"LPIPS": model})
            scan = Scan(case.scan, case.coarse, case.model, case.noise, case.name)
            population = register_to(prior, [scan], output_grid([case.coarse], prior.spacing), VOLUME, beside=True)
            print(f"{case.name}: {population.why()}", file=sys.stderr, flush=True)
            names = (*BASELINES, "self", *(["brgm"] if population.weight.weight else []))
            rows = []
            for name in names:
                began = time.process_time()
                result = METHODS[name](case, prior, VOLUME)
                seconds = time.process_time() - began
                scores = judge.scores(judge.on_truth(result.image, result.grid))
                row = {key: round(scores[key], 4) for key in ("PSNR", "SSIM", "LPIPS")}
                rows.append({"case": case.name, "method": name, "seconds": round(seconds, 1), **row})
            writer.writerows(rows)
            stream.flush()
        if which == "test" and part[0] == 0:
            scans = [data / "heads-ds000011" / f"sub-{s}_T2w.nii.gz" for s in ("07", "08", "09")]
            scans += [data / "thick-openms" / f"patient12_{c}.nii.gz" for c in ("T2W", "FLAIR")]
            for path in scans:
                if only not in path.name:
                    continue
                for row in flat_scores(path, pretrained(), (VOLUME.learning,)):
                    if row["method"] in ("cubic", "cubic + consistency", f"self {VOLUME.learning} x 1.1"):
                        name = {"cubic + consistency": "cubic+orthogonal"}.get(row["method"], row["method"].split()[0])
                        writer.writerow(
                            {"case": f"in plane {path.name}", "method": name, "PSNR": round(row["psnr"], 4)}
                        )
                stream.flush()


def table(files: list[Path]) -> None:
    rows = [row for file in files for row in csv.DictReader(file.open())]
    print(
        "| case | best baseline PSNR / LPIPS | self | LPIPS ratio | both priors | LPIPS ratio | CPU s |\n|" + "---|" * 7
    )
    groups: dict[str, list[tuple[float, ...]]] = {}
    for case in sorted({row["case"] for row in rows}):
        of = {row["method"]: row for row in rows if row["case"] == case}
        best = max(float(of[name]["PSNR"]) for name in BASELINES if name in of)
        distance = min((float(of[n]["LPIPS"]) for n in BASELINES if n in of and of[n]["LPIPS"]), default=float("nan"))
        last = of["brgm" if "brgm" in of else "self"]
        own, both = ((float(r["PSNR"]) - best, float(r["LPIPS"] or "nan") / distance) for r in (of["self"], last))
        cells = f"{own[0]:+.2f} | {own[1]:.2f} | {both[0]:+.2f} | {both[1]:.2f} | {last['seconds']}"
        print(f"| {case} | {best:.2f} / {distance:.3f} | {cells} |")
        kind = "with noise or blur" if ", " in case else "in plane" if case.startswith("in plane") else case.split()[0]
        groups.setdefault(kind, []).append((*own, *both))
    print("\n| cases | n | self: mean (least) dB | LPIPS ratio | both: mean (least) dB | LPIPS ratio |\n|" + "---|" * 6)
    for kind, values in groups.items():
        a = np.array(values)
        mean, least = a.mean(0), a.min(0)
        cells = f"{mean[0]:+.2f} ({least[0]:+.2f}) | {mean[1]:.2f} | {mean[2]:+.2f} ({least[2]:+.2f}) | {mean[3]:.2f}"
        print(f"| {kind} | {len(a)} | {cells} |")


def main() -> None:
    if sys.argv[1:2] == ["table"]:
        table([Path(name) for name in sys.argv[2:]])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--which", choices=("validation", "test"), default="test")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--part", default="1/1", metavar="I/N")
    options = parser.parse_args()
    set_up_torch(1)
    number, of = (int(n) for n in options.part.split("/"))
    measure(options.data, options.which, options.out, options.only, (number - 1, of))


if __name__ == "__main__":
    main()
