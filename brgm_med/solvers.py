"""Solvers: functions from a posterior to an estimate. None of them changes the generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import torch
from torch import Tensor

from brgm_med.posterior import Posterior

SUFFICIENT, LEAST, MOST = 1e-4, 0.1, 0.5  # Armijo's constant; a failed step shrinks by a factor in between
WINDOW = 3  # steps over which a settled energy has not fallen


@dataclass(frozen=True)
class Estimate:
    """A solver's answer: W+ `ws` [N, num_ws, w_dim], `image` [N, C, H, W], total energy [steps, N] as it fell."""

    ws: Tensor
    image: Tensor
    history: Tensor


def fit_map(
    posterior: Posterior,
    start: Tensor,
    *,
    steps: int = 100,
    rate: float = 0.05,
    tolerance: float = 0.0,
    wander: Iterable[Tensor] = (),
    callback: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> Estimate:
    """Maximum a posteriori over W+ by Adam (section 2.5), all images of the batch at once.

    `start` [N, num_ws, w_dim] is where the search begins (the paper: the mean w in every layer). The step size
    falls from `rate` to 0 over the last three quarters of the steps as a half cosine. Every image has its own
    moments, so image i's path does not depend on the others (unless the posterior couples them). The best iterate of
    each image is returned; of a coupled posterior, the best for all images together. With `tolerance` > 0 an image
    is settled once its energy fell by no more than that fraction over 20 steps, and the search ends when all are.
    Step i tries ws plus the i-th of `wander`, if there are so many, and what was tried is what may be returned: the
    noise that StyleGAN2's projection adds. `callback(step, energies)` is called once a step. Deterministic: nothing is
    drawn.
    """
    ws = start.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([ws], lr=rate, betas=(0.9, 0.99))
    best = torch.full((len(start),), torch.inf, device=start.device)
    best_ws = ws.detach().clone()
    searching = torch.ones(len(start), dtype=torch.bool, device=start.device)
    history: list[Tensor] = []
    offsets: Iterator[Tensor | float] = chain(wander, repeat(0.0))
    for step in range(steps):
        progress = max(0.0, step / steps - 0.25) / 0.75
        for group in adam.param_groups:
            group["lr"] = rate * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * progress))))
        tried = ws + next(offsets)
        energies = posterior.energies(tried)
        total = _total(energies, len(ws))
        adam.zero_grad(set_to_none=True)
        (ws.grad,) = torch.autograd.grad(total.sum(), ws)
        now = total.detach()
        rank = now.sum().expand_as(now) if posterior.coupled else now
        better = (rank < best) & searching
        best = torch.where(better, rank, best)
        best_ws = torch.where(better[:, None, None], tried.detach(), best_ws)
        history.append(now)
        if callback is not None:
            callback(step, {k: v.detach() for k, v in energies.items()})
        if tolerance and step >= 20:
            moving = history[-21] - now > tolerance * history[-21].abs()
            searching &= moving.any() if posterior.coupled else moving
            if not searching.any():
                break
        adam.step()
    with torch.no_grad():
        image = posterior.image(best_ws)
    return Estimate(best_ws, image, torch.stack(history) if history else torch.zeros(0, len(start)))


def fit_lbfgs(
    posterior: Posterior,
    start: Tensor,
    *,
    steps: int = 20,
    curvature: Tensor | None = None,
    memory: int = 20,
    tolerance: float = 0.0,
    callback: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> Estimate:
    """Maximum a posteriori by L-BFGS (Nocedal & Wright 2006, algorithm 7.4), all images of the batch at once.

    Every image has its own curvature pairs, step length and backtracking line search (a parabola through what is
    known, Armijo's condition), so its path does not depend on the others; a posterior that couples its images is
    searched as one. One step is one evaluation of energy and gradient, accepted or not; the first is that of `start`
    [N, num_ws, w_dim]. `curvature` (broadcastable to start, positive): the guess of the Hessian's diagonal, up to a
    factor, on which the first directions rest; default 1. The energy in `history` never rises: it is that of the best
    iterate so far, which is returned. With `tolerance` > 0 an image is settled, and stays where it is, once its energy
    fell by no more than that fraction over `WINDOW` steps and its slope does not promise more of the next; the search
    ends when all are. `callback(step, energies)` is called once a step, with the energies of what was tried.
    Deterministic.
    """
    rows = 1 if posterior.coupled else len(start)
    inverse = torch.ones(()) if curvature is None else (1 / curvature).expand_as(start).reshape(rows, -1)
    inverse = inverse.to(start)
    w = start.detach().reshape(rows, -1)
    gradient, towards = torch.zeros_like(w), torch.zeros_like(w)
    energy = torch.full((rows,), torch.inf).to(w)
    scale, length, slope = torch.ones_like(energy), torch.ones_like(energy), torch.zeros_like(energy)
    searching = torch.ones_like(energy).bool()
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # steps s, changes of the gradient y, 1 / s.y (0: no such pair)
    each, history, totals = torch.zeros(len(start)).to(w), [], []

    for step in range(steps):
        trial = (w + length[:, None] * towards).requires_grad_(True)
        terms = posterior.energies(trial.reshape(start.shape))
        total = _total(terms, len(start))
        (there,) = torch.autograd.grad(total.sum(), trial)
        trial, total = trial.detach(), total.detach()
        tried = total.reshape(rows, -1).sum(1)
        if callback is not None:
            callback(step, {k: v.detach() for k, v in terms.items()})

        lower = (tried <= energy + SUFFICIENT * length * slope) & searching
        if step == 0:  # so far that a straight line would reach 0
            scale = tried.abs() / (inverse * there.square()).sum(1).clamp_min(1e-20)
        else:
            s, y = (torch.where(lower[:, None], new - old, 0.0) for new, old in ((trial, w), (there, gradient)))
            product, size = (s * y).sum(1), (inverse * y.square()).sum(1)
            convex = product > 1e-8 * size
            scale = torch.where(convex, product / size, scale)
            pairs = [*pairs, (s, y, torch.where(convex, 1 / product, 0.0))][-memory:]
        parabola = -slope * length**2 / (2 * (tried - energy - length * slope))
        shorter = torch.where(parabola.isfinite(), parabola, 0.0).clamp(LEAST * length, MOST * length)
        length = torch.where(lower, 1.0, shorter)
        w, gradient = (torch.where(lower[:, None], new, old) for new, old in ((trial, w), (there, gradient)))
        energy, each = torch.where(lower, tried, energy), torch.where(lower, total, each)
        newest = -_times_inverse_hessian(gradient, pairs, scale[:, None] * inverse)
        towards = torch.where(lower[:, None], newest, towards)
        slope = (gradient * towards).sum(1)
        history.append(each)
        totals.append(energy)
        if tolerance and step >= WINDOW:
            least = tolerance * totals[-1 - WINDOW].abs()
            searching &= (totals[-1 - WINDOW] - energy > least) | (-length * slope > least)
            if not searching.any():
                break
    ws = w.reshape(start.shape)
    with torch.no_grad():
        image = posterior.image(ws)
    return Estimate(ws, image, torch.stack(history) if history else torch.zeros(0, len(start)))


def _total(terms: dict[str, Tensor], images: int) -> Tensor:
    """The energy of every image, [N]; of a term of all images together, [1], each has an equal share."""
    return torch.stack([t if len(t) == images else t.expand(images) / images for t in terms.values()]).sum(0)


def _times_inverse_hessian(q: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]], initial: Tensor) -> Tensor:
    """H q for vectors q [N, K], H what L-BFGS makes of `pairs` and the diagonal `initial` (the two-loop recursion)."""
    along = []
    for s, y, rho in reversed(pairs):
        along.append(rho * (s * q).sum(1))
        q = q - along[-1][:, None] * y
    q = initial * q
    for (s, y, rho), a in zip(pairs, reversed(along), strict=True):
        q = q + (a - rho * (y * q).sum(1))[:, None] * s
    return q
