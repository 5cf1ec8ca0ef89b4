"""The objective of pixel optimisation, in parts.

The picture x minimises, in Eq. 7 of Gatys et al. 2016,

    content_weight * content(x) + style_weight * style(x) + tv_weight * variation(x)

where content compares features position by position and style compares their statistics. The
statistics of a layer are sums over its positions, and the other terms are local: so the objective
and its gradient can be put together from parts of a picture.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import distributions, losses
from jaxstyle import features as vgg
from jaxstyle.config import StylizeConfig


class Sums(NamedTuple):
    """What the statistics of a layer are made of: sums over positions, of x minus a centre.

    Attributes:
        first: `[batch, channels]`, of the features.
        second: of the products of channels, `[batch, channels, channels]`, or of the squares of
            each, `[batch, channels]`.
    """

    first: Any
    second: Any


class StyleLoss(NamedTuple):
    """A style loss of one layer, in the parts that a tiled or sharded objective needs.

    Attributes:
        statistics: features `[batch, h, w, c]` to a pytree of statistics.
        sums: features; which positions count, 1 or 0, `[1, h, w, 1]`; and a centre `[c]` to sums,
            which add up over the parts of a picture.
        finish: sums around that centre, how many positions there are, and the centre to what
            `statistics` gives for the whole.
        centered: whether the centre matters; it is 0 where not.
        blend: several styles' statistics and their weights, which sum to one, to one style's.
        target: a style's statistics to what `distance` compares with, made once.
        distance: statistics and target to `[batch]`.
        degree: features of a times the size have a loss of a**degree times the size.
    """

    statistics: Callable[[Array], Any]
    sums: Callable[[Array, Array, Array], Sums]
    finish: Callable[[Sums, Any, Array], Any]
    centered: bool
    blend: Callable[[Sequence[Any], Sequence[float]], Any]
    target: Callable[[Any], Any]
    distance: Callable[[Any, Any], Array]
    degree: int


def _average(statistics: Sequence[Any], weights: Sequence[float]) -> Any:
    return jax.tree.map(
        lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *statistics
    )


def blend_gaussians(
    statistics: Sequence[distributions.GaussianStatistics], weights: Sequence[float]
) -> distributions.GaussianStatistics:
    """Mean and covariance of the mixture: second moments average, covariances do not."""

    def outer(mean: Array) -> Array:
        return mean[:, :, None] * mean[:, None, :]

    raw = [
        distributions.GaussianStatistics(s.mean, s.covariance + outer(s.mean)) for s in statistics
    ]
    mean, second = _average(raw, weights)
    return distributions.GaussianStatistics(mean, second - outer(mean))


def _blend_moments(
    statistics: Sequence[losses.Moments], weights: Sequence[float]
) -> losses.Moments:
    """Mean and deviation of the mixture, as `blend_gaussians` has them."""
    raw = [losses.Moments(s.mean, s.std**2 + s.mean**2) for s in statistics]
    mean, second = _average(raw, weights)
    # Rounding may leave less than nothing.
    return losses.Moments(mean, jnp.sqrt(jnp.maximum(second - mean**2, 1e-12)))


def _products(features: Array, counts: Array, center: Array) -> Sums:
    flat = losses.flatten_positions((features - center) * counts)
    return Sums(jnp.sum(flat, axis=1), losses.second_moments(flat))


def _squares(features: Array, counts: Array, center: Array) -> Sums:
    flat = losses.flatten_positions((features - center) * counts)
    return Sums(jnp.sum(flat, axis=1), jnp.sum(jnp.square(flat), axis=1))


def _finish_gram(normalize: str, sums: Sums, number: Any, center: Array) -> Array:
    del center
    channels = sums.second.shape[1]
    return sums.second / {"positions": number, "elements": number * channels}[normalize]


def _finish_gaussian(sums: Sums, number: Any, center: Array) -> distributions.GaussianStatistics:
    rest = sums.first / number
    covariance = sums.second / number - rest[:, :, None] * rest[:, None, :]
    return distributions.GaussianStatistics(center + rest, covariance)


def _finish_moments(sums: Sums, number: Any, center: Array) -> losses.Moments:
    rest = sums.first / number
    variance = sums.second / number - jnp.square(rest)
    return losses.Moments(center + rest, jnp.sqrt(variance + losses.MOMENTS_EPS))


def _gram_loss(normalize: str, form: str) -> StyleLoss:
    return StyleLoss(
        functools.partial(losses.gram_matrix, normalize=normalize),
        _products,
        functools.partial(_finish_gram, normalize),
        False,
        _average,
        lambda statistics: statistics,
        functools.partial(losses.style_loss, form=form),
        4,
    )


STYLE_LOSSES: Mapping[str, StyleLoss] = {
    "gatys": _gram_loss("positions", "gatys"),
    "positions": _gram_loss("positions", "mean"),
    "elements": _gram_loss("elements", "mean"),
    "moments": StyleLoss(
        losses.channel_moments,
        _squares,
        _finish_moments,
        True,
        _blend_moments,
        lambda statistics: statistics,
        losses.moments_loss,
        2,
    ),
    "wasserstein": StyleLoss(
        distributions.gaussian_statistics,
        _products,
        _finish_gaussian,
        True,
        blend_gaussians,
        distributions.wasserstein2_target,
        distributions.wasserstein2,
        2,
    ),
}


_VARIATIONS = {
    "sum": (1, "sum"),
    "half_mean": (1, "half_mean"),
    "squared_mean": (2, "half_mean"),
}


def total_variation(form: str) -> Callable[[Array], Array]:
    """The variation `[batch]` of images by the name that `StylizeConfig.tv_loss` gives it."""
    order, reduction = _VARIATIONS[form]
    return functools.partial(losses.total_variation, order=order, reduction=reduction)


def variation_of_part(form: str, part: Array, counts: Array, size: Any) -> Array:
    """The share of a part in the variation `[batch]` of a whole.

    Args:
        form: as for `total_variation`.
        part: `[batch, h, w, channels]`.
        counts: which pixels count, 1 or 0, `[1, h, w, 1]`: each has its differences to the pixels
            below it and to the right.
        size: height and width of the whole, two numbers or `[2]`.
    """
    order, reduction = _VARIATIONS[form]
    total = jnp.zeros(part.shape[0])
    for axis in (1, 2):
        differences = losses.VARIATION_PENALTIES[order](jnp.diff(part, axis=axis))
        counted = jax.lax.slice_in_dim(counts, 0, part.shape[axis] - 1, axis=axis)
        term = jnp.sum(differences * counted, axis=(1, 2, 3))
        number = (size[axis - 1] - 1) * size[2 - axis] * part.shape[3]
        total = total + (0.5 * term / jnp.maximum(number, 1) if reduction == "half_mean" else term)
    return total


class Targets(NamedTuple):
    """What the picture is compared with, made once a scale.

    Attributes:
        content: `{layer: [1, h, w, c]}`.
        style: `{layer: target of the style loss}`.
        size: `{layer: scalar}`, the features' mean activation on the styles, or 1: the losses are
            those of features divided by it (`loss_weights`).
    """

    content: dict[str, Array]
    style: dict[str, Any]
    size: dict[str, Array]


def extract(
    params: vgg.Parameters, pictures: Array, config: StylizeConfig, padding: str, **options: Any
) -> dict[str, Array]:
    """The features that the objective needs, `{layer: [batch, h, w, c]}`; options are `vgg`'s."""
    layers = {*config.content_layers, *config.style_layers}
    return vgg.vgg(params, pictures, layers, padding=padding, pooling=config.pooling, **options)


def make_targets(
    params: vgg.Parameters,
    content: Array,
    styles: Sequence[Array],
    style_weights: Sequence[float],
    config: StylizeConfig,
    padding: str,
) -> Targets:
    """Targets of the objective.

    Args:
        params: the network.
        content: `[1, height, width, 3]`.
        styles: pictures `[1, h, w, 3]`, each of its own size.
        style_weights: one a style; they sum to one.
        config: settings.
        padding: of the network.
    """
    loss = STYLE_LOSSES[config.style_loss]
    found = [extract(params, style, config, padding) for style in styles]
    content_features = extract(params, content, config, padding)
    size = {
        name: _mean_activation([f[name] for f in found], style_weights)
        if config.normalize_features
        else jnp.ones(())
        for name in content_features
    }
    style = {}
    for name in config.style_layers:
        statistics = [loss.statistics(f[name]) for f in found]
        style[name] = loss.target(loss.blend(statistics, style_weights))
    return Targets({name: content_features[name] for name in config.content_layers}, style, size)


def _mean_activation(found: Sequence[Array], weights: Sequence[float]) -> Array:
    mean = sum(w * jnp.mean(jnp.abs(f)) for w, f in zip(weights, found, strict=True))
    return jnp.maximum(jnp.asarray(mean), 1e-6)


class LossWeights(NamedTuple):
    """The weight of every term, scalars; arguments of the compiled update, which fits them all."""

    content: dict[str, Array]
    style: dict[str, Array]
    tv: Array


def loss_weights(config: StylizeConfig, targets: Targets) -> LossWeights:
    """The weights of the settings, divided by the power of the features' size that a loss has.

    It divides the losses, not the features: that would copy every feature map.
    """
    degree = STYLE_LOSSES[config.style_loss].degree

    def scaled(total: float, layers: Mapping[str, float], power: int) -> dict[str, Array]:
        return {name: total * share / targets.size[name] ** power for name, share in layers.items()}

    return LossWeights(
        scaled(config.content_weight, config.content_layers, 2),
        scaled(config.style_weight, config.style_layers, degree),
        jnp.asarray(config.tv_weight, jnp.float32),
    )


# Of ImageNet's colours, as torchvision and MXNet publish them.
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def to_variables(pictures: Array, config: StylizeConfig) -> Array:
    """The variables of the optimisation: the pixels, or standardised ones."""
    return (pictures - _IMAGENET_MEAN) / _IMAGENET_DEVIATION if config.standardize else pictures


def to_pictures(variables: Array, config: StylizeConfig) -> Array:
    """The inverse of `to_variables`."""
    return variables * _IMAGENET_DEVIATION + _IMAGENET_MEAN if config.standardize else variables


def objective(
    params: vgg.Parameters,
    variables: Array,
    targets: Targets,
    weights: LossWeights,
    config: StylizeConfig,
    padding: str,
) -> tuple[Array, dict[str, Array]]:
    """The loss of pictures, given as `to_variables` has them, `[batch, height, width, 3]`.

    Returns:
        The total, a scalar: the sum over the batch. And the weighted terms of it, scalars, named
        `total`, `content`, `style` and `tv`.
    """
    loss = STYLE_LOSSES[config.style_loss]
    found = extract(params, to_pictures(variables, config), config, padding)
    content = [
        weight * losses.content_loss(found[name], targets.content[name], form=config.content_loss)
        for name, weight in weights.content.items()
    ]
    style = [
        weight * loss.distance(loss.statistics(found[name]), targets.style[name])
        for name, weight in weights.style.items()
    ]
    terms = {
        "content": jnp.sum(jnp.asarray(content)),
        "style": jnp.sum(jnp.asarray(style)),
        "tv": weights.tv * jnp.sum(total_variation(config.tv_loss)(variables)),
    }
    total = terms["content"] + terms["style"] + terms["tv"]
    return total, {"total": total, **terms}
