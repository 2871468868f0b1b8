"""Pictures: `brgm-med sr` and `brgm-med inpaint` of PNG, JPEG, TIFF and radiographs, from path to path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brgm_med._version import __version__
from brgm_med.errors import BrgmError, CannotWriteError, InputRefusedError, UsageError
from brgm_med.files import check_output, write_json
from brgm_med.pipelines.console import say, search_progress
from brgm_med.pipelines.reading import called
from brgm_med.pipelines.reconstruct.compute import choose_device, computed_by, set_up_torch
from brgm_med.pipelines.results.certificate import (
    STATEMENT,
    account,
    check_certificate,
    default_certificate,
    description,
    inpainted,
    super_resolved,
)
from brgm_med.pipelines.results.deidentification import withhold
from brgm_med.transforms.formats import for_reading, pictures_in, radiograph_write, stem
from brgm_med.transforms.formats import picture as common
from brgm_med.transforms.formats.dicom.deidentify import check as check_identity
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES, Choices, Derivation
from brgm_med.transforms.formats.dicom.file import is_dicom, read_header
from brgm_med.transforms.formats.picture import Picture, Written, default_output

if TYPE_CHECKING:
    from brgm_med.priors.bundle import PriorBundle


def _prepared(
    scan: Path, out: Path | None, certificate: Path | None, force: bool, choices: Choices, also: tuple[Path, ...] = ()
) -> tuple[Picture, Path, Path]:
    """The picture, and where result and certificate go, once it is sure that they can."""
    picture: Picture = for_reading(scan, "picture").read(scan)
    out = out or default_output(scan)
    if out.suffix.lower() != ".dcm":
        common.check_output_name(out, picture)
    elif not is_dicom(scan):
        raise UsageError(f"{out}: only a DICOM image gives a DICOM image; let the name end in .png or .tif")
    if choices.transform is not None:
        check_identity(read_header(scan), "the image")
    certificate = certificate or default_certificate(out)
    files = (scan, *also, out, certificate)
    if len({p.resolve() for p in files}) < len(files):
        raise UsageError(f"{out}: inputs, output and certificate must all be different files")
    check_output(out, force)
    check_certificate(certificate, out, force)
    if is_dicom(scan) and picture.dpi is None:
        what = "says no pixel spacing (or 0); its size in millimetres is unknown, pixels are used"
        say(f"warning: {called(scan, choices)} {what}")
    return picture, out, certificate


def _write(
    out: Path, values: np.ndarray, picture: Picture, prior: str, how: Derivation, choices: Choices, force: bool
) -> Written:
    """As DICOM where the name says so, else as a picture."""
    if out.suffix.lower() == ".dcm":
        return radiograph_write.write(out, values, picture, how, choices, force)
    return common.write(out, values, picture, description(prior), force)


def _loaded(prior: str, picture: Picture) -> PriorBundle:
    """The prior, if it is one of such pictures."""
    from brgm_med.priors.bundle import load

    bundle = load(prior)
    if bundle.volumetric:
        raise UsageError(
            f"{picture.path}: is a picture and the prior {bundle.name} is of volumes; name one with --prior"
        )
    if bundle.image_channels < picture.channels:
        raise UsageError(f"{picture.path}: is in colour and the prior {bundle.name} is of grey pictures; make it grey")
    return bundle


def _told(bundle: PriorBundle, scale: float, parameters: dict[str, Any]) -> dict[str, Any]:
    """What the certificates of both tasks say, and a DICOM result itself, before it is written.

    `scale`: pixels of the prior's frame for one of the result.
    """
    return {
        "software": f"brgm-med {__version__}",
        "prior": {"name": bundle.name, "sha256": bundle.sha256, "finest_detail_pixels": 1 / scale},
        "parameters": parameters,
    }


def _record(scan: Path, out: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What the certificates of both tasks say first."""
    from brgm_med.files import digest

    files = {name: {"file": path.name, "sha256": digest(path)} for name, path in (("source", scan), ("result", out))}
    return {"statement": STATEMENT, **told, **files}


def super_resolve_picture(
    scan: Path,
    out: Path | None = None,
    *,
    prior: str,
    factor: int | None = None,
    force: bool = False,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    certificate: Path | None = None,
    choices: Choices = NO_CHOICES,
) -> Path:
    """Enlarge the picture at `scan` by a whole `factor` (default: as often as it fits into the prior's frame).

    Each of its pixels is taken as the average of factor x factor pixels of the result, and these averages are kept:
    exactly before the result is rounded to the picture's bits, to half a step after. Format and bits are kept, but for
    a JPEG, whose result is PNG unless `out` says otherwise. Raises as the exit codes of `brgm_med.errors` say.
    """
    picture, out, certificate = _prepared(scan, out, certificate, force, choices)

    import torch

    from brgm_med.pipelines.reconstruct.picture import average, reconstruct_picture
    from brgm_med.search import PICTURE
    from brgm_med.transforms.frame import Frame
    from brgm_med.transforms.intensity import Normalisation

    bundle = _loaded(prior, picture)
    fits = min(n // m for n, m in zip(bundle.image_shape, picture.shape, strict=True))
    if factor is None and fits < 2:
        height, width = bundle.image_shape
        raise UsageError(
            f"{scan}: is as fine as the prior's {width} x {height} pixels already; give a --factor to enlarge it"
        )
    factor = factor or fits
    set_up_torch(threads)
    torch.manual_seed(seed)
    where, search = choose_device(device), PICTURE.limited_to(steps)
    normalise = Normalisation.of_range(*picture.range)
    measured = normalise.forward(torch.from_numpy(picture.array)[None])
    with search_progress(search.iterations) as progress:
        result = reconstruct_picture(measured, bundle, factor, search=search, device=where, progress=progress)
    scale = Frame.fit(picture.shape, bundle.image_shape).scale
    parameters = {"factor": factor, "steps": search.iterations, "seed": seed, **computed_by(where, result)}
    told = _told(bundle, scale / factor, parameters)
    how = super_resolved(bundle.name, bundle.sha256, account(told))
    values = normalise.inverse(result)[0].numpy()
    held, clipped = _write(out, values, picture, bundle.name, how, choices, force)
    averages = average(picture.shape, factor)(torch.from_numpy(held).double()[None])[0]
    error = (averages - torch.from_numpy(picture.array).double()).abs()
    content = _record(scan, out, told)
    content["consistency"] = {
        "max_abs_residual": float(error.max()),
        "bound": 0.5 * abs(picture.slope),
        "within_bound": float(error.max()) <= 0.5 * abs(picture.slope) * (1 + 1e-3),
        "clipped_to_the_bits": clipped,
    }
    write_json(certificate, withhold(content, choices), force)
    coarser = factor / scale
    finer = f"; the prior's own pixels are {coarser:.3g} times as large" if coarser > 1 + 1e-6 else ""
    height, width = held.shape[1:]
    say(f"wrote {out} and {certificate.name} ({width} x {height} pixels{finer})")
    return out


def inpaint_picture(
    scan: Path,
    mask: Path,
    out: Path | None = None,
    *,
    prior: str,
    mask_known: bool = False,
    force: bool = False,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    certificate: Path | None = None,
    choices: Choices = NO_CHOICES,
) -> Path:
    """Fill the pixels of the picture at `scan` that are not 0 (0, if `mask_known`) in `mask`, a picture of its size.

    All other pixels, and the picture's bits, keep the integers they have. A JPEG's result is PNG unless `out` says
    otherwise, and then nothing is exact. Raises as the exit codes of `brgm_med.errors` say.
    """
    picture, out, certificate = _prepared(scan, out, certificate, force, choices, (mask,))
    marks: Picture = for_reading(mask, "picture").read(mask)

    import torch

    from brgm_med.files import digest
    from brgm_med.pipelines.reconstruct.picture import inpaint_picture as fill
    from brgm_med.search import PICTURE
    from brgm_med.transforms.frame import Frame
    from brgm_med.transforms.intensity import Normalisation

    if marks.shape != picture.shape:
        sizes = [f"{w} x {h}" for h, w in (marks.shape, picture.shape)]
        raise InputRefusedError(f"{mask}: has {sizes[0]} pixels and the picture {sizes[1]}; give a mask of its size")
    marked = (marks.stored != 0).any(0)
    hole = torch.from_numpy(~marked if mask_known else marked)
    if not hole.any() or hole.all():
        what = "marks no pixel as unknown" if not hole.any() else "leaves no pixel known"
        raise InputRefusedError(f"{mask}: it {what}; did you mean the other sense (--mask-known)?")
    bundle = _loaded(prior, picture)
    set_up_torch(threads)
    torch.manual_seed(seed)
    where, search = choose_device(device), PICTURE.limited_to(steps)
    normalise = Normalisation.of_range(*picture.range)
    known = normalise.forward(torch.from_numpy(picture.array)[None])
    with search_progress(search.iterations) as progress:
        result = fill(known, hole, bundle, search=search, device=where, progress=progress)
    blended = normalise.inverse(result)[0].numpy()
    values = np.where(hole.numpy(), blended, picture.array)
    scale = Frame.fit(picture.shape, bundle.image_shape).scale
    parameters = {"steps": search.iterations, "noise": search.misfit, "seed": seed, **computed_by(where, result)}
    told = _told(bundle, scale, parameters)
    how = inpainted(bundle.name, bundle.sha256, account(told | {"hole": {"pixels": int(hole.sum())}}))
    held, clipped = _write(out, values, picture, bundle.name, how, choices, force)
    outside = np.broadcast_to(~hole.numpy(), held.shape)
    lossy = out.suffix.lower() in (".jpg", ".jpeg")
    changed = int((held != picture.array)[outside].sum())
    if changed and not lossy:
        out.unlink(missing_ok=True)
        raise BrgmError(f"{out}: pixels outside the hole changed; this is a defect, please report it")
    content = _record(scan, out, told)
    content["mask"] = {"file": mask.name, "sha256": digest(mask), "known": mask_known}
    content["hole"] = {"pixels": int(hole.sum()), "values_clipped_to_the_bits": clipped}
    content["outside_the_hole"] = {"values": int(outside.sum()), "changed": changed, "lossy_format": lossy}
    write_json(certificate, withhold(content, choices), force)
    others = "JPEG changes the others a little" if lossy else "all others as they were"
    say(f"wrote {out} and {certificate.name} ({int(hole.sum())} pixels filled, {others})")
    return out


def each(folder: Path, out: Path | None, work: Callable[[Path, Path], object]) -> None:
    """`work(picture, result)` for every picture in `folder`, by name; the results' folder is `out`, made if need be.

    Its default is the folder's name + `_brgm`. A picture that is refused does not stop the others.

    Raises InputRefusedError at the end where any was refused, and what `pictures_in` raises.
    """
    pictures = pictures_in(folder)
    out = out or folder.with_name(f"{folder.name}_brgm")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"{out}: cannot be made ({error.strerror}); choose another folder") from error
    refused = []
    for number, path in enumerate(pictures, 1):
        say(f"{number} of {len(pictures)}: {path.name}")
        try:
            work(path, out / default_output(path).name)
        except InputRefusedError as error:
            say(f"refused: {error}")
            refused.append(path.name)
    if refused:
        raise InputRefusedError(f"{folder}: {len(refused)} of {len(pictures)} pictures refused ({', '.join(refused)})")


def mask_of(mask: Path, scan: Path) -> Path:
    """The mask of a picture: `mask` itself, or the picture of the same stem in the folder `mask`.

    Raises InputRefusedError where that folder has none.
    """
    if not mask.is_dir():
        return mask
    found = [path for path in pictures_in(mask) if stem(path) == stem(scan)]
    if not found:
        raise InputRefusedError(f"{scan}: {mask} holds no mask of that name; add one")
    return found[0]
