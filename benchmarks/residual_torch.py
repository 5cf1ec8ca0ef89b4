"""The contestant of `residual.py` in PyTorch: the same network and losses, written plainly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import torch
from gatys_torch import network
from PIL import Image
from safetensors.numpy import load_file
from torch.nn import functional as F

_EPSILON = 1e-5
_BLOCKS = 5

Parameters = dict[str, torch.Tensor]


def convolve(params: Parameters, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """A convolution whose input is reflected beyond its border."""
    kernel = params[f"{name}/kernel"]
    amount = kernel.shape[2] // 2
    x = F.pad(x, (amount,) * 4, mode="reflect")
    return F.conv2d(x, kernel, params.get(f"{name}/bias"), stride=stride)


def normalize(params: Parameters, name: str, x: torch.Tensor) -> torch.Tensor:
    """Instance normalisation."""
    gamma, beta = params[f"{name}/norm/norm/gamma"], params[f"{name}/norm/norm/beta"]
    return F.instance_norm(x, weight=gamma, bias=beta, eps=_EPSILON)


def generate(params: Parameters, pictures: torch.Tensor) -> torch.Tensor:
    """The full-width generator: `[batch, 3, height, width]` in [0, 1], sides a multiple of 4."""

    def layer(name: str, x: torch.Tensor, conv: str = "conv", stride: int = 1) -> torch.Tensor:
        return normalize(params, name, convolve(params, f"{name}/{conv}", x, stride))

    x = F.relu(layer("in", 2 * pictures - 1))
    for name in ("down1", "down2"):
        x = F.relu(layer(name, x, stride=2))
    for number in range(1, _BLOCKS + 1):
        y = F.relu(layer(f"block{number}/conv1", x))
        x = x + layer(f"block{number}/conv2", y)
    for name in ("up1", "up2"):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(layer(name, x, "up/conv"))
    return (torch.tanh(convolve(params, "out", x)) + 1) / 2


def gram(features: torch.Tensor) -> torch.Tensor:
    """F'F / (C P) of each picture, `[batch, c, c]`."""
    flat = features.flatten(2)
    return flat @ flat.mT / flat[0].numel()


def make(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """Loads, runs once, which compiles where it is to be compiled, and returns the step."""
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    with np.load(settings["generator"]) as arrays:
        params = as_tensors(dict(arrays), layout)
    pictures = torch.from_numpy(np.load(settings["pictures"])).permute(0, 3, 1, 2)
    pictures = pictures.contiguous(memory_format=layout)
    make_step = {"infer": make_infer, "train": make_train}[settings["task"]]
    step = make_step(settings, params, pictures, layout)
    start = time.perf_counter()
    loss = step()
    return step, {"first_loss": loss, "first_s": time.perf_counter() - start}


def as_tensors(arrays: dict[str, np.ndarray], layout: torch.memory_format) -> Parameters:
    """Parameters as PyTorch has them."""
    found = {}
    for name, value in arrays.items():
        tensor = torch.from_numpy(value)
        if name.endswith("kernel"):
            tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=layout)
        found[name] = tensor
    return found


def as_wished(function: Callable, settings: dict[str, Any]) -> Callable:
    """The function, compiled where the settings say so."""
    return torch.compile(function, dynamic=False) if settings.get("compile") else function


def make_infer(
    settings: dict[str, Any],
    params: Parameters,
    pictures: torch.Tensor,
    layout: torch.memory_format,
) -> Callable[[], float]:
    """The generator on one picture."""
    del layout
    apply = as_wished(generate, settings)
    content = pictures.float() / 255
    output = settings.get("output")

    def step() -> float:
        nonlocal output
        with torch.inference_mode():
            made = apply(params, content)
        if output:
            np.save(output, made.permute(0, 2, 3, 1).numpy())
            output = None
        return 0.0

    return step


def make_train(
    settings: dict[str, Any],
    params: Parameters,
    pictures: torch.Tensor,
    layout: torch.memory_format,
) -> Callable[[], float]:
    """A step of training on the same batch again and again."""
    config = settings["config"]
    content_layers, style_layers = config["content_layers"], config["style_layers"]
    features = network(as_tensors(load_file(settings["features"]), layout), "zero", "max")
    with Image.open(settings["style"]) as file:
        pixels = np.array(file.convert("RGB")).transpose(2, 0, 1)[None]
    style = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    with torch.no_grad():
        grams = {name: gram(value) for name, value in features(style, {*style_layers}).items()}
    for tensor in params.values():
        tensor.requires_grad_()
    optimizer = torch.optim.Adam(params.values(), lr=settings["learning_rate"])

    def loss_fn(content: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = features(content, {*content_layers})
        found = features(generate(params, content), {*content_layers, *style_layers})
        loss = torch.zeros(())
        for name, weight in content_layers.items():
            distance = F.mse_loss(found[name], wanted[name])
            loss = loss + config["content_weight"] * weight * distance
        for name, weight in style_layers.items():
            made = gram(found[name])
            distance = F.mse_loss(made, grams[name].expand_as(made))
            loss = loss + config["style_weight"] * weight * distance
        return loss

    compute = as_wished(loss_fn, settings)

    def step() -> float:
        optimizer.zero_grad()
        loss = compute(pictures.float() / 255)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    harness.serve(make)
