"""Convolutions as smaller ones over blocks of pixels, for the CPU.

A kernel of 9x9 pixels is one of 3x3 blocks of 4x4 pixels, whose 16 pixels are its channels; and a
3x3 kernel on pixels that were repeated 2x2 is one of 2x2 on the pixels as they were, with four
outputs for each. Kernels are rearranged when they are used, so that they can be learnt.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxstyle import winograd

LARGEST = 9  # size of kernels that blocks and their neighbours see the whole of
_BLOCK = 4
_LAYOUT = ("NHWC", "HWIO", "NHWC")
_PRECISION = lax.Precision.HIGHEST


def large(padded: Array, kernel: Array) -> Array:
    """Convolution with a large kernel, of 5x5 to 9x9, of pictures that were padded before.

    It pays where one side has few channels, such as the three of colours: then the block has as
    many as arithmetic needs, though 9x9 of its 12x12 taps alone are not zero.

    Args:
        padded: `[batch, height + 8, width + 8, in]`, with four pixels on each side.
        kernel: `[k, k, in, out]` with odd k.

    Returns:
        `[batch, height, width, out]`.
    """
    batch, height, width, inputs = padded.shape
    height, width = height - 2 * _BLOCK, width - 2 * _BLOCK
    extra = ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0))
    blocks = jnp.pad(padded, extra)
    down, across = blocks.shape[1] // _BLOCK, blocks.shape[2] // _BLOCK
    blocks = blocks.reshape(batch, down, _BLOCK, across, _BLOCK, inputs).swapaxes(2, 3)
    blocks = blocks.reshape(batch, down, across, _BLOCK**2 * inputs)
    made = valid(blocks, _large_blocks(kernel))
    down, across = down - 2, across - 2
    made = made.reshape(batch, down, across, _BLOCK, _BLOCK, kernel.shape[3]).swapaxes(2, 3)
    return made.reshape(batch, down * _BLOCK, across * _BLOCK, -1)[:, :height, :width]


def upsampled(padded: Array, kernel: Array) -> Array:
    """3x3 convolution of pictures whose pixels were repeated 2x2.

    Args:
        padded: `[batch, height + 2, width + 2, in]`: the pictures before that, with one pixel more
            on each side, which stands for what lies beyond.
        kernel: `[3, 3, in, out]`.

    Returns:
        `[batch, 2 height, 2 width, out]`.
    """
    batch, height, width, _ = padded.shape
    height, width, outputs = height - 2, width - 2, kernel.shape[3]
    made = valid(padded, _upsampled_blocks(kernel))
    made = made.reshape(batch, height + 1, width + 1, 2, 2, outputs)
    # Upper pixels are made of a pixel and the one above it, lower ones of it and the one below.
    rows = [
        jnp.stack([made[:, i : i + height, j : j + width, i, j] for j in range(2)], axis=3)
        for i in range(2)
    ]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, outputs)


# --- kernels -------------------------------------------------------------------------------------


def _spread(taps: np.ndarray, kernel: Array) -> Array:
    """Puts the taps of a kernel where a matrix `[places, k]` says, `[places, places, in, out]`."""
    places, size = taps.shape
    taps = taps.astype(kernel.dtype)  # or a kernel of bfloat16 would become float32
    down = jnp.matmul(taps, kernel.reshape(size, -1), precision=_PRECISION)
    both = jnp.matmul(taps, down.reshape(places, size, -1), precision=_PRECISION)
    return both.reshape(places, places, *kernel.shape[2:])


def _large_blocks(kernel: Array) -> Array:
    """`[k, k, in, out]` to `[3, 3, 16 in, 16 out]`."""
    size, (inputs, outputs) = kernel.shape[0], kernel.shape[2:]
    taps = np.zeros((3, _BLOCK, _BLOCK, size), np.float32)  # block, its input, output, tap
    for block, i, o in np.ndindex(3, _BLOCK, _BLOCK):
        tap = (block - 1) * _BLOCK + i - o + size // 2
        if 0 <= tap < size:
            taps[block, i, o, tap] = 1
    spread = _spread(taps.reshape(-1, size), kernel)
    spread = spread.reshape(3, _BLOCK, _BLOCK, 3, _BLOCK, _BLOCK, inputs, outputs)
    spread = spread.transpose(0, 3, 1, 4, 6, 2, 5, 7)
    return spread.reshape(3, 3, _BLOCK**2 * inputs, _BLOCK**2 * outputs)


def _upsampled_blocks(kernel: Array) -> Array:
    """`[3, 3, in, out]` to `[2, 2, in, 4 out]`."""
    inputs, outputs = kernel.shape[2:]
    taps = np.zeros((2, 2, 3), np.float32)  # which of the two outputs, of the two inputs, tap
    for o, tap in np.ndindex(2, 3):
        taps[o, (o + tap + 1) // 2 - o, tap] = 1
    spread = _spread(taps.reshape(-1, 3), kernel).reshape(2, 2, 2, 2, inputs, outputs)
    return spread.transpose(1, 3, 4, 0, 2, 5).reshape(2, 2, inputs, 4 * outputs)


# --- convolution without padding -----------------------------------------------------------------


@jax.custom_vjp
def valid(images: Array, kernel: Array) -> Array:
    """Convolution without padding, and with the gradients that the CPU is fast at.

    Args:
        images: `[batch, height, width, in]`.
        kernel: `[k, k, in, out]`; k is 2 or 3.

    Returns:
        `[batch, height - k + 1, width - k + 1, out]`.
    """
    return _framed(images, kernel)[:, 1:-1, 1:-1]


def _framed(images: Array, kernel: Array) -> Array:
    """Convolution with one zero on each side, which XLA is several times faster at than at none."""
    positions = images.shape[0] * images.shape[1] * images.shape[2]
    if images.dtype == jnp.float32 and winograd.pays(kernel.shape, positions, frozen=False):
        return winograd.convolve(images, winograd.transform(kernel))
    return lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=_LAYOUT,
        precision=_PRECISION,
    )


def _valid_fwd(images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return valid(images, kernel), (images, kernel)


def _valid_bwd(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    images, kernel = residuals
    frame = kernel.shape[0] - 2
    amounts = ((0, 0), (frame, frame), (frame, frame), (0, 0))
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    gradient = _framed(jnp.pad(cotangent, amounts), flipped)
    return gradient, _kernel_gradient(images, cotangent, kernel.shape[0])


valid.defvjp(_valid_fwd, _valid_bwd)


def _kernel_gradient(images: Array, cotangent: Array, size: int) -> Array:
    """A matrix product for each tap, in which what has fewer channels is moved about."""
    inputs, outputs = images.shape[3], cotangent.shape[3]
    swapped = inputs > outputs
    if swapped:
        border = (size - 1, size - 1)
        moved, still = jnp.pad(cotangent, ((0, 0), border, border, (0, 0))), images
    else:
        moved, still = images, cotangent
    height, width = still.shape[1:3]
    still = still.reshape(-1, still.shape[3])
    products = []
    for down, across in np.ndindex(size, size):
        if swapped:
            down, across = size - 1 - down, size - 1 - across
        seen = moved[:, down : down + height, across : across + width]
        product = lax.dot_general(
            seen.reshape(-1, moved.shape[3]),
            still,
            (((0,), (0,)), ((), ())),
            precision=_PRECISION,
            preferred_element_type=jnp.float32,
        )
        products.append(product.T if swapped else product)
    return jnp.stack(products).reshape(size, size, inputs, outputs).astype(images.dtype)
