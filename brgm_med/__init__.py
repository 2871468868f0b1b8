"""Bayesian image reconstruction of medical scans with deep generative priors (BRGM, arXiv 2012.04567).

Public names are imported on first use: `import brgm_med` alone loads neither torch nor any file format.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from brgm_med._version import __version__

if TYPE_CHECKING:
    from brgm_med.consistency import certificate, project
    from brgm_med.corruptions import (
        AxisBlur,
        BiasField,
        Blur,
        Downsample,
        Grey,
        KSpace,
        Mask,
        MotionBetweenLines,
        ObliqueProfile,
        SliceProfile,
        StackAsVolume,
        Together,
    )
    from brgm_med.energies import Colinear, Gaussian, Perceptual, Pixel
    from brgm_med.errors import BrgmError
    from brgm_med.networks.discriminator import Discriminator
    from brgm_med.networks.stylegan2 import StyleGAN2
    from brgm_med.posterior import Posterior, Whitened, brgm_posterior, w_statistics, whitened_posterior
    from brgm_med.priors.bundle import load as load_prior
    from brgm_med.pulse import pulse_posterior
    from brgm_med.separable import stationary_covariance
    from brgm_med.solvers import Estimate, fit_lbfgs, fit_map

_HOME = {
    "AxisBlur": "corruptions",
    "BiasField": "corruptions",
    "Blur": "corruptions",
    "BrgmError": "errors",
    "Colinear": "energies",
    "Discriminator": "networks.discriminator",
    "Downsample": "corruptions",
    "Estimate": "solvers",
    "Gaussian": "energies",
    "Grey": "corruptions",
    "KSpace": "corruptions",
    "Mask": "corruptions",
    "MotionBetweenLines": "corruptions",
    "ObliqueProfile": "corruptions",
    "Perceptual": "energies",
    "Pixel": "energies",
    "Posterior": "posterior",
    "SliceProfile": "corruptions",
    "StackAsVolume": "corruptions",
    "StyleGAN2": "networks.stylegan2",
    "Together": "corruptions",
    "Whitened": "posterior",
    "brgm_posterior": "posterior",
    "certificate": "consistency",
    "fit_lbfgs": "solvers",
    "fit_map": "solvers",
    "load_prior": "priors.bundle",
    "project": "consistency",
    "pulse_posterior": "pulse",
    "stationary_covariance": "separable",
    "w_statistics": "posterior",
    "whitened_posterior": "posterior",
}

__all__ = [
    "AxisBlur",
    "BiasField",
    "Blur",
    "BrgmError",
    "Colinear",
    "Discriminator",
    "Downsample",
    "Estimate",
    "Gaussian",
    "Grey",
    "KSpace",
    "Mask",
    "MotionBetweenLines",
    "ObliqueProfile",
    "Perceptual",
    "Pixel",
    "Posterior",
    "SliceProfile",
    "StackAsVolume",
    "StyleGAN2",
    "Together",
    "Whitened",
    "__version__",
    "brgm_posterior",
    "certificate",
    "fit_lbfgs",
    "fit_map",
    "load_prior",
    "project",
    "pulse_posterior",
    "stationary_covariance",
    "w_statistics",
    "whitened_posterior",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME[name]}")
    return getattr(module, "load" if name == "load_prior" else name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
