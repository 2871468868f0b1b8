"""`brgm-med inpaint` from file to file: what is known stays to the last bit, what is not is inferred, and said so."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines import Scan, inpaint_volume
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.reconstruct.hole import hole_on
from brgm_med.pipelines.steps.inpaint import inpaint
from brgm_med.priors.bundle import load
from brgm_med.seams import blend_seamless
from brgm_med.search import HOLE
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from tests.heads import template_head

CENTRE, HALF = (52, 60, 70), (6, 5, 6)  # in the brain


def box(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    hole = np.zeros(shape, bool)
    hole[tuple(slice(c - h, c + h) for c, h in zip(CENTRE, HALF, strict=True))] = True
    return hole


def save(
    path: Path, values: NDArray[np.generic], affine: NDArray[np.floating], slope: float = 1, inter: float = 0
) -> Path:
    image = nib.Nifti1Image(values, affine)
    image.header.set_slope_inter(slope, inter)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def raw(path: Path) -> tuple[NDArray[np.generic], nib.Nifti1Image]:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return np.asarray(image.dataobj.get_unscaled()), image


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inpaint")
    template_head(made / "head.nii.gz")
    values, image = raw(made / "head.nii.gz")
    save(made / "mask.nii.gz", box(values.shape).astype(np.uint8), image.affine)
    return made


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_known_voxels_keep_every_bit(head: Path, tmp_path: Path, dtype: str) -> None:
    values, image = raw(head / "head.nii.gz")
    slope, inter = (2.5, -40.0) if dtype == "uint16" else (1.0, 0.0)
    stored = (values / values.max() * (255 if dtype == "uint8" else 2000)).astype(dtype)
    hole = box(values.shape)
    if stored.dtype.kind == "f":
        stored[hole] = np.nan
    scan = save(tmp_path / "scan.nii.gz", stored, image.affine, slope, inter)
    out = inpaint(scan, head / "mask.nii.gz", steps=1, threads=1)
    new, result = raw(out)
    assert new.dtype == stored.dtype
    assert np.array_equal(new[~hole], stored[~hole])
    assert new[~hole].tobytes() == stored[~hole].tobytes()
    before = nib.load(scan)
    assert isinstance(before, nib.Nifti1Image)
    for field in ("scl_slope", "scl_inter"):
        assert result.header[field].tobytes() == before.header[field].tobytes()
    assert np.array_equal(result.affine, before.affine)
    assert "not for diagnosis" in result.header["descrip"].item().decode()
    assert np.isfinite(new).all()
    assert not np.array_equal(new[hole], stored[hole])


@pytest.fixture(scope="module")
def filled(head: Path) -> Path:
    """The head with its hole set to something absurd, reconstructed."""
    values, image = raw(head / "head.nii.gz")
    hidden = values.copy()
    hidden[box(values.shape)] = 4000
    return inpaint(save(head / "hidden.nii.gz", hidden, image.affine), head / "mask.nii.gz", steps=10, threads=1)


def test_the_hole_is_filled_from_what_surrounds_it_and_the_prior(head: Path, filled: Path) -> None:
    truth, _ = raw(head / "head.nii.gz")
    found, _ = raw(filled)
    hole = box(truth.shape)
    error = np.sqrt(np.mean((found[hole].astype(float) - truth[hole]) ** 2))
    spread = truth[hole].astype(float).std()
    assert error < 0.8 * spread  # better than the best constant, from a hole of 24 mm


def test_what_the_hole_held_does_not_matter(head: Path, filled: Path, tmp_path: Path) -> None:
    _, image = raw(head / "head.nii.gz")
    other = raw(head / "hidden.nii.gz")[0].copy()
    other[box(other.shape)] = np.random.default_rng(0).integers(0, 3000, int(box(other.shape).sum()))
    scan = save(tmp_path / "other.nii.gz", other, image.affine)
    again = inpaint(scan, head / "mask.nii.gz", steps=10, threads=1)
    assert np.array_equal(raw(again)[0], raw(filled)[0])


def test_the_library_gives_the_arrays_of_the_command(head: Path, filled: Path) -> None:
    stored, image = raw(head / "hidden.nii.gz")
    grid = Grid(image.shape, np.asarray(image.affine))  # type: ignore[arg-type]
    hole = torch.from_numpy(box(stored.shape))
    values = torch.from_numpy(stored.astype(np.float32)).masked_fill(hole, torch.nan)[None]
    scan = Scan(values, grid, AcquisitionModel.from_header(grid))
    result = inpaint_volume(scan, hole, load(), search=HOLE.limited_to(10))
    assert np.array_equal(np.rint(result.image[0].numpy()), raw(filled)[0])
    assert torch.equal(result.measured[0] == 0, hole)


def test_of_another_contrast_the_weight_is_measured_and_the_rim_is_never_spoilt(head: Path) -> None:
    """Cerebrospinal fluid bright, white matter dark: the prior has never seen such a head."""
    stored, image = raw(head / "head.nii.gz")
    grid = Grid(image.shape, np.asarray(image.affine))  # type: ignore[arg-type]
    values = torch.from_numpy(stored.astype(np.float32))
    inside = values > 0.1 * values.max()
    values = torch.where(inside, 1.2 * values.max() - values, values)
    hole = torch.from_numpy(np.roll(box(stored.shape), 15, axis=0))
    scan = Scan(values[None], grid, AcquisitionModel.from_header(grid))
    result = inpaint_volume(scan, hole, load(), search=HOLE.limited_to(10))
    assert result.population is not None
    assert 0 <= result.population.weight < 1
    assert "measured at a hole" in result.population.reason
    assert torch.equal(result.image[0][~hole], values[~hole])
    rim = blend_seamless(values, torch.zeros_like(values), hole, grid.spacing)
    error, least = ((x - values)[hole].square().mean() for x in (result.image[0], rim))
    assert float(error) < 1.1 * float(least)


def test_the_certificate_counts(head: Path, filled: Path) -> None:
    content = json.loads((head / "hidden_brgm_certificate.json").read_text())
    assert "not for diagnosis" in content["statement"]
    hole = content["hole"]
    assert hole["voxels"] == 12 * 10 * 12
    assert hole["inferred_by_the_prior"] == 1
    assert hole["clipped_to_the_voxel_type"] == 0
    assert hole["weight_of_the_prior"] == 1
    assert "knows such scans" in hole["why"]
    assert hole["texture_of_the_scan_finer_than_mm"] is None  # its voxels are those of the prior
    assert content["outside_the_hole"]["changed"] == 0
    assert content["measured_map"]["file"] == "hidden_brgm_measured.nii.gz"
    assert len(content["mask"]["sha256"]) == len(content["source"]["sha256"]) == 64


def test_a_map_says_which_voxels_were_measured(head: Path, filled: Path) -> None:
    values, image = raw(head / "hidden_brgm_measured.nii.gz")
    assert values.dtype == np.float32
    assert np.array_equal(values, 1.0 - box(values.shape))
    assert np.array_equal(image.affine, raw(filled)[1].affine)


# Masks.

GRID = Grid((20, 24, 16), np.diag([2.0, 2.0, 2.0, 1.0]))


def test_a_mask_on_the_same_grid_is_taken_as_it_is() -> None:
    mask = np.zeros(GRID.shape, np.int16)
    mask[3:6, 4:9, 5] = 7
    hole, resampled = hole_on(mask, GRID, GRID)
    assert not resampled
    assert torch.equal(hole, torch.from_numpy(mask != 0))
    other, _ = hole_on(1 - (mask != 0), GRID, GRID, known=True)
    assert torch.equal(hole, other)


def test_a_mask_on_another_grid_is_taken_nearest_neighbour() -> None:
    """A grid with half the spacing and flipped axes: the hole lies where it lay in the world."""
    fine = np.zeros((40, 48, 32), np.uint8)
    fine[10:16, 20:30, 6:8] = 1  # world 4.5 to 10.5, 9.5 to 19.5, 2.5 to 4.5 mm
    affine = np.array([[1.0, 0, 0, -0.5], [0, 1, 0, -0.5], [0, 0, 1, -0.5], [0, 0, 0, 1]])
    flipped = affine @ np.array([[-1.0, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    hole, resampled = hole_on(fine[::-1].copy(), Grid((40, 48, 32), flipped), GRID)
    assert resampled
    expected = np.zeros(GRID.shape, bool)
    expected[5:8, 10:15, 3] = True
    assert torch.equal(hole, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros(GRID.shape), "no voxel as unknown"),
        (np.ones(GRID.shape), "no voxel known"),
        (np.full(GRID.shape, 0.5), "not all integers"),
        (np.full(GRID.shape, np.nan), "not all integers"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused(mask: NDArray[np.floating], reason: str) -> None:
    with pytest.raises(InputRefusedError, match=reason):
        hole_on(mask, GRID, GRID)


def test_a_mask_that_lies_beside_the_scan_is_refused() -> None:
    mask = np.zeros(GRID.shape)
    mask[:10, 3:5, 3:5] = 1
    shifted = GRID.affine.copy()
    shifted[0, 3] = -10  # five of ten columns are outside
    with pytest.raises(InputRefusedError, match="50% of its unknown voxels"):
        hole_on(mask, Grid(GRID.shape, shifted), GRID)


# The command.


def test_the_command_fills_and_refuses(head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, mask = str(head / "head.nii.gz"), str(head / "mask.nii.gz")
    out = str(tmp_path / "out.nii.gz")
    assert main(["inpaint", "--in", scan, "--mask", mask, "--out", out, "--steps", "1", "--threads", "1"]) == 0
    assert "1440 voxels filled" in capsys.readouterr().err
    assert main(["inpaint", "--in", scan, "--mask", mask, "--out", out]) == 3  # exists
    known = str(tmp_path / "known.nii.gz")
    arguments = ["inpaint", "--in", scan, "--mask", mask, "--out", known, "--mask-known", "--steps", "1"]
    assert main(["inpaint", "--in", scan, "--mask", scan, "--out", scan]) == 2  # the same file twice
    values, image = raw(head / "head.nii.gz")
    empty = save(tmp_path / "empty.nii.gz", np.zeros(values.shape, np.uint8), image.affine)
    capsys.readouterr()
    assert main(["inpaint", "--in", scan, "--mask", str(empty), "--out", known]) == 3
    line = capsys.readouterr().err.strip()
    assert line.count("\n") == 0
    assert "empty.nii.gz" in line
    assert not Path(known).exists()
    outside = np.zeros(values.shape, np.uint8)
    outside[50:54, 50:54, :3] = 1  # the neck, below the prior's box
    far = save(tmp_path / "far.nii.gz", outside, image.affine)
    assert main([*arguments[:4], str(far), *arguments[5:7], "--steps", "1"]) == 3
    assert "outside what the prior covers" in capsys.readouterr().err
    assert not Path(known).exists()


def test_what_is_not_finite_outside_the_mask_is_refused(head: Path, tmp_path: Path) -> None:
    values, image = raw(head / "head.nii.gz")
    broken = values.astype(np.float32)
    broken[0, 0, :3] = np.nan
    scan = save(tmp_path / "broken.nii.gz", broken, image.affine)
    with pytest.raises(InputRefusedError, match="3 voxels outside the mask are NaN"):
        inpaint(scan, head / "mask.nii.gz", steps=1)
    with pytest.raises(UsageError, match="different files"):
        inpaint(scan, scan, steps=1)
