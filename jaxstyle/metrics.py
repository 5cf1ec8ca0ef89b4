"""How alike pictures are: pure functions, one value for each image of a batch."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxstyle.losses import check_array, check_pair

# Wang et al. 2004: window, constants of Eq. 13 relative to the range of the values.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


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
    places = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-0.5 * (places / _SIGMA) ** 2)
    window = jnp.asarray(window / window.sum(), jnp.float32)
    batch, height, width, channels = x.shape
    planes = x.transpose(0, 3, 1, 2).reshape(batch * channels, height, width, 1)
    for shape in ((_WINDOW, 1, 1, 1), (1, _WINDOW, 1, 1)):
        planes = lax.conv_general_dilated(
            planes,
            window.reshape(shape),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
    return planes.reshape(batch, channels, *planes.shape[1:3]).transpose(0, 2, 3, 1)
