"""Colours of pictures: luminance, moment and histogram matching, as pure functions.

Images are floating point [batch, height, width, 3], sRGB in [0, 1], and are used as stored: like
the paper, nothing here goes to linear light. A second picture may have another size, and a batch
of 1 for all. Statistics are computed in float32 at least; results have the type of the images.

The two ways of keeping a photograph's colours are those of Gatys, Bethge, Hertzmann and Shechtman,
"Preserving Color in Neural Artistic Style Transfer" (arXiv:1606.05897): give the style the colours
of the photograph and then transfer it (`match_moments`, `match_histogram`), or transfer only the
luminance (`match_luminance` on the style beforehand, `transfer_luminance` afterwards).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Rec. 601 luma, the Y of YIQ and of YUV alike.
LUMINANCE_WEIGHTS = (0.299, 0.587, 0.114)

_METHODS = ("cholesky", "symmetric", "channel")


class Statistics(NamedTuple):
    """What matching needs of a reference: of a large picture they can be summed in bands.

    Attributes:
        mean: of the colours, `[batch, 3]`.
        covariance: of the colours over pixels, `[batch, 3, 3]`.
    """

    mean: jax.Array
    covariance: jax.Array


def statistics(images: jax.Array) -> Statistics:
    """Those of images [batch, height, width, 3].

    Raises:
        ValueError: the array has another shape or is not floating point.
    """
    _check_images(images, "images")
    wide = _widened(images)
    mean = _mean(wide)
    return Statistics(mean[:, 0, 0], _covariance(wide - mean, 0.0))


def luminance(images: jax.Array) -> jax.Array:
    """The luminance Y = 0.299 R + 0.587 G + 0.114 B (Rec. 601, the Y of YIQ).

    Args:
        images: [batch, height, width, 3].

    Returns:
        [batch, height, width, 1], of the same range.

    Raises:
        ValueError: the array has another shape or is not floating point.
    """
    _check_images(images, "images")
    red, green, blue = (images[..., c : c + 1] for c in range(3))
    weights = LUMINANCE_WEIGHTS
    return weights[0] * red + weights[1] * green + weights[2] * blue


def transfer_luminance(images: jax.Array, content: jax.Array, *, clip: bool = True) -> jax.Array:
    """The luminance of the images with the colours of the content (arXiv:1606.05897).

    The paper replaces Y of the content in YIQ. The inverse of that matrix, as of every
    luma-chroma matrix, adds Y equally to red, green and blue, so that the replacement is
    content + (Y(images) - Y(content)), and the choice among such matrices makes no difference.

    Args:
        images: [batch, height, width, 3], from which the luminance comes.
        content: the same shape, or a batch of 1: gives the colours.
        clip: whether to clip to [0, 1]. Unclipped, the luminance of the result is exact, but
            strong colours may leave the range.

    Returns:
        [batch, height, width, 3].

    Raises:
        ValueError: the shapes do not fit or are not floating point.
    """
    _check_pair(images, content, "content", same_size=True)
    result = content + (luminance(images) - luminance(content))
    return _finish(result, images, clip)


def match_luminance(
    images: jax.Array, reference: jax.Array | Statistics, *, eps: float = 1e-6, clip: bool = True
) -> jax.Array:
    """Shifts and scales the luminance of images to the mean and deviation of a reference's.

    Y' = sigma_R / sigma_I (Y - mu_I) + mu_R, which arXiv:1606.05897 applies to the style, with the
    content as reference, before luminance is transferred. Deviations are sqrt(var + eps), so that
    flat images are finite. Colours (chrominance) stay; grey images stay grey.

    Args:
        images: [batch, height, width, 3], as a rule the style.
        reference: [batch or 1, height', width', 3], as a rule the content, or its `statistics`.
        eps: added to the variances.
        clip: whether to clip to [0, 1]; unclipped, mean and deviation are those of the reference.

    Returns:
        [batch, height, width, 3].

    Raises:
        ValueError: the shapes do not fit or are not floating point.
    """
    old = _widened(luminance(_checked(images, reference)))
    found = reference if isinstance(reference, Statistics) else statistics(reference)
    weights = jnp.asarray(LUMINANCE_WEIGHTS, found.mean.dtype)
    mean_wanted = _product(found.mean, weights)[:, None, None, None]
    variance = _product(_product(found.covariance, weights), weights)[:, None, None, None]
    mean_old = _mean(old)
    scale = jnp.sqrt((variance + eps) / (_variance(old) + eps))
    new = scale * (old - mean_old) + mean_wanted
    return _finish(_widened(images) + (new - old), images, clip)


def match_moments(
    images: jax.Array,
    reference: jax.Array | Statistics,
    *,
    method: str = "cholesky",
    eps: float = 1e-6,
    clip: bool = True,
) -> jax.Array:
    """Gives images the colour mean and covariance of a reference by x' = A (x - mu_I) + mu_R.

    The linear colour transfer of arXiv:1606.05897, for which A S_I A^T = S_R. The paper's two
    solutions, and the transfer of single channels:

    - "cholesky": A = L_R L_I^-1 with S = L L^T. It depends on the order of the channels.
    - "symmetric": A = S_R^1/2 S_I^-1/2 with symmetric roots, the transfer of Image Analogies
      (Hertzmann et al. 2001).
    - "channel": A = diag(sigma_R / sigma_I): means and deviations of each channel, and no
      covariances between them.

    eps is added to the variances (S + eps I) of both, so that flat and grey images, whose
    covariance cannot be inverted, give finite pictures and gradients: a flat image becomes the mean
    of the reference. The moments agree up to about eps over the smallest variance in question.

    Args:
        images: [batch, height, width, 3], as a rule the style.
        reference: [batch or 1, height', width', 3], as a rule the content, or its `statistics`.
        method: "cholesky", "symmetric" or "channel".
        eps: added to the variances; larger values keep noise in nearly grey images down.
        clip: whether to clip to [0, 1]; unclipped, the moments are those of the reference.

    Returns:
        [batch, height, width, 3].

    Raises:
        ValueError: the shapes do not fit, are not floating point, or the method is unknown.
    """
    images = _checked(images, reference)
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
    old = _widened(images)
    found = reference if isinstance(reference, Statistics) else statistics(reference)
    mean_old, mean_wanted = _mean(old), found.mean[:, None, None]
    if method == "channel":
        variance = jnp.diagonal(found.covariance, axis1=1, axis2=2)[:, None, None]
        scale = jnp.sqrt((variance + eps) / (_variance(old) + eps))
        return _finish(scale * (old - mean_old) + mean_wanted, images, clip)
    root = jnp.linalg.cholesky if method == "cholesky" else _symmetric_root
    root_old = root(_covariance(old - mean_old, eps))
    root_wanted = root(found.covariance + eps * jnp.eye(3, dtype=found.covariance.dtype)[None])
    # A = R_R R_I^-1, solved as R_I^T A^T = R_R^T.
    transposed = jnp.linalg.solve(root_old.mT, jnp.broadcast_to(root_wanted.mT, root_old.shape))
    moved = jnp.einsum(
        "bhwc,bcd->bhwd", old - mean_old, transposed, precision=jax.lax.Precision.HIGHEST
    )
    return _finish(moved + mean_wanted, images, clip)


def match_histogram(images: jax.Array, reference: jax.Array) -> jax.Array:
    """Gives each channel of images the histogram of the reference's: x' = F_R^-1(F_I(x)).

    F are the cumulative distributions, from sorted values. Where all values of a channel differ and
    both pictures have as many pixels, the result holds exactly the reference's values, reordered.
    Equal values stay equal: they take the middle of their ranks. Between the reference's values the
    inverse is interpolated linearly, so that sizes may differ. Channels are matched each on their
    own (Gonzalez and Woods, Digital Image Processing, "histogram specification"); `match_moments`
    keeps their correlation.

    The gradient flows to the reference only: that by the images is zero almost everywhere, as ranks
    are steps.

    Args:
        images: [batch, height, width, 3].
        reference: [batch or 1, height', width', 3].

    Returns:
        [batch, height, width, 3], within the range of the reference.

    Raises:
        ValueError: the shapes do not fit or are not floating point.
    """
    _check_pair(images, reference, "reference")
    batch, height, width, _ = images.shape
    old = _channel_rows(images)
    wanted = jnp.broadcast_to(_channel_rows(reference), (batch, 3, math.prod(reference.shape[1:3])))
    matched = jax.vmap(jax.vmap(_match_rows))(old, wanted)
    result = jnp.moveaxis(matched, 1, -1).reshape(batch, height, width, 3)
    return result.astype(images.dtype)


def _match_rows(old: jax.Array, wanted: jax.Array) -> jax.Array:
    """Histogram matching of one channel: [n] values and [m] wanted ones to [n]."""
    old = jax.lax.stop_gradient(old)
    ordered, wanted = jnp.sort(old), jnp.sort(wanted)
    below = jnp.searchsorted(ordered, old, side="left")
    up_to = jnp.searchsorted(ordered, old, side="right")
    # A rank and its quantile belong to the middle of a pixel's share. The factor is made outside of
    # float32: at equal sizes it is 1/2, and positions are whole numbers up to 2^23 pixels.
    factor = wanted.size / (2 * old.size)
    position = (below + up_to).astype(wanted.dtype) * factor - 0.5
    position = jnp.clip(position, 0, wanted.size - 1)
    lower = jnp.floor(position)
    start = lower.astype(jnp.int32)
    low, high = wanted[start], wanted[jnp.minimum(start + 1, wanted.size - 1)]
    return low + (position - lower) * (high - low)


@jax.custom_jvp
def _symmetric_root(matrices: jax.Array) -> jax.Array:
    """The symmetric square root of positive definite matrices [..., n, n]."""
    root, _, _ = _root_and_basis(matrices)
    return root


def _root_and_basis(matrices: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    values, basis = jnp.linalg.eigh(matrices)
    # Rounding may put an eigenvalue at or below 0.
    roots = jnp.sqrt(jnp.maximum(values, jnp.finfo(values.dtype).tiny))
    return _product(basis * roots[..., None, :], basis.mT), roots, basis


@_symmetric_root.defjvp
def _symmetric_root_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    # Differentiating eigh divides by differences of eigenvalues, which are 0 for flat images. The
    # root S itself obeys S dS + dS S = dM, and in its eigenbasis that divides by their sums.
    (matrices,), (change,) = primals, tangents
    root, roots, basis = _root_and_basis(matrices)
    rotated = _product(_product(basis.mT, change), basis)
    rotated = rotated / (roots[..., :, None] + roots[..., None, :])
    return root, _product(_product(basis, rotated), basis.mT)


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    # Accelerators multiply in fewer bits by default.
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _mean(values: jax.Array) -> jax.Array:
    return jnp.mean(values, axis=(1, 2), keepdims=True)


def _variance(values: jax.Array) -> jax.Array:
    return jnp.var(values, axis=(1, 2), keepdims=True)


def _covariance(centred: jax.Array, eps: float) -> jax.Array:
    """[batch, height, width, 3] of mean 0 to [batch, 3, 3], regularised."""
    rows = centred.reshape(centred.shape[0], -1, 3)
    products = _product(rows.mT, rows) / rows.shape[1]
    return products + eps * jnp.eye(3, dtype=products.dtype)[None]


def _channel_rows(images: jax.Array) -> jax.Array:
    """[batch, height, width, 3] to [batch, 3, height * width]."""
    batch, height, width, channels = images.shape
    return jnp.moveaxis(_widened(images), -1, 1).reshape(batch, channels, height * width)


def _widened(images: jax.Array) -> jax.Array:
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def _finish(result: jax.Array, images: jax.Array, clip: bool) -> jax.Array:
    return (jnp.clip(result, 0, 1) if clip else result).astype(images.dtype)


def _check_images(images: jax.Array, name: str) -> None:
    shape, dtype = jnp.shape(images), jnp.result_type(images)
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"{name}: expected shape [batch, height, width, 3], got {list(shape)}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name}: expected floating point in [0, 1], got {dtype}")


def _checked(images: jax.Array, reference: jax.Array | Statistics) -> jax.Array:
    """The images; a ValueError where they and their reference do not fit."""
    if not isinstance(reference, Statistics):
        _check_pair(images, reference, "reference")
        return images
    _check_images(images, "images")
    batch = jnp.shape(images)[0]
    given = tuple(jnp.shape(reference.mean)), tuple(jnp.shape(reference.covariance))
    if given not in [((number, 3), (number, 3, 3)) for number in (1, batch)]:
        raise ValueError(
            f"reference: expected a mean [{batch} or 1, 3] and a covariance [{batch} or 1, 3, 3], "
            f"got {list(given[0])} and {list(given[1])}"
        )
    return images


def _check_pair(images: jax.Array, other: jax.Array, name: str, *, same_size: bool = False) -> None:
    _check_images(images, "images")
    _check_images(other, name)
    if other.shape[0] not in (1, images.shape[0]):
        raise ValueError(
            f"{name}: expected a batch of {images.shape[0]} (as images) or 1, got {other.shape[0]}"
        )
    if same_size and other.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"{name}: expected height and width {list(images.shape[1:3])} (as images), "
            f"got {list(other.shape[1:3])}"
        )
