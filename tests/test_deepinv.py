"""deepinv's physics as our corruptions, our posterior as its reconstructor, and what the page about them says."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from brgm_med.corruptions import Mask
from brgm_med.deepinv import PhysicsCorruption, SlicesReconstructor, corruption_of
from brgm_med.errors import BrgmError
from brgm_med.priors.bundle import load
from tests.house import ROOT

deepinv = pytest.importorskip("deepinv")
SHAPE = (1, 80, 96)
PAGE = ROOT / "docs" / "deepinv.md"


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return (load().sample(seed=1)[[20, 40]].clamp(-1, 1) + 1) / 2


@pytest.mark.parametrize(
    "physics",
    [
        deepinv.physics.Downsampling(img_size=SHAPE, factor=4, filter="bicubic"),
        deepinv.physics.Inpainting(SHAPE, mask=0.6),
        deepinv.physics.Blur(filter=torch.ones(1, 1, 3, 5) / 15, padding="circular"),
    ],
    ids=["downsampling", "inpainting", "blur"],
)
def test_a_measurement_means_the_same_in_both_ranges(physics: object, truth: torch.Tensor) -> None:
    f = PhysicsCorruption(physics)
    y = f(truth)
    torch.testing.assert_close(f.measured(y, SHAPE), f(2 * truth - 1), rtol=0, atol=1e-5)
    assert f(truth.double()).dtype == torch.float64
    assert nn.Sequential(f)(truth).shape == y.shape


def test_a_mask_becomes_ours(truth: torch.Tensor) -> None:
    known = torch.ones(SHAPE)
    known[:, 30:50, 40:60] = 0
    f = corruption_of(deepinv.physics.Inpainting(SHAPE, mask=known), SHAPE)
    assert isinstance(f, Mask)
    torch.testing.assert_close(f(truth), truth * known)
    weighted = deepinv.physics.Inpainting(SHAPE, mask=known * 0.5)
    assert isinstance(corruption_of(weighted, SHAPE), PhysicsCorruption)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning", "ignore:non_blocking_transfers=True")
def test_the_reconstructor_works_in_deepinvs_own_loop(truth: torch.Tensor) -> None:
    physics = deepinv.physics.Downsampling(img_size=SHAPE, factor=4, filter=None)
    solve = SlicesReconstructor(load(), index=[20, 40])
    y = physics(truth)
    x = solve(y, physics)
    assert x.shape == truth.shape
    assert float((physics.A(x) - y).abs().max()) < 1e-4
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(truth, y), batch_size=2)
    found = deepinv.test(solve, data, physics, metrics=deepinv.metric.PSNR(), verbose=False, show_progress_bar=False)
    plain = deepinv.metric.PSNR()(torch.nn.functional.interpolate(y, SHAPE[1:], mode="bicubic"), truth).mean()
    assert found["PSNR"] > float(plain) + 1


def test_holes_are_filled_and_the_rest_stays(truth: torch.Tensor) -> None:
    known = torch.ones(SHAPE)
    known[:, 30:50, 40:60] = 0
    physics = deepinv.physics.Inpainting(SHAPE, mask=known)
    x = SlicesReconstructor(load(), index=20)(physics(truth), physics)
    torch.testing.assert_close(x * known, truth * known, rtol=0, atol=1e-6)
    hidden = known[0] == 0
    assert float((x - truth)[..., hidden].abs().mean()) < float((0.5 - truth)[..., hidden].abs().mean())


def test_wrong_calls_are_refused(truth: torch.Tensor) -> None:
    physics = deepinv.physics.Downsampling(img_size=SHAPE, factor=4, filter=None)
    with pytest.raises(BrgmError, match="positions"):
        SlicesReconstructor(load(), index=[20])(physics(truth), physics)


@pytest.mark.filterwarnings("ignore:Function 'gaussian_blur' is deprecated")
def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    assert float(capsys.readouterr().out) == pytest.approx(0.02, rel=0.2)
    estimate = names["estimate"]
    assert estimate.image.shape == (2, *SHAPE)  # type: ignore[attr-defined]
