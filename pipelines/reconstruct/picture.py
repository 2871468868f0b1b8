"""The maximum a posteriori picture of a measurement, in the frame of its prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from brgm_med.errors import PriorError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from brgm_med.posterior import WhitenedLayers
    from brgm_med.priors.bundle import PriorBundle

STEPS, RATE = 100, 0.1
NOISE = 0.15
"""Standard deviation of what a generator leaves unexplained, in units of [-1, 1]: that of the default posterior."""

Callback = Callable[[int, "dict[str, Tensor]"], None]


def map_picture(
    bundle: PriorBundle,
    corruption: nn.Module,
    measured: Tensor,
    *,
    steps: int,
    device: torch.device,
    callback: Callback | None = None,
) -> Tensor:
    """G at the MAP, [1, C, h, w] in the prior's frame: Gaussian noise, and N(0, 1) on whitened coordinates.

    These are of all latent inputs, as training pictures were encoded, where the prior says how; else of every layer's
    w, as z are mapped.

    `corruption` maps the generator's image to `measured`. Raises PriorError for a conditional generator: nothing says
    what to condition on.
    """
    import torch

    from brgm_med.energies import Gaussian, Pixel
    from brgm_med.posterior import Posterior
    from brgm_med.solvers import fit_map

    if bundle.generator.c_dim:
        raise PriorError(f"{bundle.folder}: is conditional, and a picture does not say on what; take another prior")
    whitened = bundle.whitened(device) if bundle.encoded else _of_mapped(bundle, device)
    normal = Gaussian(torch.zeros(whitened.w_dim, device=device), torch.ones((), device=device), 0.5)
    posterior = Posterior(
        whitened, corruption.to(device), measured.to(device), (Pixel(0.5 / NOISE**2),), (normal,), noise="none"
    )
    start = torch.zeros(1, whitened.num_ws, whitened.w_dim, device=device)
    return fit_map(posterior, start, steps=steps, rate=RATE, callback=callback).image.cpu()


def _of_mapped(bundle: PriorBundle, device: torch.device) -> WhitenedLayers:
    from brgm_med.posterior import WhitenedLayers

    found = WhitenedLayers.of_mapped(bundle.generator)
    moved = (t.to(device) for t in (found.mean, found.basis, found.deviation))
    return WhitenedLayers(bundle.generator.to(device), *moved)
