"""Pictures: `brgm-med sr` and `brgm-med inpaint` of PNG, JPEG, TIFF and radiographs, from path to path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brgm_med.errors import BrgmError, InputRefusedError, UsageError
from brgm_med.pipelines.console import say, search_progress
from brgm_med.pipelines.reading import called
from brgm_med.pipelines.reconstruct.compute import Network, computed_by, perceptual_features, set_up
from brgm_med.pipelines.results.certificate import Certificate, Entry
from brgm_med.pipelines.results.picture import PictureTarget
from brgm_med.pipelines.results.publish import announce, check, publish
from brgm_med.pipelines.results.records import file_record, prior_record
from brgm_med.pipelines.steps.presets import Preset, chosen_search
from brgm_med.transforms.formats import for_reading
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices
from brgm_med.transforms.formats.dicom.file import is_dicom
from brgm_med.transforms.formats.picture import Picture, Written, default_output

if TYPE_CHECKING:
    from torch import Tensor

    from brgm_med.priors.bundle import PriorBundle


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every picture's reconstruction: its prior, its search, where torch computes, and the result's files.

    `certificate`: by default beside the output; `choices`: of DICOM output; the last four as of `super_resolve`, the
    perceptual term being the paper's alone.
    """

    prior: str
    steps: int | None
    seed: int
    device: str
    threads: int | None
    force: bool
    certificate: Path | None
    choices: Choices = NO_CHOICES
    preset: Preset = "default"
    project: bool = True
    perceptual: Network | None = None
    lpips_weights: Path | None = None


def _read(inputs: Sequence[Path], out: Path | None, options: Options) -> tuple[Picture, PictureTarget, Path]:
    """The picture at the first of `inputs`, and its result's files, which can be written."""
    scan = inputs[0]
    picture: Picture = for_reading(scan, "picture").read(scan)
    target = PictureTarget(out or default_output(scan), options.choices, options.force, picture)
    certificate = check(target, inputs, options.certificate)
    if is_dicom(scan) and picture.dpi is None:
        clause = "says no pixel spacing (or 0); its size in millimetres is unknown, pixels are used"
        say(f"warning: {called(scan, options.choices)} {clause}")
    return picture, target, certificate


def _hole(mask: Path, picture: Picture, known: bool) -> NDArray[np.bool_]:
    """The unknown pixels [H, W] of a picture: those that are not 0 (0, if `known`) in `mask`.

    Raises InputRefusedError for a mask of another size, and where all or none are unknown.
    """
    marks: Picture = for_reading(mask, "picture").read(mask)
    if marks.shape != picture.shape:
        sizes = [f"{w} x {h}" for h, w in (marks.shape, picture.shape)]
        raise InputRefusedError(f"{mask}: has {sizes[0]} pixels and the picture {sizes[1]}; give a mask of its size")
    hole: NDArray[np.bool_] = (marks.stored != 0).any(0) != known
    if not hole.any() or hole.all():
        clause = "leaves no pixel known" if hole.any() else "marks no pixel as unknown"
        raise InputRefusedError(f"{mask}: it {clause}; did you mean the other sense (--mask-known)?")
    return hole


def _loaded(prior: str, picture: Picture) -> PriorBundle:
    """The prior, if it is one of such pictures. Raises UsageError."""
    from brgm_med.priors.bundle import load

    bundle = load(prior)
    if bundle.volumetric:
        raise UsageError(
            f"{picture.path}: is a picture and the prior {bundle.name} is of volumes; name one with --prior"
        )
    if bundle.image_channels < picture.channels:
        raise UsageError(f"{picture.path}: is in colour and the prior {bundle.name} is of grey pictures; make it grey")
    return bundle


def _reconstructed(
    picture: Picture, bundle: PriorBundle, options: Options, reconstruct: Callable[..., Tensor]
) -> tuple[NDArray[np.float32], float, dict[str, Any]]:
    """Values [C, H, W] that `reconstruct` gives, in the picture's units; the scale of its frame; the parameters."""
    import torch

    from brgm_med.perceptual import LPIPS
    from brgm_med.pipelines.reconstruct.stack import PAPER_SIZE
    from brgm_med.search import PICTURE
    from brgm_med.transforms.frame import Frame
    from brgm_med.transforms.intensity import Normalisation

    where = set_up(options.device, options.seed, options.threads)
    choice = options.preset, options.steps, options.project, options.perceptual
    search, network, parameters = chosen_search(PICTURE, *choice)
    if network != "none" and options.preset == "default":
        raise UsageError(f"--perceptual {network}: of pictures, is a term of --preset paper; leave it out")
    features = perceptual_features(network, bundle, options.lpips_weights, where)
    features = features.at(PAPER_SIZE) if isinstance(features, LPIPS) else features
    normalise = Normalisation.of_range(*picture.range)
    image = normalise.forward(torch.from_numpy(picture.array)[None])
    with search_progress(search.iterations) as progress:
        result = reconstruct(image, prior=bundle, search=search, features=features, device=where, progress=progress)
    scale = Frame.fit(picture.shape, bundle.image_shape).scale
    if options.preset == "default":
        parameters = {"steps": search.iterations, "noise": search.misfit}
    parameters |= {"seed": options.seed} | ({} if options.project else {"projected": False})
    return normalise.inverse(result)[0].numpy(), scale, parameters | computed_by(where, result)


def super_resolve_picture(scan: Path, out: Path | None, options: Options, *, factor: int | None = None) -> Path:
    """Enlarge the picture at `scan` by a whole `factor` (default: as often as it fits into the prior's frame).

    Each of its pixels is taken as the average of factor x factor pixels of the result, and these averages are kept:
    exactly before the result is rounded to the picture's bits, to half a step after. Format and bits are kept, but for
    a JPEG, whose result is PNG unless `out` says otherwise. Raises as the exit codes of `brgm_med.errors` say.
    """
    picture, target, certificate = _read((scan,), out, options)

    import torch

    from brgm_med.pipelines.reconstruct.picture import average, reconstruct_picture

    bundle = _loaded(options.prior, picture)
    fits = min(n // m for n, m in zip(bundle.image_shape, picture.shape, strict=True))
    if factor is None and fits < 2:
        height, width = bundle.image_shape
        raise UsageError(
            f"{scan}: is as fine as the prior's {width} x {height} pixels already; give a --factor to enlarge it"
        )
    factor = factor or fits
    enlarge = partial(reconstruct_picture, factor=factor)
    values, scale, parameters = _reconstructed(picture, bundle, options, enlarge)
    parameters.pop("noise", None)  # no misfit of the result: it is made consistent exactly
    entries = Certificate(
        prior=prior_record(bundle, finest_detail_pixels=1 / (scale / factor)),
        parameters={"factor": factor, **parameters},
        source=file_record(scan),
    )

    def read_back(written: Written) -> Entry:
        averages = average(picture.shape, factor)(torch.from_numpy(written.array).double()[None])[0]
        error = averages - torch.from_numpy(picture.array)
        largest, bound = float(error.abs().max()), 0.5 * abs(picture.slope)
        entry = {"max_abs_residual": largest, "bound": bound, "within_bound": largest <= bound * (1 + 1e-3)}
        return {"consistency": {**entry, "clipped_to_the_bits": written.clipped}}

    publish(target, certificate, entries, "sr", lambda to, *text: to.write(values, *text), read_back, like=(scan,))
    coarser = factor / scale
    finer = f"; the prior's own pixels are {coarser:.3g} times as large" if coarser > 1 + 1e-6 else ""
    height, width = values.shape[1:]
    announce(target, certificate, f"{width} x {height} pixels{finer}")
    return target.path


def inpaint_picture(scan: Path, mask: Path, out: Path | None, options: Options, *, mask_known: bool = False) -> Path:
    """Fill the pixels of the picture at `scan` that are not 0 (0, if `mask_known`) in `mask`, a picture of its size.

    All other pixels, and the picture's bits, keep the integers they have. A JPEG's result is PNG unless `out` says
    otherwise, and then nothing is exact. Raises as the exit codes of `brgm_med.errors` say.
    """
    picture, target, certificate = _read((scan, mask), out, options)
    hole = _hole(mask, picture, mask_known)

    import torch

    from brgm_med.pipelines.reconstruct.picture import inpaint_picture as fill

    bundle = _loaded(options.prior, picture)
    blended, scale, parameters = _reconstructed(picture, bundle, options, partial(fill, hole=torch.from_numpy(hole)))
    values, pixels = np.where(hole, blended, picture.array), int(hole.sum())
    entries = Certificate(
        prior=prior_record(bundle, finest_detail_pixels=1 / scale),
        parameters=parameters,
        hole={"pixels": pixels},
        source=file_record(scan),
        mask={**file_record(mask), "known": mask_known},
    )

    def read_back(written: Written) -> Entry:
        outside = np.broadcast_to(~hole, written.array.shape)
        changed = int((written.array != picture.array)[outside].sum())
        if changed and not target.lossy:
            raise BrgmError(f"{target.path}: pixels outside the hole changed; this is a defect, please report it")
        return {
            "hole": {"pixels": pixels, "values_clipped_to_the_bits": written.clipped},
            "outside_the_hole": {"values": int(outside.sum()), "changed": changed, "lossy_format": target.lossy},
        }

    inputs = (scan, mask)
    publish(target, certificate, entries, "inpaint", lambda to, *text: to.write(values, *text), read_back, like=inputs)
    others = "JPEG changes the others a little" if target.lossy else "all others as they were"
    announce(target, certificate, f"{pixels} pixels filled, {others}")
    return target.path
