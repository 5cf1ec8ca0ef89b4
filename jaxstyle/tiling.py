"""Networks applied to pictures tile by tile, with the result that the whole picture would give.

A pixel of the result depends on the pixels around it alone, if only the network's convolutions are
asked. So a tile is computed with a margin of real pixels: where a cut edge was padded, the results
are spoilt, as far as the margin and no further, and these are thrown away. At the borders of the
picture the tile's padding is the picture's own. What does depend on the whole picture, as the
moments of an instance normalisation, is gathered from all tiles before anything that needs it is
computed.

The picture and its features are NumPy arrays `[height, width, channels]` in the host's memory; the
device holds a tile or two.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Where a machine's memory is not to be found out.
_USUAL_MEMORY = 4 * 2**30
_PROCESS = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")
# What the weights of a region's positions sum to at least, for it to have statistics.
_NOTHING = 1e-12

# --- where the tiles lie -------------------------------------------------------------------------


class Span(NamedTuple):
    """A tile along one axis.

    Attributes:
        start: where what is computed begins.
        stop: where it ends.
        first: where the part of it that counts begins.
        last: where that ends.
    """

    start: int
    stop: int
    first: int
    last: int

    def times(self, factor: int) -> Span:
        """The same tile where there are `factor` pixels to each."""
        return Span(*(factor * place for place in self))


def even_share(count: int, most: int) -> int:
    """The share, at most `most`, of each in as few as there must be: the last gets about as much.

    Args:
        count: what is shared.
        most: of it that one gets.
    """
    return -(-count // -(-count // most))


def spans(length: int, side: int, margin: int) -> list[Span]:
    """Tiles along an axis, all of the same size: each place counts in one of them.

    Args:
        length: of the axis.
        side: of the part that counts; in the first and the last tile it differs.
        margin: around that; none where the picture ends.

    Raises:
        ValueError: a side below 1.
    """
    if side < 1:
        raise ValueError(f"the side of tiles must be 1 or more; got {side}")
    size = min(length, side + 2 * margin)
    found, first = [], 0
    while first < length:
        # The last one is moved inwards, so that one compiled program does for all.
        start = min(max(0, first - margin), length - size)
        last = length if start + size == length else start + size - margin
        found.append(Span(start, start + size, first, last))
        first = last
    return found


def choose(tile: int | str | None, *, needed: int, memory: int | None, side: int) -> int | None:
    """The side of the tiles to compute a picture in, or None to compute it whole.

    Args:
        tile: a side in pixels, None, or "auto" for tiles where the whole takes too much memory.
        needed: what the whole takes, in bytes.
        memory: what there is for it; by default half of what is available.
        side: of the tiles that are chosen for the user.

    Raises:
        ValueError: `tile` is none of these.
    """
    if not (tile is None or tile == "auto" or (isinstance(tile, int) and tile >= 1)):
        raise ValueError(f"tile must be a number of pixels above 0, auto or None; got {tile!r}")
    if tile != "auto":
        return tile  # pyright: ignore[reportReturnType]
    memory = available_memory() // 2 if memory is None else memory
    return side if needed > memory else None


# --- statistics of the whole ---------------------------------------------------------------------


class Moments(NamedTuple):
    """Statistics of the positions seen so far, float64 `[channels]`, or `[regions, channels]`.

    Attributes:
        positions: how many; of regions, the sum of their weights, `[regions, 1]`.
        mean: of each channel.
        squares: sum of the squared deviations from that mean, each as often as its position counts.
    """

    positions: Any
    mean: np.ndarray
    squares: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """The biased variance of each channel; of a region without any positions, zero."""
        return self.squares / np.maximum(self.positions, _NOTHING)

    def merge(self, other: Moments) -> Moments:
        """Those of both together (Chan et al. 1979, "Updating Formulae", Eq. 2.1)."""
        count = self.positions + other.positions
        delta, share = other.mean - self.mean, other.positions / np.maximum(count, _NOTHING)
        squares = self.squares + other.squares + delta**2 * (self.positions * share)
        return Moments(count, self.mean + delta * share, squares)


# --- computing -----------------------------------------------------------------------------------


class Step(NamedTuple):
    """A part of a network.

    Attributes:
        apply: `(params, x) -> y` with x and y `[1, height, width, channels]`: pure, and hashable,
            as equal ones are compiled once.
        params: its parameters, a pytree of arrays.
        kernel: the side of its convolution or pooling; 1 if it sees no neighbours.
        scale: rows of y to a row of x: 2 where the convolution comes after a doubling, 1/2 where
            it has a stride.
    """

    apply: Callable[[Any, Array], Array]
    params: Any
    kernel: int = 1
    scale: Fraction = Fraction(1)


def sweep(
    steps: Sequence[Step],
    source: np.ndarray,
    *,
    tile: int,
    into: np.ndarray | None = None,
    add: bool = False,
    moments: bool = False,
) -> Moments | None:
    """Applies steps, one after the other, to a picture or to features, tile by tile.

    Args:
        steps: what to compute.
        source: `[height, width, channels]`; the sides are multiples of what the strides take
            together.
        tile: the side of a tile in rows of `source`, without its margin, which comes on top.
        into: takes the result, `[height, width, channels]` at the scale of the last step; None if
            the moments alone are wanted.
        add: add the result to what is there.
        moments: whether to return the moments of the result, over the whole picture.

    Raises:
        ValueError: a source that the strides do not divide, or an `into` of another size.
    """
    grain, scale, margin = _geometry(steps)
    height, width = source.shape[:2]
    if height % grain or width % grain:
        raise ValueError(f"expected sides that are multiples of {grain}; got {height} x {width}")
    out = int(grain * scale)
    wanted = (height // grain * out, width // grain * out)
    if into is not None and into.shape[:2] != wanted:
        raise ValueError(f"expected room for {wanted} rows and columns; got {into.shape[:2]}")
    side = -(-tile // grain)
    rows, columns = (spans(length // grain, side, margin) for length in (height, width))
    total: Moments | None = None
    ahead: list[tuple[tuple[Span, Span], Any]] = []

    def collect() -> None:
        nonlocal total
        (row, column), (made, mean, squares) = ahead.pop(0)
        if into is not None:
            inside = np.asarray(made)[_inside(row, column)]
            place = into[row.first : row.last, column.first : column.last]
            np.add(place, inside, out=place) if add else np.copyto(place, inside)
        if moments:
            count = (row.last - row.first) * (column.last - column.first)
            found = Moments(count, np.asarray(mean, np.float64), np.asarray(squares, np.float64))
            total = total.merge(found) if total else found

    for row, column in itertools.product(rows, columns):
        seen = source[
            grain * row.start : grain * row.stop, grain * column.start : grain * column.stop
        ]
        place = row.times(out), column.times(out)
        made = _compute(
            tuple(step.apply for step in steps),
            [step.params for step in steps],
            np.ascontiguousarray(seen)[None],
            np.array(place, np.int32),
            keep=into is not None,
            moments=moments,
        )
        ahead.append((place, made))
        if len(ahead) > 1:  # the device computes one while the host fetches the other
            collect()
    collect()
    return total


def _inside(row: Span, column: Span) -> tuple[slice, slice]:
    """What counts of a tile, within it."""
    return (
        slice(row.first - row.start, row.last - row.start),
        slice(column.first - column.start, column.last - column.start),
    )


def _geometry(steps: Sequence[Step]) -> tuple[int, Fraction, int]:
    """What tiles are multiples of in the source; the scale of the result; the margin in these.

    A result is spoilt where it depends on padding at a cut edge, or on what is spoilt already.
    """
    grain, scale, spoilt = 1, Fraction(1), 0
    for step in steps:
        reach = step.kernel // 2
        if step.scale >= 1:
            spoilt = math.ceil(spoilt * step.scale) + reach
        else:
            spoilt = math.ceil((spoilt + reach) * step.scale)
        scale *= step.scale
        grain = math.lcm(grain, scale.denominator)
    return grain, scale, math.ceil(spoilt / (grain * scale))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("keep", "moments"))
def _compute(
    applied: tuple[Callable[[Any, Array], Array], ...],
    params: Sequence[Any],
    x: Array,
    place: Array,
    *,
    keep: bool,
    moments: bool,
) -> tuple[Array | None, Array | None, Array | None]:
    """The result `[height, width, channels]` of a tile; mean and squares of what counts of it."""
    for apply, own in zip(applied, params, strict=True):
        x = apply(own, x)
    x = x[0]
    if not moments:
        return x, None, None
    first, last = place[:, 2] - place[:, 0], place[:, 3] - place[:, 0]
    row, column = jnp.arange(x.shape[0])[:, None, None], jnp.arange(x.shape[1])[None, :, None]
    counts = (first[0] <= row) & (row < last[0]) & (first[1] <= column) & (column < last[1])
    number = (last - first).astype(jnp.float32).prod()
    values = x.astype(jnp.float32)
    mean = jnp.sum(jnp.where(counts, values, 0), (0, 1)) / number
    squares = jnp.sum(jnp.where(counts, jnp.square(values - mean), 0), (0, 1))
    return (x if keep else None), mean, squares


# --- memory --------------------------------------------------------------------------------------


def available_memory(*, held: int = 0) -> int:
    """Bytes that are free where JAX computes by default: on its device, or in this machine.

    A limit that a container sets is respected. Where nothing is known, 4 GiB.

    Args:
        held: bytes that arrays in the host's memory will take besides; at most half of what is free
            is left to them.
    """
    device = next(iter(jnp.zeros(()).devices()))
    if device.platform != "cpu":
        known = device.memory_stats() or {}
        if "bytes_limit" in known:
            return known["bytes_limit"] - known.get("bytes_in_use", 0)
    free = host_memory()
    return free - min(held, free // 2)


def host_memory() -> int:
    """Bytes that are free in this machine, as `available_memory` has it."""
    limits = [_machine_memory(), _container_memory()]
    return max(0, min((limit for limit in limits if limit is not None), default=_USUAL_MEMORY))


def _machine_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(value.split()[0])
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # on Windows there is no sysconf
        return None


def _container_memory() -> int | None:
    """What the control groups of this process leave: `max` and files that are missing mean all.

    What they count of files that were read is given up when memory is asked for: so it is free.
    """
    found = []
    for folder, names in _control_groups():
        limit, used, cache = names
        try:
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            found.append(left + _counted(folder / "memory.stat", cache))
        except (OSError, ValueError):
            continue
    return min(found, default=None)


# Limit, use, and what of the use is cache: of groups of the second version, and of the first.
_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _control_groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The groups of this process, from its own to the outermost, and the names of their files."""
    try:
        lines = (_PROCESS / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    parts = [line.split(":", 2) for line in lines]
    own = {name: path for _, names, path in parts for name in names.split(",")}
    for controller, names in _GROUP_FILES.items():
        root = _GROUPS / controller
        # In a container the path may be that of the host: then only the root is there.
        inside = root / own.get(controller, "/").lstrip("/")
        for folder in (inside, *inside.parents):
            yield folder, names
            if folder == root:
                break


def _counted(path: Path, name: str) -> int:
    """A number of a file that has a name and a number a line; 0 where there is none."""
    try:
        words = (line.split() for line in path.read_text().splitlines())
        return next((int(number) for found, number in words if found == name), 0)
    except (OSError, ValueError):
        return 0
