"""Tests of jaxstyle.transfer, against NumPy in double precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import transfer
from jaxstyle.losses import Moments, channel_moments

pytestmark = pytest.mark.usefixtures("quick_compiler")

EPS = transfer.EPSILON


def random(*shape, seed=0):
    """Features as after a ReLU, of channels that differ."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.2, 3, shape[-1])
    return np.maximum(rng.normal(0.3, 1, shape) * scale, 0).astype(np.float32)


def reference(x, y, eps=EPS):
    """Eq. 8 of the paper, picture by picture; one style is shared."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    made = np.empty_like(x)
    for i in range(len(x)):
        style = y[i if len(y) > 1 else 0]
        mean, std = (np.mean(style, (0, 1)), np.sqrt(np.var(style, (0, 1)) + eps))
        own_mean, own_std = np.mean(x[i], (0, 1)), np.sqrt(np.var(x[i], (0, 1)) + eps)
        made[i] = std * (x[i] - own_mean) / own_std + mean
    return made


def hard_masks(batch, height, width):
    """Two regions with a border of corners, `[batch, height, width, 2]`."""
    rng = np.random.default_rng(9)
    inside = rng.random((batch, height, width)) < 0.4
    return np.stack([inside, ~inside], -1).astype(np.float32)


def soft_masks(batch, height, width, regions):
    shares = np.random.default_rng(5).random((batch, height, width, regions)).astype(np.float32)
    return shares / shares.sum(-1, keepdims=True)


# --- one style -----------------------------------------------------------------------------------


@pytest.mark.parametrize("styles", [1, 3])
def test_adain_is_that_of_the_paper(styles):
    x, y = random(3, 7, 5, 4), 2 + 3 * random(styles, 4, 9, 4, seed=1)
    found = jax.jit(transfer.adain)(x, y)
    np.testing.assert_allclose(found, reference(x, y), rtol=1e-5, atol=1e-5)


def test_a_content_that_is_its_own_style_stays():
    x = random(2, 6, 7, 5)
    np.testing.assert_array_equal(transfer.adain(x, x), x)


def test_the_result_has_the_moments_of_the_style():
    x, y = random(2, 16, 12, 6), 1 + random(2, 9, 8, 6, seed=1)
    found, wanted = channel_moments(transfer.adain(x, y)), channel_moments(jnp.asarray(y))
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-5)
    np.testing.assert_allclose(found.std, wanted.std, rtol=1e-3)  # by the epsilon


def test_moments_do_in_place_of_features():
    x, y = random(3, 7, 5, 4), random(3, 4, 9, 4, seed=1)
    wanted = transfer.adain(x, y)
    moments = channel_moments(jnp.asarray(y))
    np.testing.assert_array_equal(transfer.adain(x, None, moments=moments), wanted)
    shared = jax.tree.map(lambda m: m[:1], moments)
    np.testing.assert_array_equal(transfer.adain(x, None, moments=shared), transfer.adain(x, y[:1]))


def test_a_tile_with_the_moments_of_the_whole_is_part_of_the_whole():
    x, y = random(1, 12, 8, 4), random(1, 5, 5, 4, seed=1)
    own = channel_moments(jnp.asarray(x))
    part = transfer.adain(x[:, 3:9], y, content_moments=own)
    np.testing.assert_allclose(part, transfer.adain(x, y)[:, 3:9], atol=1e-5)
    assert np.abs(transfer.adain(x[:, 3:9], y) - part).max() > 0.01


def test_the_epsilon_is_that_which_is_given():
    x, y = random(1, 7, 5, 4), random(1, 4, 9, 4, seed=1)
    found = transfer.adain(x, y, eps=0.5)
    np.testing.assert_allclose(found, reference(x, y, 0.5), rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_and_is_computed_in_float32():
    x, y = (jnp.asarray(random(2, 8, 8, 4, seed=s) + 20, jnp.bfloat16) for s in (0, 1))
    found = transfer.adain(x, y)
    assert found.dtype == jnp.bfloat16
    wanted = transfer.adain(x.astype(jnp.float32), y.astype(jnp.float32))
    np.testing.assert_array_equal(found, wanted.astype(jnp.bfloat16))


@pytest.mark.parametrize("regions", [False, True])
def test_flat_channels_get_the_mean_of_the_style(regions):
    x, y = random(1, 8, 8, 3), 1 + random(1, 8, 8, 3, seed=1)
    x[..., 1] = 2 + 4e-6 * x[..., 1]
    moments = channel_moments(jnp.asarray(y))
    if regions:
        moments = jax.tree.map(lambda m: jnp.stack([m, m], 1), moments)
        found = transfer.adain_regions(x, moments, jnp.asarray(hard_masks(1, 8, 8)))
    else:
        found = transfer.adain(x, y)
        np.testing.assert_allclose(found[..., ::2], reference(x, y)[..., ::2], atol=1e-5)
    np.testing.assert_allclose(found[..., 1], y[..., 1].mean(), rtol=1e-6)
    assert (found[..., ::2].std((1, 2)) > 0.1).all()


@pytest.mark.parametrize("regions", [False, True])
def test_flat_maps_have_finite_values_and_gradients(regions):
    flat, style = jnp.full((1, 4, 4, 3), 0.5), jnp.zeros((1, 4, 4, 3))
    masks = jnp.asarray(hard_masks(1, 4, 4))

    def loss(x, y):
        if regions:
            made = transfer.adain_regions(x, transfer.region_moments(y, masks), masks)
        else:
            made = transfer.adain(x, y)
        return jnp.sum(jnp.sin(made))

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(flat, style)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1, 1), {"moments": (1, 4)}, "either style_features or moments"),
        ((1, None), {}, "either style_features or moments"),
        ((3, 2), {}, r"moments must be \(3, 4\), for the content; got \(2, 4\)"),
        ((3, None), {"moments": (3, 5)}, r"moments must be \(3, 4\), .* got \(3, 5\)"),
        ((3, None), {"moments": (3, 2, 4)}, r"got \(3, 2, 4\)"),
        ((3, 3), {"content_moments": (2, 4)}, r"content_moments must be \(3, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, options, message):
    features = [rows and jnp.ones((rows, 4, 4, 4)) for rows in arguments]
    given = {name: Moments(jnp.ones(shape), jnp.ones(shape)) for name, shape in options.items()}
    with pytest.raises(ValueError, match=message):
        transfer.adain(*features, **given)


# --- mixtures ------------------------------------------------------------------------------------


def test_mixed_moments_mix_the_results():
    """Eq. 15: features are affine in the moments that they get."""
    x = random(2, 6, 5, 4)
    styles = [channel_moments(jnp.asarray(random(1, 8, 8, 4, seed=s))) for s in (1, 2, 3)]
    shares = [0.2, 0.5, 0.3]
    found = transfer.adain(x, None, moments=transfer.mix_moments(styles, shares))
    each = [transfer.adain(x, None, moments=moments) for moments in styles]
    wanted = sum(share * made for share, made in zip(shares, each, strict=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(("count", "shares"), [(0, []), (2, [1.0])])
def test_mixtures_that_do_not_fit_are_refused(count, shares):
    moments = Moments(jnp.zeros((1, 3)), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="expected a weight for each style"):
        transfer.mix_moments([moments] * count, shares)


# --- regions -------------------------------------------------------------------------------------


def test_moments_of_regions_are_weighted():
    x, masks = random(2, 7, 5, 3), soft_masks(2, 7, 5, 4)
    found = jax.jit(transfer.region_moments)(x, masks)
    for i, r in np.ndindex(2, 4):
        rows, share = x[i].reshape(-1, 3).astype(np.float64), masks[i, ..., r].reshape(-1)
        mean = np.average(rows, axis=0, weights=share)
        variance = np.average((rows - mean) ** 2, axis=0, weights=share)
        np.testing.assert_allclose(found.mean[i, r], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.std[i, r], np.sqrt(variance + EPS), rtol=1e-5)


def test_one_region_of_all_is_no_region():
    x, y, ones = random(2, 6, 5, 4), random(1, 4, 9, 4, seed=1), jnp.ones((2, 6, 5, 1))
    own, wanted = transfer.region_moments(x, ones), channel_moments(jnp.asarray(x))
    for found, expected in zip(own, wanted, strict=True):
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    style = transfer.region_moments(y, jnp.ones((1, 4, 9, 1)))
    made = transfer.adain_regions(x, style, ones)
    np.testing.assert_allclose(made, transfer.adain(x, y), rtol=1e-4, atol=1e-5)


def test_hard_regions_are_each_as_if_it_were_alone():
    x, masks = random(1, 9, 8, 4), hard_masks(1, 9, 8)
    styles = [channel_moments(jnp.asarray(2 + random(1, 6, 6, 4, seed=s))) for s in (1, 2)]
    moments = Moments(*(jnp.stack(parts, 1) for parts in zip(*styles, strict=True)))
    made = np.asarray(transfer.adain_regions(x, moments, masks))
    for region, style in enumerate(styles):
        inside = masks[0, ..., region] == 1
        alone = transfer.adain(x[0][inside][None, None], None, moments=style)
        np.testing.assert_allclose(made[0][inside], alone[0, 0], rtol=1e-5, atol=1e-5)


def test_soft_regions_are_mixed():
    x, masks = random(2, 6, 5, 4), soft_masks(2, 6, 5, 3)
    moments = transfer.region_moments(random(2, 6, 5, 4, seed=1), soft_masks(2, 6, 5, 3))
    own = transfer.region_moments(x, masks)
    made = transfer.adain_regions(x, moments, masks)
    wanted = np.zeros_like(x)
    for region in range(3):
        style, content = (Moments(*(part[:, region] for part in m)) for m in (moments, own))
        alone = transfer.adain(x, None, moments=style, content_moments=content)
        wanted += masks[..., region, None] * alone
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)
    given = transfer.adain_regions(x, moments, masks, content_moments=own)
    np.testing.assert_array_equal(given, made)


def test_regions_without_positions_are_finite():
    x = random(1, 4, 4, 3)
    masks = np.concatenate([np.ones((1, 4, 4, 1)), np.zeros((1, 4, 4, 1))], -1)
    moments = transfer.region_moments(x, masks)
    np.testing.assert_array_equal(moments.mean[:, 1], 0)
    np.testing.assert_allclose(moments.std[:, 1], np.sqrt(EPS), rtol=1e-5)
    made = transfer.adain_regions(x, moments, masks)
    np.testing.assert_allclose(made, x, atol=1e-6)

    def loss(x, masks):
        return jnp.sum(transfer.adain_regions(x, transfer.region_moments(x, masks), masks) ** 2)

    gradients = jax.grad(loss, argnums=(0, 1))(jnp.asarray(x), jnp.asarray(masks, jnp.float32))
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(
    "shapes", [((1, 4, 4, 3), (1, 4, 5, 2)), ((2, 4, 4, 3), (1, 4, 4, 2)), ((4, 4, 3), (4, 4, 2))]
)
def test_masks_of_another_size_are_refused(shapes):
    with pytest.raises(ValueError, match="of one size; got"):
        transfer.region_moments(*map(jnp.ones, shapes))


def test_smaller_masks_are_means_that_sum_to_one():
    masks = soft_masks(2, 16, 24, 3)
    assert transfer.resize_masks(masks, 16, 24) is masks
    shrink = functools.partial(transfer.resize_masks, height=4, width=6)
    small = jax.jit(shrink)(masks)
    assert small.shape == (2, 4, 6, 3)
    np.testing.assert_allclose(small.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(small.mean((1, 2)), masks.mean((1, 2)), atol=0.02)
    halves = np.zeros((1, 16, 16, 2), np.float32)
    halves[:, :, :8, 0] = halves[:, :, 8:, 1] = 1
    found = transfer.resize_masks(halves, 2, 2)
    assert found[0, 0, 0, 0] > 0.7
    np.testing.assert_allclose(found[0, :, 0, 0], found[0, :, 1, 1], atol=1e-6)
    whole = transfer.resize_masks(np.ones((1, 8, 8, 1), np.float32), 3, 5)
    np.testing.assert_allclose(whole, 1, atol=1e-6)


# --- colours -------------------------------------------------------------------------------------


def colors(*shape, seed=4):
    """Colours that go together, as those of pictures do."""
    rng = np.random.default_rng(seed)
    return (rng.random((*shape, 3)) @ rng.uniform(0.1, 0.5, (3, 3))).astype(np.float32)


def root_of(x):
    """The root of the covariance, as the deviations of sums give it."""
    return transfer.covariance_root(channel_moments(transfer.with_sums(x), eps=0).std)


def test_flat_regions_have_some_of_the_variance_of_the_others():
    variances = np.float32([[[4.0] * 6, [0.0] * 6, [9.0] * 6]])
    weights = np.float32([[[0.25], [0.75], [0.0]]])
    found = transfer.pooled(jnp.asarray(variances), jnp.asarray(weights))
    part = transfer._POOLED
    wanted = [4 - 3 * part, part, 9 - 8 * part]
    np.testing.assert_allclose(found[0], np.tile(np.array(wanted)[:, None], (1, 6)), rtol=1e-6)
    assert np.isfinite(transfer.pooled(jnp.asarray(variances), jnp.zeros((1, 3, 1)))).all()


def test_deviations_of_sums_give_the_covariance():
    x = colors(2, 30, 20)
    root = np.asarray(root_of(x), np.float64)
    assert not np.triu(root, 1).any()
    for row, pixels in zip(root, x, strict=True):
        wanted = np.cov(pixels.reshape(-1, 3).astype(np.float64).T, bias=True)
        np.testing.assert_allclose(row @ row.T, wanted, rtol=1e-3, atol=1e-5)


def test_the_inverse_of_a_root_undoes_it():
    root = root_of(colors(3, 12, 10))
    found = np.matmul(transfer.inverse_root(root), root)
    np.testing.assert_allclose(found, np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-5)


def test_matrices_apply_to_each_color():
    x, root = colors(2, 5, 4), root_of(colors(2, 9, 9))
    found = transfer.times_colors(root[:, None, None], x)
    np.testing.assert_allclose(found, np.einsum("bij,bhwj->bhwi", root, x), rtol=1e-5)


@pytest.mark.parametrize("value", [np.zeros(3), np.full(3, 0.5), np.array([0.1, 0.9, 0.3])])
def test_flat_and_grey_pictures_have_roots_with_an_inverse(value):
    def inverse(pixels):
        std = channel_moments(transfer.with_sums(pixels)).std
        return transfer.inverse_root(transfer.covariance_root(std))

    flat = np.broadcast_to(value, (1, 4, 4, 3)).astype(np.float32)
    grey = flat * np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1)
    for x in (flat, grey):
        assert np.abs(inverse(x)).max() < 1e5
        assert np.isfinite(jax.grad(lambda pixels: jnp.sum(inverse(pixels)))(x)).all()
