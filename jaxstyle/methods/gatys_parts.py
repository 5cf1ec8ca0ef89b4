"""What an update of the pixels is put together from, where none computes the whole picture.

Parts of a picture, tiles or strips, give sums that add up over the picture, and their share in the
local terms; from the sums come the style's statistics and their term. `gatys_tiled` adds up over
tiles, one after the other, and `gatys_sharded` over devices.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxstyle import features as vgg
from jaxstyle import losses
from jaxstyle.config import StylizeConfig
from jaxstyle.methods import gatys_updates
from jaxstyle.methods.gatys_layout import (
    Sizes,
    Tile,
    block_of,
    lay,
    layers_of,
    reach,
)
from jaxstyle.objective import (
    STYLE_LOSSES,
    LossWeights,
    Sums,
    extract,
    to_pictures,
    united,
    variation_of_part,
)
from jaxstyle.rows import COPIED, SPREAD, Layout, Strips
from jaxstyle.weights import Weights

_ALONE = Layout(None)


class Network(NamedTuple):
    """What tiles are computed with.

    Attributes:
        params: the parameters, or what `features.prepare` makes of them.
        padding: of the network.
        config: settings, without those that the compiled functions do not read.
        mesh: devices that share the rows of each tile; None for one that has all of them.
    """

    params: vgg.Parameters
    padding: str
    config: StylizeConfig
    mesh: Mesh | None = None

    @classmethod
    def of(cls, features: Weights, config: StylizeConfig, mesh: Mesh | None = None) -> Network:
        """That of a run's features and settings."""
        params = gatys_updates.prepared(features)
        if mesh is not None:
            params = Layout(mesh).copy(params)
        return cls(params, features.padding, gatys_updates.program(config), mesh)

    @property
    def grain(self) -> int:
        """How many pixels a position of the deepest features stands for, along a side."""
        return 2 ** max(map(block_of, layers_of(self.config)))

    def tiles(self, size: Sizes, side: int) -> list[Tile]:
        """The tiles of a picture, of that side without their margins."""
        return lay(size, side, reach(self.params, layers_of(self.config)), self.grain)

    def layout(self, height: int) -> Layout:
        """How a tile of that height is computed."""
        if self.mesh is None or height < self.grain:
            return Layout(self.mesh)
        return Strips(self.mesh, height, self.grain)


def compiled_here(function: Any) -> Any:
    """Compiled for the platform that is computed on."""
    static = {"config", "padding", "layout"} & {*inspect.signature(function).parameters}

    @functools.cache
    def compiled(platform: str) -> Any:
        options = gatys_updates.compiler_options(platform)
        return jax.jit(function, static_argnames=static, compiler_options=options)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        return compiled(gatys_updates.platform())(*arguments, **options)

    return call


def _counts(shape: Sequence[int], bounds: Array, stride: int) -> Array:
    """Which positions of features `[1, h, w, c]` count in a tile, `[1, h, w, 1]`."""
    along = [
        (first <= jnp.arange(length)) & (jnp.arange(length) < last)
        for length, (first, last) in zip(shape[1:3], bounds // stride, strict=True)
    ]
    return (along[0][:, None] & along[1]).astype(jnp.float32)[None, :, :, None]


def positions(size: Sizes, layer: str) -> int:
    """How many positions a layer of the whole picture has."""
    return math.prod(max(length // 2 ** block_of(layer), 1) for length in size)


class Whole(NamedTuple):
    """What tiles have to know of the whole picture; numbers, so that one program serves any size.

    Attributes:
        positions: of the layers, `{layer: scalar}`.
        size: height and width, `[2]`.
    """

    positions: dict[str, Array]
    size: Array

    @classmethod
    def of(cls, size: Sizes, config: StylizeConfig) -> Whole:
        """That of a picture of that height and width."""
        numbers = {name: jnp.float32(positions(size, name)) for name in layers_of(config)}
        return cls(numbers, jnp.array(size, jnp.float32))


def _mapped(given: tuple[Any, ...], made: Any) -> Callable[..., Any]:
    """A function that is written for what a device has, as one of the whole (`Layout.map`).

    Args:
        given: `SPREAD` or `COPIED`, for each of its arguments with a place.
        made: the same for each of its results.
    """

    def mapped(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def call(*arguments: Any, layout: Layout = _ALONE, **options: Any) -> Any:
            part = functools.partial(function, layout=layout, **options)
            return layout.map(part, given, made)(*arguments)

        return call

    return mapped


@compiled_here
@_mapped((COPIED, SPREAD, COPIED), (SPREAD, COPIED))
def describe(
    params: vgg.Parameters,
    part: Array,
    bounds: Array,
    *,
    config: StylizeConfig,
    padding: str,
    layout: Layout = _ALONE,
) -> tuple[dict[str, Array], tuple[dict[str, Sums], dict[str, Array]]]:
    """What targets are made of.

    Args:
        params: the network.
        part: the pixels of a tile.
        bounds: which of them count, as `Tile.bounds` gives it.
        config: settings.
        padding: of the network.
        layout: of the tile.

    Returns:
        Its features in the content's layers; and the sums of the style loss, a part a device, and
        of the mean size of features.
    """
    found, counts = _extract(params, part, bounds, config, padding, layout)
    sums = _sums(found, counts, dict.fromkeys(config.style_layers), config, layout)
    sizes = {
        name: jnp.sum(jnp.mean(jnp.abs(x), axis=-1, keepdims=True) * counts[name])
        for name, x in found.items()
    }
    return {name: found[name] for name in config.content_layers}, layout.add_up((sums, sizes))


def _sums(
    found: Mapping[str, Array],
    counts: Mapping[str, Array],
    centers: Mapping[str, Any],
    config: StylizeConfig,
    layout: Layout,
) -> dict[str, Sums]:
    """Those of the style's layers, of what a device has: added up, they have a part a device."""
    loss = STYLE_LOSSES[config.style_loss]
    made = {
        name: loss.sums(found[name], counts[name], centers[name]) for name in config.style_layers
    }
    return {
        name: Sums(layout.apart(sums.number), layout.apart(sums.mean), sums.second)
        for name, sums in made.items()
    }


def _extract(
    params: vgg.Parameters,
    part: Array,
    bounds: Array,
    config: StylizeConfig,
    padding: str,
    layout: Layout,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Features of what a device has of a tile, and which positions count."""
    found = extract(params, part, config, padding, conv_fn=layout.conv2d)
    here = layout.bounds(bounds)
    return found, {n: _counts(x.shape, here, 2 ** block_of(n)) for n, x in found.items()}


@_mapped((COPIED, SPREAD, COPIED, SPREAD, COPIED, COPIED, COPIED), COPIED)
def parts(
    params: vgg.Parameters,
    part: Array,
    bounds: Array,
    content: Mapping[str, Array],
    centers: Mapping[str, Array] | None,
    weights: LossWeights,
    whole: Whole,
    *,
    config: StylizeConfig,
    padding: str,
    layout: Layout = _ALONE,
) -> tuple[dict[str, Sums], dict[str, Array]]:
    """The sums of a tile, a part a device, and its share in the local terms.

    Args:
        params: the network.
        part: the pixels of the tile, as `to_variables` has them.
        bounds: which of them count, as `Tile.bounds` gives it.
        content: the content's features in the tile.
        centers: of the sums, `[channels]`; None for the mean of what each device has.
        weights: of the terms.
        whole: the picture that the tile is of.
        config: settings.
        padding: of the network.
        layout: of the tile.
    """
    pictures = to_pictures(part, config)
    found, counts = _extract(params, pictures, bounds, config, padding, layout)
    around = dict.fromkeys(config.style_layers) if centers is None else centers
    sums = _sums(found, counts, around, config, layout)
    total = jnp.zeros(())
    for name, weight in weights.content.items():
        pair = found[name] * counts[name], content[name] * counts[name]
        share = 1.0
        if config.content_loss == "mean":
            share = math.prod(found[name].shape[1:3]) / whole.positions[name]
        total += share * weight * jnp.sum(losses.content_loss(*pair, form=config.content_loss))
    # The row of a neighbour is compared with, but counts there.
    pixels, counted = layout.with_next(part), _counts(part.shape, layout.bounds(bounds), 1)
    counted = jnp.pad(counted, ((0, 0), (0, pixels.shape[1] - part.shape[1]), (0, 0), (0, 0)))
    variation = variation_of_part(config.tv_loss, pixels, counted, whole.size)
    return layout.add_up((sums, {"content": total, "tv": weights.tv * jnp.sum(variation)}))


measure = compiled_here(parts)


@compiled_here
def pull(
    params: Any,
    part: Array,
    bounds: Array,
    content: Any,
    centers: Any,
    weights: LossWeights,
    whole: Whole,
    slopes: Mapping[str, tuple[Array, Array]],
    *,
    config: StylizeConfig,
    padding: str,
    layout: Layout = _ALONE,
) -> Array:
    """The gradient of the whole loss with respect to a tile, as far as its positions count.

    Args:
        params: the network.
        part: the pixels of the tile, as `to_variables` has them.
        bounds: which of them count, as `Tile.bounds` gives it.
        content: the content's features in the tile.
        centers: the mean of the whole, `[channels]`.
        weights: of the terms.
        whole: the picture that the tile is of.
        slopes: by each layer's mean and sums around it, as `slope` gives them.
        config: settings.
        padding: of the network.
        layout: of the tile.
    """

    def share(pixels: Array) -> Array:
        sums, local = parts(
            params,
            pixels,
            bounds,
            content,
            centers,
            weights,
            whole,
            config=config,
            padding=padding,
            layout=layout,
        )
        style = jnp.zeros(())
        for name, (number, mean, second) in sums.items():
            by_mean, by_second = slopes[name]
            # The mean of the whole moves by the part's, as far as that is a share of it.
            style += jnp.sum(by_mean * mean * (number / whole.positions[name]))
            style += jnp.vdot(by_second, second)
        return local["content"] + local["tv"] + style

    return jax.grad(share)(part)


def style_term(
    sums: Mapping[str, Sums],
    numbers: Mapping[str, Any],
    targets: Mapping[str, Any],
    weights: Mapping[str, Array],
    *,
    config: StylizeConfig,
) -> Array:
    """The style term of a whole picture, a scalar.

    Args:
        sums: of the whole, in one part.
        numbers: of positions in each layer.
        targets: of the style loss.
        weights: of the layers.
        config: settings.
    """
    loss = STYLE_LOSSES[config.style_loss]
    total = jnp.zeros(())
    for name, weight in weights.items():
        statistics = loss.finish(sums[name], numbers[name])
        total += weight * jnp.sum(loss.distance(statistics, targets[name]))
    return total


@compiled_here
def slope(
    sums: Mapping[str, Sums],
    numbers: Mapping[str, Any],
    targets: Mapping[str, Any],
    weights: Mapping[str, Array],
    *,
    config: StylizeConfig,
) -> tuple[Array, dict[str, tuple[Array, Array]]]:
    """`style_term`, and its gradients with respect to each layer's mean and sums around it."""

    def term(moments: dict[str, tuple[Array, Array]]) -> Array:
        given = {name: Sums(sums[name].number, *pair) for name, pair in moments.items()}
        return style_term(given, numbers, targets, weights, config=config)

    return jax.value_and_grad(term)({name: (s.mean, s.second) for name, s in sums.items()})


class Totals:
    """Sums over the parts of a picture, in float64.

    Attributes:
        value: the sums of the style's layers, in one part around the mean; and a tree of numbers.
    """

    value: tuple[dict[str, Sums], dict[str, Any]]

    def __init__(self) -> None:
        self.value = {}, {}

    def add(self, sums: Mapping[str, Sums], numbers: Mapping[str, Any]) -> None:
        """More parts.

        Args:
            sums: of the style's layers, around the mean of each part.
            numbers: that are simply added.
        """
        parts, values = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), (dict(sums), dict(numbers))
        )
        before, others = self.value
        if before:
            parts = {name: _with(before[name], each) for name, each in parts.items()}
            values = {name: others[name] + number for name, number in values.items()}
        self.value = {name: united(each) for name, each in parts.items()}, values


def _with(one: Sums, other: Sums) -> Sums:
    number, mean = (np.concatenate(pair) for pair in zip(one[:2], other[:2], strict=True))
    return Sums(number, mean, one.second + other.second)


def style_targets_of(
    found: Sequence[tuple[Sizes, Mapping[str, Sums], Mapping[str, Any]]],
    style_weights: Sequence[float],
    config: StylizeConfig,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Targets of the style, and the size of features, as `Targets` has them.

    Args:
        found: height and width of each style, its sums in float64, and those of the mean size of
            its features, as `Totals` has both.
        style_weights: one a style; they sum to one.
        config: settings.
    """
    loss = STYLE_LOSSES[config.style_loss]
    targets = {}
    for name in config.style_layers:
        statistics = [
            loss.finish(single(sums[name]), positions(area, name)) for area, sums, _ in found
        ]
        targets[name] = loss.target(loss.blend(statistics, style_weights))
    if not config.normalize_features:
        return targets, {name: jnp.ones(()) for name in layers_of(config)}
    size = {}
    for name in layers_of(config):
        means = [float(sizes[name]) / positions(area, name) for area, _, sizes in found]
        mean = sum(w * m for w, m in zip(style_weights, means, strict=True))
        size[name] = jnp.float32(max(mean, 1e-6))
    return targets, size


def single(tree: Any) -> Any:
    """In float32, on the device."""
    return jax.tree.map(jnp.float32, tree)
