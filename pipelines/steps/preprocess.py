"""The steps `preprocess` and `cut_slices`: a head registered to the template of a prior, and its slices."""

from __future__ import annotations

from pathlib import Path

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError
from brgm_med.files import check_apart, check_output, replacing, write_json
from brgm_med.pipelines.reconstruct.compute import set_up_torch
from brgm_med.pipelines.results.certificate import STATEMENT
from brgm_med.pipelines.results.records import prior_record, registration_record, source_record
from brgm_med.priors import DEFAULT
from brgm_med.transforms.formats import for_reading, stem
from brgm_med.transforms.formats.beside import sidecar_of


def preprocess(
    scan: Path, folder: Path, *, prior: str = DEFAULT, threads: int | None = None, force: bool = False
) -> tuple[Path, Path]:
    """Register the head at `scan` (NIfTI) to the template of `prior` and normalise it: air -1, mean of the brain 0.

    Writes NAME_registered.nii.gz (RAS+, on the prior's box) and NAME_pose.json into `folder`, and returns both paths.
    Training and reports are made of these. A reconstruction is not: its likelihood lives on the scan's own grid, so
    `steps.super_resolve` reads and registers the scan itself, in the same way. Raises as the exit codes say.
    """
    registered, pose = folder / f"{stem(scan)}_registered.nii.gz", folder / f"{stem(scan)}_pose.json"
    check_apart([registered, pose], [scan, sidecar_of(scan, stem(scan))])
    check_output(registered, force)
    check_output(pose, force)
    header = for_reading(scan).read_header(scan, "auto")

    from brgm_med.priors.bundle import load
    from brgm_med.transforms import LoadScan, SaveScan
    from brgm_med.transforms.rigid import RegisterNormalised
    from brgm_med.transforms.template import load_template

    set_up_torch(threads)
    bundle = load(prior)
    image = LoadScan()(scan)
    try:
        image = RegisterNormalised(load_template(bundle))(image)
    except InputRefusedError as error:
        raise InputRefusedError(f"{scan}: {error}") from error
    text = f"brgm-med {__version__}: registered head, research only"
    SaveScan(registered, description=text, force=force)(image)
    content = {
        "statement": STATEMENT,
        "source": source_record(scan, header),
        "prior": prior_record(bundle),
        **registration_record(image.meta["registration_correlation"], image.meta["pose"].numpy()),
    }
    write_json(pose, content, force)
    return registered, pose


def cut_slices(registered: Path, folder: Path, *, force: bool = False) -> Path:
    """A head that `preprocess` has registered -> NAME_slices.safetensors in `folder`: `stack` [Y, 1, Z, X], float16."""
    out = folder / f"{stem(registered).removesuffix('_registered')}_slices.safetensors"
    check_output(out, force)

    import torch
    from safetensors.torch import save_file

    from brgm_med.transforms import CoronalSlices, LoadScan

    stack = CoronalSlices()(LoadScan()(registered)).as_tensor().to(torch.float16).contiguous()
    with replacing(out, force) as temporary:
        save_file({"stack": stack}, temporary)
    return out
