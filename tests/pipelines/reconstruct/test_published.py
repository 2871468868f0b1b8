"""The paper's own search, on slices and on a volume: its energies, and what comes after it by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from brgm_med.corruptions import Downsample
from brgm_med.energies import Colinear, Gaussian, Pixel
from brgm_med.networks.condition import position_code
from brgm_med.pipelines.reconstruct.measurement import Scan
from brgm_med.pipelines.reconstruct.volume import reconstruct_volume
from brgm_med.posterior import w_statistics
from brgm_med.priors.bundle import PriorBundle, load
from brgm_med.reconstruction import map_images, paper_posterior, reconstruct_slices
from brgm_med.search import PAPER
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid
from brgm_med.transforms.prepare import Heads
from brgm_med.transforms.simulate import degrade
from tests import tiny
from tests.bundles import export
from tests.heads import template_head

INDEX = (0, 2, 4)
FEW = PAPER.limited_to(3)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> PriorBundle:
    return load(str(export(tiny.state(), tmp_path_factory.mktemp("priors") / "tiny")))


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return torch.as_tensor(tiny.stacks()[1]).float()[list(INDEX)]


def test_the_energy_is_equation_5_around_the_mean_w_of_each_position(prior: PriorBundle, truth: Tensor) -> None:
    f = Downsample(2)
    posterior, start = paper_posterior(prior, INDEX, f, f(truth), None)
    kinds = [type(term) for term in (*posterior.likelihood, *posterior.prior)]
    assert kinds == [Pixel, Gaussian, Colinear]
    assert posterior.likelihood == (Pixel(0.001 * 127.5**2),)
    for n, index in enumerate(INDEX):
        code = position_code(prior.positions()[index : index + 1], prior.generator.c_dim)
        one = w_statistics(prior.generator, c=code)
        torch.testing.assert_close(start[n], one.mean.expand(prior.generator.num_ws, -1))
    energies = posterior.energies(start)
    torch.testing.assert_close(energies["Gaussian"], torch.zeros(3))
    torch.testing.assert_close(energies["Colinear"], torch.zeros(3), rtol=0, atol=1e-3)


def test_slices_are_projected_unless_that_is_left_out(prior: PriorBundle, truth: Tensor) -> None:
    f = Downsample(3)
    published = map_images(prior, INDEX, f, f(truth), search=FEW)
    plain = reconstruct_slices(prior, INDEX, f, f(truth), search=dataclasses.replace(FEW, projected=False))
    assert torch.equal(plain, published)
    projected = reconstruct_slices(prior, INDEX, f, f(truth), search=FEW)
    torch.testing.assert_close(f(projected), f(truth), rtol=0, atol=1e-5)
    assert float((f(plain) - f(truth)).abs().max()) > 1e-3


def test_a_volume_is_searched_as_published(tmp_path: Path) -> None:
    ((values, fine),) = Heads([template_head(tmp_path / "head.nii.gz")])
    coarse = Grid((fine.shape[0], fine.shape[1], fine.shape[2] // 3), fine.affine.copy())
    coarse.affine[:3, 2] *= 3
    coarse.affine[:3, 3] += fine.affine[:3, 2]
    model = AcquisitionModel((fine.spacing[0], fine.spacing[1], 3 * fine.spacing[2]), stated=True)
    scan = Scan(degrade(values, fine, coarse, model), coarse, model, 0.0, "head")
    results = [
        reconstruct_volume(scan, load(), own=False, search=dataclasses.replace(FEW, projected=projected))
        for projected in (True, False)
    ]
    projected, published = results
    scale = float(scan.values.std())
    residuals = [m.operator(r.image.double()) - m.values for r in results for m in r.measurements]
    inside = [m.inside for r in results for m in r.measurements]
    sizes = [float(r[0][i].square().mean().sqrt()) / scale for r, i in zip(residuals, inside, strict=True)]
    assert sizes[0] < 1e-5
    assert sizes[1] > 1e-3
    assert float(projected.measured.max()) > 0.1
    assert not published.measured.any()
    assert torch.equal(published.image, published.unprojected)
