"""The state that training carries from one iteration to the next, and its file."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from brgm_med.errors import PriorError
from brgm_med.files import overwriting
from brgm_med.networks.discriminator import Discriminator, Encoder
from brgm_med.networks.stylegan2 import StyleGAN2


@dataclass(frozen=True)
class Architecture:
    """Sizes of the three networks that are trained together. Channels are coarsest first."""

    base_shape: tuple[int, int] = (5, 6)
    z_dim: int = 128
    w_dim: int = 128
    c_dim: int = 8
    generator_channels: tuple[int, ...] = (192, 192, 128, 64, 32)
    discriminator_channels: tuple[int, ...] = (128, 128, 64, 32, 16)
    encoder_channels: tuple[int, ...] = (192, 128, 96, 48, 24)
    image_channels: int = 1
    mapping_layers: int = 4

    def generator_arguments(self) -> dict[str, Any]:
        """Arguments of `StyleGAN2`."""
        own = {"z_dim": self.z_dim, "w_dim": self.w_dim, "channels": self.generator_channels}
        return own | self._shared_arguments()

    def discriminator_arguments(self) -> dict[str, Any]:
        """Arguments of `Discriminator`."""
        return {"channels": self.discriminator_channels} | self._shared_arguments()

    def _shared_arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("c_dim", "base_shape", "image_channels", "mapping_layers")}


_FACTS = ("iteration", "images", "probability", "sign", "path_mean", "identity", "record")


@dataclass
class TrainState:
    """Networks, their averages, optimisers, and how far training has come.

    `iteration` counts updates, `images` the training slices shown. `probability` is that of each operation of the
    discriminator's augmentation, `sign` the running mean of sign(D(real)) that drives it, and `path_mean` the running
    mean of the path lengths. `identity` says what the run is of (see `loop.identity`); `record` is for people.
    """

    generator: StyleGAN2
    discriminator: Discriminator
    encoder: Encoder
    average: StyleGAN2
    average_encoder: Encoder
    optimisers: dict[str, torch.optim.Adam]
    iteration: int = 0
    images: int = 0
    probability: float = 0.0
    sign: float = 0.0
    path_mean: float = 0.0
    identity: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(
        cls, architecture: Architecture, *, seed: int, rate: float, device: torch.device | str = "cpu"
    ) -> TrainState:
        """Untrained networks on `device`, drawn from `seed` (the same ones on every device)."""
        torch.manual_seed(seed)
        g, d = StyleGAN2(**architecture.generator_arguments()), Discriminator(**architecture.discriminator_arguments())
        channels = architecture.encoder_channels
        e = Encoder(g.num_ws, g.w_dim, architecture.base_shape, channels, architecture.image_channels)
        modules: list[nn.Module] = [g, d, e]
        for module in modules:
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        adam = {
            name: torch.optim.Adam(module.parameters(), lr=rate, betas=(0.0, 0.99), eps=1e-8)
            for name, module in zip(("generator", "discriminator", "encoder"), modules, strict=True)
        }
        return cls(g, d, e, copy.deepcopy(g).requires_grad_(False), copy.deepcopy(e).requires_grad_(False), adam)

    @property
    def device(self) -> torch.device:
        return self.generator.mapping.w_avg.device

    def _modules(self) -> dict[str, nn.Module]:
        return {name: value for name, value in vars(self).items() if isinstance(value, nn.Module)}

    def save(self, path: Path) -> None:
        """Write the full state; the file at `path` is replaced only by a complete one."""
        state: dict[str, Any] = {name: module.state_dict() for name, module in self._modules().items()}
        state |= {f"adam_{name}": optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        state |= {name: getattr(self, name) for name in _FACTS}
        with overwriting(path) as partial, open(partial, "wb") as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        """Take up the state of `path`, to the last bit.

        Raises PriorError for a file that is damaged or of other networks; nothing here may be used after that.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            for name, module in self._modules().items():
                module.load_state_dict(state[name])
            for name, optimiser in self.optimisers.items():
                optimiser.load_state_dict(state[f"adam_{name}"])
            for name in _FACTS:
                setattr(self, name, state[name])
        except Exception as error:  # a damaged archive fails in as many ways as pickle, zip and torch have
            raise PriorError(
                f"{path}: is no training state of this architecture ({first_line(error)}); remove it or use another "
                "folder"
            ) from error

    def save_snapshot(self, path: Path, *, adversary: bool = True) -> None:
        """The averaged networks and the discriminator in half precision, without the optimisers' moments.

        About a ninth of the full state: small enough to be kept with the code. Training goes on from it, not to the
        last bit but nearly where it was; without the `adversary` it goes on from a new discriminator, which nothing
        has trained yet where reconstruction alone was. The file at `path` is replaced only by a complete one.
        """
        networks: dict[str, nn.Module] = {"generator": self.average, "encoder": self.average_encoder}
        if adversary:
            networks["discriminator"] = self.discriminator
        tensors = {
            f"{name}.{key}": value.half().cpu().contiguous()
            for name, module in networks.items()
            for key, value in module.state_dict().items()
            if not key.endswith("resample_filter")
        }
        facts = {"iteration": self.iteration, "images": self.images, "probability": self.probability}
        with overwriting(path) as partial:
            save_file(tensors, partial, {key: str(value) for key, value in facts.items()})

    def load_snapshot(self, path: Path) -> None:
        """Start from what `save_snapshot` wrote. Raises PriorError for a file that is none, or of other networks."""
        targets: dict[str, list[nn.Module]] = {
            "generator": [self.generator, self.average],
            "discriminator": [self.discriminator],
            "encoder": [self.encoder, self.average_encoder],
        }
        try:
            with safe_open(path, "pt") as file:
                facts = file.metadata()
                tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no mapping)
            for name, modules in targets.items():
                own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
                if name == "discriminator" and not own:
                    continue
                for module in modules:
                    filters = {k: v for k, v in module.state_dict().items() if k.endswith("resample_filter")}
                    module.load_state_dict(filters | own)
            self.iteration, self.images = int(facts["iteration"]), int(facts["images"])
            self.probability = float(facts.get("probability", 0.0))
        except Exception as error:  # as in `load`
            raise PriorError(f"{path}: is no snapshot of this architecture ({first_line(error)}); remove it") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def update_average(average: nn.Module, module: nn.Module, images: int, batch: int, half_life: float) -> None:
    """Exponential moving average of weights; its half-life is at most a twentieth of the images seen so far."""
    beta = 0.5 ** (batch / max(min(half_life, images * 0.05), 1e-8))
    with torch.no_grad():
        for old, new in zip(average.parameters(), module.parameters(), strict=True):
            old.lerp_(new, 1 - beta)
        for old_buffer, buffer in zip(average.buffers(), module.buffers(), strict=True):
            old_buffer.copy_(buffer)


def mean_w(generator: StyleGAN2, ws: Tensor, beta: float = 0.998) -> None:
    """Track the mean of mapped w [N, w_dim] in the mapping's `w_avg`."""
    with torch.no_grad():
        generator.mapping.w_avg.lerp_(ws.mean(0), 1 - beta)
