"""What the trained ways of `jaxstyle stylize` share: pictures come out of a network in one go."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from jaxstyle import images, runtime
from jaxstyle.commands import paths
from jaxstyle.commands.interruption import Wording
from jaxstyle.commands.making import Session, memory_named, note_tiles, write_picture
from jaxstyle.commands.options import tile_of
from jaxstyle.commands.progress import duration
from jaxstyle.errors import UserError

if TYPE_CHECKING:
    import argparse

    from jaxstyle.models import Model

WORDING = Wording(nothing="interrupted; the picture at work was not written")


class Look(NamedTuple):
    """How a picture is painted, whatever its styles.

    Attributes:
        strength: 0 for the content itself, 1 for the painted picture, between them for a blend.
        keep_colors: "luminance", "match" or None, as `StylizeConfig` has it.
        tile: as the methods take it.
    """

    strength: float = 1.0
    keep_colors: str | None = None
    tile: int | str | None = "auto"


def look_of(arguments: argparse.Namespace) -> Look:
    """What the options say of it."""
    strength = 1.0 if arguments.strength is None else arguments.strength
    return Look(strength, getattr(arguments, "keep_colors", None), tile_of(arguments))


def load_model(session: Session, shipped: str) -> Model:
    """Sets up JAX, and reads the model that `--model` names or one that comes with jaxstyle.

    Args:
        session: the run.
        shipped: which one that is, as `models.shipped` takes it.

    Raises:
        UserError: there is no such device or model.
    """
    arguments = session.arguments
    runtime.prepare(device=arguments.device, warn=session.progress.note)
    import jax

    from jaxstyle import models

    session.stack.enter_context(jax.default_device(runtime.find_device(arguments.device)))
    return models.shipped(shipped) if arguments.model is None else models.load(arguments.model)


class Work(Protocol):
    """What is painted for each content."""

    @property
    def count(self) -> int:
        """How many pictures stand side by side."""
        ...

    def prepare(self, task: paths.Task, size: tuple[int, int]) -> None:
        """Checks and reads what else belongs to a task, before anything is computed for it.

        Args:
            task: the files.
            size: height and width of the content, before it is resized.

        Raises:
            UserError: that cannot be read, or does not fit.
        """
        ...

    def tile(self, size: tuple[int, int], memory: int | None) -> int | None:
        """The side of the tiles that a picture is computed in, None if whole.

        Args:
            size: its height and width.
            memory: bytes that it may take; by default half of what is available.
        """
        ...

    def paint(
        self, task: paths.Task, content: np.ndarray, tile: int | None
    ) -> Sequence[np.ndarray]:
        """Paints the pictures.

        Args:
            task: the files.
            content: float32 `[height, width, 3]`, sRGB in [0, 1], at the size of the pictures.
            tile: the side of the tiles to compute them in, None for the whole.

        Raises:
            UserError: the model gives numbers that are not finite.
        """
        ...

    def describe(self, task: paths.Task) -> dict[str, Any]:
        """What made the picture, for its metadata, without dates."""
        ...


class Painter:
    """Makes pictures with a trained model."""

    def __init__(self, work: Work, session: Session) -> None:
        self._work = work
        self._session = session
        self._sizes: set[tuple[int, int]] = set()  # for which there is a program
        self._last: tuple[Path, images.Picture] | None = None

    def stopped(self) -> bool:
        """Whether the user wants no more."""
        return self._session.stop.number != 0

    def paint(self, task: paths.Task, *, label: str = "") -> bool:
        """Makes one picture, or one strip of them.

        Args:
            task: the files.
            label: how progress calls it.

        Returns:
            That it is finished.

        Raises:
            UserError: A file cannot be read, the picture cannot be written, or memory runs out.
        """
        begun = time.monotonic()
        session, work = self._session, self._work
        content = self._content(task.content)
        original = content.pixels.shape[0], content.pixels.shape[1]
        height, width = original
        if hasattr(session.arguments, "size"):
            height, width = images.fitted_size(height, width, session.arguments.size)
        images.check_output_path(task.output, size=(height, work.count * width))
        work.prepare(task, original)
        tile = work.tile((height, width), session.arguments.memory)
        if tile is not None and tile >= max(height, width):
            tile = None  # one tile would be the whole, in more sweeps
        if (height, width) not in self._sizes:
            session.progress.begin(label, [(height * width, 1)])
            note_tiles(session.progress, session.arguments, (height, width), tile)
        with memory_named(f"for {width} x {height} pixels: try --size, or --tile with less"):
            made = work.paint(task, images.resize(content.pixels, (height, width)), tile)
            made = np.concatenate(made, axis=1)
            alpha = content.alpha
            if alpha is not None:
                alpha = np.tile(images.resize(alpha, (height, width)), (1, work.count))
        self._sizes.add((height, width))
        session.progress.end()
        write_picture(session, task.output, made, alpha, self._made_by(task))
        seconds = spent(time.monotonic() - begun)
        session.progress.note(f"{task.output}: {made.shape[1]} x {height} pixels, {seconds}")
        return True

    def _content(self, path: Path) -> images.Picture:
        """A picture, which is read once for all its tasks: they follow each other."""
        if self._last is None or self._last[0] != path:
            self._last = None  # or there would be two of them in memory
            self._last = path, images.load(path, max_pixels=self._session.arguments.max_pixels)
        return self._last[1]

    def _made_by(self, task: paths.Task) -> str:
        """What made the picture, as JSON without dates: the same run makes the same file."""
        from jaxstyle import __version__

        record = {
            "version": __version__,
            "content": task.content.name,
            **self._work.describe(task),
            "size": getattr(self._session.arguments, "size", None),
            "finished": True,
        }
        return json.dumps(record)


def finish(made: np.ndarray, content: np.ndarray, keep_colors: str | None) -> np.ndarray:
    """A painted picture with the colours that it is to have.

    Args:
        made: float32 `[height, width, 3]` in [0, 1].
        content: the same.
        keep_colors: as `Look` has it.

    Raises:
        UserError: numbers are not finite.
    """
    if keep_colors is not None:
        made = recolor(made, content, keep_colors)
    if not np.isfinite(made).all():
        raise UserError("the model gives numbers that are not finite: it was not trained well")
    return made


def recolor(picture: np.ndarray, content: np.ndarray, keep_colors: str) -> np.ndarray:
    """A picture with the colours of a content, "luminance" or "match" (arXiv 1606.05897).

    Args:
        picture: float32 `[height, width, 3]` in [0, 1].
        content: the same; with "match" of any size.
        keep_colors: either of them.
    """
    return np.asarray(_recolorer(keep_colors)(picture[None], content[None])[0])


@functools.cache
def _recolorer(keep_colors: str) -> Any:
    import jax

    from jaxstyle import color

    if keep_colors == "match":
        return jax.jit(color.match_moments)

    def transfer(picture: jax.Array, content: jax.Array) -> jax.Array:
        # The optimisation matches the painting's luminance beforehand; here it is the picture's.
        return color.transfer_luminance(color.match_luminance(picture, content), content)

    return jax.jit(transfer)


def spent(seconds: float) -> str:
    """Seconds as people say them, with a tenth where there are few."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def describe(model: Model) -> dict[str, Any]:
    """Which model it is, for the metadata of what is made with it."""
    if model.step is not None:
        return {"name": model.name, "step": model.step}
    return {"name": model.name, "sha256": model.sha256}
