"""How alike pictures are, their features, and sets of them: pure functions.

Pictures and features are `[batch, height, width, channels]` of any floating type, compared in
float32. Results are float32 and hold one value a picture, `[batch]`, where no other shape is said.
References may be a batch of 1, which is then shared. What is called a distance is 0 for equal
arguments and better if it is smaller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle.distributions import (
    WassersteinTarget,
    gaussian_statistics,
    wasserstein2,
    wasserstein2_target,
)
from jaxstyle.losses import channel_moments, check_array, choice, gram_matrix

# Wang et al. 2004: window, constants of Eq. 13 relative to the range of the values.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
# Rows that are blurred at once.
_BLOCK = 128
# Wang et al. 2003, Section 3.2: exponents of the five scales.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Below this a mean of `ms_ssim` is 0: its root would have a gradient that float32 cannot hold.
_LEAST_MEAN = 1e-20
# Added to the norms of LPIPS.
_LEAST_NORM = 1e-10


def _pair(
    function: str, values: Any, references: Any, *, argument: str, any_size: bool = False
) -> tuple[Array, Array]:
    """Both in float32, once their shapes are found to agree."""
    for name, array in ((argument, values), ("references", references)):
        check_array(function, name, array, "batch, height, width, channels")
    (batch, *size, channels), given = values.shape, tuple(references.shape)
    agree = given[0] in (1, batch) and given[3] == channels
    if not agree or not (any_size or given[1:3] == tuple(size)):
        sides = ("any height", "any width") if any_size else size
        raise ValueError(
            f"{function}: expected references of shape "
            f"[{batch if batch == 1 else f'{batch} or 1'}, {sides[0]}, {sides[1]}, {channels}], "
            f"got {given}; compare {'the same channels' if any_size else 'pictures of one size'}."
        )
    return jnp.asarray(values, jnp.float32), jnp.asarray(references, jnp.float32)


# Pictures.


def psnr(images: Array, references: Array, *, max_value: float = 1.0) -> Array:
    """Peak signal-to-noise ratio, 10 log10(max_value^2 / mean squared difference).

    Args:
        images: `[batch, height, width, channels]`.
        references: `[batch or 1, height, width, channels]`.
        max_value: range of the values: 1 for pictures in [0, 1].

    Returns:
        `[batch]` in decibels, more for pictures that are more alike; infinite for equal ones. The
        mean is over all pixels and channels of a picture.

    Raises:
        ValueError: shapes that do not agree.
    """
    x, y = _pair("psnr", images, references, argument="images")
    return -10 * jnp.log10(jnp.mean(jnp.square((x - y) / max_value), axis=(1, 2, 3)))


def ssim(images: Array, references: Array, *, max_value: float = 1.0) -> Array:
    """Structural similarity (Wang et al. 2004, "Image Quality Assessment", Eq. 13).

    With a Gaussian window of 11x11 pixels and a deviation of 1.5, where it lies wholly within the
    picture; the mean over positions and channels.

    Args:
        images: `[batch, height, width, channels]`.
        references: `[batch or 1, height, width, channels]`.
        max_value: range of the values: 1 for pictures in [0, 1].

    Returns:
        `[batch]` in [-1, 1]; 1 for equal pictures.

    Raises:
        ValueError: shapes that do not agree, or sides of less than 11 pixels.
    """
    x, y = _pair("ssim", images, references, argument="images")
    if min(images.shape[1:3]) < _WINDOW:
        raise ValueError(f"ssim expected sides of {_WINDOW} pixels or more; got {images.shape}")
    luminance, structure = _luminance_and_structure(x, y, max_value)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def ms_ssim(
    images: Array,
    references: Array,
    *,
    max_value: float = 1.0,
    weights: Sequence[float] = _SCALE_WEIGHTS,
) -> Array:
    """Structural similarity at several scales (Wang, Simoncelli and Bovik 2003, Eq. 7).

    The product over scales of powers of the mean contrast-structure term; at the last scale this
    term is multiplied by the luminance at each position first. From scale to scale, means of 2x2
    pixels; an odd last row or column is left out. For each channel by itself, then the mean over
    channels. A negative mean, which has no real power, is taken for 0. Gradients are finite.

    Args:
        images: `[batch, height, width, channels]`, with sides of 11 * 2**(scales - 1) or more: 176
            pixels for five scales.
        references: `[batch or 1, height, width, channels]`.
        max_value: range of the values: 1 for pictures in [0, 1].
        weights: the exponent of each scale, the finest first; the default is the paper's.

    Returns:
        `[batch]` in [0, 1]; 1 for equal pictures.

    Raises:
        ValueError: shapes that do not agree, pictures too small, or no weights.
    """
    x, y = _pair("ms_ssim", images, references, argument="images")
    if not len(weights):
        raise ValueError("ms_ssim: expected weights of at least one scale, got none.")
    least = _WINDOW * 2 ** (len(weights) - 1)
    if min(images.shape[1:3]) < least:
        raise ValueError(
            f"ms_ssim: expected sides of {least} pixels or more for {len(weights)} scales, got "
            f"{tuple(images.shape)}; give weights of fewer scales, or use ssim."
        )
    product = jnp.ones((), jnp.float32)
    for scale, weight in enumerate(weights):
        if scale:
            x, y = _halved(x), _halved(y)
        luminance, structure = _luminance_and_structure(x, y, max_value)
        last = scale == len(weights) - 1
        mean = jnp.mean(luminance * structure if last else structure, axis=(1, 2))
        positive = mean > _LEAST_MEAN
        product = product * jnp.where(positive, jnp.where(positive, mean, 1.0) ** weight, 0.0)
    return jnp.mean(product, axis=1)


def _luminance_and_structure(x: Array, y: Array, max_value: float) -> tuple[Array, Array]:
    """The two factors of Wang et al. 2004, Eq. 13, at each position."""
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
    return luminance, structure


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


def _halved(x: Array) -> Array:
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    whole = x[:, : 2 * rows, : 2 * columns]
    return jnp.mean(whole.reshape(batch, rows, 2, columns, 2, channels), axis=(2, 4))


def color_histogram_distance(images: Array, references: Array, *, bins: int = 64) -> Array:
    """1-Wasserstein distance between histograms of each channel, the mean over channels.

    How far, on average, values must move for the pictures to have the same colours, wherever in
    the picture they lie: the area between the two cumulative distributions (Vallender 1974). It
    has no gradient.

    Args:
        images: `[batch, height, width, channels]` in [0, 1]; other values count as the nearest end.
        references: `[batch or 1, any height, any width, channels]`.
        bins: of equal width; the distance is exact to 1 / bins.

    Returns:
        `[batch]` in [0, 1), in units of the values.

    Raises:
        ValueError: channels or batches that do not agree, or no bins.
    """
    function = "color_histogram_distance"
    x, y = _pair(function, images, references, argument="images", any_size=True)
    if bins < 1:
        raise ValueError(f"{function}: expected at least 1 bin, got {bins}.")
    gap = jnp.abs(_cumulative_histogram(x, bins) - _cumulative_histogram(y, bins))
    return jnp.mean(jnp.sum(gap, axis=2) / bins, axis=1)


def _cumulative_histogram(pixels: Array, bins: int) -> Array:
    """The share of each channel's values up to each bin, `[batch, channels, bins]`."""
    batch, height, width, channels = pixels.shape
    place = jnp.clip(jnp.floor(pixels * bins), 0, bins - 1).astype(jnp.int32)
    first = np.arange(batch * channels, dtype=np.int32).reshape(batch, 1, 1, channels) * bins
    counts = jnp.bincount((place + first).ravel(), length=batch * channels * bins)
    # Whole numbers until here: float32 would stop counting at 2^24.
    total = jnp.cumsum(counts.reshape(batch, channels, bins), axis=2)
    return total.astype(jnp.float32) / (height * width)


# Features of pictures.


def _relative(x: Array, y: Array) -> Array:
    axes = tuple(range(1, x.ndim))
    return jnp.sum(jnp.square(x - y), axes) / jnp.sum(jnp.square(y), axes)


def content_distance(features: Array, references: Array) -> Array:
    """Squared distance of features relative to the references', sum (x - y)^2 / sum y^2.

    Args:
        features: `[batch, height, width, channels]`, one layer of pictures.
        references: `[batch or 1, height, width, channels]`, the same layer of their contents.

    Returns:
        `[batch]`, not negative; 1 is as far as features that are 0 everywhere. Not finite where the
        references are.

    Raises:
        ValueError: shapes that do not agree.
    """
    return _relative(*_pair("content_distance", features, references, argument="features"))


@functools.partial(jax.tree_util.register_dataclass, data_fields=("layers",), meta_fields=("form",))
@dataclass(frozen=True)
class StyleReferences:
    """What `style_distance` needs of styles, from `style_references`.

    Attributes:
        layers: mapping from layer to what the form has of it, arrays `[batch, ...]`.
        form: as for `style_distance`.
    """

    layers: Mapping[str, Any]
    form: str


def _gram(x: Array) -> Array:
    return gram_matrix(x, normalize="positions")


def _moments(x: Array) -> Array:
    return jnp.concatenate(channel_moments(x), axis=1)


def _wasserstein_reference(y: Array) -> tuple[WassersteinTarget, Array]:
    style = gaussian_statistics(y)
    variances = jnp.trace(style.covariance, axis1=1, axis2=2) / y.shape[-1]
    # Both are means over channels.
    return wasserstein2_target(style), jnp.mean(jnp.square(style.mean), axis=1) + variances


def _wasserstein_distance(x: Array, reference: tuple[WassersteinTarget, Array]) -> Array:
    target, power = reference
    # Rounding leaves equal pictures a little below 0.
    return jnp.maximum(wasserstein2(gaussian_statistics(x), target), 0) / power


# What is kept of a style, and the distance to that.
_STYLE_FORMS: Mapping[str, tuple[Callable[[Array], Any], Callable[[Array, Any], Array]]] = {
    "gram": (_gram, lambda x, gram: _relative(_gram(x), gram)),
    "moments": (_moments, lambda x, moments: _relative(_moments(x), moments)),
    "wasserstein": (_wasserstein_reference, _wasserstein_distance),
}


def style_references(references: Mapping[str, Array], *, form: str = "gram") -> StyleReferences:
    """What `style_distance` needs of styles, once for all the pictures that are compared with them.

    For `"wasserstein"` that is most of the work: the roots of the covariances.

    Args:
        references: mapping from layer to `[batch, height, width, channels]`.
        form: as for `style_distance`.

    Raises:
        ValueError: an unknown form, no layers, or a wrong shape.
    """
    describe, _ = choice("style_references", "form", form, _STYLE_FORMS)
    _check_layers("style_references", references)
    for layer, y in references.items():
        check_array("style_references", f"layer {layer!r}", y, "batch, height, width, channels")
    kept = {layer: describe(jnp.asarray(y, jnp.float32)) for layer, y in references.items()}
    return StyleReferences(kept, form)


def style_distance(
    features: Mapping[str, Array],
    references: Mapping[str, Array] | StyleReferences,
    *,
    form: str | None = None,
) -> Array:
    """Squared distance of the statistics of features relative to the style's, mean over layers.

    - `"gram"`: |G_x - G_y|^2 / |G_y|^2 of Gram matrices over positions (Gatys et al. 2016, Eq. 4,
      here relative), in the Frobenius norm.
    - `"moments"`: the same of each channel's mean and deviation (Huang and Belongie 2017, Eq. 13,
      here relative); see `jaxstyle.losses.channel_moments` for the deviation of flat channels.
    - `"wasserstein"`: the squared 2-Wasserstein distance between the Gaussians of both pictures,
      relative to the distance of the style's from a point at 0, which is E|y|^2. With the noise
      that `jaxstyle.distributions.wasserstein2` adds by default.

    Values of different forms, or of different layers or networks, do not compare.

    Args:
        features: mapping from layer to `[batch, height, width, channels]`.
        references: the same layers of the styles, `[batch or 1, any height, any width, channels]`,
            or what `style_references` makes of them.
        form: one of the three above, by default `"gram"`; prepared references have their own.

    Returns:
        `[batch]`, not negative; about 1 for features that are 0 everywhere. Of the style's they
        may make a value that is not finite.

    Raises:
        ValueError: an unknown form, or one beside prepared references of another; no layers, or
            layers or shapes that do not agree.
    """
    prepared = isinstance(references, StyleReferences)
    form = form or (references.form if prepared else "gram")
    describe, distance = choice("style_distance", "form", form, _STYLE_FORMS)
    if prepared and references.form != form:
        raise ValueError(
            f"style_distance: expected no form beside references that were prepared for "
            f"{references.form!r}, got {form!r}."
        )
    layers = references.layers if prepared else references
    _check_layers("style_distance", features, references=layers)
    total = jnp.zeros((), jnp.float32)
    for layer, values in features.items():
        function = f"style_distance, layer {layer!r}"
        if prepared:
            check_array(function, "features", values, "batch, height, width, channels")
            x, y = jnp.asarray(values, jnp.float32), layers[layer]
        else:
            x, y = _pair(function, values, layers[layer], argument="features", any_size=True)
            y = describe(y)
        total = total + distance(x, y)
    return total / len(features)


def _check_layers(function: str, features: Any, **others: Any) -> None:
    for name, given in {"features": features, **others}.items():
        if not isinstance(given, Mapping) or not given:
            got = "an empty one" if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(f"{function}: expected {name} as a mapping from layers, got {got}.")
        if set(given) != set(features):
            expected, got = sorted(features), sorted(given)
            raise ValueError(f"{function}: expected {name} for the layers {expected}, got {got}.")


def perceptual_distance(
    features: Mapping[str, Array],
    references: Mapping[str, Array],
    *,
    weights: Mapping[str, Array] | None = None,
) -> Array:
    """Distance of features of unit length (Zhang et al. 2018, Eq. 1, with weights of 1).

    The channels at each position are scaled to unit length; their squared difference is summed
    over channels, averaged over positions, and summed over layers.

    This is not LPIPS and must not be reported under that name: LPIPS is this form with weights
    that were fitted to human judgements, on the layers of a certain network. Without them the
    values differ, also in size. With that network's layers and those weights it is LPIPS.

    Args:
        features: mapping from layer to `[batch, height, width, channels]`.
        references: the same layers, `[batch or 1, height, width, channels]`.
        weights: mapping from layer to `[channels]`, not negative: what each channel's squared
            difference is multiplied by (the squares of Eq. 1's w, and what LPIPS's authors
            publish). None is 1 for all.

    Returns:
        `[batch]`, not negative; without weights at most 4 a layer, 2 where features are not
        negative.

    Raises:
        ValueError: no layers, or layers or shapes that do not agree.
    """
    given = {"references": references} | ({} if weights is None else {"weights": weights})
    _check_layers("perceptual_distance", features, **given)
    total = jnp.zeros((), jnp.float32)
    for layer, values in features.items():
        function = f"perceptual_distance, layer {layer!r}"
        x, y = _pair(function, values, references[layer], argument="features")
        squares = jnp.square(_unit_channels(x) - _unit_channels(y))
        if weights is not None:
            weight = jnp.asarray(weights[layer], jnp.float32)
            if weight.shape != x.shape[3:]:
                raise ValueError(
                    f"{function}: expected weights of shape {x.shape[3:]}, got {weight.shape}."
                )
            squares = squares * weight[None, None, None]
        total = total + jnp.mean(jnp.sum(squares, axis=3), axis=(1, 2))
    return total


def _unit_channels(x: Array) -> Array:
    """Scaled to unit length at each position; 0 stays 0, with a finite gradient."""
    return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=3, keepdims=True) + _LEAST_NORM**2)


# Sets of pictures.


def frechet_distance(features: Array, references: Array) -> Array:
    """Squared Frechet distance between Gaussians (Heusel et al. 2017, Eq. 6).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), of means and unbiased covariances. It is the
    Frechet inception distance (FID) if the features are those of FID's network; name the features
    in whatever is reported. Of few vectors it is too large, the more so the fewer: compare only
    values of equally many.

    Args:
        features: `[n, channels]`, a vector a picture.
        references: `[m, channels]`, of other pictures, in any order; there may be fewer vectors
            than channels.

    Returns:
        A scalar, not negative, in squared units of the features.

    Raises:
        ValueError: fewer than 2 vectors in a set, or other channels.
    """
    for name, array in (("features", features), ("references", references)):
        check_array("frechet_distance", name, array, "pictures, channels")
        if array.shape[0] < 2:
            raise ValueError(
                f"frechet_distance: expected {name} of 2 pictures or more, which a covariance "
                f"needs, got {array.shape[0]}."
            )
    if features.shape[1] != references.shape[1]:
        raise ValueError(
            f"frechet_distance: expected references of {features.shape[1]} channels, got "
            f"{references.shape[1]}; compare one layer."
        )
    x, y = (jnp.asarray(array, jnp.float32) for array in (features, references))
    # Far from 0 the difference of the means would lose its digits.
    origin = jnp.mean(y, axis=0, keepdims=True)
    (mean_x, root_x), (mean_y, root_y) = (_mean_and_root(z - origin) for z in (x, y))
    # With S = R'R, the eigenvalues of S1 S2 are the squares of the singular values of R1 R2'. Roots
    # of the eigenvalues of a product of covariances would add what is rounded in each that is 0,
    # and of fewer pictures than channels most are.
    product = jnp.matmul(root_x, root_y.T, precision="highest")
    overlap = jnp.sum(jnp.linalg.svd(product, compute_uv=False))
    spread = jnp.sum(jnp.square(root_x)) + jnp.sum(jnp.square(root_y)) - 2 * overlap
    return jnp.sum(jnp.square(mean_x - mean_y)) + jnp.maximum(spread, 0)


def _mean_and_root(x: Array) -> tuple[Array, Array]:
    """Mean, and a factor R of the covariance R'R of no more rows than columns."""
    number, channels = x.shape
    mean = jnp.mean(x, axis=0)
    root = (x - mean[None]) / np.sqrt(number - 1).astype(np.float32)
    return mean, jnp.linalg.qr(root, mode="r") if number > channels else root


def artfid(perceptual: Array | float, frechet: Array | float) -> Array:
    """The product (1 + perceptual) * (1 + frechet) of ArtFID (Wright and Ommer 2022).

    It is ArtFID only with the networks of that paper: LPIPS of AlexNet between the contents and
    what was made of them, and the Frechet distance, on an Inception network trained on paintings,
    between the styles and what was made. Otherwise say with it which features were compared.

    Args:
        perceptual: distance to the contents, the mean over pictures, as by `perceptual_distance`.
        frechet: distance to the styles, as by `frechet_distance`.

    Returns:
        Of the arguments' shape; 1 at best.
    """
    return (1 + jnp.asarray(perceptual, jnp.float32)) * (1 + jnp.asarray(frechet, jnp.float32))
