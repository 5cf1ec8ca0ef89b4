"""`jaxstyle styles`: the styles of a trained model, as names or as a contact sheet."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from jaxstyle import images
from jaxstyle.commands import paths
from jaxstyle.commands.feedforward import load, render
from jaxstyle.commands.making import Session, memory_named, run_session, write_picture
from jaxstyle.commands.onepass import WORDING, Look, describe, spent
from jaxstyle.errors import UserError

if TYPE_CHECKING:
    from jaxstyle.models import Model

_SIZE = 256
_FOR_SHEETS = ("output", "size", "columns")


def run(arguments: argparse.Namespace) -> int:
    """Lists the styles, or paints a photo in each of them.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code.

    Raises:
        UserError: Bad input.
    """
    if arguments.photo is None:
        for name in _FOR_SHEETS:
            if getattr(arguments, name) is not None:
                raise UserError(f"--{name} is for a contact sheet: say of which PHOTO")
        return run_session(arguments, _list, wording=WORDING)
    if arguments.output is None:
        raise UserError("a contact sheet needs a name: add -o FILE")
    return run_session(arguments, _make_sheet, wording=WORDING)


def _list(session: Session) -> int:
    for name in load(session).styles:
        sys.stdout.write(f"{name}\n")
    return 0


def _make_sheet(session: Session) -> int:
    begun = time.monotonic()
    arguments, progress = session.arguments, session.progress
    photo, output = arguments.photo, arguments.output
    paths.check_new(output, [photo], overwrite=arguments.overwrite)
    images.check_output_path(output)
    content = images.load(photo, max_pixels=arguments.max_pixels)
    model = load(session)
    height, width = content.pixels.shape[:2]
    size = images.fitted_size(height, width, arguments.size or _SIZE)
    progress.begin("", [(size[0] * size[1], len(model.styles))])
    with memory_named(f"at --size {arguments.size or _SIZE}: try a smaller one"):
        pixels = images.resize(content.pixels, size)
        pictures = [pixels]
        pictures += [render(model, pixels, {name: 1.0}, Look()) for name in model.styles]
        if content.alpha is not None:
            alpha = images.resize(content.alpha, size)[..., None]
            pictures = [picture * alpha + (1 - alpha) for picture in pictures]
        labels = [photo.stem, *model.styles]
        sheet = images.contact_sheet(pictures, labels, columns=arguments.columns)
    progress.end()
    write_picture(session, output, sheet, None, _made_by(session, model))
    height, width = sheet.shape[:2]
    seconds = spent(time.monotonic() - begun)
    progress.note(f"{output}: {width} x {height} pixels, {len(model.styles)} styles, {seconds}")
    return 0


def _made_by(session: Session, model: Model) -> str:
    """What made the sheet, as JSON without dates: the same run makes the same file."""
    from jaxstyle import __version__

    arguments = session.arguments
    record = {
        "version": __version__,
        "content": arguments.photo.name,
        "method": model.method,
        "model": describe(model),
        "styles": model.styles,
        "size": arguments.size or _SIZE,
    }
    return json.dumps(record)
