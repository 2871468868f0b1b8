"""The statistics of votes [raters, images, methods]: 1 where a rater chose a method for an image, else 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

DRAWS, SEED = 10_000, 0


@dataclass(frozen=True)
class Share:
    """Votes of a method: `share` with its 95 % interval, and `ahead` of the most chosen other method, with its own."""

    method: str
    votes: int
    share: float
    interval: tuple[float, float]
    ahead: float
    ahead_interval: tuple[float, float]


def shares(votes: NDArray[np.int64], methods: tuple[str, ...]) -> list[Share]:
    """Votes of each method, in their order. The intervals are percentiles of `resampled`."""
    totals = votes.sum((0, 1))
    share, drawn = totals / totals.sum(), resampled(votes)
    result = []
    for m, method in enumerate(methods):
        other = max((n for n in range(len(methods)) if n != m), key=lambda n: totals[n])
        ahead = _interval(drawn[:, m] - drawn[:, other])
        result.append(Share(method, int(totals[m]), share[m], _interval(drawn[:, m]), share[m] - share[other], ahead))
    return result


def resampled(votes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares [draws, methods] of `votes` [raters, images, methods] with both drawn again, independently.

    The bootstrap of crossed effects (Owen 2007, The pigeonhole bootstrap): votes on one image, and of one rater, go
    together, so both are resampled whole; if anything, its intervals are too wide. A single rater is not resampled.
    Draws in which nothing was answered are left out.
    """
    raters, images, _ = votes.shape
    rng = np.random.default_rng(SEED)
    image_weights = _weights(rng, images)
    rater_weights = _weights(rng, raters) if raters > 1 else np.ones((DRAWS, 1))
    per_method = [((rater_weights @ votes[..., m]) * image_weights).sum(1) for m in range(votes.shape[2])]
    drawn = np.stack(per_method, 1)
    drawn = drawn[drawn.sum(1) > 0]
    return drawn / drawn.sum(1, keepdims=True)


def _weights(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Counts of draws of each of `size` things, [draws, size]."""
    drawn = rng.integers(size, size=(DRAWS, size)) + size * np.arange(DRAWS)[:, None]
    return np.bincount(drawn.ravel(), minlength=DRAWS * size).reshape(DRAWS, size).astype(np.float64)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def against_equal_choice(votes: NDArray[np.int64]) -> tuple[float, int, float]:
    """Chi-square, degrees of freedom and p of no method being preferred, from votes [raters, images, methods].

    If none is, the methods of an image could be exchanged without changing the distribution of its votes, however much
    the raters agree on it. So images are the blocks: Q = (M - 1) sum_m (T_m - T/M)^2 / sum_i sum_m (v_im - v_i/M)^2 of
    the votes v_im on image i, T_m in all, is chi-square with M - 1 degrees of freedom for many images (Cochran 1950,
    for counts). For a single rater it is Pearson's chi-square of the totals.
    """
    per_image = votes.sum(0).astype(np.float64)
    number = per_image.shape[1]
    centred = per_image - per_image.mean(1, keepdims=True)
    spread = np.square(centred).sum()
    statistic = float((number - 1) * np.square(centred.sum(0)).sum() / spread) if spread else 0.0
    return statistic, number - 1, float(chi2.sf(statistic, number - 1))


def fleiss_kappa(counts: NDArray[np.int64]) -> float:
    """Agreement beyond chance (Fleiss 1971) of votes [images, methods], as many on every image: 1 is perfect, 0 chance.

    NaN where all votes are for one method: there is nothing to tell apart.
    """
    raters = counts[0].sum()
    chance = float(np.square(counts.sum(0) / counts.sum()).sum())
    seen = float((np.square(counts).sum(1) - raters).mean() / (raters * (raters - 1)))
    return (seen - chance) / (1 - chance) if chance < 1 else float("nan")
