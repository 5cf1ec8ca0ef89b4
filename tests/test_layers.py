"""Tests of jaxstyle.layers, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import layers

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def array(x):
    return jnp.asarray(x, jnp.float32)


def close(found, wanted, tolerance=2e-5):
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=0, atol=tolerance)


def reflected(x, amount):
    """Reflection as in NumPy, which replicates an axis of one pixel."""
    return np.pad(x, ((0, 0), (amount, amount), (amount, amount), (0, 0)), mode="reflect")


def convolved(x, kernel, stride=1):
    """VALID cross-correlation, tap by tap."""
    size = kernel.shape[0]
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    result = np.zeros((x.shape[0], rows, columns, kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            view = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            result += view[:, :rows, :columns] @ kernel[i, j]
    return result


def standardized(x, epsilon=1e-5):
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


# --- convolutions --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 12), (7, 5), (1, 6), (1, 1), (3, 2)])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (9, 1), (3, 2)])
def test_convolution_reflects_and_strides(shape, size, stride):
    x, kernel, bias = random(2, *shape, 3), random(size, size, 3, 4, seed=1), random(4, seed=2)
    conv = layers.Conv(4, size, stride)
    found = conv.apply({"params": {"kernel": array(kernel), "bias": array(bias)}}, array(x))
    wanted = convolved(reflected(x, size // 2), kernel, stride) + bias
    assert found.shape == (2, -(-shape[0] // stride), -(-shape[1] // stride), 4)
    close(found, wanted, 1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_parameters_are_float32_whatever_is_computed_in(stride):
    conv = layers.Conv(4, stride=stride, dtype=jnp.bfloat16)
    x = array(random(1, 8, 8, 3))
    params = conv.init(KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    found = conv.apply(params, x)
    assert found.dtype == jnp.bfloat16
    close(found, np.asarray(layers.Conv(4, stride=stride).apply(params, x)), 0.1)


def test_without_bias_there_is_none():
    x = jnp.zeros((1, 4, 4, 3))
    for module in (layers.Conv(4, use_bias=False), layers.Conv(4, stride=2, use_bias=False)):
        assert {*module.init(KEY, x)["params"]} == {"kernel"}
    for mode in layers.UPSAMPLINGS:
        params = layers.Upsample(4, mode, use_bias=False).init(KEY, x)["params"]
        assert "bias" not in str(jax.tree.structure(params))


@pytest.mark.parametrize("shape", [(4, 6), (3, 5), (1, 1)])
def test_nearest_upsampling_repeats_and_convolves(shape):
    x, kernel = random(2, *shape, 3), random(3, 3, 3, 2, seed=1)
    params = {"conv": {"kernel": array(kernel), "bias": jnp.zeros(2)}}
    found = layers.Upsample(2).apply({"params": params}, array(x))
    close(found, convolved(reflected(x.repeat(2, 1).repeat(2, 2), 1), kernel), 1e-4)


@pytest.mark.parametrize("shape", [(4, 6), (3, 5), (1, 1)])
def test_transposed_convolution_puts_zeros_between_the_pixels_and_convolves(shape):
    x, kernel = random(2, *shape, 3), random(3, 3, 3, 2, seed=1)
    params = {"kernel": array(kernel), "bias": jnp.ones(2)}
    found = layers.Upsample(2, "transpose").apply({"params": params}, array(x))
    height, width = shape
    spread = np.zeros((2, 2 * height + 2, 2 * width + 2, 3))
    spread[:, 1:-2:2, 1:-2:2] = x
    assert found.shape == (2, 2 * height, 2 * width, 2)
    close(found, convolved(spread, kernel) + 1, 1e-4)


def test_only_the_transposed_convolution_makes_a_checkerboard_of_a_flat_picture():
    flat = jnp.ones((1, 8, 8, 4))
    for mode, is_even in (("nearest", True), ("transpose", False)):
        module = layers.Upsample(3, mode)
        inside = np.asarray(module.apply(module.init(KEY, flat), flat))[0, 2:-2, 2:-2]
        assert bool(np.ptp(inside, axis=(0, 1)).max() < 1e-5) == is_even


@pytest.mark.parametrize(
    "module", [layers.Conv(64), layers.Upsample(64), layers.Upsample(64, "transpose")]
)
def test_activations_keep_their_size_at_first(module):
    x = jax.nn.relu(jax.random.normal(KEY, (1, 24, 24, 64)))
    found = module.apply(module.init(jax.random.key(1), x), x)
    assert 0.6 < jnp.mean(found**2) / (2 * jnp.mean(x**2)) < 2.2


def test_an_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="nearest, transpose; got 'bilinear'"):
        layers.Upsample(3, "bilinear").init(KEY, jnp.zeros((1, 4, 4, 3)))


# --- instance normalisation ----------------------------------------------------------------------


def test_instance_normalisation_is_that_of_equation_11():
    x, gamma, beta = 3 * random(2, 5, 7, 4) + 2, random(4, seed=1), random(4, seed=2)
    params = {"gamma": array(gamma), "beta": array(beta)}
    found = layers.InstanceNorm().apply({"params": params}, array(x))
    close(found, standardized(x) * gamma + beta)


def test_instance_normalisation_forgets_contrast_and_brightness():
    x = random(1, 16, 16, 4)
    norm = functools.partial(layers.InstanceNorm().apply, layers.InstanceNorm().init(KEY, array(x)))
    close(norm(array(40 * x + 100)), norm(array(x)), 1e-3)
    found = np.asarray(norm(array(x)))
    close(found.mean((1, 2)), 0)
    close(found.std((1, 2)), 1, 1e-4)


def test_statistics_are_float32_where_features_are_not():
    """In bfloat16 the mean of so many alike would be off by several per cent."""
    x = jnp.full((1, 64, 64, 1), 1.0).at[:, ::2].set(1.5).astype(jnp.bfloat16)
    norm = layers.InstanceNorm(dtype=jnp.bfloat16)
    found = norm.apply(norm.init(KEY, x), x)
    assert found.dtype == jnp.bfloat16
    close(np.abs(np.asarray(found, np.float64)), 1, 1e-2)


@pytest.mark.parametrize("value", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["instance", "contrast", "batch"])
def test_flat_maps_have_finite_values_and_gradients(kind, value):
    x = jnp.full((2, 6, 6, 3), value)
    norm = layers.Norm(kind)
    variables = norm.init(KEY, x)

    def loss(variables, x):
        return jnp.sum(norm.apply(variables, x, train=True, mutable=["batch_stats"])[0] ** 3)

    for leaf in jax.tree.leaves(jax.value_and_grad(loss, argnums=(0, 1))(variables, x)):
        assert np.isfinite(leaf).all()


def test_what_rounding_leaves_of_a_flat_map_is_not_made_into_contrast():
    noise = random(1, 9, 7, 4)
    x = 3 + np.array([3e-6, 1e-5, 1e-2, 1]) * noise
    found = layers.InstanceNorm().apply({"params": {"gamma": jnp.ones(4), "beta": jnp.ones(4)}}, x)
    np.testing.assert_array_equal(found[..., :2], 1)
    wanted = (x[..., 2:] - x[..., 2:].mean((1, 2))) / np.sqrt(x[..., 2:].var((1, 2)) + 1e-5)
    np.testing.assert_allclose(found[..., 2:], 1 + wanted, atol=1e-3)


def test_one_pixel_becomes_beta():
    x = array(random(1, 1, 1, 4))
    found = layers.InstanceNorm().apply({"params": {"gamma": jnp.ones(4), "beta": x[0, 0, 0]}}, x)
    close(found, np.asarray(x))


@pytest.mark.parametrize("norm", [layers.InstanceNorm(), layers.ContrastNorm()])
def test_moments_of_the_whole_picture_serve_its_tiles(norm):
    whole = array(5 * np.abs(random(2, 8, 12, 3)))
    params = norm.init(KEY, whole)
    assert {*params} == {"params"}, "moments are not parameters"
    wanted, moments = norm.apply(params, whole, mutable=[layers.MOMENTS])
    assert moments[layers.MOMENTS]["mean"].shape == (2, 1, 1, 3)
    tile = norm.apply(params | moments, whole[:, 2:6, :5])
    close(tile, np.asarray(wanted[:, 2:6, :5]), 1e-6)
    alone = norm.apply(params, whole[:, 2:6, :5])
    assert jnp.abs(alone - tile).max() > 0.1
    # A second look at a picture replaces what the first has seen.
    again = norm.apply(params | moments, 2 * whole, mutable=[layers.MOMENTS])[1]
    close(again["moments"]["mean"], 2 * np.asarray(moments["moments"]["mean"]), 1e-5)


# --- many styles ---------------------------------------------------------------------------------


def test_colors_get_the_mean_and_the_covariance_that_are_given():
    x = random(2, 30, 20, 3) @ np.array([[1, 0.5, 0.2], [0, 1, 0.7], [0, 0, 1]])
    mean, root = array(random(1, 3, seed=1)), np.array([[[2, 0, 0], [0.5, 1, 0], [0.1, 0.3, 0.6]]])
    recolor = layers.Recolor()
    made, moments = recolor.apply({}, x, mean, root, mutable=[layers.MOMENTS])
    for pixels in np.asarray(made, np.float64):
        flat = pixels.reshape(-1, 3)
        np.testing.assert_allclose(flat.mean(0), mean[0], atol=1e-5)
        np.testing.assert_allclose(np.cov(flat.T, bias=True), root[0] @ root[0].T, atol=4e-3)
    part = recolor.apply(moments, x[:, 4:11, 5:9], mean, root)
    np.testing.assert_allclose(part, made[:, 4:11, 5:9], atol=1e-5)


def test_colors_of_regions():
    """Against the formula, in float64: of hard regions, of soft ones, and of one that is all."""
    x, means = array(random(1, 8, 9, 3)), array(random(1, 2, 3, seed=1))
    roots = array(np.tril(random(1, 2, 3, 3, seed=2)))
    recolor = layers.Recolor()
    hard = np.zeros((1, 8, 9, 2), np.float32)
    hard[:, :, :4, 0] = hard[:, :, 4:, 1] = 1
    shares = [4 / 9, 5 / 9]
    parts = [np.asarray(x, np.float64)[0, :, s].reshape(-1, 3) for s in (slice(4), slice(4, None))]
    covariances = [np.cov(part.T, bias=True) for part in parts]
    mean = sum(share * own for share, own in zip(shares, covariances, strict=True))
    found = np.asarray(recolor.apply({}, x, means, roots, hard))[0]
    for region, columns in enumerate((slice(4), slice(4, None))):
        own = 0.75 * covariances[region] + 0.25 * mean
        white = np.linalg.solve(np.linalg.cholesky(own), (parts[region] - parts[region].mean(0)).T)
        wanted = means[0, region] + white.T @ roots[0, region].T
        np.testing.assert_allclose(found[:, columns].reshape(-1, 3), wanted, atol=1e-3)
    same = np.full((1, 8, 9, 2), (0.3, 0.7), np.float32)
    each = [recolor.apply({}, x, means[:, r], roots[:, r]) for r in range(2)]
    found = recolor.apply({}, x, means, roots, same)
    np.testing.assert_allclose(found, 0.3 * each[0] + 0.7 * each[1], atol=1e-4)
    found = recolor.apply({}, x, means[:, :1], roots[:, :1], np.ones((1, 8, 9, 1), np.float32))
    np.testing.assert_allclose(found, each[0], atol=1e-4)


def test_conditional_normalisation_of_one_style_is_plain_normalisation():
    x, gamma, beta = array(random(3, 5, 4, 6)), array(random(6, seed=1)), array(random(6, seed=2))
    plain = layers.InstanceNorm().apply({"params": {"gamma": gamma, "beta": beta}}, x)
    params = {"gamma": gamma[None], "beta": beta[None]}
    norm = layers.ConditionalInstanceNorm(1)
    np.testing.assert_array_equal(norm.apply({"params": params}, x, jnp.ones((3, 1))), plain)


def test_weights_choose_and_mix_the_parameters_of_styles():
    x, gamma, beta = random(3, 5, 4, 6), random(2, 6, seed=1), random(2, 6, seed=2)
    params = {"gamma": array(gamma), "beta": array(beta)}
    weights = np.array([[1, 0], [0, 1], [0.3, 0.7]])
    norm = layers.ConditionalInstanceNorm(2)
    found = norm.apply({"params": params}, array(x), array(weights))
    wanted = standardized(x) * (weights @ gamma)[:, None, None] + (weights @ beta)[:, None, None]
    close(found, wanted)


@pytest.mark.parametrize("weights", [None, jnp.ones((1, 3))])
def test_weights_of_another_number_of_styles_are_refused(weights):
    with pytest.raises(ValueError, match=r"expected style weights \[batch, 2\]"):
        layers.ConditionalInstanceNorm(2).init(KEY, jnp.zeros((1, 4, 4, 3)), weights)


# --- batch normalisation -------------------------------------------------------------------------


def test_batch_normalisation_has_statistics_of_the_batch_and_running_ones():
    x = array(3 * random(4, 5, 6, 2) + 1)
    norm = layers.BatchNorm()
    variables = norm.init(KEY, x, train=True)
    assert {*variables["batch_stats"]} == {"mean", "variance"}
    close(variables["batch_stats"]["mean"], 0, 0)  # the first look is none
    found, changed = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    whole = np.asarray(x, np.float64)
    mean, variance = whole.mean((0, 1, 2)), whole.var((0, 1, 2))
    close(found, (whole - mean) / np.sqrt(variance + 1e-5), 1e-4)
    close(changed["batch_stats"]["mean"], 0.1 * mean)
    close(changed["batch_stats"]["variance"], 0.9 + 0.1 * variance)
    later = norm.apply({**variables, **changed}, x, train=False)
    close(later, (whole - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-5), 1e-4)


def test_batch_normalisation_on_four_devices_is_that_of_one():
    x, weight = array(random(8, 3, 4, 2)), array(random(8, 3, 4, 2, seed=1))

    def loss(variables, x, weight, axis_name):
        norm = layers.BatchNorm(axis_name)
        found, changed = norm.apply(variables, x, train=True, mutable=["batch_stats"])
        return jnp.mean(weight * found), changed

    def step(axis_name, variables, x, weight):
        gradient, changed = jax.grad(loss, has_aux=True)(variables, x, weight, axis_name)
        shared = gradient, changed
        return jax.lax.pmean(shared, axis_name) if axis_name else shared

    variables = layers.BatchNorm().init(KEY, x, train=True)
    one = step(None, variables, x, weight)
    mapped = jax.pmap(
        functools.partial(step, "i"), "i", in_axes=(None, 0, 0), devices=jax.devices()[:4]
    )
    four = mapped(variables, x.reshape(4, 2, 3, 4, 2), weight.reshape(4, 2, 3, 4, 2))
    for a, b in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        for device in range(4):
            close(a[device], np.asarray(b), 1e-6)


# --- contrast normalisation, and the choice ------------------------------------------------------


def test_contrast_normalisation_divides_by_the_mean():
    x, gamma, beta = np.abs(random(2, 5, 7, 4)), random(4, seed=1), random(4, seed=2)
    params = {"gamma": array(gamma), "beta": array(beta)}
    found = layers.ContrastNorm().apply({"params": params}, array(x))
    close(found, x / (x.mean((1, 2), keepdims=True) + 1e-5) * gamma + beta, 1e-4)


def test_contrast_normalisation_knows_no_size_of_picture():
    """The sum of Eq. 10 would."""
    x = array(np.abs(random(1, 4, 4, 3)))
    norm = layers.ContrastNorm()
    params = norm.init(KEY, x)
    close(norm.apply(params, jnp.tile(x, (1, 2, 2, 1)))[:, :4, :4], norm.apply(params, x), 1e-5)
    close(norm.apply(params, jnp.full((1, 4, 4, 3), 0.5)), 1, 1e-4)
    close(norm.apply(params, jnp.zeros((1, 4, 4, 3))), 0)


def test_the_norm_of_a_name():
    x, weights = array(random(2, 4, 4, 3)), jnp.full((2, 2), 0.5)
    assert jax.tree.leaves(layers.Norm("none").init(KEY, x)) == []
    np.testing.assert_array_equal(layers.Norm("none").apply({}, x), x)
    shapes = {
        (kind, styles): layers.Norm(kind, styles)
        .init(KEY, x, weights)["params"]["norm"]["gamma"]
        .shape
        for kind, styles in [("instance", 1), ("instance", 2), ("batch", 1), ("contrast", 1)]
    }
    assert [*shapes.values()] == [(3,), (2, 3), (3,), (3,)]


@pytest.mark.parametrize(
    ("kind", "styles", "message"),
    [
        ("instanc", 1, "instance, batch, contrast, none; got 'instanc'; did you mean instance"),
        ("batch", 2, "'batch' knows one style only, and there are 2"),
        ("none", 3, "norm 'instance' has parameters for each"),
    ],
)
def test_norms_that_cannot_be_are_refused(kind, styles, message):
    with pytest.raises(ValueError, match=message):
        layers.Norm(kind, styles).init(KEY, jnp.zeros((1, 4, 4, 3)), jnp.ones((1, styles)))


# --- parts of networks ---------------------------------------------------------------------------


def test_a_residual_block_is_equations_7_and_8():
    x = random(2, 6, 5, 3)
    block = layers.ResidualBlock(3)
    params = block.init(KEY, array(x))["params"]
    kernels = [
        np.asarray(params[name]["conv"]["kernel"], np.float64) for name in ("conv1", "conv2")
    ]
    assert {*params["conv1"]} == {"conv", "norm"}
    assert {*params["conv1"]["conv"]} == {"kernel"}
    hidden = np.maximum(standardized(convolved(reflected(x, 1), kernels[0])), 0)
    wanted = standardized(convolved(reflected(hidden, 1), kernels[1])) + x
    close(block.apply({"params": params}, array(x)), wanted, 1e-4)


def test_a_block_without_the_sum_loses_its_input():
    x = array(random(1, 6, 6, 4))
    for residual in (True, False):
        block = layers.ResidualBlock(4, residual)
        variables = block.init(KEY, x)
        nothing = jax.tree.map(jnp.zeros_like, variables)
        close(block.apply(nothing, x), np.asarray(x) if residual else 0, 0)


def test_contrast_normalisation_follows_the_relu():
    """So its input is never negative, and the mean never cancels."""
    x = array(random(1, 8, 8, 3))
    layer = layers.ConvLayer(5, norm="contrast")
    found = np.asarray(layer.apply(layer.init(KEY, x), x))
    assert found.min() >= 0
    alive = found.max((1, 2)) > 0
    close(found.mean((1, 2))[alive], 1, 1e-3)
    second = layers.ConvLayer(5, norm="contrast", relu=False)
    assert {*second.init(KEY, x)["params"]} == {"conv"}


@pytest.mark.parametrize("norm", layers.NORMS)
@pytest.mark.parametrize("options", [{}, {"relu": False}, {"upsample": "nearest"}])
def test_the_parts_of_a_layer_make_the_whole(norm, options):
    """And the first ends where the normalisation takes its moments."""
    x = array(random(1, 6, 4, 3))
    layer = layers.ConvLayer(5, norm=norm, **options)
    variables = layer.init(KEY, x)
    whole, moments = layer.apply(variables, x, mutable=[layers.MOMENTS])
    half = layer.apply(variables, x, part="convolve")
    found = layer.apply(variables, half, part="normalize")
    np.testing.assert_allclose(found, whole, atol=1e-6)
    seen = moments.get(layers.MOMENTS, {})
    assert bool(seen) == (
        norm in layers.BY_PICTURE and not (norm == "contrast" and options == {"relu": False})
    )
    if seen:
        close(half.mean((1, 2)), np.asarray(seen["norm"]["norm"]["mean"])[:, 0, 0], 1e-6)
