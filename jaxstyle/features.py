"""Perceptual networks as plain functions over a dict of arrays.

One function serves VGG-16 and VGG-19 (Simonyan and Zisserman 2015, arXiv 1409.1556) and their
narrow relatives: depth and widths are read from the parameters, `<layer>/kernel` `[k, k, in, out]`
and `<layer>/bias` `[out]`:

- `preprocess`: a 1x1 convolution from RGB in [0, 1] to what the network was trained on;
- `conv1_1`, `conv1_2`, ...: 3x3 convolutions, named by block and place, each followed by ReLU, with
  2x2 pooling between blocks;
- `conv4_1_to_vgg`, ...: heads of a narrow network, 1x1 convolutions followed by ReLU, from its
  relu4_1 to the channels of the full one's.

Layers are named `conv4_2` (before ReLU), `relu4_2` and `pool4`. Where there is a head, `relu4_1` is
its output, so that the same name means the same features in narrow and full networks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, nn

from jaxstyle import convolution
from jaxstyle.config import did_you_mean

POOLINGS = ("max", "avg")
Parameters = Mapping[str, Any]


def layer_names(params: Parameters) -> list[str]:
    """The names of all layers that a network has, from the pixels up."""
    names = []
    for block, convolutions in _blocks(params):
        if block > 1:
            names.append(f"pool{block - 1}")
        for index in convolutions:
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
    return names


def check_layers(params: Parameters, layers: Collection[str]) -> None:
    """Refuses layers that the network lacks, with the nearest name that it has.

    Raises:
        ValueError: there is no such layer.
    """
    names = layer_names(params)
    for layer in layers:
        if layer not in names:
            hint = did_you_mean(layer, names)
            relus = ", ".join(name for name in names if name.startswith("relu"))
            raise ValueError(f"the network has no layer {layer!r}{hint} (it has {relus})")


def prepare(params: Parameters, *, padding: str = "zero", brief: bool = False) -> dict[str, Any]:
    """Transforms the kernels of a frozen network once, for the convolution of the CPU.

    The result goes wherever the parameters go, as an argument of the compiled function. Its
    gradient is zero.

    Args:
        params: the parameters (see the module's text).
        padding: what `vgg` will be called with. But for "zero", `preprocess` becomes part of the
            first convolution.
        brief: for a program that runs so few times that its compilation counts, see
            `convolution.prepare_kernel`.
    """
    if padding != "zero":
        params = _without_preprocess(params)
    return {
        name: convolution.prepare_kernel(value, brief=brief)
        if name.endswith("/kernel") and name.startswith("conv")
        else jnp.asarray(value, jnp.float32)
        for name, value in params.items()
    }


def _without_preprocess(params: Parameters) -> dict[str, Any]:
    """The same network in one convolution less; zeros beyond the border would come before it."""
    rest = {name: np.asarray(value) for name, value in params.items()}
    matrix = rest.pop("preprocess/kernel")[0, 0].astype(np.float64)
    offset = rest.pop("preprocess/bias").astype(np.float64)
    kernel = rest["conv1_1/kernel"].astype(np.float64)
    rest["conv1_1/kernel"] = (matrix @ kernel).astype(np.float32)
    added = np.sum(offset @ kernel, axis=(0, 1))
    rest["conv1_1/bias"] = (rest["conv1_1/bias"] + added).astype(np.float32)
    return rest


def vgg(
    params: Parameters,
    images: Array,
    layers: Collection[str],
    *,
    padding: str = "zero",
    pooling: str = "max",
    conv_fn: Callable[..., Array] = convolution.conv2d,
) -> dict[str, Array]:
    """Activations of a VGG network; only what is asked for is computed.

    Args:
        params: the parameters (see the module's text), or what `prepare` makes of them.
        images: float32 `[batch, height, width, 3]`, sRGB in [0, 1].
        layers: names, such as `relu4_2`.
        padding: of the 3x3 convolutions: "zero" (the paper), "reflect" or "replicate".
        pooling: "max" (the paper) or "avg" (Gatys et al. 2016, section 2: smoother gradients).
        conv_fn: what convolves, called as `convolution.conv2d` is.

    Returns:
        `{layer: [batch, h, w, channels]}` in the order of the network. Pooling drops an odd last
        row or column, as the paper's does; a side of one pixel stays one.

    Raises:
        ValueError: an unknown layer, padding or pooling, or images of another shape.
    """
    check_layers(params, layers)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"expected images [batch, height, width, 3]; got {images.shape}")

    def conv(name: str, x: Array, padding: str) -> Array:
        return conv_fn(x, params[f"{name}/kernel"], bias=params[f"{name}/bias"], padding=padding)

    wanted = set(layers)
    found: dict[str, Array] = {}
    x = images
    if "preprocess/kernel" in params:
        x = conv("preprocess", x, "zero")
    for block, convolutions in _blocks(params):
        if block > 1:
            x = pool(x, pooling)
            _keep(found, wanted, f"pool{block - 1}", x)
        for index in convolutions:
            if len(found) == len(wanted):
                return found
            name = f"{block}_{index}"
            x = conv(f"conv{name}", x, padding)
            _keep(found, wanted, f"conv{name}", x)
            x = nn.relu(x)
            if f"relu{name}" in wanted and f"conv{name}_to_vgg/kernel" in params:
                found[f"relu{name}"] = nn.relu(conv(f"conv{name}_to_vgg", x, "zero"))
            else:
                _keep(found, wanted, f"relu{name}", x)
    return found


def pool(features: Array, pooling: str) -> Array:
    """2x2 pooling of stride 2, `[batch, h, w, c]` to `[batch, h // 2, w // 2, c]`, at least 1."""
    batch, height, width, channels = features.shape
    rows, columns = max(height // 2, 1), max(width // 2, 1)
    step_y, step_x = min(height, 2), min(width, 2)
    # Four views of whole 2x2 cells: on the CPU faster than a window reduction.
    cells = features[:, : rows * step_y, : columns * step_x]
    cells = cells.reshape(batch, rows, step_y, columns, step_x, channels)
    views = [cells[:, :, i, :, j] for i in range(step_y) for j in range(step_x)]
    result = views[0]
    for view in views[1:]:
        result = jnp.maximum(result, view) if pooling == "max" else result + view
    return result if pooling == "max" else result / len(views)


def _blocks(params: Parameters) -> list[tuple[int, list[int]]]:
    """The blocks of a network: `[(1, [1, 2]), (2, [1, 2]), ...]`."""
    blocks: dict[int, list[int]] = {}
    for key in params:
        match = re.fullmatch(r"conv(\d+)_(\d+)/kernel", key)
        if match:
            blocks.setdefault(int(match[1]), []).append(int(match[2]))
    return [(block, sorted(blocks[block])) for block in sorted(blocks)]


def _keep(found: dict[str, Array], wanted: set[str], name: str, value: Array) -> None:
    if name in wanted:
        found[name] = value
