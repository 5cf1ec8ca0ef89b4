"""Losses and distributions against float64 NumPy, analytic cases, gradients and properties."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.test_util import check_grads

from jaxstyle.distributions import (
    GaussianStatistics,
    WassersteinTarget,
    gaussian_statistics,
    mmd,
    wasserstein2,
    wasserstein2_target,
)
from jaxstyle.losses import (
    Moments,
    channel_moments,
    content_loss,
    gram_matrix,
    moments_loss,
    perceptual_loss,
    style_loss,
    total_variation,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")

SHAPE = (2, 5, 7, 6)
OTHER = (2, 4, 6, 6)


def draw(shape=SHAPE, seed=0):
    """Features like those after a ReLU: half zeros, a mean, dependent channels."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(shape[-1], shape[-1]))
    values = np.maximum(rng.normal(size=shape) @ mixing + 0.3, 0)
    return values.astype(np.float32)


# Float64 references, an image at a time.


def matrix(image):
    return image.reshape(-1, image.shape[-1]).astype(np.float64)


def np_gram(image, normalize):
    f = matrix(image)
    return f.T @ f / {"none": 1, "positions": f.shape[0], "elements": f.size}[normalize]


def np_style(gram, target, form):
    factor = {"gatys": 0.25 / len(gram) ** 2, "mean": 1 / len(gram) ** 2, "sum": 1}[form]
    return factor * ((gram - target) ** 2).sum()


def np_variation(image, order, reduction):
    total = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(image.astype(np.float64), axis=axis)) ** order
        total += steps.sum() if reduction == "sum" else 0.5 * steps.mean()
    return total


def np_root(symmetric):
    values, vectors = np.linalg.eigh(symmetric)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def np_statistics(image):
    f = matrix(image)
    return f.mean(0), np.cov(f.T, bias=True)


def np_wasserstein(statistics, target, eps):
    (mean, s), (target_mean, t) = statistics, target
    noise = eps * np.trace(t) * np.eye(len(t))
    root = np_root(t + noise)
    overlap = np.trace(np_root(root @ (s + noise) @ root))
    bures = np.trace(s) + np.trace(t) + 2 * np.trace(noise) - 2 * overlap
    return ((mean - target_mean) ** 2).mean() + bures / len(t)


def each(function, *arrays):
    return np.stack([function(*images) for images in zip(*arrays, strict=True)])


def close(actual, expected, rtol=2e-5, atol=1e-6):
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("normalize", ["none", "positions", "elements"])
def test_gram_matrix(normalize):
    f = draw()
    grams = gram_matrix(f, normalize=normalize)
    close(grams, each(lambda x: np_gram(x, normalize), f))
    np.testing.assert_array_equal(grams, jnp.swapaxes(grams, 1, 2))
    assert np.linalg.eigvalsh(np.asarray(grams, np.float64)).min() > -1e-6 * np.abs(grams).max()
    mixed = f.reshape(2, 35, 6)[:, np.random.default_rng(1).permutation(35)].reshape(2, 7, 5, 6)
    close(gram_matrix(mixed, normalize=normalize), grams)


def test_gram_matrix_is_elements_unless_said():
    close(gram_matrix(draw()), gram_matrix(draw(), normalize="elements"))


@pytest.mark.parametrize(
    ("form", "reduce"), [("half_sum", lambda d: d.sum() / 2), ("mean", np.mean)]
)
def test_content_loss(form, reduce):
    f, g = draw(), draw(seed=1)
    expected = each(lambda x, y: reduce((x.astype(np.float64) - y) ** 2), f, g)
    close(content_loss(f, g, form=form), expected)
    close(content_loss(f, g[:1], form=form)[:1], expected[:1])


def test_perceptual_loss_weighs_layers():
    f, g = {"a": draw(), "b": draw(OTHER)}, {"b": draw(OTHER, 2), "a": draw(seed=1)}
    terms = {k: each(lambda x, y: ((x - y) ** 2).mean(dtype=np.float64), f[k], g[k]) for k in f}
    close(perceptual_loss(f["a"], g["a"]), terms["a"])
    close(perceptual_loss(f, g), terms["a"] + terms["b"])
    weighted = perceptual_loss(f, g, weights={"a": 0.5, "b": jnp.float32(3)})
    close(weighted, 0.5 * terms["a"] + 3 * terms["b"])


@pytest.mark.parametrize("form", ["gatys", "mean", "sum"])
def test_style_loss(form):
    g, a = gram_matrix(draw()), gram_matrix(draw(OTHER, 1))
    expected = each(lambda x, y: np_style(x.astype(np.float64), y, form), np.array(g), np.array(a))
    close(style_loss(g, a, form=form), expected)
    layers = style_loss({"x": g, "y": a}, {"x": a, "y": g}, form=form, weights={"x": 1, "y": 0.2})
    close(layers, 1.2 * expected)


def test_conversions_between_gram_normalisations():
    f, g, (p, c) = draw(), draw(seed=1), (35, 6)

    def loss(normalize, form):
        return style_loss(
            gram_matrix(f, normalize=normalize), gram_matrix(g, normalize=normalize), form=form
        )

    gatys = loss("positions", "gatys")
    printed = style_loss(
        gram_matrix(f, normalize="none"), gram_matrix(g, normalize="none"), form="sum"
    )
    close(printed / (4 * c**2 * p**2), gatys)
    close(loss("positions", "sum") / (4 * c**2), gatys)
    close(loss("positions", "mean") / 4, gatys)
    close(loss("elements", "mean") * c**2 / 4, gatys)
    close(mmd(f, g, kernel="polynomial") / 4, gatys)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("reduction", ["sum", "half_mean"])
def test_total_variation(order, reduction):
    x = draw()
    variation = functools.partial(total_variation, order=order, reduction=reduction)
    close(variation(x), each(lambda i: np_variation(i, order, reduction), x))
    # A checkerboard's neighbours all differ by 1.
    board = np.indices((4, 6)).sum(0) % 2 * np.ones((1, 3, 1, 1))
    board = jnp.asarray(board.transpose(0, 2, 3, 1), jnp.float32)
    close(variation(board), [3 * (3 * 6 + 4 * 5) if reduction == "sum" else 1.0])
    # A ramp one pixel high has horizontal differences only.
    ramp = jnp.arange(5.0).reshape(1, 1, 5, 1)
    close(variation(ramp), [4.0 if reduction == "sum" else 0.5])
    close(variation(ramp.reshape(1, 5, 1, 1)), variation(ramp))
    close(variation(jnp.ones((1, 1, 1, 3))), [0.0])
    assert np.isfinite(jax.grad(lambda x: variation(x).sum())(jnp.ones((1, 1, 1, 3)))).all()


def test_total_variation_has_no_gradient_at_ties():
    flat = jnp.full((1, 4, 4, 3), 0.3)
    assert not np.any(jax.grad(lambda x: total_variation(x).sum())(flat))
    spike = jax.grad(lambda x: total_variation(x).sum())(flat.at[0, 1, 1, 0].set(0.5))
    assert spike[0, 1, 1, 0] == 4
    assert spike[0, 0, 1, 0] == spike[0, 1, 2, 0] == -1


def test_moments():
    f, g = draw(), draw(OTHER, 1)
    moments = channel_moments(f, eps=0.25)
    close(moments.mean, each(lambda x: matrix(x).mean(0), f))
    close(moments.std, each(lambda x: np.sqrt(matrix(x).var(0) + 0.25), f))
    expected = each(
        lambda x, y: (
            (matrix(x).mean(0) - matrix(y).mean(0)) ** 2
            + (np.sqrt(matrix(x).var(0) + 1e-5) - np.sqrt(matrix(y).var(0) + 1e-5)) ** 2
        ).mean(),
        f,
        g,
    )
    close(moments_loss(channel_moments(f), channel_moments(g)), expected)


def test_statistics_keep_their_digits_beside_a_large_mean():
    f = draw()
    moments, statistics = channel_moments(f + 1000, eps=0), gaussian_statistics(f + 1000)
    close(moments.std, each(lambda x: matrix(x).std(0), f), rtol=1e-3)
    close(statistics.covariance, each(lambda x: np_statistics(x)[1], f), rtol=1e-2, atol=1e-3)


def test_linear_mmd():
    f, g = draw(), draw(OTHER, 1)
    expected = each(lambda x, y: ((matrix(x).mean(0) - matrix(y).mean(0)) ** 2).mean(), f, g)
    close(mmd(f, g), expected)


def test_polynomial_mmd():
    f, g = draw(), draw(OTHER, 1)

    def kernel_means(x, y):
        x, y = matrix(x), matrix(y)
        k = [((a @ b.T) ** 2).mean() for a, b in ((x, x), (y, y), (x, y))]
        return (k[0] + k[1] - 2 * k[2]) / x.shape[1] ** 2

    close(mmd(f, g, kernel="polynomial"), each(kernel_means, f, g), rtol=1e-4)


def test_gaussian_mmd_estimates_the_kernel_means():
    f, g = draw((1, 8, 8, 6)), draw((1, 6, 6, 6), 1) * 1.5
    keys = jax.random.split(jax.random.key(0), 1000)
    samples = jax.jit(jax.vmap(lambda key: mmd(f, g, kernel="gaussian", key=key)[0]))(keys)
    x, y = matrix(f[0]), matrix(g[0])
    distances = [((a[:, None] - b) ** 2).sum(-1) for a, b in ((x, x), (y, y), (x, y))]

    def off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    # The bandwidth is an estimate too; its mean over draws is that of all pairs.
    within = [off_diagonal(d) for d in distances[:2]]
    g_mean = (sum(within) + 2 * distances[2].mean()) / 4
    k = [np.exp(-d / g_mean) for d in distances]
    expected = off_diagonal(k[0]) + off_diagonal(k[1]) - 2 * k[2].mean()
    error = np.std(samples) / np.sqrt(len(keys))
    assert expected > 10 * error
    assert abs(np.mean(samples) - expected) < 4 * error + 0.02 * expected
    assert len(np.unique(samples[:50])) > 40


def test_gaussian_statistics():
    f = draw()
    statistics = gaussian_statistics(f)
    close(statistics.mean, each(lambda x: np_statistics(x)[0], f))
    close(statistics.covariance, each(lambda x: np_statistics(x)[1], f))


distance = jax.jit(wasserstein2, static_argnames="eps")
prepare = jax.jit(wasserstein2_target, static_argnames="eps")


def test_wasserstein2():
    f, g = draw(), draw(OTHER, 1)
    s, t = gaussian_statistics(f), gaussian_statistics(g)

    def reference(eps):
        return each(lambda x, y: np_wasserstein(np_statistics(x), np_statistics(y), eps), f, g)

    close(distance(s, t), reference(1e-4), rtol=2e-4)
    close(distance(s, t, eps=1e-2), reference(1e-2), rtol=2e-4)
    target = prepare(t, eps=1e-2)
    assert isinstance(target, WassersteinTarget)
    assert [x.shape for x in target] == [(2, 6), (2,), (2, 6, 6), (2,)]
    close(distance(s, target), reference(1e-2), rtol=2e-4)
    first = jax.tree.map(lambda x: x[:1], target)
    shared = distance(s, first)
    close(shared[:1], distance(s, target)[:1])
    close(shared[1:], distance(jax.tree.map(lambda x: x[1:], s), first))


def test_wasserstein2_of_diagonal_gaussians():
    a, b = np.array([[0.5, 1, 2, 3]]), np.array([[1.5, 1, 0.25, 2]])
    mean = np.array([[1.0, 0, 2, 0]])
    s = GaussianStatistics(np.float32(mean), np.float32(np.diag(a[0] ** 2)[None]))
    t = GaussianStatistics(np.float32(0 * mean), np.float32(np.diag(b[0] ** 2)[None]))
    close(distance(s, t, eps=1e-6), ((a - b) ** 2 + mean**2).mean(1), rtol=1e-4)


def deep_statistics(positions, seed, scale=1.0, channels=128):
    """Of more channels than positions, with a power-law spectrum like VGG's."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(channels, channels)))[0]
    basis *= (np.arange(channels) + 2.0) ** -0.8
    values = np.maximum(rng.normal(size=(positions, channels)) @ basis.T, -0.02) * scale * 30
    mean, centered = values.mean(0), values - values.mean(0)
    covariance = centered.T @ centered / positions
    return GaussianStatistics(jnp.float32(mean[None]), jnp.float32(covariance[None]))


@jax.jit
def deep_gradient(statistics, target):
    return jax.value_and_grad(lambda s: wasserstein2(s, wasserstein2_target(target))[0])(statistics)


@pytest.mark.parametrize(
    ("positions", "seed", "scale", "tolerance"),
    [(20, 1, 1, 0.005), (100, 0, 1, 0.01), (20, 1, 10, 0.05), (20, 1, 0.1, 0.005)],
    ids=["different", "near", "brighter", "dimmer"],
)
def test_wasserstein2_of_singular_covariances(positions, seed, scale, tolerance):
    s, t = deep_statistics(positions, seed, scale), deep_statistics(60, 0)
    value, gradient = deep_gradient(s, t)
    s64, t64 = (tuple(np.asarray(x[0], np.float64) for x in y) for y in (s, t))
    close(value, np_wasserstein(s64, t64, 1e-4), rtol=0.005)
    noise = 1e-4 * np.trace(t64[1]) * np.eye(len(t64[1]))
    root = np_root(t64[1] + noise)
    transport = root @ np.linalg.inv(np_root(root @ (s64[1] + noise) @ root)) @ root
    exact = (np.eye(len(root)) - transport) / len(root)
    # What the gradient is worth to features: its length under their covariance.
    error = gradient.covariance[0] - exact
    lengths = [np.sqrt(np.trace(g @ s64[1] @ g)) for g in (error, exact)]
    assert lengths[0] < tolerance * lengths[1]


LOSSES = {
    "content": content_loss,
    "content_mean": functools.partial(content_loss, form="mean"),
    "perceptual": perceptual_loss,
    "style": lambda x, y: style_loss(gram_matrix(x), gram_matrix(y)),
    "style_raw": lambda x, y: style_loss(
        gram_matrix(x, normalize="none"), gram_matrix(y, normalize="none"), form="sum"
    ),
    "variation": lambda x, y: total_variation(x) - total_variation(y),
    "variation_2": lambda x, y: (
        total_variation(x, order=2, reduction="half_mean")
        - total_variation(y, order=2, reduction="half_mean")
    ),
    "moments": lambda x, y: moments_loss(channel_moments(x), channel_moments(y)),
    "linear": mmd,
    "polynomial": functools.partial(mmd, kernel="polynomial"),
    "gaussian": lambda x, y: mmd(x, y, kernel="gaussian", key=jax.random.key(0)),
    "wasserstein": lambda x, y: wasserstein2(gaussian_statistics(x), gaussian_statistics(y)),
    "wasserstein_prepared": lambda x, y: wasserstein2(
        gaussian_statistics(x), wasserstein2_target(gaussian_statistics(y))
    ),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


@jax.jit
def evaluate(x, y):
    """Of every loss, values and the gradients of their sum: compiled together, in a second."""
    results = {}
    for name, loss in LOSSES.items():
        values, pullback = jax.vjp(loss, x, y)
        results[name] = values, pullback(jnp.ones_like(values))
    return results


@pytest.fixture(scope="module")
def batched():
    f, g = jnp.asarray(draw()), jnp.asarray(draw(seed=1))
    # The second pair is the first one with another companion in the batch.
    pairs = jnp.stack([f, f.at[1].set(g[1])]), jnp.stack([g, g.at[1].set(g[0])])
    return f, g, evaluate(f, g), jax.jit(jax.vmap(evaluate))(*pairs)


@each_loss
def test_compiled_batched_and_alone_are_the_same(name, batched):
    f, g, compiled, mapped = batched
    values, gradients = compiled[name]
    close(LOSSES[name](f, g), values, rtol=1e-4)
    mapped_values, mapped_gradients = mapped[name]
    close(mapped_values[0], values, rtol=1e-4)
    close(mapped_values[1, :1], values[:1], rtol=1e-4)
    for gradient, mapped_gradient in zip(gradients, mapped_gradients, strict=True):
        scale = 1e-5 * float(np.abs(gradient).max())
        close(mapped_gradient[0], gradient, rtol=1e-3, atol=scale)
        close(mapped_gradient[1, 0], gradient[0], rtol=1e-3, atol=scale)


def test_gradients():
    # The Gaussian kernel's bandwidth is without gradient on purpose: its test is below.
    checked = {name: loss for name, loss in LOSSES.items() if name not in ("gaussian", "style_raw")}
    with jax.enable_x64(True):
        # Away from the ties of absolute differences.
        f, g = (jnp.asarray(np.random.default_rng(s).normal(size=(1, 3, 3, 4))) for s in (0, 1))
        totals = jax.jit(lambda x, y: {name: loss(x, y).sum() for name, loss in checked.items()})
        check_grads(totals, (f, g), order=1, modes=["rev"], rtol=1e-4)


def test_second_derivative_of_wasserstein2():
    with jax.enable_x64(True):
        f, g = (jnp.asarray(np.random.default_rng(s).normal(size=(1, 3, 3, 4))) for s in (0, 1))
        target = wasserstein2_target(gaussian_statistics(g))
        gradient = jax.jit(jax.grad(lambda x: wasserstein2(gaussian_statistics(x), target).sum()))
        check_grads(gradient, (f,), order=1, modes=["rev"], rtol=1e-4)


def test_gradient_of_gaussian_mmd_holds_the_bandwidth_fixed():
    f, g = jnp.asarray(draw((1, 1, 2, 3))), jnp.asarray(draw((1, 1, 2, 3), 1))
    gradient = jax.jit(jax.grad(lambda x: LOSSES["gaussian"](x, g).sum()))(f)
    # Two positions make one pair, in either order of each picture.
    (a, b), (c, d) = (matrix(x[0]) for x in np.array((f, g)))
    width = sum(((x - y) ** 2).sum() for x, y in ((a, b), (c, d), (a, d), (b, c))) / 4
    other = sum(((x - y) ** 2).sum() for x, y in ((a, b), (c, d), (a, c), (b, d))) / 4

    def slope(x, y, width):
        return -2 * (x - y) / width * np.exp(-((x - y) ** 2).sum() / width)

    crossed = slope(a, b, width) - slope(a, d, width), slope(b, a, width) - slope(b, c, width)
    direct = slope(a, b, other) - slope(a, c, other), slope(b, a, other) - slope(b, d, other)
    matches = [np.allclose(gradient[0, 0], x, rtol=1e-4, atol=1e-6) for x in (crossed, direct)]
    assert any(matches)
    # With its own bandwidth, the discrepancy does not change with the scale of the features.
    f, g = draw(), draw(seed=1)
    close(evaluate(3 * f, 3 * g)["gaussian"][0], evaluate(f, g)["gaussian"][0])


FLAT = {
    "black": functools.partial(np.zeros, dtype=np.float32),
    "grey": functools.partial(np.full, fill_value=np.float32(0.7)),
}


@pytest.mark.parametrize("flat", FLAT)
@pytest.mark.parametrize("other", [*FLAT, "full"])
def test_flat_pictures_have_finite_values_and_gradients(flat, other):
    x, y = (jnp.asarray(FLAT[z](SHAPE) if z in FLAT else draw()) for z in (flat, other))
    for pair in ((x, y), (y, x)):
        for name, results in evaluate(*pair).items():
            for result in jax.tree.leaves(results):
                assert np.isfinite(result).all(), name


def test_of_itself_is_zero():
    f = jnp.asarray(draw())
    for name, (values, gradients) in evaluate(f, f).items():
        if name != "gaussian":
            assert np.abs(values).max() < 1e-5, name
        if name not in ("gaussian", "variation", "variation_2"):
            assert np.abs(gradients[0]).max() < 1e-4, name


def test_bfloat16_accumulates_in_float32():
    f, g = jnp.asarray(draw(), jnp.bfloat16), jnp.asarray(draw(seed=1), jnp.bfloat16)
    exact = evaluate(f.astype(jnp.float32), g.astype(jnp.float32))
    for name, (values, gradients) in evaluate(f, g).items():
        close(values, exact[name][0], rtol=1e-4)
        for gradient, its_exact in zip(gradients, exact[name][1], strict=True):
            assert gradient.dtype == jnp.bfloat16
            scale = float(np.abs(its_exact).max())
            close(gradient.astype(jnp.float32), its_exact, rtol=0.02, atol=0.01 * scale)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_statistics_of_half_precision_are_float32(dtype):
    f = jnp.full((1, 128, 128, 2), 8, dtype)
    close(gram_matrix(f, normalize="none"), np.full((1, 2, 2), 64.0 * 128**2))
    close(channel_moments(f).mean, np.full((1, 2), 8.0))
    close(gaussian_statistics(f).covariance, np.zeros((1, 2, 2)))
    close(content_loss(f, 0 * f), [64.0 * 128**2])
    gradient = jax.grad(lambda x: gram_matrix(x).sum())(f)
    assert gradient.dtype == dtype
    close(gradient.astype(jnp.float32), np.full(f.shape, 32 / (2 * 128**2)), rtol=0.01)


def test_scaling_features_scales_losses():
    f, g = draw(), draw(seed=1)
    # 100 is about the ratio of the original network's features to normalised ones.
    small, large = evaluate(f, g), evaluate(100 * f, 100 * g)
    powers = {"content": 2, "style": 4, "moments": 2, "linear": 2, "wasserstein": 2}
    for name, power in powers.items():
        close(large[name][0] / 100**power, small[name][0], rtol=2e-3)


def test_the_optimisation_step_lowers_for_every_platform():
    target = wasserstein2_target(gaussian_statistics(draw()))

    @jax.jit
    def step(x):
        return jax.grad(
            lambda x: (wasserstein2(gaussian_statistics(x), target) + total_variation(x)).sum()
        )(x)

    exported = export.export(step, platforms=["cpu", "cuda", "tpu"])(jnp.zeros(SHAPE))
    assert exported.platforms == ("cpu", "cuda", "tpu")


X, G = np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 3, 3), np.float32)
M = G[:, 0]
STATISTICS = GaussianStatistics(M, G)
LAYERS = {"relu1_1": G, "relu2_1": G}
REFUSED = {
    "another size": (
        lambda: content_loss(X, X[:, :2]),
        "targets of shape (2, 4, 4, 3) or (1, 4, 4, 3), got (2, 2, 4, 3); compare one layer",
    ),
    "another batch": (
        lambda: content_loss(X[:1], X),
        "targets of shape (1, 4, 4, 3), got (2, 4, 4, 3)",
    ),
    "other channels": (lambda: perceptual_loss(X, X[..., :1]), "got (2, 4, 4, 1)"),
    "no batch": (
        lambda: content_loss(X[0], X[0]),
        "features of shape [batch, height, width, channels], got (4, 4, 3); a single picture gets "
        "its batch axis by array[None]",
    ),
    "form": (
        lambda: content_loss(X, X, form="halfsum"),
        "form to be 'half_sum' or 'mean', got 'halfsum'. Did you mean 'half_sum'?",
    ),
    "list": (
        lambda: content_loss([X], X),
        "features to be an array [batch, height, width, channels], got list; convert it",
    ),
    "integers": (lambda: gram_matrix(X.astype(np.uint8)), "floating type, got uint8; convert"),
    "empty": (
        lambda: gram_matrix(X[:, :0]),
        "at least one element an image, got shape (2, 0, 4, 3); the picture is too small",
    ),
    "normalize": (
        lambda: gram_matrix(X, normalize="element"),
        "'none', 'positions' or 'elements', got 'element'. Did you mean 'elements'?",
    ),
    "not square": (
        lambda: style_loss(G, G[:, :2]),
        "square matrices [batch, channels, channels] as targets, got (2, 2, 3); gram_matrix",
    ),
    "features for Gram": (
        lambda: style_loss(X, X),
        "grams of shape [batch, channels, channels], got (2, 4, 4, 3)",
    ),
    "other Gram": (
        lambda: style_loss(G, G[:, :2, :2]),
        "targets of shape (2, 3, 3) or (1, 3, 3), got (2, 2, 2)",
    ),
    "one mapping": (
        lambda: style_loss(LAYERS, G),
        "two mappings from layer to array, got dict and ndarray",
    ),
    "weights alone": (lambda: style_loss(G, G, weights={"a": 1}), "no weights with single arrays"),
    "no layers": (lambda: style_loss({}, {}), "at least one layer, got none"),
    "layers": (
        lambda: style_loss(LAYERS, {"relu1_1": G, "relu2_2": G}),
        "targets for exactly the layers 'relu1_1' and 'relu2_1', got 'relu1_1' and 'relu2_2': "
        "targets lacks 'relu2_1'. Did you mean 'relu2_2'?",
    ),
    "too many weights": (
        lambda: style_loss({"a": G}, {"a": G}, weights={"a": 1, "b": 1}),
        "weights for exactly the layers 'a', got 'a' and 'b': the first argument lacks 'b'.",
    ),
    "no weights": (
        lambda: perceptual_loss({"a": X}, {"a": X}, weights={}),
        "got none: weights lacks 'a'",
    ),
    "order": (lambda: total_variation(X, order=3), "order 1 (absolute) or 2 (squares), got 3"),
    "reduction": (
        lambda: total_variation(X, reduction="mean"),
        "'sum' or 'half_mean', got 'mean'. Did you mean 'half_mean'?",
    ),
    "moments": (
        lambda: moments_loss(Moments(M, M), Moments(M[:, :2], M)),
        "targets of shape (2, 3) or (1, 3), got (2, 2)",
    ),
    "kernel": (
        lambda: mmd(X, X, kernel="poly"),
        "'linear', 'polynomial' or 'gaussian', got 'poly'",
    ),
    "no key": (
        lambda: mmd(X, X, kernel="gaussian"),
        "expected a key for the gaussian kernel, which draws pairs at random, got none; pass "
        "key=jax.random.key(seed)",
    ),
    "raw key": (
        lambda: mmd(X, X, kernel="gaussian", key=np.zeros(2, np.uint32)),
        "got an array of uint32",
    ),
    "one position": (
        lambda: mmd(X[:, :1, :1], X, kernel="gaussian", key=jax.random.key(0)),
        "at least 2 positions",
    ),
    "mmd's channels": (
        lambda: mmd(X, X[..., :2]),
        "batch 2 or 1 and 3 channels, got shape (2, 4, 4, 2)",
    ),
    "statistics": (
        lambda: wasserstein2(STATISTICS, GaussianStatistics(M[:, :2], G[:, :2, :2])),
        "targets of shape (2, 3) or (1, 3), got (2, 2)",
    ),
    "mean beside covariance": (
        lambda: wasserstein2_target(GaussianStatistics(M[:1], G)),
        "statistics.covariance of shape (1, 3, 3) beside a mean of (1, 3), got (2, 3, 3)",
    ),
    "eps twice": (
        lambda: wasserstein2(STATISTICS, WassersteinTarget(M, M[:, 0], G, M[:, 0]), eps=1e-3),
        "no eps with a prepared target, got 0.001; give it to wasserstein2_target",
    ),
    "eps": (lambda: wasserstein2_target(STATISTICS, eps=0), "eps > 0, got 0"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
