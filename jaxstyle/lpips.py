"""LPIPS, of a network and weights that are given: neither comes along.

Zhang, Isola, Efros, Shechtman and Wang 2018, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric" (arXiv 1801.03924): the distance of features of VGG-16 under weights that were
fitted to what people find alike. This is the form of its authors' version 0.1 with `net="vgg"`,
whose network is torchvision's.

`load` reads both from files that torch can write of what is published, in one line each:

    save_file(torchvision.models.vgg16(weights="IMAGENET1K_V1").state_dict(), "vgg16.safetensors")
    save_file(torch.load("vgg.pth", weights_only=True), "lpips.safetensors")
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import features as vgg
from jaxstyle import metrics, weight_files, weights
from jaxstyle.errors import UserError

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_LINEAR = re.compile(r"lin([0-4])(?:\.model\.1)?(?:\.weight)?")


class Lpips(NamedTuple):
    """A network and the weights of its channels.

    Attributes:
        params: of the network, as `features.vgg` takes them.
        padding: of the network.
        weights: `{layer: [channels]}`, not negative.
        sha256: of both files, in hexadecimal.
    """

    params: vgg.Parameters
    padding: str
    weights: dict[str, np.ndarray]
    sha256: str


def load(network: str | os.PathLike[str], linear: str | os.PathLike[str]) -> Lpips:
    """Reads LPIPS from two files.

    Args:
        network: VGG-16, as `weights.load` takes it, of torchvision's scale.
        linear: `.safetensors` or `.npz` with five arrays `lin0` to `lin4`, or by the names of its
            authors, `lin0.model.1.weight` and so on, of as many values as the layers have channels.

    Raises:
        UserError: one of them cannot be read, or is not what it should be.
    """
    found = weights.load(network)
    if found.scale != "torchvision":
        raise UserError(
            f"{network}: LPIPS is of torchvision's VGG-16; this has scale {found.scale}"
        )
    try:
        vgg.check_layers(found.params, LAYERS)
    except ValueError as error:
        raise UserError(f"{network}: LPIPS is of VGG-16: {error}") from error
    path = Path(linear).expanduser()
    try:
        arrays, sha256 = _read_linear(path)
        chosen = {}
        for layer, name in zip(LAYERS, sorted(arrays), strict=True):
            channels = found.params[f"{layer.replace('relu', 'conv')}/bias"].size
            chosen[layer] = weight_files.floats(name, arrays[name]).reshape(-1)
            if chosen[layer].size != channels or chosen[layer].min() < 0:
                raise ValueError(f"{name} is not {channels} values, none of them negative")
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    both = hashlib.sha256(f"{found.sha256} {sha256}".encode()).hexdigest()
    return Lpips(found.params, found.padding, chosen, both)


def _read_linear(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The five arrays of a file by `lin0` to `lin4`, and its hash."""
    reader = {".safetensors": weight_files.read_safetensors, ".npz": weight_files.read_npz}.get(
        path.suffix.lower()
    )
    if reader is None:
        raise ValueError("expected a file that ends in .safetensors or .npz")
    data = weight_files.read_bytes(path)
    arrays = {}
    for name, value in reader(data)[0].items():
        # The authors' own module holds each of them a second time, as lins.0 and so on.
        if match := _LINEAR.fullmatch(name):
            arrays[f"lin{match[1]}"] = value
    if len(arrays) != len(LAYERS):
        raise ValueError(
            f"expected lin0 to lin4, got {', '.join(sorted(arrays)) or 'none of them'}"
        )
    return arrays, hashlib.sha256(data).hexdigest()


def features(network: Lpips, pictures: Array) -> dict[str, Array]:
    """What LPIPS compares: once for a picture that many are compared with.

    Args:
        network: as `load` gives it.
        pictures: float32 `[batch, height, width, 3]`, sRGB in [0, 1], 16 pixels a side at least.
    """
    return vgg.vgg(network.params, pictures, LAYERS, padding=network.padding)


def distance(network: Lpips, pictures: Array, references: Array | Mapping[str, Array]) -> Array:
    """LPIPS of pictures to others: a pure function, differentiable, to be jitted by who calls it.

    Args:
        network: as `load` gives it.
        pictures: as for `features`.
        references: the same, `[batch or 1, height, width, 3]`, or their features.

    Returns:
        `[batch]`, 0 for equal pictures.

    Raises:
        ValueError: shapes that do not agree.
    """
    wanted = references if isinstance(references, Mapping) else features(network, references)
    given = {layer: jnp.asarray(value) for layer, value in network.weights.items()}
    return metrics.perceptual_distance(features(network, pictures), wanted, weights=given)
