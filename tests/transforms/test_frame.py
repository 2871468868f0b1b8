"""Frames: one scale for both axes, nothing changed where nothing has to be, linear, and back where it came from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from brgm_med.corruptions import Downsample
from brgm_med.errors import InputRefusedError
from brgm_med.transforms import Frame
from tests import contracts

SIZES = [(20, 30), (31, 17), (64, 64), (7, 100), (33, 32), (256, 129)]
HOWS = ["contain", "crop"]


def smooth(height: int, width: int, waves: float = 1.5) -> Tensor:
    """[1, 2, H, W]: so many waves over the longer side."""
    y, x = torch.meshgrid(*((torch.arange(n).double() + 0.5) for n in (height, width)), indexing="ij")
    k = 2 * math.pi * waves / max(height, width)
    return torch.stack([torch.sin(k * x) * torch.cos(0.7 * k * y), torch.cos(k * (x + y))])[None]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("how", HOWS)
def test_nothing_is_changed_where_the_shapes_agree(how: str) -> None:
    image = torch.randn(2, 3, 40, 25)
    frame = Frame.fit((40, 25), (40, 25), how)  # type: ignore[arg-type]
    assert (frame.scale, frame.offset) == (1, (0, 0))
    assert torch.equal(frame.to_frame(image), image)
    assert torch.equal(frame.from_frame(image), image)
    assert frame.seen().all()
    assert frame.reached().all()


def test_where_the_scale_is_one_pixels_are_moved_and_not_changed() -> None:
    image = torch.randn(1, 1, 40, 25)
    frame = Frame.fit((40, 25), (40, 40))
    framed = frame.to_frame(image)
    assert torch.equal(framed[..., 7:32], image)
    assert torch.equal(framed[..., :7], image[..., :1].expand(1, 1, 40, 7))  # padded with the edge
    assert torch.equal(frame.from_frame(framed), image)
    assert frame.seen().sum(1).unique().tolist() == [25]
    assert frame.seen()[:, 7:32].all()
    frame = Frame.fit((40, 25), (25, 25), "crop")
    assert torch.equal(frame.to_frame(image), image[..., 7:32, :])
    assert frame.reached()[7:32].all()
    assert int(frame.reached().sum()) == 25 * 25


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prior", [(64, 64), (80, 96)])
def test_smooth_pictures_survive_a_round_trip(size: tuple[int, int], prior: tuple[int, int], how: str) -> None:
    """Inside what both cover, and away from edges; what the frame's coarser pixels cost is second order."""
    image = smooth(*size)
    frame = Frame.fit(size, prior, how)  # type: ignore[arg-type]
    again = frame.from_frame(frame.to_frame(image))
    assert again.shape == image.shape
    margin = math.ceil(2 / min(frame.scale, 1))
    outside = torch.nn.functional.pad(~frame.reached()[None], [margin] * 4, value=True)
    inside = torch.nn.functional.max_pool2d(outside.float(), 2 * margin + 1, 1)[0] == 0
    assert inside.any() or min(size) <= 2 * margin
    torch.testing.assert_close(again[..., inside], image[..., inside], atol=0.02, rtol=0)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", [(50, 90), (300, 200), (41, 33)])
def test_a_circle_stays_a_circle_and_up_stays_up(size: tuple[int, int], how: str) -> None:
    """Second moments agree along both axes, in the frame and back; a mark above and left of it stays there."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    radius = 0.3 * min(size)
    disc = ((radius - torch.hypot(y - height / 2, x - width / 2)) / 2 + 0.5).clamp(0, 1).double()
    frame = Frame.fit(size, (64, 64), how)  # type: ignore[arg-type]

    def moments(image: Tensor) -> tuple[float, float, float, float]:
        rows, columns = (torch.arange(n).double() + 0.5 for n in image.shape)
        mass = image.sum()
        mean_y, mean_x = (image.sum(1) @ rows) / mass, (image.sum(0) @ columns) / mass
        var_y, var_x = (image.sum(1) @ (rows - mean_y) ** 2) / mass, (image.sum(0) @ (columns - mean_x) ** 2) / mass
        return float(mean_y), float(mean_x), float(var_y), float(var_x)

    framed = frame.to_frame(disc[None, None])
    _, _, var_y, var_x = moments(framed[0, 0])
    assert math.sqrt(var_y / var_x) == pytest.approx(1, abs=0.01)
    assert 2 * math.sqrt(var_y) == pytest.approx(frame.scale * radius, rel=0.05)
    for factor in (1, 2):
        back = moments(frame.from_frame(framed, factor)[0, 0])
        assert back[:2] == pytest.approx((factor * height / 2, factor * width / 2), abs=0.05 * factor)
        assert math.sqrt(back[2] / back[3]) == pytest.approx(1, abs=0.01)
    mark = torch.zeros(1, 1, *size).double()
    mark[..., height // 2 - 8 : height // 2 - 3, width // 2 - 8 : width // 2 - 3] = 1
    mean_y, mean_x, *_ = moments(frame.to_frame(mark)[0, 0])
    expected = [frame.scale * (n // 2 - 5.5) + o for n, o in zip(size, frame.offset, strict=True)]
    assert (mean_y, mean_x) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", SIZES)
def test_the_maps_are_linear_and_their_vector_jacobian_product_is_the_adjoint(
    size: tuple[int, int], how: str, factor: int
) -> None:
    """And constants stay constant: every row of weights sums to one."""
    frame = Frame.fit(size, (48, 40), how)  # type: ignore[arg-type]
    for apply, shape in ((frame.to_frame, size), (frame.measurement(factor), frame.frame)):
        contracts.adjoint_is_exact(apply, (2, 1, *shape))
        ones = apply(torch.ones(1, 1, *shape))
        torch.testing.assert_close(ones, torch.ones_like(ones))
    assert frame.from_frame(noise(1, 1, 48, 40), factor).shape[2:] == (factor * size[0], factor * size[1])
    assert frame.reached(factor).shape == (factor * size[0], factor * size[1])
    assert frame.seen().shape == (48, 40)
    assert frame.seen().all() if how == "crop" else frame.reached(factor).all()


@pytest.mark.parametrize("factor", [2, 4])
def test_shrinking_by_a_whole_number_is_the_box_average(factor: int) -> None:
    image = noise(1, 3, 32, 48)
    frame = Frame.fit((32, 48), (32 // factor, 48 // factor))
    torch.testing.assert_close(frame.to_frame(image), Downsample(factor)(image))
    coarse = Frame.fit((32 // factor, 48 // factor), (32, 48))
    torch.testing.assert_close(coarse.measurement()(image), Downsample(factor)(image))
    assert torch.equal(coarse.from_frame(image, factor), image)  # the frame is the finer grid itself


def test_enlarging_reproduces_parabolas_but_for_the_edges() -> None:
    """Keys' kernel is exact for polynomials of second degree."""
    place = (torch.arange(30).double() + 0.5) / 30
    parabola = (1 + place - 2 * place**2).expand(1, 1, 30, 30)
    fine = Frame.fit((30, 30), (70, 70)).to_frame(parabola)
    place = (torch.arange(70).double() + 0.5) / 70
    torch.testing.assert_close(fine[0, 0, 0, 5:-5], (1 + place - 2 * place**2)[5:-5])


def test_images_of_another_size_and_hopeless_shapes_are_refused() -> None:
    frame = Frame.fit((30, 20), (16, 16))
    assert Frame.fit((30, 20), (16, 16)) == frame
    for apply in (frame.to_frame, frame.from_frame):
        with pytest.raises(ValueError, match="are needed"):
            apply(torch.zeros(1, 1, 20, 30))
    with pytest.raises(ValueError, match="at least one pixel"):
        Frame.fit((0, 5), (16, 16))
    with pytest.raises(InputRefusedError, match="1000 x 3 pixels is too narrow for a prior of 64 x 64"):
        Frame.fit((3, 1000), (64, 64))
