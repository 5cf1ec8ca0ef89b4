"""Settings: what is refused and how it is said, hashes, and presets against their sources."""

import dataclasses
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxstyle.config import (
    FEATURE_SCALES,
    INITS,
    PRESETS,
    StylizeConfig,
    did_you_mean,
    preset,
    replace,
)

FIELDS = {entry.name: entry for entry in dataclasses.fields(StylizeConfig)}
STYLE_LAYERS = {"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"}
# How many convolutions each block has.
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size must be finite and at least 1; got 0"),
        ({"style_scale": -0.5}, "style_scale must be finite and at least 0; got -0.5"),
        ({"content_weight": -1}, "content_weight must be finite and at least 0; got -1"),
        ({"style_weight": math.nan}, "style_weight must be finite and at least 0; got nan"),
        ({"tv_weight": math.inf}, "tv_weight must be finite and at least 0; got inf"),
        ({"learning_rate": -0.1}, "learning_rate must be finite"),
        ({"history": 0}, "history must be finite and at least 1; got 0"),
        ({"steps": 0}, "steps must be finite and at least 1; got 0"),
        ({"scales": 0}, "scales must be finite and at least 1; got 0"),
        ({"scale_factor": 0.5}, "scale_factor must be finite and at least 1; got 0.5"),
        ({"seed": -1}, "seed must be finite and at least 0; got -1"),
        ({"averaging": 1}, "averaging must be below 1; got 1"),
        ({"adam_b1": 1.0}, "adam_b1 must be below 1; got 1.0"),
        ({"adam_b2": 1.5}, "adam_b2 must be below 1; got 1.5"),
        (
            {"optimizer": "lbgfs"},
            "optimizer must be one of adam, lbfgs; got 'lbgfs'; did you mean lbfgs?",
        ),
        ({"pooling": "average"}, "pooling must be one of max, avg; got 'average'"),
        ({"style_loss": "wassertein"}, "did you mean wasserstein?"),
        ({"content_loss": "half-sum"}, "did you mean half_sum?"),
        ({"tv_loss": "halfmean"}, "did you mean half_mean?"),
        ({"keep_colors": "luminence"}, "did you mean luminance?"),
        ({"style_loss": None}, "style_loss must be one of gatys, "),
        ({"pooling": None}, "pooling must be one of max, avg; got None"),
        ({"style_layers": {}}, "style_layers must name a layer"),
        (
            {"style_layers": {"relu1_1": -1}},
            "style_layers: the weight of relu1_1 must be 0 or more; got -1",
        ),
        (
            {"content_layers": {"relu4_2": math.nan}},
            "content_layers: the weight of relu4_2 must be 0 or more; got nan",
        ),
        ({"standardize": True, "clamp": True}, "turn it off with standardize"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        StylizeConfig(**settings)
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(StylizeConfig(), **settings)


def test_every_limit_is_itself_allowed():
    for name, entry in FIELDS.items():
        if entry.metadata["least"] is not None:
            assert getattr(StylizeConfig(**{name: entry.metadata["least"]}), name) is not None
        for choice in entry.metadata["choices"] or ():
            assert getattr(StylizeConfig(**{name: choice}), name) == choice
    assert StylizeConfig(keep_colors=None).keep_colors is None
    # Texture alone: no content is compared.
    assert not StylizeConfig(content_layers={}).content_layers


def test_settings_are_frozen_and_by_name():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StylizeConfig().size = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        StylizeConfig(512)  # pyright: ignore[reportCallIssue]


def test_unknown_settings_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"there is no setting 'stepz'; did you mean steps\?"):
        replace(StylizeConfig(), stepz=3)
    with pytest.raises(ValueError, match=r"there is no setting 'xyzzy'$"):
        replace(StylizeConfig(), xyzzy=3)


def test_replace_changes_what_is_named_alone():
    old = StylizeConfig()
    new = replace(old, steps=old.steps + 1)
    differing = [name for name in FIELDS if getattr(old, name) != getattr(new, name)]
    assert differing == ["steps"]
    assert replace(new) == new


def test_nearest_names():
    assert did_you_mean("lumi", ("luminance", "match")) == "; did you mean luminance?"
    assert did_you_mean(7, ("luminance", "match")) == ""


def test_hash_agrees_with_equality():
    layers = {"relu1_1": 1, "relu2_1": 2}
    a = StylizeConfig(style_layers=layers, learning_rate=1)
    b = StylizeConfig(style_layers={"relu2_1": 2.0, "relu1_1": 1.0}, learning_rate=1.0)
    layers["relu1_1"] = 5  # a config has a copy
    assert (a == b, hash(a) == hash(b), len({a, b})) == (True, True, 1)
    presets = [config for entry in PRESETS.values() for config in (entry.native, entry.normalized)]
    for config in presets:
        copy = pickle.loads(pickle.dumps(config))
        assert (copy == config, hash(copy) == hash(config)) == (True, True)
    for name, value in {
        "seed": 123,
        "tv_weight": 0.123,
        "keep_colors": "match",
        "content_layers": {"relu4_1": 0.5},
        "style_layers": {"relu4_1": 0.5},
    }.items():
        other = StylizeConfig(**{name: value})
        assert other != StylizeConfig()
        assert hash(other) != hash(StylizeConfig())


def test_every_setting_has_a_help_text():
    for name, entry in FIELDS.items():
        text = entry.metadata["help"]
        assert len(text) > 10, name
        assert "\n" not in text, name
        assert not text.endswith("."), name
        assert text[0].islower() or text.startswith("L-BFGS"), name
    assert set(INITS) <= set(re.findall(r"[a-z-]+", FIELDS["init"].metadata["help"]))


def test_defaults_are_not_shared():
    assert StylizeConfig().style_layers is not StylizeConfig().style_layers


# Presets


def test_default_is_the_default_preset():
    assert PRESETS["default"].native == StylizeConfig()
    assert {"default", "gatys2016", "jin2021", "local2021"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("scale", FEATURE_SCALES)
def test_presets_on_features_of_any_scale(name, scale):
    entry, config = PRESETS[name], preset(name, scale=scale)
    assert entry.scale in FEATURE_SCALES
    if scale == entry.scale:
        assert config == entry.native
    elif scale == "normalized":
        assert config == entry.normalized
    else:  # the features are divided first, so the weights for normalised ones apply
        wanted = replace(entry.normalized, normalize_features=True)
        if scale == "random":  # which need more to hold on to the photograph, and are grainy
            assert config.content_weight > wanted.content_weight
            assert config.tv_weight >= wanted.tv_weight
            wanted = replace(
                wanted, content_weight=config.content_weight, tv_weight=config.tv_weight
            )
        assert config == wanted


@pytest.mark.parametrize("name", PRESETS)
def test_scales_differ_in_weights_alone(name):
    entry = PRESETS[name]
    weights = {"content_weight", "style_weight", "tv_weight"}
    differing = {
        field
        for field in FIELDS
        if getattr(entry.native, field) != getattr(entry.normalized, field)
    }
    assert differing <= weights
    if entry.scale == "normalized":
        assert not differing


@pytest.mark.parametrize("name", PRESETS)
def test_layers_are_those_of_the_network(name):
    entry = PRESETS[name]
    known = {
        f"relu{block}_{index}"
        for block, count in enumerate(DEPTHS[entry.features], 1)
        for index in range(1, count + 1)
    }
    assert {*entry.native.content_layers, *entry.native.style_layers} <= known
    assert entry.summary


def test_unknown_presets_and_scales():
    with pytest.raises(ValueError, match=r"no preset 'defualt'; did you mean default\?"):
        preset("defualt", scale="oxford")
    with pytest.raises(ValueError, match="normalized, oxford, torchvision, random; got 'caffe'"):
        preset("default", scale="caffe")


def test_default_is_multi_scale_adam_with_averages():
    config = PRESETS["default"].native
    assert (config.optimizer, config.keep_colors) == ("adam", None)
    assert config.scales > 1
    assert config.averaging > 0
    # Weights that fit the features of any network.
    assert config.normalize_features


def test_gatys2016():
    """Gatys et al. 2016: section 2 (network, pooling, L-BFGS), section 3 (layers, white noise)."""
    entry = PRESETS["gatys2016"]
    config = entry.native
    # "We normalize the network by scaling the weights such that the mean activation [...] is one".
    assert (entry.features, entry.scale) == ("vgg19", "normalized")
    assert config.content_layers == {"relu4_2": 1.0}
    assert set(config.style_layers) == STYLE_LAYERS
    assert set(config.style_layers.values()) == {1 / 5}
    assert (config.content_loss, config.style_loss) == ("half_sum", "gatys")
    assert (config.pooling, config.optimizer, config.init) == ("avg", "lbfgs", "noise")
    assert (config.tv_weight, config.scales, config.averaging) == (0, 1, 0)


def test_jin2021():
    """Weights 1, 1000, 10; 500 updates at 0.1; 150x225 and 300x450; variation as half means."""
    entry = PRESETS["jin2021"]
    config = entry.native
    assert (entry.features, entry.scale) == ("vgg19", "torchvision")
    assert (config.content_weight, config.style_weight, config.tv_weight) == (1, 1000, 10)
    assert (config.optimizer, config.steps, config.learning_rate) == ("adam", 500, 0.1)
    assert (config.size, config.scales, config.scale_factor) == (450, 2, 2)
    assert (config.content_loss, config.style_loss, config.tv_loss) == (
        "mean",
        "elements",
        "half_mean",
    )
    assert config.content_layers == {"relu4_4": 1.0}
    assert dict(config.style_layers) == dict.fromkeys(STYLE_LAYERS, 1.0)  # summed, not averaged
    # The picture is standardised, and clipped at the end alone.
    assert (config.standardize, config.clamp, config.averaging) == (True, False, 0)
    assert (config.init, config.pooling) == ("content", "max")
    # On normalised features style wants a factor of about 100.
    assert 10 <= entry.normalized.style_weight / config.style_weight <= 1000


def test_local2021():
    """Huang et al. 2021: VGG-16, five layers, content to style 1e-2, 500 updates, Adam at 0.01."""
    entry = PRESETS["local2021"]
    config = entry.native
    assert (entry.features, entry.scale) == ("vgg16", "oxford")
    assert config.content_weight / config.style_weight == pytest.approx(1e-2)
    assert (config.optimizer, config.steps, config.learning_rate) == ("adam", 500, 0.01)
    assert set(config.style_layers) == STYLE_LAYERS
    assert (config.style_loss, config.content_loss) == ("gatys", "half_sum")
    assert (config.init, config.tv_weight, config.scales) == ("noise", 0, 1)


# Importing


@pytest.mark.parametrize("module", ["jaxstyle", "jaxstyle.config"])
def test_import_is_light(module):
    code = f"""
import sys
before = set(sys.modules)
import {module}
heavy = {{"jax", "jaxlib", "numpy", "optax", "PIL", "h5py", "matplotlib", "pooch", "tqdm"}}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", 2.5, "steps must be of type int; got 2.5"),
        ("size", None, "size must be of type int; got None"),
        ("learning_rate", "x", "learning_rate must be of type float; got 'x'"),
        ("clamp", "no", "clamp must be of type bool; got 'no'"),
        ("style_layers", "relu2_1", "style_layers must map layers to weights"),
        ("content_layers", ["relu2_1"], "content_layers must map layers to weights"),
    ],
)
def test_values_of_another_type(name, value, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        StylizeConfig(**{name: value})


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    assert StylizeConfig(size=np.int64(64), learning_rate=np.float32(0.5)).size == 64


def test_preset_uses_heads_where_a_narrow_network_has_them():
    heads = [f"relu{k}_1" for k in range(1, 6)]
    config = preset("gatys2016", scale="normalized", heads=heads)
    assert config.content_layers == {"relu4_1": 1.0}
    assert preset("gatys2016", scale="normalized").content_layers == {"relu4_2": 1.0}
    assert preset("gatys2016", scale="normalized", heads=["relu3_1"]).content_layers == {
        "relu4_2": 1.0
    }
    assert preset("default", scale="normalized", heads=heads) == StylizeConfig()
