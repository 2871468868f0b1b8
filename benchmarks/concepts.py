"""The pictures of docs/concepts.md: one line of tissue, scanned in thick slices, under a prior that is known exactly.

    python benchmarks/concepts.py [--out docs/concepts]

Everything is Gaussian here, so that the posterior has a closed form: x ~ N(0, K), y = A x, x | y ~ N(m, S).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]
LENGTH, SLICE = 60, 6
"""Of the line and of a slice, mm; voxels of 1 mm."""
TEAL, GREY, RED, BLACK = "#00897b", "#9e9e9e", "#d84315", "#333333"


def covariance() -> Array:
    """K: long structures of 9 mm and fine ones of 2 mm."""
    t = np.arange(LENGTH, dtype=float)
    distance = (t[:, None] - t) ** 2
    return np.exp(-distance / (2 * 9.0**2)) + 0.3 * np.exp(-distance / (2 * 2.0**2)) + 1e-9 * np.eye(LENGTH)


def slices() -> Array:
    """A [slices, voxels]: each slice is the mean of its voxels."""
    return np.kron(np.eye(LENGTH // SLICE), np.full((1, SLICE), 1 / SLICE))


def posterior(k: Array, a: Array, y: Array) -> tuple[Array, Array]:
    """m and S of x | y without noise."""
    gain = k @ a.T @ np.linalg.inv(a @ k @ a.T)
    return gain @ y, k - gain @ a @ k


def draws(mean: Array, k: Array, n: int, seed: int) -> Array:
    """n draws [n, voxels] of N(mean, k)."""
    values, vectors = np.linalg.eigh(k)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    return mean + np.random.default_rng(seed).normal(size=(n, len(mean))) @ root.T


def steps(axes: mpl.axes.Axes, y: Array, **style: Any) -> None:
    """Each slice's value over its width."""
    edges = np.arange(0, LENGTH + 1, SLICE)
    axes.stairs(y, edges - 0.5, baseline=None, **style)


def figure() -> tuple[mpl.figure.Figure, mpl.axes.Axes]:
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(figsize=(9, 2.4), dpi=110, layout="constrained")
    axes.set(xlim=(-0.5, LENGTH - 0.5), xlabel="mm", yticks=[])
    axes.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def main() -> None:
    from matplotlib import pyplot

    mpl.use("agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs" / "concepts")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    t, k, a = np.arange(LENGTH), covariance(), slices()
    truth = draws(np.zeros(LENGTH), k, 1, seed=4)[0]
    y = a @ truth
    mean, left = posterior(k, a, y)
    deviation = np.sqrt(np.clip(np.diag(left), 0, None))

    drawn, axes = figure()
    axes.plot(t, truth, color=BLACK, label="the tissue, x")
    steps(axes, y, color=TEAL, lw=2, label="the scan, y = A x")
    drawn.legend(loc="outside right upper", frameon=False, fontsize=8)
    drawn.savefig(out / "likelihood.png")

    drawn, axes = figure()
    for i, line in enumerate(draws(np.zeros(LENGTH), k, 4, seed=7)):
        axes.plot(t, line, color=TEAL, alpha=0.8, label=None if i else "draws of the prior")
    drawn.legend(loc="outside right upper", frameon=False, fontsize=8)
    drawn.savefig(out / "prior.png")

    centres = np.arange(SLICE / 2 - 0.5, LENGTH, SLICE)
    cubic = CubicSpline(centres, y, bc_type="natural")(t)
    drawn, axes = figure()
    axes.plot(t, truth, color=GREY, lw=1, label="the tissue")
    axes.plot(t, cubic, color=RED, label="cubic interpolation")
    steps(axes, a @ cubic, color=RED, lw=2, alpha=0.5, label="its slices:\nnot the scan")
    steps(axes, y, color=BLACK, lw=2, label="the scan")
    axes.plot(
        t, cubic + a.T @ np.linalg.solve(a @ a.T, y - a @ cubic), color=TEAL, label="projected:\ngives back the scan"
    )
    drawn.legend(loc="outside right upper", frameon=False, fontsize=8)
    drawn.savefig(out / "consistency.png")

    drawn, axes = figure()
    axes.fill_between(
        t, mean - 1.645 * deviation, mean + 1.645 * deviation, color=TEAL, alpha=0.25, label="90 % interval"
    )
    for i, line in enumerate(draws(mean, left, 3, seed=2)):
        axes.plot(t, line, color=TEAL, lw=0.8, alpha=0.8, label=None if i else "draws of the posterior")
    axes.plot(t, mean, color=TEAL, lw=2, label="the most probable x")
    axes.plot(t, truth, color=BLACK, lw=1, ls="--", label="the tissue")
    drawn.legend(loc="outside right upper", frameon=False, fontsize=8)
    drawn.savefig(out / "intervals.png")

    drawn, axes = figure()
    axes.fill_between(
        t,
        0,
        1 - np.diag(left) / np.diag(k),
        color=TEAL,
        alpha=0.35,
        step="mid",
        label="with the prior of\nthese pictures",
    )
    fine = np.exp(-((t[:, None] - t) ** 2) / (2 * 1.0**2)) + 1e-9 * np.eye(LENGTH)
    rough = 1 - np.diag(posterior(fine, a, y)[1]) / np.diag(fine)
    axes.plot(t, rough, color=RED, drawstyle="steps-mid", label="with a prior of fine\nstructures only")
    axes.set(ylim=(0, 1.05), yticks=[0, 1], ylabel="measured")
    drawn.legend(loc="outside right upper", frameon=False, fontsize=8)
    drawn.savefig(out / "measured.png")
    pyplot.close("all")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
