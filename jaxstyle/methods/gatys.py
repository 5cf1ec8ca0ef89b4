"""Style transfer by optimising the pixels.

Gatys, Ecker and Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks" (CVPR).
What is minimised is in `jaxstyle.objective`; here are the update, the scales and the pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxstyle import color, distributions, images
from jaxstyle import features as vgg
from jaxstyle.config import INITS, StylizeConfig, preset, replace
from jaxstyle.methods import gatys_tiled
from jaxstyle.objective import (
    LossWeights,
    Targets,
    blend_gaussians,
    loss_weights,
    make_targets,
    objective,
    to_pictures,
    to_variables,
)
from jaxstyle.weights import Weights


class Iterate(NamedTuple):
    """What an update of the picture yields.

    Attributes:
        image: float32 `[height, width, 3]` in [0, 1], the picture so far (the average over
            iterates, where averaging is on).
        step: the update, from 1, in this scale.
        steps: how many updates this scale has.
        scale: the scale, from 1.
        scales: how many scales there are.
        losses: the weighted terms before the update: `total`, `content`, `style` and `tv`, scalars
            on the device.
        state: what the next update begins with, and overwrites: copy it before.
    """

    image: Array
    step: int
    steps: int
    scale: int
    scales: int
    losses: dict[str, Array]
    state: Any = None


class State(NamedTuple):
    """The optimisation of one scale: the picture, the optimiser's state, the average of iterates.

    Attributes:
        variables: `[1, height, width, 3]`, what the optimiser changes (`to_variables`).
        opt_state: of optax.
        average: sum of the iterates, each with its weight; a scalar where averaging is off.
        total_weight: sum of those weights.
    """

    variables: Array
    opt_state: Any
    average: Array
    total_weight: Array


def make_optimizer(config: StylizeConfig) -> optax.GradientTransformationExtraArgs:
    """The optimiser of the pixels."""
    if config.optimizer == "lbfgs":
        # A line search finds the step size: learning_rate is Adam's alone.
        return optax.lbfgs(memory_size=config.history)
    return optax.with_extra_args_support(
        optax.adam(config.learning_rate, b1=config.adam_b1, b2=config.adam_b2)
    )


def init_state(pictures: Array, config: StylizeConfig) -> State:
    """The state before the first update."""
    variables = to_variables(pictures, config)
    average = jnp.zeros_like(variables) if config.averaging > 0 else jnp.zeros(())
    state = State(variables, make_optimizer(config).init(variables), average, jnp.zeros(()))
    # Copied, because the state is donated: it must share no buffer with the pictures, nor, as the
    # zeros of optax do, within itself.
    return jax.tree.map(jnp.copy, state)


def update(
    state: State,
    params: vgg.Parameters,
    targets: Targets,
    weights: LossWeights,
    config: StylizeConfig,
    padding: str,
) -> tuple[State, Array, dict[str, Array]]:
    """One update of the picture: a pure function, jitted by `stylize`.

    Returns:
        The new state, the picture to show `[1, height, width, 3]`, and the terms of the loss
        before the update.
    """

    def loss_fn(variables: Array) -> tuple[Array, dict[str, Array]]:
        return objective(params, variables, targets, weights, config, padding)

    if config.optimizer == "lbfgs":
        state, shown, terms = search(state, loss_fn, config)
        return state, shown, terms
    gradient, terms = jax.grad(loss_fn, has_aux=True)(state.variables)
    return *descend(state, gradient, config), terms


def search(
    state: State, loss_fn: Callable[[Array], tuple[Array, dict[str, Array]]], config: StylizeConfig
) -> tuple[State, Array, dict[str, Array]]:
    """An update that looks for the size of its step, as L-BFGS does.

    The line search ends with the value and the gradient of the next iterate, which the state keeps;
    it does not keep the terms, so a forward pass reads them off.
    """

    def value_fn(variables: Array) -> Array:
        return loss_fn(variables)[0]

    terms = loss_fn(state.variables)[1]
    value, gradient = optax.value_and_grad_from_state(value_fn)(
        state.variables, state=state.opt_state
    )
    extra = {"value": value, "grad": gradient, "value_fn": value_fn}
    return *descend(state, gradient, config, **extra), terms


def descend(
    state: State, gradient: Any, config: StylizeConfig, **extra: Any
) -> tuple[State, Array]:
    """An update whose gradient is known: the new state, and the picture to show.

    Without `extra`, which goes to the optimiser, each pixel is updated by itself.
    """
    optimizer = make_optimizer(config)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.variables, **extra)
    variables = jnp.asarray(optax.apply_updates(state.variables, updates))
    if config.clamp:
        variables = jnp.clip(variables, 0, 1)
    average, total_weight = state.average, state.total_weight
    if config.averaging > 0:
        average = config.averaging * average + (1 - config.averaging) * variables
        total_weight = config.averaging * total_weight + (1 - config.averaging)
    state = State(variables, opt_state, average, total_weight)
    return state, to_show(state, config)


def to_show(state: State, config: StylizeConfig) -> Array:
    """The picture of a state after an update, `[1, height, width, 3]` in [0, 1]."""
    averaged = state.average / state.total_weight if config.averaging > 0 else state.variables
    return jnp.clip(to_pictures(averaged, config), 0, 1)


_shown = jax.jit(to_show, static_argnames="config")


def stylize(
    content: Any,
    styles: Sequence[Any],
    *,
    features: Weights,
    config: StylizeConfig | None = None,
    style_weights: Sequence[float] | None = None,
    init: Any | None = None,
    padding: str | None = None,
    tile: int | str | None = "auto",
    memory: int | None = None,
    resume: Iterate | None = None,
    **overrides: Any,
) -> Iterator[Iterate]:
    """Stylises a picture, update by update.

    Args:
        content: `[height, width, 3]` in [0, 1], at its full size: it is resized to `config.size`.
        styles: one or more pictures `[h, w, 3]` in [0, 1], each of its own size. A style is resized
            to `config.style_scale` times the picture, but never enlarged.
        features: the perceptual network, as `jaxstyle.weights.load` gives it.
        config: settings; the default preset's for these features if none are given.
        style_weights: how much each style counts; equal if none are given. Only ratios matter.
        init: the picture to start from, of any size, or one of "content", "style-stats" and
            "noise", in place of what `config.init` says.
        padding: of the network, in place of what the features were trained with.
        tile: the side in pixels of the tiles that an update is computed in, with the same gradient
            (`gatys_tiled`); None to compute it whole; "auto" for tiles where that takes too much.
        memory: bytes that an update may take; by default half of what is available.
        resume: the iterate to go on from, of the same call; its place and `state` are needed.
        **overrides: fields of `StylizeConfig` that replace those of `config`.

    Yields:
        An `Iterate` an update, over all scales from coarse to fine. The last one is the result.
        Where tiles are computed, its picture is a NumPy array that the next update overwrites.

    Raises:
        ValueError: an unknown setting or layer, pictures of another shape, or weights that do not
            match the styles.
    """
    if isinstance(init, str):
        init, overrides["init"] = None, init
    config = replace(config or preset("default", scale=features.scale), **overrides)
    content = _check_picture("content", content)
    pictures = [_check_picture(f"style {i + 1}", style) for i, style in enumerate(styles)]
    weights = _check_weights(style_weights, len(pictures))
    vgg.check_layers(features.params, {*config.content_layers, *config.style_layers})
    start = None if init is None else _check_picture("init", init)
    if start is None and config.init not in INITS:
        raise ValueError(
            f"init must be one of {', '.join(INITS)}, or a picture; got {config.init!r}"
        )
    # What cannot work is refused above, at the call; the generator begins with the first next().
    network = features._replace(padding=padding or features.padding)
    cutting = gatys_tiled.Cutting(tile, memory)
    gatys_tiled.choose(cutting, features.params, [*config.style_layers], (1, 1))  # or it is refused
    return _scales(content, pictures, weights, network, config, start, cutting, resume)


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


def _scales(
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    style_weights: tuple[float, ...],
    features: Weights,
    config: StylizeConfig,
    init: np.ndarray | None,
    cutting: gatys_tiled.Cutting,
    resume: Iterate | None,
) -> Iterator[Iterate]:
    sizes = scale_sizes(content.shape[0], content.shape[1], config)
    begun = resume.scale if resume is not None else 1
    # A scale may have ended just there.
    shown = None if resume is None else _shown(resume.state, config=_program(config))
    for scale, steps in enumerate(scale_steps(config, len(sizes)), 1):
        if scale < begun:
            continue
        size = sizes[scale - 1]
        canvas = jnp.asarray(images.resize(content, size))[None]
        resized = [_resize_style(style, size, config) for style in styles]
        wanted, resized = _match_colors(canvas, resized, config)
        if shown is not None:
            start = jnp.asarray(images.resize(np.asarray(shown[0]), size))[None]
        elif init is not None:
            start = jnp.asarray(images.resize(init, size))[None]
        else:
            start = initial_pictures(wanted, resized, style_weights, config)
        state, done = (resume.state, resume.step) if scale == begun and resume else (None, 0)
        run = gatys_tiled.Scale(features, config, wanted, resized, style_weights, start, state)
        updates = _updates(run, cutting.of(features.params, config, size))
        for step, (state, made, terms) in zip(range(done + 1, steps + 1), updates, strict=False):
            picture = made
            if config.keep_colors == "luminance":
                picture = color.transfer_luminance(jnp.asarray(made), canvas)
            yield Iterate(picture[0], step, steps, scale, len(sizes), terms, state)
        # As a run that goes on from here has it, to the bit.
        shown = _shown(state, config=_program(config))


def _updates(
    run: gatys_tiled.Scale, side: int | None
) -> Iterator[tuple[State, Array, dict[str, Array]]]:
    """The updates of a scale, without an end: state, picture and terms."""
    platform = next(iter(jnp.zeros(()).devices())).platform
    params, padding = run.features.params, run.features.padding
    # Transformed kernels serve the convolution of the CPU alone.
    prepared = vgg.prepare(params, padding=padding) if platform == "cpu" else params
    program = _program(run.config)
    if side is not None:
        network = gatys_tiled.Network(prepared, padding, program)
        yield from gatys_tiled.updates(network, run, side)
        return
    compiled = jitted(platform)
    targets = compiled.targets(params, run.content, run.styles, run.style_weights, program, padding)
    weights = loss_weights(run.config, targets)
    state = init_state(run.start, run.config) if run.state is None else run.state
    state = jax.tree.map(jnp.asarray, state)
    while True:
        state, shown, terms = compiled.update(state, prepared, targets, weights, program, padding)
        yield state, shown, terms


class Jitted(NamedTuple):
    """The compiled functions of a run: `make_targets` and `update`, which is given its state."""

    targets: Any
    update: Any


@functools.cache
def jitted(platform: str) -> Jitted:
    """The compiled functions for a platform: "cpu", "gpu" or "tpu".

    On a CPU the time is spent in libraries of products and convolutions, not in what LLVM makes,
    and its better optimisations cost more seconds than they save (benchmarks/README.md).
    """
    targets, step = ({"xla_backend_optimization_level": level} for level in (0, 1))
    static = ("config", "padding")
    on_cpu = platform == "cpu"
    return Jitted(
        jax.jit(make_targets, static_argnames=static, compiler_options=targets if on_cpu else None),
        jax.jit(
            update,
            static_argnames=static,
            donate_argnums=0,
            compiler_options=step if on_cpu else None,
        ),
    )


def _program(config: StylizeConfig) -> StylizeConfig:
    """The settings without what the compiled functions do not read, so that they serve more runs.

    Weights are arguments of the compiled functions: to change one compiles nothing.
    """
    unread = ("size", "style_scale", "steps", "steps_factor", "scales", "scale_factor", "init")
    unread += ("keep_colors", "seed", "content_weight", "style_weight", "tv_weight")
    defaults = StylizeConfig()
    return replace(
        config,
        content_layers=dict.fromkeys(config.content_layers, 1.0),
        style_layers=dict.fromkeys(config.style_layers, 1.0),
        **{name: getattr(defaults, name) for name in unread},
    )


def _resize_style(style: np.ndarray, size: tuple[int, int], config: StylizeConfig) -> Array:
    longer = min(round(max(size) * config.style_scale), max(style.shape[:2]))
    fitted = images.fitted_size(style.shape[0], style.shape[1], max(longer, 1))
    return jnp.asarray(images.resize(style, fitted))[None]


def _match_colors(
    content: Array, styles: Sequence[Array], config: StylizeConfig
) -> tuple[Array, list[Array]]:
    """Content and styles as the losses see them, by `config.keep_colors`.

    Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer" (arXiv 1606.05897):
    matching the style's colours first (section 4), or transferring luminance alone (section 5).
    """
    if config.keep_colors == "match":
        return content, [color.match_moments(style, content) for style in styles]
    if config.keep_colors == "luminance":
        matched = [color.match_luminance(style, content) for style in styles]
        return _grey(content), [_grey(style) for style in matched]
    return content, list(styles)


def _grey(pictures: Array) -> Array:
    return jnp.broadcast_to(color.luminance(pictures), pictures.shape)


def initial_pictures(
    content: Array, styles: Sequence[Array], weights: Sequence[float], config: StylizeConfig
) -> Array:
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


def _check_picture(name: str, picture: Any) -> np.ndarray:
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
    return array.astype(np.float32)


def _check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    if not count:
        raise ValueError("expected at least one style")
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise ValueError(f"expected a weight for each of {count} styles; got {len(weights)}")
    if not np.isfinite(weights).all() or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"style weights must be 0 or more, and not all 0; got {weights}")
    return tuple(float(weight) / sum(weights) for weight in weights)
