"""Distances between distributions of features: maximum mean discrepancy, and optimal transport.

A style loss compares how features are distributed, wherever in the picture they lie. Besides Gram
matrices and channel moments (`jaxstyle.losses`) there are kernels, of which the Gram loss is one
case, and the Wasserstein-2 distance between Gaussians. The pictures may differ in size. The
conventions of `jaxstyle.losses` hold here too.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxstyle.losses import (
    accumulator,
    center,
    check_array,
    check_features,
    check_pair,
    check_square,
    choice,
    flatten_positions,
    gram_matrix,
    second_moments,
    style_loss,
)

__all__ = [
    "GaussianStatistics",
    "WassersteinTarget",
    "gaussian_statistics",
    "mmd",
    "wasserstein2",
    "wasserstein2_target",
]


# Maximum mean discrepancy.


def _linear_mmd(features: Array, targets: Array, key: Array | None) -> Array:
    del key
    dtype = accumulator(features)
    mean = jnp.mean(flatten_positions(features), axis=1, dtype=dtype)
    target = jnp.mean(flatten_positions(targets), axis=1, dtype=dtype)
    return jnp.mean(jnp.square(mean - target), axis=1)


def _polynomial_mmd(features: Array, targets: Array, key: Array | None) -> Array:
    del key
    grams = gram_matrix(features, normalize="positions")
    return style_loss(grams, gram_matrix(targets, normalize="positions"), form="mean")


def _gaussian_mmd(features: Array, targets: Array, key: Array | None) -> Array:
    if key is None or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        got = "none" if key is None else f"an array of {key.dtype}"
        raise ValueError(
            f"mmd: expected a key for the gaussian kernel, which draws pairs at random, got {got}; "
            "pass key=jax.random.key(seed), and a new one at each step."
        )
    dtype = accumulator(features)
    keys = jax.random.split(key)
    flats = [flatten_positions(features), flatten_positions(targets)]
    number = min(flat.shape[1] for flat in flats) // 2
    if number == 0:
        raise ValueError(
            "mmd: expected at least 2 positions (height * width) for the gaussian kernel, got "
            f"shapes {features.shape} and {targets.shape}; use larger pictures or another kernel."
        )
    pairs = []
    for flat, its_key in zip(flats, keys, strict=True):
        drawn = jax.random.permutation(its_key, flat.shape[1])[: 2 * number]
        sample = jnp.take(flat, drawn, axis=1, unique_indices=True).astype(dtype)
        pairs.append((sample[:, :number], sample[:, number:]))
    (f1, f2), (s1, s2) = pairs
    within_f, within_s, across_1, across_2 = distances = [
        jnp.sum(jnp.square(a - b), axis=2) for a, b in ((f1, f2), (s1, s2), (f1, s2), (s1, f2))
    ]
    bandwidth = sum(jnp.mean(d, axis=1, keepdims=True) for d in distances) / 4
    # Where all samples are equal every distance is 0, and any bandwidth gives the right kernel, 1.
    bandwidth = lax.stop_gradient(jnp.where(bandwidth > 0, bandwidth, 1))

    def kernel(squared_distance: Array) -> Array:
        return jnp.exp(-squared_distance / bandwidth)

    return jnp.mean(
        kernel(within_f) + kernel(within_s) - kernel(across_1) - kernel(across_2), axis=1
    )


_KERNELS = {"linear": _linear_mmd, "polynomial": _polynomial_mmd, "gaussian": _gaussian_mmd}


def mmd(
    features: Array,
    targets: Array,
    *,
    kernel: str = "linear",
    key: Array | None = None,
) -> Array:
    """Squared maximum mean discrepancy between the features of two pictures (Li et al. 2017).

    - `"linear"`, k(x, y) = x'y: |mean f - mean s|^2 / C.
    - `"polynomial"`, k(x, y) = (x'y)^2: sum (F'F / P_f - S'S / P_s)^2 / C^2, which is 4 times
      `style_loss(form="gatys")` of Gram matrices normalised by positions.
    - `"gaussian"`, k(x, y) = exp(-|x - y|^2 / g): the mean over random disjoint pairs of
      k(f1, f2) + k(s1, s2) - k(f1, s2) - k(s1, f2) (the linear-time estimator of Gretton et al.
      2012, Lemma 14). In time it is O(P); for a given g it is unbiased, so it may be negative. The
      bandwidth g is the mean squared distance over these pairs, without gradient. All images of a
      batch draw the same positions.

    Args:
      features: [batch, height, width, channels], of the picture being made.
      targets: [batch or 1, any height, any width, channels].
      kernel: one of the three above.
      key: a typed key, `jax.random.key(seed)`, for the gaussian kernel; a new one each step
        redraws the pairs. The other kernels use none.

    Returns:
      [batch].

    Raises:
      ValueError: for an unknown kernel, a missing key, or shapes that do not agree.
    """
    function = choice("mmd", "kernel", kernel, _KERNELS)
    check_features("mmd", features)
    check_features("mmd", targets, "targets")
    batch, channels = features.shape[0], features.shape[3]
    if targets.shape[0] not in (1, batch) or targets.shape[3] != channels:
        raise ValueError(
            f"mmd: expected targets of batch {batch} or 1 and {channels} channels, got shape "
            f"{tuple(targets.shape)}; compare one layer (height and width may differ)."
        )
    return function(features, targets, key)


# Wasserstein distance between Gaussians.


class GaussianStatistics(NamedTuple):
    """Mean [batch, channels] and covariance [batch, channels, channels] over positions."""

    mean: Array
    covariance: Array


class WassersteinTarget(NamedTuple):
    """What `wasserstein2` needs of a style, prepared once by `wasserstein2_target`.

    Attributes:
      mean: [batch, channels].
      trace: [batch], of the covariance.
      root: [batch, channels, channels], square root of covariance + noise * identity.
      noise: [batch], the variance that is added to every channel of both pictures.
    """

    mean: Array
    trace: Array
    root: Array
    noise: Array


def gaussian_statistics(features: Array) -> GaussianStatistics:
    """Mean and population covariance of features over positions.

    The covariance is summed around the mean, in a second pass, because the difference of the two
    raw moments loses its digits where the mean is large.

    Args:
      features: [batch, height, width, channels].

    Returns:
      `GaussianStatistics(mean, covariance)`: [batch, channels], [batch, channels, channels].

    Raises:
      ValueError: for a wrong shape.
    """
    check_features("gaussian_statistics", features)
    mean, centered = center(features)
    covariance = second_moments(centered) / centered.shape[1]
    return GaussianStatistics(mean, covariance)


_DEFAULT_EPS = 1e-4
# Keeps two pictures that are both perfectly flat away from 0 / 0.
_LEAST_NOISE = 1e-10


def wasserstein2_target(
    statistics: GaussianStatistics, *, eps: float = _DEFAULT_EPS
) -> WassersteinTarget:
    """Prepares the style's side of `wasserstein2`: one eigendecomposition, once a style.

    Args:
      statistics: of the style, from `gaussian_statistics`.
      eps: see `wasserstein2`; greater than 0.

    Returns:
      `WassersteinTarget(mean, trace, root, noise)`.

    Raises:
      ValueError: for a wrong shape, or an `eps` that is not positive.
    """
    _check_statistics("wasserstein2_target", "statistics", statistics)
    if not eps > 0:
        raise ValueError(
            f"wasserstein2_target: expected eps > 0, got {eps}; without noise the gradient "
            f"of singular covariances is infinite. The default is {_DEFAULT_EPS}."
        )
    covariance = statistics.covariance.astype(accumulator(statistics.covariance))
    trace = jnp.trace(covariance, axis1=1, axis2=2)
    noise = eps * trace + _LEAST_NOISE
    return WassersteinTarget(statistics.mean, trace, _square_root(covariance, noise), noise)


def wasserstein2(
    statistics: GaussianStatistics,
    target: GaussianStatistics | WassersteinTarget,
    *,
    eps: float | None = None,
) -> Array:
    """Squared Wasserstein-2 distance between Gaussians, over the number of channels.

    The mean over channels of (mu - mu*)^2, plus 1/C of the squared Bures distance of covariances,
    tr S + tr S* - 2 tr (S*^1/2 S S*^1/2)^1/2 (Dowson and Landau 1982; as a style loss in
    style-transfer-pytorch by Crowson, 2021).

    Covariances of deep layers are singular: they have more channels than positions. So independent
    noise of variance `eps` times the style's total variance is first added to every channel of
    both pictures. The result is the exact distance of the noisy Gaussians: 0, with gradient 0,
    where the statistics agree, and otherwise a little less than without noise (1% to 6% for
    VGG-19's relu4_1 and relu5_1 at the default), because directions of less variance than the
    noise count less. Scaling the features by a scales it by a^2.

    The root's trace is found by matrix products alone (`_trace_of_root`). Both arguments have
    gradients; second derivatives are for the first argument.

    Args:
      statistics: of the picture being made, from `gaussian_statistics`.
      target: of the style, from `gaussian_statistics`, or prepared by `wasserstein2_target`, which
        saves an eigendecomposition a call; a batch of 1 is shared by all images.
      eps: noise as a fraction of the style's total variance, by default 1e-4. Smaller is sharper,
        but float32 loses the gradient below 3e-5. A prepared target has its own.

    Returns:
      [batch], not negative but for rounding.

    Raises:
      ValueError: for shapes that do not agree, or an `eps` beside a prepared target.
    """
    _check_statistics("wasserstein2", "statistics", statistics)
    unprepared = isinstance(target, GaussianStatistics)
    matrices = target.covariance if unprepared else target.root
    for value, its_target in zip(statistics, (target.mean, matrices), strict=True):
        check_pair("wasserstein2", value, its_target, "compare the statistics of one layer")
    if eps is not None and not unprepared:
        raise ValueError(
            f"wasserstein2: expected no eps with a prepared target, got {eps}; give it to "
            "wasserstein2_target, which adds it to the style's side."
        )
    if unprepared:
        target = wasserstein2_target(target, eps=_DEFAULT_EPS if eps is None else eps)

    mean, covariance, target_mean, trace, root, noise = (
        array.astype(accumulator(array)) for array in (*statistics, *target)
    )
    # Of the covariance with its noise, seen from the target: its root's trace is the overlap.
    noisy = covariance + noise[:, None, None] * jnp.eye(covariance.shape[1], dtype=covariance.dtype)
    product = _matmul(_matmul(root, noisy), root)
    overlap = _trace_of_root(0.5 * (product + jnp.swapaxes(product, 1, 2)))
    traces = jnp.trace(noisy, axis1=1, axis2=2) + trace + covariance.shape[1] * noise
    bures = (traces - 2 * overlap) / covariance.shape[1]
    return jnp.mean(jnp.square(mean - target_mean), axis=1) + bures


def _check_statistics(function: str, argument: str, statistics: GaussianStatistics) -> None:
    check_array(function, f"{argument}.mean", statistics.mean, "batch, channels")
    check_square(function, f"{argument}.covariance", statistics.covariance)
    expected = (*statistics.mean.shape, statistics.mean.shape[1])
    if tuple(statistics.covariance.shape) != expected:
        raise ValueError(
            f"{function}: expected {argument}.covariance of shape {expected} beside a mean of "
            f"{tuple(statistics.mean.shape)}, got {tuple(statistics.covariance.shape)}; "
            "gaussian_statistics makes both."
        )


_matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


@jax.custom_jvp
def _square_root(covariance: Array, noise: Array) -> Array:
    """Square root of covariance + noise * identity; equal eigenvalues do not harm its gradient."""
    roots, vectors = _eigen_roots(covariance, noise)
    return _matmul(vectors * roots[:, None], jnp.swapaxes(vectors, 1, 2))


def _eigen_roots(covariance: Array, noise: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(covariance)
    # Rounding leaves eigenvalues of singular covariances a little below 0.
    return jnp.sqrt(jnp.maximum(values, 0) + noise[:, None]), vectors


@_square_root.defjvp
def _square_root_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    roots, vectors = _eigen_roots(*primals)
    transposed = jnp.swapaxes(vectors, 1, 2)
    d_covariance, d_noise = tangents
    # dA = dR R + R dR, solved for dR entry by entry in the basis of eigenvectors.
    d_matrix = d_covariance + d_noise[:, None, None] * jnp.eye(roots.shape[1], dtype=roots.dtype)
    rotated = _matmul(_matmul(transposed, d_matrix), vectors)
    d_root = rotated / (roots[:, :, None] + roots[:, None])
    return (
        _matmul(vectors * roots[:, None], transposed),
        _matmul(_matmul(vectors, d_root), transposed),
    )


@jax.custom_jvp
def _trace_of_root(matrices: Array) -> Array:
    """Trace of the square root of [batch, n, n] positive definite matrices, [batch].

    d tr M^(1/2) = 1/2 tr (M^(-1/2) dM) in closed form, so the iteration is not differentiated.
    """
    return jnp.sum(matrices * _inverse_root(matrices), axis=(1, 2))


@_trace_of_root.defjvp
def _trace_of_root_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    inverse_root = _inverse_root(primals[0])
    value = jnp.sum(primals[0] * inverse_root, axis=(1, 2))
    return value, 0.5 * jnp.sum(inverse_root * tangents[0], axis=(1, 2))


def _newton_schulz_steps(iterations: int, least: float) -> np.ndarray:
    """Coefficients a, b of x -> a x - b x^3, a row a step, that take [least, 1] to 1.

    Newton and Schulz's a = 3/2, b = 1/2 multiplies small x by 1.5 a step. Stretching x by the
    largest factor that keeps the interval below 1 multiplies it by 2.6 (Chen and Chow 2014, "A
    stable scaling of Newton-Schulz for improving the sign function computation of a Hermitian
    matrix").
    """
    steps = []
    for _ in range(iterations):
        stretch = math.sqrt(3 / (1 + least + least**2))
        steps.append((1.5 * stretch, 0.5 * stretch**3))
        least = steps[-1][0] - steps[-1][1]
    return np.asarray(steps)


# Enough for eigenvalues from 1e-6 of the largest, near the limit of float32; smaller ones are taken
# for larger than they are, which damps their gradient and never makes it explode. Against float64
# eigenvalues, on relu4_1 and relu5_1 (512 channels, 40 to 3264 positions) of photographs and
# paintings: the distance is within 0.04%, the gradient of the features within 0.3%. Unscaled, 12
# steps overestimate the covariances' part of it by 5% to 150%.
_STEPS = _newton_schulz_steps(iterations=11, least=1e-3)


def _inverse_root(matrices: Array) -> Array:
    """M^(-1/2) by the coupled Newton-Schulz iteration (Higham 2008, chapter 6), scaled as above.

    Three matrix products a step and nothing else, so it is fast on GPU and TPU too. The number of
    steps is fixed: noise of the rounding has no time to grow.
    """
    identity = jnp.eye(matrices.shape[1], dtype=matrices.dtype)
    steps = jnp.asarray(_STEPS, matrices.dtype)
    # The Frobenius norm bounds the eigenvalues; of M / largest, lest its squares leave float32.
    largest = jnp.max(jnp.abs(matrices), axis=(1, 2), keepdims=True)
    matrices = matrices / largest
    norm = jnp.sqrt(jnp.sum(jnp.square(matrices), axis=(1, 2), keepdims=True))

    def step(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        root, inverse = state
        polynomial = steps[index, 0] * identity - steps[index, 1] * _matmul(inverse, root)
        return _matmul(root, polynomial), _matmul(polynomial, inverse)

    # The first step from the identity, by hand: it needs one product only.
    normalized = matrices / norm
    polynomial = steps[0, 0] * identity - steps[0, 1] * normalized
    state = (_matmul(normalized, polynomial), polynomial)
    _, inverse = lax.fori_loop(1, len(_STEPS), step, state)
    return inverse / jnp.sqrt(norm * largest)
