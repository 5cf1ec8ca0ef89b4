"""Features of a content with the statistics of a style: pure functions.

Features are `[batch, height, width, channels]`. Moments may be of regions, `[batch, regions,
channels]`, with masks `[batch, height, width, regions]` that say how much of each position lies in
which; they sum to one. Statistics are float32 whatever the features are.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxstyle.losses import Moments, channel_moments

# Added to variances, as Huang and Belongie's code has it.
EPSILON = 1e-5
# How far a region's covariance of colours is moved to the mean of all regions.
_POOLED = 0.25
# What varies less, in parts of the size of all channels, is flat. Rounding leaves up to 6e-7 of
# that in the features of a flat picture, and normalisations would make full contrast out of it.
_FLAT = 1e-4


def is_flat(mean: Array, variance: Array) -> Array:
    """Which channels are flat but for rounding, and so have nothing to normalise.

    Args:
        mean: of each channel of some features, `[..., channels]`.
        variance: the same, with nothing added.

    Returns:
        bool `[..., channels]`.
    """
    size = jnp.mean(jnp.square(mean) + variance, axis=-1, keepdims=True)
    return variance <= _FLAT**2 * size


def adain(
    content_features: Array,
    style_features: Array | None,
    *,
    moments: Moments | None = None,
    content_moments: Moments | None = None,
    eps: float = EPSILON,
) -> Array:
    """Adaptive instance normalisation (Huang and Belongie 2017, arXiv 1703.06868, Eq. 8).

    Each channel of the content gets the style's mean and deviation:
    std(y) * (x - mean(x)) / std(x) + mean(y). adain(x, x) is x, to rounding. A flat channel (see
    `is_flat`) gets the style's mean alone.

    Args:
        content_features: `[batch, height, width, channels]`.
        style_features: `[batch or 1, h, w, channels]`; None with `moments`.
        moments: of the style, each `[batch or 1, channels]`, in place of its features.
        content_moments: of the content, each `[batch, channels]`; computed if None. A tile of a
            picture needs those of the whole.
        eps: added to variances, in squared units of the features: flat channels stay finite.

    Returns:
        `[batch, height, width, channels]`, of the content's type.

    Raises:
        ValueError: both or neither of style features and moments, or shapes that do not agree.
    """
    if (style_features is None) == (moments is None):
        raise ValueError("adain expected either style_features or moments of the style")
    if moments is None:
        moments = channel_moments(style_features, eps=eps)  # pyright: ignore[reportArgumentType]
    if content_moments is None:
        content_moments = channel_moments(content_features, eps=eps)
    shape = (content_features.shape[0], content_features.shape[-1])
    for name, found in (("moments", moments), ("content_moments", content_moments)):
        for part in found:
            if part.ndim != 2 or part.shape[0] not in (1, shape[0]) or part.shape[1] != shape[1]:
                raise ValueError(
                    f"adain: {name} must be {shape}, for the content; got {part.shape}"
                )
    scale = _scale(moments, content_moments, eps)
    shift = moments.mean - content_moments.mean * scale
    made = content_features.astype(jnp.float32) * scale[:, None, None] + shift[:, None, None]
    return made.astype(content_features.dtype)


def _scale(moments: Moments, own: Moments, eps: float) -> Array:
    """What features are multiplied by: the style's deviation over their own, 0 for flat ones."""
    variance = jnp.maximum(jnp.square(own.std) - eps, 0)
    return jnp.where(is_flat(own.mean, variance), 0, moments.std / own.std)


def region_moments(features: Array, masks: Array, *, eps: float = EPSILON) -> Moments:
    """Mean and deviation of each channel within regions.

    Args:
        features: `[batch, height, width, channels]`.
        masks: `[batch, height, width, regions]`, not negative. A region without any positions
            gets a mean of zero and a deviation of sqrt(eps).
        eps: added to the variance.

    Returns:
        `Moments`, each `[batch, regions, channels]`.

    Raises:
        ValueError: shapes that do not agree.
    """
    if features.ndim != 4 or masks.ndim != 4 or features.shape[:3] != masks.shape[:3]:
        raise ValueError(
            "region_moments expected features [batch, height, width, channels] and masks [batch, "
            f"height, width, regions] of one size; got {features.shape} and {masks.shape}"
        )
    x, shares = features.astype(jnp.float32), masks.astype(jnp.float32)
    shares = shares / jnp.maximum(jnp.sum(shares, (1, 2), keepdims=True), 1e-12)
    means, deviations = [], []
    for region in range(masks.shape[3]):
        share = shares[..., region, None]
        mean = jnp.sum(share * x, (1, 2))
        variance = jnp.sum(share * jnp.square(x - mean[:, None, None]), (1, 2))
        means.append(mean)
        deviations.append(jnp.sqrt(variance + eps))
    return Moments(jnp.stack(means, 1), jnp.stack(deviations, 1))


def adain_regions(
    content_features: Array,
    moments: Moments,
    masks: Array,
    *,
    content_moments: Moments | None = None,
    eps: float = EPSILON,
) -> Array:
    """Adaptive instance normalisation with a style for each region of the content.

    Within a region, the content's own moments are those of the region. Where masks overlap, as
    they do at soft borders, the results are mixed by them.

    Args:
        content_features: `[batch, height, width, channels]`.
        moments: of the styles, `[batch, regions, channels]`.
        masks: `[batch, height, width, regions]`, which sum to one.
        content_moments: of the content's regions, `[batch, regions, channels]`; computed if None.
        eps: added to variances.

    Returns:
        `[batch, height, width, channels]`, of the content's type.
    """
    if content_moments is None:
        content_moments = region_moments(content_features, masks, eps=eps)
    scale = _scale(moments, content_moments, eps)
    shift = moments.mean - content_moments.mean * scale
    shares = masks.astype(jnp.float32)
    scale, shift = (spread(values, shares) for values in (scale, shift))
    made = content_features.astype(jnp.float32) * scale + shift
    return made.astype(content_features.dtype)


def spread(values: Array, masks: Array) -> Array:
    """Values of regions at positions: `[batch, regions, c]` and masks to `[batch, h, w, c]`."""
    return jnp.einsum("bhwr,brc->bhwc", masks, values, precision="highest")


def resize_masks(masks: Array, height: int, width: int) -> Array:
    """Masks at the size of some features, which still sum to one.

    Args:
        masks: `[batch, h, w, regions]`, which sum to one.
        height: of the features.
        width: of the features.
    """
    shape = (masks.shape[0], height, width, masks.shape[3])
    if masks.shape == shape:
        return masks
    small = jax.image.resize(masks.astype(jnp.float32), shape, "linear", antialias=True)
    return small / jnp.maximum(jnp.sum(small, -1, keepdims=True), 1e-12)


def mix_moments(moments: Sequence[Moments], weights: Sequence[float | Array]) -> Moments:
    """Moments between those of several styles: means and deviations are averaged.

    Normalised features that get these are the weighted sum of what they get with each style alone
    (Huang and Belongie 2017, Eq. 15).

    Args:
        moments: of the styles, all of one shape.
        weights: one a style, scalars that sum to one.

    Raises:
        ValueError: no moments, or not as many weights.
    """
    if not moments or len(moments) != len(weights):
        raise ValueError(f"expected a weight for each style; got {len(weights)}, {len(moments)}")
    pairs = list(zip(weights, moments, strict=True))
    return Moments(sum(w * m.mean for w, m in pairs), sum(w * m.std for w, m in pairs))  # pyright: ignore[reportArgumentType]


# --- colours -------------------------------------------------------------------------------------


def with_sums(pictures: Array) -> Array:
    """Red, green and blue, and beside them the sums of each two, `[..., 6]`.

    The deviations of these six say what the covariance of three says (`covariance_root`), and they
    are gathered and mixed as those of any channels are.
    """
    red, green, blue = (pictures[..., i] for i in range(3))
    return jnp.stack([red, green, blue, red + green, red + blue, green + blue], axis=-1)


def pooled(variances: Array, weights: Array) -> Array:
    """Variances of regions, each moved some way to their mean.

    A region that is nearly flat has little of its own but what its neighbours leave at its border:
    this would be a bright or a dark outline, if it were made into the whole contrast of a painting.

    Args:
        variances: of what `with_sums` gives, `[..., regions, 6]`.
        weights: how much of the picture each region is, `[..., regions, 1]`.

    Returns:
        `[..., regions, 6]`.
    """
    total = jnp.maximum(jnp.sum(weights, -2, keepdims=True), 1e-12)
    mean = jnp.sum(weights * variances, -2, keepdims=True) / total
    return (1 - _POOLED) * variances + _POOLED * mean


def covariance_root(std: Array) -> Array:
    """The lower triangular root of the covariance of colours: root @ root.T is the covariance.

    Args:
        std: deviations of what `with_sums` gives, `[..., 6]`.

    Returns:
        `[..., 3, 3]`. What would be less than EPSILON of a variance is raised to that: the root has
        an inverse whatever the colours are.
    """
    red, green, blue, red_green, red_blue, green_blue = (std[..., i] ** 2 for i in range(6))
    zero = jnp.zeros_like(red)
    a = jnp.sqrt(jnp.maximum(red, EPSILON))
    b = 0.5 * (red_green - red - green) / a
    c = 0.5 * (red_blue - red - blue) / a
    d = jnp.sqrt(jnp.maximum(green - b**2, EPSILON))
    e = (0.5 * (green_blue - green - blue) - b * c) / d
    f = jnp.sqrt(jnp.maximum(blue - c**2 - e**2, EPSILON))
    rows = (a, zero, zero), (b, d, zero), (c, e, f)
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def times_colors(matrices: Array, pictures: Array) -> Array:
    """Matrices `[..., 3, 3]` times colours `[..., 3]`, whose other axes are those or 1."""
    # No product of matrices: as a sum it is done in the loop that makes the colours.
    return jnp.sum(matrices * pictures[..., None, :], axis=-1)


def inverse_root(root: Array) -> Array:
    """The inverse of a lower triangular matrix `[..., 3, 3]`."""
    a, b, c = root[..., 0, 0], root[..., 1, 0], root[..., 2, 0]
    d, e, f = root[..., 1, 1], root[..., 2, 1], root[..., 2, 2]
    zero = jnp.zeros_like(a)
    rows = (
        (1 / a, zero, zero),
        (-b / (a * d), 1 / d, zero),
        ((b * e - c * d) / (a * d * f), -e / (d * f), 1 / f),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)
