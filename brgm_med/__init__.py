"""Bayesian image reconstruction of medical scans with deep generative priors (BRGM, arXiv 2012.04567).

Public names are imported on first use: `import brgm_med` alone loads neither torch nor any file format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brgm_med._version import __version__ as __version__
from brgm_med.lazy import lazy

if TYPE_CHECKING:
    from brgm_med.consistency import certificate as certificate
    from brgm_med.consistency import project as project
    from brgm_med.corruptions import AxisBlur as AxisBlur
    from brgm_med.corruptions import BiasField as BiasField
    from brgm_med.corruptions import Blur as Blur
    from brgm_med.corruptions import Downsample as Downsample
    from brgm_med.corruptions import Grey as Grey
    from brgm_med.corruptions import KSpace as KSpace
    from brgm_med.corruptions import Mask as Mask
    from brgm_med.corruptions import MotionBetweenLines as MotionBetweenLines
    from brgm_med.corruptions import ObliqueProfile as ObliqueProfile
    from brgm_med.corruptions import SliceProfile as SliceProfile
    from brgm_med.corruptions import StackAsVolume as StackAsVolume
    from brgm_med.corruptions import Together as Together
    from brgm_med.energies import Colinear as Colinear
    from brgm_med.energies import Gaussian as Gaussian
    from brgm_med.energies import Perceptual as Perceptual
    from brgm_med.energies import Pixel as Pixel
    from brgm_med.errors import BrgmError as BrgmError
    from brgm_med.networks.discriminator import Discriminator as Discriminator
    from brgm_med.networks.stylegan2 import StyleGAN2 as StyleGAN2
    from brgm_med.pipelines.steps.super_resolution import super_resolve as super_resolve
    from brgm_med.posterior import Posterior as Posterior
    from brgm_med.posterior import Whitened as Whitened
    from brgm_med.posterior import brgm_posterior as brgm_posterior
    from brgm_med.posterior import w_statistics as w_statistics
    from brgm_med.posterior import whitened_posterior as whitened_posterior
    from brgm_med.priors.bundle import load_prior as load_prior
    from brgm_med.pulse import pulse_posterior as pulse_posterior
    from brgm_med.separable import stationary_covariance as stationary_covariance
    from brgm_med.solvers import Estimate as Estimate
    from brgm_med.solvers import fit_lbfgs as fit_lbfgs
    from brgm_med.solvers import fit_map as fit_map
else:
    __all__, __getattr__, __dir__ = lazy(__name__)
    __all__ += ["__version__"]
