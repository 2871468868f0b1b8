"""The step `degrade`: a simulated acquisition of a finer scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from brgm_med._version import __version__
from brgm_med.errors import UsageError
from brgm_med.files import check_apart, check_output, write_json
from brgm_med.pipelines.console import say
from brgm_med.pipelines.reading import Profile, called, say_tolerated
from brgm_med.pipelines.results.certificate import degraded
from brgm_med.pipelines.results.choose import target_of
from brgm_med.staging import scratch_beside
from brgm_med.transforms.formats import endings, for_reading, stem
from brgm_med.transforms.formats.beside import sidecar_of
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices


def degrade(
    scan: Path,
    out: Path,
    *,
    thickness: float | None = None,
    axis: str | None = None,
    profile: Profile = "box",
    gap: float = 0.0,
    factor: int | None = None,
    turn: Sequence[float] | None = None,
    dtype: Literal["float32", "source"] = "float32",
    affine: Literal["auto", "sform", "qform"] = "auto",
    series: str | None = None,
    force: bool = False,
    like: Path | None = None,
    choices: Choices = NO_CHOICES,
    allow_missing_files: bool = False,
) -> Path:
    """Simulate an acquisition of `scan` into `out`, with a JSON sidecar that states the acquisition model.

    Either slices of `thickness` mm (and `gap`) along world axis R, A or S, or `factor` in the coronal plane. `turn`:
    the simulated scanner's axes are those of the scan turned about its middle by so many degrees about R, then A, then
    S (see `acquire_turned`). `allow_missing_files`: of DICOM, see `the_series`.
    """
    scratch_beside(out)
    own_series = series if like is None else None
    source = for_reading(scan, series=own_series, allow_missing_files=allow_missing_files).read(scan, affine)
    say_tolerated(source.header, called(scan, choices))
    target = target_of(scan, out, source.header, like=like, series=series, dtype=dtype, choices=choices, force=force)
    sidecar = sidecar_of(out, stem(out))
    check_apart((*target.paths, sidecar), [scan, sidecar_of(scan, stem(scan)), *([] if like is None else [like])])
    target.check()
    check_output(sidecar, force)
    for other in (out.with_name(f"{stem(out)}{ending}") for ending in ("", *endings("volume"))):
        if other != out and other.exists():
            raise UsageError(f"{other}: would take {sidecar.name} as its own; choose another --out than {out.name}")
    if (factor is None) == (thickness is None) or (thickness is not None) != (axis is not None):
        raise UsageError("give either --slice-thickness with --axis, or --factor")

    import torch

    from brgm_med.transforms.geometry import Grid
    from brgm_med.transforms.oblique import acquire_turned, turned
    from brgm_med.transforms.simulate import coarse_in_plane, thick_slices
    from brgm_med.transforms.simulate import degrade as acquire

    grid = Grid(source.header.shape, source.affine)
    if factor is not None:
        coarse, model = coarse_in_plane(grid, factor)
    else:
        assert thickness is not None
        assert axis is not None
        coarse, model = thick_slices(grid, axis, thickness, gap, profile)
    volume = torch.from_numpy(source.array)[None]
    if turn is None:
        image = acquire(volume, grid, coarse, model)
    else:
        coarse = turned(coarse, turn)
        image = acquire_turned(volume, grid, coarse, model)
    text = f"brgm-med {__version__}: simulated acquisition, research only"
    with target.staged([sidecar], [scan]) as (staged, (about,)):
        staged.write(image[0].numpy(), coarse.affine, degraded(), text, model.thickness[2])
        write_json(about, {"Source": called(scan, choices), **model.to_sidecar(coarse)}, force=False)
    say(f"wrote {out} ({' x '.join(f'{s:g}' for s in coarse.spacing)} mm) and {sidecar.name}")
    return out
