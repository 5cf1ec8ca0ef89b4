"""The contestant of `gatys.py` in PyTorch: the same network, losses and update, written plainly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F


def network(params: dict[str, torch.Tensor], padding: str, pooling: str) -> Callable:
    """A function from pictures `[1, 3, h, w]` to the activations that are asked for."""
    names = sorted(key.split("/")[0] for key in params if key.endswith("kernel"))
    convolutions = [name for name in names if name.startswith("conv") and "to_vgg" not in name]

    def apply(pictures: torch.Tensor, wanted: set[str]) -> dict[str, torch.Tensor]:
        found = {}
        x = F.conv2d(pictures, params["preprocess/kernel"], params["preprocess/bias"])
        block = "1"
        for name in convolutions:
            if name[4] != block:
                block = name[4]
                x = F.avg_pool2d(x, 2) if pooling == "avg" else F.max_pool2d(x, 2)
            if padding == "reflect":
                x = F.pad(x, (1, 1, 1, 1), mode="reflect")
            x = F.conv2d(
                x,
                params[f"{name}/kernel"],
                params[f"{name}/bias"],
                padding=0 if padding == "reflect" else 1,
            )
            x = F.relu(x)
            layer = name.replace("conv", "relu")
            if layer in wanted:
                head = f"{name}_to_vgg"
                found[layer] = x
                if f"{head}/kernel" in params:
                    found[layer] = F.relu(
                        F.conv2d(x, params[f"{head}/kernel"], params[f"{head}/bias"])
                    )
            if len(found) == len(wanted):
                break
        return found

    return apply


def gram(features: torch.Tensor) -> torch.Tensor:
    """F'F / (C P), as `jaxstyle.gram_matrix` with normalize="elements"."""
    flat = features[0].flatten(1)
    return flat @ flat.T / flat.numel()


def variation(pictures: torch.Tensor) -> torch.Tensor:
    """Half the sum of the mean absolute differences."""
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean()
    across = (pictures[:, :, :, 1:] - pictures[:, :, :, :-1]).abs().mean()
    return (down + across) / 2


def make(settings: dict[str, Any]) -> tuple[Callable[[], float], dict[str, float]]:
    """Loads, makes the targets, and returns the step."""
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    params = {}
    for name, value in load_file(settings["weights"]).items():
        tensor = torch.from_numpy(value)
        if name.endswith("kernel"):
            tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=layout)
        params[name] = tensor
    config = settings["config"]
    apply = network(params, settings["padding"], config["pooling"])
    content_layers, style_layers = config["content_layers"], config["style_layers"]
    wanted = {*content_layers, *style_layers}
    with np.load(settings["pictures"]) as pictures:
        content, style = (
            torch.from_numpy(pictures[name].transpose(0, 3, 1, 2)).contiguous(memory_format=layout)
            for name in ("content", "style")
        )
    start = time.perf_counter()
    with torch.no_grad():
        content_targets = apply(content, wanted)
        grams = {name: gram(value) for name, value in apply(style, wanted).items()}
    figures = {"targets_s": time.perf_counter() - start, "compile_s": 0.0}
    variables = content.clone(memory_format=torch.preserve_format).requires_grad_()
    optimizer = torch.optim.Adam(
        [variables],
        lr=config["learning_rate"],
        betas=(config["adam_b1"], config["adam_b2"]),
    )

    def step() -> float:
        optimizer.zero_grad()
        found = apply(variables, wanted)
        loss = config["tv_weight"] * variation(variables)
        for name, weight in content_layers.items():
            distance = F.mse_loss(found[name], content_targets[name])
            loss = loss + config["content_weight"] * weight * distance
        for name, weight in style_layers.items():
            distance = F.mse_loss(gram(found[name]), grams[name])
            loss = loss + config["style_weight"] * weight * distance
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, figures


if __name__ == "__main__":
    harness.serve(make)
