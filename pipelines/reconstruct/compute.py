"""The device, the threads and the features of a reconstruction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from brgm_med.errors import UsageError

if TYPE_CHECKING:
    import torch

    from brgm_med.perceptual import PerceptualFeatures
    from brgm_med.priors.bundle import PriorBundle

Network = Literal["discriminator", "alex", "vgg", "none"]


def set_up_torch(threads: int | None = None) -> None:
    """Allocation and denormal settings that matter for speed on a CPU; `threads` None leaves torch's choice."""
    import torch

    from brgm_med.ops.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)


def set_up(device: str, seed: int, threads: int | None) -> torch.device:
    """Set up torch for one reconstruction, whose random numbers follow from `seed`; returns its device, see
    `device_of`."""
    import torch

    set_up_torch(threads)
    torch.manual_seed(seed)
    return device_of(device)


def device_of(device: str) -> torch.device:
    """torch's device: auto (CUDA where there is one), cpu or cuda. Raises UsageError for cuda without one."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu (see brgm-med doctor)")
    return torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))


def computed_by(device: Any, image: Any) -> dict[str, Any]:
    """Entries of a certificate's parameters: the device, the number of threads, and the precision of the search whose
    `image` (a tensor) it is. Results repeat to the last bit for equal numbers of threads on one machine, as sums are
    rounded in another order by other numbers."""
    import torch

    precision = str(image.dtype).removeprefix("torch.")
    return {"device": str(device), "threads": torch.get_num_threads(), "precision": precision}


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
