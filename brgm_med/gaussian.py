"""The linear-Gaussian prior of aligned slices: principal components, and the reconstruction in closed form.

    x ~ N(mean_p, C),  C = basis diag(deviation^2) basis' + nugget^2 I        (p: the slice's place in the head)

Probabilistic principal components (Tipping & Bishop 1999). Slices of registered heads come with their mirror images,
so every component is even or odd under the left-right flip, and two problems of half a slice's size are solved.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brgm_med.consistency import check_linear, project
from brgm_med.errors import BrgmError

CHUNK = 512  # images that go through a corruption at once


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """x ~ N(mean_p, basis diag(deviation^2) basis' + nugget^2 I), slices [N, 1, H, W], air about -1.

    `mean` [N or 1, 1, H, W]: one image per slice, or one for all; `basis` [H W, K] orthonormal and `deviation` [K]
    are shared by all positions; `nugget` is the standard deviation, per pixel, of the part outside the basis.
    """

    mean: Tensor
    basis: Tensor
    deviation: Tensor
    nugget: float

    @classmethod
    def fit(cls, stacks: Sequence[Tensor], rank: int) -> LinearGaussian:
        """The maximum-likelihood prior of `stacks`, whose item h is head h's slices [Y, 1, H, W], counted mirrored too.

        `mean` is that of each position; the deviations from it, of all positions together, give the components, at
        most `rank`. Float64 inside, float32 out. Two passes over the stacks; for 80 x 96 about a minute. Raises
        ValueError for an odd W.
        """
        heads, (positions, _, rows, columns) = len(stacks), torch.as_tensor(stacks[0]).shape
        if columns % 2:
            raise ValueError(f"LinearGaussian.fit: a slice of {columns} columns has no two halves")
        mean = sum((_double(stacks[h]) for h in range(1, heads)), _double(stacks[0])) / heads
        mean = (mean + mean.flip(3)) / 2
        halves = []
        for sign in (1, -1):
            parts = (folded(_double(stacks[h]) - mean, sign) for h in range(heads))
            values, vectors = _principal(parts, heads * positions, rank)
            halves.append((values, vectors, torch.full((len(values),), sign, dtype=torch.int8)))
        values, vectors, parity = (torch.cat(both) for both in zip(*halves, strict=True))
        total = sum(float((_double(stacks[h]) - mean).square().sum()) for h in range(heads)) / (heads * positions)
        best = values.argsort(descending=True, stable=True)[:rank]
        largest = values[best]
        size = rows * columns
        rest = max(0.0, total - float(largest.sum())) / (size - len(largest)) if len(largest) < size else 0.0
        half = (vectors[best] * 0.5**0.5).reshape(-1, rows, columns // 2)
        basis = unfolded(half, parity[best])
        return cls(mean.float(), basis.float(), (largest - rest).clamp_min(0).sqrt().float(), rest**0.5)

    def at(self, index: Tensor | Sequence[int]) -> LinearGaussian:
        """The prior of the slices at positions `index` [N] of this one's mean."""
        return dataclasses.replace(self, mean=self.mean[torch.as_tensor(index)])

    def half(self) -> tuple[Tensor, Tensor]:
        """The part of the basis that needs storing: `unfolded(*half())` is it. [K, H, W / 2], and parities [K], int8.

        Raises ValueError where a component is neither even nor odd.
        """
        images = self._images(self.basis.T)[:, 0]
        left, right = images[..., : images.shape[2] // 2], images.flip(2)[..., : images.shape[2] // 2]
        parity = (left * right).sum((1, 2)).sign()
        if not torch.equal(left, right * parity[:, None, None]):
            raise ValueError("LinearGaussian.half: a component is neither even nor odd under the left-right flip")
        return left.contiguous(), parity.to(torch.int8)

    def covariance(self, x: Tensor) -> Tensor:
        """C x for images [N, 1, H, W], in x's dtype."""
        basis = self.basis.to(x)
        inside = (x.flatten(1) @ basis * self.deviation.to(x).square()) @ basis.T
        return inside.reshape(x.shape) + self.nugget**2 * x

    def sample(self, generator: torch.Generator) -> Tensor:
        """One image for each row of the mean, drawn independently: [N, 1, H, W]."""
        a = torch.randn(len(self.mean), len(self.deviation), generator=generator, dtype=torch.float64).to(self.basis)
        grain = torch.randn(self.mean.shape, generator=generator, dtype=torch.float64).to(self.mean)
        return self.mean + ((a * self.deviation) @ self.basis.T).reshape(self.mean.shape) + self.nugget * grain

    def estimate(self, corruption: nn.Module, measured: Tensor, misfit: float) -> Tensor:
        """The posterior mean, which is the MAP: m + C A' (A C A' + misfit^2 I)^-1 (y - A m), [N, 1, H, W].

        `corruption` is any linear module A that takes batches, `measured` y = A x + noise, `misfit` the standard
        deviation of that noise, in the images' own unit. A mean of one row is that of all of len(measured) slices.
        Where A treats every slice alone and alike, its matrix is solved directly, for any number of slices at little
        more cost; else by the conjugate gradients of `consistency.project`. Float64 inside. Raises ValueError when A is
        not linear and BrgmError when the system is singular.
        """
        count = len(measured) if len(self.mean) == 1 else len(self.mean)
        mean = self.mean.double().expand(count, -1, -1, -1)
        forward = copy.deepcopy(corruption).double()
        check_linear(forward, mean)
        if not _alike(forward, mean):
            return project(mean, forward, measured, self.covariance, misfit).to(self.mean.dtype)
        with torch.no_grad():
            residual = (measured.double() - forward(mean)).flatten(1)
            transposed = self._matrix(forward, residual.shape[1])
            spread = self._through(forward, (self.basis * self.deviation).double().T)
            system = spread.T @ spread + misfit**2 * torch.eye(residual.shape[1]).to(spread)
            if self.nugget:
                system += self.nugget**2 * self._through(forward, transposed.T)
            weights = _solved(system, residual.T).T
            correction = self.covariance(self._images(weights @ transposed.T))
        return (mean + correction).to(self.mean.dtype)

    def fill(self, known: Tensor, measured: Tensor, misfit: float) -> Tensor:
        """The posterior mean of slices [N, 1, H, W] of which `measured` holds the pixels `known` [H, W] (bool), with
        `misfit` as in `estimate`: the same, solved for the components, which are fewer than known pixels."""
        rows = known.flatten().cpu()
        spread = (self.basis * self.deviation)[rows].double()
        residual = (measured - self.mean)[..., known].flatten(1).double()
        variance = self.nugget**2 + misfit**2
        system = spread.T @ spread + variance * torch.eye(spread.shape[1]).to(spread)
        components = _solved(system, (residual @ spread).T).T
        filled = self.mean + self._images(components.to(self.basis) @ (self.basis * self.deviation).T)
        on_known = self.nugget**2 / variance if variance else 1.0
        return filled + (measured - filled).where(known, torch.zeros(())) * on_known

    def _images(self, flat: Tensor) -> Tensor:
        """[N, H W] -> [N, 1, H, W]."""
        return flat.reshape(-1, *self.mean.shape[1:])

    def _through(self, forward: nn.Module, flat: Tensor) -> Tensor:
        """A applied to each of the images [N, H W]: [N, m]."""
        return torch.cat([forward(self._images(part)).flatten(1) for part in flat.split(CHUNK)])

    def _matrix(self, forward: nn.Module, outputs: int) -> Tensor:
        """A' [H W, m], of a module that treats every slice alone: output by output, by the vector-Jacobian product."""
        parts = []
        for first in range(0, outputs, CHUNK):
            count = min(CHUNK, outputs - first)
            x = torch.zeros(count, *self.mean.shape[1:], dtype=torch.float64, device=self.basis.device)
            chosen = torch.zeros(count, outputs, dtype=torch.float64, device=self.basis.device)
            chosen.diagonal(first).fill_(1.0)
            with torch.enable_grad():
                x.requires_grad_(True)
                (rows,) = torch.autograd.grad(forward(x).flatten(1), x, chosen)
            parts.append(rows.flatten(1))
        return torch.cat(parts).T.contiguous()


def folded(images: Tensor, parity: int) -> Tensor:
    """The even (1) or odd (-1) part of images [N, 1, H, W] as coordinates [N, H W / 2]: an isometry of that part."""
    half = images.shape[3] // 2
    return ((images[..., :half] + parity * images.flip(3)[..., :half]) * 0.5**0.5).flatten(1)


def unfolded(half: Tensor, parity: Tensor) -> Tensor:
    """Left halves [K, H, W / 2] of even (parity 1) and odd (-1) images -> basis [H W, K] of whole images."""
    right = half.flip(2) * parity.to(half)[:, None, None]
    return torch.cat([half, right], 2).flatten(1).T.contiguous()


def _solved(system: Tensor, right: Tensor) -> Tensor:
    """`system`^-1 `right`, by Cholesky's decomposition. Raises BrgmError where it is singular."""
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed:
        raise BrgmError("the measurement contradicts itself or is ill-posed: state a noise level")
    return torch.cholesky_solve(right, factor)


def _double(stack: Tensor) -> Tensor:
    return torch.as_tensor(stack).double()


def _principal(parts: Iterator[Tensor], count: int, rank: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues [K] and eigenvectors [K, n] of the mean of x x' over `count` rows x [n] of `parts`.

    At most `rank`, and none that is 0. The smaller of the two Gram matrices is solved.
    """
    first = next(parts)
    if count < first.shape[1]:
        x = torch.cat([first, *parts])
        values, vectors = torch.linalg.eigh(x @ x.T / count)
    else:
        covariance = first.T @ first
        for x in parts:
            covariance.addmm_(x.T, x)
        values, vectors = torch.linalg.eigh(covariance / count)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    seen = values > 1e-12 * values[0]
    values, vectors = values[seen], vectors[:, seen]
    if count < first.shape[1]:
        vectors = torch.nn.functional.normalize(x.T @ vectors, dim=0)
    return values, vectors.T


def _alike(forward: nn.Module, x: Tensor) -> bool:
    """True where a linear module does the same to every slice, independently of the others (seen at one random x)."""
    random = torch.Generator().manual_seed(0)
    u = torch.randn(x.shape, generator=random, dtype=torch.float64).to(x)
    with torch.no_grad():
        together, alone = forward(u), [forward(part) for part in u.split(1)]
    if any(a.shape != together[:1].shape for a in alone) or len(together) != len(u):
        return False
    return torch.allclose(together, torch.cat(alone), rtol=1e-9, atol=1e-9 * float(together.abs().max()))
