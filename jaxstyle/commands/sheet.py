"""`jaxstyle sheet`: small pictures of several settings side by side, to choose from."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxstyle import images, sheets
from jaxstyle.commands import optimise, paths, sheet_cells
from jaxstyle.commands.interruption import Wording
from jaxstyle.commands.making import Session, memory_named, run_session, write_picture
from jaxstyle.commands.progress import Moment, duration
from jaxstyle.commands.sheet_cells import Cell, Dimension
from jaxstyle.errors import UserError
from jaxstyle.trace import TERMS

if TYPE_CHECKING:
    from jaxstyle.methods.gatys_batch import Group, Iterates

_WORDING = Wording(lost="quit at once; the sheet was not written")


class _Made(NamedTuple):
    """A picture, as far as it came.

    Attributes:
        pixels: `[height, width, 3]`; not finite where the loss was no number.
        finished: it had all of its steps.
    """

    pixels: np.ndarray
    finished: bool

    @property
    def is_picture(self) -> bool:
        """Whether it can be shown."""
        return bool(np.isfinite(self.pixels).all())


class _Plan(NamedTuple):
    """What is to be made, and of what.

    Attributes:
        arguments: as parsed by the command line.
        dimensions: what differs.
        cells: the pictures, row by row.
        columns: how many there are in a row.
        content: the photo, at its full size.
        size: height and width of each picture.
        job: features, styles and start, as `jaxstyle stylize` has them.
    """

    arguments: argparse.Namespace
    dimensions: list[Dimension]
    cells: list[Cell]
    columns: int
    content: images.Picture
    size: tuple[int, int]
    job: optimise.Job


def run(arguments: argparse.Namespace) -> int:
    """Makes the sheet.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code.

    Raises:
        UserError: Bad input.
    """
    return run_session(arguments, _make_sheet, wording=_WORDING)


def _make_sheet(session: Session) -> int:
    begun = time.monotonic()
    arguments, stop, progress = session.arguments, session.stop, session.progress
    beside = _check_paths(arguments)
    plan = _plan(session)
    made = _optimise(session, plan)
    progress.end()
    sheet = _draw(plan, made)
    record = _record(plan, made)
    short = {name: value for name, value in record.items() if name != "cells"}
    write_picture(session, arguments.output, sheet, None, json.dumps(short))
    _write(session, beside, record)
    if not arguments.quiet:
        _print_commands(plan.cells)
    height, width = sheet.shape[:2]
    done = f"{arguments.output}: {width} x {height} pixels, {len(plan.cells)} pictures, "
    done += f"{duration(time.monotonic() - begun)}; settings and commands are in {beside}"
    if stop.number:
        progress.complain(f"stopped early; the sheet so far is in {done}")
        return stop.exit_code
    progress.note(done)
    return _report_lost(session, made)


# Before anything is computed


def _check_paths(arguments: argparse.Namespace) -> Path:
    """The file beside the sheet; raises UserError if it would be lost or cannot be written."""
    for path in (arguments.content, *arguments.styles):
        if path.is_dir():
            raise UserError(f"{path} is a folder: expected the file of a picture")
    for index, path in enumerate(arguments.styles):
        if any(paths.same_file(path, other) for other in arguments.styles[:index]):
            raise UserError(f"{path} is there twice: give each STYLE once")
    images.check_output_path(arguments.output)
    beside = arguments.output.with_suffix(".json")
    read = [arguments.content, *arguments.styles]
    paths.check_new(beside, read, overwrite=arguments.overwrite)
    return beside


def _plan(session: Session) -> _Plan:
    arguments = session.arguments
    dimensions = sheet_cells.find_dimensions(arguments)
    # One picture of them is what `jaxstyle stylize` makes, and checked as it does.
    first = sheet_cells.first_values(arguments)
    _, painter = optimise.start(session._replace(arguments=first))
    job = painter.job
    content = optimise.load_large(arguments.content, job.config.size, arguments)
    cells = sheet_cells.make_cells(arguments, dimensions, job.config)
    sheet_cells.check_differences(dimensions, cells, has_start=job.init is not None)
    height, width = content.pixels.shape[:2]
    size = images.fitted_size(height, width, job.config.size)
    columns = sheets.column_count([len(values) for _, values in dimensions])
    plan = _Plan(arguments, dimensions, cells, columns, content, size, job)
    # Some formats have a limit, which is better known now.
    images.check_output_path(arguments.output, size=_largest_size(plan))
    return plan


def _largest_size(plan: _Plan) -> tuple[int, int]:
    """Height and width of the sheet, if there is something to say of each picture."""
    sizes = [sheets.fitted_size(style.shape[:2], plan.size) for style in plan.job.styles]
    names = [plan.arguments.content.name, *(path.name for path in plan.arguments.styles)]
    head = [
        sheets.blank(size, [], name) for size, name in zip([plan.size, *sizes], names, strict=True)
    ]
    cells = [sheets.blank(plan.size, cell.lines, sheets.LOST) for cell in plan.cells]
    return sheets.sheet_size(head, cells, columns=plan.columns)


# The pictures


def _optimise(session: Session, plan: _Plan) -> dict[int, _Made]:
    """Pictures by their numbers; those that were not begun when the user stopped are missing."""
    from jaxstyle.methods import gatys_batch

    job, cells = plan.job, plan.cells
    variants = [gatys_batch.Variant(job.styles[cell.style], cell.config) for cell in cells]
    made: dict[int, _Made] = {}
    with memory_named(f"at --size {job.config.size}: try a smaller one, or --group 1"):
        try:
            groups = gatys_batch.stylize_together(
                plan.content.pixels,
                variants,
                features=job.features,
                init=job.init,
                group=session.arguments.group,
                memory=session.arguments.memory,
            )
        except ValueError as error:  # it checks what it is given before it begins
            raise UserError(str(error)) from error
        for group in groups:
            last, lost = _follow(session, group, _place(len(made), len(group.members), len(cells)))
            finished = (last.scale, last.step) == (last.scales, last.steps)
            for index, pixels, bad in zip(group.members, np.array(last.images), lost, strict=True):
                pixels = np.full_like(pixels, np.nan) if bad else pixels
                made[cells[index].number] = _Made(pixels, finished)
            if session.stop.number:
                break
    return made


def _follow(session: Session, group: Group, name: str) -> tuple[Iterates, np.ndarray]:
    """The last iterate of a group, and whose loss became infinite or NaN."""
    session.progress.begin(name, group.work)
    lost = np.zeros(len(group.members), bool)
    last, late = None, None
    for iterates in group.iterates:
        session.stop.can_save = True
        # Losses are read a step late, so that the device need not wait for us; but not at the end
        # of a scale, where the compiler may come next.
        if late is not None:
            lost |= _report(session, late)
        last = late = iterates
        if session.stop.number or iterates.step == iterates.steps:
            lost |= _report(session, iterates)
            late = None
        if session.stop.number:
            break
    assert last is not None  # settings have at least one step
    return last, lost


def _report(session: Session, iterates: Iterates) -> np.ndarray:
    """Shows the mean terms; which of the pictures have a loss that is no number."""
    losses = {term: np.asarray(iterates.losses[term]) for term in TERMS}
    lost = ~np.isfinite(losses["total"])
    means = {
        term: float(values[~lost].mean()) if not lost.all() else float("nan")
        for term, values in losses.items()
    }
    moment = Moment(iterates.scale, iterates.scales, iterates.step, iterates.steps)
    session.progress.update(moment, means)
    return lost


def _place(before: int, count: int, total: int) -> str:
    """How progress calls a group."""
    if count == total:
        return f"{total} pictures"
    if count == 1:
        return f"picture {before + 1} of {total}"
    return f"pictures {before + 1} to {before + count} of {total}"


def _report_lost(session: Session, made: Mapping[int, _Made]) -> int:
    """Names the pictures whose loss became no number; the exit code."""
    failed = [f"#{number}" for number, one in sorted(made.items()) if not one.is_picture]
    if not failed:
        return 0
    session.progress.complain(
        f"jaxstyle: error: the loss of {', '.join(failed)} became infinite or NaN: try a smaller "
        "--learning-rate, or smaller weights"
    )
    return 1


# The sheet, and the file beside it


def _draw(plan: _Plan, made: Mapping[int, _Made]) -> np.ndarray:
    """The sheet, with what there is of pictures."""
    cells = [
        _drawn(cell, made.get(cell.number), plan.content.alpha, plan.size) for cell in plan.cells
    ]
    return sheets.draw(_head(plan), cells, columns=plan.columns)


def _head(plan: _Plan) -> list[sheets.Labelled]:
    """The photo and the paintings, none larger than a picture of the sheet."""
    photo = _on_white(images.resize(plan.content.pixels, plan.size), plan.content.alpha)
    found = [sheets.Labelled(photo, [plan.arguments.content.name])]
    for path, style in zip(plan.arguments.styles, plan.job.styles, strict=True):
        found.append(sheets.Labelled(sheets.fitted(style, plan.size), [path.name]))
    return found


def _drawn(
    cell: Cell, made: _Made | None, alpha: np.ndarray | None, size: tuple[int, int]
) -> sheets.Labelled:
    """A picture and its label, which says what became of it if it is not as it should be."""
    lines = list(cell.lines)
    if made is None or not made.is_picture:
        return sheets.blank(size, lines, sheets.NOT_MADE if made is None else sheets.LOST)
    if not made.finished:
        lines.append("unfinished")
    return sheets.Labelled(_on_white(images.resize(made.pixels, size), alpha), lines)


def _on_white(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    if alpha is None:
        return pixels
    opaque = images.resize(alpha, (pixels.shape[0], pixels.shape[1]))[..., None]
    return pixels * opaque + (1 - opaque)


def _record(plan: _Plan, made: Mapping[int, _Made]) -> dict[str, Any]:
    """What the file beside the sheet says: without dates, so that the same run makes the same."""
    from jaxstyle import __version__

    arguments, job, columns = plan.arguments, plan.job, plan.columns
    features = job.features
    rows = []
    for cell in plan.cells:
        settings = dataclasses.asdict(cell.config)
        if job.init is not None:
            settings["init"] = Path(arguments.init).name
        one = made.get(cell.number)
        rows.append(
            {
                "number": cell.number,
                "row": (cell.number - 1) // columns + 1,
                "column": (cell.number - 1) % columns + 1,
                "differs": cell.differs,
                "style": arguments.styles[cell.style].name,
                "settings": settings,
                "command": cell.command,
                "finished": one is not None and one.finished and one.is_picture,
            }
        )
    return {
        "version": __version__,
        "content": arguments.content.name,
        "styles": [path.name for path in arguments.styles],
        "features": {
            "name": features.name,
            "sha256": features.sha256,
            "padding": features.padding,
            "scale": features.scale,
        },
        "preset": arguments.preset or "default",
        "size": job.config.size,
        "differs": {name: [text for text, _ in values] for name, values in plan.dimensions},
        "finished": all(row["finished"] for row in rows),
        "cells": rows,
    }


def _write(session: Session, path: Path, record: Mapping[str, Any]) -> None:
    from jaxstyle.evaluation.tables import write_file

    text = json.dumps(record, indent=2, ensure_ascii=False)
    with session.stop.writing:
        write_file(path, f"{text}\n".encode())


def _print_commands(cells: Sequence[Cell]) -> None:
    """Each command below a comment, so that a shell takes all of it."""
    for cell in cells:
        shown = ", ".join(f"{sheets.title(name)} {text}" for name, text in cell.differs.items())
        sys.stdout.write(f"# {cell.number}: {' '.join(shown.split())}\n{cell.command}\n")
