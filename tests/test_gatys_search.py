"""L-BFGS in place, against optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxstyle import strips
from jaxstyle.config import StylizeConfig
from jaxstyle.methods import gatys_search, gatys_updates
from jaxstyle.methods.gatys_arrays import MEMORY, first_state

SHAPE = (1, 5, 4, 3)
RANDOM = np.random.default_rng(17)
START = RANDOM.random(SHAPE, np.float32)
SCALES = jnp.asarray(10 ** RANDOM.uniform(-1.5, 1.5, SHAPE), jnp.float32)


def bowl(x):
    return jnp.sum(SCALES * (x - 0.4) ** 2)


def valley(x):
    """Rosenbrock's function, of neighbours."""
    x = 10 * x.ravel()
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def waves(x):
    return jnp.sum(jnp.sin(20 * x) + x**2)


def corner(x):
    return jnp.sum(jnp.abs(x - 0.4))


def cliff(x):
    """No number beyond an edge, and nowhere level before it: the search goes back from there."""
    return jnp.sum(jnp.where(x < 2, -x, jnp.nan))


FUNCTIONS = [bowl, valley, waves, corner, cliff]


def optax_path(function, config, steps):
    """Variables, values and numbers of trials of `optax.lbfgs`."""

    @jax.jit
    def update(state):
        return gatys_updates.search(state, lambda x: (function(x), {"total": function(x)}), config)

    state = gatys_updates.init_state(START, config)
    for _ in range(steps):
        state, _, terms = update(state)
        search = state.opt_state[-1]
        yield state.variables, terms["total"], int(search.info.num_linesearch_steps)


def own_updates(function, config, calls, state=None):
    compiled = jax.jit(jax.value_and_grad(function))

    def evaluate(variables, gradient):
        calls.append(1)
        value, gradient[...] = compiled(variables)
        return {"total": value}

    state = first_state(START, config, MEMORY) if state is None else state
    return gatys_search.updates(state, evaluate, config, MEMORY)


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("history", [2, 10])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_steps_are_those_of_optax(monkeypatch, function, history, clamp):
    monkeypatch.setattr(strips, "BAND_PIXELS", 8)  # two rows
    config = StylizeConfig(optimizer="lbfgs", history=history, clamp=clamp, averaging=0)
    calls, several = [], 0
    updates = own_updates(function, config, calls)
    for variables, value, trials in optax_path(function, config, 2 if function is cliff else 8):
        before = len(calls)
        state, shown, terms = next(updates)
        np.testing.assert_allclose(state.variables, variables, rtol=1e-3, atol=1e-4)
        assert float(terms["total"]) == pytest.approx(float(value), rel=1e-3, abs=1e-5)
        assert state.opt_state[-1].info.num_linesearch_steps == trials
        np.testing.assert_array_equal(shown, np.clip(state.variables, 0, 1))
        # At first, or where it was clamped, the loss; and once more where none of the trials did.
        assert trials <= len(calls) - before <= trials + 2
        several = max(several, trials)
    assert several > 1 or (function is valley and history == 2)


def test_nothing_is_evaluated_twice():
    config, calls = StylizeConfig(optimizer="lbfgs", clamp=False, averaging=0), []
    trials = 0
    for _, (state, _, _) in zip(range(6), own_updates(bowl, config, calls), strict=False):
        trials += int(state.opt_state[-1].info.num_linesearch_steps)
        assert len(calls) == 1 + trials


@pytest.mark.parametrize("clamp", [False, True])
def test_a_state_has_all_that_comes_after_it(clamp):
    config = StylizeConfig(optimizer="lbfgs", history=3, clamp=clamp, averaging=0.5)
    run = own_updates(valley, config, [])
    for _ in range(4):
        state, _, _ = next(run)
    rest = own_updates(valley, config, [], jax.tree.map(np.copy, state))
    for _ in range(4):
        (state, shown, terms), (other, also, same) = next(run), next(rest)
        np.testing.assert_array_equal(shown, also)
        jax.tree.map(np.testing.assert_array_equal, state, other)
        assert terms["total"] == same["total"]


def test_the_state_is_of_the_kind_that_optax_has():
    config = StylizeConfig(optimizer="lbfgs", history=3, averaging=0)
    wanted = jax.eval_shape(lambda: gatys_updates.init_state(jnp.asarray(START), config))
    state, _, _ = next(own_updates(valley, config, []))
    for found, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        assert isinstance(found, np.ndarray)
        assert (found.shape, found.dtype) == (leaf.shape, leaf.dtype)
    assert isinstance(state.opt_state[0], optax.ScaleByLBFGSState)
