"""The contestant of `adain.py` in PyTorch: the same encoder and decoder, written plainly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import torch
from gatys_torch import network
from residual_torch import Parameters, as_tensors, as_wished
from safetensors.numpy import load_file
from torch.nn import functional as F

_EPSILON = 1e-5

Moments = tuple[torch.Tensor, torch.Tensor]


def moments(x: torch.Tensor) -> Moments:
    """Mean and deviation of each channel, `[batch, channels, 1, 1]`."""
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    return mean, torch.sqrt(variance + _EPSILON)


def adain(x: torch.Tensor, style: Moments) -> torch.Tensor:
    """Features with the moments of a style."""
    mean, std = moments(x)
    return (x - mean) / std * style[1] + style[0]


def decode(params: Parameters, x: torch.Tensor) -> torch.Tensor:
    """Pictures out of features of relu4_1."""
    names = sorted({name.split("/")[0] for name in params}, reverse=True)
    for name, before in zip(names, [names[0], *names], strict=False):
        if name[4] != before[4]:  # another block
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        x = F.conv2d(x, params[f"{name}/kernel"], params[f"{name}/bias"])
        if name != names[-1]:
            x = F.relu(x)
    return (x + 0.5).clamp(0, 1)


def make(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """Loads, runs once, which compiles where it is to be compiled, and returns the step."""
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    config = settings["config"]
    features = network(as_tensors(load_file(config["encoder"]), layout), "reflect", "max")
    with np.load(settings["decoder"]) as arrays:
        params = as_tensors(dict(arrays), layout)
    pictures = torch.from_numpy(np.load(settings["pictures"])).permute(0, 3, 1, 2).float() / 255
    content, painting = (x[None].contiguous(memory_format=layout) for x in pictures)

    def encode(x: torch.Tensor) -> torch.Tensor:
        return features(x, {"relu4_1"})["relu4_1"]

    read = as_wished(lambda x: moments(encode(x)), settings)
    stylize = as_wished(lambda x, style: decode(params, adain(encode(x), style)), settings)
    with torch.inference_mode():
        style = read(painting)
    output = settings.get("output")

    def step() -> float:
        nonlocal style, output
        with torch.inference_mode():
            if settings["task"] == "pair":
                style = read(painting)
            made = stylize(content, style)
        if output:
            np.save(output, made[0].permute(1, 2, 0).numpy())
            output = None
        return 0.0

    start = time.perf_counter()
    step()
    return step, {"first_s": time.perf_counter() - start}


if __name__ == "__main__":
    harness.serve(make)
