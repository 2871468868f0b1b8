"""Distances of two sets of images as samples of two distributions: one feature vector [K] per image.

All take real first, generated second, and compute in float64. With N images and K features, N about K or less, the
Frechet distance is biased upwards (its covariances have rank N - 1), so it compares sets of one size only; the kernel
distance is unbiased at any size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from brgm_med.perceptual import PerceptualFeatures


@torch.no_grad()
def pooled(features: PerceptualFeatures, images: Tensor, batch: int = 32) -> Tensor:
    """One vector per image [N, K]: the means over positions of every feature map, all levels after one another.

    `images` [N, C, H, W] as `features` takes them, `batch` of them at a time.
    """
    return torch.cat(
        [torch.cat([level.mean((2, 3)) for level in features.features(part)], 1) for part in images.split(batch)]
    )


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussians fitted to [N, K] and [M, K]: Heusel et al. 2017, Eq. 6.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)). With C = A^T A and C' = B^T B, A and B the centred samples over the root
    of their count less one, C C' has the eigenvalues of (A B^T)(A B^T)^T: the last trace is the sum of A B^T's
    singular values, whatever the ranks. At least 0; 0 for equal sets up to rounding. Raises ValueError for sets of
    fewer than two vectors, of different K, or with numbers that are not finite.
    """
    real, fake = _checked(real, fake, 2)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (real, fake))
    a, b = (torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x for x in (a, b))  # keeps x^T x
    shift = (real.mean(0) - fake.mean(0)).square().sum()
    shared = torch.linalg.svdvals(a @ b.T).sum()
    return float((shift + a.square().sum() + b.square().sum() - 2 * shared).clamp_min(0))


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Squared maximum mean discrepancy of [N, K] and [M, K], unbiased: Binkowski et al. 2018, Eq. 4.

    Kernel (x . y / K + 1)^3. Its expectation for samples of one distribution is 0, so it may come out negative.
    Raises ValueError as `frechet_distance` does.
    """
    real, fake = _checked(real, fake, 2)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall in [0, 1] of Kynkaanniemi et al. 2019, Eq. 1 and 2, of [N, K] and [M, K].

    A set's manifold is the union of balls around its vectors, each of the radius to its k-th nearest neighbour in
    the set. Precision: the fraction of `fake` on the manifold of `real`; recall (coverage): the reverse. Raises
    ValueError for k < 1, sets of k vectors or fewer, of different K, or with numbers that are not finite.
    """
    if k < 1:
        raise ValueError(f"k is at least 1, not {k}")
    real, fake = _checked(real, fake, k + 1)

    def distances(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")  # exactly 0 for equal vectors

    def on_manifold(x: Tensor, of: Tensor) -> float:
        radius = distances(of, of).kthvalue(k + 1, dim=1).values  # the nearest is the vector itself
        return float((distances(x, of) <= radius).any(1).double().mean())

    return on_manifold(fake, real), on_manifold(real, fake)


def _checked(real: Tensor, fake: Tensor, least: int) -> tuple[Tensor, Tensor]:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"two sets are [N, K] and [M, K], not {list(real.shape)} and {list(fake.shape)}")
    if min(len(real), len(fake)) < least:
        raise ValueError(f"at least {least} vectors a set, not {len(real)} and {len(fake)}")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("the features hold numbers that are not finite")
    return real.double(), fake.double()
