"""Tests of `jaxstyle.metrics`."""

import jax
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle import metrics


def _reference(x, y):
    """Eq. 13 of Wang et al., window by window, in float64."""
    places = np.arange(11) - 5
    line = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(line, line)
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            for channel in range(x.shape[2]):
                a, b = (p[top : top + 11, left : left + 11, channel] for p in (x, y))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                variance_a = (window * (a - mean_a) ** 2).sum()
                variance_b = (window * (b - mean_b) ** 2).sum()
                covariance = (window * (a - mean_a) * (b - mean_b)).sum()
                top_part = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
                values.append(
                    top_part / ((mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4))
                )
    return np.mean(values)


def _pictures(*shape):
    draw = np.random.default_rng(0)
    x = draw.random(shape)
    return x, np.clip(0.7 * x + 0.3 * draw.random(shape), 0, 1)


def test_ssim_is_the_definition():
    x, y = _pictures(2, 16, 19, 3)
    found = jax.jit(metrics.ssim)(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(found, [_reference(*p) for p in zip(x, y, strict=True)], rtol=1e-4)


def test_ssim_of_equal_pictures_is_one_and_of_inverse_ones_below_zero():
    x, _ = _pictures(1, 20, 20, 3)
    assert metrics.ssim(x, x)[0] == pytest.approx(1, abs=1e-6)
    assert metrics.ssim(x, 1 - x)[0] < 0
    flat = np.full((1, 12, 12, 3), 0.3, np.float32)
    assert metrics.ssim(flat, flat)[0] == pytest.approx(1, abs=1e-6)


def test_ssim_knows_the_range_of_values():
    x, y = _pictures(1, 15, 15, 1)
    np.testing.assert_allclose(
        metrics.ssim(255 * x, 255 * y, max_value=255), metrics.ssim(x, y), rtol=1e-3
    )


def test_blocks_of_a_large_picture_make_the_whole(monkeypatch):
    x, y = (p.astype(np.float32) for p in _pictures(1, 41, 37, 3))
    whole = metrics.ssim(x, y)
    monkeypatch.setattr(metrics, "_BLOCK", 9)
    np.testing.assert_allclose(metrics.ssim(x, y), whole, rtol=1e-5)


def test_ssim_has_gradients():
    x, y = _pictures(1, 12, 12, 1)
    check_grads(
        lambda p: metrics.ssim(p, y.astype(np.float32)),
        (x.astype(np.float32),),
        1,
        ["rev"],
        eps=1e-2,
    )


def test_ssim_refuses_other_shapes():
    with pytest.raises(ValueError, match="11 pixels"):
        metrics.ssim(np.zeros((1, 10, 20, 3)), np.zeros((1, 10, 20, 3)))
    with pytest.raises(ValueError, match="one size"):
        metrics.ssim(np.zeros((1, 20, 20, 3)), np.zeros((1, 20, 21, 3)))
