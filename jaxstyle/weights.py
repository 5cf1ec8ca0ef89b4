"""Pretrained parameters of perceptual networks: embedded, cached, fetched, converted.

Parameters are plain NumPy arrays by name, so that nothing here needs JAX. No file that could run
code is ever read: pickles are refused by their suffix, and NumPy archives by what is in them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxstyle import tensors, weight_files
from jaxstyle.config import FEATURE_SCALES, PADDINGS, did_you_mean
from jaxstyle.errors import UserError

_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib")
_TENSOR = re.compile(r"(preprocess|conv[1-5]_[1-9]|conv[1-5]_1_to_vgg)/(kernel|bias)")


class Weights(NamedTuple):
    """Parameters of a perceptual network and what must be known to use them.

    Attributes:
        name: `lite`, `vgg19`, `vgg16`, `random`, or the stem of the file's name.
        params: float32 arrays: `<layer>/kernel` [height, width, inputs, outputs] and
            `<layer>/bias` [outputs]. The layers are `preprocess`, a 1x1 convolution from RGB in
            [0, 1] to what the network eats; `convK_J`, 3x3; and, in compact networks,
            `convK_1_to_vgg`, 1x1, from reluK_1 to the channels of the network it imitates.
        padding: how each 3x3 convolution is padded: `zero`, `reflect` or `replicate`.
        scale: scale of the activations, which decides what a loss weight means: `oxford` (BGR,
            0-255 minus mean), `torchvision` (RGB, standardised) or `normalized` (mean activation
            of each channel near 1), or `random`.
        source: whose parameters they are, for the metadata of what is made with them.
        sha256: of the file, in hexadecimal; empty for parameters that come from no file.
    """

    name: str
    params: dict[str, np.ndarray]
    padding: str
    scale: str
    source: str
    sha256: str

    @property
    def heads(self) -> list[str]:
        """The layers in which a narrow network imitates a full one; none in a full network."""
        found = (re.fullmatch(r"conv([1-5]_1)_to_vgg/kernel", name) for name in self.params)
        return sorted(f"relu{match[1]}" for match in found if match)


class Published(NamedTuple):
    """A file of parameters that others publish."""

    file: str  # its name, in the cache too
    url: str
    md5: str
    size: int  # bytes, about
    what: str
    licence: str


class Listed(NamedTuple):
    """A row of `list_weights`: what can be loaded by `name`."""

    name: str
    state: str  # "embedded", "not embedded", "cached", "not fetched" or "built in"
    size: int | None  # bytes; about, where the file is not at hand; None where unknown
    licence: str
    path: str  # where the file lies, or would; empty where there is none
    what: str


def _oxford(name: str, title: str, md5: str, size: int) -> Published:
    file = f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return Published(
        file=file,
        url=f"https://storage.googleapis.com/tensorflow/keras-applications/{name}/{file}",
        md5=md5,
        size=size,
        what=f"{title} of Simonyan and Zisserman (Oxford), as Keras publishes it",
        licence="CC BY 4.0",
    )


REGISTRY: dict[str, Published] = {
    "vgg19": _oxford("vgg19", "VGG-19", "253f8cb515780f3b799900260a226db6", 80_000_000),
    "vgg16": _oxford("vgg16", "VGG-16", "6d6bbae143d832006294945121d1f1fc", 59_000_000),
}

_LITE = "a narrow VGG-19 that comes with jaxstyle"
_RANDOM = "a narrow VGG-19 of random kernels, for trials"


# What is at hand


def cache_folder() -> Path:
    """Folder of the fetched files, which need not exist: `weights` in `JAXSTYLE_CACHE_DIR`.

    Without that variable it is in the platform's cache folder of the user.
    """
    if chosen := os.environ.get("JAXSTYLE_CACHE_DIR"):
        return Path(chosen).expanduser() / "weights"
    import platformdirs

    return platformdirs.user_cache_path("jaxstyle") / "weights"


def load(spec: str | os.PathLike[str]) -> Weights:
    """Reads the parameters of a perceptual network.

    Args:
        spec: `lite` (embedded), `vgg19` or `vgg16` (fetched before), `random` (`random_vgg`), or a
            file: `.safetensors` or `.npz` with the names of `Weights.params`, `.safetensors` with
            those of torchvision's VGG-16 and VGG-19, or `.h5`/`.hdf5` as Keras writes these; their
            dense layers are left out. A name goes before a file of the same name. A folder is that
            of a run of `jaxstyle.methods.distill`, and stands for its latest checkpoint.

    Returns:
        The parameters as float32, checked: names, shapes from layer to layer, and finite values.
        A safetensors file may state `padding`, `scale` and `source` in its metadata; without it,
        and for `.npz`, padding is `reflect` and scale `normalized`, as for the encoders of AdaIN
        and WCT. Those of torchvision and of Keras are padded with zeros, and of the torchvision and
        the Oxford scale.

    Raises:
        UserError: The file is missing, damaged, of a kind that could run code, or not a VGG.
    """
    if isinstance(spec, str):
        if spec == "lite":
            return _load_embedded()
        if spec == "random":
            return random_vgg()
        if spec in REGISTRY:
            return _load_cached(spec)
    path = Path(spec).expanduser()
    if path.is_dir() or "://" in str(spec):
        return _load_run(spec)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise UserError(
            f"{path}: {suffix} files can run code when they are read, so they are refused: convert "
            "it to .safetensors with torchvision's names, or with tensors <layer>/kernel (height, "
            "width, inputs, outputs) and <layer>/bias"
        )
    if suffix not in weight_files.READERS and not path.exists():
        names = ["lite", *REGISTRY, "random"]
        hint = did_you_mean(spec, names)
        raise UserError(f"no features {str(spec)!r}: neither {', '.join(names)} nor a file{hint}")
    if suffix not in weight_files.READERS and path.is_file():
        raise UserError(f"{path}: expected a file that ends in {', '.join(weight_files.READERS)}")
    return _parse(path.stem, str(path), suffix, weight_files.read_bytes(path), source=path.name)


def default_spec() -> str:
    """Name of the features to use when none were asked for: the first that is at hand.

    Returns:
        `lite` if it is embedded, else `vgg19` or `vgg16` if it has been fetched, else `random`.
    """
    if _embedded().is_file():
        return "lite"
    for name, published in REGISTRY.items():
        if (cache_folder() / published.file).is_file():
            return name
    return "random"


# Narrower than VGG-19 in depth, where random features tell little apart.
_RANDOM_WIDTHS = ((32, 32), (64, 64), (128,) * 4, (128,) * 4, (128,))


def random_vgg() -> Weights:
    """A VGG-19 of random kernels, which needs no file and is the same everywhere.

    Untrained features already carry colours and coarse textures from one picture to another (He,
    Wang and Hopcroft 2016, "A Powerful Generative Model Using Random Weights", arXiv 1606.04801),
    though no shapes: they stand in until trained ones are at hand.

    Returns:
        Kernels of He et al. 2015 (arXiv 1502.01852), under which activations keep their size.
    """
    generator = np.random.default_rng(0)
    params = {
        "preprocess/kernel": 4 * np.eye(3, dtype=np.float32)[None, None],
        "preprocess/bias": np.full(3, -2, np.float32),
    }
    inputs = 3
    for block, row in enumerate(_RANDOM_WIDTHS, 1):
        for index, outputs in enumerate(row, 1):
            deviation = np.sqrt(2 / (9 * inputs))
            kernel = generator.normal(0, deviation, (3, 3, inputs, outputs))
            params[f"conv{block}_{index}/kernel"] = kernel.astype(np.float32)
            params[f"conv{block}_{index}/bias"] = np.zeros(outputs, np.float32)
            inputs = outputs
    return Weights("random", params, "reflect", "random", "random numbers", "")


def list_weights() -> list[Listed]:
    """What can be loaded by name, and whether it is at hand. Hashes are left to `load`."""
    lite = _embedded()
    here = lite.is_file()
    size = len(lite.read_bytes()) if here else None
    state = "embedded" if here else "not embedded"
    rows = [Listed("lite", state, size, "Apache-2.0", str(lite), _LITE)]
    for name, published in REGISTRY.items():
        path = cache_folder() / published.file
        here = path.is_file()
        size = path.stat().st_size if here else published.size
        state = "cached" if here else "not fetched"
        rows.append(Listed(name, state, size, published.licence, str(path), published.what))
    rows.append(Listed("random", "built in", None, "Apache-2.0", "", _RANDOM))
    return rows


def fetch(name: str, *, progress: bool = True) -> Path:
    """Downloads a published file into the cache, unless it is there already.

    Args:
        name: `vgg19` or `vgg16`.
        progress: show a progress bar on standard error.

    Returns:
        The file, whose hash has been checked.

    Raises:
        UserError: Unknown name, no network, no place to write, or a wrong hash.
    """
    if name == "lite":
        raise UserError("lite is not fetched: it comes with jaxstyle or not at all")
    if name not in REGISTRY:
        raise UserError(f"cannot fetch {name!r}: expected one of {', '.join(REGISTRY)}")
    import pooch

    published, folder = REGISTRY[name], cache_folder()
    by_hand = f"get {published.file} ({published.url}) elsewhere and put it into {folder}"
    pooch.get_logger().setLevel("WARNING")  # the command itself says what it does
    try:
        # Private: whoever can write here chooses what is computed with.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        pooch.retrieve(
            published.url,
            known_hash=f"md5:{published.md5}",
            fname=published.file,
            path=folder,
            progressbar=progress,
        )
    except OSError as error:  # those of requests, too, are OSErrors
        raise UserError(f"cannot fetch {name}: {_reason(error)}; {by_hand}") from error
    except ValueError as error:  # pooch keeps nothing of what it then downloaded
        raise UserError(
            f"cannot fetch {name}: what {published.url} sent is not the published file (its MD5 "
            f"is not {published.md5}); try again, or {by_hand}"
        ) from error
    return folder / published.file


def save(
    path: str | os.PathLike[str], weights: Weights, *, dtype: str | np.dtype[Any] = "float32"
) -> None:
    """Writes parameters as safetensors, with padding, scale and source in its metadata.

    Equal weights give equal bytes. The file is written beside its target and renamed.

    Args:
        path: the file, which ends in `.safetensors`; one that exists is replaced.
        weights: what `load` is to give back, but for `name` and `sha256`.
        dtype: what numbers are written as: float16 halves the file and rounds to 3 digits.

    Raises:
        ValueError: The parameters are not those of a VGG, or too large for `dtype`; or padding or
            scale is unknown.
        UserError: The name ends otherwise, or the file cannot be written.
    """
    path = tensors.check_name(path)
    metadata = {"padding": weights.padding, "scale": weights.scale, "source": weights.source}
    _check_metadata(metadata)
    check_params(weights.params)
    floats = weight_files.floats
    arrays = {key: np.ascontiguousarray(floats(key, x, dtype)) for key, x in weights.params.items()}
    try:
        tensors.write(path, arrays, metadata)
    except OSError as error:
        raise UserError(f"cannot write {path}: {_reason(error)}") from error


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    dtype: str | np.dtype[Any] = "float32",
    padding: str | None = None,
) -> Weights:
    """Reads what `load` reads and writes it as safetensors.

    Args:
        source: what `load` takes.
        target: the file, as `save` takes it.
        dtype: as `save` takes it.
        padding: the padding to use the network with, if it is another than that of `source`.

    Returns:
        What was written, in float32.

    Raises:
        UserError: As `load` and `save`.
    """
    weights = load(source)
    if padding is not None:
        weights = weights._replace(padding=padding)
    save(target, weights, dtype=dtype)
    return weights


# From files to bytes


def _embedded() -> Traversable:
    return resources.files("jaxstyle") / "assets" / "lite.safetensors"


def _load_embedded() -> Weights:
    file = _embedded()
    if not file.is_file():
        raise UserError(
            "the embedded features `lite` are not part of this build: run `jaxstyle weights fetch "
            "vgg19` and use --features vgg19, or pass --features FILE"
        )
    return _parse("lite", "lite", ".safetensors", file.read_bytes(), source=f"lite, {_LITE}")


def _load_cached(name: str) -> Weights:
    published = REGISTRY[name]
    path = cache_folder() / published.file
    again = f"run `jaxstyle weights fetch {name}`, or put {published.file} into {path.parent}"
    if not path.is_file():
        raise UserError(f"{name} has not been fetched: {again}")
    data = weight_files.read_bytes(path)
    # Always, because a file may have been put there by hand.
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != published.md5:
        raise UserError(
            f"{path} is not the published file: expected MD5 {published.md5}, got {found}; {again}"
        )
    source = f"{published.what}, {published.licence}"
    return _parse(name, str(path), path.suffix, data, source=source)


def _load_run(folder: str | os.PathLike[str]) -> Weights:
    from jaxstyle.methods import distill  # imports JAX, and this module
    from jaxstyle.training.checkpoints import FOLDER, workdir_path

    if not (workdir_path(folder) / FOLDER).is_dir():
        raise UserError(
            f"{folder} is a folder: expected a file of parameters, or the folder of a training run"
        )
    return distill.load_run(folder)


def _reason(error: OSError) -> str:
    """What went wrong, in a few words: what requests says of it can fill a screen."""
    response = getattr(error, "response", None)
    if response is not None:
        response.close()  # which pooch leaves open when the status is an error
        return f"HTTP status {response.status_code}"
    return error.strerror or type(error).__name__


def _parse(name: str, label: str, suffix: str, data: bytes, *, source: str) -> Weights:
    """Weights from the bytes of a file; `label` is how errors call it."""
    try:
        arrays, stated = weight_files.READERS[suffix](data)
        metadata = {"padding": "reflect", "scale": "normalized", "source": source} | stated
        _check_metadata(metadata)
        params = {key: weight_files.floats(key, arrays[key]) for key in sorted(arrays)}
        check_params(params)
    except ValueError as error:
        raise UserError(f"{label}: {' '.join(str(error).split())}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    padding, scale, source = (metadata[key] for key in ("padding", "scale", "source"))
    return Weights(name, params, padding, scale, source, sha256)


# Checks, which raise ValueError


def _check_metadata(metadata: Mapping[str, str]) -> None:
    for key, choices in (("padding", PADDINGS), ("scale", FEATURE_SCALES)):
        if metadata[key] not in choices:
            raise ValueError(f"{key} is {metadata[key]!r}: expected one of {', '.join(choices)}")


def check_params(params: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless the tensors make one VGG, from its start to wherever it stops."""
    for key in sorted(params):
        if not _TENSOR.fullmatch(key):
            raise ValueError(
                f"unknown tensor {key!r}: expected <layer>/kernel and <layer>/bias of preprocess, "
                "convK_J and convK_1_to_vgg"
            )
    layers = sorted({key.split("/")[0] for key in params} | {"preprocess"})
    for key in (f"{layer}/{part}" for layer in layers for part in ("kernel", "bias")):
        if key not in params:
            note = " (it maps RGB in [0, 1] to the network's input)" if "preprocess" in key else ""
            raise ValueError(f"{key} is missing{note}")
    for key, expected in (("preprocess/kernel", (1, 1, 3, 3)), ("preprocess/bias", (3,))):
        if params[key].shape != expected:
            raise ValueError(f"{key} has shape {params[key].shape}: expected {expected}")

    convs = [layer for layer in layers if re.fullmatch(r"conv\d_\d", layer)]
    previous, expected = "preprocess", ["conv1_1"]
    for layer in convs:
        if layer not in expected:
            raise ValueError(f"{' or '.join(expected)} is missing: the next layer is {layer}")
        _check_shapes(params, layer, 3, previous)
        block, place = int(layer[4]), int(layer[6])
        previous, expected = layer, [f"conv{block}_{place + 1}", f"conv{block + 1}_1"]
    if not convs:
        raise ValueError("conv1_1/kernel is missing: there are no convolutions")
    for head in (layer for layer in layers if layer.endswith("_to_vgg")):
        giver = head.removesuffix("_to_vgg")
        if giver not in convs:
            raise ValueError(f"{head} is there, but {giver}, which it reads, is missing")
        _check_shapes(params, head, 1, giver)


def _check_shapes(params: Mapping[str, np.ndarray], layer: str, size: int, giver: str) -> None:
    """Checks a kernel, `size` x `size`, against the layer that feeds it, and its bias."""
    kernel, bias = params[f"{layer}/kernel"].shape, params[f"{layer}/bias"].shape
    fed = params[f"{giver}/kernel"].shape
    if len(kernel) != 4 or kernel[:3] != (size, size, fed[3]) or kernel[3] == 0:
        raise ValueError(
            f"{layer}/kernel has shape {kernel}: expected ({size}, {size}, {fed[3]}, outputs), "
            f"because {giver}/kernel has shape {fed}"
        )
    if bias != kernel[3:]:
        raise ValueError(
            f"{layer}/bias has shape {bias}: expected {kernel[3:]}, because {layer}/kernel has "
            f"shape {kernel}"
        )
