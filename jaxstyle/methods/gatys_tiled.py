"""Pixel optimisation of pictures that are too large to be computed whole, with the same gradient.

The objective (`jaxstyle.objective`) needs of a picture the sums that its statistics are made of,
and terms that are local. So an update goes over the tiles of the picture (`gatys_layout`) twice.
The first time, the sums of all tiles are added up, in float64; the gradient of the loss with
respect to them is that of the whole picture. The second time, each tile pulls it back to its
pixels, and the gradients of overlapping tiles are added.

The picture, the optimiser's state and the content's features are NumPy arrays in the host's memory,
or mapped from files where they would take too much of it (`gatys_arrays`); the device holds a tile,
or several devices hold its rows (`jaxstyle.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxstyle import runtime, tiling
from jaxstyle.methods import gatys_search, gatys_updates
from jaxstyle.methods.gatys_arrays import MEMORY, Room, descend, first_state
from jaxstyle.methods.gatys_layout import (
    Sizes,
    Tile,
    block_of,
    bytes_per_pixel,
    host_bytes,
    layers_of,
)
from jaxstyle.methods.gatys_parts import (
    Network,
    Totals,
    Whole,
    describe,
    measure,
    pull,
    single,
    slope,
    style_targets_of,
)
from jaxstyle.methods.gatys_scales import Scale
from jaxstyle.objective import (
    LossWeights,
    Sums,
    Targets,
    loss_weights,
)

_MANY = 16  # tiles, beside whose time that of mapping memory anew is nothing
_PLACES = 2  # of a tile, that its computation may take; half of the second one was seen taken


# --- targets -------------------------------------------------------------------------------------


def make_targets(
    network: Network,
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    style_weights: Sequence[float],
    side: int,
    room: Room = MEMORY,
) -> Targets:
    """The targets of `objective.make_targets`; the content's features are NumPy arrays.

    Args:
        network: see there.
        content: `[1, height, width, 3]`.
        styles: pictures `[1, h, w, 3]`, each of its own size.
        style_weights: one a style; they sum to one.
        side: of the tiles.
        room: for the content's features.
    """
    kept: dict[str, np.ndarray] = {}
    _described(network, content, side, keep=kept, room=room)
    found = [(style.shape[1:3], *_described(network, style, side)) for style in styles]
    style_targets, size = style_targets_of(found, style_weights, network.config)
    return Targets(kept, style_targets, size)  # pyright: ignore[reportArgumentType]


def _described(
    network: Network,
    picture: np.ndarray,
    side: int,
    *,
    keep: dict[str, np.ndarray] | None = None,
    room: Room = MEMORY,
) -> tuple[dict[str, Sums], dict[str, Any]]:
    """Sums of a picture `[1, height, width, 3]`, and its features in the layers of the content."""
    size: Sizes = picture.shape[1:3]
    totals = Totals()
    for tile in network.tiles(size, side):
        rows, columns = tile.seen
        layout = network.layout(rows.stop - rows.start)
        found, sums = describe(
            network.params,
            layout.spread(picture[:, rows, columns]),
            layout.copy(tile.bounds(size)),
            config=network.config,
            padding=network.padding,
            layout=layout,
        )
        totals.add(*sums)
        if keep is None:
            continue
        for name, features in found.items():
            _keep(keep, name, np.asarray(layout.gather(features)), tile, size, room)
    return totals.value


def _keep(
    kept: dict[str, np.ndarray],
    name: str,
    features: np.ndarray,
    tile: Tile,
    size: Sizes,
    room: Room,
) -> None:
    """Puts what counts of a tile's features where it belongs."""
    stride = 2 ** block_of(name)
    if name not in kept:
        lengths = (max(length // stride, 1) for length in size)
        kept[name] = room.zeros((1, *lengths, features.shape[-1]))
    inside, place = [], []
    for span, length, whole in zip(tile, size, kept[name].shape[1:3], strict=True):
        first, start = span.first // stride, span.start // stride
        last = whole if span.last == length else span.last // stride
        inside.append(slice(first - start, last - start))
        place.append(slice(first, last))
    kept[name][:, place[0], place[1]] = features[:, inside[0], inside[1]]


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
    tiles = network.tiles(size, side)
    whole = Whole.of(size, config)

    # All tiles are of one size.
    layout = network.layout(tiles[0].row.stop - tiles[0].row.start)
    whole, weights = layout.copy((whole, weights))

    def given(tile: Tile, around: Any) -> tuple[Any, ...]:
        rows, columns = tile.seen
        content = {}
        for name, features in targets.content.items():
            down, across = tile.seen_at(2 ** block_of(name))
            content[name] = layout.spread(features[:, down, across])
        part = layout.spread(variables[:, rows, columns])
        return network.params, part, layout.copy(tile.bounds(size)), content, around, weights, whole

    static = {"config": config, "padding": network.padding, "layout": layout}
    totals = Totals()
    for measured in _ahead(measure(*given(tile, None), **static) for tile in tiles):
        totals.add(*measured)
    _trim(tiles)
    sums, local = totals.value
    sums = single(sums)
    style, slopes = slope(sums, whole.positions, targets.style, weights.style, config=config)
    into[...] = 0
    means = {name: each.mean[0] for name, each in sums.items()}
    slopes, means = layout.copy((slopes, means))
    pulled = (pull(*given(tile, means), slopes, **static) for tile in tiles)
    for tile, gradient in zip(tiles, _ahead(pulled), strict=True):
        rows, columns = tile.seen
        into[:, rows, columns] += np.asarray(layout.gather(gradient))
    _trim(tiles)
    terms = {
        "content": jnp.float32(local["content"]),
        "style": style,
        "tv": jnp.float32(local["tv"]),
    }
    return {"total": sum(terms.values(), jnp.zeros(())), **terms}


def _trim(tiles: Sequence[Tile]) -> None:
    """What a pass has freed lies in pieces that the other has no use for."""
    if len(tiles) >= _MANY:
        runtime.trim_memory()


def _ahead(results: Iterator[Any]) -> Iterator[Any]:
    """One later: the device computes one while the host takes the other.

    Not on CPUs, where two would be computed side by side, in twice the memory and no less time.
    """
    if gatys_updates.platform() == "cpu":
        yield from map(jax.block_until_ready, results)
        return
    waiting = None
    for result in results:
        if waiting is not None:
            yield waiting
        waiting = result
    yield waiting


# --- updates -------------------------------------------------------------------------------------


def updates(
    run: Scale, side: int, mesh: Mesh | None = None
) -> Iterator[tuple[Any, Any, dict[str, Array]]]:
    """The updates of a scale, without an end: state, picture and terms, as `gatys` has them.

    State and picture are NumPy arrays that the next update overwrites.

    Args:
        run: the scale.
        side: of the tiles.
        mesh: devices that share the rows of each tile.
    """
    network = Network.of(run.features, run.config, mesh)
    styles = [np.asarray(style) for style in run.styles]
    content = np.asarray(run.content)
    size = content.shape[1:3]
    held, tile = host_bytes(size, run.features.params, run.config), _tile_bytes(network, size, side)
    room = Room.of(held + tile)
    runtime.trim_memory()  # coarser scales may have been computed whole
    # Whether memory runs out if tiles come to be computed in several places of it.
    runtime.give_back_large_blocks(held + _PLACES * tile > tiling.host_memory())
    try:
        yield from _updates(network, run, content, styles, side, room)
    finally:
        runtime.give_back_large_blocks(False)  # what comes next may be computed whole


def _updates(
    network: Network,
    run: Scale,
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    side: int,
    room: Room,
) -> Iterator[tuple[Any, Any, dict[str, Array]]]:
    targets = make_targets(network, content, styles, run.style_weights, side, room)
    weights = loss_weights(run.config, targets)

    def evaluate(variables: np.ndarray, gradient: np.ndarray) -> dict[str, Array]:
        return value_and_gradient(network, variables, targets, weights, side, into=gradient)

    if run.state is None:
        state = first_state(np.asarray(run.start()), network.config, room)
    else:
        state = jax.tree.map(room.copy, run.state)
    if network.config.optimizer == "lbfgs":
        yield from gatys_search.updates(state, evaluate, network.config, room)
        return
    gradient, shown = room.zeros(content.shape), room.zeros(content.shape)
    while True:
        terms = evaluate(state.variables, gradient)
        state = descend(state, gradient, network.config, shown)
        yield state, shown, terms


def _tile_bytes(network: Network, size: Sizes, side: int) -> int:
    """What an update takes for the tile that is computed at a time, about."""
    tile = network.tiles(size, side)[0]
    pixels = (tile.row.stop - tile.row.start) * (tile.column.stop - tile.column.start)
    return int(pixels * bytes_per_pixel(network.params, layers_of(network.config)))
