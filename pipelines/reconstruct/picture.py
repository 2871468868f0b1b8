"""Super-resolution and inpainting of pictures: arrays in, arrays out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brgm_med.consistency import project
from brgm_med.corruptions import Grey, Mask, SliceProfile, profile_matrix
from brgm_med.perceptual import PerceptualFeatures
from brgm_med.priors.bundle import PriorBundle
from brgm_med.reconstruction import Progress, map_images
from brgm_med.seams import blend_seamless
from brgm_med.search import PICTURE, Search
from brgm_med.separable import stationary_covariance
from brgm_med.transforms.frame import Frame


def average(shape: tuple[int, int], factor: int) -> SliceProfile:
    """Means over factor x factor pixels of pictures that are `factor` times as fine as `shape` (H, W)."""
    return SliceProfile([None, *(profile_matrix(n * factor, 1.0, n, factor, factor) for n in shape)])


def reconstruct_picture(
    values: Tensor,
    prior: PriorBundle,
    factor: int,
    *,
    search: Search = PICTURE,
    features: PerceptualFeatures | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Tensor:
    """Pictures [N, C, H, W] in [-1, 1], `factor` times as large: [N, C, factor H, factor W], whose `average` they are.

    Exactly so, by projection of the generator's MAP, unless `search` leaves that out. `features`: of the paper's
    perceptual term, see `map_images`. A colour prior serves grey pictures. Raises PriorError for a
    conditional prior, and InputRefusedError for pictures that are too narrow for its frame.
    """
    frame, colour = Frame.fit((values.shape[2], values.shape[3]), prior.image_shape), _colour(prior, values)
    corruption = nn.Sequential(*colour, frame.measurement()).to(device)
    image = map_images(
        prior, None, corruption, values.to(device), search=search, features=features, progress=progress
    ).cpu()
    guess = frame.from_frame(nn.Sequential(*colour)(image), factor)
    if not search.projected:
        return guess
    covariance = stationary_covariance(guess.shape[1:], [0, search.correlation, search.correlation])
    return project(guess, average(frame.picture, factor), values, covariance)


def inpaint_picture(
    values: Tensor,
    hole: Tensor,
    prior: PriorBundle,
    *,
    search: Search = PICTURE,
    features: PerceptualFeatures | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Tensor:
    """Pictures [N, C, H, W] in [-1, 1] with their `hole` [H, W] (bool) filled; all others are kept bit for bit.

    Raises as `reconstruct_picture` does.
    """
    interpolated = blend_seamless(values, torch.zeros_like(values), hole)
    frame, colour = Frame.fit((values.shape[2], values.shape[3]), prior.image_shape), _colour(prior, values)
    seen = frame.seen() & (frame.to_frame((~hole).to(values)[None, None])[0, 0] > 0.999)
    known = Mask(seen)
    measured = known(frame.to_frame(interpolated)).to(device)
    corruption = nn.Sequential(*colour, known).to(device)
    image = map_images(prior, None, corruption, measured, search=search, features=features, progress=progress).cpu()
    return blend_seamless(values, frame.from_frame(nn.Sequential(*colour)(image)).to(values), hole)


def _colour(prior: PriorBundle, values: Tensor) -> list[nn.Module]:
    """The modules between a colour prior and grey pictures."""
    return [Grey()] if prior.image_channels > values.shape[1] else []
