"""`brgm-med train`: a folder of heads in, a run folder with a growing prior out.

RUN/template.nii.gz, mask.nii.gz   the space of the prior; those that are there already are used
RUN/cache/                         every head, registered and normalised, a file each
RUN/prepared.json                  which heads those are, how they lie in the template, and which are held out
RUN/state.pt and others            see `brgm_med.training.record`
RUN/prior/                         the bundle
"""

from __future__ import annotations

from pathlib import Path

from brgm_med.extras import require
from brgm_med.files import make_folder
from brgm_med.pipelines.console import announce
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training import heads as volumes
from brgm_med.pipelines.training import pictures
from brgm_med.pipelines.training.run import Material, run
from brgm_med.staging import scratch_beside
from brgm_med.training import distributed
from brgm_med.transforms.formats.zipped import is_zip
from brgm_med.transforms.prepare import heads_in


def train(
    data: Path,
    out: Path,
    *,
    kimg: float,
    heads: int | None = None,
    held_out: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    lpips_weights: Path | None = None,
) -> None:
    """Train on the first `heads` heads (or pictures) of `data`, by name, until `kimg` thousand slices have been shown.
    Pictures may come in a zip, as StyleGAN2-ADA's data sets do.

    The `held_out` heads that follow are never trained on: snapshots are measured on them (see `split`). Resumes from
    `out/state.pt` where there is one, else goes on from `out/snapshot.safetensors` (such as the repository's
    `resume/`), without the optimisers' moments. At the end the prior is written to `out/prior`, a bundle that
    `brgm-med sr --prior` takes.

    Of processes that train together the first one prepares and writes, and the others wait.
    """
    require("train", "tensorboard")
    material: Material = pictures if is_zip(data) or pictures.holds_pictures(data, out) else volumes
    if material is volumes:
        heads_in(data, without=out)  # refuses before anything is made
    make_folder(out)
    scratch_beside(out)
    set_up_torch(threads)
    with distributed.process_group():
        if distributed.rank() == 0:
            with pictures.unpacked(data) as folder:
                material.prepare(folder, out, heads, held_out)
        distributed.anyone(False, distributed.device())  # the others wait
        run(out, material.training_set(out, seed), kimg=kimg, lpips_weights=lpips_weights)
        if distributed.rank() == 0:
            announce("writing the prior")
            material.finish(data, out)
            announce(f"wrote {out / 'prior'}; use it with brgm-med sr --prior {out / 'prior'}")
