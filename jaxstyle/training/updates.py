"""From a loss to an update: optimiser, gradient over devices and parts, moving average."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from optax import contrib

from jaxstyle.training.config import OptimizerConfig, TrainConfig

Metrics = dict[str, Array]
# (params, statistics, batch, key) -> (loss, (metrics, statistics)); the loss is the mean over the
# batch that it is given.
LossFn = Callable[[Any, Any, Any, Array], tuple[Array, tuple[Metrics, Any]]]


class TrainState(NamedTuple):
    """What a method with one set of parameters carries from step to step.

    Attributes:
        step: updates made, int32.
        params: float32 parameters, a pytree.
        statistics: what is not learnt by gradients, such as those of batch normalisation.
        opt_state: the optimiser's.
        average: the moving average of `params`; an empty tuple where none is kept.
    """

    step: Array
    params: Any
    statistics: Any
    opt_state: optax.OptState
    average: Any


def init_state(params: Any, config: TrainConfig, *, statistics: Any = ()) -> TrainState:
    """The state before the first step. The average has buffers of its own: states are donated."""
    average = jax.tree.map(jnp.copy, params) if config.average else ()
    opt_state = make_optimizer(config).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, statistics, opt_state, average)


def averaged(state: TrainState) -> Any:
    """The parameters to use: the moving average where there is one."""
    return state.params if isinstance(state.average, tuple) and not state.average else state.average


def restored_average(state: Mapping[str, Any]) -> Any:
    """As `averaged`, of a `TrainState` that was read from a checkpoint without its class."""
    return state["average"] or state["params"]


def make_update(
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    axis_name: str | None,
    schedule: optax.Schedule | None = None,
    is_trained: Callable[[str], bool] | None = None,
) -> Callable:
    """The step of a method that follows the gradient of one loss.

    Args:
        loss_fn: see `LossFn`. Its gradient is taken on each device's share of the batch and then
            averaged: the gradient of an averaged loss would not be, under pmap.
        config: the optimiser, `accumulate` and `average` are read.
        axis_name: of the devices; None for one device without pmap.
        schedule: the learning rate by step; that of the configuration by default.
        is_trained: for parameters that are a dict, the names of those that change; all by default.

    Returns:
        `update(state, batch, key) -> (state, metrics)`; the metrics are those of the loss, and
        `loss`, `gradient_norm` and `learning_rate`.
    """
    schedule = schedule or learning_rate(config.optimizer, config.steps)
    optimizer = make_optimizer(config, schedule)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def gradient_fn(params: Any, *rest: Any) -> Any:
        # What does not change needs no gradient: the compiler leaves it out.
        if is_trained is not None:
            params = {k: v if is_trained(k) else lax.stop_gradient(v) for k, v in params.items()}
        return loss_fn(params, *rest)

    def update(state: TrainState, batch: Any, key: Array) -> tuple[TrainState, Metrics]:
        (loss, (metrics, statistics)), gradient = _accumulated(
            gradient_fn, state, batch, key, config.accumulate
        )
        shared = gradient, {"loss": loss, **metrics}, statistics
        if axis_name is not None:
            shared = lax.pmean(shared, axis_name)
        gradient, metrics, statistics = shared
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        metrics["learning_rate"] = jnp.asarray(schedule(state.step), jnp.float32)
        change, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        if is_trained is not None:  # momentum would go on moving them
            change = _masked(change, is_trained)
        params = optax.apply_updates(state.params, change)
        average = state.average
        if config.average:
            average = _moved(average, params, state.step, config.average)
        return TrainState(state.step + 1, params, statistics, opt_state, average), metrics

    return update


def rows_of_batch(rows: int, axis_name: str | None) -> tuple[Any, int]:
    """The number of this device's first picture in the whole batch, and how many that has.

    What is drawn for all rows, and of which each device takes its own, is what one device draws.

    Args:
        rows: of this device.
        axis_name: of the devices; None for one device without pmap.
    """
    if axis_name is None:
        return 0, rows
    return lax.axis_index(axis_name) * rows, lax.axis_size(axis_name) * rows


def _masked(change: Any, is_trained: Callable[[str], bool]) -> Any:
    return {k: v if is_trained(k) else jnp.zeros_like(v) for k, v in change.items()}


def cast(tree: Any, dtype: Any) -> Any:
    """The floating-point arrays of a tree in another type, for mixed precision."""

    def convert(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, tree)


def _accumulated(
    gradient_fn: Callable, state: TrainState, batch: Any, key: Array, parts: int
) -> tuple[tuple[Array, tuple[Metrics, Any]], Any]:
    """Loss, metrics, statistics and gradient, the mean over parts of a batch one after another."""
    if parts == 1:
        return gradient_fn(state.params, state.statistics, batch, key)

    def split(x: Array) -> Array:
        return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])

    def body(statistics: Any, part: Any) -> tuple[Any, Any]:
        images, index = part
        (loss, (metrics, statistics)), gradient = gradient_fn(
            state.params, statistics, images, jax.random.fold_in(key, index)
        )
        return statistics, (loss, metrics, gradient)

    shares = jax.tree.map(split, batch), jnp.arange(parts)
    statistics, results = _scan_mean(body, state.statistics, shares)
    loss, metrics, gradient = results
    return (loss, (metrics, statistics)), gradient


def _scan_mean(body: Callable, carry: Any, parts: Any) -> tuple[Any, Any]:
    """`lax.scan` that gives the mean of the outputs, and keeps one of them at a time."""
    count = jax.tree.leaves(parts)[0].shape[0]
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(body, carry, first)[1]
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def step(state: Any, part: Any) -> tuple[Any, None]:
        carry, total = state
        carry, result = body(carry, part)
        return (carry, jax.tree.map(jnp.add, total, result)), None

    (carry, total), _ = lax.scan(step, (carry, total), parts)
    return carry, jax.tree.map(lambda x: x / count, total)


def _moved(average: Any, params: Any, step: Array, decay: float) -> Any:
    """The moving average after a step; early on it forgets faster, so as to leave its start."""
    now = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: now * a + (1 - now) * p, average, params)


# --- optimisers ----------------------------------------------------------------------------------


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step: a linear warm-up, then the schedule."""
    peak, end = config.learning_rate, config.learning_rate * config.final_fraction
    rest = max(steps - config.warmup_steps, 1)
    after = {
        "constant": lambda: optax.schedules.constant_schedule(peak),
        "cosine": lambda: optax.schedules.cosine_decay_schedule(peak, rest, config.final_fraction),
        "linear": lambda: optax.schedules.linear_schedule(peak, end, rest),
        "inverse_time": lambda: _inverse_time(peak, rest, config.final_fraction),
    }[config.schedule]()
    if not config.warmup_steps:
        return after
    warmup = optax.schedules.linear_schedule(
        peak / (config.warmup_steps + 1), peak, config.warmup_steps
    )
    return optax.schedules.join_schedules([warmup, after], [config.warmup_steps])


def _inverse_time(peak: float, steps: int, fraction: float) -> optax.Schedule:
    """The rate of peak / (1 + a step), with the a that leaves this fraction after so many steps."""
    rate = (1 / fraction - 1) / steps
    return lambda step: peak / (1 + rate * step)


def make_optimizer(
    config: TrainConfig, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """The optimiser that a configuration names, with its schedule and limit of the gradient."""
    settings = config.optimizer
    rate = schedule or learning_rate(settings, config.steps)
    b1, b2, decay = settings.b1, settings.b2, settings.weight_decay
    optimizer = {
        "adam": lambda: optax.adam(rate, b1, b2),
        "adamw": lambda: optax.adamw(rate, b1, b2, weight_decay=decay),
        "sgd": lambda: optax.sgd(rate, momentum=b1 or None),
        "muon": lambda: _muon(rate, settings),
    }[settings.name]()
    if not settings.clip_norm:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)


def _muon(rate: optax.Schedule, settings: OptimizerConfig) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for kernels, as matrices from inputs to outputs; Adam elsewhere.

    The learning rate is that of an orthogonal matrix; that of Adam, with Nesterov's momentum, is a
    tenth of it.
    """

    def dimensions(params: Any) -> Any:
        return jax.tree.map_with_path(_matrix_axes, params)

    return contrib.muon(
        rate,
        beta=settings.b1,
        adam_b2=settings.b2,
        weight_decay=settings.weight_decay,
        muon_weight_dimension_numbers=dimensions,
        adam_learning_rate=lambda step: 0.1 * rate(step),
    )


def _matrix_axes(path: Any, param: Array) -> contrib.MuonDimensionNumbers | None:
    # Tables of a gamma or a beta for each style are no maps from inputs to outputs; and what makes
    # the three colours of a picture out of many channels would be moved far too fast.
    if param.ndim < 2 or getattr(path[-1], "key", "") in ("gamma", "beta") or param.shape[-1] <= 3:
        return None
    return contrib.MuonDimensionNumbers(tuple(range(param.ndim - 1)), (param.ndim - 1,))
