"""`brgm-med train` of pictures: a folder of them in, a prior out that sr and inpaint use."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.training.pictures import pictures_of, prepare, unpacked
from brgm_med.priors.bundle import load
from brgm_med.training.export import picture_statistics
from brgm_med.training.loop import Recipe, draw
from brgm_med.transforms.formats import picture
from tests.runs import same


def save_discs(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    y, x = np.mgrid[:80, :96]
    for i in range(count):
        disc = np.clip(15 + 2 * i - np.hypot(y - 40, x - 44 - i), 0, 1) * (60 + 5 * i)
        Image.fromarray((60 + disc).astype(np.uint8)).save(folder / f"disc{i:02}.png")
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights are to be found, so that every machine trains alike."""
    monkeypatch.delenv("BRGM_MED_LPIPS_WEIGHTS", raising=False)
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def train(data: Path, run: Path, kimg: float, *extra: object) -> int:
    arguments = ("train", "--data", data, "--out", run, "--kimg", kimg, "--threads", 1, *extra)
    return main([str(a) for a in arguments])


@pytest.mark.usefixtures("offline")
@pytest.mark.timeout(600)
def test_discs_make_a_prior_that_sr_and_inpaint_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run, whole = save_discs(tmp_path / "data"), tmp_path / "run", tmp_path / "whole"
    assert train(data, run, 0.016) == 0
    assert train(data, run, 0.032) == 0
    said = capsys.readouterr().out
    assert "resumed at 0.0 kimg" in said
    assert "11 pictures, 1 held out" in said
    assert train(data, whole, 0.032) == 0
    states = [torch.load(r / "state.pt", weights_only=True) for r in (run, whole)]
    for key in states[0]:
        assert key == "record" or same(states[0][key], states[1][key]), key
    assert states[0]["images"] == 32
    assert states[0]["identity"]["flip"] is False

    prior = load(str(run / "prior"))
    assert not prior.volumetric
    assert prior.encoded
    assert (prior.image_shape, prior.image_channels) == ((64, 64), 1)
    assert prior.metadata["held_out"] == ["disc11.png"]
    assert len(prior.metadata["pictures"]) == 11
    whitened = prior.whitened()
    assert len(prior.statistics.deviation) == 10
    assert not whitened.correlation.any()
    with torch.no_grad():
        image = whitened.synthesis(torch.zeros(1, 1, whitened.w_dim))
    assert image.shape == (1, 1, 64, 64)
    assert bool(image.isfinite().all())

    small = np.asarray(Image.open(data / "disc11.png"))[::4, ::4]
    Image.fromarray(small).save(tmp_path / "small.png")
    use = ("--prior", str(run / "prior"), "--steps", "3", "--threads", "1")
    assert main(["sr", "--in", str(tmp_path / "small.png"), "--factor", "2", *use]) == 0
    found = picture.read(tmp_path / "small_brgm.png").stored[0].astype(float)
    averages = found.reshape(small.shape[0], 2, small.shape[1], 2).mean((1, 3))
    assert np.abs(averages - small).max() <= 0.5
    hole = np.zeros((80, 96), np.uint8)
    hole[30:40, 20:50] = 1
    Image.fromarray(hole).save(tmp_path / "mask.png")
    out = tmp_path / "filled.png"
    scan = str(data / "disc11.png")
    assert main(["inpaint", "--in", scan, "--mask", str(tmp_path / "mask.png"), "--out", str(out), *use]) == 0
    before, after = picture.read(scan).stored[0], picture.read(out).stored[0]
    assert np.array_equal(before[hole == 0], after[hole == 0])
    assert not np.array_equal(before[hole > 0], after[hole > 0])

    # Other pictures are not that run's.
    assert train(data, run, 1, "--held-out", 0) == 5
    assert "was trained on 11 other pictures, with 1 held out" in capsys.readouterr().err


def test_one_colour_picture_makes_all_of_them_rgb(tmp_path: Path) -> None:
    data, run = save_discs(tmp_path / "data", 3), tmp_path / "run"
    run.mkdir()
    prepare(data, run, None, None)
    grey = pictures_of(run)
    assert [one.shape for one in grey] == [(1, 1, 64, 64)] * 3
    assert grey[0].dtype == torch.float16
    assert float(grey[0][0, 0, 0, 0]) == pytest.approx(60 / 255 * 2 - 1, abs=1e-3)
    Image.fromarray(np.full((70, 50, 3), (255, 0, 51), np.uint8)).save(data / "red.png")
    prepare(data, run, 3, 1)
    (red,) = pictures_of(run, "held_out")
    torch.testing.assert_close(red[0, :, 5, 5].float(), torch.tensor([1.0, -1.0, -0.6]), atol=1e-3, rtol=0)
    first = pictures_of(run)[0]
    assert torch.equal(first, grey[0].expand(1, 3, 64, 64))
    record = json.loads((run / "prepared.json").read_text())
    assert [one["name"] for one in record["held_out"]] == ["red.png"]


def test_a_data_set_of_stylegan2_ada_is_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_discs(tmp_path / "data", count=3)
    data, plain, zipped = tmp_path / "set.zip", tmp_path / "plain", tmp_path / "zipped"
    with zipfile.ZipFile(data, "w") as archive:
        names = [f"00000/img{i:08}.png" for i in range(3)]
        for name, path in zip(names, sorted(folder.iterdir()), strict=True):
            archive.write(path, name)
        archive.writestr("dataset.json", json.dumps({"labels": [[name, i] for i, name in enumerate(names)]}))
    for run in (plain, zipped):
        run.mkdir()
    prepare(folder, plain, None, 0)
    with unpacked(data) as root:
        prepare(root, zipped, None, 0)
    assert "its labels (dataset.json) do not enter" in capsys.readouterr().out
    for one, other in zip(pictures_of(plain), pictures_of(zipped), strict=True):
        assert torch.equal(one, other)
    assert json.loads((zipped / "prepared.json").read_text())["pictures"][0]["name"] == "img00000000.png"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no zip", "is no zip, or a damaged one"),
        ({"a.txt": b"text"}, "holds no pictures"),
        ({"../a.png": b"out"}, "has a member outside of itself"),
        ({"a.png": b"not a picture"}, "set.zip/a.png"),
    ],
)
def test_a_zip_that_is_no_data_set_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | dict[str, bytes], text: str
) -> None:
    data = tmp_path / "set.zip"
    if isinstance(content, bytes):
        data.write_bytes(content)
    else:
        with zipfile.ZipFile(data, "w") as archive:
            for name, member in content.items():
                archive.writestr(name, member)
    assert train(data, tmp_path / "run", 0.016) == 3
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_what_cannot_be_trained_on_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed, damaged = save_discs(tmp_path / "mixed", 2), save_discs(tmp_path / "damaged", 2)
    (mixed / "head.nii.gz").write_bytes(b"")
    (damaged / "disc01.png").write_bytes(b"x")
    for data, named in ((mixed, "volumes and pictures"), (damaged, "disc01.png")):
        assert train(data, tmp_path / "run", 0.016) == 3
        line = capsys.readouterr().err.strip()
        assert named in line
        assert "\n" not in line
    assert not (tmp_path / "run" / "prepared.json").exists()


def test_a_stack_of_one_is_drawn() -> None:
    drawn = draw([torch.full((1, 1, 4, 4), float(i)) for i in range(3)], 8, Recipe(widened=0.0))
    assert drawn.image.shape == (8, 1, 4, 4)
    assert set(drawn.position.tolist()) == {-1.0}


def test_statistics_of_pictures_are_principal_components() -> None:
    latents = torch.randn(400, 6) * torch.tensor([5.0, 3, 2, 1, 1, 1]) + 2
    found = picture_statistics(latents, 2, 3)
    torch.testing.assert_close(found.mean(torch.zeros(1, 0))[0], latents.mean(0))
    white = (latents - latents.mean(0)) @ found.basis / found.deviation
    torch.testing.assert_close(torch.cov(white.T), torch.eye(3), atol=1e-4, rtol=0)
    assert (len(found.correlation), len(found.map_correlation)) == (3, 2)
    with pytest.raises(ValueError, match="two or more"):
        picture_statistics(latents[:1], 0, 3)
