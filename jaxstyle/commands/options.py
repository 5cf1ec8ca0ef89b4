"""Command-line options: those of the settings' fields, so that help and defaults cannot drift, and
those that several commands have.

Nothing here imports JAX or NumPy: `--help` is made from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxstyle.config import (
    MAX_PIXELS,
    PADDINGS,
    PRESETS,
    StylizeConfig,
    did_you_mean,
    replace,
)
from jaxstyle.errors import UserError

METHODS = ("gatys", "adain")
"""How a painting that is given as a file may be used: by optimising pixels, or in one pass."""
DEFAULT_METHOD = "gatys"

LayerList = list[tuple[str, float | None]]

_DEFAULTS = StylizeConfig()  # which are the default preset's


_Group = argparse.ArgumentParser | argparse._ArgumentGroup


def add_config_options(parser: _Group) -> None:
    """Adds one option for each field of StylizeConfig, absent from the namespace if not given."""
    types = typing.get_type_hints(StylizeConfig)
    for field in dataclasses.fields(StylizeConfig):
        default = getattr(_DEFAULTS, field.name)
        shown = f"{field.metadata['help']} (default: {_show(default)})"
        parser.add_argument(
            option_name(field.name),
            dest=field.name,
            default=argparse.SUPPRESS,
            help=shown.replace("%", "%%"),
            **_kind(field, types[field.name], default),
        )


def _kind(field: dataclasses.Field[Any], kind: Any, default: Any) -> dict[str, Any]:
    """How argparse is to take a field's value."""
    choices, least = field.metadata["choices"], field.metadata["least"]
    if choices is not None:
        words = "|".join(choices)
        if default is not None:
            return {"type": one_of(choices), "metavar": words}
        # The bare option is its first choice.
        bare = {"nargs": "?", "const": choices[0]}
        return {"type": one_of(choices), "metavar": f"={words}", **bare}
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind is int:
        return {"type": whole_number(least), "metavar": "N"}
    if kind is float:
        return {"type": number(least), "metavar": "X"}
    if isinstance(default, Mapping):
        return {"type": layer_list, "metavar": "LAYER[=WEIGHT],..."}
    return {"metavar": field.name.upper()}


def add_preset_option(settings: _Group, *, see: str = "") -> None:
    """Adds `--preset`.

    Args:
        settings: of the pictures.
        see: where more is said of presets.
    """
    settings.add_argument(
        "--preset",
        type=one_of(PRESETS),
        metavar="|".join(PRESETS),
        help=f"where all other settings come from{see} (default: default)",
    )


def add_features_option(files: _Group) -> None:
    """Adds `--features`."""
    files.add_argument(
        "--features",
        metavar="lite|vgg19|vgg16|random|FILE",
        help="network whose features are compared (default: lite; for a paper's preset the network "
        "that it was made for, once that is fetched)",
    )


def add_padding_option(run: _Group) -> None:
    """Adds `--padding`."""
    run.add_argument(
        "--padding",
        type=one_of(("auto", *PADDINGS)),
        metavar="auto|zero|reflect|replicate",
        help="border of the features' convolutions; for optimising pixels (default: auto, as the "
        "features want it)",
    )


def add_memory_option(run: _Group) -> None:
    """Adds `--memory`."""
    run.add_argument(
        "--memory",
        type=memory,
        metavar="SIZE",
        help="what computing a picture may take, or an update of its pixels, as in 4GiB (default: "
        "half of what is free)",
    )


def add_overwrite_option(files: _Group) -> None:
    """Adds `--overwrite`."""
    files.add_argument(
        "--overwrite", action="store_true", help="replace files that are there already"
    )


def add_device_options(run: _Group) -> None:
    """Adds `--device` and `--quiet`."""
    run.add_argument(
        "--device", metavar="NAME", help="cpu, gpu, tpu, or one of several, as in cuda:1"
    )
    run.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")


def add_model_option(group: _Group) -> None:
    """Adds `--model`."""
    group.add_argument(
        "--model",
        metavar="DIR|FILE",
        help="folder of a training run, as in gs://bucket/run, or a .safetensors file (default: "
        "what comes with jaxstyle)",
    )


def add_picture_options(files: _Group) -> None:
    """Adds what is said of the files of pictures."""
    files.add_argument(
        "--quality",
        type=whole_number(1, 100),
        default=95,
        metavar="N",
        help="quality of JPEG and WebP, 1 to 100 (default: 95)",
    )
    files.add_argument(
        "--max-pixels",
        type=whole_number(1),
        default=MAX_PIXELS,
        metavar="N",
        help="refuse to read larger pictures; of a TIFF or PNG that is shrunk while it is read, "
        "the size it is shrunk to counts (default: 100000000)",
    )


def option_name(field: str) -> str:
    """`--style-weight` for the field `style_weight`."""
    return "--" + field.replace("_", "-")


def bare_options() -> dict[str, tuple[str, ...]]:
    """Options that may stand without a value, and the values that they may have."""
    return {
        option_name(field.name): field.metadata["choices"]
        for field in dataclasses.fields(StylizeConfig)
        if field.metadata["choices"] and getattr(_DEFAULTS, field.name) is None
    }


def bind_bare_options(arguments: Sequence[str]) -> list[str]:
    """Writes a bare `--keep-colors` as `--keep-colors=luminance`, so that it eats no file name.

    Only one of its own choices, as the next argument, counts as its value, or several of them
    between commas, which is refused in its turn.
    """
    bare, bound = bare_options(), []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return [*bound, *arguments[i:]]
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        if argument in bare and not {*following.split(",")} <= {*bare[argument]}:
            argument = f"{argument}={bare[argument][0]}"
        bound.append(argument)
    return bound


def overridden(preset: StylizeConfig, given: Mapping[str, Any]) -> StylizeConfig:
    """The preset with the options that were given on the command line.

    A layer without a weight gets an equal share of the total weight of the preset's layers.

    Args:
        preset: settings to begin with.
        given: parsed options by the name of their field; other names are left alone.

    Raises:
        UserError: The settings do not go together.
    """
    names = {field.name for field in dataclasses.fields(StylizeConfig)}
    changes = {name: value for name, value in given.items() if name in names}
    for name, value in changes.items():
        was = getattr(preset, name)
        if isinstance(was, Mapping):
            share = sum(was.values()) / len(value)
            changes[name] = {layer: share if w is None else w for layer, w in value}
    try:
        return replace(preset, **changes)
    except ValueError as error:
        raise UserError(str(error)) from error


# Types of arguments: each turns a string into a value or says what was expected


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    """A type of argument: one of some words, with the nearest as a suggestion."""
    choices = tuple(choices)

    def parse(text: str) -> str:
        if text in choices:
            return text
        raise argparse.ArgumentTypeError(
            f"unknown {text!r}{did_you_mean(text, choices)} (one of {', '.join(choices)})"
        )

    return parse


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type of argument: a whole number, within bounds."""
    expected = f"a whole number, at least {least}"
    if most is not None:
        expected = f"a whole number from {least} to {most}"
    return lambda text: _checked(
        text, int, lambda value: value >= least and (most is None or value <= most), expected
    )


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """A type of argument: a finite number, within bounds."""
    expected = f"a number, at least {least:g}"
    if most < math.inf:
        expected = f"a number from {least:g} to {most:g}"
    return lambda text: _checked(text, float, lambda value: least <= value <= most, expected)


def tile(text: str) -> int | str:
    """A type of argument: `auto`, `off`, or a number of pixels."""
    if text in ("auto", "off"):
        return text
    return _checked(
        text, int, lambda value: value >= 1, "auto, off or a number of pixels, at least 1"
    )


def tile_of(arguments: argparse.Namespace) -> int | str | None:
    """What `--tile` says, as the methods take it."""
    return {None: "auto", "off": None}.get(arguments.tile, arguments.tile)


_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 1e3, "mb": 1e6, "gb": 1e9}


def size_in_bytes(text: str) -> int:
    """A type of argument: `4GiB`, `500MB`, or a number of bytes."""
    match = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]*)", text.strip())
    try:
        found = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    except (KeyError, ValueError, OverflowError):
        found = 0
    if found < 1:
        raise argparse.ArgumentTypeError(f"expected a size, as in 4GiB or 500MB; got {text!r}")
    return found


LEAST_MEMORY = 16 * 2**20
"""Less than that, `--memory` is a slip: a number without its unit means bytes."""


def memory(text: str) -> int:
    """A type of argument: a size that something can be computed in."""
    found = size_in_bytes(text)
    if found < LEAST_MEMORY:
        raise argparse.ArgumentTypeError(
            f"expected at least {LEAST_MEMORY >> 20}MiB, as in 4GiB; got {found} bytes"
        )
    return found


def shares(text: str) -> list[float] | dict[str, float]:
    """A type of argument: `0.7,0.3`, or by name `wave=0.7,mosaic=0.3`.

    None is negative, not all are zero, and none is named twice.
    """
    parts = [part.strip().rpartition("=") for part in text.split(",")]
    named = [bool(equals) for _, equals, _ in parts]
    weights = [_weight(share) for _, _, share in parts]
    if sum(weights) <= 0 or not math.isfinite(sum(weights)):
        raise argparse.ArgumentTypeError(f"expected a finite weight above 0, got {text!r}")
    if not any(named):
        return weights
    names = [name.strip() for name, _, _ in parts]
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"expected a name for each share, as in wave=0.7,mosaic=0.3, or for none; got {text!r}"
        )
    for name in names:
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"{name} is named twice")
    return dict(zip(names, weights, strict=True))


def layer_list(text: str) -> LayerList:
    """A type of argument: `relu1_1,relu2_1=0.5`; the weight is None where none is given."""
    layers: LayerList = []
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        if not name:
            raise argparse.ArgumentTypeError(f"expected layers between commas, got {text!r}")
        if name in (layer for layer, _ in layers):
            raise argparse.ArgumentTypeError(f"{name} is named twice")
        layers.append((name, _weight(weight) if equals else None))
    return layers


_weight = number(0)


def _checked(text: str, kind: type, accept: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
        if math.isfinite(value) and accept(value):
            return value
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")


def _show(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, Mapping):
        if len(set(value.values())) == 1:  # without weights they are equal
            return ",".join(value)
        return ",".join(f"{name}={weight:g}" for name, weight in value.items())
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
