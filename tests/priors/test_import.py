"""Somebody else's generator becomes a prior that draws the same pictures."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from brgm_med.corruptions import Downsample
from brgm_med.errors import CannotWriteError, InputRefusedError, PriorError
from brgm_med.files import digest
from brgm_med.networks.discriminator import Discriminator, DiscriminatorFeatures
from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.pipelines import cli
from brgm_med.pipelines.steps.import_prior import import_prior
from brgm_med.posterior import brgm_posterior, w_statistics
from brgm_med.priors import bundle, foreign
from brgm_med.solvers import fit_map
from tests.bad_scans import nifti, voxels
from tests.commands import refused, run
from tests.foreign_files import Easy, Kept, published_modules, snapshot, tiny, tiny_critic, write

KINDS: dict[str, dict[str, Any]] = {
    "grey": {},
    "rgb": {"image_channels": 3},
    "conditional": {"c_dim": 3},
    "residual": {"architecture": "residual"},
    "residual-rgb-conditional": {"architecture": "residual", "c_dim": 2, "image_channels": 3},
    "another-width": {"channels": (4, 9, 5, 3), "z_dim": 4, "mapping_layers": 3},
    "wide": {"base_shape": (4, 6)},
}


def relative(found: Tensor, expected: Tensor | np.ndarray) -> float:
    known = torch.as_tensor(expected)
    return float((found - known).abs().max() / known.abs().max())


@pytest.mark.parametrize("name", ["generator_64_rgb", "generator_32_gray", "generator_32_cond"])
def test_published_weights_draw_the_published_pictures(parity_dir: Path, tmp_path: Path, name: str) -> None:
    numbers = dict(np.load(parity_dir / f"{name}.npz"))
    config = ast.literal_eval(str(numbers["config"]))
    of = {p: {k[2:]: torch.from_numpy(v) for k, v in numbers.items() if k.startswith(p)} for p in ("G.", "D.")}
    prior = bundle.load(str(import_prior(write(tmp_path / "n.pkl", snapshot(of["G."], of["D."])), tmp_path / "out")))
    assert prior.image_shape == (config["img_resolution"], config["img_resolution"])
    assert prior.image_channels == config["img_channels"]
    g, z = prior.generator, torch.from_numpy(numbers["z"])
    c = torch.from_numpy(numbers["c"]) if "c" in numbers else None
    ws = g.broadcast(g.mapping(z, c))
    assert relative(ws, numbers["ws"]) < 1e-4
    assert relative(g.broadcast(g.mapping(z, c, truncation=0.7)), numbers["ws_psi07"]) < 1e-4
    assert relative(g.synthesis(ws), numbers["image_const"]) < 1e-4
    assert relative(g.synthesis(ws, noise="none"), numbers["image_none"]) < 1e-4
    # The vectors were made with groups of three, which the pickle states.
    assert relative(prior.discriminator(torch.from_numpy(numbers["image_const"]), c), numbers["d_logits"]) < 1e-4


def check(prior: bundle.PriorBundle, g: StyleGAN2, d: Discriminator | None) -> None:
    """The prior's networks answer as `g` and `d` do."""
    z, c = torch.randn(3, g.z_dim), torch.randn(3, g.c_dim) if g.c_dim else None
    picture = g(z, c, truncation=0.8)
    assert not prior.volumetric
    assert (prior.image_shape, prior.image_channels) == (picture.shape[2:], picture.shape[1])
    assert relative(prior.generator(z, c, truncation=0.8), picture) < 1e-4
    assert prior.generator.mapping.w_avg.abs().max() > 0
    if d is not None:
        assert relative(prior.discriminator(picture, c), d(picture, c)) < 1e-4


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_pickle_becomes_the_same_networks(tmp_path: Path, kind: str, protocol: int) -> None:
    g = tiny(**KINDS[kind])
    like = {key: value for key, value in KINDS[kind].items() if key in ("image_channels", "c_dim", "base_shape")}
    d = tiny_critic(group=3, channels=(8, 6, 5, 4)[: len(g.synthesis.names)], **like)
    path = write(tmp_path / "net.pkl", snapshot(g.state_dict(), d.state_dict()), protocol)
    check(bundle.load(str(import_prior(path, tmp_path / "out"))), g, d)


def test_a_pickle_inside_a_torch_file(tmp_path: Path) -> None:
    g = tiny()
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        with published_modules():
            torch.save(snapshot(g.state_dict()), path, _use_new_zipfile_serialization=zipped)
        check(bundle.load(str(import_prior(path, tmp_path / f"{zipped}"))), g, None)


def test_the_source_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = snapshot(tiny().state_dict())
    content["G_ema"].meta["module_src"] = f"open({str(canary)!r}, 'w')\n"
    import_prior(write(tmp_path / "net.pkl", content), tmp_path / "out")
    assert not canary.exists()


def test_weights_of_other_precisions_and_orders_are_the_same_numbers(tmp_path: Path) -> None:
    g = tiny()
    for kind in (torch.float16, torch.float64):
        state = {k: v.to(kind) for k, v in g.state_dict().items()}
        name = "synthesis.b8.conv0.weight"
        state[name] = state[name].contiguous(memory_format=torch.channels_last)
        found = foreign.load(write(tmp_path / "net.pkl", snapshot(state))).generator
        assert torch.equal(found.synthesis.b8.conv0.weight, state[name].float())


def test_settings_of_training_do_not_matter(tmp_path: Path) -> None:
    """As in pickles that were converted from TensorFlow's."""
    content = snapshot(tiny().state_dict())
    settings = content["G_ema"].meta["state"]["_init_kwargs"]
    mapping = {"num_layers": 2, "embed_features": None, "layer_features": 5, "activation": "lrelu"}
    settings["mapping_kwargs"] = Easy(**mapping, lr_multiplier=0.01, w_avg_beta=0.995)
    settings["synthesis_kwargs"] = Easy(architecture="skip", resample_filter=[1, 3, 3, 1], use_noise=True)
    assert foreign.load(write(tmp_path / "net.pkl", content)).generator_def["architecture"] == "skip"


def test_groups_of_the_discriminator_are_those_of_the_file(tmp_path: Path) -> None:
    g, d = tiny(), tiny_critic()
    content = snapshot(g.state_dict(), d.state_dict())
    found = foreign.load(write(tmp_path / "net.pkl", content))
    assert found.discriminator_def is not None
    assert found.discriminator_def["group"] == 3
    content["D"].meta["state"]["_init_kwargs"] = {}
    content["D"].child("b4")["_modules"]["mbstd"] = Kept("MinibatchStdLayer", {"_init_kwargs": {"group_size": 2}})
    found = foreign.load(write(tmp_path / "net.pkl", content))
    assert found.discriminator_def is not None
    assert found.discriminator_def["group"] == 2


# Safetensors with a JSON.


def plain(folder: Path, g: StyleGAN2, prefix: str, **changes: Any) -> Path:
    config = {"z_dim": 6, "w_dim": 5, "channels": [8, 6, 4], "mapping_layers": 2} | changes
    save_file({prefix + k: v.contiguous() for k, v in g.state_dict().items()}, folder / "net.safetensors")
    (folder / "net.json").write_text(json.dumps(config))
    return folder / "net.safetensors"


@pytest.mark.parametrize("prefix", ["", "G_ema."])
@pytest.mark.parametrize("kind", ["grey", "residual-rgb-conditional", "wide"])
def test_safetensors_with_a_json_become_the_same_network(tmp_path: Path, kind: str, prefix: str) -> None:
    g = tiny(**KINDS[kind])
    path = plain(tmp_path, g, prefix, **KINDS[kind])
    check(bundle.load(str(import_prior(path, tmp_path / "out"))), g, None)


@pytest.mark.parametrize(
    "changes", [{"z_dim": 7}, {"channels": [8, 6]}, {"channels": [10**9] * 99}, {"mapping_layers": 10**9}, {"no": 1}]
)
def test_a_json_of_another_network_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = plain(tmp_path, tiny(), "", **changes)
    with pytest.raises(PriorError, match=r"another network than net\.json says"):
        foreign.load(path)


@pytest.mark.parametrize("text", [None, "", "{", "[" * 100_000, "3", "[]", "null"])
def test_an_unreadable_json_is_refused(tmp_path: Path, text: str | None) -> None:
    path = plain(tmp_path, tiny(), "")
    path.with_suffix(".json").unlink() if text is None else path.with_suffix(".json").write_text(text)
    with pytest.raises(PriorError, match=r"net\.json"):
        foreign.load(path)


# The bundle.


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    torch.manual_seed(0)
    path = write(folder / "xray.pkl", snapshot(tiny().state_dict(), tiny_critic().state_dict()))
    return import_prior(path, folder / "out")


def test_the_bundle_says_where_it_comes_from(imported: Path) -> None:
    prior = bundle.load(str(imported))
    source = imported.parent / "xray.pkl"
    assert prior.name == "xray"
    assert prior.metadata["source"]["sha256"] == digest(source)
    card = (imported / "docs" / "README.md").read_text()
    for said in ("xray.pkl", digest(source), "StyleGAN2-ADA", "16 x 16, grey", "that of the source", "Research"):
        assert said in card
    there = {p.relative_to(imported).as_posix() for p in imported.rglob("*") if p.is_file()}
    assert there == set(prior.metadata["sha256"]) | {"configs/metadata.json"}


def test_monai_makes_the_networks_of_an_imported_bundle(imported: Path) -> None:
    from monai.bundle import ConfigParser

    from tests.bundles import MANDATORY, check_data_format

    prior = bundle.load(str(imported))
    assert set(prior.metadata) >= MANDATORY
    check_data_format(prior.metadata, prior)
    parser = ConfigParser()
    parser.read_config(imported / "configs" / "inference.json")
    parser["bundle_root"] = str(imported)
    for key, network in (("network_def", prior.generator), ("discriminator_def", prior.discriminator)):
        made = parser.get_parsed_content(key)
        made.load_state_dict(network.state_dict())
    z = torch.randn(2, 6)
    assert torch.equal(parser.get_parsed_content("network")(z), prior.generator(z))


def test_what_only_a_volume_has_is_refused_in_one_line(imported: Path) -> None:
    from brgm_med.reconstruction import reconstruct_slices
    from brgm_med.transforms.template import load_template

    prior = bundle.load(str(imported))
    asked = {
        "grid_shape": lambda: prior.grid_shape,
        "spacing": lambda: prior.spacing,
        "positions": prior.positions,
        "statistics": lambda: prior.statistics,
        "linear": lambda: prior.linear,
        "whitened": prior.whitened,
        "sample": prior.sample,
        "template": lambda: load_template(prior),
        "slices": lambda: reconstruct_slices(prior, [0], Downsample(2), torch.zeros(1, 1, 8, 8)),
    }
    for name, ask in asked.items():
        with pytest.raises(PriorError, match="prior") as caught:
            ask()
        assert "\n" not in str(caught.value), name


def test_the_papers_method_runs_on_an_imported_prior(imported: Path) -> None:
    prior = bundle.load(str(imported))
    statistics = prior.w_statistics()
    expected = w_statistics(prior.generator)
    assert torch.equal(statistics.mean, expected.mean)
    assert torch.equal(statistics.deviation, expected.deviation)
    assert torch.equal(prior.w_statistics().mean, expected.mean)
    truth, corruption = prior.generator(torch.randn(1, 6)), Downsample(2)
    start = prior.generator.broadcast(prior.generator.mapping(torch.randn(1, 6))).clone()
    features = DiscriminatorFeatures(prior.discriminator, levels=2)
    for f, perceptual in ((corruption, None), (torch.nn.Identity(), features)):
        posterior = brgm_posterior(prior.generator, f, f(truth), statistics, perceptual)
        found = fit_map(posterior, start, steps=20, rate=0.05)
        energies = [sum(e.sum() for e in posterior.energies(ws).values()) for ws in (start, found.ws)]
        assert energies[1] < energies[0]
        assert found.image.shape == (1, 1, 16, 16)


def test_statistics_of_a_conditional_prior_need_its_condition(tmp_path: Path) -> None:
    g = tiny(c_dim=3)
    prior = bundle.load(str(import_prior(write(tmp_path / "n.pkl", snapshot(g.state_dict())), tmp_path / "out")))
    with pytest.raises(ValueError, match="conditional"):
        prior.w_statistics()
    c = torch.randn(1, 3)
    torch.testing.assert_close(prior.w_statistics(c).mean, w_statistics(g, c=c).mean)
    with pytest.raises(PriorError, match=r"no discriminator\.safetensors"):
        _ = prior.discriminator


def test_a_file_without_a_hash_is_not_read(imported: Path, tmp_path: Path) -> None:
    metadata = Path(shutil.copytree(imported, tmp_path / "copy")) / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    for file in ("models/discriminator.safetensors", "models/model.safetensors"):
        hashes = {name: known for name, known in content["sha256"].items() if name != file}
        metadata.write_text(json.dumps(content | {"sha256": hashes}))
        with pytest.raises(PriorError, match=file):
            bundle.load(str(tmp_path / "copy"))
    # With a grid it is a prior of a volume, and all that such a one has is demanded.
    metadata.write_text(json.dumps(content | {"grid": {"shape": [16, 4, 16], "affine": np.eye(4).tolist()}}))
    with pytest.raises(PriorError, match="w_statistics"):
        bundle.load(str(tmp_path / "copy"))


# The command.


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out, scan = write(tmp_path / "x.pkl", snapshot(tiny().state_dict())), tmp_path / "out", tmp_path / "s.nii.gz"
    done = run("prior", "import", path, "--out", out, "--name", "chest")
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    for action, words in (
        ("verify", "chest: 3 files as they should be"),
        ("show", "# chest"),
        ("list", "pictures of 16 x 16, grey"),
    ):
        assert cli.main(["prior", action, str(out)]) == 0
        assert words in capsys.readouterr().out
    nib.save(nifti(voxels((20, 22, 24))), scan)
    assert "prior of pictures" in refused(run("sr", "--in", scan, "--prior", out), 5)
    weights = out / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert cli.main(["prior", "verify", str(out)]) == 5
    assert "model.safetensors: damaged" in capsys.readouterr().err
    assert "missing.pkl" in refused(run("prior", "import", tmp_path / "missing.pkl", "--out", tmp_path / "new"), 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "s.nii.gz", "x.pkl"]


def test_what_exists_is_never_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl", snapshot(tiny().state_dict()))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "link", "net.pkl"):
        with pytest.raises(InputRefusedError, match="exists already"):
            import_prior(path, tmp_path / name)
    with pytest.raises(CannotWriteError, match="no folder"):
        import_prior(path, tmp_path / "no" / "out")
    assert cli.main(["prior", "import", str(path), "--out", str(tmp_path / "folder")]) == 3
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "link", "net.pkl"]


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.pkl", snapshot(tiny().state_dict()))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("brgm_med.pipelines.steps.import_prior.seal", full)
    with pytest.raises(CannotWriteError, match="No space left"):
        import_prior(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["net.pkl"]
