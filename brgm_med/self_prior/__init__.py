"""A prior learned from the scan: its own in-plane detail teaches what lies between its slices."""

from brgm_med.self_prior.acquisition import Acquisition
from brgm_med.self_prior.prior import SelfPrior, ThickScan, learn

__all__ = ["Acquisition", "SelfPrior", "ThickScan", "learn"]
