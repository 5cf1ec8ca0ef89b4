"""What a run leaves in its folder: lines of metrics, pictures of samples, and a plot.

All of it goes through `etils.epath`, so that the folder may lie in a bucket.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from etils import epath
from numpy.typing import NDArray

from jaxstyle import images
from jaxstyle.errors import UserError

Row = Mapping[str, Any]

HELD_OUT = "held_out/"  # before the name of a metric of pictures that were kept out
_GAP = 4  # white pixels between the rows of a grid
_REMOTE_SECONDS = 60.0  # between two writings of a file in a bucket, which cannot be appended to
_NO_CURVES = ("step", "seconds", "images_per_second", "waiting")
_COLUMNS = 3
# The order of metrics where runs are compared: these, all others, and the last ones, which say how
# a run went and not how well.
_FIRST = ("loss", "accuracy", "content", "style")
_LAST = ("gradient_norm", "learning_rate")
_HIGH = ("accuracy",)  # of which more is better


class Observer(Protocol):
    """Whoever wants to know how a run goes."""

    def started(self, step: int, steps: int) -> None:
        """The run begins, or goes on, after `step` of `steps` updates."""
        ...

    def stepped(self, step: int) -> None:
        """This many updates are on their way."""
        ...

    def logged(self, row: Row) -> None:
        """A line of metrics was written."""
        ...

    def note(self, message: str) -> None:
        """Something that is good to know."""
        ...

    def complain(self, message: str) -> None:
        """Something that must be known."""
        ...


class LoggingObserver:
    """Tells the logger `jaxstyle.training`: lines of metrics and notes as information."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("jaxstyle.training")

    def started(self, step: int, steps: int) -> None:
        """Logs where the run begins."""
        self._logger.info("step %d of %d", step, steps)

    def stepped(self, step: int) -> None:
        """Logs nothing: lines of metrics come often enough."""

    def logged(self, row: Row) -> None:
        """Logs a line of metrics."""
        self._logger.info("%s", "  ".join(f"{name} {value:.5g}" for name, value in row.items()))

    def note(self, message: str) -> None:
        """Logs the message as information."""
        self._logger.info("%s", message)

    def complain(self, message: str) -> None:
        """Logs the message as a warning."""
        self._logger.warning("%s", message)


class Sink(Protocol):
    """Where lines of metrics go."""

    def write(self, row: Row) -> None:
        """Takes a line: `step`, and numbers by their names."""
        ...

    def close(self) -> None:
        """Ends the writing."""
        ...


class MetricsFile:
    """The lines of `metrics.jsonl`, each a JSON object.

    When a run goes on from a checkpoint, the lines that came after it are taken away: the file
    becomes what it would be had the run never been killed.

    Args:
        path: the file; it need not exist.
        step: updates that are done; lines beyond are cut off.

    Attributes:
        rows: all lines, from the first step on.
    """

    def __init__(self, path: epath.Path, *, step: int) -> None:
        self._path = path
        self._written = 0.0
        before = read_rows(path)
        self.rows: list[Row] = [row for row in before if row["step"] <= step]
        if path.exists():
            replace_file(path, self._text().encode())

    def write(self, row: Row) -> None:
        """Adds a line; what is not finite becomes null, as JSON has no word for it."""
        row = {name: _plain(value) for name, value in row.items()}
        self.rows.append(row)
        if not is_remote(self._path):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        elif time.monotonic() - self._written >= _REMOTE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sees to it that all lines are in the file."""
        if is_remote(self._path):
            replace_file(self._path, self._text().encode())
            self._written = time.monotonic()

    def close(self) -> None:
        """Ends the writing."""
        self.flush()

    def _text(self) -> str:
        return "".join(json.dumps(row) + "\n" for row in self.rows)


def read_rows(path: epath.Path) -> list[Row]:
    """The lines of a `metrics.jsonl`, up to one that a killed process left unfinished.

    Args:
        path: the file; there are no lines where it does not exist.
    """
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not (isinstance(row, dict) and isinstance(row.get("step"), int)):
            break
        rows.append(row)
    return rows


def _plain(value: Any) -> int | float | None:
    """A number as JSON has it, floats to the digits that float32 has."""
    if isinstance(value, int):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


class TensorBoard:
    """The same lines for TensorBoard, in the folder `tensorboard`.

    Args:
        folder: the folder of the run.
        step: updates that are done; what was written beyond is hidden.

    Raises:
        UserError: tensorboardX is not installed.
    """

    def __init__(self, folder: epath.Path, *, step: int) -> None:
        try:
            from tensorboardX import (  # pyright: ignore[reportMissingImports]
                SummaryWriter,
            )
        except ImportError as error:
            raise UserError(
                'TensorBoard needs one more package: pip install "jaxstyle[tensorboard]"'
            ) from error
        self._writer = SummaryWriter(os.fspath(folder / "tensorboard"), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Adds the numbers of a line."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Ends the writing."""
        self._writer.close()


# --- pictures ------------------------------------------------------------------------------------


def write_samples(rows: NDArray[np.float32], path: epath.Path) -> None:
    """Writes pictures below each other, with a little white between them.

    Args:
        rows: float `[n, height, width, 3]`, sRGB in [0, 1]; what is not finite is shown black.
        path: a PNG file; one that exists is replaced.
    """
    rows = np.nan_to_num(np.asarray(rows, np.float32), nan=0, posinf=0, neginf=0)
    padded = np.pad(rows, ((0, 0), (0, _GAP), (0, 0), (0, 0)), constant_values=1)
    grid = padded.reshape(-1, *rows.shape[2:])[:-_GAP]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        images.save(file, grid)
        replace_file(path, file.read_bytes())


def plot_curves(rows: Sequence[Row], path: epath.Path) -> None:
    """Plots every metric over the steps, with that of the pictures that were kept out.

    Args:
        rows: lines of `metrics.jsonl`; nothing is drawn if there are none.
        path: the PNG file to write; one that exists is replaced.
    """
    names = _metric_names(rows)
    if not names:
        return
    figure, panels = _panels(names)
    for name, axes in panels.items():
        curves = [
            _draw(axes, rows, name, label="training", color="C0"),
            _draw(axes, rows, HELD_OUT + name, label="held out", color="C1", marker="."),
        ]
        _scale(axes, curves)
        if curves[1]:
            axes.legend(fontsize="small")
    _write_figure(figure, path)


def _metric_names(rows: Sequence[Row]) -> list[str]:
    """The metrics that there are, of training or of pictures that were kept out."""
    names = {name.removeprefix(HELD_OUT): None for row in rows for name in row}
    return [name for name in names if name not in _NO_CURVES]


def _panels(names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """A figure, and its axes by the names of the metrics."""
    # The object interface leaves the caller's own figures and backend alone.
    from matplotlib.figure import Figure

    columns = min(len(names), _COLUMNS)
    height = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.1 * height), layout="constrained")
    panels = {}
    for place, name in enumerate(names, 1):
        panels[name] = axes = figure.add_subplot(height, columns, place)
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel("step")
        axes.locator_params(axis="x", integer=True)
    return figure, panels


def _draw(axes: Any, rows: Sequence[Row], name: str, **options: Any) -> list[float]:
    """Draws a curve, if there are values; they are returned."""
    points = _points(rows, name)
    if points:
        axes.plot(*zip(*points, strict=True), **{"linewidth": 1.2} | options)
    return [value for _, value in points]


def _points(rows: Sequence[Row], name: str) -> list[tuple[int, float]]:
    """Steps and values of a metric."""
    return [(row["step"], row[name]) for row in rows if row.get(name) is not None]


def _scale(axes: Any, curves: Sequence[Sequence[float]]) -> None:
    """A logarithmic scale where the values need one, and can have it."""
    values = [value for curve in curves for value in curve]
    if values and min(values) > 0 and max(values) > 3 * min(values):
        axes.set_yscale("log")


def _write_figure(figure: Any, path: epath.Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    replace_file(path, buffer.getvalue())


# --- comparisons of runs -------------------------------------------------------------------------


def plot_comparison(runs: Mapping[str, Sequence[Row]], path: epath.Path, *, title: str) -> None:
    """Plots every metric of several runs over the steps, a colour for each run.

    Args:
        runs: the lines of each `metrics.jsonl`, by what the run is called; nothing is drawn if
            there are none at all.
        path: the PNG file to write; one that exists is replaced.
        title: what the names of the runs are values of.
    """
    from matplotlib.lines import Line2D

    names = _compared_names(runs)
    if not names:
        return
    figure, panels = _panels(names)
    colors = {run: f"C{number % 10}" for number, run in enumerate(runs)}
    for name, axes in panels.items():
        curves: list[list[float]] = []
        for run, rows in runs.items():
            fine = {"color": colors[run], "alpha": 0.5, "linewidth": 0.8}
            curves.append(_draw(axes, rows, name, **fine))
            curves.append(_draw(axes, rows, HELD_OUT + name, color=colors[run], marker="."))
        _scale(axes, curves)
    keys = [Line2D([], [], color=color, label=run) for run, color in colors.items()]
    keys.append(Line2D([], [], color="grey", alpha=0.5, linewidth=0.8, label="training"))
    keys.append(Line2D([], [], color="grey", marker=".", linewidth=1.2, label="held out"))
    place = {"loc": "outside upper center", "ncols": min(len(keys), 6)}
    figure.legend(handles=keys, title=title, fontsize="small", **place)
    _write_figure(figure, path)


def comparison_table(
    runs: Mapping[str, Sequence[Row]], states: Mapping[str, str], *, title: str
) -> str:
    """The last and the best values of several runs, in Markdown.

    Args:
        runs: as for `plot_comparison`.
        states: a word or two on each run, such as `done`.
        title: as for `plot_comparison`.
    """
    best = f"the highest {' and '.join(_HIGH)}, and the lowest of all else"
    steps = {run: max((row["step"] for row in rows), default=0) for run, rows in runs.items()}
    rows_of_states = [[run, states[run], str(steps[run])] for run in runs]
    parts = [
        f"# Runs by {title}\n",
        _markdown([title, "state", "step"], rows_of_states),
        f"Last values; in brackets the best, with its step: {best}.\n",
    ]
    for heading, prefix in (("Held out", HELD_OUT), ("Training", "")):
        points = {
            name: {run: _points(rows, prefix + name) for run, rows in runs.items()}
            for name in _compared_names(runs)
            if name not in _LAST
        }
        names = [name for name, found in points.items() if any(found.values())]
        if names:
            cells = [[run, *(_summary(name, points[name][run]) for name in names)] for run in runs]
            parts += [f"## {heading}\n", _markdown([title, *names], cells)]
    return "\n".join(parts)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a bar in a cell would end it."""
    lines = [head, ["---"] * len(head), *rows]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _compared_names(runs: Mapping[str, Sequence[Row]]) -> list[str]:
    """The metrics of runs, the important ones first, without those that are zero throughout."""
    every = [row for rows in runs.values() for row in rows]
    names = [
        name
        for name in _metric_names(every)
        if any(value for prefix in ("", HELD_OUT) for _, value in _points(every, prefix + name))
    ]
    order = {name: place for place, name in enumerate(_FIRST)}
    order |= dict.fromkeys(_LAST, len(names) + len(order))
    return sorted(names, key=lambda name: order.get(name, len(_FIRST)))


def _summary(name: str, points: Sequence[tuple[int, float]]) -> str:
    """The last value, and the best with its step; nothing where there is none."""
    if not points:
        return ""
    sign = -1 if name in _HIGH else 1
    step, best = min(points, key=lambda point: sign * point[1])
    return f"{points[-1][1]:.4g} ({best:.4g} at {step})"


# --- files ---------------------------------------------------------------------------------------


def is_remote(path: epath.Path) -> bool:
    """Whether a path lies in a bucket."""
    return "://" in os.fspath(path)


def replace_file(path: epath.Path, content: bytes) -> None:
    """Writes a file whole or not at all; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_remote(path):  # an object appears when it is complete
        path.write_bytes(content)
        return
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
