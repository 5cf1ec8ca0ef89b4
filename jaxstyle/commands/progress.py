"""What a run says of itself on standard error: a bar on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TextIO

from tqdm import tqdm

LINE_SECONDS = 10.0  # between two lines where there is no terminal
_SMOOTHING = 0.2


class Moment(NamedTuple):
    """Where a run is.

    Attributes:
        scale: number of this scale, from 1.
        scales: how many there are.
        step: number of this step in its scale, from 1.
        steps: how many this scale has.
    """

    scale: int
    scales: int
    step: int
    steps: int


class TimeLeft:
    """Estimates the time left from the pace so far; a step costs as much as it has pixels.

    The first step of a scale counts apart, because it waits for the compiler.

    Args:
        work: pixels and steps of each scale.
        clock: gives the time in seconds.

    Attributes:
        fraction: of the work that is done.
    """

    def __init__(
        self, work: Sequence[tuple[int, int]], *, clock: Callable[[], float] = time.monotonic
    ):
        self.fraction = 0.0
        self._work = work
        self._clock = clock
        self._last = clock()
        self._pace: float | None = None  # seconds a pixel and step
        self._starts: list[float] = []  # seconds that each scale took for its first step

    def update(self, now: Moment) -> float | None:
        """Takes note of a step that is done; returns seconds left, None while unknown."""
        here, _ = self._work[now.scale - 1]
        done = sum(pixels * steps for pixels, steps in self._work[: now.scale - 1])
        done += now.step * here
        to_do = sum(pixels * steps for pixels, steps in self._work) - done
        self.fraction = done / (done + to_do)
        time_now = self._clock()
        seconds, self._last = time_now - self._last, time_now
        if now.step == 1:
            self._starts.append(seconds)
        else:
            pace = seconds / here
            old = pace if self._pace is None else self._pace
            self._pace = old + _SMOOTHING * (pace - old)
        if self._pace is None:
            return None
        start = sum(self._starts) / len(self._starts) if self._starts else 0.0
        return self._pace * to_do + start * (now.scales - now.scale)


class Progress:
    """Shows how far a run is.

    Args:
        quiet: say nothing.
        stream: where to; standard error by default.
        clock: gives the time in seconds.

    Attributes:
        quiet: say nothing; it may change.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self._clock = clock
        self._terminal = _is_terminal(self._stream)
        self._bar: tqdm | None = None
        self._name = ""
        self._left = TimeLeft([(1, 1)], clock=clock)
        self._last_line = clock()

    def begin(self, name: str, work: Sequence[tuple[int, int]]) -> None:
        """Begins a picture; `work` are the pixels and the steps of each scale."""
        self.end()
        self._name = f"{name}: " if name else ""
        self._left = TimeLeft(work, clock=self._clock)
        self._last_line = self._clock()
        waiting = f"{self._name}preparing (the first time takes longer)"
        if self.quiet:
            return
        if self._terminal:
            self._bar = tqdm(
                total=1.0,
                desc=waiting,
                bar_format="{desc} |{bar}| {percentage:3.0f}%{postfix}",
                file=self._stream,
                dynamic_ncols=True,
                leave=False,
            )
        else:
            self.note(waiting)

    def update(self, now: Moment, losses: Mapping[str, float]) -> None:
        """Shows a step that is done, with its loss terms."""
        left = self._left.update(now)
        if self.quiet:
            return
        where = f"{self._name}scale {now.scale}/{now.scales}  step {now.step}/{now.steps}"
        terms = "  ".join(f"{term} {value:.4g}" for term, value in losses.items())
        if left is not None:
            terms += f"  {duration(left)} left"
        if self._bar is not None:
            self._bar.set_description_str(where, refresh=False)
            self._bar.set_postfix_str(terms, refresh=False)
            self._bar.update(self._left.fraction - self._bar.n)
        elif now.step == now.steps or self._clock() - self._last_line >= LINE_SECONDS:
            self._last_line = self._clock()
            self.note(f"{where}  {terms}")

    def end(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, message: str) -> None:
        """Says one line, above the bar if there is one."""
        if not self.quiet:
            self.complain(message)

    def complain(self, message: str) -> None:
        """Says one line, even to those who asked for quiet."""
        if self._bar is not None:
            tqdm.write(message, file=self._stream)
        else:
            print(message, file=self._stream, flush=True)


@contextlib.contextmanager
def warnings_shown(progress: Progress) -> Iterator[None]:
    """Shows what the package logs as lines of its own, so that they do not break the bar."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            progress.note(f"warning: {record.getMessage()}")

    logger, handler = logging.getLogger("jaxstyle"), Lines(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _is_terminal(stream: TextIO) -> bool:
    """Whether a bar can be drawn there; a terminal without a size would show nothing of it."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return True


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 step`, `2 steps`; the plural is the noun with an s unless it is given."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Seconds as people say them: `8 s`, `1 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
