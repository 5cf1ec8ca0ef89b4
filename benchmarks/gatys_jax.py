"""The contestant of `gatys.py` that is this package: its own update, as the command runs it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np


def make(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """Loads, compiles, and returns the step with the seconds of compilation."""
    from jaxstyle import runtime

    if settings["tune"]:
        runtime.tune_allocator()
    import jax

    from jaxstyle import features, objective, weights
    from jaxstyle.config import StylizeConfig
    from jaxstyle.methods import gatys_updates

    if "BENCHMARK_CACHE" in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.environ["BENCHMARK_CACHE"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    network = weights.load(settings["weights"])
    config = StylizeConfig(**settings["config"])
    with np.load(settings["pictures"]) as pictures:
        content, style = jax.numpy.asarray(pictures["content"]), pictures["style"]
    start = time.perf_counter()
    targets = jax.block_until_ready(
        gatys_updates.jitted("cpu").targets(
            network.params, content, [jax.numpy.asarray(style)], (1.0,), config, network.padding
        )
    )
    targets_seconds = time.perf_counter() - start
    params = jax.block_until_ready(features.prepare(network.params, brief=True))
    loss_weights = objective.loss_weights(config, targets)
    state = gatys_updates.init_state(content, config)
    start = time.perf_counter()
    update = (
        gatys_updates.jitted("cpu")
        .update.lower(state, params, targets, loss_weights, config, network.padding)
        .compile()
    )
    figures = {"targets_s": targets_seconds, "compile_s": time.perf_counter() - start}

    def step() -> float:
        nonlocal state
        state, picture, terms = update(state, params, targets, loss_weights)
        jax.block_until_ready((state, picture))
        return float(terms["total"])

    return step, figures


if __name__ == "__main__":
    harness.serve(make)
