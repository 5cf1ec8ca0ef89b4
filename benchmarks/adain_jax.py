"""The contestant of `adain.py` that is this package: its own code, as the commands run it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
from residual_jax import nested


def make(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """Loads, runs once, which compiles, and returns the step."""
    from jaxstyle import runtime

    runtime.prepare(device="cpu", warn=lambda text: print(text, file=sys.stderr))
    step = make_step(settings)
    figures = {"idle_mb": harness.peak_mb()}
    start = time.perf_counter()
    step()
    figures["first_s"] = time.perf_counter() - start
    return step, figures


def make_step(settings: dict[str, Any]) -> Callable[[], float]:
    """A photograph in the style of a painting, which is encoded once where the task is a frame."""
    from jaxstyle.methods import adain

    network, variables = adain.of_model(model_of(settings))
    content, painting = np.load(settings["pictures"]).astype(np.float32) / 255
    code = None
    output = settings.get("output")

    def step() -> float:
        nonlocal code, output
        if code is None or settings["task"] == "pair":
            code = adain.read_style(network, variables, painting)
        made = adain.paint(network, variables, content, code, tile=None)
        if output:
            np.save(output, made)
            output = None
        return 0.0

    return step


def model_of(settings: dict[str, Any]) -> Any:
    """The model in a file, or one of random parameters."""
    from jaxstyle import models
    from jaxstyle.methods import adain

    if "model" in settings:
        return models.load(settings["model"])
    options = settings["config"]
    config = adain.Config(**options | {"levels": tuple(options["levels"])})
    encoder, padding = adain.read_encoder(config)
    config = adain.Config(**options | {"levels": config.levels, "encoder_padding": padding})
    variables = {"params": nested(settings["decoder"]), "encoder": models.nested(encoder)}
    return models.Model("adain", config, (), variables)


if __name__ == "__main__":
    harness.serve(make)
