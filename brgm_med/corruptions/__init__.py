"""Corruptions f: linear maps from a clean image to its measurement (arXiv 2012.04567, section 2.3).

Every corruption is an nn.Module that takes batches of images [N, C, H, W] (`SliceProfile` and `ObliqueProfile`:
volumes) and has nothing to train. Composition is `nn.Sequential`. No adjoint is written by hand: it is the
vector-Jacobian product.
"""

from brgm_med.corruptions.kspace import KSpace, MotionBetweenLines
from brgm_med.corruptions.oblique import ObliqueProfile, StackAsVolume, Together, profile_nodes
from brgm_med.corruptions.pixels import BiasField, Grey, Mask
from brgm_med.corruptions.profile import (
    GAUSSIAN_REACH,
    Profile,
    Separable,
    SliceProfile,
    along,
    along_axes,
    profile_inside,
    profile_kernel,
    profile_matrix,
    profile_reach,
)
from brgm_med.corruptions.sampling import AxisBlur, Blur, Downsample, Kernel, keys_cubic, lanczos

__all__ = ["GAUSSIAN_REACH", "AxisBlur", "BiasField", "Blur", "Downsample", "Grey", "KSpace", "Kernel", "Mask"]
__all__ += ["MotionBetweenLines", "ObliqueProfile", "Profile", "Separable", "SliceProfile", "StackAsVolume", "Together"]
__all__ += ["along", "along_axes", "keys_cubic", "lanczos", "profile_inside", "profile_kernel", "profile_matrix"]
__all__ += ["profile_nodes", "profile_reach"]
