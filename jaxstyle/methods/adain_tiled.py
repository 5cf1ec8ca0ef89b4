"""Networks of `adain` on pictures that are too large to be computed whole.

In a first sweep over the tiles the picture is encoded. Its features are kept in the host's memory,
where they take a small part of what the whole would, and their moments are gathered over the whole
picture, or over its regions. In a second sweep they are normalised and decoded. A decoder that
normalises its own features takes one sweep more for each of them, which decodes as far as there.
Of a painting the first sweep is all, and no features are kept.

Tiles are made of cells, of as many pixels as the network halves away: so they pool what the whole
picture pools.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import losses, tiling, transfer
from jaxstyle.methods import adain
from jaxstyle.methods.adain_network import LAST, Code, Network
from jaxstyle.tiling import Span

# Side of the tiles that are chosen for the user, in pixels.
SIDE = 512


def generate(
    network: Network,
    variables: Mapping[str, Any],
    picture: np.ndarray,
    code: Code,
    *,
    strength: float,
    masks: np.ndarray | None,
    tile: int,
) -> np.ndarray:
    """What `adain.stylize` makes of one picture, to the rounding of float32.

    Args:
        network: see `adain`.
        variables: as `adain.of_model` gives both.
        picture: float32 `[height, width, 3]`, sRGB in [0, 1], with sides as `layers.padding`
            makes them.
        code: of the painting.
        strength: as for `adain.stylize`.
        masks: `[height, width, regions]`, where the code is of regions.
        tile: the side of tiles in pixels, rounded up to whole cells.

    Returns:
        float32 `[height, width, 3]` in [0, 1].
    """
    variables, code = jax.device_put((dict(variables), code))
    regions = {} if masks is None else {"masks": masks}
    # Masks are made smaller, and so a cell at a cut edge is wrong before anything is decoded.
    encoding, decoding = (
        _places(network, picture.shape, tile, wrong=wrong) for wrong in (0, int(masks is not None))
    )
    sources = {"pictures": picture, **regions}
    features, own = _encoded(network, variables["encoder"], sources, encoding)
    sources = {"features": features, **regions}
    codes = [adain.mix([own, code], [1 - strength, strength])]
    if not adain.is_full(strength):
        codes.append(own)
    # A pass of the decoder, or two: a code, and the moments that its features have with it.
    passes: list[tuple[Code, dict[str, Any]]] = []
    for wanted in codes:
        moments: dict[str, Any] = {}
        for name in network.decoder.normalized:
            given = variables["params"], wanted, own, moments
            moments[f"{name}_norm"] = _gathered(network, name, given, sources, decoding)
        passes.append((wanted, moments))
    if len(passes) > 1:
        sources["pictures"] = picture
    decode = functools.partial(_decode, network, variables["params"], passes, own, strength)
    made = np.empty_like(picture)
    for place, found in _swept(decode, sources, decoding):
        place.put(found, made)
    return made


def code_of(
    network: Network,
    encoder: Any,
    picture: np.ndarray,
    *,
    masks: np.ndarray | None,
    tile: int,
) -> Code:
    """What `adain.style_code` says of one painting, to the rounding of float32.

    With masks there is an exception: where the sides are no multiples of the network's grain, masks
    are made smaller a little otherwise, and borders of regions move by up to a feature.

    Args:
        network: see `adain`.
        encoder: its parameters, as `adain.of_model` gives them.
        picture: float32 `[height, width, 3]`, sRGB in [0, 1], with sides of `layers.LEAST_SIDE` or
            more.
        masks: `[height, width, regions]`, which sum to one; None for no regions.
        tile: the side of tiles in pixels, rounded up to whole cells.
    """
    sources = {"pictures": picture, **({} if masks is None else {"masks": masks})}
    places = _places(network, picture.shape, tile, wrong=0)
    return _encoded(network, jax.device_put(encoder), sources, places, keep=False)[1]


def whole_bytes(network: Network, pixels: int) -> int:
    """An estimate of what it takes to compute a picture whole, in bytes.

    What counts are the features of full size: 4 of them in float32. On a CPU, pictures of 1 to 4
    million pixels took 770 to 1030 bytes a pixel with VGG-19, whose first block is 64 wide, and 440
    to 490 with one of 32. In tiles of 512 pixels, they took 430 and 230.
    """
    return pixels * (4 * 4 * max(network.decoder.widths[0]))


# --- where the tiles lie -------------------------------------------------------------------------


class _Place(NamedTuple):
    """A tile.

    Attributes:
        row: in cells.
        column: in cells.
        cells: of the whole picture, down and across.
    """

    row: Span
    column: Span
    cells: tuple[int, int]

    @property
    def counts(self) -> np.ndarray:
        """What counts of it, in cells from its start: `[[first, last]]` of rows and columns.

        The last tile has what is left of the picture beyond its last cell: a part of another.
        """
        spans = zip((self.row, self.column), self.cells, strict=True)
        ends = [(x.first, x.last + (x.last == cells), x.start) for x, cells in spans]
        return np.array([(first - start, last - start) for first, last, start in ends], np.int32)

    def cut(self, x: np.ndarray) -> np.ndarray:
        """What it sees of the picture, its masks or features: `[1, height, width, channels]`."""
        row, column = (
            slice(span.start, side if place.stop == cells else span.stop)
            for span, place, cells, side in zip(
                self._in(x), (self.row, self.column), self.cells, x.shape[:2], strict=True
            )
        )
        return np.ascontiguousarray(x[row, column])[None]

    def put(self, made: Any, into: np.ndarray) -> None:
        """Keeps what counts of a result `[1, height, width, channels]`."""
        row, column = self._in(into)
        inside = np.asarray(made)[0, row.first - row.start :, column.first - column.start :]
        height, width = row.last - row.first, column.last - column.first
        into[row.first : row.last, column.first : column.last] = inside[:height, :width]

    def room(self, made: Array) -> np.ndarray:
        """An array for the results of all tiles, of which this is one."""
        spans = (self.row, self.column)
        scales = [
            side // (x.stop - x.start) for side, x in zip(made.shape[1:3], spans, strict=True)
        ]
        rows, columns = (n * scale for n, scale in zip(self.cells, scales, strict=True))
        return np.empty((rows, columns, made.shape[3]), made.dtype)

    def _in(self, x: np.ndarray) -> tuple[Span, Span]:
        """Rows and columns of an array of any scale."""
        return (
            self.row.times(_scale(x.shape[0], self.cells[0])),
            self.column.times(_scale(x.shape[1], self.cells[1])),
        )


def _scale(side: int, cells: int) -> int:
    """How many pixels, or features, of a side make a cell: a power of two.

    A side may be longer than its cells, by less than one, as halving drops what is over.
    """
    return 1 << ((side // cells).bit_length() - 1)


def _places(network: Network, shape: tuple[int, ...], tile: int, *, wrong: int) -> list[_Place]:
    """The tiles of a sweep; a decoder sees as far as the encoder that it mirrors.

    Args:
        network: see there.
        shape: of the picture.
        tile: the side in pixels.
        wrong: how many cells at a cut edge are so before.
    """
    cells = shape[0] // network.grain, shape[1] // network.grain
    reach = sum(len(block) * 2**number for number, block in enumerate(network.decoder.widths))
    margin = -(-reach // network.grain) + wrong
    side = -(-tile // network.grain)
    rows, columns = (tiling.spans(length, side, margin) for length in cells)
    return [_Place(row, column, cells) for row, column in itertools.product(rows, columns)]


def _swept(
    compute: Callable[..., Any], sources: Mapping[str, Any], places: list[_Place]
) -> Iterator[tuple[_Place, Any]]:
    """Each tile, and what is computed of the part of the sources that it sees."""
    ahead: list[tuple[_Place, Any]] = []
    for place in places:
        ahead.append((place, compute(place.counts, **jax.tree.map(place.cut, dict(sources)))))
        if len(ahead) > 1:  # the device computes one while the host fetches the other
            yield ahead.pop(0)
    yield from ahead


# --- computing -----------------------------------------------------------------------------------


def _encoded(
    network: Network,
    params: Any,
    sources: Mapping[str, Any],
    places: list[_Place],
    *,
    keep: bool = True,
) -> tuple[dict[str, np.ndarray], Code]:
    """Features of the picture at each level, `[h, w, channels]`, and its own code.

    Without `keep` there are no features.
    """
    features: dict[str, np.ndarray] = {}
    totals: dict[str, tiling.Moments] = {}
    encode = functools.partial(_encode, network, params)
    for place, (made, moments) in _swept(encode, sources, places):
        for level, parts in moments.items():
            found = tiling.Moments(*(np.asarray(part, np.float64) for part in parts))
            totals[level] = totals[level].merge(found) if level in totals else found
        for level, x in made.items() if keep else ():
            place.put(x, features.setdefault(level, place.room(x)))
    own = {}
    for level, total in totals.items():
        parts = total.mean, np.sqrt(total.variance + transfer.EPSILON)
        if "masks" not in sources:  # of one region, which is all
            parts = [part[0] for part in parts]
        own[level] = losses.Moments(*(jnp.asarray(part, jnp.float32)[None] for part in parts))
    return features, own


@functools.partial(jax.jit, static_argnums=0)
def _encode(
    network: Network, params: Any, counts: Array, pictures: Array, masks: Array | None = None
) -> tuple[dict[str, Array], dict[str, tuple[Array, Array, Array]]]:
    """Features of a tile, and `tiling.Moments` of what counts of it, at each level."""
    features = adain.encode(network, params, pictures)
    cells = [side // network.grain for side in pictures.shape[1:3]]
    moments = {}
    for level, x in features.items():
        shares = _counted(counts, cells, x.shape[1:3])
        if masks is not None:
            shares = shares * transfer.resize_masks(masks, *x.shape[1:3])[0]
        moments[level] = _moments(x[0].astype(jnp.float32), shares)
    # The pixels, as a level, count in the code alone.
    return {level: features[level] for level in network.levels}, moments


def _counted(counts: Array, cells: Sequence[int], sides: Sequence[int]) -> Array:
    """Ones where features of a tile count, zeros in its margin, `[h, w, 1]`.

    Args:
        counts: as `_Place.counts`.
        cells: of the tile, down and across.
        sides: of the features.
    """
    rows, columns = (
        (first * _scale(side, n) <= jnp.arange(side)) & (jnp.arange(side) < last * _scale(side, n))
        for (first, last), side, n in zip(counts, sides, cells, strict=True)
    )
    return (rows[:, None] & columns).astype(jnp.float32)[..., None]


def _gathered(
    network: Network,
    name: str,
    given: tuple[Any, ...],
    sources: Mapping[str, Any],
    places: list[_Place],
) -> dict[str, Array]:
    """Mean and variance of what a convolution of the decoder gives.

    They are of the whole picture; with masks, those of the last convolution are of its regions.
    """
    total: tiling.Moments | None = None
    compute = functools.partial(_statistics, network, name, *given)
    for _, found in _swept(compute, sources, places):
        moments = tiling.Moments(*(np.asarray(part, np.float64) for part in found))
        total = total.merge(moments) if total else moments
    assert total is not None
    mean, variance = (
        jnp.asarray(part, jnp.float32)[None] for part in (total.mean, total.variance)
    )  # [1, regions, channels]
    if "masks" in sources and name == LAST:
        weights = jnp.asarray(total.positions, jnp.float32)[None]
        return {"mean": mean, "variance": transfer.pooled(variance, weights)}
    return {"mean": mean[:, None], "variance": variance[:, None]}  # of the only region


@functools.partial(jax.jit, static_argnums=(0, 1))
def _statistics(
    network: Network,
    name: str,
    params: Any,
    code: Code,
    own: Code,
    moments: Mapping[str, Any],
    counts: Array,
    features: Mapping[str, Array],
    masks: Array | None = None,
) -> tuple[Array, Array, Array]:
    """`tiling.Moments` of what a convolution gives for what counts of a tile."""
    x = adain.decode(
        network,
        params,
        features,
        code,
        own=own,
        masks=masks,
        moments=moments,
        until=name,
    )
    cells = features[network.levels[-1]].shape[1:3]
    shares = _counted(counts, cells, x.shape[1:3])
    if masks is not None and name == LAST:
        shares = shares * transfer.resize_masks(masks, *x.shape[1:3])[0]
    return _moments(x[0].astype(jnp.float32), shares)


def _moments(x: Array, shares: Array) -> tuple[Array, Array, Array]:
    """The weight of regions, `[regions, 1]`; mean and squares of channels, `[regions, c]`."""
    weight = jnp.sum(shares, (0, 1))[:, None]
    means, squares = [], []
    for region in range(shares.shape[2]):
        share = shares[..., region, None]
        mean = jnp.sum(share * x, (0, 1)) / jnp.maximum(weight[region], 1e-12)
        means.append(mean)
        squares.append(jnp.sum(share * jnp.square(x - mean), (0, 1)))
    return weight, jnp.stack(means), jnp.stack(squares)


@functools.partial(jax.jit, static_argnums=0)
def _decode(
    network: Network,
    params: Any,
    passes: Sequence[tuple[Code, Mapping[str, Any]]],
    own: Code,
    strength: Array,
    counts: Array,
    features: Mapping[str, Array],
    masks: Array | None = None,
    pictures: Array | None = None,
) -> Array:
    """A tile of the picture; `pictures` is there with a second pass, of the content's own code."""
    del counts
    made, *rebuilt = (
        adain.decode(network, params, features, code, own=own, masks=masks, moments=moments)
        for code, moments in passes
    )
    if pictures is None:
        return jnp.clip(made, 0, 1)
    return adain.blend(made, rebuilt[0], pictures, strength)
