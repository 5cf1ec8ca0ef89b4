"""A method that trains in milliseconds, for tests of what trains methods.

As a program it is the command with this method: `python tests/tiny.py train ...`.
"""

import os
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import images, methods
from jaxstyle.config import setting
from jaxstyle.methods import Method
from jaxstyle.training import updates
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    channels: int = setting(4, "channels", least=1)
    first_phase: int = setting(0, "steps of a first phase, in which brightness is reported as -1")
    spoilt_at: int = setting(-1, "step whose loss is NaN")
    overflow_at: int = setting(-1, "step that makes the parameters infinite")


def method(config, *, axis_name):
    """Learns to undo noise with two convolutions."""

    def predict(params, pictures):
        hidden = jnp.tanh(convolve(pictures, params["first"]))
        return convolve(hidden, params["second"]) + params["bias"]

    def loss_fn(params, statistics, batch, key):
        pictures = batch["content"]
        noise = 0.1 * jax.random.normal(key, pictures.shape)
        error = jnp.mean((predict(params, pictures + noise) - pictures) ** 2)
        return error, ({"brightness": jnp.mean(pictures)}, statistics)

    def init(key):
        first, second = jax.random.split(key)
        channels = config.model.channels
        params = {
            "first": 0.2 * jax.random.normal(first, (3, 3, 3, channels)),
            "second": 0.2 * jax.random.normal(second, (3, 3, channels, 3)),
            "bias": jnp.zeros(3),
        }
        return updates.init_state(params, config)

    step = updates.make_update(loss_fn, config, axis_name=axis_name)

    def update(state, batch, key):
        new, metrics = step(state, batch, key)
        spoilt = state.step + 1 == config.model.spoilt_at
        metrics["loss"] = jnp.where(spoilt, jnp.nan, metrics["loss"])
        excess = jnp.where(state.step + 1 == config.model.overflow_at, jnp.inf, 0.0)
        return new._replace(params=jax.tree.map(lambda x: x + excess, new.params)), metrics

    def first_update(state, batch, key):
        new, metrics = update(state, batch, key)
        return new, metrics | {"brightness": -jnp.ones(())}

    phase = config.model.first_phase
    phases = ((phase, first_update),) if phase else ()

    def evaluate(state, batch):
        pictures = batch["content"]
        error = jnp.mean((predict(updates.averaged(state), pictures) - pictures) ** 2)
        return {"loss": error if axis_name is None else jax.lax.pmean(error, axis_name)}

    def sample(state, batch):
        pictures = batch["content"]
        made = predict(updates.averaged(state), pictures)
        return jnp.clip(jnp.concatenate([pictures, made], axis=2), 0, 1)

    return Method(init, update, evaluate, updates.averaged, None, sample, phases)


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def register():
    """Makes the method known by the name of `tiny`."""
    load = methods.load
    methods.NAMES = (*methods.NAMES, "tiny")
    methods.load = lambda name: sys.modules[__name__] if name == "tiny" else load(name)


def make_config(pictures, **changes):
    """A run of a few steps; a folder of pictures, and settings that differ."""
    settings = {
        "method": "tiny",
        "steps": 12,
        "batch_size": 4,
        "crop_size": 16,
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "data": DataConfig(content=str(pictures), max_scale=1.5),
        "average": 0.9,
        "checkpoint_every": 4,
        "log_every": 2,
        "evaluate_every": 4,
        "evaluate_batches": 1,
        "sample_every": 0,
    }
    return TrainConfig(**settings | changes)


def write_pictures(folder, count=10):
    """Smooth random pictures of several sizes."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        coarse = np.random.default_rng(index).random((5, 6, 3), np.float32)
        images.save(folder / f"{index}.png", images.resize(coarse, (20 + index, 32)))
    return folder


if __name__ == "__main__":
    from jaxstyle import cli

    os.environ.setdefault("JAXSTYLE_CACHE_DIR", "cache")
    register()
    sys.exit(cli.main())
