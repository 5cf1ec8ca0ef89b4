"""The options of `jaxstyle sheet`. Nothing here imports JAX or NumPy: `--help` is made from it."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle.commands import options
from jaxstyle.config import StylizeConfig

SIZE = 256
"""Longer side of each picture of a sheet, unless told otherwise."""

_NOTES = """\
examples:
  jaxstyle sheet photo.jpg painting.jpg -o sheet.png --content-weight 0.1,0.2,0.35,0.7
  jaxstyle sheet photo.jpg painting.jpg -o sheet.png --style-weight 0.3,1,3 --tv-weight 0,2
  jaxstyle sheet photo.jpg wave.jpg mosaic.jpg -o sheet.png --style-scale 0.5,1,2 --size 192
  jaxstyle sheet photo.jpg painting.jpg -o sheet.png --init noise --seed 0,1,2
  jaxstyle sheet photo.jpg painting.jpg -o sheet.png --preset gatys2016 --style-weight 1e7,1e8

Options whose values are shown as X,... may have several: the sheet has a picture of each
combination. The last of these options goes along the columns, the others along the rows; several
STYLEs come before them. What differs stands below each picture. Weights and step sizes that differ
cost no compiling; other settings are compiled for each of their values.

For each picture the command that makes it large is printed, and stands in the JSON file beside the
sheet (sheet.json), with all settings. It makes the size of the preset; add --size for another.

Ctrl-C writes the sheet with the pictures so far, and a second Ctrl-C quits at once.

exit codes: 0 all is done; 1 the loss of some pictures became infinite or NaN; 2 a mistake in the
command or in a file; 130 stopped by Ctrl-C (143 by SIGTERM)
"""


class Value(NamedTuple):
    """One value of an option that may have several.

    Attributes:
        text: as it was typed.
        value: what it means.
    """

    text: str
    value: Any


def varied_names() -> list[str]:
    """The settings that may have several values: numbers and words, but not the size."""
    types = typing.get_type_hints(StylizeConfig)
    return [
        field.name
        for field in dataclasses.fields(StylizeConfig)
        if field.name not in ("size", "init")
        and (types[field.name] in (int, float) or isinstance(field.default, str))
    ]


def several(parse: Callable[[str], Any]) -> Callable[[str], list[Value]]:
    """A type of argument: values of another type between commas, each of them once."""

    def parse_all(text: str) -> list[Value]:
        found = [Value(part.strip(), parse(part.strip())) for part in text.split(",")]
        values = [value for _, value in found]
        for one, value in found:
            if values.count(value) > 1:
                raise argparse.ArgumentTypeError(f"{one} is there twice: give each value once")
        return found

    return parse_all


def add_parser(commands: Any) -> Any:
    """Adds the command; its parser."""
    parser = commands.add_parser(
        "sheet",
        help="try several settings or paintings on a photo: small pictures, side by side",
        description="Paints CONTENT small in each combination of the values that are given, and "
        "writes a contact sheet of them, with the command that makes each of them large.",
        usage="jaxstyle sheet CONTENT STYLE [STYLE ...] -o SHEET [options]",
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files(parser)
    _add_run_options(parser)
    settings = parser.add_argument_group(
        "settings of the pictures (what is given goes before the preset; the defaults are those "
        "of `default`)"
    )
    options.add_preset_option(settings)
    options.add_config_options(settings)
    known = {action.dest: action for action in parser._actions}
    for name in varied_names():
        known[name].type = several(known[name].type)
        known[name].metavar += ",..."
    known["size"].help = f"longer side of each picture, in pixels (default: {SIZE})"
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("content", type=Path, metavar="CONTENT", help="the picture to paint")
    files.add_argument(
        "styles",
        type=Path,
        nargs="+",
        metavar="STYLE",
        help="the painting to take the style from; several are tried one by one, not blended",
    )
    files.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="SHEET",
        help="the contact sheet: .png, .jpg, .webp or .tif; a file of the same name that ends in "
        ".json is written beside it",
    )
    options.add_overwrite_option(files)
    options.add_features_option(files)
    options.add_picture_options(files)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("run")
    run.add_argument(
        "--group",
        type=options.whole_number(1),
        metavar="N",
        help="optimise so many pictures at once (default: as many as --memory allows)",
    )
    options.add_memory_option(run)
    options.add_padding_option(run)
    options.add_device_options(run)
