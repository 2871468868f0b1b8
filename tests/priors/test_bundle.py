"""A prior's folder: what is exported is what is loaded, and what is damaged is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from brgm_med.errors import PriorError
from brgm_med.files import digest
from brgm_med.networks.condition import position_code
from brgm_med.pipelines.cli import main
from brgm_med.priors import bundle
from brgm_med.training.export import encode, inference_config, neighbours, wplus_statistics
from brgm_med.training.loop import train_iteration
from brgm_med.training.state import Architecture, TrainState
from brgm_med.transforms.slices import coronal_stack
from tests import tiny
from tests.bundles import MANDATORY, check_data_format, export

FILES = {
    "LICENSE",
    "configs/inference.json",
    "docs/README.md",
    "mask.nii.gz",
    "models/discriminator.safetensors",
    "models/linear.safetensors",
    "models/model.safetensors",
    "models/w_statistics.safetensors",
    "template.nii.gz",
}


@pytest.fixture(scope="module")
def trained() -> TrainState:
    torch.manual_seed(0)
    state = tiny.state()
    for _ in range(6):
        train_iteration(state, tiny.RECIPE, tiny.stacks(), None)
    state.record = {"threads": 1}
    return state


@pytest.fixture(scope="module")
def exported(trained: TrainState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(trained, tmp_path_factory.mktemp("priors") / "tiny")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "tiny"))


def test_what_is_loaded_is_what_was_trained(trained: TrainState, exported: Path) -> None:
    prior = bundle.load(str(exported))
    assert prior.name == "tiny"
    assert prior.grid_shape == (12, 5, 12)
    assert prior.spacing == 2.0
    assert prior.positions().tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert prior.metadata["training"] == {"images": 24, "threads": 1}
    g = prior.generator
    assert not g.training
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in g.parameters())
    z, c = torch.randn(3, 6), position_code(prior.positions()[:3], 4)
    expected, found = trained.average(z, c), g(z, c)
    assert found.shape == (3, 1, 12, 12)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3 * float(expected.abs().max()))
    logits = prior.discriminator(found, c)
    torch.testing.assert_close(logits, trained.discriminator(found, c).detach(), rtol=5e-3, atol=5e-3)
    assert prior.generator is g  # read once


def test_metadata_holds_the_hash_of_every_other_file(exported: Path) -> None:
    metadata = json.loads((exported / "configs" / "metadata.json").read_text())
    assert set(metadata["sha256"]) == FILES
    there = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert there == FILES | {"configs/metadata.json"}
    for name, known in metadata["sha256"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == known
    content = (exported / "configs" / "metadata.json").read_bytes()
    assert bundle.load(str(exported)).sha256 == hashlib.sha256(content).hexdigest()
    assert (exported / "template.nii.gz").read_bytes() == b"template"
    assert (exported / "docs" / "README.md").read_text() == "# Tiny\n"


def test_the_same_state_is_the_same_prior_and_another_is_another(
    trained: TrainState, exported: Path, tmp_path: Path
) -> None:
    first = bundle.load(str(exported)).sha256
    out = export(trained, tmp_path / "a" / "tiny")
    assert bundle.load(str(out)).sha256 == first
    (out / "stray").write_text("x")
    export(tiny.state(), out)  # replaces what stood there
    assert not (out / "stray").exists()
    assert bundle.load(str(out)).sha256 != first
    assert [p.name for p in out.parent.iterdir() if p.is_dir()] == ["tiny"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_damaged_or_missing_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PriorError, match=f"{name}: damaged"):
        bundle.load(str(folder))
    path.write_bytes(content[:-1])
    with pytest.raises(PriorError, match=f"{name}: damaged"):
        bundle.load(str(folder))
    path.unlink()
    with pytest.raises(PriorError, match=f"{name}: missing"):
        bundle.load(str(folder))
    path.write_bytes(content)
    assert bundle.load(str(folder)).name == "tiny"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"sha256": 3}', b"3"])
def test_damaged_metadata_is_named(folder: Path, content: bytes) -> None:
    (folder / "configs" / "metadata.json").write_bytes(content)
    with pytest.raises(PriorError, match=r"metadata\.json"):
        bundle.load(str(folder))


ODD: dict[str, tuple[tuple[str, ...], object]] = {
    "a name that is a number": (("name",), 3),
    "no version": (("version",), None),
    "a grid of nothing": (("grid",), []),
    "a grid of two sides": (("grid", "shape"), [12, 5]),
    "a grid of text": (("grid", "shape"), ["a", "b", "c"]),
    "a grid of exabytes": (("grid", "shape"), [1 << 60, 1, 1]),
    "an affine of text": (("grid", "affine"), "eye"),
    "an affine of NaN": (("grid", "affine"), [[float("nan")] * 4] * 4),
    "an affine of three rows": (("grid", "affine"), [[1, 0, 0, 0]] * 3),
    "no format": (("network_data_format",), []),
    "no picture": (("network_data_format", "outputs"), {"pred": 3}),
    "sides of text": (("network_data_format", "outputs", "pred", "spatial_shape"), ["12", "12"]),
    "no channels": (("network_data_format", "outputs", "pred", "num_channels"), None),
    "a file elsewhere": (("sha256", "../../secret"), "0" * 64),
    "a file at the root": (("sha256", "/etc/hostname"), "0" * 64),
    "a hash that is a list": (("sha256", "mask.nii.gz"), []),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_metadata_is_named(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys, value = ODD[name]
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    at = metadata
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(PriorError, match=r"metadata\.json cannot be read"):
        bundle.load(str(folder))
    assert main(["prior", "list", str(folder)]) == 5
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_metadata_nested_ten_thousand_deep_are_named(folder: Path) -> None:
    (folder / "configs" / "metadata.json").write_text('{"a":' + "[" * 10_000 + "]" * 10_000 + "}")
    with pytest.raises(PriorError, match=r"metadata\.json cannot be read"):
        bundle.load(str(folder))


@pytest.mark.parametrize(
    "config",
    [{}, [], {"network_def": 3}, {"network_def": {"w_dim": "a"}}, {"network_def": {"channels": [1 << 30] * 9}}],
)
def test_odd_networks_are_named(folder: Path, config: object) -> None:
    """Their hash is right; the last would take terabytes."""
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps(config))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["sha256"]["configs/inference.json"] = digest(path)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(PriorError, match=r"model\.safetensors: is not what this version"):
        _ = bundle.load(str(folder)).generator


@pytest.mark.parametrize("file", ["w_statistics", "linear"])
def test_statistics_of_other_shapes_are_named(folder: Path, file: str) -> None:
    path = folder / "models" / f"{file}.safetensors"
    tensors = {name: tensor.flatten()[:2].clone() for name, tensor in load_file(path).items()}
    save_file(tensors, path)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["sha256"][f"models/{file}.safetensors"] = digest(path)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    prior = bundle.load(str(folder))
    with pytest.raises(PriorError, match=rf"{file}\.safetensors: is not what this version"):
        _ = prior.statistics, prior.linear


def test_a_prior_without_its_card_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "docs" / "README.md").unlink()
    assert main(["prior", "show", str(folder)]) == 5
    assert "README.md: cannot be read" in capsys.readouterr().err


def test_what_has_no_hash_is_not_read(folder: Path) -> None:
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    del metadata["sha256"]["models/model.safetensors"]
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(PriorError, match=r"metadata\.json.*models/model\.safetensors"):
        bundle.load(str(folder))


def test_weights_that_are_no_safetensors_are_named(folder: Path) -> None:
    path = folder / "models" / "model.safetensors"
    path.write_bytes(b"not weights, but with the right hash")
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["sha256"]["models/model.safetensors"] = digest(path)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    prior = bundle.load(str(folder))
    with pytest.raises(PriorError, match=r"model\.safetensors: cannot be read"):
        _ = prior.generator


@pytest.mark.parametrize("name", ["model", "discriminator", "w_statistics"])
def test_weights_of_another_version_are_named(folder: Path, name: str) -> None:
    path = folder / "models" / f"{name}.safetensors"
    save_file({"other": torch.zeros(3)}, path)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["sha256"][f"models/{name}.safetensors"] = digest(path)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    prior = bundle.load(str(folder))
    with pytest.raises(PriorError, match=rf"{name}\.safetensors: is not what this version"):
        _ = prior.generator, prior.discriminator, prior.statistics


def test_an_unknown_prior_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    known = ", ".join(bundle.names()) or "none"
    for name in ("no-such-prior", str(tmp_path)):
        with pytest.raises(PriorError, match="no such prior") as caught:
            bundle.load(name)
        assert name in str(caught.value)
        assert known in str(caught.value)
        assert caught.value.exit_code == 5
        assert "\n" not in str(caught.value)


def test_shipped_priors_are_whole() -> None:
    for name in bundle.names():
        prior = bundle.load(name)
        assert prior.name == name
        assert sum(p.stat().st_size for p in prior.folder.rglob("*") if p.is_file()) <= 12e6
        x, _, z = prior.grid_shape
        assert prior.generator.image_shape == prior.discriminator.image_shape == (z, x)


@pytest.mark.parametrize("ending", bundle.UNFINISHED)
def test_what_a_killed_export_leaves_is_no_prior_and_goes_with_the_next(
    trained: TrainState, folder: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    left = Path(shutil.copytree(folder, folder.with_name(folder.name + ending)))
    monkeypatch.setattr(bundle, "SHIPPED", folder.parent)
    assert bundle.names() == ["tiny"]
    before = bundle.load("tiny").sha256
    (left / "stray").write_text("x")
    export(trained, folder)
    assert not left.exists()
    assert bundle.names() == ["tiny"]
    assert bundle.load("tiny").sha256 == before


# As MONAI sees it.


def test_metadata_are_as_the_specification_says(exported: Path) -> None:
    prior = bundle.load(str(exported))
    check_data_format(prior.metadata, prior)
    for name in bundle.names():
        shipped = bundle.load(name)
        assert set(shipped.metadata) >= MANDATORY
        assert shipped.metadata["version"] in shipped.metadata["changelog"]
        assert set(shipped.metadata["required_packages_version"]) >= {"brgm-med", "safetensors"}
        check_data_format(shipped.metadata, shipped)
        held = json.loads((shipped.folder / "configs" / "inference.json").read_text())
        made = inference_config(Architecture())
        assert all(held[key] == value for key, value in made.items() if not key.endswith("_def"))


def test_monai_makes_the_networks_of_the_bundle(exported: Path) -> None:
    from monai.bundle import ConfigParser

    for path in (exported, bundle.find(bundle.DEFAULT)):
        parser = ConfigParser()
        parser.read_config(path / "configs" / "inference.json")
        parser.read_meta(path / "configs" / "metadata.json")
        parser["bundle_root"] = str(path)
        prior = bundle.load(str(path))
        for key, network in (("network_def", prior.generator), ("discriminator_def", prior.discriminator)):
            made = parser.get_parsed_content(key)
            assert type(made) is type(network)
            made.load_state_dict(network.state_dict())
            assert made.image_shape == network.image_shape
        loaded = parser.get_parsed_content("network").state_dict()
        assert all(torch.equal(value, loaded[key]) for key, value in prior.generator.state_dict().items())


def monai_bundle(folder: Path, program: str, *args: str) -> subprocess.CompletedProcess[str]:
    """`python -m monai.bundle PROGRAM` on the bundle `folder`, from a folder beside it."""
    configs = folder / "configs"
    files = ["--config_file", str(configs / "inference.json"), "--meta_file", str(configs / "metadata.json")]
    command = [sys.executable, "-m", "monai.bundle", program, *args, *files, "--bundle_root", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def check_sample(folder: Path, path: Path) -> None:
    prior = bundle.load(str(folder))
    image = nib.load(path)
    assert isinstance(image, nib.nifti1.Nifti1Image)
    np.testing.assert_allclose(image.affine, prior.metadata["grid"]["affine"])
    assert image.shape == prior.grid_shape
    expected = prior.sample(7)
    torch.testing.assert_close(coronal_stack(torch.from_numpy(image.get_fdata())[None]).float(), expected)
    assert not torch.allclose(prior.sample(8), expected)


def test_monai_draws_a_head_from_a_bundle(exported: Path, tmp_path: Path) -> None:
    done = monai_bundle(exported, "run", "--seed", "7", "--output", str(tmp_path / "head.nii.gz"))
    assert done.returncode == 0, done.stderr
    check_sample(exported, tmp_path / "head.nii.gz")


@pytest.mark.slow
def test_monai_runs_the_shipped_bundle_and_refuses_a_damaged_one(folder: Path, tmp_path: Path) -> None:
    shipped = bundle.find(bundle.DEFAULT)
    done = monai_bundle(shipped, "run", "--seed", "7", "--output", str(tmp_path / "head.nii.gz"))
    assert done.returncode == 0, done.stderr
    check_sample(shipped, tmp_path / "head.nii.gz")
    for path in (folder, shipped):
        done = monai_bundle(path, "verify_net_in_out", "--net_id", "synthesis")
        assert done.returncode == 0, done.stderr
        assert "verified with no error" in done.stdout + done.stderr
    weights = folder / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    done = monai_bundle(folder, "run", "--output", str(tmp_path / "damaged.nii.gz"))
    assert done.returncode != 0
    assert "model.safetensors: damaged" in done.stderr
    assert not (tmp_path / "damaged.nii.gz").exists()


# The statistics of encoded slices.


def latents(heads: int = 40, positions: int = 10, k: int = 7) -> torch.Tensor:
    """A mean that moves along the head, and correlated deviations from it."""
    place = torch.linspace(-1, 1, positions)[None, :, None]
    mixing = torch.randn(k, k) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1, 0.1, 0.1])
    mean = torch.randn(k) + place * torch.randn(k) + place**2 * torch.randn(k)
    return mean + torch.randn(heads, positions, k) @ mixing.T


def test_statistics_are_least_squares_and_principal_components() -> None:
    values = latents()
    heads, positions, k = values.shape
    place = torch.linspace(-1, 1, positions)
    found = wplus_statistics(values, {}, place, c_dim=4, rank=3)

    code = position_code(place, 4).double().numpy()
    design = np.concatenate([np.ones((positions, 1)), code], 1)
    x = values.double().numpy()
    coefficients, *_ = np.linalg.lstsq(design, x.mean(0), rcond=None)
    fitted = design @ coefficients
    np.testing.assert_allclose(found.mean(torch.from_numpy(code).float()).numpy(), fitted, atol=1e-3)
    rest = (x - fitted).reshape(-1, k)
    variances, vectors = np.linalg.eigh(rest.T @ rest / (heads * positions - 1))
    order = np.argsort(variances)[::-1]
    np.testing.assert_allclose(found.deviation.numpy(), np.sqrt(variances[order[:3]]), rtol=1e-3)
    basis = found.basis.numpy()
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(basis * vectors[:, order[:3]], 0)), 1, atol=1e-3)


def test_statistics_of_full_rank_whiten_their_latents() -> None:
    values = latents()
    found = wplus_statistics(values, {}, torch.linspace(-1, 1, 10), c_dim=4, rank=100)
    assert found.basis.shape == (7, 7)
    mean = found.mean(position_code(torch.linspace(-1, 1, 10), 4))
    white = ((values - mean) @ found.basis / found.deviation).flatten(0, 1)
    torch.testing.assert_close(white.T @ white / (len(white) - 1), torch.eye(7), rtol=0, atol=1e-2)


def test_directions_that_never_vary_keep_a_floor() -> None:
    values = latents()
    values[..., 6] = 1.0
    found = wplus_statistics(values, {}, torch.linspace(-1, 1, 10), c_dim=4, rank=100)
    assert float(found.deviation.min()) >= 0.99e-3 * float(found.deviation.max())


def test_encoded_slices_and_exported_statistics(trained: TrainState, exported: Path) -> None:
    stacks = tiny.stacks()
    latents, maps = encode(trained.average_encoder, stacks)
    assert latents.shape == (3, 5, 6 * 5)
    assert maps["b6"].shape == (3, 5, 6, 6)
    one = torch.as_tensor(stacks[2][3])[None].float()
    ws, found = trained.average_encoder(one)
    torch.testing.assert_close(latents[2, 3], ws.flatten())
    torch.testing.assert_close(maps["b6"][2, 3], found["b6"][0, 0])
    kept = neighbours(5)
    assert kept.tolist() == [0, 1, 1, 2, 2, 3, 3, 4]
    some, some_maps = encode(trained.average_encoder, stacks, kept.tolist())
    torch.testing.assert_close(some, latents[:, torch.from_numpy(kept)])
    expected = wplus_statistics(some, some_maps, torch.linspace(-1, 1, 5)[kept], 4, 6)
    held = bundle.load(str(exported)).statistics
    assert held.basis.shape == (30, 6)
    torch.testing.assert_close(held.coefficients, expected.coefficients, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(held.deviation, expected.deviation, rtol=1e-2, atol=0)
    torch.testing.assert_close(held.correlation, expected.correlation, rtol=0, atol=1e-2)
    torch.testing.assert_close(
        (held.basis * held.deviation) @ held.basis.T,
        (expected.basis * expected.deviation) @ expected.basis.T,
        rtol=0,
        atol=0.01 * float(expected.deviation.max()),
    )


def test_map_correlation_is_that_of_neighbours_pixels() -> None:
    first = torch.randn(200, 5, 4, 4)
    second = 0.6 * first + 0.8 * torch.randn(200, 5, 4, 4)
    maps = {"b6": torch.stack([first, second], 2).flatten(1, 2), "b12": torch.randn(200, 10, 4, 4)}
    found = wplus_statistics(torch.randn(200, 10, 3), maps, torch.linspace(-1, 1, 10), c_dim=3, rank=3)
    torch.testing.assert_close(found.map_correlation, torch.tensor([0.6, 0.0]), rtol=0, atol=0.03)


def test_coordinates_of_a_prior_are_its_w_and_its_maps(exported: Path) -> None:
    prior = bundle.load(str(exported))
    whitened = prior.whitened()
    rank, pixels = len(prior.statistics.deviation), 6 * 6
    assert whitened.w_dim == rank + pixels
    torch.testing.assert_close(whitened.correlation[rank:], prior.statistics.map_correlation.expand(pixels))
    coordinates = torch.randn(5, 1, rank + pixels)
    maps = {"b6": coordinates[:, 0, rank:].reshape(5, 1, 6, 6)}
    expected = prior.generator.synthesis(whitened.ws(coordinates), maps)
    torch.testing.assert_close(whitened.synthesis(coordinates), expected)


def test_correlation_is_that_of_the_two_of_a_pair() -> None:
    rho = torch.tensor([0.9, 0.5, 0.0])
    first, second = torch.randn(2, 400, 5, 3)
    second = rho * first + (1 - rho.square()).sqrt() * second
    pairs = torch.stack([first, second], 2).flatten(1, 2) * torch.tensor([9.0, 3.0, 1.0])
    found = wplus_statistics(pairs, {}, torch.linspace(-1, 1, 10), c_dim=3, rank=3)
    torch.testing.assert_close(found.correlation, rho, rtol=0, atol=0.05)
    torch.testing.assert_close(found.deviation, torch.tensor([9.0, 3.0, 1.0]), rtol=0.05, atol=0)
    opposed = torch.stack([first, -first], 2).flatten(1, 2)
    found = wplus_statistics(opposed, {}, torch.linspace(-1, 1, 10), c_dim=3, rank=3)
    assert torch.equal(found.correlation, torch.zeros(3))  # never negative: neighbours are alike or unrelated
    same = torch.stack([first, first], 2).flatten(1, 2)
    found = wplus_statistics(same, {}, torch.linspace(-1, 1, 10), c_dim=3, rank=3)
    assert bool(((found.correlation > 0.95) & (found.correlation < 1)).all())


def test_neighbours_are_drawn_with_unit_variance_and_their_correlation() -> None:
    correlation, generator = torch.tensor([0.9, 0.3, 0.0]), torch.Generator().manual_seed(0)
    a = torch.stack([bundle.gauss_markov(correlation, 6, generator) for _ in range(4000)])
    assert a.shape == (4000, 6, 3)
    assert float(a.mean(0).abs().max()) < 0.06
    torch.testing.assert_close(a.std(0), torch.ones(6, 3), rtol=0, atol=0.05)
    for step in (1, 2, 5):
        found = (a[:, :-step] * a[:, step:]).mean((0, 1))
        torch.testing.assert_close(found, correlation**step, rtol=0, atol=0.05)
    assert float((a[..., 0] * a[..., 1]).mean(0).abs().max()) < 0.06


def test_half_precision_keeps_the_mean_of_a_whole_head() -> None:
    """61 positions and a code of 8, as shipped: the nearly collinear code must not make huge coefficients."""
    positions, c_dim = 61, 8
    place = torch.linspace(-1, 1, positions)[:, None]
    moving = torch.sin(3 * place + torch.arange(20.0)) + 0.3 * torch.cos(9 * place * torch.arange(20.0) / 20)
    found = wplus_statistics((moving + 0.5 * torch.randn(30, positions, 20))[:, :-1], {}, place[:-1, 0], c_dim, 10)
    code = position_code(place[:, 0], c_dim)
    half = dataclasses.replace(found, coefficients=found.coefficients.half().float())
    assert float((half.mean(code) - found.mean(code)).abs().max()) < 0.02
