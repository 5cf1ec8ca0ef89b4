import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxstyle import color

pytestmark = pytest.mark.usefixtures("quick_compiler")

METHODS = ("cholesky", "symmetric", "channel")
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def picture(seed: int, shape=(2, 13, 17, 3)) -> np.ndarray:
    """Correlated colours in [0, 1], as photographs have them."""
    random = np.random.default_rng(seed)
    mix = np.eye(3) * 0.4 + 0.2 * random.random((3, 3))
    return np.clip(random.random(shape) @ mix, 0, 1).astype(np.float32)


IMAGES, OTHER = picture(1), picture(2, (2, 9, 21, 3))


def moments(images):
    rows = np.asarray(images, np.float64).reshape(len(images), -1, 3)
    return rows.mean(1), np.stack([np.cov(r.T, bias=True) for r in rows])


# ------------------------------------------------------------------------------------- luminance


def test_luminance_against_float64():
    result = color.luminance(jnp.asarray(IMAGES))
    assert result.shape == (2, 13, 17, 1)
    expected = IMAGES.astype(np.float64) @ YIQ[0]
    np.testing.assert_allclose(result[..., 0], expected, atol=1e-6)
    np.testing.assert_allclose(color.luminance(jnp.ones((1, 1, 1, 3))), 1, atol=1e-6)


def test_transfer_luminance_is_the_replacement_in_yiq():
    content = picture(3)
    yiq, other = (x.astype(np.float64) @ YIQ.T for x in (content, IMAGES))
    yiq[..., 0] = other[..., 0]
    expected = yiq @ np.linalg.inv(YIQ).T
    result = color.transfer_luminance(jnp.asarray(IMAGES), jnp.asarray(content), clip=False)
    # YIQ's usual coefficients are rounded to three digits: their inverse is grey to 1e-3.
    np.testing.assert_allclose(result, expected, atol=3e-3)
    np.testing.assert_allclose(color.luminance(result), color.luminance(IMAGES), atol=1e-6)
    chroma = result - color.luminance(result)
    np.testing.assert_allclose(chroma, content - color.luminance(content), atol=1e-6)
    clipped = color.transfer_luminance(jnp.asarray(IMAGES), jnp.asarray(content))
    np.testing.assert_array_equal(clipped, jnp.clip(result, 0, 1))
    np.testing.assert_allclose(color.transfer_luminance(content, content), content, atol=1e-6)


def test_match_luminance_against_float64():
    y, wanted = (x.astype(np.float64) @ YIQ[0] for x in (IMAGES, OTHER))

    def over_pixels(function, x):
        return function(x, axis=(1, 2))[:, None, None]

    new = (y - over_pixels(np.mean, y)) * over_pixels(np.std, wanted) / over_pixels(np.std, y)
    new += over_pixels(np.mean, wanted)
    result = color.match_luminance(jnp.asarray(IMAGES), jnp.asarray(OTHER), eps=0, clip=False)
    np.testing.assert_allclose(result, IMAGES + (new - y)[..., None], atol=2e-6)
    grey = jnp.broadcast_to(IMAGES[..., :1], IMAGES.shape)
    result = color.match_luminance(grey, jnp.asarray(OTHER))
    np.testing.assert_allclose(result, np.broadcast_to(result[..., :1], result.shape), atol=1e-6)


def test_statistics_stand_for_their_picture():
    found = color.statistics(jnp.asarray(OTHER))
    for mine, wanted in zip(found, moments(OTHER), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5)
    for match in (color.match_luminance, color.match_moments):
        wanted = match(jnp.asarray(IMAGES), jnp.asarray(OTHER))
        np.testing.assert_allclose(match(jnp.asarray(IMAGES), found), wanted, atol=1e-6)
    with pytest.raises(ValueError, match=r"reference: expected a mean \[2 or 1, 3\]"):
        color.match_moments(jnp.asarray(IMAGES), found._replace(mean=jnp.zeros((3, 3))))


# --------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("method", METHODS)
def test_match_moments_against_float64(method):
    result = color.match_moments(
        jnp.asarray(IMAGES), jnp.asarray(OTHER), method=method, eps=1e-6, clip=False
    )
    eps = 1e-6 * np.eye(3)
    (mean_i, cov_i), (mean_r, cov_r) = moments(IMAGES), moments(OTHER)
    for k in range(2):
        if method == "cholesky":
            roots = [np.linalg.cholesky(c[k] + eps) for c in (cov_r, cov_i)]
        elif method == "symmetric":
            parts = [np.linalg.eigh(c[k] + eps) for c in (cov_r, cov_i)]
            roots = [basis @ np.diag(np.sqrt(values)) @ basis.T for values, basis in parts]
        else:
            roots = [np.diag(np.sqrt(np.diag(c[k] + eps))) for c in (cov_r, cov_i)]
        transform = roots[0] @ np.linalg.inv(roots[1])
        expected = (IMAGES[k].astype(np.float64) - mean_i[k]) @ transform.T + mean_r[k]
        np.testing.assert_allclose(result[k], expected, atol=5e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_moments_become_those_of_the_reference(method):
    result = color.match_moments(
        jnp.asarray(IMAGES), jnp.asarray(OTHER), method=method, eps=1e-7, clip=False
    )
    (mean, covariance), (mean_wanted, covariance_wanted) = moments(result), moments(OTHER)
    np.testing.assert_allclose(mean, mean_wanted, atol=2e-6)
    if method == "channel":
        covariance, covariance_wanted = (
            np.diagonal(c, axis1=1, axis2=2) for c in (covariance, covariance_wanted)
        )
    np.testing.assert_allclose(covariance, covariance_wanted, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_matching_to_itself_changes_nothing(method):
    result = color.match_moments(jnp.asarray(IMAGES), jnp.asarray(IMAGES), method=method)
    np.testing.assert_allclose(result, IMAGES, atol=2e-5)


def test_symmetric_does_not_depend_on_the_order_of_channels():
    images, other = jnp.asarray(IMAGES), jnp.asarray(OTHER)
    match = functools.partial(color.match_moments, method="symmetric", clip=False)
    turned = match(images[..., ::-1], other[..., ::-1])[..., ::-1]
    np.testing.assert_allclose(turned, match(images, other), atol=5e-5)


FLAT = np.full((2, 8, 8, 3), 0.25, np.float32)
GREY = np.broadcast_to(picture(5, (2, 8, 8, 3))[..., :1], (2, 8, 8, 3))


def nearly_grey():
    """Grey with the rounding of a picture file in its colours."""
    noise = np.random.default_rng(0).integers(-1, 2, GREY.shape) / 255
    return np.clip(GREY + noise, 0, 1).astype(np.float32)


FUNCTIONS = {
    **{m: functools.partial(color.match_moments, method=m) for m in METHODS},
    "luminance": color.match_luminance,
    "transfer": color.transfer_luminance,
    "histogram": color.match_histogram,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("one", ["flat", "black", "grey", "nearly grey", "picture"])
@pytest.mark.parametrize("other", ["flat", "black", "grey", "picture"])
def test_flat_and_grey_images_are_finite_with_finite_gradients(name, one, other):
    kinds = {
        "flat": FLAT,
        "black": 0 * FLAT,
        "grey": GREY,
        "nearly grey": nearly_grey(),
        "picture": picture(6, (2, 8, 8, 3)),
    }
    images, reference = jnp.asarray(kinds[one]), jnp.asarray(kinds[other])
    weights = picture(7, (2, 8, 8, 3))
    (_, result), gradients = gradients_of(name)(images, reference, jnp.asarray(weights))
    result = np.asarray(result)
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1
    assert all(np.isfinite(np.asarray(g)).all() for g in gradients)


@functools.cache
def gradients_of(name):
    """The compiled gradient of a function's weighted sum, with the function's result."""

    def objective(images, reference, weights):
        result = FUNCTIONS[name](images, reference)
        return (result * weights).sum(), result

    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_flat_image_becomes_the_mean_of_the_reference(method):
    result = color.match_moments(jnp.asarray(FLAT), jnp.asarray(OTHER), method=method)
    expected = np.broadcast_to(OTHER.mean((1, 2), keepdims=True), FLAT.shape)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    result = color.match_moments(jnp.asarray(IMAGES), jnp.asarray(FLAT), method=method)
    np.testing.assert_allclose(result, 0.25, atol=5e-3)  # sqrt(eps), some deviations wide


@pytest.mark.parametrize("name", ["cholesky", "symmetric", "channel", "luminance", "transfer"])
def test_gradients_against_finite_differences_in_float64(name):
    function = functools.partial(FUNCTIONS[name], clip=False)
    with jax.enable_x64(True):
        images = jnp.asarray(picture(8, (1, 4, 5, 3)), jnp.float64)
        reference = jnp.asarray(picture(9, (1, 4, 5, 3)), jnp.float64)
        weights, step_i, step_r = (
            jnp.asarray(np.random.default_rng(s).normal(size=images.shape)) for s in (1, 2, 3)
        )

        @jax.jit
        def objective(images, reference):
            return (function(images, reference) ** 2 * weights).sum()

        h = 1e-6
        numeric = (
            objective(images + h * step_i, reference + h * step_r)
            - objective(images - h * step_i, reference - h * step_r)
        ) / (2 * h)
        grad_i, grad_r = jax.jit(jax.grad(objective, argnums=(0, 1)))(images, reference)
        analytic = (grad_i * step_i).sum() + (grad_r * step_r).sum()
        assert images.dtype == grad_i.dtype == jnp.float64
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6)


# ------------------------------------------------------------------------------------- histogram


match_histogram = jax.jit(color.match_histogram)


def test_match_histogram_reorders_the_reference_at_equal_sizes():
    reference = jnp.asarray(picture(4))
    images = jnp.asarray(np.random.default_rng(0).permutation(IMAGES.size) / IMAGES.size)
    images = images.reshape(IMAGES.shape).astype(jnp.float32)  # no two values are the same
    result = np.asarray(match_histogram(images, reference))
    for k in range(2):
        for c in range(3):
            new, wanted, old = (
                np.asarray(x)[k, ..., c].ravel() for x in (result, reference, images)
            )
            np.testing.assert_array_equal(np.sort(new), np.sort(wanted))
            np.testing.assert_array_equal(np.sort(wanted), new[np.argsort(old)])


@pytest.mark.parametrize("levels", [4, 256, None])
def test_match_histogram_against_float64(levels):
    images = IMAGES if levels is None else np.round(IMAGES * (levels - 1)) / (levels - 1)
    images = images.astype(np.float32)
    result = match_histogram(jnp.asarray(images), jnp.asarray(OTHER))
    for k in range(2):
        for c in range(3):
            old, wanted = images[k, ..., c].ravel(), np.sort(OTHER[k, ..., c].ravel())
            _, index, counts = np.unique(old, return_inverse=True, return_counts=True)
            quantiles = (np.cumsum(counts) - counts / 2) / old.size
            position = quantiles * wanted.size - 0.5
            expected = np.interp(position, np.arange(wanted.size), wanted.astype(np.float64))
            np.testing.assert_allclose(result[k, ..., c].ravel(), expected[index], atol=2e-6)


def test_match_histogram_of_flat_images_and_a_single_pixel():
    median = np.median(OTHER, axis=(1, 2), keepdims=True)
    result = match_histogram(jnp.asarray(FLAT), jnp.asarray(OTHER))
    np.testing.assert_allclose(result, np.broadcast_to(median, FLAT.shape), atol=1e-6)
    one = jnp.full((2, 1, 1, 3), 0.4)
    np.testing.assert_allclose(
        match_histogram(jnp.asarray(IMAGES), one), np.full_like(IMAGES, 0.4), atol=1e-7
    )


# ----------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jit_and_vmap_equal_eager(name):
    function = FUNCTIONS[name]
    images, reference = jnp.asarray(IMAGES), jnp.asarray(picture(4))
    eager = function(images, reference)
    assert eager.dtype == jnp.float32
    assert eager.shape == images.shape
    np.testing.assert_allclose(jax.jit(function)(images, reference), eager, atol=2e-6)
    singly = jax.vmap(function)(images[:, None], reference[:, None])
    np.testing.assert_allclose(singly[:, 0], eager, atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_reference_serves_a_batch(name):
    function = jax.jit(FUNCTIONS[name])
    images, reference = jnp.asarray(IMAGES), picture(4)[:1]
    together = function(images, jnp.asarray(reference))
    repeated = function(images, jnp.asarray(reference.repeat(2, axis=0)))
    np.testing.assert_allclose(together, repeated, atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_silent_rank_promotion_and_half_precision(name):
    function = jax.jit(FUNCTIONS[name])
    images, reference = jnp.asarray(IMAGES), jnp.asarray(picture(4))
    with jax.numpy_rank_promotion("raise"):
        eager = function(images, reference)
        half = function(images.astype(jnp.bfloat16), reference.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    difference = np.abs(np.asarray(half.astype(jnp.float32)) - np.asarray(eager))
    assert difference.mean() < 0.02


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lowers_for_every_platform(name):
    function = FUNCTIONS[name]
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    exported = export.export(jax.jit(function), platforms=["cpu", "cuda", "tpu"])(shape, shape)
    assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_arguments(name):
    function = FUNCTIONS[name]
    images = jnp.asarray(IMAGES)
    for wrong in (images[0], images[..., :2], images[:, :0], (images * 255).astype(jnp.uint8)):
        with pytest.raises(ValueError, match="images: expected"):
            function(wrong, images)
        with pytest.raises(ValueError, match=r"(reference|content): expected"):
            function(images, wrong)
    with pytest.raises(ValueError, match="batch of 2"):
        function(images, jnp.zeros((3, 13, 17, 3)))


def test_wrong_method_and_size():
    images = jnp.asarray(IMAGES)
    with pytest.raises(ValueError, match="cholesky, symmetric, channel"):
        color.match_moments(images, images, method="pca")
    with pytest.raises(ValueError, match="height and width"):
        color.transfer_luminance(images, images[:, :5])
