"""Methods that know no images: total variation, the deep image prior, and what fills a hole from its rim."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brgm_med.corruptions import Mask
from brgm_med.errors import UsageError
from brgm_med.pipelines.evaluation.setting import Method, Setting

TV_AVERAGES, TV_HOLES, TV_STEPS, TV_INNER = 0.05, 0.15, 200, 10
"""Weight of the total variation, of averages and of holes; steps of FISTA, and of the denoiser in each. Chosen on one
validation head, of 0.0001 to 0.15."""

DIP_STEPS, DIP_CHANNELS, DIP_LAYERS, DIP_RATE = 200, 64, 6, 0.003
"""The deep image prior's steps, after which it is stopped, and its network. Chosen on one validation head."""


FILLERS = ("biharmonic", "telea", "navier-stokes")
NEEDS = {
    **dict.fromkeys(("tv", "dip"), ("deepinv", ["deepinv"])),
    **dict.fromkeys(FILLERS, ("scikit-image and OpenCV", ["cv2", "skimage.restoration"])),
}
"""The packages of each method, and their modules."""


def needed(method: str) -> list[Any]:
    """The modules that a method needs. Raises UsageError where one is missing."""
    packages, modules = NEEDS[method]
    try:
        return [import_module(name) for name in modules]
    except ImportError:
        raise UsageError(f"--methods {method}: needs {packages}; pip install 'brgm-med[evaluate]'") from None


def physics(corruption: nn.Module, shape: tuple[int, int, int]) -> Any:
    """A linear corruption of images [N, *shape] as deepinv's physics, its adjoint by autograd."""
    (deepinv,) = needed("tv")

    def adjoint(y: Tensor, **_: Any) -> Tensor:
        return torch.func.vjp(corruption, torch.zeros(len(y), *shape, dtype=y.dtype))[1](y)[0]

    return deepinv.physics.LinearPhysics(A=lambda x, **_: corruption(x), A_adjoint=adjoint, img_size=shape)


def largest_square(corruption: nn.Module, shape: tuple[int, int, int]) -> float:
    """The largest eigenvalue of A'A, by power iteration."""
    linear = physics(corruption, shape)
    x = torch.ones(1, *shape)
    size = 1.0
    for _ in range(20):
        x = linear.A_adjoint(linear.A(x / x.norm()))
        size = float(x.norm())
    return size


def total_variation(setting: Setting) -> Method:
    """argmin 1/2 |A x - y|^2 / |A|^2 + weight TV(x), by deepinv's FISTA from A'y / |A|^2."""
    (deepinv,) = needed("tv")

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        top = largest_square(corruption, setting.shape)
        weight = TV_HOLES if isinstance(corruption, Mask) else TV_AVERAGES
        fidelity, prior = deepinv.optim.L2(), deepinv.optim.prior.TVPrior(n_it_max=TV_INNER)
        options = {"lambda_reg": weight * top, "stepsize": 1 / top, "max_iter": TV_STEPS}
        solver = deepinv.optim.FISTA(fidelity, prior, **options)
        linear = physics(corruption, setting.shape)
        with torch.no_grad():
            start = linear.A_adjoint(y.float()) / top
            image: Tensor = solver(y.float(), linear, init=(start, start))
        return _known_kept(image, y, corruption)

    return reconstruct


def deep_image_prior(setting: Setting) -> Method:
    """deepinv's deep image prior with its convolutional decoder, each image on its own, stopped after `DIP_STEPS`."""
    (deepinv,) = needed("dip")

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        linear, images = physics(corruption, setting.shape), []
        for one in y.float().split(1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(setting.seed)
                network = deepinv.models.ConvDecoder(setting.shape, layers=DIP_LAYERS, channels=DIP_CHANNELS)
                size, options = (DIP_CHANNELS, 4, 4), {"iterations": DIP_STEPS, "learning_rate": DIP_RATE}
                prior = deepinv.models.DeepImagePrior(network, size, **options)
                images.append(prior(one, linear).detach())
        return _known_kept(torch.cat(images), y, corruption)

    return reconstruct


def _known_kept(image: Tensor, y: Tensor, corruption: nn.Module) -> Tensor:
    return torch.where(corruption.mask, y, image) if isinstance(corruption, Mask) else image


def filled(y: Tensor, corruption: nn.Module, method: str) -> Tensor:
    """Each slice with its hole filled by a method that knows nothing but its rim; of images in colour, each channel."""
    if not isinstance(corruption, Mask):
        raise UsageError(f"{method}: fills holes; for averages name another method")
    cv2, restoration = needed(method)
    hole: NDArray[np.bool_] = ~corruption.mask.numpy()
    done = []
    for one in y.flatten(0, 1).double().numpy():
        if method == "biharmonic":
            done.append(restoration.inpaint_biharmonic(np.where(hole, 0, one), hole))
            continue
        low, high = one[~hole].min(), one[~hole].max()
        levels = np.rint(np.where(hole, 0, (one - low) / max(high - low, 1e-12) * 255)).astype(np.uint8)
        kind = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
        colours = cv2.inpaint(levels, hole.astype(np.uint8), 3, kind) / 255 * (high - low) + low
        done.append(np.where(hole, colours, one))
    return torch.from_numpy(np.stack(done)).reshape(y.shape).to(y)


def _method(name: str) -> Callable[[Setting], Method]:
    return lambda _setting: lambda y, corruption: filled(y, corruption, name)


biharmonic, telea, navier_stokes = map(_method, FILLERS)
"""scikit-image's biharmonic inpainting; OpenCV's fast marching (Telea 2004) and Navier-Stokes inpainting (Bertalmio et
al. 2001), in 8 bits, as it takes them."""
