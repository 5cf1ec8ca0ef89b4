"""Perceptual losses, as networks that make pictures are trained with them.

A picture is compared with its content position by position, and with its style by statistics
(Johnson et al. 2016, arXiv 1603.08155): what `jaxstyle.objective` has for the pixels of one
picture, here for a batch in which each picture has a style of its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import features as vgg
from jaxstyle import images, losses, metrics, weights
from jaxstyle.config import PADDINGS, setting
from jaxstyle.errors import UserError
from jaxstyle.objective import STYLE_LOSSES, total_variation
from jaxstyle.training import sources, updates

_LAYERS = re.compile(r"(relu|conv|pool)\d[\d_]*(\+(relu|conv|pool)\d[\d_]*)*")


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    """Settings of a perceptual loss.

    `features` is what `weights.load` takes, or several with commas, each of which may say which
    layers are its own: `a.safetensors:relu1_1+relu2_1,b.safetensors:relu3_1+relu4_1`. A layer that
    several have is the first one's.
    """

    features: str = setting("", "networks to compare with; the one that comes along by default")
    padding: str = setting(
        "", "padding of those networks; their own by default", choices=("", *PADDINGS)
    )
    content_weight: float = setting(1.0, "weight of the content loss", least=0)
    style_weight: float = setting(4.0, "weight of the style loss", least=0)
    tv_weight: float = setting(0.0, "weight of the total variation", least=0)
    structure_weight: float = setting(
        0.0, "weight of what is missing to a structural similarity of 1 to the content", least=0
    )
    content_layers: Mapping[str, float] = setting(
        {"relu3_1": 0.5, "relu4_1": 0.5}, "layers that keep the content, and their weights"
    )
    style_layers: Mapping[str, float] = setting(
        dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), 0.2),
        "layers that give the style, and their weights",
    )
    content_loss: str = setting("mean", "form of the content loss", choices=("mean", "half_sum"))
    style_loss: str = setting("positions", "form of the style loss", choices=tuple(STYLE_LOSSES))
    tv_loss: str = setting(
        "squared_mean", "form of the total variation", choices=("sum", "half_mean", "squared_mean")
    )
    normalize_features: bool = setting(
        True, "divide each layer by its style's mean activation, so that weights fit any features"
    )
    relative: bool = setting(
        False, "divide each distance by that of features of zero, so that all paintings weigh alike"
    )


class Network(NamedTuple):
    """A perceptual network, as it is used while training.

    Attributes:
        params: as `weights.load` gives them.
        prepared: the same as `features.prepare` does, for the CPU.
        padding: of its convolutions.
        layers: those that it is asked for; empty for all that it has.
    """

    params: dict[str, Any]
    prepared: dict[str, Any]
    padding: str
    layers: tuple[str, ...]


def load_networks(config: PerceptualConfig) -> tuple[Network, ...]:
    """The networks that the settings name.

    Raises:
        UserError: one of them cannot be read, or none has a layer that is needed.
    """
    networks = []
    for part in (config.features or weights.default_spec()).split(","):
        name, _, layers = part.strip().rpartition(":")
        if not name or not _LAYERS.fullmatch(layers):  # a colon may belong to a path
            name, layers = part.strip(), ""
        found = weights.load(name)
        chosen = tuple(layers.split("+")) if layers else ()
        padding = config.padding or found.padding
        network = Network(found.params, vgg.prepare(found.params, padding=padding), padding, chosen)
        try:
            vgg.check_layers(network.params, chosen)
        except ValueError as error:
            raise UserError(f"model.features {part.strip()}: {error}") from error
        networks.append(network)
    wanted = {*config.content_layers, *config.style_layers}
    lacking = wanted - {layer for network in networks for layer in _own_layers(network)}
    for layer in sorted(lacking):
        if len(networks) == 1:
            try:
                vgg.check_layers(networks[0].params, [layer])
            except ValueError as error:
                raise UserError(f"model.features: {error}") from error
        raise UserError(f"model.features: no network gives {layer}")
    return tuple(networks)


def without_folders(spec: str) -> str:
    """The setting `features` with the names of files only."""
    return ",".join(part.rsplit("/", 1)[-1].strip() for part in spec.split(","))


def _own_layers(network: Network) -> Collection[str]:
    return network.layers or vgg.layer_names(network.params)


def extract(
    networks: Sequence[Network],
    pictures: Array,
    layers: Collection[str],
    *,
    dtype: Any = jnp.float32,
    prepared: bool = True,
) -> dict[str, Array]:
    """Activations, each from the first network that gives the layer.

    Args:
        networks: as `load_networks` gives them.
        pictures: `[batch, height, width, 3]` in [0, 1].
        layers: the names of the layers.
        dtype: what to compute in.
        prepared: with transformed kernels, which take longer to compile and less to run.

    Returns:
        `{layer: [batch, h, w, channels]}`.
    """
    found: dict[str, Array] = {}
    for network in networks:
        own = [name for name in layers if name in _own_layers(network) and name not in found]
        if own:
            # Winograd is for float32: its transforms lose what bfloat16 has of digits.
            whole = jnp.dtype(dtype) == jnp.float32
            params = network.prepared if prepared and whole else network.params
            params = params if whole else updates.cast(params, dtype)
            found |= vgg.vgg(params, pictures.astype(dtype), own, padding=network.padding)
    return found


# --- styles --------------------------------------------------------------------------------------


class Style(NamedTuple):
    """A painting: its name and its pixels, float32 `[height, width, 3]` in [0, 1]."""

    name: str
    pixels: np.ndarray


def read_styles(spec: str, size: int) -> list[Style]:
    """The paintings that a setting names, with the longer side reduced to `size` pixels.

    Args:
        spec: files, or folders of them, separated by commas.
        size: longer side; 0 to leave them as they are. None is enlarged.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    paths = sources.find_pictures(spec)
    styles = []
    for name, path in zip(_names([path.stem for path in paths]), paths, strict=True):
        try:
            pixels = images.decode(path.read_bytes(), name=str(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error}") from error
        height, width = pixels.shape[:2]
        longer = min(size, max(height, width)) if size else max(height, width)
        picture = pixels.astype(np.float32) / 255
        styles.append(
            Style(name, images.resize(picture, images.fitted_size(height, width, longer)))
        )
    return styles


def style_names(spec: str) -> list[str]:
    """The names of the styles that `read_styles` would read: those of their files.

    Raises:
        UserError: a file or folder is missing.
    """
    return _names([path.stem for path in sources.find_pictures(spec)])


def _names(stems: Sequence[str]) -> list[str]:
    """Stems, those that come again with a number."""
    names: list[str] = []
    for stem in stems:
        candidates = (stem, *(f"{stem}-{i}" for i in range(2, len(stems) + 2)))
        names.append(next(name for name in candidates if name not in names))
    return names


class Targets(NamedTuple):
    """What the styles ask for, made once.

    Attributes:
        style: `{layer: target}`, the targets of the style loss with an axis of the styles first.
        size: `{layer: [styles]}`, mean activation of each layer on each style, or 1.
    """

    style: dict[str, Any]
    size: dict[str, Array]


def make_targets(
    networks: Sequence[Network], styles: Sequence[Style], config: PerceptualConfig
) -> Targets:
    """Targets of the loss, out of paintings of any sizes."""

    @jax.jit
    def compute(pixels: Array) -> Targets:
        # Every size of painting is a program of its own, run once: kernels as they are.
        return targets_of(networks, pixels[None], config, prepared=False)

    return jax.tree.map(
        lambda *rows: jnp.concatenate(rows), *[compute(jnp.asarray(x.pixels)) for x in styles]
    )


def targets_of(
    networks: Sequence[Network],
    pictures: Array,
    config: PerceptualConfig,
    *,
    dtype: Any = jnp.float32,
    prepared: bool = True,
) -> Targets:
    """Targets of the loss, one for each painting of a batch.

    Args:
        networks: what to compare in.
        pictures: paintings, `[styles, height, width, 3]`.
        config: settings.
        dtype: what the networks compute in.
        prepared: as for `extract`.
    """
    loss = STYLE_LOSSES[config.style_loss]
    layers = list(dict.fromkeys([*config.style_layers, *config.content_layers]))
    found = extract(networks, pictures, layers, dtype=dtype, prepared=prepared)
    style = {name: loss.target(loss.statistics(found[name])) for name in config.style_layers}
    ones = jnp.ones(pictures.shape[0], jnp.float32)
    size = {
        name: jnp.maximum(jnp.mean(jnp.abs(value.astype(jnp.float32)), (1, 2, 3)), 1e-6)
        if config.normalize_features
        else ones
        for name, value in found.items()
    }
    return Targets(style, size)


# --- the loss ------------------------------------------------------------------------------------


class Terms(NamedTuple):
    """The weighted terms of the loss, each `[batch]`, and the statistics of the made pictures."""

    content: Array
    style: Array
    tv: Array
    structure: Array
    statistics: dict[str, Any]

    @property
    def total(self) -> Array:
        """The loss of each picture, `[batch]`."""
        return self.content + self.style + self.tv + self.structure

    @property
    def means(self) -> dict[str, Array]:
        """The terms over the batch, scalars."""
        return {name: jnp.mean(getattr(self, name)) for name in TERMS}


TERMS = ("content", "style", "tv", "structure")


def terms(
    networks: Sequence[Network],
    made: Array,
    content: Array,
    targets: Targets,
    index: Array,
    config: PerceptualConfig,
    *,
    wanted: Mapping[str, Array] | None = None,
    dtype: Any = jnp.float32,
) -> Terms:
    """The loss of pictures that were made, each out of a content and in a style.

    Args:
        networks: what to compare in.
        made: `[batch, height, width, 3]`.
        content: what they were made of, of the same shape.
        targets: of the styles.
        index: `[batch]`, int, the number of each picture's style.
        config: settings.
        wanted: the features that the content loss compares with, `{layer: [batch, h, w, c]}`; by
            default those of `content`.
        dtype: what the networks compute in.
    """
    loss = STYLE_LOSSES[config.style_loss]
    layers = list(dict.fromkeys([*config.style_layers, *config.content_layers]))
    found = extract(networks, made, layers, dtype=dtype)
    if wanted is None:
        wanted = extract(networks, content, list(config.content_layers), dtype=dtype)
    statistics = {name: loss.statistics(found[name]) for name in config.style_layers}
    zero = jnp.zeros(made.shape[0], jnp.float32)
    content_term, style_term, tv, structure = zero, zero, zero, zero
    compare = functools.partial(losses.content_loss, form=config.content_loss)
    for name, share in config.content_layers.items():
        size = targets.size[name][index] ** 2
        distance = _distance(compare, found[name], wanted[name], size, config.relative)
        content_term += config.content_weight * share * distance
    for name, share in config.style_layers.items():
        target = jax.tree.map(lambda rows: rows[index], targets.style[name])
        size = targets.size[name][index] ** loss.degree
        distance = _distance(loss.distance, statistics[name], target, size, config.relative)
        style_term += config.style_weight * share * distance
    if config.tv_weight:
        tv = config.tv_weight * total_variation(config.tv_loss)(made)
    if config.structure_weight:
        structure = config.structure_weight * (1 - metrics.ssim(made, content))
    return Terms(content_term, style_term, tv, structure, statistics)


def _distance(
    compare: Callable[[Any, Any], Array], found: Any, target: Any, size: Array, relative: bool
) -> Array:
    """The distance of features that were divided by a size, or relative to the target's."""
    distance = compare(found, target)
    if not relative:
        return distance / size
    whole = compare(jax.tree.map(jnp.zeros_like, found), target)
    return distance / jnp.maximum(whole, 1e-6 * size)


def nearest_style(
    statistics: Mapping[str, Any], targets: Targets, config: PerceptualConfig
) -> Array:
    """Which of the styles pictures look most like by the style loss, `[batch]`, int.

    Args:
        statistics: of the pictures, as `Terms` has them.
        targets: of the styles to choose from.
        config: settings.
    """
    loss = STYLE_LOSSES[config.style_loss]
    total: Any = 0.0
    for name, share in config.style_layers.items():

        def distance(target: Any, found: Any = statistics[name]) -> Array:
            return loss.distance(found, jax.tree.map(lambda x: x[None], target))

        # One scale for all styles, or those of large activations would be near to everything.
        scale = jnp.mean(targets.size[name]) ** loss.degree
        total = total + share * jax.vmap(distance)(targets.style[name]) / scale
    return jnp.argmin(total, axis=0)
