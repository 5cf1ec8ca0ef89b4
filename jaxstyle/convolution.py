"""The convolutions that everything calls: XLA's own on GPU and TPU; on the CPU, what is faster.

There, 3x3 kernels between many channels go through Winograd's algorithm (`jaxstyle.winograd`), and
large kernels and convolutions of enlarged pictures through blocks of pixels
(`jaxstyle.block_convolution`).

The platform is chosen where the code is lowered, not where it is traced, so that one function
exports to every platform.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxstyle import block_convolution, winograd
from jaxstyle.config import PADDINGS

_PAD_MODES = {"zero": "constant", "reflect": "reflect", "replicate": "edge"}  # of jnp.pad
_Padding = str | Sequence[tuple[int, int]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 4  # for a large kernel to be faster in blocks, and outputs tap by tap
# XLA gives the threads of a CPU as many columns at a time as have so many taps between them, or so
# many outputs, and all rows of them; it pays to arrange for more such shares, in pictures so large.
_SHARED_TAPS = 73728
_SHARED_OUTPUTS = 64
_SHARED_POSITIONS = 64 * 64
_MOST_SHARES = 8
# float32 means float32: without this a GPU may use TF32 and a TPU bfloat16.
_PRECISION = lax.Precision.HIGHEST


class PreparedKernel(NamedTuple):
    """A frozen 3x3 kernel with its Winograd transforms; a pytree, to be passed as an argument.

    Attributes:
        kernel: the kernel itself, `[3, 3, in, out]`, used off the CPU and at borders.
        forward: six arrays `[6, in, out]`, a row each of the transformed kernel. They are separate
            arrays because a slice of one array would be copied at every use. None of a kernel for
            which Winograd pays at no size of picture.
        backward: the same of the flipped kernel, `[6, out, in]`, for the gradient of the input.
    """

    kernel: Array
    forward: tuple[Array, ...]
    backward: tuple[Array, ...]


def prepare_kernel(kernel: Any, *, brief: bool = False) -> PreparedKernel | Array:
    """Transforms a frozen kernel once, for `conv2d` on the CPU.

    Args:
        kernel: `[height, width, in, out]`, float32, concrete (not traced).
        brief: for a program that runs so few times that its compilation counts: narrow kernels are
            left to XLA's convolution, which compiles in a fraction of the time.

    Returns:
        A `PreparedKernel`, or the kernel as it is.
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.shape[:2] != (3, 3):
        return jnp.asarray(kernel)
    if min(kernel.shape[2:]) < winograd.LEAST_CHANNELS:
        # As an array it would be taken for one that is learnt, and be transformed at each use.
        return PreparedKernel(jnp.asarray(kernel), (), ()) if brief else jnp.asarray(kernel)
    return PreparedKernel(
        jnp.asarray(kernel),
        winograd.transform_frozen(kernel),
        winograd.transform_frozen(kernel[::-1, ::-1].transpose(0, 1, 3, 2)),
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
    elif raw.shape[:2] == (3, 3):
        result = (
            _zero_conv(images, kernel) if padding == "zero" else _bordered(padding)(images, kernel)
        )
    else:
        result = _wide(padding)(images, kernel)
    return result if bias is None else result + bias


def conv2d_upsampled(
    images: Array, kernel: Array, *, bias: Array | None = None, padding: str = "reflect"
) -> Array:
    """`conv2d` of pictures whose pixels were repeated 2x2 (`repeat_pixels`).

    Args:
        images: `[batch, height, width, in]`.
        kernel: `[k, k, in, out]` with odd k.
        bias: `[out]`.
        padding: what lies beyond the border of the enlarged pictures, as for `conv2d`.

    Returns:
        `[batch, 2 height, 2 width, out]`.
    """
    _check(images, kernel, padding)
    if kernel.shape[:2] == (3, 3):
        result = _enlarged(padding)(images, kernel)
        return result if bias is None else result + bias
    return conv2d(repeat_pixels(images), kernel, bias=bias, padding=padding)


def repeat_pixels(images: Array) -> Array:
    """Each pixel as a block of 2x2: `[batch, h, w, c]` to `[batch, 2 h, 2 w, c]`."""
    batch, height, width, channels = images.shape
    blocks = jnp.broadcast_to(images[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return blocks.reshape(batch, 2 * height, 2 * width, channels)


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


def _xla_conv(images: Array, kernel: Array, padding: _Padding = "SAME") -> Array:
    return lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=_LAYOUT, precision=_PRECISION
    )


def _padded_conv(padding: str, images: Array, kernel: PreparedKernel | Array) -> Array:
    raw = lax.stop_gradient(kernel.kernel) if isinstance(kernel, PreparedKernel) else kernel
    return _xla_conv(pad(images, raw.shape[0] // 2, padding), raw, "VALID")


def _per_platform(cpu: Callable[..., Array], default: Callable[..., Array]) -> Callable[..., Array]:
    """A convolution that is done in one way on the CPU and in another elsewhere, and its gradient.

    Were the choice itself differentiated, each way would have to keep what the other one needs.
    """

    @jax.custom_vjp
    def convolve(images: Array, kernel: Any) -> Array:
        return lax.platform_dependent(images, kernel, cpu=cpu, default=default)

    def forward(images: Array, kernel: Any) -> tuple[Array, tuple[Array, Any]]:
        return convolve(images, kernel), (images, kernel)

    def transposed(way: Callable[..., Array]) -> Callable[..., tuple[Array, Any]]:
        return lambda images, kernel, cotangent: jax.vjp(way, images, kernel)[1](cotangent)

    def backward(residuals: tuple[Array, Any], cotangent: Array) -> tuple[Array, Any]:
        return lax.platform_dependent(
            *residuals, cotangent, cpu=transposed(cpu), default=transposed(default)
        )

    convolve.defvjp(forward, backward)
    return convolve


# --- large kernels, and enlarged pictures --------------------------------------------------------


@functools.cache
def _wide(padding: str) -> Callable[..., Array]:
    return _per_platform(
        functools.partial(_wide_conv, padding), functools.partial(_padded_conv, padding)
    )


def _wide_conv(padding: str, images: Array, kernel: Array) -> Array:
    """Convolution with a kernel of 5x5 or more on the CPU."""
    size = kernel.shape[0]
    if size <= block_convolution.LARGEST and min(kernel.shape[2:]) <= _FEW_CHANNELS:
        return block_convolution.large(pad(images, 4, padding), kernel)
    # XLA's convolution without padding is several times slower than that with it.
    reach = size // 2
    return _xla_conv(pad(images, reach, padding), kernel)[:, reach:-reach, reach:-reach]


@functools.cache
def _enlarged(padding: str) -> Callable[..., Array]:
    def cpu(images: Array, kernel: Array) -> Array:
        # Beyond the border, reflection sees the twin of the border pixel.
        beyond = "zero" if padding == "zero" else "replicate"
        return block_convolution.upsampled(pad(images, 1, beyond), kernel)

    def default(images: Array, kernel: Array) -> Array:
        return _padded_conv(padding, repeat_pixels(images), kernel)

    return _per_platform(cpu, default)


# --- zero padding --------------------------------------------------------------------------------


def _zero_conv(images: Array, kernel: PreparedKernel | Array) -> Array:
    if isinstance(kernel, PreparedKernel):
        return _frozen_zero_conv(images, kernel)
    return _learnt_zero_conv(images, kernel)


def _flipped(kernel: Array) -> Array:
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _positions(images: Array) -> int:
    return images.shape[0] * images.shape[1] * images.shape[2]


def _cpu_conv(images: Array, kernel: Array, rows: tuple[Array, ...]) -> Array:
    if rows and winograd.pays(kernel.shape, _positions(images), frozen=True):
        return winograd.convolve(images, rows)
    return _few_conv(images, kernel)


def _few_conv(images: Array, kernel: Array) -> Array:
    """Convolution on the CPU with a small kernel, which may have as few outputs as a picture has.

    Those are made tap by tap: one matrix product for all of them, and a sum of its parts, shifted.
    It takes a third of the time of XLA's convolution, which computes as many as it has lanes.
    """
    inputs, outputs = kernel.shape[2:]
    whole = images.dtype == kernel.dtype == jnp.float32
    if not whole or outputs > _FEW_CHANNELS or inputs < 2 * _FEW_CHANNELS:
        return _shared_conv(images, kernel)
    size, reach = kernel.shape[0], kernel.shape[0] // 2
    height, width = images.shape[1:3]
    taps = kernel.transpose(2, 0, 1, 3).reshape(inputs, size * size * outputs)
    found = jnp.matmul(pad(images, reach, "zero"), taps, precision=_PRECISION)
    parts = [found[..., i * outputs : (i + 1) * outputs] for i in range(size * size)]
    return sum(  # pyright: ignore[reportReturnType]
        part[:, i // size :][:, :height, i % size :][:, :, :width] for i, part in enumerate(parts)
    )


def _shared_conv(images: Array, kernel: Array) -> Array:
    """XLA's convolution on the CPU, with enough columns for all of its threads.

    Where a picture has too few, its upper and lower parts are laid side by side, each with the rows
    that it sees of its neighbours. With two threads that takes 0.55 to 0.7 of the time.
    """
    size, _, inputs, outputs = kernel.shape
    height, width = images.shape[1:3]
    taps = size * size * inputs
    shares = -(-width * taps // _SHARED_TAPS) * max(1, outputs // _SHARED_OUTPUTS)
    parts = -(-min(os.cpu_count() or 1, _MOST_SHARES) // shares)
    if parts == 1 or inputs < 4 * _FEW_CHANNELS or _positions(images) < _SHARED_POSITIONS:
        return _xla_conv(images, kernel)
    reach, rows = size // 2, -(-height // parts)
    # One zero column between two parts is beyond the border of both.
    beyond = ((0, 0), (reach, reach + parts * rows - height), (0, reach), (0, 0))
    padded = jnp.pad(images, beyond)
    pieces = [padded[:, i * rows : (i + 1) * rows + 2 * reach] for i in range(parts)]
    found = _xla_conv(jnp.concatenate(pieces, 2), kernel, ((0, 0), (reach, reach)))
    step = width + reach
    pieces = [found[:, :, i * step : i * step + width] for i in range(parts)]
    return jnp.concatenate(pieces, 1)[:, :height]


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


@jax.custom_vjp
def _cpu_learnt(images: Array, kernel: Array) -> Array:
    # Winograd is for float32: its transforms lose what bfloat16 has of digits.
    whole = images.dtype == kernel.dtype == jnp.float32
    if whole and winograd.pays(kernel.shape, _positions(images), frozen=False):
        return winograd.convolve(images, winograd.transform(kernel))
    return _few_conv(images, kernel)


def _cpu_learnt_fwd(images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _cpu_learnt(images, kernel), (images, kernel)


def _cpu_learnt_bwd(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    images, kernel = residuals
    transpose = jax.vjp(lambda taps: _xla_conv(images, taps), kernel)[1]
    return _cpu_learnt(cotangent, _flipped(kernel)), transpose(cotangent)[0]


_cpu_learnt.defvjp(_cpu_learnt_fwd, _cpu_learnt_bwd)
_learnt_zero_conv = _per_platform(_cpu_learnt, _xla_conv)


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


@functools.cache
def _bordered(padding: str) -> Callable[..., Array]:
    return _per_platform(
        functools.partial(_bordered_conv, padding), functools.partial(_padded_conv, padding)
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
