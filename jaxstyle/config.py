"""Settings of a run, and the presets. Nothing here imports JAX, so that `--help` is instant."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# What `init` may name; anything else on the command line is a picture file.
INITS = ("content", "style-stats", "noise")
# How a convolution may be padded.
PADDINGS = ("zero", "reflect", "replicate")
# The largest picture that is read unless told otherwise, in pixels.
MAX_PIXELS = 100_000_000
FEATURE_SCALES = ("normalized", "oxford", "torchvision", "random")
# Untrained features hardly tell contents apart, and like grain: by eye (docs/presets.md).
_RANDOM_CONTENT, _RANDOM_TV = 80, 15


def setting(
    default: Any, text: str, *, choices: tuple[str, ...] | None = None, least: float | None = None
) -> Any:
    """A field of a dataclass of settings: its default, a line of help, and what `check` allows."""
    metadata = {"help": text, "choices": choices, "least": least}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def _equal(weight: float) -> dict[str, float]:
    return dict.fromkeys(_STYLE_LAYERS, weight)


@dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """Settings of style transfer by pixel optimisation; the defaults are the default preset.

    The help of each field is in its metadata, and the command line is made from it. Losses are
    weighted by word, never by letter: the literature's alpha and beta change places.

    Raises:
        ValueError: a setting is out of range.
    """

    size: int = setting(512, "longer side of the picture, in pixels", least=1)
    style_scale: float = setting(
        1.0,
        "longer side of the styles relative to the picture's: larger gives larger strokes "
        "(styles are never enlarged)",
        least=0,
    )
    content_weight: float = setting(0.35, "weight of the content loss", least=0)
    style_weight: float = setting(1.0, "weight of the style loss", least=0)
    tv_weight: float = setting(2.0, "weight of the total variation", least=0)
    content_layers: Mapping[str, float] = setting(
        {"relu4_1": 1.0}, "layers that keep the content, and their weights"
    )
    style_layers: Mapping[str, float] = setting(
        _equal(0.2), "layers that give the style, and their weights"
    )
    content_loss: str = setting("mean", "form of the content loss", choices=("mean", "half_sum"))
    style_loss: str = setting(
        "wasserstein",
        "form of the style loss",
        choices=("gatys", "positions", "elements", "moments", "wasserstein"),
    )
    tv_loss: str = setting(
        "squared_mean",
        "form of the total variation",
        choices=("sum", "half_mean", "squared_mean"),
    )
    normalize_features: bool = setting(
        True, "divide each layer by the styles' mean activation, so that weights fit any features"
    )
    pooling: str = setting("max", "pooling of the features", choices=("max", "avg"))
    optimizer: str = setting("adam", "optimiser of the pixels", choices=("adam", "lbfgs"))
    learning_rate: float = setting(0.02, "step size of Adam; L-BFGS searches for its own", least=0)
    adam_b1: float = setting(0.9, "decay of Adam's mean of gradients", least=0)
    adam_b2: float = setting(0.99, "decay of Adam's mean of squared gradients", least=0)
    history: int = setting(10, "updates that L-BFGS remembers", least=1)
    steps: int = setting(64, "updates at the first scale", least=1)
    steps_factor: float = setting(
        0.5, "ratio of a scale's updates to those of the scale before, at least one", least=0
    )
    scales: int = setting(3, "sizes from coarse to fine; 1 is a single one", least=1)
    scale_factor: float = setting(2.0, "ratio of a scale's size to the one before", least=1)
    averaging: float = setting(
        0.98, "decay of the average over iterates that is shown; 0 for none", least=0
    )
    clamp: bool = setting(True, "keep pixels in [0, 1] during the optimisation")
    standardize: bool = setting(
        False, "optimise, and measure variation, on pixels standardised as for ImageNet"
    )
    init: str = setting("content", "where to start: content, style-stats, noise, or a picture")
    keep_colors: str | None = setting(
        None,
        "keep the colours of the content: transfer luminance only, or match the style's "
        "colours to the content's first",
        choices=("luminance", "match"),
    )
    seed: int = setting(0, "seed of the random numbers", least=0)

    def __post_init__(self) -> None:
        check(self)
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Mapping):  # a copy: the caller's may change, and the hash must not
                object.__setattr__(self, entry.name, dict(value))
        for name in ("averaging", "adam_b1", "adam_b2"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1; got {getattr(self, name)}")
        if self.standardize and self.clamp:
            raise ValueError("clamp applies to pixels in [0, 1]; turn it off with standardize")

    def __hash__(self) -> int:
        """A hash that agrees with equality, so that settings can be static arguments of jit."""
        values = (getattr(self, entry.name) for entry in dataclasses.fields(self))
        return hash(
            tuple(tuple(sorted(v.items())) if isinstance(v, Mapping) else v for v in values)
        )


def check(settings: Any) -> None:
    """Checks the fields of a dataclass that `setting` made.

    Raises:
        ValueError: a value is of another type or out of range.
    """
    for entry in dataclasses.fields(settings):
        if "choices" in entry.metadata:
            _check(entry, getattr(settings, entry.name))


def _check(entry: Any, value: Any) -> None:
    choices, least = entry.metadata["choices"], entry.metadata["least"]
    if entry.default is dataclasses.MISSING:
        _check_layers(entry.name, value)
    elif choices is not None:
        if value not in (*choices, entry.default):
            known = ", ".join(choices)
            hint = did_you_mean(value, choices)
            raise ValueError(f"{entry.name} must be one of {known}; got {value!r}{hint}")
    elif not _fits(value, type(entry.default)):
        kind = type(entry.default).__name__
        raise ValueError(f"{entry.name} must be of type {kind}; got {value!r}")
    elif least is not None and not (math.isfinite(value) and value >= least):
        raise ValueError(f"{entry.name} must be finite and at least {least}; got {value}")


def _fits(value: Any, kind: type) -> bool:
    """Whether a value is of a setting's type; NumPy's numbers are numbers, truth is not."""
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_layers(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        example = "{'relu4_1': 1.0}"
        raise ValueError(f"{name} must map layers to weights, as in {example}; got {value!r}")
    if not value and name == "style_layers":
        raise ValueError("style_layers must name a layer")
    for layer, weight in value.items():
        if not (_fits(weight, float) and math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name}: the weight of {layer} must be 0 or more; got {weight!r}")


def replace(config: StylizeConfig, **settings: Any) -> StylizeConfig:
    """Settings with some of them replaced.

    Raises:
        ValueError: there is no such setting; the nearest name is suggested.
    """
    names = [entry.name for entry in dataclasses.fields(config)]
    for name in settings:
        if name not in names:
            raise ValueError(f"there is no setting {name!r}{did_you_mean(name, names)}")
    return dataclasses.replace(config, **settings)


def did_you_mean(text: Any, choices: Iterable[str]) -> str:
    """A hint at the nearest of the choices, to be put behind a message; empty if none is near."""
    near = difflib.get_close_matches(str(text), list(choices), 1)
    return f"; did you mean {near[0]}?" if near else ""


class Preset(NamedTuple):
    """Settings that belong together: loss weights mean nothing without the scale of the features.

    Attributes:
        summary: a line for the help.
        features: the network that the settings are meant for.
        scale: the scale of the features that `native` is for.
        native: settings on features of that scale.
        normalized: settings on features whose mean activation is about 1.
    """

    summary: str
    features: str
    scale: str
    native: StylizeConfig
    normalized: StylizeConfig


_DEFAULT = StylizeConfig()

# Gatys et al. 2016: the forms of Eqs. 1 to 5, layers of section 3, average pooling of section 2,
# noise as the start (section 3.3). The network is rescaled to a mean activation of 1, as in
# section 2, so the native scale is the normalised one. docs/presets.md has the weights' reasons.
_GATYS2016 = StylizeConfig(
    content_weight=1.0,
    style_weight=2.5e7,
    tv_weight=0.0,
    content_layers={"relu4_2": 1.0},
    content_loss="half_sum",
    style_loss="gatys",
    normalize_features=False,
    pooling="avg",
    optimizer="lbfgs",
    steps=300,
    scales=1,
    averaging=0.0,
    clamp=False,
    init="noise",
)

# Jin 2021: weights 1, 1000, 10, learning rate 0.1, 500 updates, TV of Eq. sum |dy| + |dx| read as
# half the sum of the means: as a sum it blurs the picture to bands. 300x450 from 150x225.
_JIN2021 = StylizeConfig(
    size=450,
    content_weight=1.0,
    style_weight=1000.0,
    tv_weight=10.0,
    content_layers={"relu4_4": 1.0},
    style_layers=_equal(1.0),
    style_loss="elements",
    tv_loss="half_mean",
    normalize_features=False,
    learning_rate=0.1,
    adam_b2=0.999,
    steps=500,
    steps_factor=1.0,
    scales=2,
    averaging=0.0,
    clamp=False,
    standardize=True,
)

# Huang et al. 2021: VGG-16, five layers, content to style 1e-2, Adam at 0.01, 500 updates from
# noise; layers, forms and no TV are our reading.
_LOCAL2021 = StylizeConfig(
    content_weight=1.0,
    style_weight=100.0,
    tv_weight=0.0,
    content_layers={"relu4_2": 1.0},
    content_loss="half_sum",
    style_loss="gatys",
    normalize_features=False,
    learning_rate=0.01,
    adam_b2=0.999,
    steps=500,
    scales=1,
    averaging=0.0,
    init="noise",
)

PRESETS: Mapping[str, Preset] = {
    "default": Preset(
        "the best-looking one: coarse to fine, Wasserstein distance, averaged iterates",
        "vgg19",
        "normalized",
        _DEFAULT,
        _DEFAULT,
    ),
    "gatys2016": Preset(
        "Gatys et al. 2016: Gram matrices, average pooling, L-BFGS from noise",
        "vgg19",
        "normalized",
        _GATYS2016,
        _GATYS2016,
    ),
    "jin2021": Preset(
        "Jin 2021: weights 1, 1000, 10; 500 updates of Adam at 0.1 at each of two sizes",
        "vgg19",
        "torchvision",
        _JIN2021,
        replace(_JIN2021, style_weight=1e5),
    ),
    "local2021": Preset(
        "Huang et al. 2021: VGG-16, content to style 1e-2, Adam from noise",
        "vgg16",
        "oxford",
        _LOCAL2021,
        replace(_LOCAL2021, style_weight=1e6),
    ),
}


def preset(name: str, *, scale: str, heads: Collection[str] = ()) -> StylizeConfig:
    """The settings of a preset for features of a scale.

    On features of a scale that the preset was not made for, the features are first divided by
    their mean activation, and the weights for normalised features apply; random features get more
    weight on content and variation.

    Args:
        name: a key of `PRESETS`.
        scale: one of `FEATURE_SCALES`, as `Weights.scale` says.
        heads: the layers in which a narrow network imitates a full one, as `Weights.heads` says.
            Others mean nothing outside that network: content is compared at the head of the same
            block instead. Empty for a full network, all of whose layers can be used.

    Raises:
        ValueError: there is no such preset or scale.
    """
    config = _preset(name, scale)
    if not heads:
        return config
    layers: dict[str, float] = {}
    for layer, weight in config.content_layers.items():
        head = f"{layer.partition('_')[0]}_1"
        used = head if layer not in heads and head in heads else layer
        layers[used] = layers.get(used, 0.0) + weight
    return replace(config, content_layers=layers)


def _preset(name: str, scale: str) -> StylizeConfig:
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ValueError(f"there is no preset {name!r}{did_you_mean(name, PRESETS)} ({known})")
    if scale not in FEATURE_SCALES:
        raise ValueError(f"scale must be one of {', '.join(FEATURE_SCALES)}; got {scale!r}")
    chosen = PRESETS[name]
    if scale == chosen.scale:
        return chosen.native
    if scale == "normalized":
        return chosen.normalized
    config = replace(chosen.normalized, normalize_features=True)
    if scale == "random":
        content, tv = config.content_weight * _RANDOM_CONTENT, config.tv_weight * _RANDOM_TV
        return replace(config, content_weight=content, tv_weight=tv)
    return config
