"""Contact sheets of pictures that differ in a few settings: rows, columns, and a label below each.

Labels have as many lines as there are differences, and are never cut by a neighbour: columns are as
wide as their texts need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxstyle import images
from jaxstyle.config import StylizeConfig

FloatArray = NDArray[np.float32]

_MOST_COLUMNS = 6  # of a sheet along one dimension, before it is broken into rows
_DOTS = 72  # in an inch, so that a point is a pixel
_INK, _RULE = "#1c1c1c", 0.75
_UNMADE = 0.9  # the grey of a picture that there is not
NOT_MADE, LOST = "not made", "the loss is no number"
"""What stands below a picture that there is not."""


class Moot(NamedTuple):
    """Why the values of a setting change nothing.

    Attributes:
        where: whether that is so with some settings.
        reason: as the end of a sentence.
        setting: another one, with which they would.
        value: of that.
    """

    where: Callable[[StylizeConfig], bool]
    reason: str
    setting: str
    value: str


_FOR_ADAM = Moot(
    lambda config: config.optimizer == "lbfgs",
    "L-BFGS does not use it",
    *("optimizer", "adam"),
)
_BETWEEN_SCALES = Moot(
    lambda config: config.scales == 1,
    "there is one scale only",
    *("scales", "2"),
)
_MOOT = {
    "seed": Moot(
        lambda config: config.init == "content",
        "all pictures start from the content, where nothing is random",
        *("init", "noise"),
    ),
    "learning_rate": Moot(
        lambda config: config.optimizer == "lbfgs",
        "L-BFGS searches for its own",
        *("optimizer", "adam"),
    ),
    "adam_b1": _FOR_ADAM,
    "adam_b2": _FOR_ADAM,
    "history": Moot(
        lambda config: config.optimizer == "adam",
        "Adam does not use it",
        *("optimizer", "lbfgs"),
    ),
    "steps_factor": _BETWEEN_SCALES,
    "scale_factor": _BETWEEN_SCALES,
    "content_loss": Moot(
        lambda config: config.content_weight == 0,
        "the content loss has no weight",
        *("content_weight", "1"),
    ),
    "style_loss": Moot(
        lambda config: config.style_weight == 0,
        "the style loss has no weight",
        *("style_weight", "1"),
    ),
    "tv_loss": Moot(
        lambda config: config.tv_weight == 0,
        "the total variation has no weight",
        *("tv_weight", "1"),
    ),
}


def moot(
    names: Sequence[str], configs: Sequence[StylizeConfig], *, has_start: bool = False
) -> tuple[str, Moot] | None:
    """A setting whose values would change no picture of a sheet, and why; None if there is none.

    Args:
        names: of the settings that vary.
        configs: all settings of each picture.
        has_start: all pictures start from one that was given.
    """
    for name in names:
        found = _MOOT.get(name)
        if name == "seed" and found is not None and has_start:
            found = found._replace(
                where=lambda _: True,
                reason="all pictures start from a picture, where nothing is random",
            )
        if found is not None and all(map(found.where, configs)):
            return name, found
    return None


def check_differences(
    names: Sequence[str], configs: Sequence[StylizeConfig], *, has_start: bool = False
) -> None:
    """Refuses values that would change nothing; the arguments are those of `moot`.

    Raises:
        ValueError: there is such a setting; the message says why, and what would help.
    """
    found = moot(names, configs, has_start=has_start)
    if found is not None:
        name, why = found
        raise ValueError(
            f"vary: {name} has several values, but {why.reason}: leave it out, or set "
            f"{why.setting} to {why.value}"
        )


class Labelled(NamedTuple):
    """A picture of a sheet.

    Attributes:
        pixels: floating point `[height, width, 3]` in [0, 1].
        lines: the text below it.
    """

    pixels: ArrayLike
    lines: Sequence[str]


def column_count(lengths: Sequence[int]) -> int:
    """How many columns a sheet has: the last dimension goes along them, the others along rows.

    A single long dimension is broken into rows of about the same length.

    Args:
        lengths: how many values each dimension has.

    Raises:
        ValueError: no dimension, or one without values.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError(f"expected dimensions of at least 1 value; got {list(lengths)}")
    if len(lengths) > 1:
        return lengths[-1]
    rows = -(-lengths[0] // _MOST_COLUMNS)
    return -(-lengths[0] // rows)


def label(number: int, differs: Mapping[str, object]) -> list[str]:
    """The lines below a picture.

    Args:
        number: which picture it is.
        differs: values by the names of settings; that of `style` speaks for itself.
    """
    found = [
        str(value) if name == "style" else f"{title(name)} {value}"
        for name, value in differs.items()
    ]
    return [f"#{number}  {found[0]}", *found[1:]]


def title(name: str) -> str:
    """How people are told of a setting: as its option, without the dashes in front."""
    return name.replace("_", "-")


def fitted(pixels: ArrayLike, size: tuple[int, int]) -> FloatArray:
    """A picture as large as it can be within a height and a width.

    Args:
        pixels: floating point `[h, w, 3]` in [0, 1].
        size: that height and width.
    """
    return images.resize(pixels, fitted_size(np.shape(pixels)[:2], size))


def fitted_size(own: Sequence[int], size: tuple[int, int]) -> tuple[int, int]:
    """The height and width that `fitted` gives a picture of its own height and width."""
    height, width = own
    share = min(size[0] / height, size[1] / width)
    return max(1, round(share * height)), max(1, round(share * width))


def blank(size: tuple[int, int], lines: Sequence[str], why: str) -> Labelled:
    """A grey in the place of a picture that there is not.

    Args:
        size: its height and width.
        lines: of its label.
        why: one more of them: NOT_MADE or LOST.
    """
    grey = np.broadcast_to(np.float32(_UNMADE), (*size, 3))
    return Labelled(grey, [*lines, why])


def sheet_size(
    head: Sequence[Labelled], cells: Sequence[Labelled], *, columns: int
) -> tuple[int, int]:
    """The height and width of the sheet that `draw` makes; of the pictures only the shapes matter.

    Args:
        head: as for `draw`.
        cells: as for `draw`.
        columns: as for `draw`.

    Raises:
        ValueError: no cells, or less than one column.
    """
    return _lay_out(head, cells, columns).size


def draw(head: Sequence[Labelled], cells: Sequence[Labelled], *, columns: int) -> FloatArray:
    """Draws a sheet: the head, a rule, and the cells, all in one grid.

    Args:
        head: what the cells were made of; it may take several rows.
        cells: row by row.
        columns: of both.

    Returns:
        float32 `[height, width, 3]` in [0, 1], on white.

    Raises:
        ValueError: no cells, less than one column, or a picture of another shape or not finite.
    """
    head, cells = (
        [Labelled(_checked(pixels), lines) for pixels, lines in part] for part in (head, cells)
    )
    found = _lay_out(head, cells, columns)
    gap, width = found.gap, found.width
    sheet = np.ones((*found.size, 3), np.float32)
    above, top = -(-len(head) // columns), gap
    for number, (row, height) in enumerate(zip(found.rows, found.heights, strict=True)):
        if head and number == above:
            sheet[top + gap // 2 : top + gap // 2 + max(1, gap // 12), gap:-gap] = _RULE
            top += 2 * gap
        tallest = max(np.shape(pixels)[0] for pixels, _ in row)
        for column, (pixels, lines) in enumerate(row):
            left = gap + column * (width + gap)
            _place(sheet, np.asarray(pixels), top, left, width, tallest)
            for index, line in enumerate(lines):
                middle = top + tallest + round((index + 0.75) * _spacing(gap))
                found.letters.write(line, left + width // 2, middle)
        top += height + gap
    return sheet * found.letters.drawn(*found.size)


class _Layout(NamedTuple):
    """Where things are on a sheet, in pixels.

    Attributes:
        size: height and width of the sheet.
        rows: pictures, with lines that fit below them; those of the head come first.
        heights: of the rows.
        width: of a column.
        gap: between rows, and between columns; and the height of the letters.
        letters: to write with.
    """

    size: tuple[int, int]
    rows: list[Sequence[Labelled]]
    heights: list[int]
    width: int
    gap: int
    letters: _Letters


def _lay_out(head: Sequence[Labelled], cells: Sequence[Labelled], columns: int) -> _Layout:
    if not cells or columns < 1:
        raise ValueError(f"expected cells and columns; got {len(cells)} and {columns}")
    widest = max(np.shape(pixels)[1] for pixels, _ in (*head, *cells))
    gap = min(max(widest // 20, 12), 36)
    letters = _Letters(gap)
    limit = max(2 * widest, 16 * gap)
    everything = [
        Labelled(pixels, [letters.shortened(line, limit) for line in lines])
        for pixels, lines in (*head, *cells)
    ]
    texts = [letters.width(line) for _, lines in everything for line in lines]
    width = max(widest, *texts) if texts else widest
    rows = [*_rows(everything[: len(head)], columns), *_rows(everything[len(head) :], columns)]
    heights = [_row_height(row, gap) for row in rows]
    rule = 2 * gap if head else 0
    size = gap + sum(heights) + gap * len(rows) + rule, gap + columns * (width + gap)
    return _Layout(size, rows, heights, width, gap, letters)


def _rows(pictures: Sequence[Labelled], columns: int) -> list[Sequence[Labelled]]:
    return [pictures[i : i + columns] for i in range(0, len(pictures), columns)]


def _spacing(size: int) -> int:
    """From one line of text to the next."""
    return round(1.4 * size)


def _row_height(row: Sequence[Labelled], size: int) -> int:
    lines = max(len(lines) for _, lines in row)
    return max(np.shape(pixels)[0] for pixels, _ in row) + lines * _spacing(size) + size // 2


def _place(
    sheet: FloatArray, pixels: FloatArray, top: int, left: int, width: int, tallest: int
) -> None:
    """Puts a picture above its label, in the middle of its column."""
    upper = top + tallest - pixels.shape[0]
    side = left + (width - pixels.shape[1]) // 2
    sheet[upper : upper + pixels.shape[0], side : side + pixels.shape[1]] = pixels


def _checked(pixels: ArrayLike) -> FloatArray:
    found = np.asarray(pixels, np.float32)
    if found.ndim != 3 or found.shape[2] != 3 or not np.isfinite(found).all():
        raise ValueError(f"expected finite pictures [height, width, 3]; got {found.shape}")
    return np.clip(found, 0, 1)


class _Letters:
    """Lines of text, which are measured first and drawn together.

    Args:
        size: of the letters, in pixels.
    """

    def __init__(self, size: int) -> None:
        from matplotlib.backends.backend_agg import RendererAgg
        from matplotlib.font_manager import FontProperties

        self._size = size
        self._font = FontProperties(family="DejaVu Sans", size=size)
        self._ruler = RendererAgg(1, 1, _DOTS)
        self._lines: list[tuple[str, int, int]] = []

    def width(self, line: str) -> int:
        """Pixels that a line takes, with a little room at its sides."""
        found = self._ruler.get_text_width_height_descent(line, self._font, ismath=False)
        return int(np.ceil(found[0])) + self._size // 3

    def shortened(self, line: str, limit: int) -> str:
        """The line, without its middle where it is wider than that."""
        line = "".join(letter if letter.isprintable() else "?" for letter in line)
        kept = len(line)
        shown = line
        while kept > 4 and self.width(shown) > limit:
            kept -= 1
            shown = f"{line[: -(-kept // 2)]}…{line[len(line) - kept // 2 :]}"
        return shown

    def write(self, line: str, across: int, down: int) -> None:
        """Notes a line to draw around a point."""
        self._lines.append((line, across, down))

    def drawn(self, height: int, width: int) -> FloatArray:
        """The lines, dark on white, `[height, width, 3]`."""
        # The object interface leaves the caller's own figures and backend alone.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.transforms import IdentityTransform

        # Half a pixel more, as what is cut off a size by rounding would be a row.
        size = ((width + 0.5) / _DOTS, (height + 0.5) / _DOTS)
        figure = Figure(figsize=size, dpi=_DOTS, facecolor="white")
        canvas: Any = FigureCanvasAgg(figure)
        for line, across, down in self._lines:
            figure.text(
                across,
                height - down,
                line,
                transform=IdentityTransform(),
                fontproperties=self._font,
                color=_INK,
                horizontalalignment="center",
                verticalalignment="center_baseline",
                parse_math=False,
            )
        canvas.draw()
        return np.divide(np.asarray(canvas.buffer_rgba())[..., :3], 255, dtype=np.float32)
