"""Priors on disk: a MONAI bundle folder, its verification and its loading.

configs/metadata.json   what MONAI asks for, grid, training record, and the SHA-256 of every other file
configs/inference.json  `network_def`, `discriminator_def` as MONAI instantiates them; a workflow that draws a head
models/*.safetensors    weights, half precision
template.nii.gz  mask.nii.gz  docs/README.md  LICENSE

That is a prior of a volume. A prior of pictures has no grid, and so no template and no linear prior; an imported one
has no statistics of encoded pictures, and perhaps no discriminator, either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from brgm_med.errors import PriorError
from brgm_med.files import digest
from brgm_med.priors import DEFAULT
from brgm_med.priors.metadata import check

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from brgm_med.gaussian import LinearGaussian
    from brgm_med.networks.discriminator import Discriminator
    from brgm_med.networks.stylegan2 import StyleGAN2
    from brgm_med.posterior import Whitened, WStatistics

T = TypeVar("T")
SHIPPED = Path(__file__).parent
REQUIRED = ("configs/inference.json", "models/model.safetensors")
"""What every prior has. The metadata must name the SHA-256 of all that is read."""
VOLUMETRIC = (
    *("models/discriminator.safetensors", "models/w_statistics.safetensors", "models/linear.safetensors"),
    *("template.nii.gz", "mask.nii.gz"),
)
"""What a prior of a volume, whose metadata have a grid, must have besides."""
AXES = {"coefficients": 2, "basis": 2, "deviation": 1, "correlation": 1, "map_correlation": 1}
"""Numbers of axes of the statistics of W+."""
UNFINISHED = (".partial", ".replaced")
"""How the names of folders end that an export which was killed may leave behind."""


def names() -> list[str]:
    """The names of the shipped priors."""
    folders = (p.parent.parent.name for p in SHIPPED.glob("*/configs/metadata.json"))
    return sorted(name for name in folders if not name.endswith(UNFINISHED))


def find(prior: str) -> Path:
    """The folder of a shipped prior's name, or of a path to a bundle. Raises PriorError when there is none."""
    for folder in (SHIPPED / prior, Path(prior)):
        if os.path.isfile(folder / "configs" / "metadata.json"):  # False too for a name that no file can have
            return folder
    known = ", ".join(names()) or "none"
    raise PriorError(f"{prior}: no such prior; give the folder of one, or a shipped name ({known})")


@dataclass(frozen=True)
class WPlusStatistics:
    """The distribution of the W+ of encoded training slices, flattened to K = num_ws * w_dim numbers.

    The mean at a position is `[1, code(position)] @ coefficients`, `coefficients` [1 + c_dim, K]; `basis` [K, R] holds
    orthonormal principal directions around it, `deviation` [R] the standard deviations along them, `correlation` [R]
    that between neighbouring slices. `map_correlation` [L] is that of each noise map's pixels, which are N(0, 1).
    """

    coefficients: Tensor
    basis: Tensor
    deviation: Tensor
    correlation: Tensor
    map_correlation: Tensor

    def mean(self, code: Tensor) -> Tensor:
        """Means [N, K] at position codes [N, c_dim]."""
        return self.coefficients[0] + code @ self.coefficients[1:]

    def to(self, device: torch.device) -> WPlusStatistics:
        """The same on `device`."""
        return WPlusStatistics(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class PriorBundle:
    """A prior's folder, verified. Networks are loaded when first asked for, in float32 evaluation mode."""

    folder: Path
    metadata: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The prior's identity: the hash of its metadata, which holds the hash of everything else."""
        return digest(self.folder / "configs" / "metadata.json")

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def volumetric(self) -> bool:
        """True for a prior of a volume, with a grid and a template, and not one of pictures."""
        return "grid" in self.metadata

    @property
    def encoded(self) -> bool:
        """True where the prior has statistics of encoded training images, see `whitened`."""
        return "models/w_statistics.safetensors" in self.metadata["sha256"]

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of a picture, or of a slice."""
        rows, columns = self._image["spatial_shape"]
        return int(rows), int(columns)

    @property
    def image_channels(self) -> int:
        """1: grey, 3: RGB."""
        return int(self._image["num_channels"])

    @property
    def _image(self) -> dict[str, Any]:
        return dict(self.metadata["network_data_format"]["outputs"]["pred"])

    @property
    def _grid(self) -> dict[str, Any]:
        if not self.volumetric:
            raise PriorError(f"{self.folder}: is a prior of pictures, without a grid; this needs a prior of a volume")
        return dict(self.metadata["grid"])

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Voxels of the box that the prior covers: along R, A (the slices) and S."""
        x, y, z = self._grid["shape"]
        return int(x), int(y), int(z)

    @property
    def spacing(self) -> float:
        """The prior's own voxel size, mm: the finest detail that it can infer."""
        return float(self._grid["affine"][0][0])

    def positions(self) -> Tensor:
        """Positions of the box's slices, [Y], -1 (posterior) to 1 (anterior)."""
        import torch

        return torch.linspace(-1, 1, self.grid_shape[1])

    def _weights(self, file: str) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        if f"models/{file}" not in self.metadata["sha256"]:
            raise PriorError(f"{self.folder}: this prior has no {file}, which this needs; take another prior")
        try:
            return {k: v.float() for k, v in load_file(self.folder / "models" / file).items()}
        except Exception as error:  # a damaged file fails in as many ways as safetensors and torch have
            raise PriorError(
                f"{self.folder / 'models' / file}: cannot be read ({error}); reinstall the prior"
            ) from error

    def _other(self, file: str) -> PriorError:
        return PriorError(
            f"{self.folder / 'models' / file}: is not what this version expects; take a prior of this version"
        )

    def _expected(self, file: str, make: Callable[[], T]) -> T:
        """What `make` makes of a file's content. Errors become PriorError: the file is not damaged, as its hash is
        right, but of another version or somebody else's."""
        try:
            return make()
        except PriorError:
            raise
        except Exception as error:
            raise self._other(file) from error

    def _network(self, key: str, kind: type, file: str) -> Any:
        import torch

        weights = self._weights(file)

        def network() -> Any:
            config = json.loads((self.folder / "configs" / "inference.json").read_text())[key]
            arguments = {k: v for k, v in config.items() if k != "_target_"}
            with torch.device("meta"):  # no memory is taken before all shapes fit
                shapes = {name: tensor.shape for name, tensor in kind(**arguments).state_dict().items()}
            if any(weights[name].shape != shape for name, shape in shapes.items() if name in weights):
                raise ValueError("weights of other shapes")
            network = kind(**arguments)
            network.load_state_dict(weights)
            return network

        loaded = self._expected(file, network)
        return loaded.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @cached_property
    def generator(self) -> StyleGAN2:
        from brgm_med.networks.stylegan2 import StyleGAN2

        return self._network("network_def", StyleGAN2, "model.safetensors")

    @cached_property
    def discriminator(self) -> Discriminator:
        from brgm_med.networks.discriminator import Discriminator

        return self._network("discriminator_def", Discriminator, "discriminator.safetensors")

    def w_statistics(self, c: Tensor | None = None) -> WStatistics:
        """Mean and deviation of W from 10,000 mapped z, always the same ones (the paper's prior of w, section 2.5).

        A conditional generator needs the condition `c` [1, c_dim]. Raises ValueError without it.
        """
        from brgm_med.posterior import w_statistics

        return w_statistics(self.generator, c=c)

    @cached_property
    def statistics(self) -> WPlusStatistics:
        file = "w_statistics.safetensors"
        stored = self._weights(file)

        def statistics() -> WPlusStatistics:
            if {name: value.ndim for name, value in stored.items()} != AXES:
                raise ValueError("statistics of other shapes")
            return WPlusStatistics(**stored)

        return self._expected(file, statistics)

    @cached_property
    def linear(self) -> LinearGaussian:
        """The linear-Gaussian prior of the same training slices, as it was stored (components in 8 bits)."""
        from brgm_med.gaussian import LinearGaussian, unfolded

        file = "linear.safetensors"
        stored = self._weights(file)

        def linear() -> LinearGaussian:
            half = stored["half"] * stored["scale"][:, None, None]
            mean = unfolded(stored["mean"], stored["parity"].new_ones(len(stored["mean"]))).T
            basis = unfolded(half, stored["parity"])
            images = mean.reshape(len(mean), 1, half.shape[1], -1)
            return LinearGaussian(images, basis, stored["deviation"], float(stored["nugget"]))

        return self._expected(file, linear)

    def whitened(self, device: torch.device | str = "cpu") -> Whitened:
        """The prior over all latent inputs of its box's slices, or of a picture: W+ and, where learned, noise maps."""
        import torch

        statistics, generator = self.statistics.to(torch.device(device)), self.generator.to(device)
        positions = self.positions() if self.volumetric else torch.zeros(1)
        return whiten(generator, statistics, positions.to(device))

    def sample(self, seed: int = 0) -> Tensor:
        """A head drawn from the prior over all latent inputs: normalised slices [Y, C, H, W], air -1, from the back."""
        import torch

        whitened = self.whitened()
        coordinates = gauss_markov(whitened.correlation, self.grid_shape[1], torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return whitened.synthesis(coordinates[:, None])


def whiten(generator: StyleGAN2, statistics: WPlusStatistics, positions: Tensor) -> Whitened:
    """A generator in coordinates that are N(0, 1) by `statistics` of its latent inputs, at `positions` [N]."""
    import torch

    from brgm_med.networks.condition import position_code
    from brgm_med.posterior import Whitened

    mean = statistics.mean(position_code(positions, generator.c_dim))
    shapes = generator.noise_shapes if len(statistics.map_correlation) else {}
    pairs = zip(statistics.map_correlation, shapes.values(), strict=True)
    correlation = [statistics.correlation, *(c.expand(h * w) for c, (h, w) in pairs)]
    return Whitened(generator, mean, statistics.basis, statistics.deviation, torch.cat(correlation), shapes)


def gauss_markov(correlation: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Coordinates [count, R] of neighbouring slices, each N(0, 1), with `correlation` r [R] from one to the next:
    a_0 = e_0, a_i = r a_(i-1) + sqrt(1 - r^2) e_i, with unit normal e."""
    import torch

    steps = torch.randn(count, len(correlation), generator=generator)
    chain = [steps[0]]
    for step in steps[1:]:
        chain.append(correlation * chain[-1] + (1 - correlation.square()).sqrt() * step)
    return torch.stack(chain)


def load(prior: str = DEFAULT) -> PriorBundle:
    """Find a prior and verify the SHA-256 of every file that its metadata names.

    A process reads a prior once: for as long as its files stay as they are, the same object is given again. Raises
    PriorError: no such prior, or a file that is missing, damaged or not readable.
    """
    folder = find(prior).resolve()
    try:
        text = (folder / "configs" / "metadata.json").read_text()
        metadata = json.loads(text)
        check(metadata)
        needed = (*REQUIRED, *VOLUMETRIC) if "grid" in metadata else REQUIRED
        present = [file for file in VOLUMETRIC if (folder / file).exists()]
        expected: dict[str, str] = {file: metadata["sha256"][file] for file in (*needed, *present)} | metadata["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PriorError(
            f"{folder}: its configs/metadata.json cannot be read ({error}); reinstall the prior"
        ) from error
    files = []
    for relative, known in expected.items():
        path = folder / relative
        if not path.is_file():
            raise PriorError(f"{path}: missing from the prior; reinstall it")
        now = path.stat()
        files.append((relative, known, now.st_size, now.st_mtime_ns, now.st_ino))
    return _verified(folder, text, tuple(files))


@lru_cache(maxsize=1)
def _verified(folder: Path, metadata: str, files: tuple[tuple[str, str, int, int, int], ...]) -> PriorBundle:
    """The prior at `folder`, after a look at every one of `files`: name, SHA-256, and what tells a change of it."""
    for relative, known, *_ in files:
        if digest(folder / relative) != known:
            path = folder / relative
            raise PriorError(f"{path}: damaged (its SHA-256 is not the one in the metadata); reinstall the prior")
    return PriorBundle(folder, json.loads(metadata))


load_prior = load
"""The name of `load` in the package's facade."""
