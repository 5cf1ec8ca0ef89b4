"""What style transfer minimises, as pure functions of arrays.

Conventions, stated once and true of every function here:

- Features and images are `[batch, height, width, channels]`, of any floating type. Results hold one
  value an image, `[batch]`; averages over the batch and weights of the terms are the objective's.
- Sums are accumulated in float32 even where the input is bfloat16 or float16 (and in float64 where
  it is float64), at the highest precision of the device; that type is also the result's.
- `targets` have the shape of what they are compared with, or a batch of 1, which is then shared by
  all images. No other broadcasting: a wrong shape is a ValueError that says what was expected.
- Values and gradients are finite on flat and on all-zero pictures.
- Statistics (`gram_matrix`, `channel_moments`, `gaussian_statistics`) are apart from what compares
  them, and are sums over positions divided by their number, so that the statistics of a large
  picture can be added up from its tiles.

A loss of several layers takes mappings from the layer's name to its array, and optionally a mapping
of weights; a layer without an array or a weight is an error, never a silent zero.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

__all__ = [
    "Moments",
    "channel_moments",
    "content_loss",
    "gram_matrix",
    "moments_loss",
    "perceptual_loss",
    "style_loss",
    "total_variation",
]

Arrays = Array | Mapping[str, Array]
Weights = Mapping[str, Any]

einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


# Checks of arguments, shared with `jaxstyle.distributions`. They see shapes and types alone, so
# they cost nothing once compiled.


def choice(function: str, argument: str, value: str, choices: Mapping[str, Any]) -> Any:
    if value not in choices:
        raise ValueError(
            f"{function}: expected {argument} to be {_quoted(choices, 'or')}, got {value!r}."
            f"{_nearest(str(value), choices)}"
        )
    return choices[value]


def _quoted(names: Iterable[str], conjunction: str = "and") -> str:
    quoted = [repr(name) for name in names]
    return f" {conjunction} ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def _nearest(name: str, choices: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def accumulator(array: Array) -> Any:
    return jnp.promote_types(array.dtype, jnp.float32)


def check_array(function: str, argument: str, array: Any, axes: str) -> None:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise ValueError(
            f"{function}: expected {argument} to be an array [{axes}], got "
            f"{type(array).__name__}; convert it with jax.numpy.asarray."
        )
    if array.ndim != len(axes.split(", ")):
        raise ValueError(
            f"{function}: expected {argument} of shape [{axes}], got {tuple(array.shape)}; "
            "a single picture gets its batch axis by array[None]."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{function}: expected {argument} of a floating type, got {array.dtype}; convert with "
            ".astype(jax.numpy.float32), and divide pixels of 0 to 255 by 255."
        )
    if 0 in array.shape[1:]:
        raise ValueError(
            f"{function}: expected {argument} with at least one element an image, got shape "
            f"{tuple(array.shape)}; the picture is too small for this layer, make it larger."
        )


def check_features(function: str, features: Any, argument: str = "features") -> None:
    check_array(function, argument, features, "batch, height, width, channels")


def check_square(function: str, argument: str, matrices: Any) -> None:
    check_array(function, argument, matrices, "batch, channels, channels")
    if matrices.shape[1] != matrices.shape[2]:
        raise ValueError(
            f"{function}: expected square matrices [batch, channels, channels] as {argument}, got "
            f"{tuple(matrices.shape)}; gram_matrix and gaussian_statistics make them of features."
        )


def check_pair(function: str, values: Array, targets: Array, remedy: str) -> None:
    shape = tuple(values.shape)
    if tuple(targets.shape) not in (shape, (1, *shape[1:])):
        one = "" if shape[0] == 1 else f" or {(1, *shape[1:])}"
        raise ValueError(
            f"{function}: expected targets of shape {shape}{one}, got {tuple(targets.shape)}; "
            f"{remedy}."
        )


def _sum_over_layers(
    function: str,
    values: Arrays,
    targets: Arrays,
    weights: Weights | None,
    loss: Callable[[Array, Array], Array],
) -> Array:
    """The loss of one array, or the weighted sum of the losses of a mapping's layers."""
    if not isinstance(values, Mapping) or not isinstance(targets, Mapping):
        if isinstance(values, Mapping) or isinstance(targets, Mapping):
            raise ValueError(
                f"{function}: expected two arrays or two mappings from layer to array, got "
                f"{type(values).__name__} and {type(targets).__name__}; pass both in one form."
            )
        if weights is not None:
            raise ValueError(
                f"{function}: expected no weights with single arrays, got {weights!r}; multiply "
                "the result, or pass mappings from layer to array."
            )
        return loss(values, targets)
    if not values:
        raise ValueError(f"{function}: expected at least one layer, got none; name one to compare.")
    for name, given in (("targets", targets), ("weights", values if weights is None else weights)):
        for layer in sorted({*values} ^ {*given}):
            lacking, other = (name, given) if layer in values else ("the first argument", values)
            raise ValueError(
                f"{function}: expected {name} for exactly the layers {_quoted(values)}, got "
                f"{_quoted(given) if given else 'none'}: {lacking} lacks {layer!r}."
                f"{_nearest(layer, other)} Give each layer once in each mapping."
            )
    total: Any = 0.0
    for layer, value in values.items():
        term = loss(value, targets[layer])
        total = total + (term if weights is None else weights[layer] * term)
    return total


# Losses between arrays of equal size.


def _half_sum(differences: Array) -> Array:
    return 0.5 * jnp.sum(jnp.square(differences), axis=(1, 2, 3))


def _mean_square(differences: Array) -> Array:
    return jnp.mean(jnp.square(differences), axis=tuple(range(1, differences.ndim)))


_CONTENT_FORMS = {"half_sum": _half_sum, "mean": _mean_square}


def _feature_loss(
    function: str, reduce: Callable[[Array], Array], features: Array, targets: Array
) -> Array:
    check_features(function, features)
    check_features(function, targets, "targets")
    check_pair(function, features, targets, "compare one layer of pictures of one size")
    dtype = accumulator(features)
    return reduce(features.astype(dtype) - targets.astype(dtype))


def content_loss(features: Array, targets: Array, *, form: str = "half_sum") -> Array:
    """Squared distance between the features of the picture being made and of the content.

    Args:
      features: [batch, height, width, channels], one layer of the picture being made.
      targets: the same layer of the content picture; a batch of 1 is shared by all images.
      form: `"half_sum"`, half the sum of squares (Gatys et al. 2016, Eq. 1), or `"mean"`, the mean
        of squares, which does not grow with the picture.

    Returns:
      [batch], not negative, in squared units of the features.

    Raises:
      ValueError: for an unknown form, or shapes that do not agree.
    """
    reduce = choice("content_loss", "form", form, _CONTENT_FORMS)
    return _feature_loss("content_loss", reduce, features, targets)


def perceptual_loss(features: Arrays, targets: Arrays, *, weights: Weights | None = None) -> Array:
    """Feature reconstruction loss: squared distance over C H W (Johnson et al. 2016, Eq. 2).

    Args:
      features: [batch, height, width, channels], or a mapping from layer to such an array.
      targets: of the same form and sizes; a batch of 1 is shared by all images.
      weights: a mapping from layer to a number, for mappings only; None weighs each layer 1.

    Returns:
      [batch], the weighted sum over layers of the mean squared difference.

    Raises:
      ValueError: for shapes or layers that do not agree.
    """
    loss = functools.partial(_feature_loss, "perceptual_loss", _mean_square)
    return _sum_over_layers("perceptual_loss", features, targets, weights, loss)


def _absolute(differences: Array) -> Array:
    # The gradient of jnp.abs is 1 at 0; of a flat picture that would be a push on its borders.
    return differences * lax.stop_gradient(jnp.sign(differences))


VARIATION_PENALTIES: dict[int, Callable[[Array], Array]] = {1: _absolute, 2: jnp.square}


def total_variation(
    images: Array,
    *,
    order: int = 1,
    reduction: str = "sum",
) -> Array:
    """Differences between neighbouring pixels, vertically and horizontally.

    Order 1 is anisotropic: sum of |x[i,j] - x[i+1,j]| + |x[i,j] - x[i,j+1]|, whose gradient at
    equal pixels is 0. Order 2 squares the differences. A picture one pixel high (or wide) has no
    differences in that direction, which then contributes 0.

    Args:
      images: [batch, height, width, channels], in any range.
      order: 1, absolute differences (Rudin et al. 1992, without the root), or 2, their squares.
      reduction: `"sum"` over all, or `"half_mean"`: half of the mean vertical plus the mean
        horizontal difference, which does not grow with the picture. At equal weight the two
        differ by about twice the number of pixels times channels.

    Returns:
      [batch], not negative.

    Raises:
      ValueError: for an unknown order or reduction, or a wrong shape.
    """
    check_features("total_variation", images, "images")
    if order not in (1, 2):
        raise ValueError(
            f"total_variation: expected order 1 (absolute) or 2 (squares), got {order!r}."
        )
    half_mean = choice("total_variation", "reduction", reduction, {"sum": False, "half_mean": True})
    pixels = images.astype(accumulator(images))
    penalty = VARIATION_PENALTIES[order]
    total = jnp.zeros(images.shape[0], pixels.dtype)
    for axis in (1, 2):
        differences = jnp.diff(pixels, axis=axis)
        number = math.prod(differences.shape[1:])
        term = jnp.sum(penalty(differences), axis=(1, 2, 3))
        total = total + (0.5 * term / max(number, 1) if half_mean else term)
    return total


# Gram matrices.


def flatten_positions(features: Array) -> Array:
    batch, height, width, channels = features.shape
    return features.reshape(batch, height * width, channels)


@jax.custom_vjp
def second_moments(flat: Array) -> Array:
    """F'F of [batch, positions, channels], [batch, channels, channels].

    Its gradient is stated, F (D + D') for a cotangent D: left alone, it would multiply the features
    twice, and give the product the wrong way round, to be transposed.
    """
    return einsum("bpc,bpd->bcd", flat, flat, preferred_element_type=accumulator(flat))


def _second_moments_fwd(flat: Array) -> tuple[Array, Array]:
    return second_moments(flat), flat


def _second_moments_bwd(flat: Array, cotangent: Array) -> tuple[Array]:
    both = cotangent + cotangent.swapaxes(1, 2)
    gradient = einsum("bpc,bcd->bpd", flat, both, preferred_element_type=both.dtype)
    return (gradient.astype(flat.dtype),)


second_moments.defvjp(_second_moments_fwd, _second_moments_bwd)


def gram_matrix(features: Array, *, normalize: str = "elements") -> Array:
    """Gram matrices of features: inner products of channels over all positions.

    With F the [P, C] matrix of P = height * width positions and C channels:

    - `"none"`: F'F, as Gatys et al. 2016, Eq. 3 print it; it grows with the picture.
    - `"positions"`: F'F / P. For `style_loss(form="gatys")`, for the polynomial kernel's maximum
      mean discrepancy, and for mean-squared Gram losses over positions.
    - `"elements"`: F'F / (C P) (Johnson et al. 2016, Eq. 3), with `style_loss(form="mean")`.

    Weights do not carry over between normalisations; `style_loss` has the conversion.

    Args:
      features: [batch, height, width, channels].
      normalize: one of the three above.

    Returns:
      [batch, channels, channels], symmetric, positive semidefinite.

    Raises:
      ValueError: for an unknown normalisation or a wrong shape.
    """
    check_features("gram_matrix", features)
    _, height, width, channels = features.shape
    divisors = {"none": 1, "positions": height * width, "elements": channels * height * width}
    divisor = choice("gram_matrix", "normalize", normalize, divisors)
    return second_moments(flatten_positions(features)) / divisor


_STYLE_FORMS: dict[str, Callable[[int], float]] = {
    "gatys": lambda channels: 1 / (4 * channels**2),
    "mean": lambda channels: 1 / channels**2,
    "sum": lambda channels: 1.0,
}


def style_loss(
    grams: Arrays,
    targets: Arrays,
    *,
    form: str = "gatys",
    weights: Weights | None = None,
) -> Array:
    """Squared distance between Gram matrices (Gatys et al. 2016, Eq. 4 and 5).

    - `"gatys"`: sum of (G - A)^2 over 4 C^2. On Gram matrices normalised by `"positions"` this is
      the paper's 1/(4 N^2 M^2) form of raw ones (N channels, M positions) where both pictures have
      one size, and it stays defined where they differ, each Gram then having its own M.
    - `"mean"`: mean of (G - A)^2 over the C^2 entries; with `"elements"` as in Johnson et al. 2016.
    - `"sum"`: sum of (G - A)^2 (the squared Frobenius norm; Johnson et al. 2016, Eq. 4).

    For one layer, "gatys" on positions = "mean" on positions / 4 = "mean" on elements * C^2 / 4.

    Args:
      grams: [batch, channels, channels] from `gram_matrix`, or a mapping from layer to such.
      targets: of the same form and sizes, from the style; a batch of 1 is shared by all images.
      form: one of the three above.
      weights: a mapping from layer to a number, for mappings only; None weighs each layer 1.
        (Gatys et al. weigh each of five layers 1/5.)

    Returns:
      [batch], not negative.

    Raises:
      ValueError: for an unknown form, or for shapes or layers that do not agree.
    """
    factor = choice("style_loss", "form", form, _STYLE_FORMS)

    def loss(gram: Array, target: Array) -> Array:
        check_square("style_loss", "grams", gram)
        check_square("style_loss", "targets", target)
        check_pair("style_loss", gram, target, "compare Gram matrices of one layer")
        dtype = accumulator(gram)
        difference = gram.astype(dtype) - target.astype(dtype)
        return jnp.sum(jnp.square(difference), axis=(1, 2)) * factor(gram.shape[-1])

    return _sum_over_layers("style_loss", grams, targets, weights, loss)


# Moments of each channel.


def center(features: Array) -> tuple[Array, Array]:
    """Mean over positions, [batch, channels], and the rest, [batch, positions, channels]."""
    flat = flatten_positions(features).astype(accumulator(features))
    mean = jnp.mean(flat, axis=1)
    return mean, flat - mean[:, None]


class Moments(NamedTuple):
    """Mean and deviation of each channel over positions, both [batch, channels]."""

    mean: Array
    std: Array


# Added to variances: the gradient of the deviation is finite on flat pictures.
MOMENTS_EPS = 1e-5


def channel_moments(features: Array, *, eps: float = MOMENTS_EPS) -> Moments:
    """Mean and standard deviation of each channel (Huang and Belongie 2017, Eq. 5 and 6).

    Args:
      features: [batch, height, width, channels].
      eps: added to the variance, in squared units of the features: the deviation is
        sqrt(variance + eps), whose gradient is finite on flat pictures. The variance is the
        population's (divided by the number of positions).

    Returns:
      `Moments(mean, std)`, each [batch, channels].

    Raises:
      ValueError: for a wrong shape.
    """
    check_features("channel_moments", features)
    mean, centered = center(features)
    return Moments(mean, jnp.sqrt(jnp.mean(jnp.square(centered), axis=1) + eps))


def moments_loss(moments: Moments, targets: Moments) -> Array:
    """Squared distance between channel moments (Huang and Belongie 2017, Eq. 13).

    The mean over channels of (mean - mean*)^2 + (std - std*)^2, as the paper's released code has
    it; the equation prints the norms without squares and without dividing by the channels.

    Args:
      moments: of one layer of the picture being made, from `channel_moments`.
      targets: of the same layer of the style; a batch of 1 is shared by all images.

    Returns:
      [batch], not negative.

    Raises:
      ValueError: for shapes that do not agree.
    """
    total = jnp.zeros((), jnp.float32)
    for name, value, target in zip(Moments._fields, moments, targets, strict=True):
        check_array("moments_loss", name, value, "batch, channels")
        check_array("moments_loss", f"targets.{name}", target, "batch, channels")
        check_pair("moments_loss", value, target, "compare the moments of one layer")
        dtype = accumulator(value)
        difference = value.astype(dtype) - target.astype(dtype)
        total = total + jnp.mean(jnp.square(difference), axis=1)
    return total
