"""`brgm-med prior` and `brgm-med doctor`: priors and the installation, on standard output."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import warnings
from collections.abc import Iterator, Sequence

from brgm_med._version import __version__
from brgm_med.errors import PriorError
from brgm_med.extras import EXTRAS, missing
from brgm_med.priors import bundle

CORE = ("torch", "monai", "nibabel", "pydicom", "SimpleITK", "lpips", "nipype", "numpy", "scipy", "safetensors")
CPU = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
"""PyTorch's wheels without CUDA; before this package, so that it finds them installed."""


def list_priors(priors: Sequence[str] = (), as_json: bool = False) -> None:
    """One line for each of `priors` (names or folders), or for each shipped one; or a list in JSON. Raises
    PriorError."""
    entries = []
    for prior in priors or bundle.names():
        loaded = bundle.load(prior)
        if loaded.volumetric:
            size = f"{' x '.join(str(n) for n in loaded.grid_shape)} voxels of {loaded.spacing:g} mm"
        else:
            colours = {1: "grey", 3: "RGB"}.get(loaded.image_channels, f"{loaded.image_channels} channels")
            size = f"pictures of {' x '.join(str(n) for n in loaded.image_shape)}, {colours}"
        about = {"version": loaded.metadata["version"], "size": size, "description": loaded.metadata["description"]}
        entries.append({"prior": prior, **about, "sha256": loaded.sha256})
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    for one in entries:
        print(f"{one['prior']}  {one['version']}  {one['size']}  {one['description']}")


def show_prior(prior: str) -> None:
    """A prior's model card. Raises PriorError."""
    card = bundle.find(prior) / "docs" / "README.md"
    try:
        print(card.read_text())
    except (OSError, ValueError) as error:
        raise PriorError(f"{card}: cannot be read; reinstall the prior") from error


def verify_prior(prior: str) -> None:
    """Check the SHA-256 of every file. Raises PriorError."""
    print(": ".join(_verified(prior)))


def _verified(prior: str) -> tuple[str, str]:
    loaded = bundle.load(prior)
    return loaded.name, f"{len(loaded.metadata['sha256'])} files as they should be, sha256 {loaded.sha256}"


def doctor(as_json: bool = False) -> None:
    """Versions, device and weights; for what is missing, how to get it. In lines, or as an object of JSON."""
    facts = {"brgm-med": f"{__version__}, Python {platform.python_version()}, {platform.platform()}"}
    packages, rest = dict(_packages()), dict(_rest())
    if as_json:
        print(json.dumps({**facts, **packages, **rest}, indent=2))
        return
    for name, text in facts.items():
        print(f"{name} {text}")
    for name, text in packages.items():
        print(f"  {name} {text}")
    for name, text in rest.items():
        print(f"{name}: {text}")


def _packages() -> Iterator[tuple[str, str]]:
    for package in CORE:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, f"MISSING: pip install {package}"
    for name, extra in EXTRAS.items():
        absent = missing(name)
        state = f"without {', '.join(absent)}: pip install 'brgm-med[{name}]'" if absent else "complete"
        yield f"[{name}]", f"{state}; for {extra.purpose}"


def _rest() -> Iterator[tuple[str, str]]:
    """Priors, the device, and what computes on it."""
    for name in bundle.names() or [bundle.DEFAULT]:
        try:
            yield _verified(name)
        except PriorError as error:
            yield f"prior {name}", str(error)
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it needs
        yield "torch", f"MISSING or broken ({error}), so nothing can be computed: pip install torch"
        return
    if torch.cuda.is_available():
        yield "device", f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})"
    else:
        cores = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
        yield "device", f"CPU, {cores}; torch sees no CUDA device"
        if size := cuda_packages():
            text = f"take {size / 1e9:.1f} GB here, for nothing; a new environment does without: {CPU}"
            yield "CUDA's packages", text
    yield "operations", _operations()
    from brgm_med.weights import HOW_TO, locate_lpips_features

    for net in ("alex", "vgg"):
        try:
            path = locate_lpips_features(net)  # type: ignore[arg-type]
            yield f"LPIPS {net}", str(path) if path else f"no weights on this machine; {HOW_TO}"
        except PriorError as error:
            yield f"LPIPS {net}", str(error)


def cuda_packages() -> int:
    """Bytes of the installed packages that only PyTorch on CUDA needs, as their own records list them."""
    prefixes = ("nvidia-", "cuda-", "triton")
    packages = [d for d in importlib.metadata.distributions() if d.metadata["Name"].lower().startswith(prefixes)]
    return sum(file.size or 0 for package in packages for file in package.files or ())


def _operations() -> str:
    """A line: whether the networks' operations run as custom CUDA kernels, and if not, why."""
    import torch

    from brgm_med.ops import bias_act, nvrtc

    try:
        compiler = f"NVRTC {nvrtc.version()} is installed"
    except nvrtc.Refused as missing:
        compiler = str(missing)
    if not torch.cuda.is_available():
        return f"torch's own; there is no CUDA device for custom kernels ({compiler})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reason is printed below
        bias_act(torch.ones(1, 1, device="cuda"), act="lrelu")
    reason = nvrtc.refusal()
    return f"custom CUDA kernels ({compiler})" if reason is None else f"torch's own, without custom kernels: {reason}"
