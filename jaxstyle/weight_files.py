"""Files of parameters, from bytes to arrays: safetensors, NumPy archives, HDF5.

Readers of bytes raise ValueError for what they cannot read. None runs what a file says.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxstyle.errors import UserError, reason_of

# No VGG without its dense layers comes near it; it keeps a wrong file from filling the memory.
LARGEST = 2**30

# Of ImageNet's colours, as torchvision and MXNet publish them.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

_KERAS_LAYER = re.compile(r"(?:^|/)block([1-5])_conv([1-9])/")
_TORCHVISION_LAYER = re.compile(r"features\.(\d+)\.(weight|bias)")

# Besides ValueError, what h5py, zipfile and NumPy raise for files with random bytes changed.
_DAMAGED = (OSError, EOFError, KeyError, MemoryError, OverflowError, RuntimeError, SyntaxError)
_DAMAGED += (TypeError,)

Contents = tuple[dict[str, np.ndarray], dict[str, str]]


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of parameters.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: expected a file of parameters")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file")
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(
                f"{path} has {size} bytes: expected a VGG without dense layers, {LARGEST} at most"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from error


def read_safetensors(data: bytes) -> Contents:
    """The arrays of a file and its metadata.

    The convolutions of torchvision's VGG, or timm's, are given the names and the order of axes that
    they have here; its dense layers are left out.
    """
    import safetensors

    try:
        tensors = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a safetensors file, or a damaged one ({error})") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
    stated = {key: metadata[key] for key in ("padding", "scale", "source") if key in metadata}
    layers: dict[int, dict[str, np.ndarray]] = {}
    for key, tensor in tensors:
        if match := _TORCHVISION_LAYER.fullmatch(key):
            layers.setdefault(int(match[1]), {})[match[2]] = _decode(key, **tensor)
    if not layers:
        return {key: _decode(key, **tensor) for key, tensor in tensors}, stated
    return _of_torchvision(layers), {"padding": "zero", "scale": "torchvision"} | stated


def _of_torchvision(layers: Mapping[int, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Convolutions by their places in a sequence, where ReLUs and poolings have places as well."""
    arrays, block, place, before = preprocess_torchvision(), 1, 0, -2
    for index, parts in sorted(layers.items()):
        if set(parts) != {"weight", "bias"} or parts["weight"].ndim != 4:
            raise ValueError(
                f"features.{index} is no convolution with a bias: a VGG with batch normalisation "
                "cannot be used"
            )
        if index - before not in (2, 3):
            raise ValueError(f"features.{before + 2} or features.{before + 3} is missing")
        block, place = (block + 1, 1) if index - before == 3 else (block, place + 1)
        arrays[f"conv{block}_{place}/kernel"] = parts["weight"].transpose(2, 3, 1, 0)
        arrays[f"conv{block}_{place}/bias"] = parts["bias"]
        before = index
    return arrays


def _decode(key: str, *, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32, which NumPy itself does not know
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    if dtype not in kinds:
        raise ValueError(f"{key} is of type {dtype}: expected F32, F16, BF16 or F64")
    return np.frombuffer(data, kinds[dtype]).reshape(shape)


def read_npz(data: bytes) -> Contents:
    """The arrays of an archive, none of them pickled."""
    import tokenize
    import zipfile
    import zlib

    damaged = (*_DAMAGED, ValueError, tokenize.TokenError, zlib.error)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {key: np.asarray(archive[key]) for key in archive.files}, {}
    except zipfile.BadZipFile as error:
        raise ValueError("not an .npz file, or a damaged one") from error
    except damaged as error:
        raise ValueError(f"cannot be read as arrays ({error})") from error


def read_keras(data: bytes) -> Contents:
    """Convolutions of a Keras VGG, old layout or newer, with the weights' own preprocessing."""
    import h5py

    found: dict[str, list[Any]] = {}

    def collect(path: str, item: object) -> None:
        match = _KERAS_LAYER.search(path)
        if match and isinstance(item, h5py.Dataset):
            found.setdefault(f"conv{match[1]}_{match[2]}", []).append(item)

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            # A saved model has its optimiser's state beside its weights, under the same names.
            root = file.get("model_weights", file)
            if isinstance(root, h5py.Group):
                root.visititems(collect)  # follows no link that leads out of the file
            if not found:
                raise ValueError("expected groups block1_conv1, block1_conv2, ... of a Keras VGG")
            arrays = preprocess_oxford()
            for layer, datasets in found.items():
                arrays[f"{layer}/kernel"] = _only(layer, "kernel", 4, datasets)
                arrays[f"{layer}/bias"] = _only(layer, "bias", 1, datasets)
    except _DAMAGED as error:
        raise ValueError(f"not an HDF5 file, or a damaged one ({error})") from error
    return arrays, {"padding": "zero", "scale": "oxford"}


def _only(layer: str, part: str, rank: int, datasets: list[Any]) -> np.ndarray:
    fitting = [dataset for dataset in datasets if dataset.ndim == rank]
    if len(fitting) != 1:
        group = layer.replace("conv", "block").replace("_", "_conv")
        shapes = ", ".join(str(dataset.shape) for dataset in datasets)
        raise ValueError(f"{group} has arrays {shapes}: expected one {part}, of rank {rank}")
    if fitting[0].external or fitting[0].is_virtual:
        raise ValueError(f"{fitting[0].name} keeps its values in another file")
    if fitting[0].nbytes > LARGEST:
        raise ValueError(f"{fitting[0].name} has shape {fitting[0].shape}: too large for a VGG")
    return fitting[0][()]


def preprocess_torchvision() -> dict[str, np.ndarray]:
    """RGB in [0, 1], standardised."""
    kernel = np.diag(1 / IMAGENET_DEVIATION)[None, None]
    return {"preprocess/kernel": kernel, "preprocess/bias": -IMAGENET_MEAN / IMAGENET_DEVIATION}


def preprocess_oxford() -> dict[str, np.ndarray]:
    """RGB in [0, 1] to BGR in 0-255 minus the mean colour of the training images."""
    kernel = np.zeros((1, 1, 3, 3), np.float32)
    kernel[0, 0, [0, 1, 2], [2, 1, 0]] = 255.0
    bias = -np.array([103.939, 116.779, 123.68], np.float32)
    return {"preprocess/kernel": kernel, "preprocess/bias": bias}


READERS: dict[str, Callable[[bytes], Contents]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".h5": read_keras,
    ".hdf5": read_keras,
}


def floats(key: str, array: np.ndarray, dtype: str | np.dtype[Any] = "float32") -> np.ndarray:
    """An array of finite floating-point numbers as another type of them."""
    if array.dtype.kind != "f":
        raise ValueError(f"{key} is of type {array.dtype}: expected floating-point numbers")
    with np.errstate(over="ignore"):  # infinities are refused, by name, with those of the file
        array = np.array(array, dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{key} has values that are not finite numbers")
    return array
