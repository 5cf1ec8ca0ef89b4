"""Contact sheets as a function: what `jaxstyle sheet` makes, for programs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxstyle import images, sheets
from jaxstyle.config import StylizeConfig, preset, replace
from jaxstyle.methods.gatys_batch import Variant, optimise_together
from jaxstyle.methods.gatys_scales import check_picture
from jaxstyle.weights import Weights

_SIZE = 256


class Sheet(NamedTuple):
    """Pictures of several settings.

    Attributes:
        image: float32 `[height, width, 3]` in [0, 1], the sheet: the photograph and the paintings,
            and below a rule the pictures with their labels; grey where the loss became no number.
        pictures: float32 `[n, height, width, 3]` in [0, 1]; NaN there.
        settings: of each picture: `style`, the painting's name, and what else differs.
        configs: all settings of each.
    """

    image: np.ndarray
    pictures: np.ndarray
    settings: list[dict[str, Any]]
    configs: list[StylizeConfig]


def contact_sheet(
    content: Any,
    styles: Mapping[str, Any],
    *,
    features: Weights,
    vary: Mapping[str, Sequence[Any]],
    config: StylizeConfig | None = None,
    group: int | None = None,
    memory: int | None = None,
    **overrides: Any,
) -> Sheet:
    """Stylises a photograph with every combination of some settings, and shows them side by side.

    Pictures that one program serves are optimised together (`gatys_batch`).

    Args:
        content: the photograph, `[height, width, 3]` in [0, 1], of any size.
        styles: paintings `[h, w, 3]` in [0, 1] by what they are called; each is tried by itself.
        features: the perceptual network, as `jaxstyle.weights.load` gives it.
        vary: values by the names of fields of `StylizeConfig`, but not of `size`. The last one
            goes along the columns, the others along the rows; several paintings come before them.
        config: the other settings; the default preset's for these features, at 256 pixels, if none
            are given.
        group: how many pictures to optimise together at most; as many as memory allows if None.
        memory: bytes for them; by default half of what is available.
        **overrides: fields of `StylizeConfig` that replace those of `config`.

    Returns:
        The sheet, and what is on it.

    Raises:
        ValueError: nothing or the size varies, or a setting whose values change nothing; an
            unknown setting or value, or pictures of another shape.
    """
    if config is None:
        config = preset("default", scale=features.scale, heads=features.heads)
        overrides = {"size": _SIZE} | overrides
    config = replace(config, **overrides)
    if "size" in vary:
        raise ValueError("vary: pictures of one sheet have one size; give it as size=")
    paintings = {name: check_picture(f"style {name}", style) for name, style in styles.items()}
    shown = ["style"] * (len(paintings) > 1) + list(vary)
    dimensions = {"style": list(paintings)} | {name: list(values) for name, values in vary.items()}
    settings = [
        dict(zip(dimensions, values, strict=True))
        for values in itertools.product(*dimensions.values())
    ]
    if not shown or not settings:
        raise ValueError("vary: expected several values of a setting, or several styles")
    configs = [replace(config, **{name: each[name] for name in vary}) for each in settings]
    sheets.check_differences(list(vary), configs)
    variants = [
        Variant(paintings[each["style"]], own) for each, own in zip(settings, configs, strict=True)
    ]
    content = check_picture("content", content)
    given: dict[str, Any] = {"features": features, "group": group, "memory": memory}
    pictures = optimise_together(content, variants, **given)
    cells = [
        _cell(picture, sheets.label(number, {name: each[name] for name in shown}))
        for number, (picture, each) in enumerate(zip(pictures, settings, strict=True), 1)
    ]
    columns = sheets.column_count([len(dimensions[name]) for name in shown])
    head = _head(content, paintings, pictures.shape[1:3])
    return Sheet(sheets.draw(head, cells, columns=columns), pictures, settings, configs)


def _cell(picture: np.ndarray, lines: list[str]) -> sheets.Labelled:
    """A picture of the sheet; one whose loss became no number is grey, and says so."""
    if np.isfinite(picture).all():
        return sheets.Labelled(picture, lines)
    return sheets.blank(picture.shape[:2], lines, sheets.LOST)


def _head(
    content: np.ndarray, paintings: Mapping[str, np.ndarray], size: tuple[int, int]
) -> list[sheets.Labelled]:
    """The photograph and the paintings, none larger than a picture of the sheet."""
    found = [sheets.Labelled(images.resize(content, size), ["photograph"])]
    for name, painting in paintings.items():
        found.append(sheets.Labelled(sheets.fitted(painting, size), [name]))
    return found
