"""`brgm-med train`: a folder of heads in, a run folder with a growing prior out.

RUN/template.nii.gz, mask.nii.gz   the space of the prior; those that are there already are used
RUN/cache/                         every head, registered and normalised, a file each
RUN/prepared.json                  which heads those are, how they lie in the template, and which are held out
RUN/state.pt and others            see `brgm_med.training.record`
RUN/prior/                         the bundle
"""

from __future__ import annotations

from pathlib import Path

from brgm_med.errors import CannotWriteError
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.training.heads import train_heads
from brgm_med.pipelines.training.pictures import holds_pictures, train_pictures
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

    The `held_out` heads that follow are never trained on: snapshots are measured on them (see `split`). Resumes from
    `out/state.pt` where there is one, else goes on from `out/snapshot.safetensors` (such as the repository's
    `resume/`), without the optimisers' moments. At the end the prior is written to `out/prior`, a bundle that
    `brgm-med sr --prior` takes.
    """
    pictures = holds_pictures(data, out)
    if not pictures:
        heads_in(data, without=out)  # refuses before anything is made
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    set_up_torch(threads)
    kind = train_pictures if pictures else train_heads
    kind(data, out, kimg=kimg, count=heads, held_out=held_out, seed=seed, lpips_weights=lpips_weights)
