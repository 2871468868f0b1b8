"""Metrics and perceptual distances: definitions, and agreement with reference packages."""

import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import PSNRMetric, SSIMMetric
from torch import Tensor

from brgm_med import metrics
from brgm_med.perceptual import LPIPS
from brgm_med.weights import CONVOLUTIONS, Net, lpips_heads
from tests.perceptual import random_images, random_weights

GIVEN = Path(os.environ.get("BRGM_MED_DATA", "../shared/data")).parent / "weights" / "alexnet_features_fp16.pth"


def reference(net: Net, weights: dict[str, Tensor]) -> torch.nn.Module:
    """The lpips package's own network around these backbone weights."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision by a deprecated argument
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    slices = (getattr(model.net, f"slice{i}") for i in range(1, 6))
    layers = {name: layer for part in slices for name, layer in part.named_children()}
    for index in CONVOLUTIONS[net]:
        for kind in ("weight", "bias"):
            getattr(layers[str(index)], kind).data.copy_(weights[f"features.{index}.{kind}"])
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    return LPIPS("alex", random_weights("alex"), lpips_heads("alex"))


# Pixels.


def test_equal_images_are_perfect() -> None:
    x = random_images(3, 1, 24, 20)
    assert metrics.mae(x, x, 2.0).tolist() == [0, 0, 0]
    assert metrics.rmse(x, x, 2.0).tolist() == [0, 0, 0]
    assert metrics.psnr(x, x, 2.0).tolist() == [math.inf] * 3
    torch.testing.assert_close(metrics.ssim(x, x, 2.0), torch.ones(3, dtype=torch.float64))


def test_known_values() -> None:
    truth = torch.zeros(2, 1, 16, 16)
    image = truth.clone()
    image[1, :, :, ::4] = 51.0  # a quarter of the second image is wrong by 51
    torch.testing.assert_close(metrics.mae(image, truth, 255).tolist(), [0.0, 12.75])
    torch.testing.assert_close(metrics.rmse(image, truth, 255).tolist(), [0.0, 25.5])
    torch.testing.assert_close(metrics.psnr(image, truth, 255)[1].item(), 20.0)  # rmse is a tenth of the range


def test_psnr_and_rmse_say_the_same() -> None:
    x, t = random_images(4, 1, 15, 13), random_images(4, 1, 15, 13, seed=2)
    rmse = metrics.rmse(x, t, 3.0)
    torch.testing.assert_close(metrics.psnr(x, t, 3.0), 20 * torch.log10(255 / rmse))


def test_ssim_of_constants_is_the_luminance_term() -> None:
    a, b, c1 = 0.3, 0.5, 0.01**2
    value = metrics.ssim(torch.full((1, 1, 12, 14), a), torch.full((1, 1, 12, 14), b), 1.0).item()
    assert value == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-5)


@pytest.mark.parametrize("name", ["mae", "rmse", "psnr", "ssim"])
def test_pixel_metrics_ignore_units_mirrors_and_batch_mates(name: str) -> None:
    metric = getattr(metrics, name)
    x, t = random_images(3, 2, 19, 23), random_images(3, 2, 19, 23, seed=2)
    expected = metric(x, t, 2.0)
    torch.testing.assert_close(metric(x * 700, t * 700, 1400.0), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(metric(x.flip(-1), t.flip(-1), 2.0), expected)
    torch.testing.assert_close(metric(t, x, 2.0), expected)
    torch.testing.assert_close(metric(x[1:2], t[1:2], 2.0), expected[1:2])


def test_ssim_agrees_with_skimage() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    x = random_images(2, 3, 31, 27)
    t = (x + 0.3 * random_images(2, 3, 31, 27, seed=5)).clamp(-1, 1)
    expected = [
        skimage.structural_similarity(
            a,
            b,
            data_range=2.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x.double().numpy(), t.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(x, t, 2.0).numpy(), expected, rtol=1e-9)


def test_psnr_agrees_with_skimage() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    x, t = random_images(4, 1, 31, 27), random_images(4, 1, 31, 27, seed=5)
    pairs = zip(t.double().numpy(), x.double().numpy(), strict=True)
    expected = [skimage.peak_signal_noise_ratio(a, b, data_range=2.0) for a, b in pairs]
    np.testing.assert_allclose(metrics.psnr(x, t, 2.0).numpy(), expected, rtol=1e-9)


def test_psnr_and_ssim_agree_with_monai() -> None:
    x = random_images(3, 2, 31, 27)
    t = (x + 0.3 * random_images(3, 2, 31, 27, seed=5)).clamp(-1, 1)
    psnr, ssim = PSNRMetric(max_val=2.0), SSIMMetric(spatial_dims=2, data_range=2.0, win_size=11, kernel_sigma=1.5)
    torch.testing.assert_close(metrics.psnr(x, t, 2.0), torch.as_tensor(psnr(x.double(), t.double()))[:, 0])
    torch.testing.assert_close(
        metrics.ssim(x, t, 2.0).float(), torch.as_tensor(ssim(x, t))[:, 0], rtol=1e-5, atol=1e-6
    )  # float32


def test_wrong_calls_are_refused() -> None:
    x = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match="equal shapes"):
        metrics.mae(x, x[..., :-1], 1.0)
    with pytest.raises(ValueError, match="positive"):
        metrics.psnr(x, x, 0.0)
    with pytest.raises(ValueError, match="11 pixels"):
        metrics.ssim(x[..., :10], x[..., :10], 1.0)
    with pytest.raises(ValueError, match="non-empty"):
        metrics.bootstrap_interval([], seed=0)


# Bootstrap.


def test_bootstrap_interval_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    low, high = metrics.bootstrap_interval(values.tolist(), seed=1)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert (low, high) == metrics.bootstrap_interval(torch.from_numpy(values), seed=1)
    assert metrics.bootstrap_interval([3.0, 3.0, 3.0], seed=0) == (3.0, 3.0)


def test_bootstrap_intervals_are_quantiles_of_means_of_resamples() -> None:
    values = np.random.default_rng(3).normal(size=15)
    drawn = np.random.default_rng(7).integers(15, size=(10_000, 15))
    low, high = np.quantile(values[drawn].mean(1), (0.025, 0.975))
    assert metrics.bootstrap_interval(values.tolist(), seed=7) == pytest.approx((low, high), rel=1e-13)
    assert metrics.bootstrap_interval([2.5], seed=0) == (2.5, 2.5)


# Perceptual.


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_agrees_with_the_package(net: Net) -> None:
    weights = random_weights(net)
    ours, theirs = LPIPS(net, weights, lpips_heads(net)), reference(net, weights)
    a, b = random_images(2, 3, 40, 48), random_images(2, 3, 40, 48, seed=2).requires_grad_()
    expected = theirs(a, b).flatten()
    found = ours(a, b)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    gradients = [torch.autograd.grad(value.sum(), b)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


@pytest.mark.skipif(not GIVEN.is_file(), reason="no AlexNet weights beside the data")
def test_lpips_with_real_weights_agrees_with_the_package_and_rates_blur_above_zero() -> None:
    from brgm_med.weights import lpips_features

    weights = lpips_features("alex", GIVEN)
    ours, theirs = LPIPS("alex", weights, lpips_heads("alex")), reference("alex", weights)
    a = random_images(2, 1, 80, 96)
    slight, strong = (torch.lerp(a, random_images(2, 1, 80, 96, seed=3), f) for f in (0.1, 0.6))
    torch.testing.assert_close(ours(a, strong), theirs(a, strong).flatten(), rtol=1e-4, atol=1e-7)
    assert (ours(a, slight) < ours(a, strong)).all()


def test_lpips_is_zero_only_for_equal_images_and_symmetric(alex: LPIPS) -> None:
    a, b = random_images(3, 1, 48, 40), random_images(3, 1, 48, 40, seed=2)
    assert alex(a, a).tolist() == [0, 0, 0]
    assert (alex(a, b) > 0).all()
    torch.testing.assert_close(alex(a, b), alex(b, a))


def test_grey_is_three_equal_channels(alex: LPIPS) -> None:
    a, b = random_images(2, 1, 48, 40), random_images(2, 1, 48, 40, seed=2)
    torch.testing.assert_close(alex(a, b), alex(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))


def test_kept_features_of_one_target_serve_a_batch(alex: LPIPS) -> None:
    target, images = random_images(1, 1, 48, 40), random_images(4, 1, 48, 40, seed=2)
    kept = alex.features(target)
    found = alex.distance(alex.features(images), kept)
    torch.testing.assert_close(found, torch.cat([alex(image[None], target) for image in images]))


def test_size_is_the_size_at_which_features_are_taken() -> None:
    weights, heads = random_weights("alex"), lpips_heads("alex")
    a, b = random_images(2, 1, 80, 96), random_images(2, 1, 80, 96, seed=2)
    small = [torch.nn.functional.interpolate(x, (40, 48), mode="bilinear", antialias=True) for x in (a, b)]
    found = LPIPS("alex", weights, heads, size=(40, 48))(a, b)
    torch.testing.assert_close(found, LPIPS("alex", weights, heads)(*small))


def test_gradient_is_finite_where_all_features_are_zero() -> None:
    weights = {k: torch.zeros_like(v) for k, v in random_weights("alex").items()}
    image = random_images(1, 1, 40, 40).requires_grad_()
    LPIPS("alex", weights, lpips_heads("alex"))(image, random_images(1, 1, 40, 40, seed=2)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() == 0


def test_nothing_in_lpips_is_trainable(alex: LPIPS) -> None:
    assert not list(alex.parameters())
    assert not any(buffer.requires_grad for buffer in alex.buffers())


def test_too_small_images_are_refused(alex: LPIPS) -> None:
    alex.features(torch.zeros(1, 1, 31, 31))
    with pytest.raises(ValueError, match="at least 31"):
        alex.features(torch.zeros(1, 1, 30, 64))
    with pytest.raises(ValueError, match="1 or 3"):
        alex.features(torch.zeros(1, 2, 64, 64))


def test_lpips_metric_maps_the_window_to_the_networks_range(alex: LPIPS) -> None:
    a, b = random_images(5, 1, 48, 40), random_images(5, 1, 48, 40, seed=2)
    found = metrics.lpips(a * 100 + 300, b * 100 + 300, (200.0, 400.0), alex, batch=2)
    torch.testing.assert_close(found, alex(a, b), rtol=1e-3, atol=1e-6)
    burnt = a.clone()
    burnt[:, :, :5] = 1.0
    brighter = burnt.clone()
    brighter[:, :, :5] = 7.0  # outside the window: shown just as white
    torch.testing.assert_close(metrics.lpips(brighter, burnt, (-1.0, 1.0), alex), torch.zeros(5))
