"""What the commands that make pictures share: the course of a run, and how a picture is written."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from jaxstyle import images
from jaxstyle.commands import paths
from jaxstyle.commands.interruption import Interruption, Wording
from jaxstyle.commands.progress import Progress, warnings_shown
from jaxstyle.errors import UserError


class Session(NamedTuple):
    """A run of a command.

    Attributes:
        arguments: as parsed by the command line.
        progress: what is said goes there.
        stop: knows whether the user wants no more.
        stack: what is to be put back when the run is over.
    """

    arguments: argparse.Namespace
    progress: Progress
    stop: Interruption
    stack: contextlib.ExitStack


class Painter(Protocol):
    """Whatever makes pictures."""

    def paint(self, task: paths.Task, *, label: str = "") -> bool:
        """Makes one picture; whether it is finished.

        Args:
            task: the files.
            label: how progress calls it, in a folder.

        Raises:
            UserError: The content cannot be read, or the picture cannot be made or written.
        """
        ...

    def stopped(self) -> bool:
        """Whether the user wants no more."""
        ...


def run_session(
    arguments: argparse.Namespace, work: Callable[[Session], int], *, wording: Wording
) -> int:
    """Does some work with progress shown, warnings as lines, and Ctrl-C heard.

    Args:
        arguments: as parsed by the command line.
        work: what to do; it returns the exit code.
        wording: what is said of an interruption.

    Returns:
        The exit code.

    Raises:
        UserError: Bad input.
    """
    progress = Progress(quiet=arguments.quiet)
    stop = Interruption(progress.note, progress.complain, wording=wording)
    with stop, warnings_shown(progress):
        try:
            with contextlib.ExitStack() as stack:
                return work(Session(arguments, progress, stop, stack))
        except KeyboardInterrupt:
            progress.end()
            progress.complain(stop.farewell)
            return stop.exit_code
        finally:
            progress.end()


def paint_all(tasks: list[paths.Task], painter: Painter, session: Session) -> int:
    """Makes the pictures of a folder; one that fails is reported, and the others are made.

    Returns:
        The exit code.
    """
    progress, stop = session.progress, session.stop
    failed, made = 0, 0
    for number, task in enumerate(tasks, 1):
        if task.done:
            continue
        try:
            task.output.parent.mkdir(parents=True, exist_ok=True)
            painter.paint(task, label=f"{task.name} ({number} of {len(tasks)})")
        except (UserError, OSError) as error:
            failed += 1
            progress.end()
            progress.complain(f"jaxstyle: error: {error}")
        else:
            made += 1
        if painter.stopped():
            return stop.exit_code
    skipped = sum(task.done for task in tasks)
    progress.note(f"{made} made, {skipped} skipped as they were there already, {failed} failed")
    return 1 if failed else 0


def note_tiles(
    progress: Progress, arguments: argparse.Namespace, size: tuple[int, int], side: int | None
) -> None:
    """Says how a large picture is computed, and of any other where `--tile` asked for tiles.

    Args:
        progress: what is said goes there.
        arguments: as parsed by the command line.
        size: height and width of the picture.
        side: of its tiles; None without.
    """
    if side is not None:
        progress.note(f"{size[1]} x {size[0]} pixels: in tiles of {side} pixels")
    elif arguments.tile not in (None, "off"):
        progress.note(f"{size[1]} x {size[0]} pixels: in one piece")


def write_picture(
    session: Session, path: Path, pixels: np.ndarray, alpha: np.ndarray | None, made_by: str
) -> None:
    """Writes a picture that says what made it.

    Args:
        session: the run.
        path: the file.
        pixels: float32 `[height, width, 3]` in [0, 1].
        alpha: of the content, of any size; None where all is opaque.
        made_by: JSON.
    """
    if alpha is not None:
        alpha = images.resize(alpha, pixels.shape[:2])
    metadata = {"jaxstyle": made_by}
    quality = session.arguments.quality
    with session.stop.writing:
        images.save(path, pixels, alpha=alpha, quality=quality, metadata=metadata)


@contextlib.contextmanager
def memory_named(advice: str) -> Iterator[None]:
    """Says what to do where memory runs out.

    Args:
        advice: what follows "not enough memory".
    """
    import jax

    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise UserError(f"not enough memory {advice}") from error
        raise
