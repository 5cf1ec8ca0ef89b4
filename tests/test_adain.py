"""Tests of jaxstyle.methods.adain and adain_tiled, with tiny networks."""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_params, random_weights
from tiny import write_pictures

from jaxstyle import features as vgg
from jaxstyle import images, models, tiling, transfer, weights
from jaxstyle.errors import UserError
from jaxstyle.losses import Moments
from jaxstyle.methods import adain, adain_tiled
from jaxstyle.training import loop, perceptual
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
LEVELS = ("relu2_1",)
SEVERAL = ("relu1_1", "relu2_1", "relu3_1")
BOTH = [(LEVELS, 0), (SEVERAL, 5)]
TINY = {
    "levels": ("relu1_1",),
    "content_layers": {"relu1_1": 1.0},
    "style_layers": {"relu1_1": 1.0},
}
LOSS = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with photos/, paintings/, and the file of a network."""
    folder = tmp_path_factory.mktemp("files")
    write_pictures(folder / "photos", 5)
    (folder / "paintings").mkdir()
    for index in range(3):
        rng = np.random.default_rng(index)
        picture = rng.normal(rng.random(3), 0.15 * (index + 1), (24, 30, 3))
        picture = np.clip(picture, 0, 1).astype(np.float32)
        images.save(folder / "paintings" / f"{index}.png", picture)
    weights.save(folder / "net.safetensors", random_weights())
    return folder


def make_config(files, *, model=None, **settings):
    net = str(files / "net.safetensors")
    chosen = {"encoder": net, "features": net, "levels": LEVELS, **LOSS} | (model or {})
    settings = {
        "steps": 8,
        "batch_size": 4,
        "crop_size": 16,
        "optimizer": OptimizerConfig(name="sgd", learning_rate=1e-3, clip_norm=1.0),
        "data": DataConfig(content=str(files / "photos"), style=str(files / "paintings")),
    } | settings
    return TrainConfig(method="adain", model=adain.Config(**chosen), **settings)


@functools.lru_cache
def pictures(rows=2, height=16, width=16, seed=0):
    coarse = np.random.default_rng(seed).random((rows, 5, 5, 3))
    smooth = jax.image.resize(jnp.asarray(coarse, jnp.float32), (rows, height, width, 3), "linear")
    return jnp.clip(smooth, 0, 1)


def random_code(levels, regions=None, seed=0):
    """A painting's code that no painting has."""
    rng, code = np.random.default_rng(seed), {}
    for level in (*levels, adain.PIXELS):
        channels = WIDTHS[levels][int(level[4]) - 1][0] if level in levels else 6
        shape = (1, channels) if regions is None else (1, regions, channels)
        code[level] = Moments(*(rng.uniform(0.2, 0.8, shape).astype(np.float32) for _ in range(2)))
    return code


# By the levels: what takes time here is the compiler, and so there are few convolutions.
WIDTHS = {LEVELS: ((4,), (6,)), SEVERAL: ((4, 4), (6,), (8,)), ("relu1_1",): ((4,),)}


@functools.lru_cache
def make(levels=LEVELS, modulation=0, norm=False):
    """A network as after some training: modulation that does something, pictures in range."""
    config = adain.Config(levels=levels, modulation=modulation, norm=norm, colors=norm)
    params = random_params(WIDTHS[levels])
    network = adain.make_network(config, params, "reflect")
    rng = np.random.default_rng(3)

    def shaken(path, leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        if path[-1].key != "kernel":
            return (path[-1].key == "gamma") + 0.05 * noise
        gain = 1.5 if path[0].key != "conv1_1" else 0.2 if norm else 0.02
        return noise * np.sqrt(gain / np.prod(leaf.shape[:-1]), dtype=np.float32)

    decoder = jax.tree.map_with_path(shaken, shapes(network, params))
    return network, {"params": decoder, "encoder": vgg.prepare(params)}


def shapes(network, params):
    """Those of the decoder's parameters."""

    def init(params):
        features = adain.encode(network, params, jnp.zeros((1, 16, 16, 3)))
        return network.decoder.init(KEY, features, adain.code_of(features))["params"]

    return jax.eval_shape(init, params)


@functools.lru_cache
def programs(levels=LEVELS, modulation=0):
    """`encode`, `stylize` and `style_code` of a network, with its variables."""
    network, variables = make(levels, modulation)
    run = jax.jit(functools.partial(adain.stylize, network))
    read = jax.jit(functools.partial(adain.style_code, network))
    encode = jax.jit(functools.partial(adain.encode, network))

    def stylize(content, code, strength=1.0, masks=None):
        # Whatever is said of the strength, it is one program.
        return run(variables, content, code, strength=jnp.float32(strength), masks=masks)

    return (
        functools.partial(encode, variables["encoder"]),
        stylize,
        functools.partial(read, variables),
    )


@functools.partial(jax.jit, static_argnums=0)
def decoded(network, params, features, code):
    """What the decoder makes of features that are normalised already."""
    return network.decoder.apply({"params": params}, features, code)


# --- the network ---------------------------------------------------------------------------------


def vgg19():
    """Shapes of the paper's encoder."""
    found, inputs = {"preprocess/kernel": (1, 1, 3, 3), "preprocess/bias": (3,)}, 3
    for block, row in enumerate(((64,) * 2, (128,) * 2, (256,) * 4, (512,)), 1):
        for place, outputs in enumerate(row, 1):
            found[f"conv{block}_{place}/kernel"] = (3, 3, inputs, outputs)
            found[f"conv{block}_{place}/bias"] = (outputs,)
            inputs = outputs
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in found.items()}


def test_the_full_decoder_mirrors_the_encoder():
    params = vgg19()
    network = adain.make_network(adain.Config(), params, "reflect")
    assert network.grain == 8
    found = shapes(network, params)
    kernels = {name: layer["kernel"].shape for name, layer in found.items()}
    assert kernels == {
        name.split("/")[0]: (3, 3, leaf.shape[3], leaf.shape[2])
        for name, leaf in params.items()
        if name.startswith("conv") and name.endswith("kernel")
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == 3_505_219


def test_further_levels_and_modulation_have_parameters_of_their_own():
    params = vgg19()
    levels = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    plain = shapes(adain.make_network(adain.Config(), params, "zero"), params)
    config = adain.Config(levels=levels, modulation=32)
    found = shapes(adain.make_network(config, params, "zero"), params)
    skips = {"skip1_1": (64, 3), "skip2_1": (128, 64), "skip3_1": (256, 128)}
    hidden = 2 * (64 + 128 + 256 + 512)
    modulated = {f"{name}_modulation" for name in plain if name != "conv1_1"}
    assert {*found} == {*plain, *skips, "describe", *modulated}
    for name, channels in skips.items():
        assert jax.tree.map(lambda x: x.shape, found[name]) == {"kernel": (1, 1, *channels)}
    assert found["describe"]["kernel"].shape == (hidden, 32)
    assert found["conv3_1_modulation"]["kernel"].shape == (32, 256)


@pytest.mark.parametrize(("levels", "modulation"), BOTH)
def test_pictures_are_made_of_normalised_features(levels, modulation):
    network, variables = make(levels, modulation)
    encode, stylize, read = programs(levels, modulation)
    x, y = pictures(2), pictures(2, seed=1)
    code, own = read(y), read(x)
    found = stylize(x, code)
    features, painted = encode(x), encode(y)
    assert list(features) == [*levels]
    normalized = {level: transfer.adain(features[level], painted[level]) for level in levels}
    made = jnp.clip(decoded(network, variables["params"], normalized, code), 0, 1)
    assert (found.shape, found.dtype) == (x.shape, jnp.float32)
    np.testing.assert_allclose(found, made, atol=1e-5)
    assert found.std() > 0.01
    # And the strength goes from the content to the painting's code.
    np.testing.assert_allclose(stylize(x, code, 0), x, atol=1e-6)
    rebuilt = decoded(network, variables["params"], features, own)
    assert np.abs(rebuilt - x).max() > 0.1
    part = stylize(x, code, 0.25)
    mixed = adain.mix([own, code], [0.75, 0.25])
    between = {
        level: transfer.adain(features[level], None, moments=mixed[level]) for level in levels
    }
    made = decoded(network, variables["params"], between, mixed)
    wanted = np.clip(made + 0.75 * (x - rebuilt), 0, 1)
    np.testing.assert_allclose(part, wanted, atol=1e-5)
    assert np.abs(part - found).max() > 0.01


def test_mixed_codes_mix_the_features():
    network, variables = make()
    encode, stylize, read = programs()
    x, codes = pictures(2), [read(pictures(2, seed=s)) for s in (1, 2)]
    (features,) = encode(x).values()
    shares = [0.3, 0.7]
    each = [transfer.adain(features, None, moments=code[LEVELS[0]]) for code in codes]
    mixed = {LEVELS[0]: shares[0] * each[0] + shares[1] * each[1]}
    wanted = jnp.clip(decoded(network, variables["params"], mixed, codes[0]), 0, 1)
    np.testing.assert_allclose(stylize(x, adain.mix(codes, shares)), wanted, atol=1e-5)


def test_bfloat16_is_near():
    settings = adain.Config(levels=LEVELS, encoder_padding="reflect")
    variables = {
        "params": make()[1]["params"],
        "encoder": models.nested(random_params(WIDTHS[LEVELS])),
    }
    model = models.Model("adain", settings, (), variables)
    code = random_code(LEVELS)
    made = jax.jit(adain.stylize_fn(model, dtype=jnp.bfloat16))(
        adain.of_model(model, dtype=jnp.bfloat16)[1], pictures(2), code
    )
    assert made.dtype == jnp.float32
    difference = jnp.abs(made - programs()[1](pictures(2), code))
    assert 0 < difference.mean() < 0.01


def test_modulation_is_nothing_at_first():
    network, _ = make(SEVERAL, 5)
    _, variables = make(SEVERAL)
    features, code = programs(SEVERAL, 5)[0](pictures(2)), random_code(SEVERAL)
    params = jax.jit(network.decoder.init)(KEY, features, code)["params"]
    assert params["conv2_1_modulation"]["bias"].shape == (2 * 4,)
    before = decoded(network, params, features, code)
    plain = {name: params[name] for name in variables["params"]}
    unmodulated = decoded(make(SEVERAL)[0], plain, features, code)
    np.testing.assert_allclose(before, unmodulated, atol=1e-6)


# --- regions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "modulation"), BOTH)
def test_pictures_in_one_region_are_as_without(levels, modulation):
    """Each picture lies in a region of its own, of which there are three."""
    _, stylize, _ = programs(levels, modulation)
    codes = [random_code(levels, seed=seed) for seed in range(3)]
    masks = np.zeros((2, 16, 16, 3), np.float32)
    masks[0, ..., 1] = masks[1, ..., 0] = 1
    together = jax.tree.map(lambda *parts: np.stack(parts, 1), *codes)
    found = stylize(pictures(2), together, masks=masks)
    for row, region in enumerate((1, 0)):
        wanted = stylize(pictures(2), codes[region])
        np.testing.assert_allclose(found[row], wanted[row], atol=1e-4)
        assert np.abs(found[row] - wanted[1 - row]).max() > 0.01


def test_a_mask_of_everything_is_no_mask():
    _, stylize, read = programs()
    x, y, ones = pictures(2), pictures(2, seed=1), np.ones((2, 16, 16, 1), np.float32)
    code = read(y, ones)
    assert code[LEVELS[0]].mean.shape == (2, 1, 6)
    np.testing.assert_allclose(stylize(x, code, masks=ones), stylize(x, read(y)), atol=1e-4)


# --- pictures of all kinds -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (15, 11)])
def test_any_size_is_padded_by_reflection_and_cropped_back(size):
    _, stylize, _ = programs()
    x, code = pictures(2, *size), random_code(LEVELS)
    found = stylize(x, code)
    assert found.shape == x.shape
    amounts = [(0, 16 - side) for side in size]
    padded = np.pad(np.asarray(x), ((0, 0), *amounts, (0, 0)), mode="reflect")
    whole = stylize(padded, code)
    np.testing.assert_allclose(found, whole[:, : size[0], : size[1]], atol=1e-6)


@pytest.mark.parametrize(
    ("size", "wanted"), [((1, 1), (16, 16)), ((17, 33), (20, 36)), ((3, 100), (16, 100))]
)
def test_sides_become_those_that_can_be_halved(size, wanted):
    network, variables = make(SEVERAL, 5)
    x = np.asarray(pictures(2, *size))
    padded = adain.padded(network, x)
    assert padded.shape == (2, *wanted, 3)
    np.testing.assert_array_equal(padded[:, : size[0], : size[1]], x)
    made = jax.eval_shape(
        functools.partial(adain.stylize, network), variables, x, random_code(SEVERAL)
    )
    assert made.shape == x.shape


@pytest.mark.parametrize(("size", "regions"), [((1, 1), 2), ((9, 40), 0), ((17, 21), 3)])
def test_paintings_of_any_size_have_a_code(size, regions):
    read = programs()[2]
    masks = np.full((1, *size, regions), 1 / regions, np.float32) if regions else None
    mean, std = read(pictures(1, *size), masks)[LEVELS[0]]
    assert mean.shape == std.shape == ((1, regions, 6) if regions else (1, 6))
    assert np.isfinite(mean).all()
    assert (std > 0).all()


def test_flat_pictures_have_finite_pictures_and_gradients():
    network, variables = make(SEVERAL, 5)
    flat = jnp.broadcast_to(jnp.array([0.0, 1.0])[:, None, None, None], (2, 16, 16, 3))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        code = adain.style_code(network, variables, flat[::-1])
        made = adain.stylize(network, {**variables, "params": params}, flat, code)
        return jnp.mean(jnp.square(made)), made

    (_, made), gradients = loss(variables["params"])
    assert np.isfinite(made).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("value", [0.0, 0.5, (0.9, 0.2, 0.4)])
def test_flat_pictures_become_flat_ones(value):
    """Though every convolution of the decoder is normalised by what rounding leaves."""
    network, variables = make(SEVERAL, 5, norm=True)
    flat = np.full((40, 56, 3), value, np.float32)
    painting = np.asarray(pictures(1, 20, 20, seed=5)[0])
    code = adain.read_style(network, variables, painting)
    made = adain.paint(network, variables, flat, code)
    np.testing.assert_allclose(made, np.broadcast_to(painting.mean((0, 1)), made.shape), atol=2e-3)
    tiled = adain.paint(network, variables, flat, code, tile=16)
    np.testing.assert_allclose(tiled, made, atol=1e-3)
    masks = np.zeros((40, 56, 2), np.float32)
    masks[:, :20, 0] = masks[:, 20:, 1] = 1
    both = jax.tree.map(lambda x: jnp.stack([x, x], 1), code)
    found = adain.paint(network, variables, flat, both, masks=masks)
    np.testing.assert_allclose(found, made, atol=2e-3)


def test_pictures_get_the_colours_of_the_painting():
    network, variables = make(SEVERAL, 5, norm=True)
    content, style = pictures(2, 24, 32)[:1], pictures(1, 20, 20, seed=5)
    code = adain.style_code(network, variables, style)
    features = adain.encode(network, variables["encoder"], content)
    own = adain.code_of(features)
    made = adain.decode(network, variables["params"], features, code, own=own, strength=1.0)
    np.testing.assert_allclose(made.mean((1, 2)), style.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(made.std((1, 2)), style.std((1, 2)), atol=1e-3)
    same = adain.decode(network, variables["params"], features, code, own=own, strength=0.0)
    np.testing.assert_allclose(same.mean((1, 2)), content.mean((1, 2)), atol=1e-5)


def test_regions_get_the_colours_of_their_paintings():
    network, variables = make(SEVERAL, 5, norm=True)
    content = pictures(1, 24, 32)
    codes = [adain.style_code(network, variables, pictures(1, 20, 20, seed=s)) for s in (5, 6)]
    code = jax.tree.map(lambda *parts: jnp.stack(parts, 1), *codes)
    inside = np.hypot(*np.mgrid[-12:12, -10:22]) < 9
    masks = jnp.asarray(np.stack([inside, ~inside], -1)[None], jnp.float32)
    features = adain.encode(network, variables["encoder"], content)
    own = adain.code_of(features, masks)
    made = adain.decode(network, variables["params"], features, code, own=own, masks=masks)
    for place, (mask, each) in enumerate(zip((inside, ~inside), codes, strict=True)):
        pixels = np.asarray(made[0][mask], np.float64)
        wanted = each[adain.PIXELS]
        np.testing.assert_allclose(pixels.mean(0), wanted.mean[0, :3], atol=1e-4)
        np.testing.assert_allclose(pixels.std(0), wanted.std[0, :3], rtol=0.25)
        other = codes[1 - place][adain.PIXELS]
        assert np.abs(other.mean - wanted.mean).max() > 0.02, "paintings of the same colours"


# --- tiles ---------------------------------------------------------------------------------------


def some_masks(height, width):
    """Two soft regions; one that lies in one tile alone; one that is nowhere."""
    masks = np.zeros((height, width, 4), np.float32)
    masks[..., 0] = np.asarray(pictures(1, height, width, seed=7))[0, ..., 0]
    masks[..., 1] = 1 - masks[..., 0]
    masks[2:6, 2:5] = (0, 0, 1, 0)
    return masks


@pytest.mark.parametrize(
    ("levels", "modulation", "norm", "size", "tile", "regions", "strength"),
    [
        (LEVELS, 0, False, (45, 70), 12, None, 0.6),
        (SEVERAL, 5, False, (61, 27), 17, 4, 1.0),
        (SEVERAL, 5, True, (38, 51), 14, 4, 1.0),
        (SEVERAL, 5, True, (38, 51), 14, 4, 0.5),
        (("relu1_1",), 0, False, (1, 33), 5, None, 1.0),
    ],
)
def test_pictures_in_tiles_are_as_the_whole(
    levels, modulation, norm, size, tile, regions, strength
):
    network, variables = make(levels, modulation, norm)
    content = np.asarray(pictures(1, *size)[0])
    masks = some_masks(*size) if regions else None
    code = random_code(levels, regions)
    paint = functools.partial(adain.paint, network, variables, content, code, strength=strength)
    whole, found = paint(tile=None, masks=masks), paint(tile=tile, masks=masks)
    assert found.shape == content.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert whole.std() > 0.03, "a flat picture would show no seam"
    assert 0.02 < whole.mean() < 0.98


def test_strength_zero_is_the_picture_in_tiles_and_regions():
    network, variables = make(SEVERAL, 5, norm=True)
    content, masks = np.asarray(pictures(1, 38, 51)[0]), some_masks(38, 51)
    code = random_code(SEVERAL, 4)
    paint = functools.partial(adain.paint, network, variables, content, code, masks=masks)
    for tile in (None, 14):
        np.testing.assert_allclose(paint(strength=0, tile=tile), content, atol=1e-5)
        assert np.abs(paint(tile=tile) - content).max() > 0.1


@pytest.mark.parametrize("strength", [1, 1.0])
def test_full_strength_decodes_once(monkeypatch, strength):
    network, variables = make()
    calls, decode = [], adain.decode
    monkeypatch.setattr(adain, "decode", lambda *a, **k: calls.append(1) or decode(*a, **k))
    content, code = np.asarray(pictures(1, 18, 26)[0]), random_code(LEVELS)
    with jax.disable_jit():
        adain.paint(network, variables, content, code, strength=strength, tile=None)
        assert len(calls) == 1
        adain.paint(network, variables, content, code, strength=0.5, tile=None)
        assert len(calls) == 1 + 2


@pytest.mark.parametrize(
    ("size", "regions"), [((45, 70), None), ((61, 27), None), ((23, 40), 4), ((16, 44), 4)]
)
def test_paintings_in_tiles_have_the_code_of_the_whole(size, regions):
    network, variables = make(SEVERAL, 5, norm=True)
    painting = np.asarray(pictures(1, *size)[0])
    masks = some_masks(*size) if regions else None
    read = functools.partial(adain.read_style, network, variables, painting, masks)
    whole, tiled = read(tile=None), read(tile=12)
    exact = not regions or not any(side % network.grain for side in size)
    for name, wanted in whole.items():
        for found, value in zip(tiled[name], wanted, strict=True):
            assert found.shape == value.shape
            tolerance = 1e-5 if exact or name == adain.PIXELS else 0.05
            np.testing.assert_allclose(found, value, atol=tolerance)


def test_paintings_that_do_not_fit_are_read_in_tiles(monkeypatch):
    network, variables = make()
    painting, calls = np.zeros((20, 23, 3), np.float32), []
    monkeypatch.setattr(adain_tiled, "code_of", lambda *_, tile, **__: calls.append(tile) or "t")
    monkeypatch.setattr(adain, "_read", lambda *_: "whole")
    read = functools.partial(adain.read_style, network, variables)
    needed = adain_tiled.whole_bytes(network, 20 * 23)
    assert read(painting, memory=needed) == "whole"
    assert read(painting, memory=needed - 1) == "t"
    assert calls == [adain_tiled.SIDE]
    assert read(painting[:3], memory=1) == "whole"  # it has to be padded, and is none of the large


def test_a_smaller_margin_would_show(monkeypatch):
    network, variables = make()
    content = np.random.default_rng(0).random((32, 48, 3), np.float32)
    paint = functools.partial(adain.paint, network, variables, content, random_code(LEVELS), tile=8)
    right, spans = paint(), tiling.spans
    monkeypatch.setattr(tiling, "spans", lambda n, side, margin: spans(n, side, margin - 1))
    assert np.abs(paint() - right).max() > 1e-3


def test_tiles_are_for_pictures_that_do_not_fit(monkeypatch):
    network, variables = make()
    content, calls = np.zeros((20, 23, 3), np.float32), []
    tiled, whole = np.full((20, 24, 3), 0.25), np.full((1, 20, 23, 3), 0.75)
    monkeypatch.setattr(adain_tiled, "generate", lambda *_, tile, **__: calls.append(tile) or tiled)
    monkeypatch.setattr(adain, "_painted", lambda *_, **__: whole)
    paint = functools.partial(adain.paint, network, variables, content, random_code(LEVELS))
    needed = adain_tiled.whole_bytes(network, 20 * 23)
    np.testing.assert_array_equal(paint(memory=needed), whole[0])
    assert calls == []
    np.testing.assert_array_equal(paint(memory=needed - 1), tiled[:, :23])
    assert calls == [adain_tiled.SIDE]
    monkeypatch.setattr(tiling, "available_memory", lambda: 2 * needed - 2)
    paint()
    assert len(calls) == 2
    with pytest.raises(ValueError, match="tile must be a number of pixels above 0, auto or None"):
        paint(tile=0)


# --- the encoder ---------------------------------------------------------------------------------


def test_an_encoder_is_read_as_far_as_it_is_needed(tmp_path):
    net = random_weights(heads={1: 9, 2: 9})
    path = tmp_path / "net.safetensors"
    weights.save(path, net)
    config = adain.Config(encoder=str(path), levels=LEVELS)
    params, padding = adain.read_encoder(config)
    layers = {"preprocess", "conv1_1", "conv1_2", "conv2_1"}
    assert {*params} == {f"{name}/{part}" for name in layers for part in ("kernel", "bias")}
    assert padding == net.padding == "reflect"
    for name, value in params.items():
        np.testing.assert_array_equal(value, net.params[name])
    other = dataclasses.replace(config, encoder_padding="zero")
    assert adain.read_encoder(other)[1] == "zero"


def test_features_of_oxford_networks_are_divided_exactly(tmp_path):
    found = {}
    for scale in ("oxford", "normalized"):
        net = random_weights()._replace(scale=scale)
        weights.save(tmp_path / f"{scale}.safetensors", net)
        config = adain.Config(encoder=str(tmp_path / f"{scale}.safetensors"), levels=LEVELS)
        params, padding = adain.read_encoder(config)
        network = adain.make_network(config, params, padding)
        found[scale] = jax.jit(functools.partial(adain.encode, network))(params, pictures(2))
    (oxford,), (normalized,) = (features.values() for features in found.values())
    np.testing.assert_array_equal(oxford, normalized / 128)  # a power of two: no digit is lost
    assert oxford.max() > 0


def test_an_encoder_without_a_level_is_refused_in_a_line(files, tmp_path):
    widths = ((4, 4), (6, 6), (8,))
    short = random_weights(widths=widths)
    weights.save(tmp_path / "short.safetensors", short)
    spec = str(tmp_path / "short.safetensors")
    config = make_config(files, model={"encoder": spec, "levels": ("relu4_1",)})
    with pytest.raises(UserError, match=r"model.encoder: the network has no layer 'relu4_1'") as e:
        adain.method(config, axis_name=None)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "levels",
    [(), ("relu1_2",), ("relu2_1", "relu1_1"), ("relu1_1", "relu1_1"), ["relu1_1"], ("pool1",)],
)
def test_levels_that_cannot_be_are_refused(levels):
    with pytest.raises(ValueError, match="levels must"):
        adain.Config(levels=levels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": DataConfig(content="photos")}, "data.style is not set"),
        ({"crop_size": 17}, "crop_size must be a multiple of 2"),
        (
            {"data": DataConfig(content="photos", style="paintings", style_batch_size=1)},
            "must be 0",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(files, settings, message):
    with pytest.raises(UserError, match=message):
        adain.method(make_config(files, **settings), axis_name=None)


# --- training ------------------------------------------------------------------------------------


def batch_of(rows, seed=0):
    return {"content": pictures(rows, seed=seed), "style": pictures(rows, seed=seed + 50) ** 2}


def steps(config, count, devices=1):
    """Some updates on some devices; the state and the metrics."""
    axis_name = "i" if devices > 1 else None
    method = adain.method(config, axis_name=axis_name)
    state = jax.jit(method.init)(KEY)
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
        batch = batch_of(config.batch_size, seed=step)
        if devices > 1:
            batch = split(batch, devices)
        state, metrics = update(state, batch, jax.random.fold_in(KEY, step))
    return state, metrics


def split(batch, devices):
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)


class Trained(NamedTuple):
    """A decoder after some steps, its losses before, and the metrics of the last step."""

    config: TrainConfig
    method: Any
    evaluate: Any
    state: Any
    before: Any
    metrics: Any


@pytest.fixture(scope="module")
def trained(files):
    config = make_config(
        files,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        model={"content_weight": 2.0, "style_weight": 5.0},
    )
    method = adain.method(config, axis_name=None)
    evaluate = functools.partial(jax.jit(method.evaluate), batch=batch_of(4, seed=100))
    state, update = jax.jit(method.init)(KEY), jax.jit(method.update)
    before = evaluate(state)
    for step in range(40):
        state, metrics = update(state, batch_of(4, seed=step), jax.random.fold_in(KEY, step))
    return Trained(config, method, evaluate, state, before, metrics)


def test_four_devices_train_as_one(files):
    model = {**TINY, "vary_colors": True, "identity_weight": 3.0, "tv_weight": 0.1}
    config = make_config(files, model=model)
    one, one_metrics = steps(config, 2)
    four, four_metrics = steps(config, 2, devices=4)
    for a, b in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        for shard in getattr(a, "addressable_shards", ()):
            np.testing.assert_array_equal(shard.data, a)
    assert {*perceptual.TERMS, "loss", "identity"} < {*one_metrics}
    for name, value in one_metrics.items():
        assert four_metrics[name] == pytest.approx(float(value), rel=1e-4), name
    batch, mapped = batch_of(4), adain.method(config, axis_name="i").evaluate
    wanted = jax.jit(adain.method(config, axis_name=None).evaluate)(one, batch)
    mapped = jax.pmap(mapped, "i", in_axes=(None, 0), out_axes=None)
    found = mapped(one, split(batch, 4))
    assert {*found} == {*wanted} == {*perceptual.TERMS, "loss"}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), rel=1e-4), name


def test_samples_show_what_the_method_makes(trained):
    method, batch = trained.method, batch_of(4, seed=100)
    sample = jax.jit(method.sample)(trained.state, batch)
    assert sample.shape == (4, 16, 3 * 16, 3)
    np.testing.assert_array_equal(sample[:, :, :16], batch["content"])
    np.testing.assert_array_equal(sample[:, :, 16:32], batch["style"])
    variables = method.variables(trained.state)
    made = jax.jit(method.stylize)(variables, batch["content"], batch["style"])
    np.testing.assert_allclose(made, sample[:, :, 32:], atol=1e-5)


def test_training_lowers_the_loss(trained):
    before, after, metrics = trained.before, trained.evaluate(trained.state), trained.metrics
    assert {*perceptual.TERMS, "loss", "gradient_norm", "learning_rate"} == {*metrics}
    assert all(np.isfinite(value) for value in metrics.values())
    assert after["loss"] < 0.6 * before["loss"]
    total = sum(float(after[name]) for name in perceptual.TERMS)
    assert after["loss"] == pytest.approx(total, rel=1e-5)


def test_the_loss_is_that_of_the_paper(files, trained):
    """Eqs. 11 to 13 with the mean form of the released code, in float64."""
    batch = batch_of(4, seed=100)
    made = jax.jit(trained.method.sample)(trained.state, batch)[:, :, 32:]
    networks = perceptual.load_networks(trained.config.model)
    extract = jax.jit(lambda x: perceptual.extract(networks, x, ["relu1_1", "relu2_1"]))

    def features(x):
        return {name: np.asarray(value, np.float64) for name, value in extract(x).items()}

    ours, content, style = (features(x) for x in (made, batch["content"], batch["style"]))

    def moments(x):
        return np.stack([x.mean((1, 2)), np.sqrt(x.var((1, 2)) + 1e-5)])

    squares = [(moments(ours[n]) - moments(style[n])) ** 2 for n in ours]
    wanted = 5 * sum(square.sum(0).mean() for square in squares)
    mean, std = moments(style["relu2_1"])[..., None, None, :]
    own_mean, own_std = moments(content["relu2_1"])[..., None, None, :]
    normalized = std * (content["relu2_1"] - own_mean) / own_std + mean
    model = dataclasses.replace(trained.config.model, content_target="content")
    plain = dataclasses.replace(trained.config, model=model)
    plain = jax.jit(adain.method(plain, axis_name=None).evaluate)(trained.state, batch)
    for found, target in (
        (trained.evaluate(trained.state), normalized),
        (plain, content["relu2_1"]),
    ):
        assert found["style"] == pytest.approx(wanted, rel=1e-4)
        distance = 2 * np.mean((ours["relu2_1"] - target) ** 2)
        assert found["content"] == pytest.approx(distance, rel=1e-4)


def test_colours_are_exchanged_picture_by_picture():
    x = pictures(40)
    made = np.asarray(jax.jit(lambda x, key: adain._recolored(x, key, None))(x, KEY))
    orders = set()
    for before, after in zip(np.asarray(x), made, strict=True):
        order = tuple(
            next(i for i in range(3) if np.array_equal(before[..., i], after[..., c]))
            for c in range(3)
        )
        assert sorted(order) == [0, 1, 2]
        orders.add(order)
    assert len(orders) == 6


def test_accumulation_and_bfloat16_make_a_step(files):
    config = make_config(files, accumulate=2, precision="bfloat16", model={"vary_colors": True})
    method = adain.method(config, axis_name=None)
    state = jax.eval_shape(method.init, KEY)
    after, metrics = jax.eval_shape(method.update, state, batch_of(4), KEY)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32


# --- runs and models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """A run of a few steps, and its configuration."""
    workdir = tmp_path_factory.mktemp("run")
    config = make_config(
        files,
        steps=3,
        log_every=1,
        checkpoint_every=2,
        evaluate_every=3,
        evaluate_batches=1,
        sample_every=3,
        samples=2,
        average=0.5,
        model={**TINY, "levels": LEVELS, "modulation": 2},
    )
    assert loop.train(config, workdir).finished
    return workdir, config


def test_a_run_gives_a_model_that_is_a_file(run, tmp_path):
    workdir, config = run
    rows = [json.loads(row) for row in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert images.load(workdir / "samples" / "000003.png").pixels.shape[1] >= 3 * 16
    model = models.load(workdir)
    assert (model.method, model.styles, model.step) == ("adain", (), 3)
    # The networks are files, whose folder is nobody's business.
    assert os.sep in config.model.encoder
    name = Path(config.model.encoder).name
    settings = {"encoder": name, "features": name, "encoder_padding": "reflect"}
    assert model.config == dataclasses.replace(config.model, **settings)
    path = tmp_path / "model.safetensors"
    models.save(path, model)
    folder = Path(config.model.encoder).parent
    assert str(folder).encode() not in path.read_bytes()
    found = models.load(path)
    jax.tree.map(np.testing.assert_array_equal, found.variables, model.variables)
    content, painting = (np.asarray(pictures(1, 13, 21, seed=s)[0]) for s in (0, 1))
    made = []
    for each in (model, found):
        network, variables = adain.of_model(each)
        code = adain.read_style(network, variables, painting)
        made.append(adain.paint(network, variables, content, code))
    np.testing.assert_array_equal(*made)
    apply = jax.jit(adain.stylize_fn(found))
    np.testing.assert_allclose(apply(variables, content[None], code)[0], made[0], atol=1e-5)


def test_models_whose_arrays_do_not_fit_are_refused(run, tmp_path):
    model = models.load(run[0])
    path = tmp_path / "model.safetensors"
    params, encoder = model.variables["params"], model.variables["encoder"]

    def changed(tree, **parts):
        return {**tree, **parts}

    wrong = changed(params, conv1_2=changed(params["conv1_2"], bias=np.zeros(5, np.float32)))
    lacking = {name: layer for name, layer in encoder.items() if name != "conv2_1"}
    for variables, message in (
        ({"params": wrong, "encoder": encoder}, r"conv1_2/bias is \(5,\): expected \(4,\)"),
        ({"params": params}, "expected encoder and params; got params"),
        ({"params": params, "encoder": lacking}, "no layer 'relu2_1'"),
    ):
        models.save(path, model._replace(variables=variables))
        with pytest.raises(UserError, match=message):
            models.load(path)
    models.save(path, model._replace(styles=("wave",)))
    with pytest.raises(UserError, match="expected styles of different names"):
        models.load(path)


def test_a_run_of_another_method_is_refused(run, monkeypatch):
    from jaxstyle.methods import residual

    with pytest.raises(UserError, match="is a run of adain: expected one of residual"):
        residual.load_run(run[0])


def test_the_configuration_is_the_papers():
    config = load_config("adain")
    assert from_json(to_json(config)) == config
    model = config.model
    assert (model.levels, model.modulation, model.content_target) == (("relu4_1",), 0, "adain")
    assert (config.steps, config.batch_size, config.crop_size) == (160_000, 8, 256)
    assert (model.content_layers, model.style_weight) == ({"relu4_1": 1.0}, 10.0)
