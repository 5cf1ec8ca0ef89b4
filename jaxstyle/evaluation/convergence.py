"""The part of a report that says how runs of training went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from jaxstyle.errors import UserError
from jaxstyle.evaluation import report
from jaxstyle.evaluation.cells import Cell, Column, Table
from jaxstyle.evaluation.report import Section
from jaxstyle.training.report import read_rows

_TEXT = """\
Losses of different weights and networks have no common unit: each is divided by its first value, \
which is large where the learning rate threw a run off at its start. The loss on held-out \
photographs is shown as it is; compare it between runs that differ in nothing else than training. \
Accuracy is the share of held-out photographs whose picture is nearest to its own painting, among \
the paintings of the run and those of its `data.held_out_style`; with nothing to choose from there \
is none."""

_COLUMNS = (
    Column("steps", "steps", digits=0),
    Column("loss", "last loss / first loss", better="low"),
    Column("held_out", "loss on held-out photographs"),
    Column("accuracy", "accuracy", better="high"),
)


class Series(NamedTuple):
    """Values of a metric, and the steps that they were logged at; nan where not finite."""

    steps: list[float]
    values: list[float]

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], key: str) -> Series:
        """Those of a run's lines that have the metric."""
        found = [(line["step"], line[key]) for line in lines if key in line]
        values = [math.nan if value is None else value for _, value in found]
        return cls([step for step, _ in found], values)

    @property
    def last(self) -> float | None:
        """The last value."""
        return self.values[-1] if self.values else None


def read_runs(runs: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The lines of the metrics of runs, by their names.

    Raises:
        UserError: a folder is no run, or has no losses yet.
    """
    found = {}
    for name, run in runs.items():
        path = epath.Path(run).expanduser() / "metrics.jsonl"
        found[name] = read_rows(path)
        if not Series.of(found[name], "loss").steps:
            raise UserError(f"runs.{name}: {path} has no losses: expected the folder of a run")
    return found


def convergence(runs: Mapping[str, str], folder: Path) -> Section:
    """Loss and accuracy against the step, of training runs.

    Args:
        runs: their folders, by their names.
        folder: gets the plots.

    Raises:
        UserError: as of `read_runs`.
    """
    losses, accuracies, rows = {}, {}, {}
    for name, lines in read_runs(runs).items():
        loss = Series.of(lines, "loss")
        accuracy = Series.of(lines, "held_out/accuracy")
        first = loss.values[0]
        losses[name] = Series(loss.steps, [v / first if first else math.nan for v in loss.values])
        accuracies |= {name: accuracy} if accuracy.steps else {}
        rows[name] = {
            "steps": Cell(loss.steps[-1]),
            "loss": Cell(losses[name].last),
            "held_out": Cell(Series.of(lines, "held_out/loss").last),
            "accuracy": Cell(accuracy.last),
        }
    plots = []
    shown = {"loss": ("loss / first loss", losses), "accuracy": ("accuracy", accuracies)}
    for key, (title, series) in shown.items():
        if series:
            path = folder / f"convergence_{key}.png"
            report.curves(series, path, xlabel="step", ylabel=title, title=f"Training: {key}")
            plots.append((path, f"{title} against the step"))
    table = Table("convergence", "Where training ended", _COLUMNS, rows, row_title="run")
    return Section("Convergence", _TEXT, (table,), tuple(plots))
