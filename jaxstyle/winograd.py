"""Winograd's convolution F(4x4, 3x3) in plain jnp, for the CPU.

A 3x3 convolution of stride 1 costs 9 multiplications an output and channel; F(4x4, 3x3) costs 36
for a tile of 16 outputs, 2.25 each (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
Networks", arXiv 1509.09308). On a CPU that pays where channels are many enough for the saved
arithmetic to outweigh the memory traffic of the transforms: `pays` decides.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

LEAST_CHANNELS = 128  # of a frozen kernel, for Winograd to pay at any size of picture
_PRECISION = lax.Precision.HIGHEST

# The transforms of F(4x4, 3x3) at the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, 4.3).
# Along one axis: outputs = OUTPUT @ ((KERNEL @ taps) * (INPUT @ inputs)), 6 inputs and 3 taps.
_TILE = 4
_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def pays(kernel_shape: Sequence[int], positions: int, *, frozen: bool) -> bool:
    """Whether Winograd is faster than XLA's convolution, as measured (benchmarks/README.md).

    Args:
        kernel_shape: `[height, width, in, out]`.
        positions: height times width, of all pictures together.
        frozen: whether the kernel was transformed before; a network of such kernels takes longer
            to compile, which counts, too.
    """
    if tuple(kernel_shape[:2]) != (3, 3):
        return False
    inputs, outputs = kernel_shape[2:]
    channels = min(inputs, outputs)
    if frozen:
        return channels >= 256 or (channels >= LEAST_CHANNELS and positions >= 128 * 128)
    # The arithmetic of a position over its traffic.
    return inputs * outputs / (inputs + outputs) >= 32 and positions >= 2048


def transform_frozen(kernel: np.ndarray) -> tuple[Array, ...]:
    """The rows of G w G^T, six arrays `[6, in, out]`, computed in float64 and rounded once."""
    down = np.tensordot(_KERNEL, kernel.astype(np.float64), axes=(1, 0))
    transformed = np.tensordot(_KERNEL, down, axes=(1, 1)).swapaxes(0, 1)
    return tuple(jnp.asarray(np.ascontiguousarray(row, np.float32)) for row in transformed)


def transform(kernel: Array) -> tuple[Array, ...]:
    """The same in float32, of a kernel `[3, 3, in, out]` that is still learnt."""
    inputs, outputs = kernel.shape[2:]
    matrix = _KERNEL.astype(np.float32)
    down = jnp.matmul(matrix, kernel.reshape(3, -1), precision=_PRECISION)
    return tuple(
        jnp.matmul(matrix, row.reshape(3, -1), precision=_PRECISION).reshape(6, inputs, outputs)
        for row in down
    )


def convolve(images: Array, rows: tuple[Array, ...]) -> Array:
    """Zero-padded 3x3 convolution, a row of the transformed kernel at a time.

    The barriers keep XLA from fusing the vertical transform into the horizontal one, which would
    compute it six times over.

    Args:
        images: `[batch, height, width, in]`, of any size.
        rows: six arrays `[6, in, out]`, as `transform` gives them.

    Returns:
        `[batch, height, width, out]`.
    """
    batch, height, width, channels = images.shape
    outputs = rows[0].shape[2]
    down, across = -(-height // _TILE), -(-width // _TILE)
    extra = ((0, 0), (0, down * _TILE - height), (0, across * _TILE - width), (0, 0))
    if extra[1][1] or extra[2][1]:
        images = jnp.pad(images, extra)
    tiles = images.reshape(batch, down, _TILE, across * _TILE, channels)
    vertical = _tile_views(tiles, 1)
    vertical = lax.optimization_barrier([_combine(c, vertical) for c in _INPUT])
    results = []
    for transformed, row in zip(vertical, rows, strict=True):
        views = _tile_views(transformed.reshape(batch, down, across, _TILE, channels), 2)
        stack = jnp.stack([_combine(c, views).reshape(-1, channels) for c in _INPUT])
        products = lax.dot_general(stack, row, (((2,), (1,)), ((0,), (0,))), precision=_PRECISION)
        columns = jnp.stack([_combine(c, list(products)) for c in _OUTPUT], axis=1)
        results.append(columns.reshape(batch, down, across * _TILE, outputs))
    results = lax.optimization_barrier(results)
    full = jnp.stack([_combine(c, results) for c in _OUTPUT], axis=2)
    return full.reshape(batch, down * _TILE, across * _TILE, outputs)[:, :height, :width]


def _combine(coefficients: Sequence[int], arrays: Sequence[Array]) -> Array:
    """The sum of `coefficients[i] * arrays[i]`, without the terms that are zero."""
    terms = [
        array if coefficient == 1 else coefficient * array
        for coefficient, array in zip(coefficients, arrays, strict=True)
        if coefficient != 0
    ]
    return functools.reduce(jnp.add, terms)


def _tile_views(tiles: Array, axis: int) -> list[Array]:
    """The six inputs of every tile along one axis: four of its own, one of each neighbour.

    Args:
        tiles: an array whose `axis` counts the tiles and whose next axis has the four positions.
        axis: the axis of the tiles. Beyond the first and the last tile lie zeros.
    """
    inside = [lax.index_in_dim(tiles, i, axis + 1, keepdims=False) for i in range(_TILE)]
    count = tiles.shape[axis]
    zeros = jnp.zeros_like(lax.slice_in_dim(inside[0], 0, 1, axis=axis))
    before = jnp.concatenate([zeros, lax.slice_in_dim(inside[3], 0, count - 1, axis=axis)], axis)
    after = jnp.concatenate([lax.slice_in_dim(inside[0], 1, count, axis=axis), zeros], axis)
    return [before, *inside, after]
