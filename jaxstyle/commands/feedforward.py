"""`jaxstyle stylize` with a model that was trained in some styles, which it has by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxstyle.commands import paths
from jaxstyle.commands.making import Session
from jaxstyle.commands.onepass import Look, Painter, describe, finish, load_model, look_of
from jaxstyle.config import did_you_mean
from jaxstyle.errors import UserError

if TYPE_CHECKING:
    from jaxstyle.models import Model

Shares = Mapping[str, float]
"""How much of each style, by name, with a sum of one."""


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
    return tasks, Painter(_Work(model, mixtures, look_of(arguments)), session)


def load(session: Session) -> Model:
    """Sets up JAX, and reads the model that `--model` names or the one that comes with jaxstyle.

    Raises:
        UserError: there is no such device or model, or it has no styles.
    """
    model = load_model(session, "styles")
    if not model.styles:
        raise UserError(
            f"{session.arguments.model} has no styles of its own, as it paints in that of any "
            "painting: give the file of one after the photo"
        )
    return model


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


class _Work:
    """Paints contents in mixtures of the model's styles."""

    def __init__(self, model: Model, mixtures: list[Shares], look: Look) -> None:
        self._model = model
        self._mixtures = mixtures  # a picture for each, side by side
        self._look = look

    @property
    def count(self) -> int:
        return len(self._mixtures)

    def prepare(self, task: paths.Task, size: tuple[int, int]) -> None:
        pass

    def tile(self, size: tuple[int, int], memory: int | None) -> int | None:
        from jaxstyle import methods

        side = methods.load(self._model.method).tile_side
        return side(self._model, size, tile=self._look.tile, memory=memory)

    def paint(self, task: paths.Task, content: np.ndarray, tile: int | None) -> list[np.ndarray]:
        look = self._look._replace(tile=tile)
        return [render(self._model, content, shares, look) for shares in self._mixtures]

    def describe(self, task: paths.Task) -> dict[str, Any]:
        mixtures = self._mixtures
        return {
            "method": self._model.method,
            "model": describe(self._model),
            "style_weights": mixtures if len(mixtures) > 1 else mixtures[0],
            **self._look._asdict(),
        }


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
    return finish(made, content, look.keep_colors)
