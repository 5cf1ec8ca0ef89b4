"""L-BFGS for pictures in tiles: `optax.lbfgs` in place, on arrays that may be mapped from files.

optax makes a new state out of an old one, and its history alone is twenty arrays of the picture's
size. Here they are overwritten. The search for a step's size is optax's: all that it asks of a
picture is how the loss goes along a line, which is a function of one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import strips
from jaxstyle.config import StylizeConfig
from jaxstyle.methods import gatys_updates
from jaxstyle.methods.gatys_arrays import Room, move

Evaluate = Callable[[np.ndarray, np.ndarray], dict[str, Array]]
"""Gives the terms of the loss of the first array, and puts its gradient into the second one."""


def updates(
    state: Any, evaluate: Evaluate, config: StylizeConfig, room: Room
) -> Iterator[tuple[Any, np.ndarray, dict[str, Array]]]:
    """Updates without an end: state, picture and terms, as `gatys_tiled.updates` has them.

    Args:
        state: what the first one begins with, of NumPy arrays that the updates overwrite.
        evaluate: the objective.
        config: settings.
        room: for more arrays.
    """
    shape = state.variables.shape
    direction, trial, shown = (room.zeros(shape) for _ in range(3))
    terms: dict[str, Array] | None = None
    while True:
        history, scaling, search = state.opt_state
        gradient = search.grad
        if terms is None or config.clamp:  # which may have moved the variables
            terms = evaluate(state.variables, gradient)
        history, scale = _remember(history, state.variables, gradient)
        _precondition(history, scale, gradient, into=direction)
        line = _Line(state.variables, direction, trial, gradient, evaluate)
        search = _search(line, terms["total"], search)
        state = state._replace(opt_state=(history, scaling, search))
        state = move(state, trial, config, shown)
        yield state, shown, terms
        terms = line.terms


# --- the direction -------------------------------------------------------------------------------


def _dot(first: np.ndarray, second: np.ndarray) -> float:
    """The inner product of two pictures, in float64."""
    return sum(
        float(np.vdot(first[:, rows].astype(np.float64), second[:, rows].astype(np.float64)))
        for rows in strips.band_slices(*first.shape[1:3])
    )


def _combine(first: np.ndarray, scale: float, second: np.ndarray, *, into: np.ndarray) -> None:
    """`into = first + scale * second`; it may be one of them."""
    for rows in strips.band_slices(*first.shape[1:3]):
        into[:, rows] = first[:, rows] + np.float32(scale) * second[:, rows]


def _remember(history: Any, variables: np.ndarray, gradient: np.ndarray) -> tuple[Any, float]:
    """Notes by how much variables and gradient have changed since the last update.

    Returns:
        The history, and what stands for the rest of the Hessian's inverse, a number (Nocedal and
        Wright, Eq. 7.20; at first, what makes a step of no more than 1).
    """
    count = int(history.count)
    place = (count - 1) % len(history.weights_memory)
    weights = np.array(history.weights_memory)
    scale = 1.0
    if count:
        steps, changes = history.diff_params_memory[place], history.diff_updates_memory[place]
        _combine(variables, -1, history.params, into=steps)
        _combine(gradient, -1, history.updates, into=changes)
        product, square = _dot(steps, changes), _dot(changes, changes)
        weights[place] = 1 / product if product else 0
        scale = product / square if square else 1.0
    elif length := math.sqrt(_dot(gradient, gradient)):
        scale = min(1.0, 1 / length)
    history.params[...], history.updates[...] = variables, gradient
    count = np.asarray(count + 1, np.asarray(history.count).dtype)
    return history._replace(count=count, weights_memory=weights), scale


def _precondition(history: Any, scale: float, gradient: np.ndarray, *, into: np.ndarray) -> None:
    """The direction to go: minus the gradient times the Hessian's inverse, as far as it is known.

    Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.4.
    """
    weights = history.weights_memory
    size = len(weights)
    # From the oldest to the latest change; those that are not known yet weigh nothing.
    places = [(int(history.count) - 1 + place) % size for place in range(size)]
    places = [place for place in places if weights[place]]
    shares = {}
    np.negative(gradient, out=into)
    for place in reversed(places):
        steps, changes = history.diff_params_memory[place], history.diff_updates_memory[place]
        shares[place] = float(weights[place]) * _dot(steps, into)
        _combine(into, -shares[place], changes, into=into)
    np.multiply(into, np.float32(scale), out=into)
    for place in places:
        steps, changes = history.diff_params_memory[place], history.diff_updates_memory[place]
        share = float(weights[place]) * _dot(changes, into)
        _combine(into, shares[place] - share, steps, into=into)


# --- the size of the step ------------------------------------------------------------------------


class _Line:
    """The loss along a line, at the place that was asked for last.

    Attributes:
        terms: of the loss there.
        step: how many directions it is away from the origin.
    """

    def __init__(
        self,
        origin: np.ndarray,
        direction: np.ndarray,
        trial: np.ndarray,
        gradient: np.ndarray,
        evaluate: Evaluate,
    ) -> None:
        self._origin, self._direction, self._trial = origin, direction, trial
        self._gradient, self._evaluate = gradient, evaluate
        self.terms: dict[str, Array] = {}
        self.step = math.nan

    def slope(self) -> float:
        """How fast the loss grows there along the line."""
        return _dot(self._gradient, self._direction)

    def go(self, step: float) -> tuple[Array, Array]:
        """Evaluates the loss at a place: its value there, and its slope."""
        _combine(self._origin, step, self._direction, into=self._trial)
        with jax.disable_jit(False):
            self.terms = self._evaluate(self._trial, self._gradient)
        self.step = step
        return self.terms["total"], jnp.float32(self.slope())


def _search(line: _Line, value: Array, state: Any) -> Any:
    """Goes as far along a line as optax's search finds right.

    Args:
        line: at its origin.
        value: of the loss there.
        state: of optax's search; its gradient is overwritten.

    Returns:
        The new state. The line is at the place that was found.
    """

    @jax.custom_vjp
    def loss(step: Array) -> Array:
        return line.go(float(step))[0]

    def forward(step: Array) -> tuple[Array, Array]:
        return line.go(float(step))

    loss.defvjp(forward, lambda slope, cotangent: (cotangent * slope,))
    origin, search = jnp.zeros(()), gatys_updates.line_search()
    known = {"value": value, "grad": jnp.float32(line.slope()), "value_fn": loss}
    found: Any
    with jax.disable_jit():
        _, found = search.update(jnp.ones(()), search.init(origin), origin, **known)
    if float(found.learning_rate) != line.step:  # it goes back where no place is right
        line.go(float(found.learning_rate))
    scalars: Any = jax.tree.map(np.asarray, found._replace(grad=0))
    return scalars._replace(grad=state.grad)
