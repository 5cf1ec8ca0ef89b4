"""The contestant of `residual.py` that is this package: its own code, as the commands run it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np


def make(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """Loads, runs once, which compiles, and returns the step."""
    from jaxstyle import runtime

    runtime.prepare(device="cpu", warn=lambda text: print(text, file=sys.stderr))
    make_step = {"infer": make_infer, "train": make_train, "paint": make_paint}[settings["task"]]
    step, figures = make_step(settings)
    figures["idle_mb"] = harness.peak_mb()
    start = time.perf_counter()
    figures["first_loss"] = step()
    figures["first_s"] = time.perf_counter() - start
    return step, figures


def make_infer(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """The full-width generator on one picture."""
    import jax

    from jaxstyle.methods import residual
    from jaxstyle.models import Model

    params = nested(settings["generator"])
    model = Model("residual", residual.Config(), ("random",), {"params": params})
    apply = jax.jit(residual.stylize_fn(model))
    variables = jax.device_put(model.variables)
    content = jax.numpy.asarray(np.load(settings["pictures"]), jax.numpy.float32) / 255
    output = settings.get("output")

    def step() -> float:
        nonlocal output
        made = jax.block_until_ready(apply(variables, content))
        if output:
            np.save(output, np.asarray(made))
            output = None
        return 0.0

    return step, {}


def make_train(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """The update of the training loop, on the same batch again and again."""
    import jax

    from jaxstyle.methods import residual
    from jaxstyle.training import parallel
    from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig

    config = TrainConfig(
        method="residual",
        model=residual.Config(features=settings["features"], **settings["config"]),
        batch_size=4,
        crop_size=settings["size"],
        optimizer=OptimizerConfig(name="adam", learning_rate=settings["learning_rate"]),
        data=DataConfig(style=settings["style"]),
    )
    parallel.check_batch(config)
    method = residual.method(config, axis_name=parallel.AXIS)
    key = jax.random.key(0)
    state = jax.jit(method.init)(key)
    params = jax.tree.map(jax.numpy.asarray, nested(settings["generator"]))
    state = parallel.replicate(state._replace(params=params))
    update = parallel.make_update(method.update)
    batch = {"content": np.load(settings["pictures"])}

    def step() -> float:
        nonlocal state
        state, metrics = update(state, batch, key)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return step, {"devices": jax.device_count()}


def make_paint(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """A trained model on one picture, in its first style."""
    from jaxstyle import models
    from jaxstyle.methods import residual

    model = models.load(settings["model"])
    content = np.load(settings["pictures"])[0].astype(np.float32) / 255
    weights = [1.0] + [0.0] * (len(model.styles) - 1)

    def step() -> float:
        residual.paint(model, content, style_weights=weights)
        return 0.0

    return step, {}


def nested(path: str) -> dict[str, Any]:
    """The parameters of a file, as dicts within dicts."""
    from jaxstyle import models

    with np.load(path) as arrays:
        return models.nested(arrays)


if __name__ == "__main__":
    harness.serve(make)
