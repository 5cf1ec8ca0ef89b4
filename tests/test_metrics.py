"""Tests of `jaxstyle.metrics`, against NumPy in double precision."""

import functools

import jax
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import linalg, stats

from jaxstyle import metrics

pytestmark = pytest.mark.usefixtures("quick_compiler")

# Compiled, because step by step they compile each step.
psnr = jax.jit(metrics.psnr, static_argnames="max_value")
ssim = jax.jit(metrics.ssim, static_argnames="max_value")
ms_ssim = jax.jit(metrics.ms_ssim, static_argnames=("max_value", "weights"))
color_histogram_distance = jax.jit(metrics.color_histogram_distance, static_argnames="bins")
content_distance = jax.jit(metrics.content_distance)
style_distance = jax.jit(metrics.style_distance, static_argnames="form")
perceptual_distance = jax.jit(metrics.perceptual_distance)
frechet_distance = jax.jit(metrics.frechet_distance)


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
    found = ssim(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(found, [_reference(*p) for p in zip(x, y, strict=True)], rtol=1e-4)


def test_ssim_of_equal_pictures_is_one_and_of_inverse_ones_below_zero():
    x, _ = _pictures(1, 20, 20, 3)
    assert ssim(x, x)[0] == pytest.approx(1, abs=1e-6)
    assert ssim(x, 1 - x)[0] < 0
    flat = np.full((1, 12, 12, 3), 0.3, np.float32)
    assert ssim(flat, flat)[0] == pytest.approx(1, abs=1e-6)


def test_ssim_knows_the_range_of_values():
    x, y = _pictures(1, 15, 15, 1)
    np.testing.assert_allclose(ssim(255 * x, 255 * y, max_value=255), ssim(x, y), rtol=1e-3)


def test_blocks_of_a_large_picture_make_the_whole(monkeypatch):
    x, y = (p.astype(np.float32) for p in _pictures(1, 41, 37, 3))
    whole = metrics.ssim(x, y)
    monkeypatch.setattr(metrics, "_BLOCK", 9)
    np.testing.assert_allclose(metrics.ssim(x, y), whole, rtol=1e-5)


def test_ssim_has_gradients():
    x, y = _pictures(1, 12, 12, 1)
    x, y = x.astype(np.float32), y.astype(np.float32)
    check_grads(lambda p: ssim(p, y), (x,), 1, ["rev"], eps=1e-2)


def test_ssim_refuses_other_shapes():
    with pytest.raises(ValueError, match="11 pixels"):
        metrics.ssim(np.zeros((1, 10, 20, 3)), np.zeros((1, 10, 20, 3)))
    with pytest.raises(ValueError, match="one size"):
        metrics.ssim(np.zeros((1, 20, 20, 3)), np.zeros((1, 20, 21, 3)))
    with pytest.raises(ValueError, match=r"references of shape \[3 or 1, 20, 20, 3\], got \(2,"):
        metrics.ssim(np.zeros((3, 20, 20, 3)), np.zeros((2, 20, 20, 3)))


# --- psnr ----------------------------------------------------------------------------------------


def test_psnr_is_the_definition():
    x, y = _pictures(3, 6, 5, 3)
    expected = 10 * np.log10(1 / np.mean((x - y) ** 2, axis=(1, 2, 3)))
    found = psnr(x, y)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(psnr(255 * x, 255 * y, max_value=255), expected, rtol=1e-5)
    shared = 10 * np.log10(1 / np.mean((x - y[:1]) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(psnr(x, y[:1]), shared, rtol=1e-5)


def test_psnr_of_equal_pictures_is_infinite_and_of_opposite_ones_zero():
    black = np.zeros((2, 4, 4, 3), np.float16)
    other = black.copy()
    other[1] = 1
    np.testing.assert_array_equal(psnr(black, other), [np.inf, 0])


# --- several scales ------------------------------------------------------------------------------


def _structure_and_product(x, y):
    """Means over positions of contrast and structure, and of all three; `[channels]` each."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def blur(p):
        views = np.lib.stride_tricks.sliding_window_view(p, (11, 11), (0, 1))
        return np.einsum("hwcij,ij->hwc", views, window)

    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    structure = (2 * (blur(x * y) - mean_x * mean_y) + 9e-4) / (variances + 9e-4)
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return structure.mean((0, 1)), (luminance * structure).mean((0, 1))


def _several_scales(x, y, weights):
    result = 1
    for scale, weight in enumerate(weights):
        if scale:
            x, y = (
                sum(p[i : p.shape[0] // 2 * 2 : 2, j : p.shape[1] // 2 * 2 : 2] for i, j in CORNERS)
                / 4
                for p in (x, y)
            )
        mean = _structure_and_product(x, y)[scale == len(weights) - 1]
        result = result * np.maximum(mean, 0) ** weight
    return result.mean()


CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]
PAPER = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def test_ms_ssim_is_the_definition_at_five_scales():
    x, y = _pictures(1, 179, 190, 1)
    found = ms_ssim(x, y)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [_several_scales(x[0], y[0], PAPER)], rtol=1e-4)


def test_ms_ssim_of_other_weights_channels_and_ranges():
    x, y = _pictures(2, 23, 29, 3)
    expected = [_several_scales(*p, (0.7, 0.4)) for p in zip(x, y, strict=True)]
    np.testing.assert_allclose(ms_ssim(x, y, weights=(0.7, 0.4)), expected, rtol=1e-4)
    scaled = ms_ssim(255 * x, 255 * y, weights=(0.7, 0.4), max_value=255)
    np.testing.assert_allclose(scaled, expected, rtol=1e-3)
    np.testing.assert_allclose(ms_ssim(x, y, weights=(1,)), ssim(x, y), rtol=1e-5)


def test_ms_ssim_has_finite_gradients_where_means_are_negative():
    x, _ = (p.astype(np.float32) for p in _pictures(1, 22, 22, 1))
    few = functools.partial(ms_ssim, weights=(0.3, 0.7))
    value_and_gradient = jax.jit(jax.value_and_grad(lambda p, q: few(p, q)[0]))
    value, gradient = value_and_gradient(x, 1 - x)
    assert value == 0
    assert np.isfinite(gradient).all()
    for flat in (0, 0.3):
        value, gradient = value_and_gradient(np.full_like(x, flat), np.full_like(x, flat))
        assert value == pytest.approx(1, abs=1e-6)
        assert np.isfinite(gradient).all()
    check_grads(lambda p: few(p, 0.5 * x + 0.2), (x,), 1, ["rev"], eps=1e-2)


def test_ms_ssim_refuses_small_pictures_and_no_scales():
    with pytest.raises(ValueError, match="176 pixels or more for 5 scales"):
        metrics.ms_ssim(np.zeros((1, 175, 300, 3)), np.zeros((1, 175, 300, 3)))
    with pytest.raises(ValueError, match="at least one scale"):
        metrics.ms_ssim(np.zeros((1, 20, 20, 3)), np.zeros((1, 20, 20, 3)), weights=())


# --- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
def test_color_histogram_distance_is_that_of_the_binned_values(batch):
    rng = np.random.default_rng(0)
    x = rng.random((2, 9, 7, 3), np.float32)
    y = rng.random((batch, 5, 11, 3), np.float32) ** 2
    found = color_histogram_distance(x, y, bins=16)
    assert found.dtype == np.float32
    for i, value in enumerate(found):
        pairs = [(x[i, ..., c].ravel(), y[i % batch, ..., c].ravel()) for c in range(3)]
        binned = [[np.floor(16 * p) / 16 for p in pair] for pair in pairs]
        assert value == pytest.approx(
            np.mean([stats.wasserstein_distance(*pair) for pair in binned]), rel=1e-5
        )
        exact = np.mean([stats.wasserstein_distance(*pair) for pair in pairs])
        assert value == pytest.approx(exact, abs=1 / 16)


def test_color_histogram_distance_by_hand():
    x = np.zeros((1, 1, 2, 2), np.float32)
    y = np.array([0.25, 2.0, -1.0, 1.0], np.float32).reshape(1, 2, 1, 2)
    distance = functools.partial(color_histogram_distance, bins=4)
    # First channel: 0, 0 against 0.25 and -1, which counts as 0; second: against the last bin.
    assert distance(x, y)[0] == pytest.approx((0.125 + 0.75) / 2)
    assert distance(y, x)[0] == pytest.approx((0.125 + 0.75) / 2)
    assert distance(y, y[:, ::-1])[0] == 0
    assert color_histogram_distance(x, x + 1)[0] == pytest.approx(63 / 64)


def test_color_histogram_distance_refuses():
    x = np.zeros((2, 3, 3, 3))
    with pytest.raises(ValueError, match=r"\[2 or 1, any height, any width, 3\]"):
        metrics.color_histogram_distance(x, np.zeros((2, 3, 3, 1)))
    with pytest.raises(ValueError, match="at least 1 bin"):
        metrics.color_histogram_distance(x, x, bins=0)


# --- features ------------------------------------------------------------------------------------


def _features(batch, height, width, channels=5, seed=0):
    """As after a ReLU, of channels that depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels))
    values = np.maximum(rng.normal(size=(batch, height, width, channels)) @ mixing + 0.3, 0)
    return values.astype(np.float32)


def _relative(x, y):
    return ((x - y) ** 2).sum() / (y**2).sum()


def test_content_distance_is_relative_to_the_references():
    x, y = _features(3, 4, 6), _features(3, 4, 6, seed=1)
    for references in (y, y[:1]):
        both = np.broadcast_arrays(x.astype(np.float64), references)
        expected = [_relative(a, b) for a, b in zip(*both, strict=True)]
        np.testing.assert_allclose(content_distance(x, references), expected, rtol=1e-5)
    np.testing.assert_allclose(content_distance(0 * x, y), np.ones(3), rtol=1e-6)
    with pytest.raises(ValueError, match="one size"):
        content_distance(x, y[:, :3])


def _gram(x):
    flat = x.reshape(-1, x.shape[-1])
    return flat.T @ flat / len(flat)


def _np_gram_distance(x, y):
    return _relative(_gram(x), _gram(y))


def _np_moments_distance(x, y):
    moments = [np.concatenate([p.mean((0, 1)), np.sqrt(p.var((0, 1)) + 1e-5)]) for p in (x, y)]
    return _relative(*moments)


def _np_wasserstein_distance(x, y):
    """Of the Gaussians with the noise of `wasserstein2`: 1e-4 of the style's total variance."""
    flat = [p.reshape(-1, p.shape[-1]) for p in (x, y)]
    means = [p.mean(0) for p in flat]
    covariances = [np.cov(p.T, bias=True) for p in flat]
    power = (means[1] ** 2).sum() + np.trace(covariances[1])
    noise = 1e-4 * np.trace(covariances[1]) * np.eye(x.shape[-1])
    first, second = (covariance + noise for covariance in covariances)
    overlap = np.trace(linalg.sqrtm(first @ second).real)
    bures = np.trace(first) + np.trace(second) - 2 * overlap
    return (((means[0] - means[1]) ** 2).sum() + bures) / power


STYLES = {
    "gram": _np_gram_distance,
    "moments": _np_moments_distance,
    "wasserstein": _np_wasserstein_distance,
}


@pytest.mark.parametrize("form", STYLES)
@pytest.mark.parametrize("styles", [1, 2])
def test_style_distance_is_the_mean_over_layers(form, styles):
    x = {"a": _features(2, 6, 7), "b": 9 * _features(2, 3, 4, 2, seed=1)}
    y = {"b": 7 * _features(styles, 4, 3, 2, seed=2), "a": _features(styles, 5, 9, seed=3)}
    found = style_distance(x, y, form=form)
    assert found.dtype == np.float32
    expected = []
    for i in range(2):
        pairs = [(x[k][i].astype(np.float64), y[k][i % styles].astype(np.float64)) for k in x]
        expected.append(np.mean([STYLES[form](*pair) for pair in pairs]))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    # Prepared once, inside of compiled functions or outside, it is the same.
    references = jax.jit(metrics.style_references, static_argnames="form")(y, form=form)
    np.testing.assert_allclose(style_distance(x, references), found, rtol=1e-5)
    np.testing.assert_allclose(metrics.style_distance(x, references, form=form), found, rtol=1e-5)


@pytest.mark.parametrize("form", STYLES)
def test_style_distance_of_equal_features_and_of_none(form):
    x = {"a": _features(2, 6, 5)}
    distance = jax.jit(functools.partial(style_distance, form=form))
    same = distance(x, x)
    assert (same >= 0).all()
    assert (same < 1e-5).all()
    # Positions do not matter, and 0 is as far as all that the style has.
    assert (distance(x, {"a": x["a"][:, ::-1]}) < 1e-5).all()
    np.testing.assert_allclose(distance({"a": 0 * x["a"]}, x), np.ones(2), rtol=0.03)


def test_style_distance_refuses():
    x, y = {"a": _features(2, 3, 3)}, {"b": _features(2, 3, 3)}
    with pytest.raises(ValueError, match=r"the layers \['a'\], got \['b'\]"):
        metrics.style_distance(x, y)
    with pytest.raises(ValueError, match="Did you mean 'gram'"):
        metrics.style_distance(x, x, form="gramm")
    with pytest.raises(ValueError, match="got an empty one"):
        metrics.style_distance({}, {})
    with pytest.raises(ValueError, match="references as a mapping from layers, got ndarray"):
        metrics.style_distance(x, x["a"])
    with pytest.raises(ValueError, match=r"layer 'a': .*\[2 or 1, any height, any width, 5\]"):
        metrics.style_distance(x, {"a": _features(2, 3, 3, 4)})
    with pytest.raises(ValueError, match=r"prepared for 'moments', got 'gram'"):
        metrics.style_distance(x, metrics.style_references(x, form="moments"), form="gram")
    with pytest.raises(ValueError, match=r"the layers \['a'\], got \['b'\]"):
        metrics.style_distance(x, metrics.style_references(y))
    with pytest.raises(ValueError, match="Did you mean 'gram'"):
        metrics.style_references(x, form="gramm")
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        metrics.style_references({"a": x["a"][0]})


def test_perceptual_distance_is_equation_1():
    x = {"a": _features(2, 4, 6), "b": _features(2, 2, 3, 8, seed=1)}
    y = {"a": _features(2, 4, 6, seed=2), "b": _features(1, 2, 3, 8, seed=3)}
    x["a"][0, 0, 0] = 0
    weights = {k: np.random.default_rng(5).random(v.shape[3], np.float32) for k, v in x.items()}
    units = [
        {k: v / np.maximum(np.linalg.norm(v, axis=3, keepdims=True), 1e-10) for k, v in z.items()}
        for z in (x, y)
    ]
    for given in (None, weights):
        expected = sum(
            ((units[0][k] - units[1][k]) ** 2 * (1 if given is None else given[k]))
            .sum(3)
            .mean((1, 2))
            for k in x
        )
        found = perceptual_distance(x, y, weights=given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_perceptual_distance_has_bounds_knows_no_length_and_has_finite_gradients():
    first, second = np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 2, 2, 2), np.float32)
    first[..., 0], second[..., 1] = 3, 0.1
    distance = jax.jit(lambda x, y: perceptual_distance({"a": x}, {"a": y})[0])
    assert distance(first, second) == pytest.approx(2)
    assert distance(first, -first) == pytest.approx(4)
    assert distance(first, 7 * first) == pytest.approx(0, abs=1e-6)
    assert distance(0 * first, 0 * first) == 0
    assert np.isfinite(jax.grad(distance)(0 * first, second)).all()


def test_perceptual_distance_refuses():
    x = {"a": _features(1, 3, 3)}
    with pytest.raises(ValueError, match=r"layer 'a': expected weights of shape \(5,\)"):
        metrics.perceptual_distance(x, x, weights={"a": np.ones((1, 5))})
    with pytest.raises(ValueError, match="expected weights for the layers"):
        metrics.perceptual_distance(x, x, weights={"a": np.ones(5), "b": np.ones(5)})
    with pytest.raises(ValueError, match="one size"):
        metrics.perceptual_distance(x, {"a": x["a"][:, :2]})


# --- sets ----------------------------------------------------------------------------------------


def _vectors(number, channels, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels)) * np.exp(-np.arange(channels) / channels * 3)
    return (np.maximum(rng.normal(size=(number, channels)) @ mixing, 0) + 0.1 * seed).astype(
        np.float32
    )


def _frechet(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    first, second = np.cov(x.T), np.cov(y.T)
    # As scipy.linalg.sqrtm has it, whose roots of singular matrices are warned of.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0))
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second) - 2 * roots.sum()


@pytest.mark.parametrize(("number", "others"), [(60, 45), (60, 9), (7, 9)])
def test_frechet_distance_is_equation_6(number, others):
    """Also of fewer vectors than the 24 channels."""
    x, y = _vectors(number, 24), _vectors(others, 24, seed=1)
    found = frechet_distance(x, y)
    assert found.dtype == np.float32
    assert found.shape == ()
    assert found == pytest.approx(_frechet(x, y), rel=1e-4)


def test_frechet_distance_is_that_by_the_root_of_the_product():
    x, y = _vectors(90, 6), _vectors(70, 6, seed=1)
    first, second = (np.cov(z.astype(np.float64).T) for z in (x, y))
    root = linalg.sqrtm(first @ second).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_by_hand():
    x = np.array([[-1.0], [1.0]])  # variance 2
    assert frechet_distance(x, 3 * x + 4) == pytest.approx(16 + 2 * 2**2)
    # Pairs of directions without any overlap.
    x, y = np.array([[-1.0, 0], [1, 0]]), np.array([[0, -1.0], [0, 1]])
    assert frechet_distance(x, y) == pytest.approx(2 + 2)


def test_frechet_distance_of_equal_sets_is_zero_wherever_they_lie():
    """Of fewer vectors than channels, too, where roots of eigenvalues would gather rounding."""
    x, y = _vectors(12, 100), _vectors(15, 100, seed=1)
    assert 0 <= frechet_distance(x, x[::-1]) < 1e-5 * x.var(0).sum()
    # Values that are kept exactly when shifted.
    x, y = (np.round(z * 256) / 256 for z in (x, y))
    here, there = frechet_distance(x, y), frechet_distance(x + 2**15, y + 2**15)
    assert there == pytest.approx(float(here), rel=1e-4)


def test_frechet_distance_refuses():
    x = _vectors(3, 4)
    with pytest.raises(ValueError, match="features of 2 pictures or more"):
        metrics.frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match="references of 2 pictures or more"):
        metrics.frechet_distance(x, x[:1])
    with pytest.raises(ValueError, match="references of 4 channels, got 3"):
        metrics.frechet_distance(x, x[:, :3])


def test_artfid_is_the_product():
    assert metrics.artfid(0, 0) == 1
    np.testing.assert_allclose(metrics.artfid(np.array([0.5, 1]), 3), [6, 8])
