"""Errors of a reconstruction against the truth, per image: [N, ...] and [N, ...] -> [N], in float64.

`data_range` is the width of the intensity window in which images are judged (highest - lowest grey value,
255 for 8-bit pictures); it is always given, never guessed, and pixels are not clipped to it.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brgm_med.perceptual import PerceptualFeatures


def mae(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Mean absolute error on the 0..255 scale, as in the paper's Table 4: 255 * mean |x - t| / data_range."""
    return 255.0 * _difference(image, truth, data_range).abs().mean(1)


def rmse(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Root mean squared error on the 0..255 scale, as in the paper's Tables 1 and 3."""
    return 255.0 * _difference(image, truth, data_range).square().mean(1).sqrt()


def psnr(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(data_range^2 / mean squared error) dB; inf for equal images."""
    return -10.0 * _difference(image, truth, data_range).square().mean(1).log10()


def ssim(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    """Structural similarity of images [N, C, H, W], H and W at least 11: [N], 1 for equal images.

    Wang et al. 2004: Gaussian window of 11 x 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, population
    (co)variances, the mean over the positions where the window lies wholly inside, and over channels.
    """
    if image.ndim != 4 or min(image.shape[2:]) < 11:
        raise ValueError(f"SSIM takes images [N, C, H, W] of at least 11 pixels a side, not {list(image.shape)}")
    _difference(image, truth, data_range)
    x, t = image.double() / data_range, truth.double() / data_range
    offsets = torch.arange(-5, 6, dtype=torch.float64, device=image.device)
    window = torch.softmax(-offsets.square() / (2 * 1.5**2), 0)

    def local_mean(values: Tensor) -> Tensor:
        values = F.conv2d(values.flatten(0, 1)[:, None], window.view(1, 1, 11, 1))
        return F.conv2d(values, window.view(1, 1, 1, 11))

    mean_x, mean_t = local_mean(x), local_mean(t)
    variance_x = local_mean(x * x) - mean_x.square()
    variance_t = local_mean(t * t) - mean_t.square()
    covariance = local_mean(x * t) - mean_x * mean_t
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_t + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_t.square() + c1) * (variance_x + variance_t + c2)
    )
    return similarity.unflatten(0, image.shape[:2]).flatten(1).mean(1)


@torch.no_grad()
def lpips(
    image: Tensor, truth: Tensor, window: tuple[float, float], model: PerceptualFeatures, batch: int = 16
) -> Tensor:
    """Perceptual distance of images [N, 1 or 3, H, W]: [N], 0 for equal images.

    `window` = (lowest, highest) grey value is mapped onto [-1, 1] and, as on a screen, what lies outside is
    clipped. `model` is `brgm_med.perceptual.LPIPS` for the published metric; its `size` is the size at
    which it is taken.
    """
    low, high = window
    _difference(image, truth, high - low)

    def shown(values: Tensor) -> Tensor:
        return ((values - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0).float()

    pairs = zip(image.split(batch), truth.split(batch), strict=True)
    return torch.cat([model.distance(model.features(shown(x)), model.features(shown(t))) for x, t in pairs])


def bootstrap_interval(values: Sequence[float] | Tensor, seed: int) -> tuple[float, float]:
    """95 % interval (low, high) of the mean of `values` (one per head), by the percentile bootstrap of scipy.

    10,000 resamples drawn by numpy's default generator with this seed; a single value is its own interval. For a
    comparison of two methods on the same heads, give the paired differences. Raises ValueError for no values.
    """
    from scipy.stats import bootstrap  # takes half a second to load

    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"bootstrap_interval takes a non-empty list of numbers, not shape {list(sample.shape)}")
    if sample.size == 1:
        return float(sample[0]), float(sample[0])
    options = {"n_resamples": 10_000, "method": "percentile", "vectorized": True}
    low, high = bootstrap((sample,), np.mean, rng=np.random.default_rng(seed), **options).confidence_interval
    return float(low), float(high)


def _difference(image: Tensor, truth: Tensor, data_range: float) -> Tensor:
    if image.shape != truth.shape or image.ndim < 2:
        raise ValueError(f"metrics compare equal shapes [N, ...], not {list(image.shape)}, {list(truth.shape)}")
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, not {data_range}")
    return ((image.double() - truth.double()) / data_range).flatten(1)
