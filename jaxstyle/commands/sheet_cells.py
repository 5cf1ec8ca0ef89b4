"""What `jaxstyle sheet` is to make: the combinations of values, their labels and commands."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle import sheets
from jaxstyle.commands import options, processes
from jaxstyle.commands.sheet_options import SIZE, Value, varied_names
from jaxstyle.config import INITS, MAX_PIXELS, PRESETS, StylizeConfig
from jaxstyle.errors import UserError


class Dimension(NamedTuple):
    """What differs between the pictures: `style`, or the name of a setting, and its values."""

    name: str
    values: list[Value]


class Cell(NamedTuple):
    """A picture of the sheet.

    Attributes:
        number: from 1, row by row.
        style: which of the styles.
        config: settings.
        differs: values, as they were typed, by what differs.
        command: makes the picture large.
    """

    number: int
    style: int
    config: StylizeConfig
    differs: dict[str, str]
    command: str

    @property
    def lines(self) -> list[str]:
        """The label."""
        return sheets.label(self.number, self.differs)


def find_dimensions(arguments: argparse.Namespace) -> list[Dimension]:
    """What differs: styles, then options in the order in which they were given."""
    start = getattr(arguments, "init", None)
    if start is not None and "," in start and set(start.split(",")) <= {*INITS}:
        raise UserError(
            f"--init: expected one start for all pictures of a sheet, as in --init "
            f"{start.partition(',')[0]}; got {start!r}"
        )
    found = []
    if len(arguments.styles) > 1:
        names = Counter(path.name for path in arguments.styles)
        values = [
            Value(path.name if names[path.name] == 1 else str(path), index)
            for index, path in enumerate(arguments.styles)
        ]
        found.append(Dimension("style", values))
    listed = varied_names()
    found += [
        Dimension(name, values)
        for name, values in vars(arguments).items()
        if name in listed and len(values) > 1
    ]
    if not found:
        raise UserError(
            "there is one picture only: give several values of an option, as in "
            "--style-weight 0.3,1,3, or several STYLEs"
        )
    return found


def first_values(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments of the first picture, as `jaxstyle stylize` would have them."""
    given = vars(arguments).copy()
    for name in varied_names():
        if name in given:
            given[name] = given[name][0].value
    given["size"] = given.get("size", SIZE)
    given |= dict.fromkeys(
        ("style_weights", "preview", "trace", "state", "shard", *processes.NAMES)
    )
    return argparse.Namespace(**given)


def make_cells(
    arguments: argparse.Namespace, dimensions: Sequence[Dimension], config: StylizeConfig
) -> list[Cell]:
    """The pictures, the last dimension the fastest."""
    cells = []
    combinations = list(itertools.product(*(dimension.values for dimension in dimensions)))
    digits = len(str(len(combinations)))
    for number, values in enumerate(combinations, 1):
        found = dict(zip((name for name, _ in dimensions), values, strict=True))
        style = found["style"].value if "style" in found else 0
        changes = {name: value for name, (_, value) in found.items() if name != "style"}
        output = arguments.output.with_name(f"{arguments.output.stem}-{number:0{digits}}.png")
        chosen = {name: text for name, (text, _) in found.items()}
        command = _command(arguments, arguments.styles[style], chosen, output)
        changed = options.overridden(config, changes)
        cells.append(Cell(number, style, changed, chosen, command))
    return cells


def _command(
    arguments: argparse.Namespace, style: Path, chosen: Mapping[str, str], output: Path
) -> str:
    """What makes a picture in the size of its preset, or in that of the sheet if it is larger."""
    words = ["jaxstyle", "stylize", str(arguments.content), str(style)]
    given = vars(arguments)
    for name in ("preset", "features", "padding", "device"):
        if given[name] is not None:
            words += [options.option_name(name), given[name]]
    if arguments.max_pixels != MAX_PIXELS:
        words += ["--max-pixels", str(arguments.max_pixels)]
    usual = PRESETS[arguments.preset or "default"].native.size
    if given.get("size", SIZE) > usual:
        words += ["--size", str(arguments.size)]
    settings = [field.name for field in dataclasses.fields(StylizeConfig) if field.name != "size"]
    for name, value in given.items():
        if name in settings:
            words += _option(name, value, chosen.get(name))
    return shlex.join([*words, "-o", str(output)])


def _option(name: str, value: Any, chosen: str | None) -> list[str]:
    """An option as it was given, or with the value that was chosen of several."""
    option = options.option_name(name)
    if isinstance(value, bool):
        return [option if value else f"--no-{option[2:]}"]
    if name == "keep_colors":  # a word behind it could be a file
        return [f"{option}={value}"]
    if isinstance(value, list) and isinstance(value[0], Value):
        return [option, chosen or value[0].text]
    if isinstance(value, list):
        return [option, ",".join(n if w is None else f"{n}={w!r}" for n, w in value)]
    return [option, str(value)]


def check_differences(
    dimensions: Sequence[Dimension], cells: Sequence[Cell], *, has_start: bool
) -> None:
    """Refuses values that would change nothing."""
    names = [dimension.name for dimension in dimensions]
    found = sheets.moot(names, [cell.config for cell in cells], has_start=has_start)
    if found is not None:
        name, why = found
        raise UserError(
            f"{options.option_name(name)} has several values, but {why.reason}: leave it out, or "
            f"add {options.option_name(why.setting)} {why.value}"
        )
