"""The losses of adversarial training, each a mean over the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss, -log sigmoid(D(G(z))). Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss, -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z))))."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """Mean over the batch of |d D(x) / d x|^2 at real images (`real` requires grad). Mescheder et al. 2018, Eq. 9."""
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def path_lengths(image: Tensor, w: Tensor) -> Tensor:
    """|J^T y| [N] with J = d image / d w at w [N, K] and a random image y, normal with E|y|^2 = the channels C.

    `image` [N, C, H, W] must have been made from `w`, image i from w_i alone. Karras et al. 2020 (arXiv 1912.04958),
    section 3.2; y's scale, 1 / sqrt(H W), makes lengths of networks of any image size alike.
    """
    y = torch.randn_like(image) / (image.shape[2] * image.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
    return (gradient.square().sum(1) + 1e-12).sqrt()


def path_penalty(lengths: Tensor, mean: float | Tensor) -> Tensor:
    """Mean squared difference of path lengths [N] to their running mean. Karras et al. 2020, Eq. 4."""
    return (lengths - mean).square().mean()


def information(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Nats [N] that a map [N, 1, h, w] known as N(mean, deviation^2) tells beyond the prior N(0, 1): the
    Kullback-Leibler divergence of the two, summed over pixels. Kingma & Welling 2014, Appendix B."""
    variance = (2 * log_deviation).exp()
    return 0.5 * (mean.square() + variance - 1 - 2 * log_deviation).sum((1, 2, 3))
