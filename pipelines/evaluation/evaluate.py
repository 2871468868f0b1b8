"""`brgm-med evaluate`: degrade, reconstruct, measure; a table of rows, what it says, and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.errors import PriorError, UsageError
from brgm_med.files import make_folder, replacing, write_json
from brgm_med.pipelines.console import say
from brgm_med.pipelines.evaluation import table
from brgm_med.pipelines.evaluation.baselines import refuse_learnt, train_missing
from brgm_med.pipelines.evaluation.figures import along_levels, grid, pyplot
from brgm_med.pipelines.evaluation.lesion_rows import SCORED as SPHERES
from brgm_med.pipelines.evaluation.lesion_rows import lesion_report, line_of, measure_lesions
from brgm_med.pipelines.evaluation.markdown import report
from brgm_med.pipelines.evaluation.measure import Evaluation, Job, measure, perceptual, problem_of
from brgm_med.pipelines.evaluation.methods import default_methods, known, unavailable
from brgm_med.pipelines.evaluation.problems import Problem, default_levels
from brgm_med.pipelines.evaluation.subjects import Source, chosen, find
from brgm_med.pipelines.evaluation.table import Row
from brgm_med.pipelines.evaluation.volume_methods import LEVELS, SCORED, measure_volume, thickness_of
from brgm_med.pipelines.evaluation.volume_methods import known as of_volumes
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.transforms.prepare import heads_in

STATEMENT = "Derived images, for research, not for diagnosis."

WHOLE = {"volumes": measure_volume, "lesions": measure_lesions}
"""Tasks on whole volumes, by name."""


def evaluate(asked: Evaluation) -> list[Row]:
    """Fill OUT/TASK.csv with a row for every image, level and method, and write OUT/TASK.md and OUT/TASK*.png.

    What the table holds already is not done again. Raises UsageError for what does not fit together, and what reading
    data and priors raises.
    """
    pyplot()  # before long work, not after
    bundle = load(asked.prior)
    volumes = asked.task in WHOLE
    levels = asked.levels or (LEVELS if volumes else tuple(default_levels(asked.task, bundle.image_shape)))
    posed = [] if volumes else [problem_of(asked.task, level, bundle, asked.trained) for level in levels]
    models = perceptual(asked.lpips_weights)
    if not models:
        if asked.lpips_weights is not None:
            raise PriorError(f"{asked.lpips_weights}: holds no weights of AlexNet or VGG16; give another file")
        say("warning: no weights for LPIPS here, which is left out (brgm-med doctor tells how to get them)")
    methods = {p.level: _methods(asked, p, bundle, "LPIPS" in models) for p in posed}
    if volumes:
        methods = {level: of_volumes(asked.task, asked.methods) for level in levels if thickness_of(level)}
    out = asked.out
    make_folder(out)
    _same_as_before(asked, bundle)
    if volumes:
        sources = [Source(path) for path in chosen(heads_in(asked.data, out), asked.subjects, asked.data)]
    else:
        sources = find(asked.data, asked.subjects, out, bundle, asked.workers)
        chains = {known(name) for names in methods.values() for name in names}
        train_missing(asked, chains, posed, bundle)
        refuse_learnt(asked.folder, chains, sources)

    file = out / f"{asked.task}.csv"
    known_rows = {(row["level"], row["subject"], row["method"]) for row in table.read(file)}
    jobs = []
    for level, names in methods.items():
        for number, source in enumerate(sources):
            lacking = [m for m in names if (level, source.path.name, m) not in known_rows]
            keep = images_folder(out, asked.task, level) if number < asked.shown else None
            if lacking:
                jobs.append((Job(asked, source, level, tuple(lacking), keep),))
    ranked = {level: number for number, level in enumerate(levels)}
    order = list(dict.fromkeys(m for names in methods.values() for m in names))

    def rank(row: Row) -> Any:
        method = order.index(row["method"]) if row["method"] in order else len(order)
        return ranked.get(row["level"], len(ranked)), row["level"], row["subject"], int(row["image"]), method

    work = WHOLE.get(asked.task, measure)
    rows = sorted(table.completed(file, jobs, work, rank, _summary, asked.workers), key=rank)
    now = {source.path.name for source in sources}
    rows = [r for r in rows if r["subject"] in now and r["method"] in methods.get(r["level"], ())]
    _write_report(asked, bundle, rows, sources)
    return rows


def images_folder(out: Path, task: str, level: str) -> Path:
    """The folder of the pictures of a level, a folder for each method in it: as `brgm-med study make` takes them."""
    return out / "images" / f"{task}-{level.replace(' ', '_').replace(',', '')}"


def _methods(asked: Evaluation, problem: Problem, bundle: PriorBundle, perceptual: bool) -> tuple[str, ...]:
    """The methods that are asked for, or the defaults, of which those that cannot be run here are told and left out.

    Raises UsageError for a named one that cannot.
    """
    names = asked.methods or default_methods(problem, bundle.image_channels)
    reasons = {name: unavailable(name, perceptual) for name in names}
    lacking = list(dict.fromkeys(reason for reason in reasons.values() if reason is not None))
    if asked.methods and lacking:
        raise UsageError(lacking[0])
    for reason in lacking:
        say(f"left out at {problem.level}: {reason}")
    return tuple(name for name in names if reasons[name] is None)


def _summary(new: list[Row]) -> str:
    """A line about the rows of one job: PSNR and LPIPS of each method, or the contrast that it retains."""
    if new[0]["task"] == "lesions":
        return line_of(new)
    parts = []
    for method, rows in table.grouped(new, "method").items():
        psnr, lpips = (sum(float(r[s] or "nan") for r in rows) / len(rows) for s in ("PSNR", "LPIPS"))
        parts.append(f"{method} {psnr:.2f}/{lpips:.3f}")
    return f"{new[0]['subject']} {new[0]['level']}: {'  '.join(parts)}"


def _same_as_before(asked: Evaluation, bundle: PriorBundle) -> None:
    """Rows of another prior, spacing of slices or seed do not belong into one table. Raises UsageError for such."""
    file = asked.out / f"{asked.task}.json"
    record = {"prior": bundle.sha256, "every": asked.every, "seed": asked.seed, "software": f"brgm-med {__version__}"}
    if not file.is_file():
        write_json(file, record, force=True)
    with suppress(ValueError):
        if json.loads(file.read_text()) == record:
            return
    problem = "is of an evaluation of another prior, version, --every or --seed"
    raise UsageError(f"{file}: {problem}; give another --out")


def _write_report(asked: Evaluation, bundle: PriorBundle, rows: Sequence[Row], sources: Sequence[Source]) -> None:
    """The tables as Markdown, a grid of pictures a level, and the scores along the levels."""
    out, task = asked.out, asked.task
    levels, methods = (list(table.grouped(rows, column)) for column in ("level", "method"))
    titles = {level: f"{task} {level}" for level in levels}
    head = f"# brgm-med evaluate --task {task}\n\nPrior {bundle.name} ({bundle.sha256[:12]}), {asked.data}. {STATEMENT}"
    if task in WHOLE:
        head += f"\n\n{SPHERES if task == 'lesions' else SCORED}"
    tables = (lesion_report if task == "lesions" else report)(rows, titles)
    with replacing(out / f"{task}.md", force=True) as temporary:
        temporary.write_text(f"{head}\n\n{tables}")
    for level in levels:
        folder = images_folder(out, task, level)
        names = middle_pictures(folder, [source.path.name for source in sources[: asked.shown]])
        if names:
            grid(folder, ["measured", *methods, "truth"], names, folder.with_suffix(".png"), titles[level])
    if task in ("sr", "slices", "volumes") and len(levels) > 1:
        along_levels(rows, methods, out / f"{task}.png", "factor" if task == "sr" else "slice thickness, mm")
    say(f"wrote {out / f'{task}.csv'}, {task}.md and pictures")


def middle_pictures(folder: Path, subjects: Sequence[str]) -> list[str]:
    """Names of the middle one of each subject's kept pictures."""
    middle = []
    for subject in subjects:
        stem = subject.split(".")[0]
        files = sorted((folder / "truth").glob(f"{stem}_*.png"), key=lambda file: int(file.stem.rpartition("_")[2]))
        middle += [file.name for file in files[len(files) // 2 :][:1]]
    return middle
