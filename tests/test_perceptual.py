"""Rearrangements that are made for speed agree with the plain operations, with both derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from brgm_med.perceptual import LPIPS, strided_convolution
from brgm_med.weights import lpips_heads
from tests.contracts import derivatives
from tests.perceptual import random_images, random_weights


@pytest.mark.parametrize(("height", "width"), [(11, 13), (16, 17), (12, 10)])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 2, 1), (3, 1, 1), (7, 4, 2), (4, 3, 0)])
def test_strided_convolution_is_conv2d(height: int, width: int, kernel: int, stride: int, padding: int) -> None:
    x = torch.randn(2, 2, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(x, weight, stride=stride, padding=padding)
    torch.testing.assert_close(strided_convolution(x, weight, stride, padding), plain, rtol=0, atol=1e-12)

    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return strided_convolution(x, weight, stride, padding)

    if height == 11 and stride == 4:
        derivatives(function, [x, weight], fast=True)


@torch.no_grad()
def test_lpips_of_grey_images_is_that_of_three_equal_channels() -> None:
    lpips = LPIPS("alex", random_weights("alex"), lpips_heads("alex"))
    a, b = random_images(2, 1, 45, 38), random_images(2, 1, 45, 38, seed=2)
    torch.testing.assert_close(lpips(a, b), lpips(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))


def test_lpips_in_bfloat16_is_within_a_hundredth() -> None:
    lpips = LPIPS("alex", random_weights("alex"), lpips_heads("alex"))
    a = random_images(4, 1, 80, 96)
    for noise in (0.1, 0.5):
        b = (a + noise * torch.randn_like(a)).requires_grad_()
        exact = lpips(a, b)
        (gradient,) = torch.autograd.grad(exact.sum(), b)
        with torch.autocast("cpu", torch.bfloat16):
            near = lpips(a, b)
        assert near.dtype == torch.float32
        torch.testing.assert_close(near, exact, rtol=0.01, atol=0)
        (slope,) = torch.autograd.grad(near.sum(), b)
        assert float((slope - gradient).norm() / gradient.norm()) < 0.1
