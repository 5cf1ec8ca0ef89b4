"""Trained networks as files: safetensors, with what they are in the metadata.

A model is self-contained: the method that made it, its settings, the names of its styles, and its
arrays. No file that could run code is ever read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxstyle import tensors
from jaxstyle.errors import UserError, reason_of

_FORMAT = "jaxstyle model 1"
# No network of this kind comes near it; it keeps a wrong file from filling the memory.
_LARGEST_FILE = 2**30
_LARGEST_HEADER = 2**22
# What comes with the package: what it is called, and a configuration that trains the like.
_SHIPPED = {
    "styles": ("trained styles", "resnet_in"),
    "adain": ("a model for any painting", "adain"),
}


class Model(NamedTuple):
    """A trained network.

    Attributes:
        method: the name of the module in `jaxstyle.methods` that it belongs to.
        config: that module's `Config`.
        styles: the names of its styles, in the order of their weights.
        variables: nested dicts of float32 arrays: `params`, and `batch_stats` where there are any.
        name: the stem of the file's name, or the name of the run's folder; empty where there is
            neither.
        sha256: of the file, in hexadecimal; empty without one.
        step: of the run's checkpoint; None without one.
    """

    method: str
    config: Any
    styles: tuple[str, ...]
    variables: dict[str, Any]
    name: str = ""
    sha256: str = ""
    step: int | None = None


def save(
    path: str | os.PathLike[str], model: Model, *, dtype: str | np.dtype[Any] = "float32"
) -> None:
    """Writes a model; equal models give equal bytes. Written beside the target and renamed.

    Args:
        path: the file, which ends in `.safetensors`; one that exists is replaced.
        model: what `load` is to give back.
        dtype: what numbers are written as: float16 halves the file and rounds to 3 digits.

    Raises:
        UserError: the name ends otherwise, or the file cannot be written.
        ValueError: a number is not finite, or too large for `dtype`.
    """
    from jaxstyle.training.config import plain

    path = tensors.check_name(path)
    arrays = {}
    for name, value in sorted(flat(model.variables).items()):
        with np.errstate(over="ignore"):  # refused in the next line
            arrays[name] = np.ascontiguousarray(value, dtype)
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} has values that are not finite in {np.dtype(dtype)}")
    metadata = {
        "format": _FORMAT,
        "method": model.method,
        "config": json.dumps(plain(model.config)),
        "styles": json.dumps(list(model.styles)),
    }
    try:
        tensors.write(path, arrays, metadata)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason_of(error)}") from error


def load(path: str | os.PathLike[str]) -> Model:
    """Reads what `save` wrote, or the latest checkpoint of a training run.

    Args:
        path: a file that ends in `.safetensors`, or the folder of a run, which may be in a bucket.

    Raises:
        UserError: it is missing, damaged, or something else.
    """
    from jaxstyle import methods  # which import JAX

    file = Path(path).expanduser()
    if "://" in os.fspath(path) or file.is_dir():
        from jaxstyle.training import checkpoints

        method = checkpoints.restore_config(path).method
        module = methods.load(method)
        if not hasattr(module, "stylize_fn"):
            raise UserError(f"{path} is a run of {method}, which stylises no pictures")
        name = os.fspath(path) if "://" in os.fspath(path) else str(file.resolve())
        return module.load_run(path)._replace(name=name.rstrip("/").rpartition("/")[2])
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path}: too large for a model: more than {_LARGEST_FILE} bytes")
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from error
    return parse(data, str(path))


def shipped(name: str = "styles") -> Model:
    """A model that comes with the package.

    Args:
        name: "styles", one network of many styles, or "adain", which paints in any.

    Raises:
        UserError: the package was built without it.
        ValueError: there is no such model.
    """
    if name not in _SHIPPED:
        raise ValueError(f"expected one of {', '.join(_SHIPPED)}, got {name!r}")
    file = _embedded(name)
    if not file.is_file():
        what, config = _SHIPPED[name]
        raise UserError(
            f"this build of jaxstyle came without {what}: train one with `jaxstyle train "
            f"--config {config}`, and pass --model DIR"
        )
    return parse(file.read_bytes(), f"{name}.safetensors")


def _embedded(name: str = "styles") -> Traversable:
    return resources.files("jaxstyle") / "assets" / f"{name}.safetensors"


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether `load` is meant for a path: a file that `save` wrote, or a run that stylises.

    What cannot be read is none; parameters of feature networks, and the runs that train them, are
    none either.

    Raises:
        UserError: it is the folder of a run, but its checkpoints cannot be read.
    """
    file = Path(path).expanduser()
    if "://" in os.fspath(path) or file.is_dir():
        from jaxstyle import methods
        from jaxstyle.training import checkpoints

        if not (checkpoints.workdir_path(path) / checkpoints.FOLDER).is_dir():
            return False
        return hasattr(methods.load(checkpoints.restore_config(path).method), "stylize_fn")
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(size, _LARGEST_HEADER)))
        return header.get("__metadata__", {}).get("format") == _FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def parse(data: bytes, name: str) -> Model:
    """The model in the bytes of a file.

    Args:
        data: what `save` wrote.
        name: of the file, for messages.

    Raises:
        UserError: it is damaged, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    from jaxstyle import methods
    from jaxstyle.training.config import from_plain

    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        arrays = from_bytes(data)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise UserError(f"{name}: not a safetensors file, or a damaged one ({error})") from error
    if metadata.get("format") != _FORMAT:
        raise UserError(
            f"{name} is no model of a trained method: expected one that jaxstyle has written"
        )
    try:
        method = metadata["method"]
        module = methods.load(method)
        if not hasattr(module, "stylize_fn"):
            raise ValueError(f"it is of the method {method}, which stylises no pictures")
        config = from_plain(module.Config, json.loads(metadata["config"]))
        styles = tuple(str(style) for style in json.loads(metadata["styles"]))
        arbitrary = getattr(module, "ANY_STYLE", False)
        if arbitrary == bool(styles) or len({*styles}) < len(styles):
            raise ValueError(f"expected styles of different names, got {', '.join(styles)}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
    for key, value in arrays.items():
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise UserError(f"{name}: {key} has values that are not finite numbers")
    sha256 = hashlib.sha256(data).hexdigest()
    model = Model(method, config, styles, nested(arrays), Path(name).stem, sha256)
    try:
        module.check_model(model)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    return model


def check_shapes(wanted: Any, variables: Any) -> None:
    """Refuses arrays that are not those of a network.

    Args:
        wanted: a pytree of arrays or of their shapes.
        variables: what should look like it.

    Raises:
        ValueError: names the first array that differs.
    """
    import jax

    shapes = [
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in found}
        for found in map(jax.tree.leaves_with_path, (wanted, variables))
    ]
    for name in sorted(shapes[0] | shapes[1]):
        expected, found = (each.get(name, "not there") for each in shapes)
        if expected != found:
            raise ValueError(f"{name} is {found}: expected {expected}, by the model's settings")


def flat(tree: Mapping[str, Any], prefix: str = "", *, separator: str = "/") -> dict[str, Any]:
    """Arrays, or settings, by their whole names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        whole = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, whole + separator, separator=separator)
        else:
            found[whole] = value
    return found


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flat`, in float32."""
    tree: dict[str, Any] = {}
    for name, value in arrays.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = np.asarray(value, np.float32)
    return tree
