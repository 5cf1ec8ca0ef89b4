"""The data of a table: columns, and cells in rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

NOTHING = "–"
"""What stands where there is no value."""

_INFINITE = {math.inf: "∞", -math.inf: "-∞"}
_ARROWS = {"high": " ↑", "low": " ↓", "": ""}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Column:
    """What a column shows.

    Attributes:
        key: the metric's name in records and cells.
        title: its heading.
        unit: of its values; empty for none.
        better: whether `high` or `low` values are better; empty where that is no question.
        digits: digits behind the point.
        difference: the intervals are those of a difference to a baseline, and have signs.
    """

    key: str
    title: str
    unit: str = ""
    better: Literal["", "high", "low"] = ""
    digits: int = 3
    difference: bool = False

    def __post_init__(self) -> None:
        if self.better not in _ARROWS or self.digits < 0:
            raise ValueError(
                'expected better to be "high", "low" or "" and digits of 0 or more, '
                f"got {self.better!r} and {self.digits}"
            )

    @property
    def heading(self) -> str:
        """The title with the unit, and an arrow in the better direction."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.title}{unit}{_ARROWS[self.better]}"


@dataclass(frozen=True)
class Cell:
    """A number or a text, the interval of the number, and a word about it.

    A number that is nan becomes None, as do ends that are not finite; an infinite number becomes
    the text ∞, as JSON has no number for it.
    """

    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    remark: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            part = getattr(self, name)
            part = part.item() if isinstance(part, np.generic) else part
            if isinstance(part, float) and not math.isfinite(part):
                part = _INFINITE.get(part) if name == "value" else None
            object.__setattr__(self, name, part)

    @property
    def number(self) -> float | None:
        """The value if it is a number."""
        return None if isinstance(self.value, str) else self.value

    def text(self, column: Column) -> tuple[str, str]:
        """The value and its interval as they are shown; empty where there is no interval."""
        if self.value is None:
            return NOTHING, ""
        if isinstance(self.value, str):
            return self.value, ""
        value = f"{self.value:z.{column.digits}f}"
        value += f" ({self.remark})" if self.remark else ""
        if self.low is None or self.high is None:
            return value, ""
        form = f"{'+' if column.difference else ''}z.{column.digits}f"
        return value, f"[{self.low:{form}}, {self.high:{form}}]"


@dataclass(frozen=True)
class Table:
    """Cells in rows and columns.

    Attributes:
        name: what its files are called: small letters, digits, - and _.
        title: its heading.
        columns: from left to right.
        rows: cells by the keys of columns, by the names of rows; a missing cell shows nothing.
        notes: what a reader must know, below the table.
        row_title: the heading above the names of rows.

    Raises:
        ValueError: the name has other characters, two columns share a key, or a cell has none.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    notes: tuple[str, ...] = ()
    row_title: str = "method"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: expected small letters, digits, - and _, got {self.name!r}")
        keys = [column.key for column in self.columns]
        if len(set(keys)) < len(keys):
            raise ValueError(f"columns: expected each key once, got {', '.join(keys)}")
        if unknown := {key for cells in self.rows.values() for key in cells} - set(keys):
            raise ValueError(f"rows: no columns have the keys {', '.join(sorted(unknown))}")

    def column(self, key: str) -> Column:
        """The column of a key.

        Raises:
            ValueError: there is none.
        """
        for column in self.columns:
            if column.key == key:
                return column
        raise ValueError(f"{self.name}: there is no column {key!r}")

    def cells(self, key: str) -> dict[str, Cell]:
        """The cells of a column by the names of rows, empty ones where they are missing."""
        return {row: cells.get(key, Cell()) for row, cells in self.rows.items()}

    def has_intervals(self, key: str) -> bool:
        """Whether any cell of a column has an interval."""
        return any(cell.low is not None for cell in self.cells(key).values())

    def has_words(self, key: str) -> bool:
        """Whether any cell of a column is a text: such columns are set from the left."""
        return any(
            cell.remark
            or (isinstance(cell.value, str) and any(letter.isalpha() for letter in cell.value))
            for cell in self.cells(key).values()
        )

    def has_remarks(self, key: str) -> bool:
        """Whether any cell of a column has a word about it."""
        return any(cell.remark for cell in self.cells(key).values())
