"""`jaxstyle stylize`: everything is checked first, then pictures are made one by one.

With paintings the pixels are optimised (`optimise`); with a trained model the pictures come out of
its network (`feedforward`).
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from jaxstyle.commands import feedforward, optimise
from jaxstyle.commands.interruption import Wording
from jaxstyle.commands.making import Session, paint_all, run_session
from jaxstyle.commands.options import option_name
from jaxstyle.config import StylizeConfig
from jaxstyle.errors import UserError

_FOR_MODELS = ("strength", "tile", "interpolate")
_FOR_BOTH = ("size", "keep_colors")
_FOR_PAINTINGS = (
    *("preset", "features", "padding", "preview", "trace"),
    *(entry.name for entry in dataclasses.fields(StylizeConfig) if entry.name not in _FOR_BOTH),
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
    trained = _wants_model(arguments)
    way, wording = (feedforward, feedforward.WORDING) if trained else (optimise, Wording())

    def work(session: Session) -> int:
        tasks, painter = way.start(session)
        if arguments.content.is_dir():
            return paint_all(tasks, painter, session)
        return 0 if painter.paint(tasks[0]) else session.stop.exit_code

    return run_session(arguments, work, wording=wording)


def _wants_model(arguments: argparse.Namespace) -> bool:
    """Whether a trained model is to paint; refuses options of both ways at once."""
    styles: list[Path] = arguments.styles
    shares = arguments.style_weights
    by_name = isinstance(shares, dict)
    if arguments.model is None and arguments.style is None and not by_name:
        _refuse(arguments, _FOR_MODELS, "is for trained models, which --style or --model name")
        if not styles:
            raise UserError(
                "expected STYLE, the file of a painting, or --style NAME for a trained style "
                "(`jaxstyle styles` lists them), or --model (see jaxstyle stylize --help)"
            )
        return False
    if by_name and styles and arguments.model is None and arguments.style is None:
        raise UserError(
            f"--style-weights names styles of a trained model, but {styles[0]} is a painting: give "
            "its shares as numbers, as in 0.7,0.3, or leave the paintings out"
        )
    if styles:
        raise UserError(
            f"{styles[0]} is a second picture, but a trained model has its styles in it: leave out "
            "either this file, or --model and --style"
        )
    if shares is not None and not by_name:
        raise UserError(
            "--style-weights in numbers is for paintings: give the styles of a trained model by "
            "name, as in wave=0.7,mosaic=0.3"
        )
    if by_name and arguments.style is not None:
        raise UserError("--style and --style-weights both choose styles: give one of them")
    _refuse(arguments, _FOR_PAINTINGS, "is for paintings, and nothing to a trained model")
    return True


def _refuse(arguments: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raises UserError if one of these options was given."""
    for name in names:
        if getattr(arguments, name, None) is not None:
            raise UserError(f"{option_name(name)} {why}: leave it out")
