"""Tests of jaxstyle.methods.residual and training.perceptual, with tiny networks."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_weights
from tiny import write_pictures

from jaxstyle import images, metrics, models, weights
from jaxstyle.errors import UserError
from jaxstyle.layers import MOMENTS
from jaxstyle.methods import distill, residual
from jaxstyle.training import loop, parallel, perceptual, updates
from jaxstyle.training.config import (
    DataConfig,
    OptimizerConfig,
    TrainConfig,
    from_json,
    load_config,
    to_json,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
SMALL = {"channels": (3, 4), "blocks": 0}
# Where the parts do not matter: what takes time here is the compiler.
TINY = {
    **SMALL,
    "content_layers": {"relu1_1": 1.0},
    "style_layers": {"relu1_1": 1.0},
}
LAYERS = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 0.5, "relu2_1": 0.5}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with photos/, styles/ of three paintings, and the file of a network."""
    folder = tmp_path_factory.mktemp("files")
    write_pictures(folder / "photos", 5)
    (folder / "styles").mkdir()
    for index, name in enumerate(("leaf", "sand", "wave")):
        rng = np.random.default_rng(index)
        picture = np.clip(
            rng.normal(rng.random(3), 0.15 * (index + 1), (24 + index // 2, 30, 3)), 0, 1
        )
        images.save(folder / "styles" / f"{name}.png", picture.astype(np.float32))
    weights.save(folder / "net.safetensors", random_weights())
    return folder


def make_config(files, *, style="styles", model=None, **settings):
    spec = ",".join(str(files / part) for part in style.split(","))
    chosen = {"features": str(files / "net.safetensors"), **SMALL, **LAYERS} | (model or {})
    settings = {
        "steps": 8,
        "batch_size": 4,
        "crop_size": 16,
        "optimizer": OptimizerConfig(name="sgd", learning_rate=1e-3, clip_norm=1.0),
        "data": DataConfig(content=str(files / "photos"), style=spec),
    } | settings
    return TrainConfig(method="residual", model=residual.Config(**chosen), **settings)


@functools.lru_cache
def pictures(rows=4, height=16, width=16, seed=0):
    coarse = np.random.default_rng(seed).random((rows, 5, 5, 3))
    smooth = jax.image.resize(jnp.asarray(coarse, jnp.float32), (rows, height, width, 3), "linear")
    return jnp.clip(smooth, 0, 1)


def initialized(styles=1, **settings):
    generator = residual.make_generator(residual.Config(**SMALL | settings), styles)
    example = jnp.zeros((1, 16, 16, 3)), jnp.ones((1, styles))
    variables = jax.jit(generator.init)(KEY, *example)
    # As after some training: styles that differ, an output that is not grey.
    keys = iter(jax.random.split(KEY, 100))
    shaken = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), variables["params"]
    )
    return generator, {**variables, "params": shaken}


# --- the network ---------------------------------------------------------------------------------


def test_the_full_network_is_that_of_the_paper():
    generator = residual.make_generator(residual.Config(), 1)
    shapes = jax.eval_shape(generator.init, KEY, jnp.zeros((1, 64, 64, 3)))["params"]
    total = {"kernel": 0, "bias": 0, "gamma": 0, "beta": 0}
    for path, leaf in jax.tree.leaves_with_path(shapes):
        total[path[-1].key] += leaf.size
    # A bias where nothing subtracts the mean next: in the last layer alone.
    assert total == {"kernel": 1_674_432, "bias": 3, "gamma": 1600, "beta": 1600}
    blocks = sorted(name for name in shapes if name.startswith("block"))
    assert blocks == [f"block{i}" for i in range(1, 6)]


@pytest.mark.parametrize("norm", ["instance", "batch", "contrast", "none"])
def test_every_norm_has_pictures_in_range_and_finite_gradients(norm):
    generator, variables = initialized(norm=norm, blocks=1 if norm == "instance" else 0)
    x = pictures(2).at[1].set(0.25)  # the second is flat

    def loss(params, x):
        made, _ = generator.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(made**2), made

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, made), gradients = step(variables["params"], x)
    assert made.shape == x.shape
    assert made.dtype == jnp.float32
    assert 0 <= made.min() < made.max() <= 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("size", "upsample"),
    [
        ((1, 1), "nearest"),
        ((1, 9), "transpose"),
        ((5, 3), "nearest"),
        ((17, 33), "transpose"),
        ((31, 20), "nearest"),
    ],
)
def test_any_size_is_padded_by_reflection_and_cropped_back(size, upsample):
    generator, variables = initialized(upsample=upsample)
    x = pictures(1, *size)
    apply = jax.jit(generator.apply)
    found = apply(variables, x)
    assert found.shape == x.shape
    amounts = [(0, max(16, side + side % 2) - side) for side in size]
    padded = np.pad(np.asarray(x), ((0, 0), *amounts, (0, 0)), mode="reflect")
    whole = apply(variables, jnp.asarray(padded))
    np.testing.assert_allclose(found, whole[:, : size[0], : size[1]], atol=1e-6)


def test_pictures_of_a_batch_do_not_meet():
    generator, variables = initialized()
    apply = jax.jit(generator.apply)
    x = pictures(3, 16, 12)
    together, changed = apply(variables, x), apply(variables, x.at[1:].set(0.3))
    np.testing.assert_allclose(together[0], changed[0], atol=1e-6)
    assert jnp.abs(together - changed)[1:].max() > 0.01


def test_outputs_have_the_ranges_of_the_papers():
    """127.5 (tanh + 1) of Pu and Li, and 150 tanh around a mean colour of Johnson et al."""
    for output, low, high in (
        ("tanh", 0, 1),
        ("tanh150", (123.68 - 150) / 255, (123.68 + 150) / 255),
    ):
        generator, variables = initialized(output=output)
        for sign, wanted in ((1, high), (-1, low)):
            params = dict(variables["params"])
            params["out"] = {**params["out"], "bias": jnp.full(3, sign * 1e4)}
            made = generator.apply({"params": params}, pictures(1))
            assert float(made[0, 0, 0, 0]) == pytest.approx(wanted, abs=1e-6)
    shown = residual.stylize(generator, {"params": params}, pictures(1))
    assert shown.min() == 0


def test_contrast_normalisation_of_the_input_forgets_its_brightness():
    generator, variables = initialized(norm="contrast", contrast_at="input", blocks=1)
    names = {path[0].key for path, _ in jax.tree.leaves_with_path(variables["params"])}
    assert "contrast" in names
    assert "norm" not in str(jax.tree.structure(variables["params"]["block1"]))
    x = 0.2 + 0.5 * pictures(1)
    np.testing.assert_allclose(
        generator.apply(variables, x), generator.apply(variables, 0.5 * x), atol=1e-3
    )


def test_one_conditional_style_is_a_network_of_one_style():
    plain, variables = initialized(blocks=1)
    several, tables = initialized(styles=2, blocks=1)

    def chosen(path, leaf):
        return leaf[1] if path[-1].key in ("gamma", "beta") else leaf

    row = jax.tree.map_with_path(chosen, tables["params"])
    assert jax.tree.structure(row) == jax.tree.structure(variables["params"])
    x = pictures(2)
    found = several.apply(tables, x, jnp.array([[0.0, 1.0]] * 2))
    np.testing.assert_allclose(found, plain.apply({"params": row}, x), atol=1e-5)
    other = several.apply(tables, x, jnp.array([[1.0, 0.0]] * 2))
    assert jnp.abs(found - other).max() > 0.01


def test_tiles_with_the_moments_of_the_whole_show_no_seam():
    generator, variables = initialized()
    x = pictures(1, 96, 32)
    capture = jax.jit(functools.partial(generator.apply, mutable=[MOMENTS]))
    wanted, moments = capture(variables, x)
    # Far from the cut, further than the network sees, a tile is as the whole.
    apply = jax.jit(generator.apply)
    tile = apply(variables | moments, x[:, :64])
    np.testing.assert_allclose(tile[:, :40], wanted[:, :40], atol=1e-5)
    assert jnp.abs(apply(variables, x[:, :64]) - tile)[:, :40].max() > 1e-3


def test_bfloat16_is_near():
    generator, variables = initialized()
    rough = dataclasses.replace(generator, dtype=jnp.bfloat16)
    x = pictures(1)
    difference = jnp.abs(generator.apply(variables, x) - rough.apply(variables, x))
    assert 0 < difference.mean() < 0.02


def test_strength_blends_and_weights_choose():
    generator, variables = initialized(styles=2)
    x = pictures(2)
    run = jax.jit(functools.partial(residual.stylize, generator, variables, x))
    np.testing.assert_allclose(run(strength=0.0), x, atol=1e-7)
    full = run()
    np.testing.assert_allclose(run(strength=0.25), 0.75 * x + 0.25 * full, atol=1e-5)
    np.testing.assert_allclose(full, run(style_weights=[0.5, 0.5]), atol=1e-5)
    each = run(style_weights=jnp.eye(2))
    np.testing.assert_allclose(each[0], run(style_weights=[1.0, 0.0])[0], atol=1e-5)
    np.testing.assert_allclose(each[1], run(style_weights=[0.0, 1.0])[1], atol=1e-5)


# --- the loss ------------------------------------------------------------------------------------


def loaded(config):
    networks = perceptual.load_networks(config.model)
    styles = perceptual.read_styles(config.data.style, config.model.style_size)
    return networks, styles, perceptual.make_targets(networks, styles, config.model)


def test_terms_are_those_of_the_papers(files):
    """Johnson et al. 2016, Eqs. 2 to 4, in float64, of features over their mean activation."""
    config = make_config(
        files, model={"content_weight": 3.0, "style_weight": 10.0, "tv_weight": 2.0}
    )
    networks, styles, targets = loaded(config)
    made, content, index = pictures(2, seed=1), pictures(2, seed=2), jnp.array([2, 0])
    found = perceptual.terms(networks, made, content, targets, index, config.model)

    def extract(x):
        layers = perceptual.extract(networks, jnp.asarray(x), ["relu1_1", "relu2_1"])
        return {name: np.asarray(value, np.float64) for name, value in layers.items()}

    def gram(x):
        flat = x.reshape(-1, x.shape[-1])
        return flat.T @ flat / len(flat)

    for row, style in enumerate(index):
        painting = extract(styles[style].pixels[None])
        size = {name: value.mean() for name, value in painting.items()}
        ours, theirs = extract(made[row][None]), extract(content[row][None])
        wanted = 3 * np.mean((ours["relu2_1"] - theirs["relu2_1"]) ** 2) / size["relu2_1"] ** 2
        assert found.content[row] == pytest.approx(wanted, rel=1e-4)
        wanted = sum(
            10 * 0.5 * np.mean(((gram(ours[n]) - gram(painting[n])) / size[n] ** 2) ** 2)
            for n in ("relu1_1", "relu2_1")
        )
        assert found.style[row] == pytest.approx(wanted, rel=1e-4)
        x = np.asarray(made[row], np.float64)
        wanted = np.mean(np.diff(x, axis=0) ** 2) + np.mean(np.diff(x, axis=1) ** 2)
        assert found.tv[row] == pytest.approx(wanted, rel=1e-4)
    np.testing.assert_allclose(found.total, found.content + found.style + found.tv)


def test_the_scale_of_features_means_nothing_once_they_are_normalised(files, tmp_path):
    found = []
    for factor in (1, 100):
        net = random_weights()
        net.params["preprocess/kernel"] *= factor
        for name in net.params:
            if name.endswith("bias"):
                net.params[name] *= factor
        weights.save(tmp_path / "net.safetensors", net)
        config = make_config(files, model={"features": str(tmp_path / "net.safetensors")})
        networks, _, targets = loaded(config)
        index = jnp.arange(2)
        terms = perceptual.terms(
            networks, pictures(2), pictures(2, seed=1), targets, index, config.model
        )
        found.append(terms.total)
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_relative_distances_are_those_over_the_targets_own(files):
    """What the style loss is of Gram matrices, then, is what `benchmarks/judging.py` measures."""
    config = make_config(
        files, model={"content_weight": 3.0, "style_weight": 10.0, "relative": True}
    )
    networks, styles, targets = loaded(config)
    made, content, index = pictures(2, seed=1), pictures(2, seed=2), jnp.array([2, 0])
    found = perceptual.terms(networks, made, content, targets, index, config.model)

    def extract(x):
        features = perceptual.extract(networks, jnp.asarray(x), ["relu1_1", "relu2_1"])
        flat = {
            n: np.asarray(v[0], np.float64).reshape(-1, v.shape[-1]) for n, v in features.items()
        }
        return flat["relu2_1"], [x.T @ x / len(x) for x in flat.values()]

    for row, style in enumerate(index):
        parts = (made[row][None], content[row][None], styles[style].pixels[None])
        (ours, grams), (theirs, _), (_, wanted) = (extract(x) for x in parts)
        distance = 3 * np.sum((ours - theirs) ** 2) / np.sum(theirs**2)
        assert found.content[row] == pytest.approx(distance, rel=1e-4)
        pairs = zip(grams, wanted, strict=True)
        distance = sum(10 * 0.5 * np.sum((a - b) ** 2) / np.sum(b**2) for a, b in pairs)
        assert found.style[row] == pytest.approx(distance, rel=1e-4)


def test_the_structure_term_is_what_is_missing_of_the_similarity(files):
    config = make_config(files, model={**TINY, "structure_weight": 2.0})
    networks, _, targets = loaded(config)
    made, content = pictures(2, seed=1), pictures(2, seed=2)
    found = perceptual.terms(networks, made, content, targets, jnp.arange(2), config.model)
    np.testing.assert_allclose(found.structure, 2 - 2 * metrics.ssim(made, content), rtol=1e-5)
    np.testing.assert_allclose(
        found.total, found.content + found.style + found.structure, rtol=1e-6
    )
    same = perceptual.terms(networks, content, content, targets, jnp.arange(2), config.model)
    np.testing.assert_allclose(same.structure, 0, atol=1e-5)


@pytest.mark.parametrize("style_loss", ["gatys", "elements", "moments", "wasserstein"])
def test_every_style_loss_is_nothing_of_the_style_itself(files, style_loss):
    config = make_config(files, model={**TINY, "style_loss": style_loss})
    networks, styles, targets = loaded(config)

    @jax.jit
    def compare(pixels, index):
        x = pixels[None]
        found = perceptual.terms(networks, x, x, targets, index, config.model)
        return found.style[0], perceptual.nearest_style(found.statistics, targets, config.model)

    for number, style in enumerate(styles):
        found = [compare(style.pixels, jnp.array([other])) for other in range(3)]
        assert [bool(distance < 1e-3) for distance, _ in found] == [i == number for i in range(3)]
        assert int(found[0][1][0]) == number


def test_layers_may_come_from_several_networks(files, tmp_path):
    net = random_weights(seed=5)
    weights.save(tmp_path / "other.safetensors", net)
    first, second = files / "net.safetensors", tmp_path / "other.safetensors"
    x = pictures(1)

    def extract(spec):
        networks = perceptual.load_networks(residual.Config(features=spec, **LAYERS))
        return perceptual.extract(networks, x, ["relu1_1", "relu2_1"])

    both = extract(f"{first}:relu1_1, {second}:relu2_1+relu3_1")
    np.testing.assert_array_equal(both["relu1_1"], extract(str(first))["relu1_1"])
    np.testing.assert_array_equal(both["relu2_1"], extract(str(second))["relu2_1"])
    with pytest.raises(UserError, match="no network gives relu2_1"):
        extract(f"{first}:relu1_1,{second}:relu3_1")
    with pytest.raises(UserError, match="relu1_3"):
        extract(f"{first}:relu1_3")


def test_a_layer_that_a_network_lacks_is_refused(files):
    config = make_config(files, model={"style_layers": {"relu1_7": 1.0}})
    with pytest.raises(UserError, match=r"model.features: the network has no layer 'relu1_7'"):
        residual.method(config, axis_name=None)


# --- styles --------------------------------------------------------------------------------------


def test_styles_are_named_by_their_files_and_reduced(files, tmp_path):
    images.save(tmp_path / "wave.png", np.zeros((40, 20, 3), np.float32))
    spec = f"{files / 'styles'}, {tmp_path / 'wave.png'}"
    styles = perceptual.read_styles(spec, 20)
    assert [style.name for style in styles] == ["leaf", "sand", "wave", "wave-2"]
    assert perceptual.style_names(spec) == [style.name for style in styles]
    assert [style.pixels.shape for style in styles] == [
        (16, 20, 3), (16, 20, 3), (17, 20, 3), (20, 10, 3)
    ]  # fmt: skip
    assert {s.pixels.shape[0] for s in perceptual.read_styles(spec, 0)} == {24, 25, 40}
    assert styles[0].pixels.dtype == np.float32
    assert styles[0].pixels.max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": DataConfig(content="photos")}, "data.style is not set"),
        ({"data": DataConfig(style="missing.jpg")}, "data.style: missing.jpg: no such"),
        ({"data": DataConfig(style="tfds:coco")}, "not a dataset"),
        ({"model": {"norm": "batch"}}, "model.norm: norm 'batch' knows one style only"),
        ({"model": {"style_strengths": {"wav": 2.0}}}, "no style 'wav' .there are leaf, sand"),
    ],
)
def test_settings_that_cannot_be_are_refused(files, settings, message):
    with pytest.raises(UserError, match=message):
        residual.method(make_config(files, **settings), axis_name=None)


@pytest.mark.parametrize(
    "setting",
    [{"norm": "layer"}, {"channels": ()}, {"channels": (3, 0)}, {"blocks": -1}, {"output": "relu"}],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        residual.Config(**setting)


def test_all_styles_have_their_turn():
    for rows, count in ((4, 3), (3, 3), (2, 5), (8, 3)):
        draw = jax.jit(jax.vmap(lambda key, r=rows, c=count: residual._drawn(key, r, c)))
        drawn = np.asarray(draw(jax.random.split(KEY, 40)))
        assert drawn.shape == (40, rows)
        each = np.array([np.bincount(row, minlength=count) for row in drawn])
        assert np.ptp(each, axis=1).max() <= 1, "as equally often as can be"
        assert (each.sum(0) > 0.6 * 40 * rows / count).all()


# --- training ------------------------------------------------------------------------------------


def steps(config, count, devices=1, start=None):
    """Some updates on some devices; the state, the metrics, and the method."""
    axis_name = "i" if devices > 1 else None
    method = residual.method(config, axis_name=axis_name)
    state = jax.jit(method.init)(KEY) if start is None else start
    update = jax.jit(method.update)
    if devices > 1:
        update = jax.pmap(
            method.update,
            "i",
            in_axes=(None, 0, None),
            out_axes=(None, None),
            devices=jax.devices()[:devices],
        )
    for step in range(count):
        content = pictures(config.batch_size, seed=step)
        if devices > 1:
            content = content.reshape(devices, -1, *content.shape[1:])
        state, metrics = update(state, {"content": content}, jax.random.fold_in(KEY, step))
    return state, metrics, method


@pytest.mark.parametrize(
    ("style", "model"),
    [("styles", TINY), ("styles/leaf.png", {**TINY, "norm": "batch"})],
    ids=["three styles", "batch norm"],
)
def test_four_devices_train_as_one(files, style, model):
    config = make_config(files, style=style, model=model, batch_size=8)
    one, one_metrics, method = steps(config, 2)
    four, four_metrics, _ = steps(config, 2, devices=4)
    for a, b in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        for shard in getattr(a, "addressable_shards", ()):
            np.testing.assert_array_equal(shard.data, a)
    for name, value in one_metrics.items():
        assert four_metrics[name] == pytest.approx(float(value), rel=1e-4), name
    evaluate = residual.method(config, axis_name="i").evaluate
    content = pictures(8)
    split = {"content": content.reshape(4, 2, *content.shape[1:])}
    mapped = jax.pmap(evaluate, "i", in_axes=(None, 0), out_axes=None, devices=jax.devices()[:4])
    found, wanted = mapped(one, split), jax.jit(method.evaluate)(one, {"content": content})
    assert {*found} == {*wanted}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), rel=1e-4), name
    if "norm" in model:
        assert not np.allclose(one.statistics["in"]["norm"]["norm"]["mean"], 0)


def test_training_learns_the_style_and_the_same_with_the_same_seed(files):
    optimizer = OptimizerConfig(learning_rate=3e-3)
    model = {**TINY, "content_weight": 0.1}
    config = make_config(files, style="styles/wave.png", model=model, optimizer=optimizer)
    method = residual.method(config, axis_name=None)
    evaluate, update = jax.jit(method.evaluate), jax.jit(method.update)
    held_out, results = {"content": pictures(4, seed=100)}, []
    for _ in range(2):
        state = jax.jit(method.init)(KEY)
        before = evaluate(state, held_out)
        for step in range(40):
            batch = {"content": pictures(seed=step)}
            state, metrics = update(state, batch, jax.random.fold_in(KEY, step))
        results.append(state)
    jax.tree.map(np.testing.assert_array_equal, *results)
    after = evaluate(state, held_out)
    assert {*perceptual.TERMS, "loss", "gradient_norm", "learning_rate"} == {*metrics}
    assert after["style"] < 0.4 * before["style"]
    total = sum(float(after[name]) for name in perceptual.TERMS)
    assert after["loss"] == pytest.approx(total, rel=1e-5)


def test_evaluation_sees_every_style_and_knows_them_apart(files):
    config = make_config(files, batch_size=2, average=0.9, model=TINY)
    method = residual.method(config, axis_name=None)
    state = jax.jit(method.init)(KEY)
    found = jax.jit(method.evaluate)(state, {"content": pictures(2)})
    assert {*found} == {
        *("loss", "content", "style", "tv", "structure", "accuracy"),
        *("style/leaf", "style/sand", "style/wave"),
    }
    assert all(np.isfinite(value) and value.shape == () for value in found.values())
    # Four pictures: two of leaf, one of each other.
    each = [float(found[f"style/{name}"]) for name in ("leaf", "sand", "wave")]
    assert found["style"] == pytest.approx((2 * each[0] + each[1] + each[2]) / 4, rel=1e-5)
    sample = jax.jit(method.sample)(state, {"content": pictures(5)})
    assert sample.shape == (5, 16, 4 * 16, 3)
    assert 0 <= sample.min() <= sample.max() <= 1
    np.testing.assert_array_equal(sample[:, :, :16], pictures(5))


def test_the_averaged_parameters_are_used(files):
    config = make_config(files, style="styles/leaf.png", average=0.5, model=TINY)
    method = residual.method(config, axis_name=None)
    state = jax.jit(method.init)(KEY)
    state = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    variables = method.variables(state)
    assert variables["params"] is state.average
    made = jax.jit(method.stylize)(variables, pictures(1))
    shown = jax.jit(method.sample)(state, {"content": pictures(1)})
    np.testing.assert_allclose(made, shown[:, :, 16:], atol=1e-6)
    assert np.isfinite(jax.jit(method.evaluate)(state, {"content": pictures(1)})["loss"])


def test_other_paintings_make_accuracy_of_one_style(files):
    alone = make_config(files, style="styles/leaf.png", model=TINY)
    data = dataclasses.replace(alone.data, held_out_style=str(files / "styles"))
    for config, has_accuracy in ((alone, False), (dataclasses.replace(alone, data=data), True)):
        method = residual.method(config, axis_name=None)
        state, batch = jax.eval_shape(method.init, KEY), {"content": pictures(2)}
        found = jax.eval_shape(method.evaluate, state, batch)
        assert ("accuracy" in found) is has_accuracy
        assert "style/leaf" not in found
    own, others = residual._read_paintings(config)
    assert [style.name for style in own] == ["leaf"]
    assert [style.name for style in others] == ["sand", "wave"]


def test_strengths_weigh_the_loss_of_a_style(files):
    batch, found = {"content": pictures(3)}, []
    for strengths in ({}, {"sand": 3.0}):
        config = make_config(files, model={**TINY, "style_strengths": strengths})
        method = residual.method(config, axis_name=None)
        state = jax.jit(method.init)(KEY)
        found.append(jax.jit(method.evaluate)(state, batch))
    plain, strong = found
    assert strong["style/sand"] == pytest.approx(3 * float(plain["style/sand"]), rel=1e-5)
    assert strong["style/leaf"] == pytest.approx(float(plain["style/leaf"]), rel=1e-5)


def test_accumulation_and_bfloat16_make_a_step(files):
    config = make_config(files, accumulate=2, precision="bfloat16", model=TINY)
    state, metrics, _ = steps(config, 1)
    assert np.isfinite(metrics["loss"])
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_the_update_exports_for_every_platform(files):
    from jax import export

    method = residual.method(make_config(files), axis_name=None)
    state = jax.eval_shape(method.init, KEY)
    batch = {"content": jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)}
    platforms = ("cpu", "cuda", "tpu")
    exported = export.export(jax.jit(method.update), platforms=platforms)(state, batch, KEY)
    assert exported.platforms == platforms


# --- runs and models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """A run of a few steps, stopped in the middle, and its configuration."""
    workdir = tmp_path_factory.mktemp("run")
    config = make_config(
        files,
        steps=4,
        log_every=1,
        checkpoint_every=2,
        evaluate_every=4,
        evaluate_batches=1,
        sample_every=4,
        samples=2,
        average=0.5,
        model=TINY,
    )
    seen = []
    loop.train(config, workdir, should_stop=lambda: seen.append(0) or len(seen) == 2)
    result = loop.train(config, workdir)
    assert result.finished
    return workdir, config


def test_a_run_resumes_reads_no_batches_of_paintings_and_shows_samples(run):
    workdir, config = run
    rows = [json.loads(row) for row in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert "held_out/style/sand" in rows[-1]
    assert residual.method(config, axis_name=parallel.AXIS).kinds == ("content",)
    assert images.load(workdir / "samples" / "000004.png").pixels.shape[1] >= 4 * 16


def test_a_run_gives_a_model(run, files):
    workdir, config = run
    model = models.load(workdir)
    assert model.styles == ("leaf", "sand", "wave")
    # Features are a file, whose folder is nobody's business.
    assert os.sep in config.model.features
    name = Path(config.model.features).name
    assert model.config == dataclasses.replace(config.model, features=name)
    residual.check_model(model)
    apply = residual.stylize_fn(model)
    made = jax.jit(apply)(model.variables, pictures(1, 13, 21), style_weights=[1.0, 0, 0])
    assert made.shape == (1, 13, 21, 3)
    names = residual._style_names(str(files / "gone"), 3)
    assert names == ["style1", "style2", "style3"]
    assert residual._style_names(str(files / "styles" / "leaf.png"), 3) == names


def test_models_are_files(run, tmp_path):
    model = models.load(run[0])
    path = tmp_path / "model.safetensors"
    models.save(path, model)
    found = models.load(path)
    assert found[:3] == model[:3]
    jax.tree.map(np.testing.assert_array_equal, found.variables, model.variables)
    before = path.read_bytes()
    models.save(path, found)
    assert path.read_bytes() == before
    models.save(path, model, dtype="float16")
    assert len(path.read_bytes()) < 0.8 * len(before)
    half = models.load(path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        half.variables,
        model.variables,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(half.variables)} == {np.dtype("float32")}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_batch_statistics_are_part_of_a_model(tmp_path):
    config = residual.Config(**SMALL, norm="batch")
    _, variables = initialized(norm="batch")
    model = models.Model("residual", config, ("wave",), variables)
    models.save(tmp_path / "model.safetensors", model)
    found = models.load(tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)


def test_files_that_are_no_models_are_refused(files, tmp_path):
    _, variables = initialized()
    model = models.Model("residual", residual.Config(**SMALL), ("wave",), variables)
    path = tmp_path / "model.safetensors"
    for broken, message in (
        (model._replace(config=residual.Config()), "blocks|channels|expected"),
        (model._replace(method="residuals"), "no method 'residuals'; did you mean residual"),
        (model._replace(styles=("wave", "leaf")), r"beta is \(.,\): expected \(2, .\)"),
    ):
        models.save(path, broken)
        with pytest.raises(UserError, match=message):
            models.load(path)
    models.save(path, model)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="not a safetensors file, or a damaged one"):
        models.load(path)
    with pytest.raises(UserError, match="no model of a trained method"):
        models.load(files / "net.safetensors")
    with pytest.raises(UserError, match="cannot read"):
        models.load(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match="there are no checkpoints"):
        models.load(tmp_path)
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        models.save(tmp_path / "model.npz", model)
    wild = jax.tree.map(lambda x: 1e6 * jnp.ones_like(x), variables)
    with pytest.raises(ValueError, match="not finite in float16"):
        models.save(path, model._replace(variables=wild), dtype="float16")


# --- configurations ------------------------------------------------------------------------------

CONFIGS = ("resnet_in", "resnet_in_paper", "cnn", "cnn_bn", "fnst", "local2021")


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_can_be_made(name, files):
    config = load_config(name)
    assert from_json(to_json(config)) == config
    model = dataclasses.replace(config.model, features=str(files / "net.safetensors"))
    assert len(perceptual.load_networks(model)) == 1  # which has their layers
    generator = residual.make_generator(model, 1)
    assert generator.channels == (32, 64, 128)
    assert generator.blocks == 5


def test_configurations_are_a_ladder():
    def shape(name):
        model = load_config(name).model
        return model.residual, model.norm, model.upsample, model.output

    assert shape("cnn") == (False, "none", "transpose", "tanh")
    assert shape("cnn_bn") == (False, "batch", "transpose", "tanh")
    assert shape("fnst") == (True, "batch", "transpose", "tanh150")
    assert shape("resnet_in_paper") == (True, "instance", "transpose", "tanh")
    assert shape("resnet_in") == (True, "instance", "nearest", "tanh")
    assert updates.learning_rate(load_config("local2021").optimizer, 500)(499) < 1e-4


def test_training_starts_from_the_file_of_a_model(run, tmp_path):
    workdir, config = run
    file = tmp_path / "model.safetensors"
    models.save(file, models.load(workdir))
    frozen = dataclasses.replace(config.optimizer, learning_rate=0.0)
    new = dataclasses.replace(
        config, start=str(file), steps=1, seed=7, optimizer=frozen, sample_every=0, evaluate_every=0
    )
    loop.train(new, tmp_path / "new")
    found = models.load(tmp_path / "new").variables["params"]
    wanted = models.load(file).variables["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
    other = dataclasses.replace(new, method="distill", model=distill.Config())
    with pytest.raises(UserError, match="of residual, not of distill"):
        loop._starting_params(other)
