"""Updates of pixel optimisation: pure functions of a state, and their compiled forms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxstyle import features as vgg
from jaxstyle.config import StylizeConfig, replace
from jaxstyle.objective import (
    LossWeights,
    Targets,
    make_targets,
    objective,
    to_pictures,
    to_variables,
)
from jaxstyle.weights import Weights

_EMITTERS = "xla_cpu_use_fusion_emitters"

LossFn = Callable[[Array], tuple[Array, dict[str, Array]]]
"""An objective: of the variables, with its terms beside it."""


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


def make_optimizer(
    config: StylizeConfig, learning_rate: Any = None
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of the pixels; a learning rate that is given goes before the settings'."""
    if config.optimizer == "lbfgs":
        # A line search finds the step size: learning_rate is Adam's alone.
        return optax.lbfgs(memory_size=config.history, linesearch=line_search())
    rate = config.learning_rate if learning_rate is None else learning_rate
    return optax.with_extra_args_support(optax.adam(rate, b1=config.adam_b1, b2=config.adam_b2))


def line_search() -> optax.GradientTransformationExtraArgs:
    """How L-BFGS finds the size of its steps: as optax has it by default."""
    return optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


def init_state(pictures: Array | np.ndarray, config: StylizeConfig) -> State:
    """The state before the first update."""
    variables = to_variables(jnp.asarray(pictures), config)
    average = jnp.zeros_like(variables) if config.averaging > 0 else jnp.zeros(())
    state = State(variables, make_optimizer(config).init(variables), average, jnp.zeros(()))
    # Copied, because the state is donated: it must share no buffer with the pictures, nor, as the
    # zeros of optax do, within itself. And with a type of its own: optax begins with weak ones,
    # updates give back strong ones, and what takes both is compiled twice.
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=leaf.dtype), state)


def update(
    state: State,
    params: vgg.Parameters,
    targets: Targets,
    weights: LossWeights,
    config: StylizeConfig,
    padding: str,
    learning_rate: Any = None,
) -> tuple[State, Array, dict[str, Array]]:
    """One update of the picture: a pure function, jitted by `stylize`.

    Args:
        state: as `init_state` has it at first.
        params: the network.
        targets: what the picture is compared with.
        weights: of the losses.
        config: settings.
        padding: of the network.
        learning_rate: a scalar, which may be traced, in place of that in the settings.

    Returns:
        The new state, the picture to show `[1, height, width, 3]`, and the terms of the loss
        before the update.
    """

    def loss_fn(variables: Array) -> tuple[Array, dict[str, Array]]:
        return objective(params, variables, targets, weights, config, padding)

    return step(state, loss_fn, config, learning_rate)


def step(
    state: State, loss_fn: LossFn, config: StylizeConfig, learning_rate: Any = None
) -> tuple[State, Array, dict[str, Array]]:
    """`update`, of any objective."""
    if config.optimizer == "lbfgs":
        return search(state, loss_fn, config)
    gradient, terms = jax.grad(loss_fn, has_aux=True)(state.variables)
    return *descend(state, gradient, config, learning_rate), terms


def search(
    state: State, loss_fn: LossFn, config: StylizeConfig
) -> tuple[State, Array, dict[str, Array]]:
    """An update that looks for the size of its step, as L-BFGS does.

    The line search ends with the value and the gradient of the next iterate, which the state keeps;
    it does not keep the terms, so a forward pass reads them off. Where the iterate was clamped
    after that, it is another one.
    """

    def value_fn(variables: Array) -> Array:
        return loss_fn(variables)[0]

    if config.clamp:
        (value, terms), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.variables)
    else:
        terms = loss_fn(state.variables)[1]
        value, gradient = optax.value_and_grad_from_state(value_fn)(
            state.variables, state=state.opt_state
        )
    extra = {"value": value, "grad": gradient, "value_fn": value_fn}
    return *descend(state, gradient, config, **extra), terms


def descend(
    state: State, gradient: Any, config: StylizeConfig, learning_rate: Any = None, **extra: Any
) -> tuple[State, Array]:
    """An update whose gradient is known: the new state, and the picture to show.

    Without `extra`, which goes to the optimiser, each pixel is updated by itself.
    """
    optimizer = make_optimizer(config, learning_rate)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.variables, **extra)
    state = state._replace(opt_state=opt_state)
    return move(state, jnp.asarray(optax.apply_updates(state.variables, updates)), config)


def move(state: State, variables: Array, config: StylizeConfig) -> tuple[State, Array]:
    """What the end of an update does with the variables it comes to, whatever the optimiser.

    Returns:
        The new state, with the old one's optimiser, and the picture to show.
    """
    if config.clamp:
        variables = jnp.clip(variables, 0, 1)
    average, total_weight = state.average, state.total_weight
    if config.averaging > 0:
        average = config.averaging * average + (1 - config.averaging) * variables
        total_weight = config.averaging * total_weight + (1 - config.averaging)
    state = State(variables, state.opt_state, average, total_weight)
    return state, to_show(state, config)


def to_show(state: State, config: StylizeConfig) -> Array:
    """The picture of a state after an update, `[1, height, width, 3]` in [0, 1]."""
    averaged = state.average / state.total_weight if config.averaging > 0 else state.variables
    return jnp.clip(to_pictures(averaged, config), 0, 1)


class Jitted(NamedTuple):
    """The compiled functions of a run: `make_targets` and `update`, which is given its state."""

    targets: Any
    update: Any


def platform() -> str:
    """What is computed on by default: "cpu", "gpu" or "tpu"."""
    return next(iter(jnp.zeros(()).devices())).platform


def compiler_options(platform: str, level: int = 1) -> dict[str, Any] | None:
    """Options of `jax.jit` for a platform.

    On a CPU the time is spent in libraries of products and convolutions, not in what LLVM makes,
    and its better optimisations, and XLA's emitters of fused loops, cost more seconds than they
    save (benchmarks/README.md).
    """
    if platform != "cpu" or jax.config.read("jax_disable_most_optimizations"):
        return None
    options: dict[str, Any] = {"xla_backend_optimization_level": level}
    if _is_option(_EMITTERS):
        options[_EMITTERS] = False
    return options


@functools.cache
def _is_option(name: str) -> bool:
    """Whether this version of XLA has an option, which may be true or false."""
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options={name: False})
    except jax.errors.JaxRuntimeError:
        return False
    return True


@functools.cache
def jitted(platform: str) -> Jitted:
    """The compiled functions for a platform: "cpu", "gpu" or "tpu"."""
    static = ("config", "padding")
    return Jitted(
        jax.jit(
            make_targets, static_argnames=static, compiler_options=compiler_options(platform, 0)
        ),
        jax.jit(
            update,
            static_argnames=static,
            donate_argnums=0,
            compiler_options=compiler_options(platform),
        ),
    )


def prepared(features: Weights) -> vgg.Parameters:
    """The network as updates take it, on the device, where it is uploaded once."""
    # Transformed kernels serve the convolution of the CPU alone.
    if platform() != "cpu":
        return jax.device_put(features.params)
    return vgg.prepare(features.params, padding=features.padding, brief=True)


def program(config: StylizeConfig) -> StylizeConfig:
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
