"""What is written while a picture is optimised: its trace, its preview, its state.

None of them is worth the picture: where one cannot be written, that is said, and the optimisation
goes on. In a run of several processes the others could not know of it, and would wait for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxstyle import images
from jaxstyle.errors import UserError, reason_of

if TYPE_CHECKING:
    from jaxstyle.commands.making import Session
    from jaxstyle.commands.resumption import Resumption
    from jaxstyle.methods.gatys import Iterate
    from jaxstyle.trace import Trace

_PREVIEW_SECONDS = 2.0


class Beside:
    """Writes what goes with pictures.

    Args:
        session: the run.
        trace: of all pictures; None for none.
        preview: the file of the picture so far; None for none.
    """

    def __init__(self, session: Session, trace: Trace | None, preview: Path | None) -> None:
        self._session = session
        self._trace = trace
        self._preview = preview
        self._due = 0.0
        self._said: set[str] = set()

    def go_on(self, resume: Iterate, picture: str | None) -> None:
        """Keeps of the trace what comes before the place where a run goes on.

        Args:
            resume: that place.
            picture: its name, in a folder.
        """
        if self._trace is None:
            return
        reached = resume.scale, resume.step

        def belongs(row: Mapping[str, Any]) -> bool:
            return row.get("picture") != picture or (row["scale"], row["step"]) <= reached

        with self._spared("the trace"):
            self._trace.go_on(belongs)

    def trace(self, row: Mapping[str, Any]) -> None:
        """Writes a row of the trace."""
        if self._trace is not None:
            with self._spared("the trace"):
                self._trace.write(row)

    def show(self, iterate: Iterate) -> None:
        """Writes the preview, now and then and at the end of each scale."""
        now = time.monotonic()
        if self._preview is None or (now < self._due and iterate.step < iterate.steps):
            return
        pixels = np.asarray(iterate.image)
        if np.isfinite(pixels).all():
            with self._spared("the preview"), self._session.stop.writing:
                images.save(self._preview, pixels, quality=self._session.arguments.quality)
        # A large picture takes long to encode: that must not take over the run.
        self._due = time.monotonic() + max(_PREVIEW_SECONDS, 10 * (time.monotonic() - now))

    def keep(self, resumption: Resumption, iterate: Iterate) -> None:
        """Keeps the state."""
        with self._spared("the state"), self._session.stop.writing:
            resumption.keep(iterate)

    @contextlib.contextmanager
    def _spared(self, what: str) -> Iterator[None]:
        """Says once what cannot be written, and why."""
        try:
            yield
        except (UserError, OSError, ValueError) as error:
            problem = f"jaxstyle: warning: {what} cannot be written: {reason_of(error)}"
            if problem not in self._said:
                self._session.progress.complain(problem)
            self._said.add(problem)
