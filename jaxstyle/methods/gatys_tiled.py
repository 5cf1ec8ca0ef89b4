"""Pixel optimisation of pictures that are too large to be computed whole, with the same gradient.

The objective (`jaxstyle.objective`) needs of a picture the sums that its statistics are made of,
and terms that are local. So an update goes over the tiles of the picture twice. The first time, the
sums of all tiles are added up, in float64; the gradient of the loss with respect to them is that of
the whole picture. The second time, each tile pulls it back to its pixels, and the gradients of
overlapping tiles are added.

Tiles begin where all poolings do, so that a tile's cells are the picture's. Each position of the
features counts in one tile; around it, the tile has as many pixels more as the deepest features
see. The picture, the optimiser's state and the content's features are NumPy arrays in the host's
memory; the device holds a tile.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import features as vgg
from jaxstyle import losses, tiling
from jaxstyle.config import StylizeConfig
from jaxstyle.objective import (
    STYLE_LOSSES,
    LossWeights,
    Sums,
    Targets,
    extract,
    loss_weights,
    to_pictures,
    to_variables,
    variation_of_part,
)
from jaxstyle.tiling import Span
from jaxstyle.weights import Weights

# Of tiles without their margins, where there is memory for them; larger ones gain little.
SIDES = (1024, 768, 512, 384, 256, 128, 64)
# Bytes that an update takes to a byte of the features it computes, as measured on CPUs.
_BYTES_A_BYTE = 3.6
_STRIP_PIXELS = 2**20  # of the picture, that the optimiser updates at a time
_END = 2**30  # beyond any tile

Sizes = tuple[int, int]


# --- where the tiles lie -------------------------------------------------------------------------


class Tile(NamedTuple):
    """A tile of a picture, in pixels."""

    row: Span
    column: Span

    @property
    def seen(self) -> tuple[slice, slice]:
        """What is computed of the picture."""
        return slice(self.row.start, self.row.stop), slice(self.column.start, self.column.stop)

    def seen_at(self, stride: int) -> tuple[slice, slice]:
        """The same in features of that many pixels to a position."""
        return tuple(  # pyright: ignore[reportReturnType]
            slice(span.start // stride, max(span.stop // stride, span.start // stride + 1))
            for span in self
        )

    def bounds(self, size: Sizes) -> np.ndarray:
        """What counts, `[[first row, last row], [first column, last column]]`, from its start."""
        return np.array(
            [
                (span.first - span.start, _END if span.last == length else span.last - span.start)
                for span, length in zip(self, size, strict=True)
            ],
            np.int32,
        )


def block_of(layer: str) -> int:
    """How many poolings come before a layer."""
    match = re.match(r"(pool)?\D*(\d)", layer)
    assert match
    return int(match[2]) - (0 if match[1] else 1)


def reach(params: vgg.Parameters, layers: Sequence[str]) -> int:
    """How many pixels away the deepest of some layers sees, on the side where that is more."""
    wanted, found, stride, deepest = set(layers), 0, 1, 0
    for name in vgg.layer_names(params):
        if name.startswith("conv"):
            found += stride
        elif name.startswith("pool"):
            # Cells begin at even places, so a pooling sees one more on the far side alone.
            found, stride = found + stride, 2 * stride
        if name in wanted:
            deepest = found
    return deepest


def lay(size: Sizes, side: int, margin: int, grain: int) -> list[Tile]:
    """The tiles of a picture, all of one size.

    Args:
        size: height and width of the picture.
        side: of the part of a tile that counts, rounded up to a multiple of the grain.
        margin: around that, likewise.
        grain: what tiles begin at multiples of.
    """

    def along(length: int) -> list[Span]:
        cells, rest = divmod(length, grain)
        if not cells:
            return [Span(0, length, 0, length)]
        spans = [
            s.times(grain) for s in tiling.spans(cells, -(-side // grain), -(-margin // grain))
        ]
        # A rest that fills no cell is seen by all tiles, so that they are of one size.
        last = spans[-1]
        spans[-1] = last._replace(last=last.last + rest)
        return [span._replace(stop=span.stop + rest) for span in spans]

    return list(itertools.starmap(Tile, itertools.product(*map(along, size))))


# --- memory --------------------------------------------------------------------------------------


def bytes_per_pixel(params: vgg.Parameters, layers: Sequence[str]) -> float:
    """What an update takes for each pixel that is computed at a time, about."""
    names = vgg.layer_names(params)
    last = max(names.index(layer) for layer in layers)
    channels = 0.0
    for name in names[: last + 1]:
        if not name.startswith("conv"):
            continue
        heads = [f"{name}_to_vgg"] if name.replace("conv", "relu") in layers else []
        biases = [f"{each}/bias" for each in (name, *heads)]
        widths = [params[bias].shape[0] for bias in biases if bias in params]
        channels += sum(widths) / 4 ** block_of(name)
    return 4 * _BYTES_A_BYTE * channels


class Cutting(NamedTuple):
    """How pictures may be cut into tiles.

    Attributes:
        tile: a side in pixels, None, or "auto" for tiles where the whole takes too much memory.
        memory: bytes that an update may take; by default half of what is available.
    """

    tile: int | str | None = "auto"
    memory: int | None = None

    def of(self, params: vgg.Parameters, config: StylizeConfig, size: Sizes) -> int | None:
        """The side of the tiles for an update of a picture, or None to compute it whole."""
        return choose(self, params, [*{**config.content_layers, **config.style_layers}], size)


def choose(
    cutting: Cutting, params: vgg.Parameters, layers: Sequence[str], size: Sizes
) -> int | None:
    """The side of the tiles for an update of a picture, or None to compute it whole.

    Args:
        cutting: what is wanted.
        params: of the network.
        layers: those that the objective needs.
        size: height and width of the picture.

    Raises:
        ValueError: `cutting.tile` is none of what it may be.
    """
    each, margin = bytes_per_pixel(params, layers), reach(params, layers)
    needed, memory = int(each * math.prod(size)), cutting.memory
    if cutting.tile == "auto" and memory is None:
        memory = tiling.available_memory() // 2

    def fits(side: int) -> bool:
        return memory is None or each * (side + 2 * margin) ** 2 <= memory

    side = next(filter(fits, SIDES), SIDES[-1])
    found = tiling.choose(cutting.tile, needed=needed, memory=memory, side=side)
    # Tiles that are no smaller than the picture are the picture.
    return None if found is None or found >= max(size) else found


# --- the compiled parts --------------------------------------------------------------------------


class Network(NamedTuple):
    """What tiles are computed with.

    Attributes:
        params: the parameters, or what `features.prepare` makes of them.
        padding: of the network.
        config: settings, without those that the compiled functions do not read.
    """

    params: vgg.Parameters
    padding: str
    config: StylizeConfig

    @property
    def layers(self) -> list[str]:
        """Those that the objective needs."""
        return [*{**self.config.content_layers, **self.config.style_layers}]

    @property
    def grain(self) -> int:
        """What tiles begin at multiples of."""
        return 2 ** max(map(block_of, self.layers))

    def tiles(self, size: Sizes, side: int) -> list[Tile]:
        """The tiles of a picture, of that side without their margins."""
        return lay(size, side, reach(self.params, self.layers), self.grain)


def _jit(function: Any) -> Any:
    """Compiled; on a CPU without the slower of LLVM's optimisations (see `gatys.jitted`)."""
    static = {"config", "padding", "size"} & {*inspect.signature(function).parameters}

    @functools.cache
    def compiled(platform: str) -> Any:
        options = {"xla_backend_optimization_level": 1} if platform == "cpu" else None
        return jax.jit(function, static_argnames=static, compiler_options=options)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        platform = next(iter(jnp.zeros(()).devices())).platform
        return compiled(platform)(*arguments, **options)

    return call


def _counts(shape: Sequence[int], bounds: Array, stride: int) -> Array:
    """Which positions of features `[1, h, w, c]` count in a tile, `[1, h, w, 1]`."""
    along = [
        (first <= jnp.arange(length)) & (jnp.arange(length) < last)
        for length, (first, last) in zip(shape[1:3], bounds // stride, strict=True)
    ]
    return (along[0][:, None] & along[1]).astype(jnp.float32)[None, :, :, None]


def _positions(size: Sizes, layer: str) -> int:
    """How many positions a layer of the whole picture has."""
    return math.prod(max(length // 2 ** block_of(layer), 1) for length in size)


@_jit
def _describe(
    params: vgg.Parameters, part: Array, bounds: Array, *, config: StylizeConfig, padding: str
) -> tuple[dict[str, Array], dict[str, Sums], dict[str, Array]]:
    """Features of a tile; the sums of the style loss around 0; sums of the features' sizes."""
    found = extract(params, part, config, padding)
    loss = STYLE_LOSSES[config.style_loss]
    counts = {name: _counts(x.shape, bounds, 2 ** block_of(name)) for name, x in found.items()}
    sums = {
        name: loss.sums(found[name], counts[name], jnp.zeros(found[name].shape[-1]))
        for name in config.style_layers
    }
    return found, sums, {name: jnp.sum(jnp.abs(x) * counts[name]) for name, x in found.items()}


def _parts(
    params: vgg.Parameters,
    part: Array,
    bounds: Array,
    content: Mapping[str, Array],
    centers: Mapping[str, Array],
    weights: LossWeights,
    config: StylizeConfig,
    padding: str,
    size: Sizes,
) -> tuple[dict[str, Sums], dict[str, Array]]:
    """The sums of a tile around centres, and its share in the local terms."""
    found = extract(params, to_pictures(part, config), config, padding)
    loss = STYLE_LOSSES[config.style_loss]
    counts = {name: _counts(x.shape, bounds, 2 ** block_of(name)) for name, x in found.items()}
    sums = {
        name: loss.sums(found[name], counts[name], centers[name]) for name in config.style_layers
    }
    total = jnp.zeros(())
    for name, weight in weights.content.items():
        pair = found[name] * counts[name], content[name] * counts[name]
        share = 1.0
        if config.content_loss == "mean":
            share = math.prod(found[name].shape[1:3]) / _positions(size, name)
        total += share * weight * jnp.sum(losses.content_loss(*pair, form=config.content_loss))
    pixels = _counts(part.shape, bounds, 1)
    variation = variation_of_part(config.tv_loss, part, pixels, size)
    return sums, {"content": total, "tv": weights.tv * jnp.sum(variation)}


@_jit
def _measure(
    params: Any,
    part: Array,
    bounds: Array,
    content: Any,
    centers: Any,
    weights: LossWeights,
    *,
    config: StylizeConfig,
    padding: str,
    size: Sizes,
) -> tuple[dict[str, Sums], dict[str, Array]]:
    return _parts(params, part, bounds, content, centers, weights, config, padding, size)


@_jit
def _pull(
    params: Any,
    part: Array,
    bounds: Array,
    content: Any,
    centers: Any,
    weights: LossWeights,
    slopes: dict[str, Sums],
    *,
    config: StylizeConfig,
    padding: str,
    size: Sizes,
) -> Array:
    """The gradient of the whole loss with respect to a tile, as far as its positions count."""

    def share(pixels: Array) -> Array:
        sums, local = _parts(
            params, pixels, bounds, content, centers, weights, config, padding, size
        )
        products = jax.tree.map(jnp.vdot, slopes, sums)
        return local["content"] + local["tv"] + sum(jax.tree.leaves(products))

    return jax.grad(share)(part)


@_jit
def _slope(
    sums: dict[str, Sums],
    numbers: dict[str, Array],
    centers: dict[str, Array],
    targets: dict[str, Any],
    weights: dict[str, Array],
    *,
    config: StylizeConfig,
) -> tuple[Array, dict[str, Sums]]:
    """The style term of the whole, and its gradient with respect to the sums."""
    loss = STYLE_LOSSES[config.style_loss]

    def term(given: dict[str, Sums]) -> Array:
        return sum(  # pyright: ignore[reportReturnType]
            weight
            * jnp.sum(
                loss.distance(loss.finish(given[name], numbers[name], centers[name]), targets[name])
            )
            for name, weight in weights.items()
        )

    return jax.value_and_grad(term)(sums)


# --- targets -------------------------------------------------------------------------------------


class _Totals:
    """Sums over tiles, in float64."""

    def __init__(self) -> None:
        self.value: Any = None

    def add(self, part: Any) -> None:
        part = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part)
        self.value = part if self.value is None else jax.tree.map(np.add, self.value, part)


def make_targets(
    network: Network,
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    style_weights: Sequence[float],
    side: int,
) -> Targets:
    """The targets of `objective.make_targets`; the content's features are NumPy arrays.

    Args:
        network: see there.
        content: `[1, height, width, 3]`.
        styles: pictures `[1, h, w, 3]`, each of its own size.
        style_weights: one a style; they sum to one.
        side: of the tiles.
    """
    config = network.config
    loss = STYLE_LOSSES[config.style_loss]
    kept: dict[str, np.ndarray] = {}
    _described(network, content, side, keep=kept)
    statistics: list[dict[str, Any]] = []
    means: list[dict[str, Any]] = []
    for style in styles:
        sums, sizes = _described(network, style, side)
        area: Sizes = style.shape[1:3]
        numbers = {name: _positions(area, name) for name in sizes}
        statistics.append({})
        for name, value in sums.items():
            center, value = _recentered(value, numbers[name], np.zeros(value.first.shape[1]), loss)
            statistics[-1][name] = loss.finish(_single(value), numbers[name], jnp.float32(center))
        means.append(
            {
                name: total / (numbers[name] * kept_width(network, name))
                for name, total in sizes.items()
            }
        )
    size = {
        name: jnp.float32(
            max(sum(w * m[name] for w, m in zip(style_weights, means, strict=True)), 1e-6)
        )
        if config.normalize_features
        else jnp.ones(())
        for name in network.layers
    }
    style_targets = {
        name: loss.target(loss.blend([each[name] for each in statistics], style_weights))
        for name in config.style_layers
    }
    return Targets(kept, style_targets, size)  # pyright: ignore[reportArgumentType]


def kept_width(network: Network, layer: str) -> int:
    """How many channels a layer has."""
    name = re.sub(r"^(relu|pool)", "conv", layer)
    if layer.startswith("pool"):
        names = vgg.layer_names(network.params)
        name = names[names.index(layer) - 2]
    head = network.params.get(f"{name}_to_vgg/bias") if layer.startswith("relu") else None
    return (network.params[f"{name}/bias"] if head is None else head).shape[0]


def _described(
    network: Network, picture: np.ndarray, side: int, *, keep: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, Sums], dict[str, Any]]:
    """Sums of a picture `[1, height, width, 3]`, and its features in the layers of the content."""
    size: Sizes = picture.shape[1:3]
    totals = _Totals()
    for tile in network.tiles(size, side):
        rows, columns = tile.seen
        found, *sums = _describe(
            network.params,
            jnp.asarray(picture[:, rows, columns]),
            jnp.asarray(tile.bounds(size)),
            config=network.config,
            padding=network.padding,
        )
        totals.add(tuple(sums))
        if keep is None:
            continue
        for name in network.config.content_layers:
            _keep(keep, name, np.asarray(found[name]), tile, size)
    return totals.value


def _keep(
    kept: dict[str, np.ndarray], name: str, features: np.ndarray, tile: Tile, size: Sizes
) -> None:
    """Puts what counts of a tile's features where it belongs."""
    stride = 2 ** block_of(name)
    if name not in kept:
        lengths = (max(length // stride, 1) for length in size)
        kept[name] = np.empty((1, *lengths, features.shape[-1]), np.float32)
    inside, place = [], []
    for span, length, whole in zip(tile, size, kept[name].shape[1:3], strict=True):
        first, start = span.first // stride, span.start // stride
        last = whole if span.last == length else span.last // stride
        inside.append(slice(first - start, last - start))
        place.append(slice(first, last))
    kept[name][:, place[0], place[1]] = features[:, inside[0], inside[1]]


def _recentered(sums: Sums, number: int, center: np.ndarray, loss: Any) -> tuple[np.ndarray, Sums]:
    """The same sums around the mean, in float64, where that matters: there nothing cancels."""
    if not loss.centered:
        return center, sums
    rest = sums.first / number
    if sums.second.ndim == 2:
        second = np.maximum(sums.second - number * rest**2, 0)
    else:
        second = sums.second - number * rest[:, :, None] * rest[:, None, :]
    return center + rest[0], Sums(np.zeros_like(sums.first), second)


def _single(sums: Any) -> Any:
    return jax.tree.map(jnp.float32, sums)


# --- the gradient --------------------------------------------------------------------------------


def value_and_gradient(
    network: Network,
    variables: np.ndarray,
    targets: Targets,
    weights: LossWeights,
    side: int,
    *,
    into: np.ndarray,
) -> dict[str, Array]:
    """The terms of the loss and its gradient, as `objective.objective` has them.

    Args:
        network: see there.
        variables: `[1, height, width, 3]`.
        targets: as `make_targets` gives them.
        weights: of the terms.
        side: of the tiles.
        into: gets the gradient, `[1, height, width, 3]`.

    Returns:
        The terms: `total`, `content`, `style` and `tv`.
    """
    config, size = network.config, variables.shape[1:3]
    loss = STYLE_LOSSES[config.style_loss]
    tiles = network.tiles(size, side)
    numbers = {name: _positions(size, name) for name in config.style_layers}
    centers = {
        name: np.asarray(target.mean[0] if loss.centered else jnp.zeros(kept_width(network, name)))
        for name, target in targets.style.items()
    }

    def given(tile: Tile) -> tuple[Any, ...]:
        rows, columns = tile.seen
        content = {}
        for name, features in targets.content.items():
            down, across = tile.seen_at(2 ** block_of(name))
            content[name] = jnp.asarray(features[:, down, across])
        part = jnp.asarray(variables[:, rows, columns])
        return network.params, part, jnp.asarray(tile.bounds(size)), content

    static = {"config": config, "padding": network.padding, "size": size}
    totals = _Totals()
    for measured in _ahead(
        _measure(*given(tile), _single(centers), weights, **static) for tile in tiles
    ):
        totals.add(measured)
    sums, local = totals.value
    for name in sums:
        center = centers[name].astype(np.float64)
        centers[name], sums[name] = _recentered(sums[name], numbers[name], center, loss)
    counted = {name: jnp.float32(number) for name, number in numbers.items()}
    style, slopes = _slope(
        _single(sums), counted, _single(centers), targets.style, weights.style, config=config
    )
    into[...] = 0
    pulled = (_pull(*given(tile), _single(centers), weights, slopes, **static) for tile in tiles)
    for tile, gradient in zip(tiles, _ahead(pulled), strict=True):
        rows, columns = tile.seen
        into[:, rows, columns] += np.asarray(gradient)
    terms = {
        "content": jnp.float32(local["content"]),
        "style": style,
        "tv": jnp.float32(local["tv"]),
    }
    return {"total": sum(terms.values(), jnp.zeros(())), **terms}


def _ahead(results: Iterator[Any]) -> Iterator[Any]:
    """One later: the device computes one while the host takes the other."""
    waiting = None
    for result in results:
        if waiting is not None:
            yield waiting
        waiting = result
    yield waiting


# --- updates -------------------------------------------------------------------------------------


class Scale(NamedTuple):
    """What a scale of `gatys` is made of.

    Attributes:
        features: the network that judges.
        config: settings.
        content: `[1, height, width, 3]`, as the losses see it.
        styles: `[1, h, w, 3]` each, likewise.
        style_weights: one a style; they sum to one.
        start: the first picture, of the size of the content.
        state: to go on from, if any.
    """

    features: Weights
    config: StylizeConfig
    content: Array
    styles: Sequence[Array]
    style_weights: Sequence[float]
    start: Array
    state: Any = None


def updates(network: Network, run: Scale, side: int) -> Iterator[tuple[Any, Any, dict[str, Array]]]:
    """The updates of a scale, without an end: state, picture and terms, as `gatys` has them.

    State and picture are NumPy arrays that the next update overwrites.
    """
    styles = [np.asarray(style) for style in run.styles]
    content = np.asarray(run.content)
    targets = make_targets(network, content, styles, run.style_weights, side)
    weights = loss_weights(run.config, targets)
    if network.config.optimizer == "lbfgs":
        yield from _searches(network, run, targets, weights, side)
        return
    state = _first_state(np.asarray(run.start), network.config) if run.state is None else run.state
    state = jax.tree.map(np.array, state)
    gradient, shown = np.empty_like(state.variables), np.empty_like(state.variables)
    while True:
        terms = value_and_gradient(network, state.variables, targets, weights, side, into=gradient)
        state = _descend(state, gradient, network.config, shown)
        yield state, shown, terms


def _first_state(start: np.ndarray, config: StylizeConfig) -> Any:
    """`gatys.init_state` in the host's memory."""
    from jaxstyle.methods import gatys  # which needs this module

    # Of one pixel: all others begin alike, but for the picture itself.
    small = gatys.init_state(jnp.asarray(start[:, :1, :1]), config)
    state = jax.tree.map(
        lambda leaf: np.zeros(start.shape, leaf.dtype) if leaf.ndim == 4 else np.asarray(leaf),
        small,
    )
    return state._replace(variables=np.array(to_variables(jnp.asarray(start), config)))


def _descend(state: Any, gradient: np.ndarray, config: StylizeConfig, shown: np.ndarray) -> Any:
    """Updates a state in place, some rows at a time; `shown` gets the picture.

    Returns:
        The state, whose scalars are new.
    """
    height, width = gradient.shape[1:3]
    rows = max(1, _STRIP_PIXELS // width)
    leaves, tree = jax.tree.flatten(state)
    large = [np.shape(leaf) == gradient.shape for leaf in leaves]
    fresh = leaves
    for first in range(0, height, rows):
        strip = slice(first, min(first + rows, height))
        given = [leaf[:, strip] if cut else leaf for leaf, cut in zip(leaves, large, strict=True)]
        made, picture = _descended(tree.unflatten(given), gradient[:, strip], config=config)
        fresh = jax.tree.leaves(made)
        shown[:, strip] = picture
        for leaf, new, cut in zip(leaves, fresh, large, strict=True):
            if cut:
                leaf[:, strip] = new
    pairs = zip(leaves, fresh, large, strict=True)
    return tree.unflatten([old if cut else np.asarray(new) for old, new, cut in pairs])


@_jit
def _descended(state: Any, gradient: Array, *, config: StylizeConfig) -> Any:
    from jaxstyle.methods import gatys

    return gatys.descend(state, gradient, config)


def _searches(
    network: Network, run: Scale, targets: Targets, weights: LossWeights, side: int
) -> Iterator[tuple[Any, Any, dict[str, Array]]]:
    """Updates of L-BFGS, whose line search calls for the tiles: outside of any compiled program."""
    from jaxstyle.methods import gatys

    config = network.config

    def compute(variables: Array) -> tuple[Array, dict[str, Array], Array]:
        gradient = np.empty(variables.shape, np.float32)
        with jax.disable_jit(False):
            terms = value_and_gradient(
                network, np.asarray(variables), targets, weights, side, into=gradient
            )
        return terms["total"], terms, jnp.asarray(gradient)

    @jax.custom_vjp
    def loss_fn(variables: Array) -> tuple[Array, dict[str, Array]]:
        return compute(variables)[:2]

    def forward(variables: Array) -> tuple[tuple[Array, dict[str, Array]], Array]:
        value, terms, gradient = compute(variables)
        return (value, terms), gradient

    loss_fn.defvjp(forward, lambda gradient, cotangents: (cotangents[0] * gradient,))
    state = gatys.init_state(run.start, config) if run.state is None else run.state
    state = jax.tree.map(jnp.asarray, state)
    while True:
        with jax.disable_jit():
            state, shown, terms = gatys.search(state, loss_fn, config)
        yield state, shown, terms
