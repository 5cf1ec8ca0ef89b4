"""The course of a run: loss terms of every step as JSON lines, and a plot of them."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

TERMS = ("total", "content", "style", "tv")


def trace_files(path: Path) -> tuple[Path, Path | None]:
    """The file of JSON lines and, where `path` ends in .png, that of the plot."""
    if path.suffix.lower() == ".png":
        return path.with_suffix(".jsonl"), path
    return path, None


class Trace:
    """A trace that is written as the run goes; the plot follows when it is closed.

    Args:
        path: file of the JSON lines, or of the plot, where it ends in .png: the lines then go
            beside it, with the suffix .jsonl. What was there is replaced.
    """

    def __init__(self, path: Path):
        self._lines, self._plot = trace_files(path)
        self._rows: list[dict[str, Any]] = []
        self._file: TextIO | None = None

    def go_on(self, belongs: Callable[[Mapping[str, Any]], bool]) -> None:
        """Goes on with what an earlier run has written, before anything is written.

        Args:
            belongs: whether a row is to stay; what follows the first that is not goes.
        """
        if self._file is not None or not self._lines.exists():
            return
        self._file = self._lines.open("r+", encoding="utf-8")
        end = 0
        # Not by iteration, which would not know how far it has read.
        while line := self._file.readline():
            try:
                row = json.loads(line)
                if not line.endswith("\n") or not belongs(row):
                    break
            except (ValueError, KeyError, TypeError):  # cut off, or of something else
                break
            end = self._file.tell()
            if self._plot is not None:
                self._rows.append(row)
        self._file.seek(end)
        self._file.truncate()

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds one step: its `scale`, `step`, the weighted loss terms, `seconds` since the start.

        In a run over several pictures each row also has the name of its `picture`.
        """
        if self._file is None:  # a run that fails before its first step leaves no file
            self._file = self._lines.open("w", encoding="utf-8")
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()  # so that others can follow it
        if self._plot is not None:
            self._rows.append(dict(row))

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        hurry = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._plot is not None and self._rows and not hurry:
            plot_trace(self._rows, self._plot)


def plot_trace(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots loss terms over steps, on a logarithmic scale, with a mark where a scale begins.

    Args:
        rows: as given to `Trace.write`.
        path: the PNG file to write; one that exists is replaced.
    """
    # The object interface leaves the caller's own figures and backend alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    steps = range(1, len(rows) + 1)
    for term in TERMS:
        # A term of weight zero has no place on a logarithmic scale, nor has a step that hit zero.
        values = [row[term] if row[term] > 0 else float("nan") for row in rows]
        if any(value == value for value in values):
            width = 1.8 if term == "total" else 1.0
            axes.plot(steps, values, label=term, linewidth=width)
    for step in _beginnings(rows):
        axes.axvline(step, color="0.7", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yscale("log")
    # The content loss is all but zero where the content is the start: leave that out of sight.
    largest = max((row["total"] for row in rows if math.isfinite(row["total"])), default=0.0)
    if axes.get_ylim()[0] < 1e-5 * largest:
        axes.set_ylim(bottom=1e-5 * largest)
    axes.set_xlabel("step (dashed: a scale begins)")
    axes.set_ylabel("weighted loss")
    if axes.get_lines():
        axes.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _beginnings(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Steps, counted over all rows from 1, at which a new scale or picture begins."""
    places = [(row.get("picture"), row["scale"]) for row in rows]
    return [i + 1 for i in range(1, len(places)) if places[i] != places[i - 1]]
