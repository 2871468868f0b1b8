"""Baselines that learn: trained where they are missing, and never asked about what they learnt from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from brgm_med.corruptions import SliceProfile
from brgm_med.errors import PriorError, UsageError
from brgm_med.files import write_json
from brgm_med.pipelines.console import say
from brgm_med.pipelines.evaluation import principal, supervised
from brgm_med.pipelines.evaluation.measure import Evaluation, problem_of
from brgm_med.pipelines.evaluation.methods import TRAINED
from brgm_med.pipelines.evaluation.problems import Problem
from brgm_med.pipelines.evaluation.subjects import Source, find, stacks
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.priors.bundle import PriorBundle

LEARNT = "trained.json"
"""In the folder of baselines: the names of the subjects that any of them was trained on."""


def train_missing(asked: Evaluation, chains: set[str], posed: Sequence[Problem], bundle: PriorBundle) -> None:
    """Train the baselines that `chains` ask for at the problems `posed` and that the folder lacks, on the subjects
    `asked.train`; the one that meets shifts is that of the problem `asked.trained`. Raises UsageError where there is
    nothing to learn from."""
    folder, trained = asked.folder, asked.trained
    task, _, level = trained.partition("-")
    if task not in ("sr", "slices"):
        raise UsageError(f"--trained {trained}: give sr- and a factor, or slices- and a thickness in mm")
    learning = {chain.split("+")[0] for chain in chains} & set(TRAINED)
    wanted: dict[Path, Problem | None] = {folder / principal.FILE: None} if "pca" in learning else {}
    for problem in posed:
        if "supervised" in learning and problem.task != "inpaint":
            base = problem_of(task, level, bundle) if problem.task == "shift" else problem
            wanted[folder / f"supervised-{base.trained_for}.safetensors"] = base
    lacking = {file: problem for file, problem in wanted.items() if not file.is_file()}
    if not lacking:
        return
    if asked.train is None:
        names = ", ".join(file.name for file in lacking)
        raise UsageError(f"{folder}: lacks {names}; say with --train FIRST:LAST which of the data they may learn from")
    say(f"training {len(lacking)} baselines, which are kept in {folder}")
    (folder / "heads").mkdir(parents=True, exist_ok=True)
    sources = find(asked.data, asked.train, folder / "heads", bundle, asked.workers)
    learnt = learnt_from(folder) if (folder / LEARNT).exists() else set()
    learnt |= {source.path.name for source in sources}
    write_json(folder / LEARNT, {"subjects": sorted(learnt)}, force=True)
    images = stacks(sources, bundle)
    set_up_torch(asked.workers)
    for file, missing in lacking.items():
        say(f"{file.name}: {len(images)} subjects")
        if missing is None:
            principal.fit(images, file)
        elif isinstance(missing.corruption, SliceProfile):
            supervised.train(images, missing.corruption, missing.block, file, images=asked.images, seed=asked.seed)


def learnt_from(folder: Path) -> set[str]:
    """The names of the subjects that any of the baselines was trained on. Raises PriorError where that is not told."""
    try:
        return set(json.loads((folder / LEARNT).read_text())["subjects"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PriorError(f"{folder / LEARNT}: missing or damaged ({error}); give another --baselines") from error


def refuse_learnt(folder: Path, chains: set[str], sources: Sequence[Source]) -> None:
    """Raise UsageError where an baseline that is asked learnt from the images that it is to reconstruct."""
    if not any(chain.split("+")[0] in TRAINED for chain in chains):
        return
    shared = sorted(learnt_from(folder) & {source.path.name for source in sources})
    if shared:
        raise UsageError(f"{folder}: learnt from {len(shared)} of these subjects ({shared[0]}, ...); name others")
