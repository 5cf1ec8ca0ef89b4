"""`jaxstyle stylize`: everything is checked first, then pictures are made one by one.

There are three ways. With paintings the pixels are optimised (`optimise`), or a network that knows
none of them paints in their style (`arbitrary`); a network that was trained in some styles paints
in those (`feedforward`).
"""

from __future__ import annotations

import argparse
import dataclasses
from types import ModuleType

from jaxstyle.commands import arbitrary, feedforward, optimise, processes
from jaxstyle.commands.interruption import Wording
from jaxstyle.commands.making import Session, paint_all, run_session
from jaxstyle.commands.onepass import WORDING
from jaxstyle.commands.options import DEFAULT_METHOD, option_name
from jaxstyle.config import StylizeConfig
from jaxstyle.errors import UserError

# Which options are for which ways; the others are for all of them.
_FOR_ALL = ("size", "keep_colors", "tile", "memory")
_FOR_NETWORKS = ("strength", "interpolate")
_FOR_ANY_PAINTING = ("style_size", "content_mask", "style_mask")
_FOR_PIXELS = (
    *("preset", "features", "padding", "preview", "trace", "state", "shard"),
    *processes.NAMES,
    *(entry.name for entry in dataclasses.fields(StylizeConfig) if entry.name not in _FOR_ALL),
)


def run(arguments: argparse.Namespace) -> int:
    """Makes the pictures.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code.

    Raises:
        UserError: Bad input. For one picture of a folder it is reported, and the others are made.
    """
    way = _choose(arguments)

    def work(session: Session) -> int:
        tasks, painter = way.start(session)
        if any(path.is_dir() for path in (arguments.content, *arguments.styles)):
            return paint_all(tasks, painter, session)
        return 0 if painter.paint(tasks[0]) else session.stop.exit_code

    return run_session(arguments, work, wording=Wording() if way is optimise else WORDING)


def _choose(arguments: argparse.Namespace) -> ModuleType:
    """The way to go; refuses options of several ways at once."""
    by_name = arguments.style is not None or isinstance(arguments.style_weights, dict)
    paintings = arguments.styles or arguments.method is not None
    if by_name or (arguments.model is not None and not paintings):
        _check_names(arguments)
        return feedforward
    if not arguments.styles:
        raise UserError(
            "expected STYLE, the file of a painting, or --style NAME for a trained style "
            "(`jaxstyle styles` lists them), or --model (see jaxstyle stylize --help)"
        )
    method = "adain" if arguments.model is not None else DEFAULT_METHOD
    method = arguments.method or method
    if method == "adain":
        _refuse(arguments, _FOR_PIXELS, "is for optimising pixels, with --method gatys")
        return arbitrary
    if arguments.model is not None:
        raise UserError(f"--method {method} optimises pixels, without a model: leave out --model")
    _refuse(arguments, _FOR_ANY_PAINTING, "is for --method adain")
    _refuse(
        arguments,
        _FOR_NETWORKS,
        "is for trained models, which --method adain, --style or --model name",
    )
    for path in arguments.styles:
        if path.is_dir():
            raise UserError(
                f"{path} is a folder: expected the file of a painting, or --method adain, which "
                "paints in the style of each in a folder"
            )
    return optimise


def _check_names(arguments: argparse.Namespace) -> None:
    """Refuses what does not go with styles by name."""
    if arguments.method is not None:
        option = "style" if arguments.style is not None else "style_weights"
        raise UserError(
            f"{option_name(option)} names styles of a trained model: leave out --method, or give "
            "paintings as files"
        )
    if arguments.styles and arguments.style is not None:
        raise UserError(
            f"{arguments.styles[0]} is a second picture, but a trained model has its styles in it: "
            "leave out either this file, or --style"
        )
    if arguments.styles:
        raise UserError(
            f"--style-weights names styles of a trained model, but {arguments.styles[0]} is a "
            "painting: give its shares as numbers, as in 0.7,0.3, or leave the paintings out"
        )
    if arguments.style is not None and isinstance(arguments.style_weights, dict):
        raise UserError("--style and --style-weights both choose styles: give one of them")
    if arguments.style_weights is not None and not isinstance(arguments.style_weights, dict):
        raise UserError(
            "--style-weights in numbers is for paintings: give the styles of a trained model by "
            "name, as in wave=0.7,mosaic=0.3"
        )
    refused = (*_FOR_PIXELS, *_FOR_ANY_PAINTING)
    _refuse(arguments, refused, "is for paintings, and nothing to a trained model")


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raises UserError if one of these options was given."""
    for name in names:
        if getattr(arguments, name, None) is not None:
            raise UserError(f"{option_name(name)} {why}: leave it out")
