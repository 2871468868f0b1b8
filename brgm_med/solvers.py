"""Solvers: functions from a posterior to an estimate. None of them changes the generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from brgm_med.posterior import Posterior


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
    callback: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> Estimate:
    """Maximum a posteriori over W+ by Adam (section 2.5), all images of the batch at once.

    `start` [N, num_ws, w_dim] is where the search begins (the paper: the mean w in every layer). The step size
    falls from `rate` to 0 over the last three quarters of the steps as a half cosine. Every image has its own
    moments, so image i's path does not depend on the others (unless the posterior couples them). The best iterate of
    each image is returned; of a coupled posterior, the best for all images together. With `tolerance` > 0 an image
    is settled once its energy fell by no more than that fraction over 20 steps, and the search ends when all are.
    `callback(step, energies)` is called once a step. Deterministic: nothing is drawn.
    """
    ws = start.detach().clone().requires_grad_(True)
    adam = torch.optim.Adam([ws], lr=rate, betas=(0.9, 0.99))
    best = torch.full((len(start),), torch.inf, device=start.device)
    best_ws = ws.detach().clone()
    searching = torch.ones(len(start), dtype=torch.bool, device=start.device)
    history: list[Tensor] = []
    for step in range(steps):
        progress = max(0.0, step / steps - 0.25) / 0.75
        for group in adam.param_groups:
            group["lr"] = rate * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * progress))))
        energies = posterior.energies(ws)
        total = torch.stack(list(energies.values())).sum(0)
        adam.zero_grad(set_to_none=True)
        (ws.grad,) = torch.autograd.grad(total.sum(), ws)
        now = total.detach()
        rank = now.sum().expand_as(now) if posterior.coupled else now
        better = (rank < best) & searching
        best = torch.where(better, rank, best)
        best_ws = torch.where(better[:, None, None], ws.detach(), best_ws)
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
