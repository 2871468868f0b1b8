"""Which floating-point format a device multiplies fastest."""

from __future__ import annotations

import torch


def native_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where `device` has matrix units for it, else float32.

    The vector instructions of avx512_bf16 are not enough: on the processors measured here (Intel, model 207, without
    AMX) they multiply at half the rate of float32 (170 against 330 GFLOP/s in a convolution, two cores).
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # oneDNN's own answer is also yes where it would emulate
        native = torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32
