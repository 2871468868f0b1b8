"""The baseline of the speed table draws the same image, and a clone of published networks can take its place."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from brgm_med.networks.stylegan2 import StyleGAN2
from tests.house import ROOT

CLONE = """
from brgm_med.networks.stylegan2 import StyleGAN2

class SynthesisNetwork(StyleGAN2):
    def __init__(self, w_dim, img_resolution, img_channels, channel_base):
        sizes = [4 << n for n in range(20) if 4 << n <= img_resolution]
        super().__init__(w_dim=w_dim, channels=[min(CHANNELS, channel_base // size) for size in sizes],
                         image_channels=img_channels)
        del self.mapping

    def forward(self, ws, noise_mode):
        return self.synthesis(ws, noise_mode)
"""


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("speed")


def test_the_plain_synthesis_draws_the_same_image(speed: ModuleType) -> None:
    torch.manual_seed(0)
    generator = StyleGAN2(z_dim=8, w_dim=8, channels=(8, 8, 4), base_shape=(3, 4)).eval()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    ws = torch.randn(3, generator.num_ws, 8)
    torch.testing.assert_close(speed.plain.synthesis(generator, ws), generator.synthesis(ws), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_clone_of_the_published_networks_is_timed_only_where_it_is_as_large(
    speed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, channels in (("right", 512), ("small", 256)):
        package = tmp_path / folder / "training"
        package.mkdir(parents=True)
        (package / "networks.py").write_text(CLONE.replace("CHANNELS", str(channels)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "published_networks", speed)  # and so it is taken away again
    generator = speed.network("256")
    theirs = speed.published(str(tmp_path / "right"), "256")
    assert speed.step_of(generator, "plain", 1, theirs)().shape == (1, 14, 512)
    with pytest.raises(SystemExit, match="parameters, ours"):
        speed.published(str(tmp_path / "small"), "256")
