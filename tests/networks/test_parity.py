"""Agreement with published networks' numbers (computed elsewhere), to 1e-4 relative."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from brgm_med.networks.discriminator import Discriminator
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.ops import bias_act, upfirdn2d


def relative(a: torch.Tensor, b: np.ndarray) -> float:
    return float(np.abs(a.detach().numpy() - b).max() / np.abs(b).max())


def load(path: Path) -> tuple[dict, StyleGAN2, Discriminator]:
    numbers = dict(np.load(path))
    config = ast.literal_eval(str(numbers["config"]))
    levels = int(np.log2(config["img_resolution"])) - 1
    channels = [min(config["channel_base"] // (4 << i), config["channel_max"]) for i in range(levels)]
    g = StyleGAN2(
        z_dim=config["z_dim"],
        w_dim=config["w_dim"],
        c_dim=config["c_dim"],
        channels=channels,
        image_channels=config["img_channels"],
        mapping_layers=config["num_layers"],
        architecture=config["architecture"],
    )
    d = Discriminator(
        c_dim=config["c_dim"],
        channels=channels,
        image_channels=config["img_channels"],
        group=config["mbstd_group_size"],
    )
    for module, prefix in ((g, "G."), (d, "D.")):
        state = {k[2:]: torch.from_numpy(v) for k, v in numbers.items() if k.startswith(prefix)}
        ours = module.state_dict()
        extra = {k for k in state if k not in ours}
        assert all(k.endswith("resample_filter") for k in extra), extra
        missing = module.load_state_dict({k: v for k, v in state.items() if k in ours}, strict=False).missing_keys
        assert all(k.endswith("resample_filter") for k in missing), missing
    return numbers, g, d


@pytest.mark.parametrize("name", ["generator_64_rgb", "generator_32_gray", "generator_32_cond"])
def test_networks_agree_with_published_numbers(parity_dir: Path, name: str) -> None:
    numbers, g, d = load(parity_dir / f"{name}.npz")
    z = torch.from_numpy(numbers["z"])
    c = torch.from_numpy(numbers["c"]) if "c" in numbers else None
    ws = g.broadcast(g.mapping(z, c))
    assert relative(ws, numbers["ws"]) < 1e-4
    assert relative(g.broadcast(g.mapping(z, c, truncation=0.7)), numbers["ws_psi07"]) < 1e-4

    ws = torch.from_numpy(numbers["ws"]).requires_grad_()
    assert relative(g.synthesis(ws, noise="none"), numbers["image_none"]) < 1e-4
    image = g.synthesis(ws)
    assert relative(image, numbers["image_const"]) < 1e-4
    (gradient,) = torch.autograd.grad((image * torch.from_numpy(numbers["probe"])).sum(), ws)
    assert relative(gradient, numbers["dprobe_dws"]) < 1e-4

    picture = torch.from_numpy(numbers["image_const"]).requires_grad_()
    logits = d(picture, c)
    assert relative(logits, numbers["d_logits"]) < 1e-4
    (gradient,) = torch.autograd.grad(logits.sum(), picture)
    assert relative(gradient, numbers["d_dlogits_dimage"]) < 1e-4


def test_bias_act_agrees_with_published_numbers(parity_dir: Path) -> None:
    numbers = dict(np.load(parity_dir / "bias_act.npz"))
    x, b = (torch.from_numpy(numbers.pop(k)) for k in ("x", "b"))
    assert len(numbers) == 18
    for key, expected in numbers.items():
        act, clamp = key.split("_")
        y = bias_act(x, b, act=act, clamp=None if clamp == "None" else float(clamp))
        assert relative(y, expected) < 1e-4, key


def test_upfirdn2d_agrees_with_published_numbers(parity_dir: Path) -> None:
    numbers = dict(np.load(parity_dir / "upfirdn2d.npz"))
    x, gain = torch.from_numpy(numbers["x"]), float(numbers["gain"])
    cases = sorted(k[: -len("_args")] for k in numbers if k.endswith("_args"))
    assert len(cases) == 24
    for case in cases:
        up, down, *padding, flip = (int(v) for v in numbers[f"{case}_args"])
        y = upfirdn2d(
            x,
            torch.from_numpy(numbers[f"{case}_filter"]),
            up=up,
            down=down,
            padding=tuple(padding),
            flip_filter=bool(flip),
            gain=gain,
        )
        assert relative(y, numbers[f"{case}_y"]) < 1e-4, case
