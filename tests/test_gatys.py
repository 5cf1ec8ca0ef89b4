"""Pixel optimisation: terms and updates against NumPy, the pipeline end to end, the presets."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from jax import export
from PIL import Image
from test_features import numpy_vgg

from jaxstyle import color, features, images, weights, winograd
from jaxstyle import objective as objectives
from jaxstyle.config import PRESETS, StylizeConfig, preset, replace
from jaxstyle.methods import gatys, gatys_scales, gatys_updates

pytestmark = pytest.mark.usefixtures("quick_compiler")

# Few and narrow layers, for they are what the compiler takes long for.
NETWORK = networks.random_weights(widths=((6,), (8,)))._replace(padding="zero")
# Nothing is left to the defaults, which may change.
PLAIN = StylizeConfig(
    size=24,
    style_scale=1.0,
    content_weight=0.5,
    style_weight=2.0,
    tv_weight=0.1,
    content_layers={"relu2_1": 1.0},
    style_layers={"relu1_1": 0.5, "relu2_1": 1.5},
    content_loss="mean",
    style_loss="elements",
    tv_loss="squared_mean",
    normalize_features=False,
    pooling="max",
    optimizer="adam",
    learning_rate=0.05,
    adam_b1=0.9,
    adam_b2=0.99,
    steps=5,
    steps_factor=1.0,
    scales=1,
    scale_factor=2.0,
    averaging=0.0,
    clamp=True,
    standardize=False,
    init="content",
    keep_colors=None,
    seed=0,
)
NOISE = replace(PLAIN, init="noise")
TERMS = ["total", "content", "style", "tv"]


def picture(seed, height, width):
    """A smooth picture of middling colours."""
    coarse = np.random.default_rng(seed).random((4, 4, 3), np.float32)
    return images.resize(0.25 + 0.5 * coarse, (height, width))


CONTENT, STYLE, OTHER = picture(1, 24, 16), picture(2, 15, 22), picture(3, 18, 18)
stylize = functools.partial(gatys.stylize, features=NETWORK, config=PLAIN)


def pixels(iterate):
    return np.asarray(iterate.image)


# Iterates


@pytest.fixture(scope="module")
def run():
    """Two scales from noise; each picture is read before the next update."""
    iterates = stylize(CONTENT, [STYLE], config=NOISE, scales=2)
    return [i._replace(image=pixels(i), losses=jax.tree.map(float, i.losses)) for i in iterates]


def test_iterates_are_counted_in_order(run):
    assert [(i.scale, i.step) for i in run] == list(itertools.product((1, 2), range(1, 6)))
    assert {(i.scales, i.steps) for i in run} == {(2, 5)}
    assert all(isinstance(i, gatys.Iterate) for i in run)


def test_iterates_are_pictures(run):
    for iterate in run:
        assert iterate.image.shape == ((12, 8, 3) if iterate.scale == 1 else (24, 16, 3))
        assert iterate.image.dtype == np.float32
        assert iterate.image.min() >= 0
        assert iterate.image.max() <= 1


def test_the_loss_falls_at_every_scale(run):
    for scale in (1, 2):
        totals = [i.losses["total"] for i in run if i.scale == scale]
        assert totals[-1] < totals[0]
    for iterate in run:
        assert set(iterate.losses) == set(TERMS)
        parts = sum(iterate.losses[name] for name in TERMS[1:])
        assert iterate.losses["total"] == pytest.approx(parts, rel=1e-5)


def test_same_seed_same_bits(run):
    """Whether the iterates are read at once or at the end; a batch axis and float64 are welcome."""
    again = list(stylize(CONTENT[None].astype(float), [STYLE], config=NOISE, scales=2))
    for one, other in zip(run, again, strict=True):
        assert one.image.tobytes() == pixels(other).tobytes()
        assert one.losses == jax.tree.map(float, other.losses)
    finer = [i for i in run if i.scale == 2]
    another = next(stylize(CONTENT, [STYLE], config=NOISE, seed=1, steps=1))
    assert np.abs(pixels(another) - finer[0].image).mean() > 0.1


def test_sizes_of_the_scales():
    config = replace(PLAIN, size=600, scales=3)
    assert gatys_scales.scale_sizes(100, 150, config) == [(100, 150), (200, 300), (400, 600)]
    config = replace(PLAIN, size=450, scales=2, scale_factor=1.5)
    assert gatys_scales.scale_sizes(150, 100, config) == [(300, 200), (450, 300)]
    # However coarse, a pixel is left.
    assert gatys_scales.scale_sizes(1, 9, replace(PLAIN, size=4, scales=5))[0] == (1, 1)
    jin = PRESETS["jin2021"].native
    assert gatys_scales.scale_sizes(600, 900, jin) == [(150, 225), (300, 450)]


def test_styles_are_sized_by_the_picture_and_never_enlarged():
    for scale, longer in ((1.0, 64), (0.5, 32), (1.25, 80), (5.0, 120), (0.0, 1)):
        config = replace(PLAIN, style_scale=scale)
        resized = gatys_scales.resize_style(np.zeros((60, 120, 3), np.float32), (64, 40), config)
        assert resized.shape == (1, max(longer // 2, 1), longer, 3)


# With a step size of 0 the pipeline shows its start


@pytest.fixture(scope="module")
def still():
    start = picture(4, 31, 30)
    return start, list(stylize(CONTENT, [STYLE], init=start, scales=2, steps=1, learning_rate=0))


def test_init_may_be_a_picture_of_any_size(still):
    start, iterates = still
    np.testing.assert_allclose(pixels(iterates[0]), images.resize(start, (12, 8)), atol=1e-6)


def test_a_scale_starts_from_the_one_before(still):
    _, iterates = still
    before = images.resize(pixels(iterates[0]), (24, 16))
    np.testing.assert_allclose(pixels(iterates[1]), before, atol=1e-6)


def test_initial_pictures():
    content, style = CONTENT[None], picture(5, 40, 40)[None]
    both = jnp.asarray(style), jnp.asarray(0.2 + 0.5 * style[:, ::-1])

    def start(init, seed=0):
        config = replace(PLAIN, init=init, seed=seed)
        wanted = jnp.zeros((1, 96, 96, 3)) if init == "style-stats" else jnp.asarray(content)
        return np.asarray(gatys_scales.initial_pictures(wanted, both, (0.25, 0.75), config))

    np.testing.assert_array_equal(start("content"), content)
    noise = start("noise")
    assert noise.shape == content.shape
    assert (noise.min() < 0.05, noise.max() > 0.95) == (True, True)
    for init in ("noise", "style-stats"):
        np.testing.assert_array_equal(start(init), start(init))
        assert np.abs(start(init) - start(init, 1)).mean() > 0.02
    # The colours of the mixture, a quarter of which is the first style.
    rows = start("style-stats").reshape(-1, 3)
    mixture = np.concatenate([np.reshape(p, (-1, 3)) for p in (both[0], *[both[1]] * 3)])
    np.testing.assert_allclose(rows.mean(0), mixture.mean(0), atol=0.01)
    np.testing.assert_allclose(np.cov(rows.T), np.cov(mixture.T), atol=0.003)


# Colours that are kept


def first_losses(*arguments, **options):
    iterate = next(stylize(*arguments, **options))
    return [float(iterate.losses[name]) for name in TERMS]


def test_keep_luminance():
    """Chrominance is the content's; the losses see grey pictures of matched luminance."""
    iterates = list(stylize(CONTENT, [STYLE], keep_colors="luminance"))
    for iterate in iterates[::4]:
        image, unclipped = pixels(iterate), np.ones(CONTENT.shape[:2], bool)
        unclipped = ((image > 0) & (image < 1)).all(2)
        assert unclipped.mean() > 0.8
        change = (image - CONTENT)[unclipped]
        np.testing.assert_allclose(change - change[:, :1], 0, atol=1e-6)
        assert np.abs(change).mean() > 0.01
    matched = color.match_luminance(jnp.asarray(STYLE)[None], jnp.asarray(CONTENT)[None])
    grey = [np.repeat(color.luminance(p), 3, 3) for p in (CONTENT[None], matched)]
    found = [float(iterates[0].losses[name]) for name in TERMS]
    assert found == pytest.approx(first_losses(grey[0], [grey[1]]), rel=1e-4, abs=1e-7)


def test_match_the_style_to_the_content_first():
    matched = color.match_moments(jnp.asarray(STYLE)[None], jnp.asarray(CONTENT)[None])
    found = first_losses(CONTENT, [STYLE], keep_colors="match")
    assert found == pytest.approx(first_losses(CONTENT, [matched]), rel=1e-4, abs=1e-7)
    assert found[2] != pytest.approx(first_losses(CONTENT, [STYLE])[2], rel=0.05)


# Several styles


def test_a_style_of_weight_zero_counts_for_nothing():
    alone = list(stylize(CONTENT, [STYLE]))
    for given, options in (
        ([STYLE, OTHER], {"style_weights": [3, 0]}),
        ([STYLE, STYLE], {}),
    ):
        both = list(stylize(CONTENT, given, **options))
        np.testing.assert_allclose(pixels(both[-1]), pixels(alone[-1]), atol=1e-4)
        assert float(both[0].losses["total"]) == pytest.approx(float(alone[0].losses["total"]))
    mixed = float(next(stylize(CONTENT, [STYLE, OTHER], style_weights=[1, 3])).losses["style"])
    assert mixed != pytest.approx(float(alone[0].losses["style"]), rel=0.01)


@pytest.mark.parametrize("name", objectives.STYLE_LOSSES)
def test_blends_of_statistics(name):
    loss = objectives.STYLE_LOSSES[name]
    generator = np.random.default_rng(0)
    top, bottom = (
        jnp.asarray(generator.random((1, rows, 5, 3)), jnp.float32) + shift
        for rows, shift in ((4, 0.0), (6, 0.5))
    )
    found = [loss.statistics(half) for half in (top, bottom)]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, loss.blend(found, (1.0, 0.0)), found[0])
    jax.tree.map(close, loss.blend(found, (0.0, 1.0)), found[1])

    mixed = loss.blend(found, (0.4, 0.6))
    if name in ("wasserstein", "moments"):  # whose spread grows with the distance of the means
        mixed, found = mixed.mean, [f.mean for f in found]
    for between, a, b in zip(*(jax.tree.leaves(x) for x in (mixed, *found)), strict=True):
        assert (between >= np.minimum(a, b) - 1e-6).all()
        assert (between <= np.maximum(a, b) + 1e-6).all()


@pytest.mark.parametrize("name", [name for name in objectives.STYLE_LOSSES if name != "moments"])
def test_statistics_of_a_picture_add_up_from_its_parts(name):
    """Parts weighted by their positions: what a tiled or sharded objective rests on."""
    loss = objectives.STYLE_LOSSES[name]
    whole = jnp.asarray(np.random.default_rng(0).normal(1, 1, (2, 10, 5, 3)), jnp.float32)
    parts = [loss.statistics(part) for part in (whole[:, :4], whole[:, 4:])]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        loss.blend(parts, (0.4, 0.6)),
        loss.statistics(whole),
    )


@pytest.mark.parametrize("name", ["wasserstein", "moments"])
def test_the_blend_of_one_is_the_same_however_large_its_mean(name):
    loss = objectives.STYLE_LOSSES[name]
    values = np.random.default_rng(0).normal(1000, 1e-3, (1, 10, 5, 3))
    found = loss.statistics(jnp.asarray(values, jnp.float32))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(close, loss.blend([found], (1.0,)), found)
    flat = loss.statistics(jnp.full((1, 4, 4, 3), 1000.0))
    jax.tree.map(np.testing.assert_array_equal, loss.blend([flat, flat], (0.5, 0.5)), flat)


@pytest.mark.parametrize("name", objectives.STYLE_LOSSES)
def test_sums_of_parts_unite_to_statistics_of_the_whole(name):
    """In NumPy and in JAX, with a part in which nothing counts."""
    loss = objectives.STYLE_LOSSES[name]
    whole = jnp.asarray(np.random.default_rng(0).normal(5, 1, (1, 10, 6, 3)), jnp.float32)
    wanted = loss.statistics(whole)
    ones = jnp.ones((1, 4, 6, 1))
    found = [
        loss.sums(part, ones[:, : part.shape[1]], None) for part in (whole[:, :4], whole[:, 4:6])
    ]
    found += [loss.sums(whole[:, 5:9], ones.at[:, 0].set(0), None)]
    found += [loss.sums(whole[:, 9:], ones[:, :1], None), loss.sums(whole[:, :4], 0 * ones, None)]
    numbers, means, seconds = zip(*found, strict=True)
    together = objectives.Sums(jnp.concatenate(numbers), jnp.concatenate(means), sum(seconds))
    for sums in (together, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), together)):
        united = objectives.united(sums)
        assert united.number.item() == 60
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        jax.tree.map(close, loss.finish(united, 60), wanted)


def test_moments_add_up_from_their_parts():
    """Deviations do not, but mean and deviation give the second moments, which do."""
    whole = jnp.asarray(np.random.default_rng(0).normal(1, 1, (2, 10, 5, 3)), jnp.float32)
    statistics = objectives.STYLE_LOSSES["moments"].statistics
    raw = [
        np.stack([mean, std**2 + mean**2])
        for mean, std in map(statistics, (whole[:, :4], whole[:, 4:], whole))
    ]
    np.testing.assert_allclose(0.4 * raw[0] + 0.6 * raw[1], raw[2], rtol=1e-5)


# The objective against NumPy


def rows(array):
    return np.asarray(array, np.float64).reshape(-1, array.shape[-1])


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def style_distance(name, found, styles, style_weights, size):
    """Of one layer in float64, from the features [1, h, w, c] of a picture and of the styles."""
    f, channels = rows(found) / size, found.shape[-1]
    s = np.concatenate([rows(style) / size for style in styles])
    share = np.concatenate(
        [
            np.full(len(rows(style)), w / len(rows(style)))
            for style, w in zip(styles, style_weights, strict=True)
        ]
    )[:, None]
    if name in ("gatys", "positions", "elements"):
        difference = f.T @ f / len(f) - (share * s).T @ s
        squares = np.sum(difference**2)
        divisors = {"gatys": 4 * channels**2, "positions": channels**2, "elements": channels**4}
        return squares / divisors[name]
    if name == "moments":
        eps = 1e-5 / size**2
        mean = (share * s).sum(0)
        deviation = np.sqrt((share * (s - mean) ** 2).sum(0) + eps)
        own = f.mean(0), np.sqrt(f.var(0) + eps)
        return np.mean((own[0] - mean) ** 2) + np.mean((own[1] - deviation) ** 2)
    assert name == "wasserstein"
    mean = (share * s).sum(0)
    target = (share * (s - mean)).T @ (s - mean)
    covariance = np.cov(f.T, bias=True)
    noise = 1e-4 * np.trace(target) * np.eye(channels)
    half = root(target + noise)
    overlap = np.trace(root(half @ (covariance + noise) @ half))
    bures = np.trace(covariance + target + 2 * noise) - 2 * overlap
    return np.mean((f.mean(0) - mean) ** 2) + bures / channels


def variation(form, x):
    x = np.asarray(x, np.float64)
    steps = np.diff(x, axis=1), np.diff(x, axis=2)
    if form == "sum":
        return sum(np.abs(step).sum() for step in steps)
    power = {"half_mean": 1, "squared_mean": 2}[form]
    return 0.5 * sum((np.abs(step) ** power).mean() for step in steps)


def numpy_terms(found, content, styles, style_weights, variables, config):
    """The weighted terms in float64, from `{layer: features}` of every picture."""

    def size(layer):
        if not config.normalize_features:
            return 1.0
        return sum(
            w * np.abs(rows(s[layer])).mean() for w, s in zip(style_weights, styles, strict=True)
        )

    terms = {"content": 0.0, "style": 0.0}
    for layer, weight in config.content_layers.items():
        squares = ((rows(found[layer]) - rows(content[layer])) / size(layer)) ** 2
        form = squares.mean() if config.content_loss == "mean" else squares.sum() / 2
        terms["content"] += config.content_weight * weight * form
    for layer, weight in config.style_layers.items():
        distance = style_distance(
            config.style_loss, found[layer], [s[layer] for s in styles], style_weights, size(layer)
        )
        terms["style"] += config.style_weight * weight * distance
    terms["tv"] = config.tv_weight * variation(config.tv_loss, variables)
    return terms


def objective(params, variables, targets, config, padding="zero"):
    loss_weights = objectives.loss_weights(config, targets)
    return objectives.objective(params, variables, targets, loss_weights, config, padding)


FORMS = list(
    itertools.product(
        objectives.STYLE_LOSSES,
        ("mean", "half_sum"),
        ("sum", "half_mean", "squared_mean"),
    )
)
CONFIGS = {
    (*form, normalized): replace(
        PLAIN,
        **dict(zip(("style_loss", "content_loss", "tv_loss"), form, strict=True)),
        normalize_features=normalized,
        pooling="avg" if normalized else "max",
        content_layers={"relu1_1": 0.25, "relu2_1": 1.0},
    )
    for form in FORMS
    for normalized in (False, True)
}
SHARES = (0.3, 0.7)


@jax.jit
def every_objective(params, variables, content, styles):
    """Terms of every combination of forms, and the gradients of some: compiled together."""
    terms, gradients, targets = {}, {}, {}
    for key, config in CONFIGS.items():
        shared = key[0], key[3]
        if shared not in targets:
            targets[shared] = objectives.make_targets(
                params, content, styles, SHARES, config, "zero"
            )
        loss = functools.partial(objective, params, targets=targets[shared], config=config)
        terms[key] = loss(variables)
        if key[1:] == ("half_sum", "squared_mean", True):
            gradients[key] = jax.grad(loss, has_aux=True)(variables)[0]
    return terms, gradients


@pytest.fixture(scope="module")
def problem():
    made, content, one, other = (
        np.random.default_rng(seed).random((1, *size, 3), np.float32)
        for seed, size in enumerate([(10, 12), (10, 12), (9, 13), (14, 8)])
    )
    return made, content, [one, other]


def network_features(x, config):
    return numpy_vgg(NETWORK.params, np.asarray(x, np.float64), "zero", config.pooling)


def test_every_form_of_the_objective_equals_numpy(problem):
    made, content, styles = problem
    terms, _ = every_objective(NETWORK.params, *problem)
    found = {
        config.pooling: (
            *(network_features(x, config) for x in (made, content)),
            [network_features(s, config) for s in styles],
        )
        for config in list(CONFIGS.values())[:2]
    }
    assert set(terms) == set(CONFIGS)
    for key, config in CONFIGS.items():
        total, parts = terms[key]
        wanted = numpy_terms(*found[config.pooling], SHARES, made, config)
        assert set(parts) == set(TERMS)
        # The iteration for the root's trace ends a little short.
        tolerance = 1e-3 if key[0] == "wasserstein" else 1e-5
        for name, value in wanted.items():
            assert float(parts[name]) == pytest.approx(value, rel=tolerance), (key, name)
        assert float(total) == float(parts["total"])
        assert float(total) == pytest.approx(sum(wanted.values()), rel=tolerance), key


def test_gradients_of_the_objective_equal_differences_of_numpys(problem):
    made, content, styles = problem
    _, gradients = every_objective(NETWORK.params, *problem)
    config = next(config for config in CONFIGS.values() if config.normalize_features)
    fixed = network_features(content, config), [network_features(s, config) for s in styles]
    direction = np.random.default_rng(9).standard_normal(made.shape)

    def total(x, config):
        found = network_features(x, config)
        return sum(numpy_terms(found, *fixed, SHARES, x, config).values())

    assert {key[0] for key in gradients} == set(objectives.STYLE_LOSSES)
    for key, gradient in gradients.items():
        # Larger steps would cross the corners of ReLU and of the pooling.
        step = 1e-6 * direction
        wanted = (total(made + step, CONFIGS[key]) - total(made - step, CONFIGS[key])) / 2e-6
        found = np.sum(np.asarray(gradient, np.float64) * direction)
        length = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(found - wanted) < 1e-6 * length, key


def test_normalized_features_have_no_scale(problem):
    """Ten times the features of a layer: the same terms, for every style loss."""
    larger = dict(NETWORK.params)
    for part in ("kernel", "bias"):
        larger[f"conv2_1/{part}"] = 10 * larger[f"conv2_1/{part}"]
    one, _ = every_objective(NETWORK.params, *problem)
    ten, _ = every_objective(larger, *problem)
    for key, (total, parts) in one.items():
        # The variance that keeps deviations of flat channels differentiable has a scale.
        tolerance = 5e-3 if key[0] == "moments" else 1e-4
        if key[3]:
            for name in TERMS:
                found = float(ten[key][1][name])
                assert found == pytest.approx(float(parts[name]), rel=tolerance), (key, name)
        else:
            assert float(ten[key][0]) > 2 * float(total), key


def test_objective_adds_up_a_batch():
    _, targets = small_problem(PLAIN)
    batch = np.random.default_rng(0).random((2, 24, 16, 3), np.float32)
    compiled = jax.jit(lambda x: objective(NETWORK.params, x, targets, PLAIN)[0])
    alone = sum(float(compiled(x[None])) for x in batch)
    assert float(compiled(batch)) == pytest.approx(alone, rel=1e-5)


# Updates


def small_problem(config, start=None):
    content, style = jnp.asarray(CONTENT)[None], jnp.asarray(STYLE)[None]
    targets = gatys_updates.jitted("cpu").targets(
        NETWORK.params, content, [style], (1.0,), config, "zero"
    )
    start = np.random.default_rng(8).random((1, 24, 16, 3), np.float32) if start is None else start
    return gatys_updates.init_state(jnp.asarray(start), config), targets


def updated(state, targets, config):
    """The next state, and the picture to show."""
    loss_weights = objectives.loss_weights(config, targets)
    arguments = state, NETWORK.params, targets, loss_weights, config, "zero"
    return gatys_updates.jitted("cpu").update(*arguments)[:2]


def test_updates_equal_adam_and_averages_in_numpy():
    config = replace(PLAIN, averaging=0.8, adam_b1=0.8, adam_b2=0.95)
    state, targets = small_problem(config)
    gradient_fn = jax.jit(jax.grad(lambda x: objective(NETWORK.params, x, targets, config)[0]))
    x = np.asarray(state.variables, np.float64)
    mean, square = np.zeros_like(x), np.zeros_like(x)
    iterates = []
    for step in range(1, 6):
        gradient = np.asarray(gradient_fn(jnp.float32(x)), np.float64)
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        direction = (mean / (1 - 0.8**step)) / (np.sqrt(square / (1 - 0.95**step)) + 1e-8)
        x = np.clip(x - 0.05 * direction, 0, 1)
        iterates.append(x)
        ages = np.arange(step)[::-1]
        average = np.average(iterates, axis=0, weights=0.8**ages)
        state, shown = updated(state, targets, config)
        np.testing.assert_allclose(state.variables, x, atol=1e-5)
        np.testing.assert_allclose(shown, average, atol=1e-5)
    assert np.abs(shown - x).mean() > 0.01


@pytest.mark.parametrize("clamp", [True, False])
def test_clamp(clamp):
    config = replace(PLAIN, clamp=clamp, learning_rate=0.7)
    state, targets = small_problem(config)
    state, shown = updated(state, targets, config)
    inside = bool((state.variables >= 0).all() and (state.variables <= 1).all())
    assert inside == clamp
    np.testing.assert_array_equal(shown, np.clip(state.variables, 0, 1))


def test_standardized_pictures():
    config = replace(PLAIN, standardize=True, clamp=False)
    x = picture(6, 7, 9)[None]
    variables = np.asarray(objectives.to_variables(jnp.asarray(x), config))
    # ImageNet's mean and deviation of each channel, as published with the networks.
    wanted = (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(variables, wanted, atol=1e-5)
    np.testing.assert_allclose(objectives.to_pictures(variables, config), x, atol=1e-6)
    for function in (objectives.to_variables, objectives.to_pictures):
        assert function(x, PLAIN) is x


def test_lbfgs_goes_deeper_than_adam_and_never_up():
    layers = {"relu1_1": 1.0}  # the line search is enough for the compiler
    options = {"steps": 15, "clamp": False, "content_layers": layers, "style_layers": layers}
    totals = {}
    for optimizer in ("lbfgs", "adam"):
        run = stylize(CONTENT, [STYLE], config=NOISE, optimizer=optimizer, **options)
        totals[optimizer] = [float(i.losses["total"]) for i in run]
    assert totals["lbfgs"][0] == pytest.approx(totals["adam"][0], rel=1e-5)
    assert totals["lbfgs"][-1] < 0.8 * totals["adam"][-1]
    assert (np.diff(totals["lbfgs"]) <= 1e-6 * totals["lbfgs"][0]).all()


def test_other_weights_compile_nothing():
    first = list(stylize(CONTENT, [STYLE]))
    before = [function._cache_size() for function in gatys_updates.jitted("cpu")]
    options = {
        "content_weight": 0.1,
        "tv_weight": 0.0,
        "style_layers": {"relu1_1": 1, "relu2_1": 0},
    }
    other = list(stylize(CONTENT, [STYLE], steps=2, seed=3, **options))
    assert [function._cache_size() for function in gatys_updates.jitted("cpu")] == before
    assert float(other[0].losses["tv"]) == 0
    assert 0 < float(other[0].losses["style"]) < float(first[0].losses["style"])


# Mistakes are told at the call


CLEAR = {"content": CONTENT, "styles": [STYLE]}
MISTAKES = {
    "integers": (
        {"content": np.zeros((8, 8, 3), np.uint8)},
        "content: expected floats in [0, 1]; got uint8; divide by 255",
    ),
    "not a number": (
        {"styles": [STYLE, np.full((8, 8, 3), np.nan)]},
        "style 2: expected values in [0, 1]; got nan to nan",
    ),
    "too large": ({"content": 255 * CONTENT}, "content: expected values in [0, 1]; got "),
    "below zero": ({"styles": [-STYLE]}, "style 1: expected values in [0, 1]; got -"),
    "grey": ({"content": CONTENT[..., 0]}, "picture [height, width, 3]; got (24, 16)"),
    "alpha": ({"styles": [np.zeros((8, 8, 4))]}, "picture [height, width, 3]; got (8, 8, 4)"),
    "batch": ({"content": np.zeros((2, 8, 8, 3))}, "got (2, 8, 8, 3)"),
    "empty": ({"content": np.zeros((0, 8, 3))}, "got (0, 8, 3)"),
    "init": ({"init": CONTENT + 1}, "init: expected values in [0, 1]"),
    "init by name": (
        {"config": replace(PLAIN, init="nose")},
        "init must be one of content, style-stats, noise, or a picture; got 'nose'",
    ),
    "no styles": ({"styles": []}, "expected at least one style"),
    "weights": ({"style_weights": [1, 2]}, "expected a weight for each of 1 styles; got 2"),
    "no weights": ({"style_weights": []}, "expected a weight for each of 1 styles; got 0"),
    "zero weights": ({"style_weights": [0]}, "must be 0 or more, and not all 0; got [0]"),
    "less than zero": (
        {"styles": [STYLE, STYLE], "style_weights": [2, -1]},
        "must be 0 or more, and not all 0; got [2, -1]",
    ),
    "endless weights": ({"style_weights": [np.inf]}, "style weights must be 0 or more"),
    "layer": (
        {"style_layers": {"relu2_2": 1.0}},
        "the network has no layer 'relu2_2'; did you mean relu2_1? (it has relu1_1, relu2_1)",
    ),
    "setting": ({"stepz": 3}, "there is no setting 'stepz'; did you mean steps?"),
    "value": ({"steps": 0}, "steps must be finite and at least 1; got 0"),
    "choice": ({"optimizer": "adma"}, "did you mean adam?"),
}


@pytest.mark.parametrize(("given", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_at_the_call(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        stylize(**(CLEAR | given))


def test_settings_come_from_the_default_preset(monkeypatch):
    monkeypatch.setattr(gatys, "_scales", lambda *given: given)
    layers = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 1.0}}
    given = gatys.stylize(CONTENT, [STYLE], features=NETWORK, steps=7, **layers)
    default = preset("default", scale=NETWORK.scale)
    assert given[4] == replace(default, steps=7, **layers)
    assert given[3].padding == NETWORK.padding
    given = gatys.stylize(CONTENT, [STYLE], features=NETWORK, padding="reflect", **layers)
    assert given[3].padding == "reflect"


# Every platform, without having it


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize(
    ("optimizer", "style_loss", "padding"),
    [("adam", "wasserstein", "reflect"), ("adam", "gatys", "zero"), ("lbfgs", "gatys", "zero")],
)
def test_the_update_lowers_for_every_platform(optimizer, style_loss, padding):
    # Wide enough for the CPU's own convolution.
    params = networks.random_params(((8,), (256, 256)))
    config = replace(
        PLAIN,
        optimizer=optimizer,
        style_loss=style_loss,
        normalize_features=True,
        averaging=0.9,
        content_layers={"relu2_2": 1.0},
        style_layers={"relu1_1": 1.0, "relu2_2": 1.0},
    )
    prepared = features.prepare(params)
    assert any(len(jax.tree.leaves(value)) > 1 for value in prepared.values())
    pixels = jax.ShapeDtypeStruct((1, 18, 23, 3), jnp.float32)
    state = jax.eval_shape(lambda x: gatys_updates.init_state(x, config), pixels)
    targets = jax.eval_shape(
        lambda p, x: objectives.make_targets(p, x, [x], (1.0,), config, padding), params, pixels
    )
    loss_weights = jax.eval_shape(lambda t: objectives.loss_weights(config, t), targets)
    update = jax.jit(functools.partial(gatys_updates.update, config=config, padding=padding))
    arguments = (state, abstract(prepared), targets, loss_weights)
    everywhere = export.export(update, platforms=["cpu", "cuda", "tpu"])(*arguments)
    assert everywhere.platforms == ("cpu", "cuda", "tpu")
    counts = {}
    for platform in ("cpu", "cuda", "tpu"):
        text = export.export(update, platforms=[platform])(*arguments).mlir_module()
        counts[platform] = text.count("stablehlo.convolution")
    # Three convolutions forwards and three backwards, of which the CPU does some its own way.
    assert counts["cuda"] == counts["tpu"] >= 6
    assert counts["cpu"] >= 1
    if padding == "zero":
        assert counts["cpu"] < counts["tpu"]


# The real thing


@pytest.fixture(scope="module")
def pair(data):
    """Golden Gate and the Great Wave, and the narrow network with its heads."""
    network = weights.load(data / "weights" / "vgg19_compact_encoder.safetensors")
    content = images.load(data / "eval" / "content" / "golden_gate.jpg").pixels
    style = images.load(data / "eval" / "style" / "wave.jpg").pixels
    return network, content, style


def test_golden_gate_as_the_wave(pair):
    network, content, style = pair
    config = replace(preset("default", scale=network.scale), size=96, scales=1, steps=20)
    # Zeros beyond the border compile sooner.
    run = list(gatys.stylize(content, [style], features=network, config=config, padding="zero"))
    assert len(run) == 20
    assert max(run[-1].image.shape) == 96
    totals = [float(iterate.losses["total"]) for iterate in run]
    print(f"from {totals[0]:.4g} to {totals[-1]:.4g}")
    assert np.isfinite(totals).all()
    assert totals[-1] < 0.5 * totals[0]


def bicubic(pixels, size):
    eight_bits = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    resized = eight_bits.resize(size[::-1], Image.Resampling.BICUBIC)
    return jnp.asarray(resized, jnp.float32)[None] / 255


def objective_of_features(config):
    """The terms from features at hand, compiled; the network needs to be compiled but once."""

    @jax.jit
    def terms(found, variables, content, style):
        def look_up(params, pictures, wanted, **_):
            where = {id(content): "content", id(style): "style"}.get(id(pictures), "start")
            return {name: params[where][name] for name in wanted}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(features, "vgg", look_up)
            targets = objectives.make_targets(found, content, [style], (1.0,), config, "reflect")
            return objective(found, variables, targets, config, "reflect")[1]

    return terms


@pytest.fixture(scope="module")
def step_zero(pair):
    """Of every preset: its settings, terms at the start, what they are made of, and the start.

    The pictures are as where the magnitudes for jin2021 come from: both 150x225, bicubic.
    """
    network, *pictures = pair
    content, style = (bicubic(pixels, (150, 225)) for pixels in pictures)
    configs = {name: preset(name, scale=network.scale) for name in PRESETS}
    layers = {layer for c in configs.values() for layer in (*c.content_layers, *c.style_layers)}
    every_layer = functools.partial(
        jax.jit(features.vgg, static_argnames=("layers", "padding", "pooling")),
        network.params,
        layers=tuple(sorted(layers)),
        padding=network.padding,
    )
    results = {}
    for name, config in configs.items():
        start = gatys_scales.initial_pictures(content, [style], (1.0,), config)
        given = {"start": start, "content": content, "style": style}
        found = {key: every_layer(x, pooling=config.pooling) for key, x in given.items()}
        variables = objectives.to_variables(start, config)
        terms = objective_of_features(config)(found, variables, content, style)
        terms = {key: float(value) for key, value in terms.items()}
        results[name] = config, terms, found.values(), start
    return results


@pytest.mark.parametrize("name", PRESETS)
def test_terms_of_the_presets_at_step_0(step_zero, name):
    config, terms, (found, content, style), start = step_zero[name]
    assert not config.keep_colors
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    variables = (np.asarray(start) - mean) / deviation if config.standardize else start
    wanted = numpy_terms(found, content, [style], (1.0,), variables, config)
    print(name, {key: f"{value:.4g}" for key, value in terms.items()})
    for key, value in wanted.items():
        assert terms[key] == pytest.approx(value, rel=2e-3), key
    assert (terms["content"] > 0) == (config.init != "content")
    assert terms["style"] > 0
    assert (terms["tv"] > 0) == (config.tv_weight > 0)


def test_terms_of_jin2021_have_the_magnitudes_of_the_trial(step_zero):
    """Variation as half means: as the printed sum it outweighs style 300,000 times."""
    config, terms, _, start = step_zero["jin2021"]
    native = PRESETS["jin2021"].native
    assert terms["tv"] == pytest.approx(1.28, rel=0.01)
    # On these features, without the factor that the preset gives to normalised ones.
    factor = config.style_weight / native.style_weight
    assert terms["style"] / factor == pytest.approx(0.81, rel=0.01)
    variables = objectives.to_variables(start, config)
    as_a_sum = config.tv_weight * float(objectives.total_variation("sum")(variables)[0])
    assert as_a_sum == pytest.approx(257_433, rel=0.01)


def test_init_may_be_a_name():
    """As an argument too, where a picture may stand."""
    by_name = pixels(next(stylize(CONTENT, [STYLE], init="noise")))
    by_setting = pixels(next(stylize(CONTENT, [STYLE], config=NOISE)))
    np.testing.assert_array_equal(by_name, by_setting)


def test_moments_of_several_styles_are_those_of_their_mixture():
    loss = objectives.STYLE_LOSSES["moments"]
    halves = np.random.default_rng(0).normal(3, 1, (2, 1, 8, 9, 5)).astype(np.float32)
    halves[1] *= 2
    blended = loss.blend([loss.statistics(half) for half in jnp.asarray(halves)], (0.5, 0.5))
    both = loss.statistics(jnp.asarray(np.concatenate(list(halves), axis=2)))
    np.testing.assert_allclose(blended.mean, both.mean, rtol=1e-5)
    np.testing.assert_allclose(blended.std, both.std, rtol=1e-4)


def test_finer_scales_have_fewer_steps():
    config = StylizeConfig(steps=20, steps_factor=0.5)
    assert gatys_scales.scale_steps(config, 4) == [20, 10, 5, 2]
    assert gatys_scales.scale_steps(replace(config, steps_factor=0.0), 3) == [20, 1, 1]
    options = {"size": 32, "scales": 2, "steps": 4, "steps_factor": 0.5}
    run = list(stylize(CONTENT, [STYLE], **options))
    assert [(i.scale, i.step, i.steps) for i in run] == [
        *((1, step, 4) for step in (1, 2, 3, 4)),
        *((2, step, 2) for step in (1, 2)),
    ]


def test_no_kernel_is_transformed_at_each_update(monkeypatch):
    """That takes ten times as many operations, which the first picture waits for."""

    def refuse(kernel):
        raise AssertionError(f"transformed at each use: {kernel.shape}")

    monkeypatch.setattr(winograd, "transform", refuse)
    # As wide as Winograd pays for a kernel that is learnt.
    wide = networks.random_weights(widths=((64, 64), (64,)))
    x, style = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 3))
    assert winograd.pays((3, 3, 64, 64), 64 * 64, frozen=False)

    def loss(x, params):
        targets = objectives.make_targets(params, x, [style], (1.0,), PLAIN, "reflect")
        shares = objectives.loss_weights(PLAIN, targets)
        return objectives.objective(params, x, targets, shares, PLAIN, "reflect")[0]

    jax.make_jaxpr(jax.grad(loss))(x, gatys_updates.prepared(wide))
