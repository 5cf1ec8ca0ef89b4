"""Regions of a picture out of a mask: arrays to arrays.

A colour-coded mask has a plain colour for each region. Real ones are not so plain: borders are
anti-aliased, and colours differ by what a JPEG or a brush made of them. So the main colours are
found first, and every pixel goes to one of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxstyle.color import LUMINANCE_WEIGHTS

FloatArray = NDArray[np.float32]

# Distances of colours, sRGB in [0, 1] (black is 1.73 from white). What is nearer than `_NEAR` is
# one colour to a person who paints a mask; a plain colour varies by `_TIGHT` after a JPEG.
_TIGHT, _NEAR = 0.08, 0.16
# Colours of two masks that are the same: each may have been painted by another program.
_SAME = 0.25
# Of the area, or else it is no main colour.
_LEAST_SHARE = 0.004
# Of what is near to it, or else it is a passage between others, as in a soft border.
_LEAST_PEAK = 0.6
# Of the area that main colours have to cover. Of 24 masks of 700 pixels they cover 0.958 or more,
# and of their JPEGs of quality 20 0.937. Of 40 photographs and paintings at 512 pixels, in which
# they cover less, one has 0.902, a sky at night, and the next ones 0.896 and 0.830.
_LEAST_COVER = 0.9
# Of the area that two greys have to cover, or else all greys count as they are.
_LEAST_TWO = 0.75
_MOST_REGIONS = 32
_BINS = 32  # of a channel, in the histogram
_CANDIDATES = 256  # of its bins, the fullest ones, for main colours
_REACH = 64  # pixels from a region within which it may claim those of no clear colour


class Regions(NamedTuple):
    """A mask, understood.

    Attributes:
        colors: float32 `[regions, 3]`, sRGB in [0, 1], from dark to light by their luminance.
        labels: uint8 `[height, width]`: which of them each pixel belongs to.
    """

    colors: FloatArray
    labels: NDArray[np.uint8]


def read(mask: FloatArray) -> Regions:
    """The regions of a colour-coded mask.

    Args:
        mask: `[height, width, 3]`, sRGB in [0, 1].

    Raises:
        ValueError: it has no main colours, too many of them, or much besides.
    """
    colors = _main_colors(mask)
    if not len(colors):
        raise ValueError("it has no plain colours: expected one for each region")
    if len(colors) > _MOST_REGIONS:
        raise ValueError(f"it has {len(colors)} colours: expected at most {_MOST_REGIONS}")
    nearest, distance = _classify(mask, colors)
    clear = distance <= _NEAR
    if clear.mean() < _LEAST_COVER:
        raise ValueError(
            f"{1 - clear.mean():.0%} of it has none of its {len(colors)} main colours: expected a "
            "plain colour for each region"
        )
    return Regions(colors, _claimed(mask, colors, nearest, clear))


def read_between(mask: FloatArray) -> FloatArray | None:
    """How far each pixel of a grey mask is on the way from dark to light.

    Args:
        mask: `[height, width, 3]`, sRGB in [0, 1].

    Returns:
        `[height, width]` in [0, 1]: the greys as they are, or, where there are two main greys,
        from 0 for the darker to 1 for the lighter one. None for a mask that has colours, or is of
        a single grey.
    """
    if np.mean(np.ptp(mask, axis=2) > 0.1) > 0.01:
        return None
    grey = mask.mean(axis=2)
    if np.ptp(np.percentile(grey, (0.5, 99.5))) < _TIGHT:
        return None
    levels = _main_colors(mask).mean(axis=1)
    if len(levels) == 2:
        # The ends of a ramp look like plain greys, but are not most of it.
        near = np.abs(grey[..., None] - levels).min(2) <= _TIGHT
        if near.mean() >= _LEAST_TWO:
            grey = (grey - levels[0]) / (levels[1] - levels[0])
    return np.clip(grey, 0, 1).astype(np.float32)


def match(colors: FloatArray, others: FloatArray) -> list[int | None]:
    """For each colour of a mask the place of the same one in another mask; None where it lacks it.

    Args:
        colors: `[regions, 3]`.
        others: `[others, 3]`.
    """
    distances = np.linalg.norm(colors[:, None] - others[None], axis=2)
    places: list[int | None] = []
    for row in distances:
        place = int(row.argmin())
        # One of the other mask serves one of this mask: the nearest.
        mutual = row[place] <= distances[:, place].min()
        places.append(place if row[place] <= _SAME and mutual else None)
    return places


def masks_of(labels: NDArray[np.uint8], count: int, size: tuple[int, int]) -> FloatArray:
    """Masks of regions at a size.

    Args:
        labels: `[h, w]`, as `Regions` has them.
        count: the number of regions.
        size: height and width of the masks.

    Returns:
        `[height, width, count]`: what share of each pixel lies in which region; they sum to one.
    """
    return np.stack([resize(labels == region, size) for region in range(count)], axis=-1)


def resize(mask: NDArray[np.floating] | NDArray[np.bool_], size: tuple[int, int]) -> FloatArray:
    """A mask at another size: each new pixel is the mean over the area that it covers.

    Args:
        mask: `[h, w]`.
        size: the new height and width.
    """
    if mask.shape == size:
        return mask.astype(np.float32)
    rows = _averaged(mask.astype(np.float64), size[0])
    return np.ascontiguousarray(_averaged(rows.T, size[1]).T, np.float32)


def fits(mask: tuple[int, int], picture: tuple[int, int]) -> bool:
    """Whether a mask of a height and width is of about a picture's proportions.

    A tenth more or less is taken for cropping, and a pixel for rounding.
    """
    (rows, columns), (height, width) = mask, picture
    wanted = rows * width / columns
    return abs(wanted - height) <= max(0.1 * height, 1) or abs(height * columns / rows - width) <= 1


def name(color: FloatArray) -> str:
    """A colour as people write it, as in #ff8000."""
    return "#" + "".join(f"{round(float(value) * 255):02x}" for value in color)


def _averaged(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """`[rows, columns]` to `[count, columns]`, means over equal stretches of the rows."""
    rows = values.shape[0]
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    edges = np.linspace(0, rows, count + 1)
    below = np.minimum(edges.astype(int), rows - 1)
    at_edges = sums[below] + (edges - below)[:, None] * values[below]
    return np.clip(np.diff(at_edges, axis=0) * (count / rows), 0, 1)


def _main_colors(mask: FloatArray) -> FloatArray:
    """The plain colours of a mask, from dark to light: `[colours, 3]`."""
    pixels = mask[_flat(mask)]
    centres, counts = _histogram(pixels if len(pixels) else mask.reshape(-1, 3))
    least = _LEAST_SHARE * mask.shape[0] * mask.shape[1]
    free, found = counts.copy(), []  # free: what no main colour has
    for place in np.argsort(-counts, kind="stable")[:_CANDIDATES]:
        if not free[place] or len(found) > _MOST_REGIONS:
            continue
        color = centres[place]
        for _ in range(2):  # a colour on the border of two bins moves to its middle
            own = np.where(np.linalg.norm(centres - color, axis=1) <= _TIGHT, free, 0)
            if own.any():
                color = np.average(centres, axis=0, weights=own)
        distances = np.linalg.norm(centres - color, axis=1)
        share = free[distances <= _TIGHT].sum()
        plain = share >= max(least, _LEAST_PEAK * counts[distances <= _NEAR].sum())
        if plain and all(np.linalg.norm(color - other) > _NEAR for other in found):
            found.append(color)
            free[distances <= _NEAR] = 0
    found.sort(key=lambda color: float(np.dot(color, LUMINANCE_WEIGHTS)))
    return np.array(found, np.float32).reshape(-1, 3)


def _histogram(pixels: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Colours of pixels `[n, 3]` in bins: the mean of each `[bins, 3]`, and its pixels `[bins]`."""
    indices = np.minimum(pixels * _BINS, _BINS - 1).astype(np.int64) @ (_BINS**2, _BINS, 1)
    _, place, counts = np.unique(indices, return_inverse=True, return_counts=True)
    sums = [np.bincount(place, pixels[:, channel], len(counts)) for channel in range(3)]
    return np.stack(sums, axis=1) / counts[:, None], counts.astype(np.float64)


def _flat(mask: FloatArray) -> NDArray[np.bool_]:
    """Where a pixel equals a neighbour in its row and one in its column: `[height, width]`.

    Those of an anti-aliased border do not: they lie across it in one of the two.
    """
    flat = np.ones(mask.shape[:2], bool)
    for axis in (0, 1):
        if mask.shape[axis] == 1:
            continue
        same = np.abs(np.diff(mask, axis=axis)).max(2) <= _TIGHT / 2
        before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        before[axis], after[axis] = (1, 0), (0, 1)
        flat &= np.pad(same, before) | np.pad(same, after)
    return flat


def _classify(mask: FloatArray, colors: FloatArray) -> tuple[NDArray[np.uint8], FloatArray]:
    """The nearest of some colours, and its distance, for each pixel."""
    labels = np.zeros(mask.shape[:2], np.uint8)
    best = np.full(mask.shape[:2], np.inf, np.float32)
    for label, color in enumerate(colors):
        distance = np.linalg.norm(mask - color, axis=2)
        nearer = distance < best
        labels[nearer], best[nearer] = label, distance[nearer]
    return labels, best


def _claimed(
    mask: FloatArray,
    colors: FloatArray,
    nearest: NDArray[np.uint8],
    clear: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Labels of which those of no clear colour are the nearest among their neighbours'.

    The middle between black and white is as near to red: but no red is beside it.
    """
    nobody = len(colors)
    labels = np.pad(np.where(clear, nearest, nobody).astype(np.uint8), 1, constant_values=nobody)
    rows, columns = np.nonzero(~clear)
    distances = np.linalg.norm(mask[rows, columns][:, None] - colors, axis=2)
    distances = np.pad(distances, ((0, 0), (0, 1)), constant_values=np.inf)
    for _ in range(_REACH):
        if not len(rows):
            break
        around = np.stack(
            [labels[rows + y, columns + x] for y, x in ((0, 1), (2, 1), (1, 0), (1, 2))], axis=1
        )
        there = np.take_along_axis(distances, around.astype(int), axis=1)
        chosen = around[np.arange(len(rows)), there.argmin(1)]
        labels[rows + 1, columns + 1] = chosen
        left = chosen == nobody
        if left.all():
            break
        rows, columns, distances = rows[left], columns[left], distances[left]
    labels = labels[1:-1, 1:-1]
    return np.where(labels == nobody, nearest, labels)
