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
from jaxstyle.weight_files import IMAGENET_DEVIATION, IMAGENET_MEAN


class Sums(NamedTuple):
    """What the statistics of a layer are made of, of parts of one picture.

    Nothing large cancels: each part's products are summed around a centre of its own, its mean.

    Attributes:
        number: of positions that count, `[parts, 1]`.
        mean: of the features, `[parts, channels]`; zeros where a loss asks for none.
        second: sums over the positions of all parts, around each part's centre: of the products of
            channels, `[1, channels, channels]`, or of the squares of each, `[1, channels]`.
    """

    number: Any
    mean: Any
    second: Any


def united(sums: Sums) -> Sums:
    """The parts as one, around the mean of all of them: Eq. 2.1 of Chan et al. 1979.

    Args:
        sums: around the means of the parts. In NumPy it is computed where they are NumPy's.
    """
    xp = np if isinstance(sums.mean, np.ndarray) else jnp
    number = sums.number.sum(0, keepdims=True)
    shares = sums.number / xp.maximum(number, 1)
    mean = (shares * sums.mean).sum(0, keepdims=True)
    apart = xp.sqrt(sums.number) * (sums.mean - mean)
    if sums.second.ndim == 2:
        between = xp.square(apart).sum(0, keepdims=True)
    elif xp is np:
        between = (apart.T @ apart)[None]
    else:
        between = losses.second_moments(apart[None])
    return Sums(number, mean, sums.second + between)


class StyleLoss(NamedTuple):
    """A style loss of one layer, in the parts that a tiled or sharded objective needs.

    Attributes:
        statistics: features `[batch, h, w, c]` to a pytree of statistics.
        sums: features of a part `[1, h, w, c]`; which positions count, 1 or 0, `[1, h, w, 1]`; and
            a centre `[c]` to sum around, or None for the part's mean: to the sums of one part.
        finish: sums of one part, which is the whole, around its mean, and how many positions there
            are, to what `statistics` gives for it.
        blend: several styles' statistics and their weights, which sum to one, to one style's.
        target: a style's statistics to what `distance` compares with, made once.
        distance: statistics and target to `[batch]`.
        degree: features of a times the size have a loss of a**degree times the size.
    """

    statistics: Callable[[Array], Any]
    sums: Callable[[Array, Array, Any], Sums]
    finish: Callable[[Sums, Any], Any]
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
    """Mean and covariance of the mixture: the mean covariance, and that of the means.

    So nothing cancels: the covariance of a single one comes out as it is.
    """
    mean = _average([s.mean for s in statistics], weights)
    apart = [s.mean - mean for s in statistics]
    spread = [
        s.covariance + rest[:, :, None] * rest[:, None, :]
        for s, rest in zip(statistics, apart, strict=True)
    ]
    return distributions.GaussianStatistics(mean, _average(spread, weights))


def _blend_moments(
    statistics: Sequence[losses.Moments], weights: Sequence[float]
) -> losses.Moments:
    """Mean and deviation of the mixture, as `blend_gaussians` has them."""
    mean = _average([s.mean for s in statistics], weights)
    spread = [jnp.square(s.std) + jnp.square(s.mean - mean) for s in statistics]
    return losses.Moments(mean, jnp.sqrt(_average(spread, weights)))


def _raw_products(features: Array, counts: Array, center: Any) -> Sums:
    """Around zero, whatever the mean."""
    del center
    flat = losses.flatten_positions(features * counts)
    mean = jnp.zeros((1, features.shape[-1]), flat.dtype)
    return Sums(_number(counts), mean, losses.second_moments(flat))


def _products(features: Array, counts: Array, center: Any) -> Sums:
    number, mean, rest = _centered(features, counts, center)
    return Sums(number, mean, losses.second_moments(rest))


def _squares(features: Array, counts: Array, center: Any) -> Sums:
    number, mean, rest = _centered(features, counts, center)
    return Sums(number, mean, jnp.sum(jnp.square(rest), axis=1))


def _number(counts: Array) -> Array:
    """How many positions count, `[1, 1]`: a rectangle, for float32 cannot count far in ones."""
    lengths = [jnp.sum(jnp.max(counts, axis=axis)) for axis in (1, 2)]
    return (lengths[0] * lengths[1])[None, None]


def _centered(features: Array, counts: Array, center: Any) -> tuple[Array, Array, Array]:
    """Number and mean of what counts, and what lies around the centre, zeros elsewhere.

    The mean has a gradient, the centre none: around the mean it would come to nothing.
    """
    number = _number(counts)
    if center is None:
        total = jnp.sum(losses.flatten_positions(features * counts), axis=1)
        center = jax.lax.stop_gradient(total / jnp.maximum(number, 1))[0]
    rest = losses.flatten_positions((features - center) * counts)
    return number, center + jnp.sum(rest, axis=1) / jnp.maximum(number, 1), rest


def _finish_gram(normalize: str, sums: Sums, number: Any) -> Array:
    channels = sums.second.shape[1]
    return sums.second / {"positions": number, "elements": number * channels}[normalize]


def _finish_gaussian(sums: Sums, number: Any) -> distributions.GaussianStatistics:
    return distributions.GaussianStatistics(sums.mean, sums.second / number)


def _finish_moments(sums: Sums, number: Any) -> losses.Moments:
    return losses.Moments(sums.mean, jnp.sqrt(sums.second / number + losses.MOMENTS_EPS))


def _gram_loss(normalize: str, form: str) -> StyleLoss:
    return StyleLoss(
        functools.partial(losses.gram_matrix, normalize=normalize),
        _raw_products,
        functools.partial(_finish_gram, normalize),
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
        _blend_moments,
        lambda statistics: statistics,
        losses.moments_loss,
        2,
    ),
    "wasserstein": StyleLoss(
        distributions.gaussian_statistics,
        _products,
        _finish_gaussian,
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


def to_variables(pictures: Array, config: StylizeConfig) -> Array:
    """The variables of the optimisation: the pixels, or standardised ones."""
    return (pictures - IMAGENET_MEAN) / IMAGENET_DEVIATION if config.standardize else pictures


def to_pictures(variables: Array, config: StylizeConfig) -> Array:
    """The inverse of `to_variables`."""
    return variables * IMAGENET_DEVIATION + IMAGENET_MEAN if config.standardize else variables


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
