"""Implanted spheres: their shape, their places, and the contrast that a blurred or a reconstructed head retains."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.evaluation import table
from brgm_med.pipelines.evaluation.lesion_rows import COLUMNS, lesion_report, lesion_table, measure_lesions
from brgm_med.pipelines.evaluation.lesions import (
    APART,
    CHANGE,
    DIAMETERS,
    SHELL,
    Region,
    Sphere,
    distance,
    implanted,
    placed,
)
from brgm_med.pipelines.evaluation.measure import Evaluation, Job
from brgm_med.pipelines.evaluation.subjects import Source
from brgm_med.search import VOLUME
from brgm_med.transforms.geometry import Grid
from tests.small_heads import small_head

pytestmark = pytest.mark.usefixtures("offline")


def grid_of(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = 5.0, -3.0, 11.0
    return Grid(shape, affine)


@pytest.mark.parametrize("diameter", DIAMETERS)
def test_a_sphere_has_the_volume_of_a_sphere_and_a_soft_edge(diameter: float) -> None:
    grid = grid_of((24, 20, 16), (1.0, 1.3, 2.0))
    sphere = Sphere(diameter, np.array([16.7, 9.2, 26.6]), 1.0)
    coverage = sphere.coverage(grid)
    volume = float(coverage.double().sum()) * 1.0 * 1.3 * 2.0
    assert volume == pytest.approx(np.pi * diameter**3 / 6, rel=0.01)
    assert float(coverage.min()) == 0
    assert float(coverage.max()) == 1
    assert bool(((coverage > 0) & (coverage < 1)).any())
    index = torch.stack(torch.meshgrid(*map(torch.arange, grid.shape), indexing="ij"), -1).double()
    middle = (index * coverage[..., None]).sum((0, 1, 2)) / coverage.sum()
    world = grid.affine[:3, :3] @ middle.numpy() + grid.affine[:3, 3]
    np.testing.assert_allclose(world, sphere.centre, atol=0.05)


def test_a_sphere_that_is_not_degraded_retains_all_of_its_contrast_in_any_anatomy() -> None:
    grid = grid_of((30, 30, 30), (1.0, 1.0, 1.0))
    head = torch.rand(1, 30, 30, 30, generator=torch.Generator().manual_seed(0)) * 100
    spheres = [Sphere(10.0, np.array([20.0, 12.0, 26.0]), sign * 30.0) for sign in (1, -1)]
    for sphere in spheres:
        change, region = (implanted(head, grid, [sphere]) - head)[0], Region(sphere, grid)
        assert region.contrast(change) == pytest.approx(region.inside(change))  # the surroundings stay as they are
        assert region.contrast(change) == pytest.approx(sphere.change, rel=0.1)  # less at the soft edge
        assert region.contrast(change * 0.4 + 7) == pytest.approx(0.4 * region.contrast(change), rel=1e-5)
        assert region.inside(change * 0.4 + 7) == pytest.approx(0.4 * region.inside(change) + 7, rel=1e-5)


def running_mean(image: Tensor, width: int) -> Tensor:
    """Over an odd `width` of voxels along the last axis."""
    pooled = torch.nn.functional.avg_pool1d(image.flatten(0, 1)[:, None], width, 1, width // 2)
    return pooled[:, 0].reshape(image.shape)


@pytest.mark.parametrize(("diameter", "thickness"), [(16.0, 5.0), (10.0, 5.0), (6.0, 5.0)])
def test_a_box_filter_leaves_of_a_sphere_what_its_autocorrelation_says(diameter: float, thickness: float) -> None:
    """The mean inside after a box of t mm is the mean of the sphere's autocorrelation 1 - 3 h / 4 r + h^3 / 16 r^3 over
    |h| <= t / 2: 1 - 3 t / 16 r + t^3 / 512 r^3, where t <= 4 r."""
    spacing = np.array([diameter / 40, diameter / 40, thickness / 15])
    grid = Grid((44, 44, int((diameter + 2 * thickness) / spacing[2]) + 4), np.diag([*spacing, 1.0]))
    sphere = Sphere(diameter, (np.array(grid.shape) - 1) / 2 * spacing, 1.0)
    coverage = sphere.coverage(grid).double()
    r, region = diameter / 2, Region(sphere, grid)
    expected = 1 - 3 * thickness / (16 * r) + thickness**3 / (512 * r**3)
    measured = region.inside(running_mean(coverage, 15))
    assert measured == pytest.approx(expected, abs=0.01)
    assert region.contrast(running_mean(coverage, 15)) < measured  # it leaks into the surroundings


def test_spheres_lie_in_tissue_with_their_surroundings_in_the_region_and_apart() -> None:
    grid = grid_of((70, 75, 60), (2.0, 2.0, 2.0))
    random = torch.Generator().manual_seed(0)
    head = 100 + torch.rand(grid.shape, generator=random)
    head[:, :, 28:34] = 20.0  # no tissue: as cerebrospinal fluid in a T1-weighted head
    head[:30, :, 40:] *= 1.4
    region = torch.zeros(grid.shape, dtype=torch.bool)
    region[8:-8, 8:-8, 4:-4] = True
    layout, voxel = None, float(np.linalg.norm(grid.spacing)) / 2
    for seed in range(3):
        spheres = placed(head, grid, region, seed)
        assert [(s.diameter, np.sign(s.change)) for s in spheres] == [(d, s) for d in DIAMETERS for s in (1, -1)]
        for sphere in spheres:
            at, away = Region(sphere, grid), distance(grid, sphere.centre)
            assert bool(region[away < sphere.diameter / 2 + SHELL[1] - voxel].all())
            assert float(head[away < sphere.diameter / 2 - voxel].min()) > 50
            near = float(head.flatten()[torch.cat([at.voxels, at.shell])].median())
            assert abs(sphere.change) == pytest.approx(CHANGE * near, rel=0.02)
        for one, other in itertools.combinations(spheres, 2):
            gap = np.linalg.norm(one.centre - other.centre) - (one.diameter + other.diameter) / 2
            assert gap >= APART > 2 * SHELL[1]
        again = placed(head, grid, region, seed)
        assert all(
            np.array_equal(a.centre, b.centre) and a.change == b.change for a, b in zip(spheres, again, strict=True)
        )
        centres = np.stack([sphere.centre for sphere in spheres])
        assert layout is None or not np.allclose(layout, centres)
        layout = centres


def test_speckles_do_not_take_the_room() -> None:
    """One voxel in fifty is too bright for tissue: no sphere of 16 mm is free of them; each lies mostly in tissue."""
    grid = grid_of((70, 75, 60), (2.0, 2.0, 2.0))
    random = torch.Generator().manual_seed(0)
    head = torch.where(torch.rand(grid.shape, generator=random) < 0.02, 200.0, 100.0)
    head[:, :, 28:34] = 20.0
    region = torch.zeros(grid.shape, dtype=torch.bool)
    region[8:-8, 8:-8, 4:-4] = True
    for sphere in placed(head, grid, region, 0):
        inside = head[distance(grid, sphere.centre) < sphere.diameter / 2]
        assert float(((inside > 50) & (inside < 150)).float().mean()) > 0.9


def test_a_small_brain_has_no_room() -> None:
    grid = grid_of((24, 24, 24), (2.0, 2.0, 2.0))
    region = torch.ones(grid.shape, dtype=torch.bool)
    with pytest.raises(InputRefusedError, match=r"no room for \d spheres"):
        placed(torch.full(grid.shape, 100.0), grid, region, 0)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_head(tmp_path_factory.mktemp("heads") / "head.nii.gz")


def test_a_row_for_every_sphere_and_method(head: Path, tmp_path: Path) -> None:
    asked = Evaluation(head.parent, tmp_path, task="lesions", shown=1)
    methods = ("cubic", "cubic+consistency", "self")
    rows = measure_lesions(Job(asked, Source(head), "12", methods, tmp_path / "images"), VOLUME.limited_to(1))
    assert [(row["method"], row["image"]) for row in rows] == [(m, str(n)) for m in methods for n in range(6)]
    assert all(set(COLUMNS) < set(row) for row in rows)
    assert [(row["diameter"], row["change"]) for row in rows[:3]] == [("16", "+30"), ("16", "-30"), ("10", "+30")]
    of = {(row["method"], row["image"]): float(row["contrast"]) for row in rows}
    assert all(10 < contrast < 110 for contrast in of.values())
    assert of["cubic", "0"] > of["cubic", "4"]  # a larger sphere keeps more
    assert all(of["cubic+consistency", str(n)] > of["cubic", str(n)] for n in range(6))
    assert all(float(row["inside"]) > float(row["contrast"]) for row in rows if row["method"] == "cubic")
    assert all(float(row["residual"]) < 1e-6 for row in rows if row["method"] != "cubic")
    assert {path.name for path in (tmp_path / "images").iterdir()} == {*methods, "truth"}
    again = measure_lesions(Job(asked, Source(head), "12", methods[:1], None))
    assert [without_costs(row) for row in again] == [without_costs(row) for row in rows[:6]]


def without_costs(row: table.Row) -> table.Row:
    return {column: cell for column, cell in row.items() if column not in ("seconds", "MB")}


def test_a_volume_that_is_no_head_is_refused_by_name(head: Path, tmp_path: Path) -> None:
    image = nib.load(head)
    assert isinstance(image, nib.Nifti1Image)
    values = np.random.default_rng(0).normal(100, 10, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "knee.nii.gz")
    asked = Evaluation(tmp_path, tmp_path, task="lesions")
    with pytest.raises(InputRefusedError, match=r"^knee\.nii\.gz: "):
        measure_lesions(Job(asked, Source(tmp_path / "knee.nii.gz"), "12", ("cubic",), None))


def test_the_table_has_means_and_the_least_by_diameter_and_sign() -> None:
    def row(method: str, subject: str, image: str, diameter: str, change: str, contrast: str) -> table.Row:
        row = dict.fromkeys(("task", "level", "subject", "image", "method", *COLUMNS), "")
        row |= {"level": "5", "subject": subject, "image": image, "method": method, "inside": contrast}
        return row | {"diameter": diameter, "change": change, "contrast": contrast}

    rows = [
        row("cubic", "a", "0", "16", "+30", "80"),
        row("cubic", "a", "1", "6", "-30", "40"),
        row("cubic", "b", "0", "16", "+30", "90"),
        row("self", "a", "0", "16", "+30", "95"),
        row("self", "a", "1", "6", "-30", "39"),
        row("self", "b", "0", "16", "+30", "99"),
        row("population", "a", "0", "16", "+30", ""),
    ]
    header, _, cubic, own = lesion_table(rows)
    assert header.startswith("| method | 16 mm +30 % | 6 mm -30 % | 10 mm and above |")
    assert cubic == "| cubic | 85.0 (80.0) | 40.0 (40.0) | 85.0 (80.0) | 85.0 (80.0) | 40 |  |"
    assert own == "| self | 97.0 (95.0) | 39.0 (39.0) | 97.0 (95.0) | 97.0 (95.0) | 39 | 2 of 3 |"
    text = lesion_report(rows, {"5": "lesions 5"})
    assert "### lesions 5" in text
    assert "3 spheres of 2 heads." in text
    assert "Refused, and in no mean: population a." in text


def test_the_command_goes_on_with_a_table(head: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["evaluate", "--data", str(head.parent), "--out", str(tmp_path), "--task", "lesions", "--levels", "12"]
    asked = Evaluation(head.parent, tmp_path, task="lesions")
    before = measure_lesions(Job(asked, Source(head), "12", ("cubic",), None))
    table.write(tmp_path / "lesions.csv", before)
    assert main([*options, "--methods", "cubic", "cubic+consistency"]) == 0
    rows = table.read(tmp_path / "lesions.csv")
    assert [(row["image"], row["method"]) for row in rows] == [
        (str(n), method) for n in range(6) for method in ("cubic", "cubic+consistency")
    ]
    assert rows[::2] == before  # costs and all: it is not measured again
    text = (tmp_path / "lesions.md").read_text()
    assert "not for diagnosis" in text
    assert "mean in the sphere less mean of its surroundings" in text
    assert (tmp_path / "images" / "lesions-12.png").stat().st_size > 1000
    assert main([*options, "--methods", "moon"]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("brgm-med: ")]
    assert len(errors) == 1
    assert "--task lesions has cubic, cubic+consistency" in errors[0]
