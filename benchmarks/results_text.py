"""The text of docs/RESULTS.md, all of it made of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import paper
from brgm_med.pipelines.evaluation.comparison import Paired, best_baseline, mean, paired
from brgm_med.pipelines.evaluation.evaluate import Evaluation
from brgm_med.pipelines.evaluation.markdown import DIGITS, report, scores_of
from brgm_med.pipelines.evaluation.methods import ALONE, BLEND, known
from brgm_med.pipelines.evaluation.supervised import record_of
from brgm_med.pipelines.evaluation.table import Row, grouped
from brgm_med.priors.bundle import load

TITLES = {
    "sr": "Super-resolution, factor {}",
    "slices": "Thick slices, {} mm",
    "inpaint": 'Inpainting, the hole "{}"',
    "shift": "Shift: {}",
}
WHY = {
    "supervised": "a network that was trained for this one measurement and nothing else, to make the absolute error "
    "small: it knows the kernel and the factor, and it need not be a likely head, only an average of likely ones",
    "pca": "the linear-Gaussian MAP is an average of all heads that fit, which is what squared errors reward; on "
    "aligned heads it is hard to beat by them, and blurred or grainy to the eye",
    "tv": "total variation keeps the known neighbours and adds nothing, which errors averaged over a picture reward",
    "cubic": "the less is missing, the better interpolation is; what our prior cannot express costs more than it adds",
    "lanczos": "the less is missing, the better interpolation is; what our prior cannot express costs more",
    "nearest": "LPIPS takes the edges of blocks for detail",
    "biharmonic": "a small smooth hole is best filled smoothly",
}
OURS = (BLEND, ALONE)
PICTURES = {
    "x-rays": "frontal chest x-rays (Hannover, CC BY 3.0) that were held out of the prior's training",
    "faces": "pictures of the Face Research Lab London Set (CC BY 4.0; two of each person, which intervals take as two "
    "subjects; the prior saw only portraits of members of the US Congress)",
}


def document(rows: Mapping[str, Sequence[Row]], evaluations: Mapping[str, Evaluation], volumes: str) -> str:
    """The whole of docs/RESULTS.md from rows by name, such as "brains sr", what was asked for each, and the text of
    docs/volumes.md."""
    lines = [
        "# Results",
        "",
        "Made by `benchmarks/results.py`; not edited by hand. Derived images, for research, not for diagnosis.",
        "",
        *_about(rows, evaluations),
        *whole_volumes(volumes),
        "## Single slices in short",
        "",
        *_short(rows),
        "## The paper's tables, and the same here",
        "",
        *_paper(rows),
        "## Along the levels",
        "",
        "![scores by factor](results/sr.png)",
        "",
        "![scores by slice thickness](results/slices.png)",
        "",
        "The first three subjects' middle slices, nothing chosen: factor 4, factor 8, 6 mm and two holes.",
        "",
        *(f"![{name}](results/{name}.png)\n" for name in ("sr-4", "sr-8", "slices-6")),
        *(f"![{name}](results/{name}.png)\n" for name in ("inpaint-half", "inpaint-strokes")),
        "## What no baseline was trained for",
        "",
        *_shift(rows["brains shift"]),
        "## Every method at every level",
        "",
        "Means over subjects with 95 % bootstrap intervals over subjects; differences are paired by subject. The best "
        "other method is picked for each score, after the fact, by its mean: that favours it.",
        "",
    ]
    for name, these in rows.items():
        kind, task = name.rsplit(" ", 1)
        titles = {level: f"{kind.capitalize()}: {TITLES[task].format(level)}" for level in grouped(these, "level")}
        lines += [report(these, titles), ""]
    return "\n".join(lines).rstrip() + "\n"


def _about(rows: Mapping[str, Sequence[Row]], evaluations: Mapping[str, Evaluation]) -> list[str]:
    """What was measured, of what, and what the baselines are."""
    first = next(iter(evaluations.values()))
    bundle = load(first.prior)
    heads = len({row["subject"] for row in rows["brains sr"]})
    images = len({(row["subject"], row["image"]) for row in rows["brains sr"]})
    seconds = sum(float(row["seconds"]) for these in rows.values() for row in these if alone(row["method"]))
    lines = [
        f"**Brains**: {images} coronal slices of {heads} heads (IXI, Hammersmith, T1w, 2 mm, slices of 80 x 96 pixels, "
        f"{2 * first.every} mm apart; of shifts, every other one), registered to the prior's template; none of these "
        f"heads trained or chose anything. Prior: {bundle.name} ({bundle.sha256[:12]}). Each slice is reconstructed on "
        "its own; `brgm-med sr` and `inpaint` see its neighbours too, as heads.md and holes.md show. PSNR, RMSE and "
        "MAE are on the scale on which the 0.5th to the 99.5th percentile of a head is 0 to 255; LPIPS is version 0.1, "
        "AlexNet, at the images' own size.",
        "",
        "**Methods**: `map` is the generator's MAP over its latent inputs; `+blend` blends a result with the "
        "linear-Gaussian posterior mean, `+consistency` projects it onto what was measured, and `+orthogonal` does so "
        "orthogonally. Ours here are `map+blend+consistency`, the blend 0.7 : 0.3, and without the blend, as "
        "`reconstruct_slices` and the population prior alone do, `map+consistency`. "
        "`pca`: the linear-Gaussian MAP of 1500 components. "
        "`tv`, `dip`: total variation and the deep image prior (deepinv). `pulse`: PULSE's energies with our solver. "
        "`projection-a` to `-f`: the steps of the paper's Fig. 3, from StyleGAN2's inversion (a) to the paper's own "
        "posterior (f). These and `pulse` search around the w that the mapping network makes of z, and the shipped "
        "prior was trained mainly as an auto-encoder: its encoded slices lie elsewhere, where `map` searches. "
        "`esrgan`: Real-ESRGAN x4plus, as published, trained on photographs. `supervised`: an EDSR-like "
        "network trained on the prior's 120 training heads for exactly the measurement of its level.",
        "",
    ]
    budgets = []
    for file in sorted((first.baselines or first.out / "baselines").glob("supervised-*.safetensors")):
        record = record_of(file)
        budgets.append(
            f"{file.stem.removeprefix('supervised-')}: {int(record['images']) / 1000:.0f} thousand slices, "
            f"{float(record['seconds']) / 60:.0f} min"
        )
    lines += [f"Training of the supervised networks, one core each: {'; '.join(budgets)}.", ""]
    for kind, source in PICTURES.items():
        if f"{kind} sr" in rows:
            prior = load(evaluations[f"{kind} sr"].prior)
            count = len({row["subject"] for row in rows[f"{kind} sr"]})
            trained, rows_, columns = prior.metadata["training"], *prior.image_shape
            lines += [
                f"**{kind.capitalize()}**: {count} {source}, brought to {rows_} x {columns} pixels; the range is 0 "
                f"to 255. The prior is young ({trained['images'] / 1000:.0f} thousand images, "
                f"{trained['seconds'] / 60:.0f} minutes of one core) and not shipped; it has no linear companion, so "
                "nothing is blended.",
                "",
            ]
    lines += [
        f"The reconstructions below took {seconds / 60:.0f} minutes of one core that other work shared. What "
        "cannot be run here (SRFBN's and SN-PatchGAN's weights, its data) has the paper's numbers, and says so.",
        "",
    ]
    return lines


def whole_volumes(text: str) -> list[str]:
    """The first table of docs/volumes.md, under a heading of its own."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    last = next(number for number in range(first, len(lines)) if not lines[number].startswith("|"))
    about = (
        "What `brgm-med sr` does: gains over the best of cubic interpolation and its two projections, with the scan's "
        "own prior alone and with both, LPIPS as a part of that baseline's. Test heads; every case, the acquisitions, "
        "the scores and what is missed: [volumes.md](volumes.md)."
    )
    return ["## Whole volumes", "", about, "", *lines[first:last], ""]


def alone(method: str) -> bool:
    """Whether a row's seconds are its own: a method that begins with another one's result counts that one's too."""
    return method == BLEND or "+" not in known(method)


def _comparisons(rows: Mapping[str, Sequence[Row]], ours: str, score: str) -> dict[str, Paired]:
    """Ours against the best other method at every level of brains, shifts left out, by title."""
    comparisons = {}
    for name, these in rows.items():
        if not name.startswith("brains") or name.endswith("shift"):
            continue
        for level, some in grouped(these, "level").items():
            other = best_baseline(some, score)
            if other is not None:
                comparisons[TITLES[name.rsplit(" ", 1)[1]].format(level)] = paired(some, ours, other, score)
    return comparisons


def _short(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Won and lost, counted, and every level that is not won, with the reason."""
    lines = ["| score | method | won | undecided | lost |", "|---|---|---|---|---|"]
    losses = []
    for score in scores_of([row for these in rows.values() for row in these]):
        for ours in OURS:
            comparisons = _comparisons(rows, ours, score)
            verdicts = [c.verdict for c in comparisons.values()]
            if not verdicts:
                continue
            counts = " | ".join(str(verdicts.count(v)) for v in ("won", "undecided", "lost"))
            lines.append(f"| {score} | {ours} | {counts} |")
            if (score, ours) in (("PSNR", BLEND), ("LPIPS", BLEND), ("LPIPS", ALONE)):
                losses += [(score, title, c) for title, c in comparisons.items() if c.verdict != "won"]
    lines += [
        "",
        "Levels of brains, against the best other method of each (95 % interval of the paired difference).",
        "",
    ]
    if losses:
        lines += ["Not won, in PSNR or LPIPS:", ""]
        for score, title, c in losses:
            d = DIGITS[score]
            lines.append(
                f"- {title}, {score}: {c.ours} {c.difference:+.{d}f} ({c.low:+.{d}f} to {c.high:+.{d}f}) against "
                f"{c.other}, {c.verdict}."
            )
        reasons = {c.other.split("+")[0] for _, _, c in losses} & WHY.keys()
        lines += ["", *(f"Why {method}: {WHY[method]}." for method in sorted(reasons)), ""]
    return lines


def _paper(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Tables 1, 3 and 4, the paper's rows and ours; different data and sizes, which the first column says."""
    lines = [
        f"The paper's rows are {paper.MARK}: other heads, other sizes, VGG's LPIPS perhaps. Only the order of methods "
        "within a row can be compared, not numbers between rows.",
        "",
        "**Table 1**, LPIPS / RMSE (both: lower is better)",
        "",
        "| input | BRGM / ours | PULSE | ESRGAN | SRFBN / supervised |",
        "|---|---|---|---|---|",
    ]
    for name, scores in paper.SUPER_RESOLUTION.items():
        cells = ["{:.2f} / {:.2f}".format(*scores[m]) if m in scores else "-" for m in paper.METHODS]
        lines.append(f"| {name}, x4, {paper.MARK} | {' | '.join(cells)} |")
    here = (BLEND, "pulse", "esrgan", "supervised")
    for kind, level, these in _levels(rows, "sr"):
        cells = [_cells(these, method, ("LPIPS", "RMSE")) for method in here]
        lines.append(f"| {kind} here, x{level} | {' | '.join(cells)} |")
    lines += ["", "**Table 4**, PSNR / SSIM / MAE", "", "| input | BRGM / ours | ESRGAN | SRFBN / supervised |"]
    lines.append("|---|---|---|---|")
    for name, pixelwise in paper.PIXELWISE.items():
        cells = ["{:.2f} / {:.2f} / {:.2f}".format(*pixelwise[m]) for m in ("BRGM", "ESRGAN", "SRFBN")]
        lines.append(f"| {name}, x4, {paper.MARK} | {' | '.join(cells)} |")
    for kind, level, these in _levels(rows, "sr"):
        cells = [_cells(these, method, ("PSNR", "SSIM", "MAE")) for method in (BLEND, "esrgan", "supervised")]
        lines.append(f"| {kind} here, x{level} | {' | '.join(cells)} |")
    lines += ["", "**Table 3**, inpainting: LPIPS / RMSE / PSNR / SSIM of whole images, means over all masks", ""]
    lines += [
        "| images | BRGM / ours | SN-PatchGAN | biharmonic | Telea | Navier-Stokes |",
        "|---|---|---|---|---|---|",
    ]
    for name, both in paper.INPAINTING.items():
        cells = ["{:.2f} / {:.2f} / {:.2f} / {:.2f}".format(*both[m]) for m in ("BRGM", "SN-PatchGAN")]
        lines.append(f"| {name}, {paper.MARK} | {' | '.join(cells)} | - | - | - |")
    for name, these in rows.items():
        if name.endswith(" inpaint"):
            shown = ("LPIPS", "RMSE", "PSNR", "SSIM")
            cells = [_cells(these, m, shown) for m in (BLEND, "", "biharmonic", "telea", "navier-stokes")]
            lines.append(f"| {name.rsplit(' ', 1)[0]} here | {' | '.join(cells)} |")
    return [*lines, ""]


def _levels(rows: Mapping[str, Sequence[Row]], task: str) -> list[tuple[str, str, list[Row]]]:
    """Kind of images, level and rows, of every evaluation of a task."""
    levels = []
    for name, these in rows.items():
        kind, of = name.rsplit(" ", 1)
        if of == task:
            levels += [(kind, level, some) for level, some in grouped(these, "level").items()]
    return levels


def _cells(rows: Sequence[Row], method: str, scores: Sequence[str]) -> str:
    values = [mean(rows, method, score) for score in scores]
    if all(v is None for v in values):
        return "-"
    return " / ".join("-" if v is None else f"{v[0]:.{DIGITS[s]}f}" for v, s in zip(values, scores, strict=True))


def _shift(rows: Sequence[Row]) -> list[str]:
    """Ours and the network trained for factor 4, under measurements and heads that neither saw."""
    lines = [
        "The same prior, unchanged, and the network that was trained for averages of 4 x 4 pixels, under kernels, "
        "factors, noise, orientations and contrasts that neither of them saw. Ours is told the kernel and the noise; "
        "the network cannot be told: a measurement of another factor is resampled to its own. Noise is a standard "
        "deviation in per cent of the width of [-1, 1], which is twice the brain's mean grey value over air.",
        "",
        "![gain of ours](results/shift.png)",
        "",
    ]
    scores = [score for score in ("PSNR", "LPIPS") if score in scores_of(rows)]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for score in scores:
        lines += [f"| {score} | {' | '.join(methods)} | ours minus supervised (95 % interval) |"]
        lines += ["|---" * (len(methods) + 2) + "|"]
        for level, these in grouped(rows, "level").items():
            d = DIGITS[score]
            means = [mean(these, method, score) for method in methods]
            cells = ["" if v is None else f"{v[0]:.{d}f}" for v in means]
            c = paired(these, BLEND, "supervised", score)
            gain = f"{c.difference:+.{d}f} ({c.low:+.{d}f} to {c.high:+.{d}f}), {c.verdict}"
            lines.append(f"| {level} | {' | '.join(cells)} | {gain} |")
        lines.append("")
    return lines
