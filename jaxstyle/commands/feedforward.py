"""`jaxstyle stylize` with a trained model: each picture comes out of its network in one go."""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxstyle import images, runtime
from jaxstyle.commands import paths
from jaxstyle.commands.interruption import Wording
from jaxstyle.commands.making import Session, memory_named, write_picture
from jaxstyle.commands.progress import duration
from jaxstyle.config import did_you_mean
from jaxstyle.errors import UserError

if TYPE_CHECKING:
    from jaxstyle.models import Model

WORDING = Wording(nothing="interrupted; the picture at work was not written")

Shares = Mapping[str, float]
"""How much of each style, by name, with a sum of one."""


class _Job(NamedTuple):
    """What all pictures of a run share."""

    model: Model
    mixtures: list[Shares]  # a picture for each, side by side
    look: Look


class Look(NamedTuple):
    """How a picture is painted, whatever its styles.

    Attributes:
        strength: 0 for the content, 1 for the painted picture, between them for a blend.
        keep_colors: "luminance", "match" or None, as `StylizeConfig` has it.
        tile: as the methods take it.
    """

    strength: float = 1.0
    keep_colors: str | None = None
    tile: int | str | None = "auto"


def start(session: Session) -> tuple[list[paths.Task], Painter]:
    """Checks and reads all that the pictures share.

    Returns:
        The pictures to make, and what makes them.

    Raises:
        UserError: Bad input.
    """
    arguments = session.arguments
    tasks = paths.plan(arguments.content, arguments.output, [], overwrite=arguments.overwrite)
    model = load(session)
    mixtures = choose(
        model, style=arguments.style, shares=arguments.style_weights, strip=arguments.interpolate
    )
    strength = 1.0 if arguments.strength is None else arguments.strength
    tile = {None: "auto", "off": None}.get(arguments.tile, arguments.tile)
    look = Look(strength, getattr(arguments, "keep_colors", None), tile)
    return tasks, Painter(_Job(model, mixtures, look), session)


def load(session: Session) -> Model:
    """Sets up JAX, and reads the model that `--model` names or the one that comes with jaxstyle.

    Raises:
        UserError: there is no such device or model.
    """
    arguments = session.arguments
    runtime.prepare(device=arguments.device, warn=session.progress.note)
    import jax

    from jaxstyle import models

    session.stack.enter_context(jax.default_device(runtime.find_device(arguments.device)))
    return models.shipped() if arguments.model is None else models.load(arguments.model)


# Which styles


def choose(
    model: Model, *, style: str | None, shares: Shares | None, strip: int | None
) -> list[Shares]:
    """The mixtures of styles to paint, a picture for each.

    Args:
        model: has the styles.
        style: the name of one, or of two with a comma if there is to be a strip.
        shares: what `--style-weights` said, with any sum above zero.
        strip: how many pictures lead from the first of two styles to the second.

    Raises:
        UserError: there are no such styles, or it is not clear which are meant.
    """
    if strip is not None:
        first, second = _two_styles(model, style)
        steps = [index / (strip - 1) for index in range(strip)]
        return [{first: 1 - share, second: share} for share in steps]
    if shares is not None:
        for name in shares:
            _check_known(model, name)
        total = math.fsum(shares.values())
        return [{name: share / total for name, share in shares.items()}]
    if style is None and len(model.styles) > 1:
        raise UserError(
            f"the model has {len(model.styles)} styles: choose one with --style, or mix them with "
            f"--style-weights ({', '.join(model.styles)})"
        )
    name = next(iter(model.styles)) if style is None else style
    if "," in name and name not in model.styles:
        raise UserError(
            f"--style {name} names several: mix them with --style-weights, as in wave=0.7,"
            "mosaic=0.3, or add --interpolate N for a strip from the first of two to the second"
        )
    _check_known(model, name)
    return [{name: 1.0}]


def _two_styles(model: Model, style: str | None) -> tuple[str, str]:
    first, comma, second = (style or "").partition(",")
    if not comma or "," in second or first == second:
        raise UserError("--interpolate leads from one style to another: add --style FIRST,SECOND")
    for name in (first, second):
        _check_known(model, name)
    return first, second


def _check_known(model: Model, name: str) -> None:
    if name in model.styles:
        return
    known = ", ".join(model.styles)
    if Path(name).is_file():
        raise UserError(
            f"{name} is a file, but a trained model has its styles in it ({known}): give the file "
            "without --style to optimise pixels instead"
        )
    raise UserError(f"there is no style {name!r}{did_you_mean(name, model.styles)} ({known})")


# The pictures


class Painter:
    """Makes pictures with a trained model."""

    def __init__(self, job: _Job, session: Session) -> None:
        self._job = job
        self._session = session
        self._sizes: set[tuple[int, int]] = set()  # for which there is a program

    def paint(self, task: paths.Task, *, label: str = "") -> bool:
        """Makes one picture, or one strip of them.

        Args:
            task: the files.
            label: how progress calls it.

        Returns:
            That it is finished.

        Raises:
            UserError: The content cannot be read, the picture cannot be written, or memory runs
                out.
        """
        begun = time.monotonic()
        session, job = self._session, self._job
        arguments = session.arguments
        content = images.load(task.content, max_pixels=arguments.max_pixels)
        height, width = content.pixels.shape[:2]
        if hasattr(arguments, "size"):
            height, width = images.fitted_size(height, width, arguments.size)
        count = len(job.mixtures)
        images.check_output_path(task.output, size=(height, count * width))
        if (height, width) not in self._sizes:
            session.progress.begin(label, [(height * width, 1)])
        with memory_named(f"for {width} x {height} pixels: try --size, or --tile with less"):
            pixels = images.resize(content.pixels, (height, width))
            made = [render(job.model, pixels, shares, job.look) for shares in job.mixtures]
            made = np.concatenate(made, axis=1)
            alpha = content.alpha
            if alpha is not None:
                alpha = np.tile(images.resize(alpha, (height, width)), (1, count))
        self._sizes.add((height, width))
        session.progress.end()
        write_picture(session, task.output, made, alpha, _made_by(job, arguments, task.content))
        seconds = spent(time.monotonic() - begun)
        session.progress.note(f"{task.output}: {made.shape[1]} x {height} pixels, {seconds}")
        return True


def render(model: Model, content: np.ndarray, shares: Shares, look: Look) -> np.ndarray:
    """Paints one picture.

    Args:
        model: the network.
        content: float32 `[height, width, 3]`, sRGB in [0, 1].
        shares: of the model's styles.
        look: how to paint.

    Returns:
        float32 `[height, width, 3]` in [0, 1].

    Raises:
        UserError: the model gives numbers that are not finite.
    """
    from jaxstyle import methods

    style_weights = [shares.get(name, 0.0) for name in model.styles]
    paint = methods.load(model.method).paint
    made = paint(
        model, content, style_weights=style_weights, strength=look.strength, tile=look.tile
    )
    if look.keep_colors is not None:
        made = np.asarray(_recolorer(look.keep_colors)(made[None], content[None])[0])
    if not np.isfinite(made).all():
        raise UserError("the model gives numbers that are not finite: it was not trained well")
    return made


@functools.cache
def _recolorer(keep_colors: str) -> Any:
    """A function that gives pictures the colours of their contents.

    As in the optimisation (Gatys et al. 2016, arXiv 1606.05897), but of what was painted: the
    paintings are in the network, and cannot be recoloured before.
    """
    import jax

    from jaxstyle import color

    if keep_colors == "match":
        return jax.jit(color.match_moments)

    def recolor(made: jax.Array, content: jax.Array) -> jax.Array:
        return color.transfer_luminance(color.match_luminance(made, content), content)

    return jax.jit(recolor)


def spent(seconds: float) -> str:
    """Seconds as people say them, with a tenth where there are few."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def describe(model: Model) -> dict[str, Any]:
    """Which model it is, for the metadata of what is made with it."""
    if model.step is not None:
        return {"name": model.name, "step": model.step}
    return {"name": model.name, "sha256": model.sha256}


def _made_by(job: _Job, arguments: argparse.Namespace, content: Path) -> str:
    """What made the picture, as JSON without dates: the same run makes the same file."""
    from jaxstyle import __version__

    record = {
        "version": __version__,
        "content": content.name,
        "method": job.model.method,
        "model": describe(job.model),
        "style_weights": job.mixtures if len(job.mixtures) > 1 else job.mixtures[0],
        "size": getattr(arguments, "size", None),
        **job.look._asdict(),
        "finished": True,
    }
    return json.dumps(record)
