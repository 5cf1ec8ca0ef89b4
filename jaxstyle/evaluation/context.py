"""What every part of a report is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxstyle.errors import UserError
from jaxstyle.evaluation.painters import Painter
from jaxstyle.evaluation.pictures import Pair
from jaxstyle.evaluation.scores import Record, Studio


class StoppedError(Exception):
    """Whoever wanted the evaluation has asked to stop; what is done is kept."""


class Context(NamedTuple):
    """What every part is given.

    Attributes:
        studio: what is painted, and who judges.
        painters: by the names of their rows.
        note: takes a line for the user.
        warn: takes a line about what is left out.
        stopping: whether to stop.
    """

    studio: Studio
    painters: Mapping[str, Painter]
    note: Callable[[str], None]
    warn: Callable[[str], None]
    stopping: Callable[[], bool]

    @property
    def one_pass(self) -> list[str]:
        """The rows without updates, which paint as many pictures as are wanted."""
        return [name for name, painter in self.painters.items() if not painter.updates]

    @property
    def left_out(self) -> list[str]:
        """A note on the others, if there are any."""
        slow = [name for name, painter in self.painters.items() if painter.updates]
        return [f"Without {', '.join(slow)}: so many pictures take too long."] if slow else []

    def judged(
        self,
        name: str,
        part: str,
        photos: Mapping[str, np.ndarray],
        pairs: Sequence[Pair],
        score: Callable[[np.ndarray, Pair], Mapping[str, Any]],
        *,
        beside: Any = None,
    ) -> list[Record]:
        """`Studio.judged` of a method; nothing, and a warning, if its pictures cannot be had.

        Args:
            name: of the method.
            part: the name of this set of pictures.
            photos: as for `Studio.judged`, as are all that follow.
            pairs: of names.
            score: a picture to its figures.
            beside: what the figures depend on besides.
        """
        options: dict[str, Any] = {"done": self.done(name, part), "beside": beside}
        try:
            return self.studio.judged(
                name, self.painters[name], part, photos, pairs, score, **options
            )
        except UserError as error:
            self.warn(f"{part}: without {name}: {error}")
            return []

    def done(self, name: str, part: str) -> Callable[[int, int], None]:
        """Tells the user how far a method is, and raises `StoppedError` where that is asked for."""

        def tell(number: int, count: int) -> None:
            self.note(f"{part}, {name}: {number} of {count} pictures")
            if self.stopping():
                raise StoppedError

        return tell

    @property
    def statistics(self) -> dict[str, Any]:
        """Settings of the intervals."""
        config = self.studio.config
        return {"seed": config.seed, "resamples": config.resamples}
