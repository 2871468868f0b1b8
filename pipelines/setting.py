"""What the commands share: messages, threads, the device, the features that are compared, the acquisition model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.provenance import sidecar_of
from brgm_med.pipelines.sources import stated_by
from brgm_med.transforms.formats import stem

if TYPE_CHECKING:
    import torch

    from brgm_med.perceptual import PerceptualFeatures
    from brgm_med.priors.bundle import PriorBundle
    from brgm_med.transforms.acquire import AcquisitionModel
    from brgm_med.transforms.formats.dicom_series import Series
    from brgm_med.transforms.geometry import Grid

Profile = Literal["box", "gaussian", "trapezoid"]
Network = Literal["discriminator", "alex", "vgg", "none"]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def set_up_torch(threads: int | None = None) -> None:
    """Allocation and denormal settings that matter for speed on a CPU; `threads` None leaves torch's choice."""
    import torch

    from brgm_med.ops.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)


def choose_device(device: str) -> Any:
    """auto (CUDA where there is one), cpu or cuda -> torch.device. Raises UsageError for cuda without one."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu (see brgm-med doctor)")
    return torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))


def computed_by(device: Any, image: Any) -> dict[str, str]:
    """Entries of a certificate's parameters: the device, and the precision of the search whose `image` (a tensor) it
    is."""
    return {"device": str(device), "precision": str(image.dtype).removeprefix("torch.")}


def acquisition_of(
    scan: Path,
    grid: Grid,
    thickness: float | None,
    gap: float | None,
    profile: Profile | None,
    series: Series | None = None,
) -> tuple[AcquisitionModel, str]:
    """The acquisition model and where it comes from: flags, else the sidecar beside the scan, else the header.

    Of DICOM, the header states the slices' thickness (`sources.stated_by`).

    Raises InputRefusedError for a damaged sidecar and UsageError for flags that contradict the scan.
    """
    from brgm_med.transforms.acquire import AcquisitionModel

    if not (thickness is None and gap is None and profile is None):
        return AcquisitionModel.from_flags(grid, thickness, gap, profile or "box"), "stated on the command line"
    sidecar = sidecar_of(scan, stem(scan))
    if sidecar.is_file():
        try:
            content = json.loads(sidecar.read_text())
        except (OSError, ValueError) as error:
            raise InputRefusedError(f"{sidecar}: is no readable JSON ({error}); mend or remove it") from error
        if isinstance(content, dict):
            model = AcquisitionModel.from_sidecar(content, grid, str(sidecar))
            if model is not None:
                return model, "stated in the JSON file beside the scan"
    stated = stated_by(series, grid)
    if stated is not None:
        return stated, "stated in the DICOM header"
    origin = "assumed from the header's spacing"
    if series is not None and series.thickness is not None:  # stated, and not positive
        origin += f"; its Slice Thickness is {series.thickness:g}"
    return AcquisitionModel.from_header(grid), origin


def perceptual_features(
    network: Network, bundle: PriorBundle, weights: Path | None, device: torch.device
) -> PerceptualFeatures | None:
    """The features that the perceptual term compares, on `device`.

    Raises PriorError where LPIPS weights are wanted and missing.
    """
    if network == "none":
        return None
    from brgm_med.networks.discriminator import DiscriminatorFeatures
    from brgm_med.perceptual import LPIPS

    if network == "discriminator":
        return DiscriminatorFeatures(bundle.discriminator.to(device))
    from brgm_med.weights import lpips_features, lpips_heads

    return LPIPS(network, lpips_features(network, weights, download=True), lpips_heads(network)).to(device)
