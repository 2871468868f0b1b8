"""The rows that one head with implanted spheres gives, and tables of them."""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.console import say
from brgm_med.pipelines.evaluation.lesions import CHANGE, DIAMETERS, SHELL, Region, brain, implanted, placed
from brgm_med.pipelines.evaluation.measure import Job, keep, tools
from brgm_med.pipelines.evaluation.memory import peak
from brgm_med.pipelines.evaluation.subjects import Subject
from brgm_med.pipelines.evaluation.table import Row, grouped
from brgm_med.pipelines.evaluation.volume_methods import METHODS, thickness_of, upright
from brgm_med.pipelines.evaluation.volumes import Judge, inside, turned_case
from brgm_med.search import VOLUME, Search
from brgm_med.transforms.oblique import acquire_turned
from brgm_med.transforms.template import load_template

COLUMNS = ("diameter", "change", "R", "A", "S", "contrast", "inside", "residual", "seconds", "MB")
"""A sphere's diameter in mm, change in per cent of the local intensity, and centre in mm; retained contrast, against
the surroundings and inside alone, per cent; and of the image with the spheres, see `volume_methods`."""

CUBIC, LARGE = "cubic", 10.0

SCORED = (
    f"Soft-edged spheres of {', '.join(f'{d:g}' for d in DIAMETERS)} mm, {100 * CHANGE:g} % brighter and darker than "
    "the brain around them, added to its texture; slices as in --task volumes. Each method reconstructs the head with "
    "all spheres and without, and every image is resampled once, by a cubic B-spline, to the truth's grid. The "
    "contrast retained is that of the difference of the two images, mean in the sphere less mean of its surroundings "
    f"({SHELL[0]:g} to {SHELL[1]:g} mm beyond its surface), in per cent of the implanted contrast, measured alike: "
    "it falls by what fades and by what leaks out. Column `inside`: the same without the surroundings."
)
"""The measurement and its scores, for the report."""


def measure_lesions(job: Job, search: Search = VOLUME) -> list[Row]:
    """A row for every sphere and method, of one head; without scores where the method refuses the scan.

    Raises InputRefusedError, which names the head, where its brain is not recognised or has no room for the spheres.
    """
    asked, name = job.asked, job.source.path.name
    bundle, _ = tools(asked.prior, asked.lpips_weights)
    seed = zlib.crc32(f"{asked.seed} {name}".encode())
    healthy = turned_case(name, job.source.path, seed, thickness_of(job.level))
    try:
        region = brain(healthy.truth, healthy.grid, load_template(bundle)) & inside(healthy)
        spheres = placed(healthy.truth[0], healthy.grid, region, seed)
    except InputRefusedError as error:
        raise InputRefusedError(f"{name}: {error}") from error
    regions = [Region(sphere, healthy.grid) for sphere in spheres]
    truth = implanted(healthy.truth, healthy.grid, spheres)
    scan = acquire_turned(truth, healthy.grid, healthy.coarse, healthy.model)
    lesioned = dataclasses.replace(healthy, truth=truth, scan=scan)
    judge, images, rows = Judge(lesioned, {}), {"truth": truth[0]}, []
    for method in job.methods:
        begun = time.perf_counter()
        entries: list[dict[str, str]] = [{} for _ in regions]
        try:
            with peak() as bytes_above:
                with_spheres, without = (METHODS[method](case, bundle, search) for case in (lesioned, healthy))
        except InputRefusedError as error:
            say(f"{method} refuses {error}")
        else:
            seconds, memory = (time.perf_counter() - begun) / 2, bytes_above()
            images[method], other = (judge.on_truth(r.image, r.grid) for r in (with_spheres, without))
            entries = retained(regions, images[method] - other, (truth - healthy.truth)[0])
            cost = {"seconds": f"{seconds:.4f}", "MB": "" if memory is None else f"{memory / 1e6:.1f}"}
            if with_spheres.residual is not None:
                cost |= {"residual": f"{with_spheres.residual:.9g}"}
            entries = [entry | cost for entry in entries]
        about = {"task": asked.task, "level": job.level, "subject": name}
        for number, (sphere, entry) in enumerate(zip(spheres, entries, strict=True)):
            stated = {"diameter": f"{sphere.diameter:g}", "change": f"{100 * np.copysign(CHANGE, sphere.change):+g}"}
            position = {axis: f"{x:.2f}" for axis, x in zip("RAS", sphere.centre, strict=True)}
            row = about | {"image": str(number), "method": method} | dict.fromkeys(COLUMNS, "")
            rows.append(row | stated | position | entry)
    if job.keep is not None:
        index = middles(judge, regions)
        subject = Subject(name, truth, index, judge.window)
        keep(job.keep, subject, {m: upright(judge, image)[list(index)] for m, image in images.items()})
    return rows


def retained(regions: Sequence[Region], change: Tensor, truth: Tensor) -> list[dict[str, str]]:
    """Per cent of each sphere's contrast in a `change` of an image [X, Y, Z] by all of them; `truth`: as implanted."""
    shares = [
        {"contrast": r.contrast(change) / r.contrast(truth), "inside": r.inside(change) / r.inside(truth)}
        for r in regions
    ]
    return [{name: f"{100 * share:.9g}" for name, share in entry.items()} for entry in shares]


def middles(judge: Judge, regions: Sequence[Region]) -> tuple[int, ...]:
    """Slices of `judge` through the spheres' centres."""
    grid, first = judge.case.grid, judge.box[judge.across].start
    inverse = np.linalg.inv(grid.affine)
    indices = [(inverse[:3, :3] @ region.sphere.centre + inverse[:3, 3])[judge.across] for region in regions]
    return tuple(sorted({round(float(index)) - int(first) for index in indices}))


def lesion_report(rows: Sequence[Row], titles: dict[str, str]) -> str:
    """Tables, level by level, `titles` by level: the retained contrast by method, diameter and sign, and the least."""
    lines = []
    for level, these in grouped(rows, "level").items():
        count = len({(row["subject"], row["image"]) for row in these})
        lines += [f"### {titles.get(level, level)}", "", f"{count} spheres of {len(grouped(these, 'subject'))} heads."]
        refused = [f"{row['method']} {row['subject']}" for row in these if not row["contrast"]]
        if refused:
            lines += ["", f"Refused, and in no mean: {', '.join(dict.fromkeys(refused))}."]
        lines += ["", "Contrast retained, per cent: mean (least).", "", *lesion_table(these), ""]
    return "\n".join(lines)


def lesion_table(rows: Sequence[Row]) -> list[str]:
    """A line a method: mean and least contrast by diameter and sign, of all of 10 mm and above, and by how many spheres
    it is above cubic interpolation."""
    kinds = list(dict.fromkeys((row["diameter"], row["change"]) for row in rows))
    columns = [*(f"{d} mm {c} %" for d, c in kinds), f"{LARGE:g} mm and above", "inside alone", "least", "above cubic"]
    lines = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    base = {sphere_of(row): float(row["contrast"]) for row in rows if row["method"] == CUBIC and row["contrast"]}
    for method, all_rows in grouped(rows, "method").items():
        mine = [row for row in all_rows if row["contrast"]]
        if not mine:
            continue
        large = [row for row in mine if float(row["diameter"]) >= LARGE]
        cells = [_mean_and_least([row for row in mine if (row["diameter"], row["change"]) == kind]) for kind in kinds]
        cells += [_mean_and_least(large), _mean_and_least(large, "inside")]
        cells += [f"{min(float(row['contrast']) for row in mine):.0f}"]
        pairs = [float(row["contrast"]) > base[sphere_of(row)] for row in mine if sphere_of(row) in base]
        cells += [f"{sum(pairs)} of {len(pairs)}" if pairs and method != CUBIC else ""]
        lines.append(f"| {' | '.join([method, *cells])} |")
    return lines


def sphere_of(row: Row) -> tuple[str, str]:
    """The head and the number of a row's sphere."""
    return row["subject"], row["image"]


def line_of(new: Sequence[Row]) -> str:
    """A line about the rows of one head and level: mean retained contrast of each method."""
    means = [f"{method} {_mean_and_least(mine)}" for method, mine in grouped(new, "method").items()]
    return f"{new[0]['subject']} {new[0]['level']}: contrast retained, %: {'  '.join(means)}"


def _mean_and_least(rows: Sequence[Row], column: str = "contrast") -> str:
    values = [float(row[column]) for row in rows if row[column]]
    return f"{np.mean(values):.1f} ({min(values):.1f})" if values else "-"
