"""`brgm-med sr` and `brgm-med inpaint` of pictures, from file to file, with an imported prior."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from brgm_med.networks.stylegan2 import StyleGAN2
from brgm_med.pipelines import reconstruct_picture
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.evaluation.methods import ALONE, reconstructions
from brgm_med.pipelines.evaluation.problems import averages
from brgm_med.pipelines.evaluation.setting import Setting
from brgm_med.posterior import WhitenedLayers
from brgm_med.priors.bundle import load
from brgm_med.transforms.formats import picture
from brgm_med.transforms.intensity import Normalisation
from tests.picture_prior import SIZES, run, scene
from tests.picture_prior import prior as prior


@pytest.mark.parametrize(("name", "levels"), [("grey8.png", 255), ("grey16.png", 65535), ("grey16.tif", 65535)])
def test_super_resolution_keeps_bits_format_and_every_average(
    prior: Path, tmp_path: Path, name: str, levels: int
) -> None:
    stored = scene(15, 10, levels).astype(np.uint8 if levels == 255 else np.uint16)
    scan = tmp_path / name
    tifffile.imwrite(scan, stored) if name.endswith("tif") else Image.fromarray(stored).save(scan)
    out = tmp_path / f"out{scan.suffix}"
    assert run("sr", "--in", scan, "--out", out, "--prior", prior) == 0
    found = picture.read(out)
    assert found.stored.dtype == stored.dtype
    assert found.stored.shape == (1, 30, 20)  # twice as large still fits into 32 x 32
    averages = found.stored[0].astype(float).reshape(15, 2, 10, 2).mean((1, 3))
    assert np.abs(averages - stored).max() <= 0.5
    content = json.loads((tmp_path / "out_certificate.json").read_text())
    assert content["consistency"]["within_bound"]
    assert content["prior"]["finest_detail_pixels"] == pytest.approx(30 / 32)
    assert "not for diagnosis" in content["statement"]


def test_command_library_and_evaluation_give_identical_arrays(prior: Path, tmp_path: Path) -> None:
    """Of a picture a quarter of the prior's frame a side: the result fills the frame, 4 x 4 pixels are averaged."""
    bundle = load(str(prior))
    stored = np.stack([scene(8, 8, 60000), scene(8, 8, 50000).T, scene(8, 8, 40000)][: bundle.image_channels])
    scan, out = tmp_path / "scan.tif", tmp_path / "out.tif"
    tifffile.imwrite(scan, stored.transpose(1, 2, 0).squeeze().astype(np.uint16))
    assert main([str(a) for a in ("sr", "--in", scan, "--out", out, "--prior", prior, "--threads", 1)]) == 0
    source = picture.read(scan)
    normalise = Normalisation.of_range(*source.range)
    values = normalise.forward(torch.from_numpy(source.array)[None])
    image = reconstruct_picture(values, bundle, 4)
    f = averages((32, 32), (4, 4))
    torch.testing.assert_close(f(image), values, rtol=0, atol=1e-6)
    setting = Setting(bundle, (bundle.image_channels, 32, 32), (0,))
    assert torch.equal(reconstructions([ALONE], setting, values, f)[ALONE].images, image)
    rounded = np.rint(normalise.inverse(image)[0].numpy().astype(np.float64)).clip(0, 65535)
    assert np.array_equal(picture.read(out).stored, rounded)


@pytest.mark.parametrize(("name", "bits"), [("grey8.png", 8), ("grey16.png", 16), ("wide.tif", 16), ("grey.jpg", 8)])
def test_inpainting_keeps_every_known_pixel(prior: Path, tmp_path: Path, name: str, bits: int) -> None:
    height, width = (200, 300) if name == "wide.tif" else (48, 40)
    stored = scene(height, width, 2**bits - 1).astype(f"uint{bits}")
    scan, mask = tmp_path / name, tmp_path / "mask.png"
    tifffile.imwrite(scan, stored) if name.endswith("tif") else Image.fromarray(stored).save(scan)
    hole = np.zeros((height, width), np.uint8)
    hole[height // 2 : height // 2 + 9, 5:20] = 255
    Image.fromarray(hole).save(mask)
    assert run("inpaint", "--in", scan, "--mask", mask, "--prior", prior) == 0
    out = tmp_path / f"{scan.stem}_brgm{'.tif' if name.endswith('tif') else '.png'}"
    before, after = picture.read(scan).stored[0], picture.read(out).stored[0]
    assert after.dtype == before.dtype
    assert after.shape == (height, width)
    assert np.array_equal(after[hole == 0], before[hole == 0])
    assert not np.array_equal(after[hole > 0], before[hole > 0])
    content = json.loads((tmp_path / f"{scan.stem}_brgm_certificate.json").read_text())
    assert content["outside_the_hole"]["changed"] == 0
    assert content["hole"]["pixels"] == 9 * 15


def test_what_the_hole_holds_does_not_matter(prior: Path, tmp_path: Path) -> None:
    hole = np.zeros((32, 32), np.uint8)
    hole[10:20, 8:15] = 1
    Image.fromarray(hole).save(tmp_path / "mask.png")
    results = []
    for fill in (0, 255):
        stored = np.where(hole > 0, fill, scene(32, 32, 255)).astype(np.uint8)
        Image.fromarray(stored).save(tmp_path / f"{fill}.png")
        assert run("inpaint", "--in", tmp_path / f"{fill}.png", "--mask", tmp_path / "mask.png", "--prior", prior) == 0
        results.append(picture.read(tmp_path / f"{fill}_brgm.png").stored)
    assert np.array_equal(*results)


def test_a_large_jpeg_with_a_turned_camera_comes_out_upright(prior: Path, tmp_path: Path) -> None:
    upright = scene(1024, 1024, 255).astype(np.uint8)
    tags = Image.Exif()
    tags[0x0112] = 6  # to be turned by 90 degrees clockwise for display
    scan, mask = tmp_path / "photo.jpg", tmp_path / "mask.png"
    Image.fromarray(np.rot90(upright).copy()).save(scan, quality=95, exif=tags)
    hole = np.zeros((1024, 1024), np.uint8)
    hole[600:640, 100:150] = 1
    Image.fromarray(hole).save(mask)
    assert run("inpaint", "--in", scan, "--mask", mask, "--prior", prior) == 0
    found = picture.read(tmp_path / "photo_brgm.png").stored[0]
    assert found.shape == (1024, 1024)
    assert np.abs(found[hole == 0].astype(int) - upright[hole == 0]).max() < 30  # JPEG's own error at the edge


def test_colour_needs_a_prior_of_colour(prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = np.stack([scene(16, 16, 255), scene(16, 16, 120), scene(16, 16, 60)], -1).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "colour.png")
    grey = json.loads((prior / "configs" / "inference.json").read_text())["network_def"]["image_channels"] == 1
    assert run("sr", "--in", tmp_path / "colour.png", "--prior", prior) == (2 if grey else 0)
    if grey:
        assert "is in colour" in capsys.readouterr().err
        assert not (tmp_path / "colour_brgm.png").exists()
    else:
        averages = picture.read(tmp_path / "colour_brgm.png").stored.astype(float).reshape(3, 16, 2, 16, 2).mean((2, 4))
        assert np.abs(averages - stored.transpose(2, 0, 1)).max() <= 0.5


def test_refusals_are_one_line_and_leave_nothing(
    prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "picture.png"
    Image.fromarray(scene(32, 32, 255).astype(np.uint8)).save(scan)
    masks = {"empty": np.zeros((32, 32)), "full": np.ones((32, 32)), "small": np.eye(16)}
    for name, values in masks.items():
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"{name}.png")
    before = sorted(tmp_path.iterdir())
    inpaint = ["inpaint", "--in", scan, "--prior", prior]
    cases = [
        (3, "no pixel as unknown", [*inpaint, "--mask", tmp_path / "empty.png"]),
        (3, "leaves no pixel known", [*inpaint, "--mask", tmp_path / "full.png"]),
        (3, "16 x 16 pixels and the picture 32 x 32", [*inpaint, "--mask", tmp_path / "small.png"]),
        (2, "different files", [*inpaint, "--mask", scan]),
        (2, "is for volumes", [*inpaint, "--mask", tmp_path / "small.png", "--affine", "sform"]),
        (2, "as fine as the prior", ["sr", "--in", scan, "--prior", prior]),
        (2, "is for volumes", ["sr", "--in", scan, "--prior", prior, "--slice-thickness", 3]),
        (2, "the prior brain-t1-coronal is of volumes", ["sr", "--in", scan]),
    ]
    for code, text, arguments in cases:
        assert run(*arguments) == code, text
        line = capsys.readouterr().err.strip()
        assert text in line
        assert "\n" not in line
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_pictures_is_worked_off_and_one_bad_picture_does_not_stop_it(
    prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, masks = tmp_path / "in", tmp_path / "masks"
    folder.mkdir()
    masks.mkdir()
    hole = np.zeros((32, 32), np.uint8)
    hole[4:9, 4:9] = 1
    for name in ("a", "b", "c"):
        Image.fromarray(scene(32, 32, 255).astype(np.uint8)).save(folder / f"{name}.png")
        if name != "b":
            Image.fromarray(hole).save(masks / f"{name}.png")
    assert run("inpaint", "--in", folder, "--mask", masks, "--prior", prior) == 3
    said = capsys.readouterr().err
    assert "holds no mask of that name" in said
    assert "1 of 3 pictures refused (b.png)" in said.splitlines()[-1]
    assert {p.name for p in (tmp_path / "in_brgm").glob("*.png")} == {"a_brgm.png", "c_brgm.png"}
    out = tmp_path / "out"
    assert run("sr", "--in", folder, "--out", out, "--prior", prior, "--factor", 2) == 0
    assert picture.read(out / "b_brgm.png").shape == (64, 64)
    assert run("sr", "--in", folder, "--out", out, "--prior", prior, "--certificate", tmp_path / "x.json") == 2


@pytest.mark.slow
def test_an_x_ray_goes_through_both_commands_the_right_way_round(prior: Path, tmp_path: Path, data_dir: Path) -> None:
    """Compared with the DICOM file's own pixels, MONOCHROME1: bright is what it shows bright."""
    import pydicom

    scan = data_dir / "xray-chest-RG1.dcm"
    shown = picture_of(pydicom.dcmread(scan))
    hole = np.zeros(shown.shape, np.uint8)
    hole[900:1000, 500:640] = 1
    Image.fromarray(hole).save(tmp_path / "mask.png")
    out = tmp_path / "filled.png"
    assert run("inpaint", "--in", scan, "--mask", tmp_path / "mask.png", "--prior", prior, "--out", out) == 0
    found = picture.read(out).stored
    assert found.dtype == np.uint16
    assert np.array_equal(found[0][hole == 0], shown[hole == 0])
    large = tmp_path / "large.tif"
    assert run("sr", "--in", scan, "--prior", prior, "--factor", 2, "--out", large) == 0
    height, width = shown.shape
    averages = picture.read(large).stored[0].astype(float).reshape(height, 2, width, 2).mean((1, 3))
    assert np.abs(averages - shown).max() <= 0.5


def picture_of(file: object) -> NDArray[np.integer]:
    """A MONOCHROME1 file's stored pixels, turned within its bits."""
    highest = 2 ** int(file.BitsStored) - 1  # type: ignore[attr-defined]
    return highest - file.pixel_array.astype(np.int64)  # type: ignore[attr-defined,no-any-return]


def test_whitened_layers_have_unit_variance_and_give_w_back() -> None:
    torch.manual_seed(0)
    network = StyleGAN2(**SIZES)  # type: ignore[arg-type]
    layers = WhitenedLayers.of_mapped(network, samples=4000)
    a = layers.mapping(torch.randn(4000, 8))
    assert torch.cov(a.T).sub(torch.eye(layers.w_dim)).abs().max() < 0.15
    w = network.mapping(torch.randn(3, 8)).detach()
    given = layers.mapping(torch.zeros(3, 8)) * 0 + (w - layers.mean) @ layers.basis / layers.deviation
    ws = given[:, None].expand(-1, layers.num_ws, -1)
    torch.testing.assert_close(
        layers.synthesis(ws), network.synthesis(network.broadcast(w), noise="none"), atol=2e-2, rtol=0
    )
