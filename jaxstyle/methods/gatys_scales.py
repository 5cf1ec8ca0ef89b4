"""Scales of pixel optimisation: their sizes, and the pictures as they come into each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import color, distributions, images, strips
from jaxstyle.config import StylizeConfig
from jaxstyle.objective import blend_gaussians
from jaxstyle.weights import Weights


class Scale(NamedTuple):
    """What a scale is made of.

    Attributes:
        features: the network that judges.
        config: settings.
        content: `[1, height, width, 3]`, as the losses see it.
        styles: `[1, h, w, 3]` each, likewise.
        style_weights: one a style; they sum to one.
        start: makes the first picture, of the size of the content, where there is no state.
        state: to go on from, if any.
    """

    features: Weights
    config: StylizeConfig
    content: Array | np.ndarray
    styles: Sequence[Array]
    style_weights: Sequence[float]
    start: Callable[[], Array | np.ndarray]
    state: Any = None


def scale_sizes(height: int, width: int, config: StylizeConfig) -> list[tuple[int, int]]:
    """Height and width of every scale, from coarse to fine."""
    sides = [config.size / config.scale_factor**i for i in reversed(range(config.scales))]
    return [images.fitted_size(height, width, max(round(side), 1)) for side in sides]


def scale_steps(config: StylizeConfig, scales: int) -> list[int]:
    """Numbers of updates from the coarsest scale to the finest, each at least 1.

    What is coarse is settled when a finer scale begins, and a step of it costs several times more.
    """
    factors = (config.steps_factor**scale for scale in range(scales))
    return [max(1, round(config.steps * factor)) for factor in factors]


def resize_style(style: np.ndarray, size: tuple[int, int], config: StylizeConfig) -> Array:
    """A style at the scale of a picture of that height and width, `[1, h, w, 3]`."""
    longer = min(round(max(size) * config.style_scale), max(style.shape[:2]))
    fitted = images.fitted_size(style.shape[0], style.shape[1], max(longer, 1))
    return jnp.asarray(images.resize(style, fitted))[None]


def match_colors(
    content: Array | np.ndarray, styles: Sequence[Array], config: StylizeConfig
) -> tuple[Array | np.ndarray, list[Array]]:
    """Content and styles as the losses see them, by `config.keep_colors`.

    Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer" (arXiv 1606.05897):
    matching the style's colours first (section 4), or transferring luminance alone (section 5).
    """
    if config.keep_colors is None:
        return content, list(styles)  # without a copy: it may be large
    reference = _statistics(np.asarray(content))
    if config.keep_colors == "match":
        return content, [color.match_moments(style, reference) for style in styles]
    matched = [color.match_luminance(style, reference) for style in styles]
    return _grey(np.asarray(content)), [jnp.asarray(_grey(np.asarray(s))) for s in matched]


def _statistics(pictures: np.ndarray) -> color.Statistics:
    """Of the colours of `[1, height, width, 3]`, in float64, some rows at a time."""
    height, width = pictures.shape[1:3]
    mean, products = np.zeros(3), np.zeros((3, 3))
    for strip in strips.band_slices(height, width):
        mean += pictures[0, strip].sum((0, 1), dtype=np.float64) / (height * width)
    for strip in strips.band_slices(height, width):
        rest = pictures[0, strip].reshape(-1, 3) - mean
        products += rest.T @ rest / (height * width)
    return color.Statistics(jnp.float32(mean)[None], jnp.float32(products)[None])


# Compiled, for what operations leave between them takes more than the band.
_luminance, _transferred = jax.jit(color.luminance), jax.jit(color.transfer_luminance)


def _grey(pictures: np.ndarray) -> np.ndarray:
    """The luminance `[1, height, width, 3]`, some rows at a time."""
    made = np.empty(pictures.shape, np.float32)
    for strip in strips.band_slices(*pictures.shape[1:3]):
        made[:, strip] = _luminance(pictures[:, strip])
    return made


def recolor(pictures: np.ndarray, content: np.ndarray) -> None:
    """`color.transfer_luminance` in place, some rows at a time.

    Args:
        pictures: `[1, height, width, 3]`, from which the luminance comes.
        content: likewise: gives the colours.
    """
    for strip in strips.band_slices(*pictures.shape[1:3]):
        pictures[:, strip] = _transferred(pictures[:, strip], content[:, strip])


def initial_pictures(
    content: Array | np.ndarray,
    styles: Sequence[Array],
    weights: Sequence[float],
    config: StylizeConfig,
) -> Array | np.ndarray:
    """The picture `[1, height, width, 3]` that `config.init` names.

    "style-stats" is Gaussian noise with the mean and covariance of the styles' colours, and
    "noise" is uniform in [0, 1].
    """
    if config.init == "content":
        return content
    key = jax.random.key(config.seed)
    if config.init == "noise":
        return jax.random.uniform(key, content.shape)
    found = [distributions.gaussian_statistics(style) for style in styles]
    mean, covariance = blend_gaussians(found, weights)
    values = jax.random.multivariate_normal(key, mean[0], covariance[0], content.shape[:3])
    return jnp.clip(values, 0, 1)


def first_picture(
    before: Array | np.ndarray | None,
    init: np.ndarray | None,
    content: Array | np.ndarray,
    styles: Sequence[Array],
    weights: Sequence[float],
    config: StylizeConfig,
) -> Array | np.ndarray:
    """The picture `[1, height, width, 3]` that a scale begins with.

    Args:
        before: what the coarser scale came to, `[h, w, 3]`; None where there is none.
        init: the user's own start, `[h, w, 3]`; None for what the settings name.
        content: as the losses see it, `[1, height, width, 3]`.
        styles: `[1, h, w, 3]` each, likewise.
        weights: one a style; they sum to one.
        config: settings.
    """
    given = init if before is None else np.asarray(before)
    if given is None:
        return initial_pictures(content, styles, weights, config)
    return jnp.asarray(images.resize(given, (content.shape[1], content.shape[2])))[None]


def check_picture(name: str, picture: Any) -> np.ndarray:
    """A picture as float32 `[height, width, 3]`; a ValueError that names it where it is none."""
    array = np.asarray(picture)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"{name}: expected a picture [height, width, 3]; got {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: expected floats in [0, 1]; got {array.dtype}; divide by 255")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"{name}: expected values in [0, 1]; got {array.min():.3g} to {array.max():.3g}"
        )
    return array.astype(np.float32, copy=False)


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights of so many styles that sum to one; a ValueError where they are no weights."""
    if not count:
        raise ValueError("expected at least one style")
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise ValueError(f"expected a weight for each of {count} styles; got {len(weights)}")
    if not np.isfinite(weights).all() or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"style weights must be 0 or more, and not all 0; got {weights}")
    return tuple(float(weight) / sum(weights) for weight in weights)
