"""How alike pictures are: pure functions, one value for each image of a batch."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle.losses import check_array, check_pair

# Wang et al. 2004: window, constants of Eq. 13 relative to the range of the values.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
# Rows that are blurred at once.
_BLOCK = 128


def ssim(images: Array, references: Array, *, max_value: float = 1.0) -> Array:
    """Structural similarity (Wang et al. 2004, "Image Quality Assessment", Eq. 13).

    With a Gaussian window of 11x11 pixels and a deviation of 1.5, where it lies wholly within the
    picture; the mean over positions and channels.

    Args:
        images: `[batch, height, width, channels]`.
        references: of the same shape.
        max_value: range of the values: 1 for pictures in [0, 1].

    Returns:
        `[batch]` in [-1, 1]; 1 for equal pictures.

    Raises:
        ValueError: shapes that do not agree, or sides of less than 11 pixels.
    """
    check_array("ssim", "images", images, "batch, height, width, channels")
    check_pair("ssim", images, references, "compare pictures of one size")
    if min(images.shape[1:3]) < _WINDOW:
        raise ValueError(f"ssim expected sides of {_WINDOW} pixels or more; got {images.shape}")
    x, y = images.astype(jnp.float32), references.astype(jnp.float32)
    # Around a common mean the sums below lose no digits.
    middle = jnp.mean(x, (1, 2), keepdims=True)
    a, b = x - middle, y - middle
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    mean_x, mean_y = mean_a + middle, mean_b + middle
    c1, c2 = (_K1 * max_value) ** 2, (_K2 * max_value) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _blur(x: Array) -> Array:
    """Means within a Gaussian window around each position that is far enough from the border."""
    for _ in range(2):
        # Products with a band of a matrix: a convolution of single channels, and its gradient, take
        # ten times longer on the CPU. In blocks, for the band's cost not to grow with the picture.
        starts = range(0, x.shape[1] - _WINDOW + 1, _BLOCK)
        blocks = [x[:, i : i + _BLOCK + _WINDOW - 1] for i in starts]
        x = jnp.concatenate(
            [
                jnp.einsum("ij,bjwc->bwic", _band(part.shape[1]), part, precision="highest")
                for part in blocks
            ],
            axis=2,
        )
    return x


def _band(size: int) -> np.ndarray:
    """The window at each of its places among `size` values, `[places, size]`."""
    offsets = np.arange(size)[None] - np.arange(size - _WINDOW + 1)[:, None]
    weights = np.exp(-0.5 * ((offsets - _WINDOW // 2) / _SIGMA) ** 2)
    weights[(offsets < 0) | (offsets >= _WINDOW)] = 0
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
