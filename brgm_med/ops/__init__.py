"""Tensor operations that the networks are made of: one typed function each, its body the specification."""

from brgm_med.ops.bias_act import bias_act
from brgm_med.ops.modulated_epilogue import modulated_epilogue
from brgm_med.ops.upfirdn2d import fir_filter, upfirdn2d

__all__ = ["bias_act", "fir_filter", "modulated_epilogue", "upfirdn2d"]
