"""The one convolution that everything calls: XLA's own on GPU and TPU, Winograd on the CPU.

A 3x3 convolution of stride 1 costs 9 multiplications an output and channel; Winograd's
F(4x4, 3x3) costs 36 for a tile of 16 outputs, 2.25 each (Lavin and Gray 2016, "Fast Algorithms for
Convolutional Neural Networks", arXiv 1509.09308). On a CPU that pays where channels are many enough
for the saved arithmetic to outweigh the memory traffic of the transforms: `prepare_kernel` decides.

The platform is chosen where the code is lowered, not where it is traced, so that one function
exports to every platform.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxstyle.config import PADDINGS

_PAD_MODES = {"zero": "constant", "reflect": "reflect", "replicate": "edge"}  # of jnp.pad
_LAYOUT = ("NHWC", "HWIO", "NHWC")
# float32 means float32: without this a GPU may use TF32 and a TPU bfloat16.
_PRECISION = lax.Precision.HIGHEST

# The transforms of F(4x4, 3x3) at the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, 4.3).
# Along one axis: outputs = OUTPUT @ ((KERNEL @ taps) * (INPUT @ inputs)), 6 inputs and 3 taps.
_TILE = 4
_LEAST_CHANNELS = 128
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


class PreparedKernel(NamedTuple):
    """A frozen 3x3 kernel with its Winograd transforms; a pytree, to be passed as an argument.

    Attributes:
        kernel: the kernel itself, `[3, 3, in, out]`, used off the CPU and at borders.
        forward: six arrays `[6, in, out]`, a row each of the transformed kernel. They are separate
            arrays because a slice of one array would be copied at every use.
        backward: the same of the flipped kernel, `[6, out, in]`, for the gradient of the input.
    """

    kernel: Array
    forward: tuple[Array, ...]
    backward: tuple[Array, ...]


def uses_winograd(kernel_shape: Sequence[int], positions: int) -> bool:
    """Whether Winograd pays on the CPU, as measured (benchmarks/README.md).

    Args:
        kernel_shape: `[height, width, in, out]`.
        positions: height times width of the picture.
    """
    channels = min(kernel_shape[2:])
    if tuple(kernel_shape[:2]) != (3, 3):
        return False
    return channels >= 256 or (channels >= _LEAST_CHANNELS and positions >= 128 * 128)


def prepare_kernel(kernel: Any) -> PreparedKernel | Array:
    """Transforms a frozen kernel once, for `conv2d` on the CPU.

    Args:
        kernel: `[height, width, in, out]`, float32, concrete (not traced).

    Returns:
        A `PreparedKernel`, or the kernel as it is where Winograd pays at no size of picture.
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.shape[:2] != (3, 3) or min(kernel.shape[2:]) < _LEAST_CHANNELS:
        return jnp.asarray(kernel)
    return PreparedKernel(
        jnp.asarray(kernel),
        _transform_kernel(kernel),
        _transform_kernel(kernel[::-1, ::-1].transpose(0, 1, 3, 2)),
    )


def conv2d(
    images: Array,
    kernel: PreparedKernel | Array,
    *,
    bias: Array | None = None,
    padding: str = "zero",
) -> Array:
    """Convolution (cross-correlation) of stride 1 that keeps the size.

    Args:
        images: `[batch, height, width, in]`.
        kernel: `[k, k, in, out]` with odd k, or what `prepare_kernel` makes of it; a prepared
            kernel is frozen and its gradient is zero.
        bias: `[out]`.
        padding: what lies beyond the border, `(k - 1) / 2` pixels: "zero", "reflect" (the border
            pixel is not repeated) or "replicate". An axis of one pixel is replicated.

    Returns:
        `[batch, height, width, out]`.
    """
    raw = kernel.kernel if isinstance(kernel, PreparedKernel) else kernel
    _check(images, raw, padding)
    if raw.shape[:2] == (1, 1):
        # As a matrix product: XLA's convolution of one tap is no faster, its gradient slower.
        result = jnp.matmul(images, raw[0, 0], precision=_PRECISION)
    elif padding == "zero":
        result = _zero_conv(images, kernel)
    elif raw.shape[:2] == (3, 3):
        result = lax.platform_dependent(
            images,
            kernel,
            cpu=functools.partial(_bordered_conv, padding),
            default=functools.partial(_padded_conv, padding),
        )
    else:
        result = _padded_conv(padding, images, kernel)
    return result if bias is None else result + bias


def pad(images: Array, amount: int, padding: str) -> Array:
    """Pads height and width by `amount` pixels on each side, as `conv2d` sees them.

    Reflection beyond the other side of a small picture goes on to and fro.
    """
    amounts = ((0, 0), (amount, amount), (amount, amount), (0, 0))
    return jnp.pad(images, amounts, mode=_PAD_MODES[padding])


def _check(images: Array, kernel: Array, padding: str) -> None:
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(PADDINGS)}; got {padding!r}")
    if images.ndim != 4 or kernel.ndim != 4 or images.shape[3] != kernel.shape[2]:
        raise ValueError(
            "conv2d expected images [batch, height, width, in] and a kernel [k, k, in, out] with "
            f"the same number of input channels; got {images.shape} and {kernel.shape}"
        )
    if kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ValueError(f"conv2d expected a square kernel of odd size; got {kernel.shape}")


def _xla_conv(images: Array, kernel: Array, padding: str = "SAME") -> Array:
    return lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=_LAYOUT, precision=_PRECISION
    )


def _padded_conv(padding: str, images: Array, kernel: PreparedKernel | Array) -> Array:
    raw = lax.stop_gradient(kernel.kernel) if isinstance(kernel, PreparedKernel) else kernel
    return _xla_conv(pad(images, raw.shape[0] // 2, padding), raw, "VALID")


# --- zero padding --------------------------------------------------------------------------------


def _zero_conv(images: Array, kernel: PreparedKernel | Array) -> Array:
    if isinstance(kernel, PreparedKernel):
        return _frozen_zero_conv(images, kernel)
    return _xla_conv(images, kernel)


def _flipped(kernel: Array) -> Array:
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _cpu_conv(images: Array, kernel: Array, rows: tuple[Array, ...]) -> Array:
    if uses_winograd(kernel.shape, images.shape[1] * images.shape[2]):
        return _winograd(images, rows)
    return _xla_conv(images, kernel)


@jax.custom_vjp
def _frozen_zero_conv(images: Array, kernel: PreparedKernel) -> Array:
    return lax.platform_dependent(
        images,
        kernel,
        cpu=lambda x, k: _cpu_conv(x, k.kernel, k.forward),
        default=lambda x, k: _xla_conv(x, k.kernel),
    )


def _frozen_zero_conv_fwd(images: Array, kernel: PreparedKernel) -> tuple[Array, PreparedKernel]:
    return _frozen_zero_conv(images, kernel), kernel


def _frozen_zero_conv_bwd(kernel: PreparedKernel, cotangent: Array) -> tuple[Array, PreparedKernel]:
    # With zero padding the gradient of the input is a convolution with the flipped kernel.
    gradient = lax.platform_dependent(
        cotangent,
        kernel,
        cpu=lambda dy, k: _cpu_conv(dy, _flipped(k.kernel), k.backward),
        default=lambda dy, k: _xla_conv(dy, _flipped(k.kernel)),
    )
    return gradient, jax.tree.map(jnp.zeros_like, kernel)


_frozen_zero_conv.defvjp(_frozen_zero_conv_fwd, _frozen_zero_conv_bwd)


# --- other paddings, on the CPU ------------------------------------------------------------------
#
# A padded copy of the picture costs more than the convolution of a narrow layer, and XLA's VALID
# convolution is several times slower than its SAME one. A convolution is linear, so the padded one
# is the zero-padded one plus what the padding adds to the outermost rows and columns, in place.


class _Strips(NamedTuple):
    """The pixels that are seen beyond each border: `[b, 1, w, c]` twice, `[b, h, 1, c]` twice."""

    top: Array
    bottom: Array
    left: Array
    right: Array


def _strip_index(size: int, padding: str) -> tuple[int, int]:
    """The row or column seen just before the first one, and the one just after the last."""
    inset = 1 if padding == "reflect" and size > 1 else 0
    return inset, size - 1 - inset


def _take_strips(images: Array, padding: str) -> _Strips:
    top, bottom = _strip_index(images.shape[1], padding)
    left, right = _strip_index(images.shape[2], padding)
    return _Strips(
        images[:, top : top + 1],
        images[:, bottom : bottom + 1],
        images[:, :, left : left + 1],
        images[:, :, right : right + 1],
    )


def _add_at(images: Array, strip: Array, axis: int, index: int) -> Array:
    strip = strip + lax.slice_in_dim(images, index, index + 1, axis=axis)
    return lax.dynamic_update_slice_in_dim(images, strip, index, axis)


def _border_terms(padding: str, strips: _Strips, kernel: Array) -> _Strips:
    """What the padding adds to the first and last row and column of the output.

    The corners beyond the picture belong to the rows, hence the zeros at the ends of the columns.
    """

    def row(strip: Array, taps: Array) -> Array:
        wide = jnp.pad(strip, ((0, 0), (0, 0), (1, 1), (0, 0)), mode=_PAD_MODES[padding])
        return _xla_conv(wide, taps[None], "VALID")

    def column(strip: Array, taps: Array) -> Array:
        tall = jnp.pad(strip, ((0, 0), (1, 1), (0, 0), (0, 0)))
        return _xla_conv(tall, taps[:, None], "VALID")

    return _Strips(
        row(strips.top, kernel[0]),
        row(strips.bottom, kernel[2]),
        column(strips.left, kernel[:, 0]),
        column(strips.right, kernel[:, 2]),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bordered_conv(padding: str, images: Array, kernel: PreparedKernel | Array) -> Array:
    raw = kernel.kernel if isinstance(kernel, PreparedKernel) else kernel
    result = _zero_conv(images, kernel)
    terms = _border_terms(padding, _take_strips(images, padding), raw)
    for axis in (1, 2):
        first, last = (terms.top, terms.bottom) if axis == 1 else (terms.left, terms.right)
        result = _add_at(result, first, axis, 0)
        result = _add_at(result, last, axis, result.shape[axis] - 1)
    return result


def _bordered_conv_fwd(
    padding: str, images: Array, kernel: PreparedKernel | Array
) -> tuple[Array, tuple[Array, PreparedKernel | Array]]:
    return _bordered_conv(padding, images, kernel), (images, kernel)


def _bordered_conv_bwd(
    padding: str, residuals: tuple[Array, PreparedKernel | Array], cotangent: Array
) -> tuple[Array, PreparedKernel | Array]:
    images, kernel = residuals
    frozen = isinstance(kernel, PreparedKernel)
    raw = kernel.kernel if frozen else kernel
    gradient, kernel_gradient = jax.vjp(_zero_conv, images, kernel)[1](cotangent)
    outer = _Strips(cotangent[:, :1], cotangent[:, -1:], cotangent[:, :, :1], cotangent[:, :, -1:])
    strips, transpose = jax.vjp(
        functools.partial(_border_terms, padding), _take_strips(images, padding), raw
    )
    del strips
    strip_gradients, border_kernel_gradient = transpose(outer)
    for axis in (1, 2):
        first, last = _strip_index(images.shape[axis], padding)
        pair = strip_gradients[:2] if axis == 1 else strip_gradients[2:]
        gradient = _add_at(gradient, pair[0], axis, first)
        gradient = _add_at(gradient, pair[1], axis, last)
    if not frozen:
        kernel_gradient = kernel_gradient + border_kernel_gradient
    return gradient, kernel_gradient


_bordered_conv.defvjp(_bordered_conv_fwd, _bordered_conv_bwd)


# --- Winograd ------------------------------------------------------------------------------------


def _transform_kernel(kernel: np.ndarray) -> tuple[Array, ...]:
    """The rows of G w G^T, six arrays `[6, in, out]`, computed in float64 and rounded once."""
    down = np.tensordot(_KERNEL, kernel.astype(np.float64), axes=(1, 0))
    transformed = np.tensordot(_KERNEL, down, axes=(1, 1)).swapaxes(0, 1)
    return tuple(jnp.asarray(np.ascontiguousarray(row, np.float32)) for row in transformed)


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


def _winograd(images: Array, rows: tuple[Array, ...]) -> Array:
    """Zero-padded 3x3 convolution by F(4x4, 3x3), a row of the transformed kernel at a time.

    The barriers keep XLA from fusing the vertical transform into the horizontal one, which would
    compute it six times over.
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
