"""Reconstruction of images on a prior's own grid, slices or pictures, from any linear measurement of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from brgm_med.consistency import project
from brgm_med.corruptions import Mask, SliceProfile
from brgm_med.energies import Gaussian, Pixel
from brgm_med.errors import PriorError
from brgm_med.networks.condition import position_code
from brgm_med.perceptual import PerceptualFeatures
from brgm_med.posterior import GREY_VALUES, Posterior, Whitened, WhitenedLayers, WStatistics, brgm_posterior
from brgm_med.priors.bundle import PriorBundle
from brgm_med.seams import blend_seamless
from brgm_med.search import SLICES, SLICES_HOLE, Search
from brgm_med.separable import stationary_covariance
from brgm_med.solvers import Estimate, fit_lbfgs, fit_map

Progress = Callable[[int, dict[str, Tensor]], None]
"""Called once an iteration with its number and the energies of what was tried."""


def solve(
    posterior: Posterior,
    start: Tensor,
    search: Search,
    curvature: Tensor | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """The MAP by the solver of `search`; `curvature` as `fit_lbfgs` takes it."""
    steps, tolerance = search.iterations, search.tolerance
    if search.solver == "adam":
        return fit_map(posterior, start, steps=steps, rate=search.rate, tolerance=tolerance, callback=progress)
    return fit_lbfgs(posterior, start, steps=steps, curvature=curvature, tolerance=tolerance, callback=progress)


def slices_search(corruption: nn.Module) -> Search:
    """The preset for slices that are measured so: `SLICES_HOLE` for a `Mask`, else `SLICES`."""
    return SLICES_HOLE if isinstance(corruption, Mask) else SLICES


def whitened_generator(
    prior: PriorBundle, index: Sequence[int] | None, device: torch.device
) -> Whitened | WhitenedLayers:
    """A prior's generator in coordinates that are N(0, 1): of slices at positions `index`, or of pictures (None).

    Of all latent inputs, as training images were encoded, where the prior has their statistics; else of every layer's
    w, as z are mapped. Raises PriorError for a conditional prior of pictures: nothing says what to condition on.
    """
    if index is not None:
        whitened = prior.whitened(device)
        return dataclasses.replace(whitened, mean=whitened.mean[list(index)])
    check_unconditional(prior)
    if prior.encoded:
        return prior.whitened(device)
    layers = WhitenedLayers.of_mapped(prior.generator)
    moved = (t.to(device) for t in (layers.mean, layers.basis, layers.deviation))
    return WhitenedLayers(prior.generator.to(device), *moved)


def independent_posterior(
    generator: Whitened | WhitenedLayers, corruption: nn.Module, measured: Tensor, deviation: float
) -> Posterior:
    """Posterior of every image on its own: Gaussian noise of standard `deviation`, N(0, 1) on whitened coordinates."""
    normal = Gaussian(torch.zeros(generator.w_dim, device=measured.device), torch.ones((), device=measured.device), 0.5)
    return Posterior(generator, corruption, measured, (Pixel(0.5 / deviation**2),), (normal,), noise="none")


def check_unconditional(prior: PriorBundle) -> None:
    """Raise PriorError for a conditional prior of pictures: nothing says what to condition on."""
    if prior.generator.c_dim:
        raise PriorError(f"{prior.folder}: is conditional, and a picture does not say on what; take another prior")


def mapped_statistics(prior: PriorBundle, index: Sequence[int] | None, count: int) -> WStatistics:
    """Mean [N, 1, w_dim] and deviation [N, 1, 1] of mapped w: of slices at positions `index`, or of `count` pictures.

    Raises PriorError for a conditional prior of pictures.
    """
    if index is None:
        check_unconditional(prior)
    if index is None or not prior.generator.c_dim:
        one = prior.w_statistics()
        each = [one] * (count if index is None else len(index))
    else:
        positions = prior.positions() if prior.volumetric else torch.zeros(1)
        codes = position_code(positions, prior.generator.c_dim)
        at = {i: prior.w_statistics(codes[i : i + 1]) for i in set(index)}
        each = [at[i] for i in index]
    mean, deviation = torch.stack([s.mean for s in each]), torch.stack([s.deviation for s in each])
    return WStatistics(mean[:, None], deviation[:, None, None])


def paper_posterior(
    prior: PriorBundle,
    index: Sequence[int] | None,
    corruption: nn.Module,
    measured: Tensor,
    features: PerceptualFeatures | None,
) -> tuple[Posterior, Tensor]:
    """The paper's posterior (Eq. 5, see `brgm_posterior`) without noise inputs, and where its search starts: the mean
    of mapped w in every layer. Of slices at positions `index`, or of as many pictures as were `measured` (None)."""
    generator = prior.generator.to(measured.device)
    statistics = mapped_statistics(prior, index, len(measured))
    moved = WStatistics(statistics.mean.to(measured.device), statistics.deviation.to(measured.device))
    posterior = brgm_posterior(generator, corruption, measured, moved, features, GREY_VALUES)
    return dataclasses.replace(posterior, noise="none"), moved.mean.expand(-1, generator.num_ws, -1)


def map_images(
    prior: PriorBundle,
    index: Sequence[int] | None,
    corruption: nn.Module,
    measured: Tensor,
    *,
    search: Search,
    deviation: float = 0.0,
    features: PerceptualFeatures | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """G at the MAP of every image on its own, [N, C, H, W]: slices at positions `index`, or pictures (None).

    `measured` [N, ...] is on the device that computes, and so is `corruption`, which need not be linear. `deviation`:
    of the measurement's noise. `features`: of the paper's perceptual term, where `search` asks for its energy. Raises
    as `whitened_generator` does.
    """
    if search.energy == "paper":
        posterior, start = paper_posterior(prior, index, corruption, measured, features)
        return solve(posterior, start, search, None, progress).image
    generator = whitened_generator(prior, index, measured.device)
    posterior = independent_posterior(generator, corruption, measured, math.hypot(search.misfit, deviation))
    start = torch.zeros(len(measured), generator.num_ws, generator.w_dim, device=measured.device)
    curvature = generator.curvature if isinstance(generator, Whitened) else None
    return solve(posterior, start, search, curvature, progress).image


def consistent(
    image: Tensor, corruption: nn.Module, measured: Tensor, deviation: float = 0.0, search: Search = SLICES
) -> Tensor:
    """The most probable correction of `image` that gives back `measured`, for errors that are correlated over
    `search.correlation` pixels; up to noise of that standard `deviation`. Of a `Mask` [H, W], the known pixels stay and
    the image meets them in the gradient domain (`seams.blend_seamless`). Raises ValueError for one that is not linear.
    """
    if isinstance(corruption, Mask):
        return blend_seamless(measured, image, ~corruption.mask)
    covariance = stationary_covariance(image.shape[1:], [0, search.correlation, search.correlation])
    if isinstance(corruption, SliceProfile):
        return project(image, corruption, measured, covariance, deviation / search.error)
    _, rows, columns = covariance.matrices
    assert rows is not None
    assert columns is not None
    return project(image, corruption, measured, lambda x: rows.to(x) @ x @ columns.to(x), deviation / search.error)


def reconstruct_slices(
    prior: PriorBundle,
    index: Sequence[int],
    corruption: nn.Module,
    measured: Tensor,
    *,
    search: Search | None = None,
    deviation: float = 0.0,
    features: PerceptualFeatures | None = None,
) -> Tensor:
    """The slices [N, 1, H, W] at positions `index` of the prior's box that most probably caused `measured`.

    Normalised as the prior's slices are (air -1, brain 0). `corruption` is a linear module, `measured` [N, ...] what it
    makes of the slices: the result is the generator's MAP, projected onto it, and gives it back up to noise of that
    standard `deviation` in these units. `search`: by default `slices_search`; where it is not `projected`, the MAP is
    the result. `features`: see `map_images`. Raises ValueError when the corruption is not linear.
    """
    search = slices_search(corruption) if search is None else search
    image = map_images(prior, index, corruption, measured, search=search, deviation=deviation, features=features)
    if not search.projected:
        return image
    return consistent(image, corruption, measured, deviation, search)
