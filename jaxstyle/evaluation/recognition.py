"""The part of a report that says whether pictures are taken for their own paintings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import classification
from jaxstyle.evaluation import judges, protocols, report, statistics, tables
from jaxstyle.evaluation.cells import Cell, Column, Table
from jaxstyle.evaluation.context import Context
from jaxstyle.evaluation.pictures import Pair
from jaxstyle.evaluation.report import Section
from jaxstyle.evaluation.scores import Record, Studio

RESAMPLES = 200
"""Samples of the bootstrap, at most: these figures are of many pictures at once."""

_CLASSES = protocols.STRUCTURE[2:]  # precision, recall and F1, which each painting has
COLUMNS = (*protocols.STRUCTURE[1:], Column("auc", "AUC", better="high"))
_RECOGNIZED = Column("recognized", "share recognised", better="high")

_TEXT = """\
A picture is recognised if, among all the paintings, its own is the nearest by Gram matrices. \
Precision, recall and F1 are means over the paintings, AUC the mean of one against the rest with \
minus the distance as the score. The plots take all paintings together: their areas are others."""


class _Scored(NamedTuple):
    """The pictures of a method: numbers of their paintings, scores for each, and photographs."""

    labels: np.ndarray
    scores: np.ndarray
    photos: list[str]

    @property
    def confusion(self) -> jax.Array:
        """How often which painting was found for which, `[paintings, paintings]`."""
        labels, found = jnp.asarray(self.labels), jnp.asarray(self.scores.argmax(1))
        return classification.confusion_matrix(labels, found, self.scores.shape[1])

    @property
    def pairs(self) -> set[tuple[str, str]]:
        """Paintings, by their numbers, and photographs."""
        return {(f"{label}", photo) for label, photo in zip(self.labels, self.photos, strict=True)}


def recognition(context: Context, records: Sequence[Record]) -> Section:
    """Which painting a picture is nearest to, on test and on training photographs.

    Args:
        context: see there.
        records: of all methods on the test photographs.
    """
    studio = context.studio
    shown, plots = [], []
    parts = {"test": list(records)}
    if studio.config.training_content:
        parts["training"] = _training_records(context)
    for part, found in parts.items():
        methods = [name for name in context.painters if any(r["method"] == name for r in found)]
        scored = {name: _scored(studio, name, found) for name in methods}
        name = f"recognition_{part}"
        whole = _table(context, part, scored)
        shown += [
            whole,
            protocols.by_style(
                context, _marked(studio, found), _RECOGNIZED, name=f"{name}_by_style"
            ),
        ]
        shown.append(_by_class(context, part, scored))
        plot = studio.folder / f"roc_{part}.png"
        curves = {name: _curve(value) for name, value in scored.items()}
        report.roc(curves, plot, title=f"Style recognised, {part} photographs, all paintings")
        plots.append((plot, f"Each painting against the rest, together, {part} photographs"))
        plot = studio.folder / f"{name}_accuracy.png"
        report.bars(whole, "accuracy", plot)
        plots.append((plot, f"Accuracy, {part} photographs"))
    return Section("Style recognised", _TEXT, tuple(shown), tuple(plots))


def _training_records(context: Context) -> list[Record]:
    studio = context.studio
    photos, pairs = studio.training()

    def score(picture: np.ndarray, pair: Pair) -> Record:
        del pair
        features = studio.judge.features(picture)
        return {"scores": studio.recognizer.scores(features).tolist()}

    records: list[Record] = []
    for name in context.one_pass:
        records += context.judged(name, "training", photos, pairs, score)
    return records


def _marked(studio: Studio, records: Sequence[Record]) -> list[Record]:
    """Records with 1 where a picture's own painting is the nearest, else 0."""
    names = list(studio.paintings)
    return [
        {**row, "recognized": float(names[int(np.argmax(row["scores"]))] == row["style"])}
        for row in records
    ]


def _scored(studio: Studio, method: str, records: Sequence[Record]) -> _Scored:
    names = list(studio.paintings)
    rows = [row for row in records if row["method"] == method]
    labels = np.array([names.index(row["style"]) for row in rows])
    return _Scored(labels, np.array([row["scores"] for row in rows]), [r["content"] for r in rows])


def _table(context: Context, part: str, scored: dict[str, _Scored]) -> Table:
    """The figures of all pictures of each method."""
    config, rows = context.studio.config, {}
    resamples = min(config.resamples, RESAMPLES)
    for name, own in scored.items():
        found = judges.recognition(own.labels, own.scores)
        drawn = statistics.redrawn(own.labels, own.photos, seed=config.seed, resamples=resamples)
        samples = [judges.recognition(own.labels[at], own.scores[at]) for at in drawn]
        rows[name] = {tables.PAIRS: Cell(len(own.labels))}
        for column in COLUMNS:
            values = [sample[column.key] for sample in samples]
            known = [value for value in values if not np.isnan(value)]  # AUC needs two paintings
            low, high = np.percentile(known, [2.5, 97.5]) if known else (None, None)
            rows[name][column.key] = Cell(found[column.key], low, high)
    pairs = {name: own.pairs for name, own in scored.items()}
    every = dict.fromkeys(pairs, set().union(*pairs.values()))
    notes = [
        *tables.about(rows, pairs, "figure"),
        *tables.fewer(tables.FEWER, pairs, every),
        *(context.left_out if part == "training" else ()),
    ]
    columns = (Column(tables.PAIRS, "pictures", digits=0), *COLUMNS)
    title = f"Style recognised, {part} photographs"
    return Table(f"recognition_{part}", title, columns, rows, tuple(notes))


def _by_class(context: Context, part: str, scored: dict[str, _Scored]) -> Table:
    """Figures of each painting, and for which paintings its pictures are taken."""
    names, rows = list(context.studio.paintings), {}
    for method, own in scored.items():
        confusion = np.asarray(own.confusion)
        figures = {
            "precision": classification.precision(own.confusion),
            "recall": classification.recall(own.confusion),
            "f1": classification.f1_score(own.confusion),
        }
        for number, style in enumerate(names):
            if not confusion[number].any():
                continue
            cells = {f"as_{i}": Cell(int(count)) for i, count in enumerate(confusion[number])}
            cells |= {key: Cell(float(value[number])) for key, value in figures.items()}
            rows[f"{method}: {style}"] = cells
    taken = (Column(f"as_{i}", f"taken for {name}", digits=0) for i, name in enumerate(names))
    return Table(
        f"recognition_{part}_classes",
        f"Each painting, and what its pictures are taken for, {part} photographs",
        (*_CLASSES, *taken),
        rows,
        ("Counts of pictures: the confusion matrix of each method, a row a painting.",),
        row_title="method: painting",
    )


def _curve(own: _Scored) -> tuple[np.ndarray, np.ndarray, float]:
    """The ROC of all pairs of a picture and a painting, and the area under it."""
    same = (own.labels[:, None] == np.arange(own.scores.shape[1])).reshape(-1)
    false, true, _ = classification.roc_curve(same, own.scores.reshape(-1))
    return false, true, float(_auc(same, own.scores.reshape(-1)))


_auc = jax.jit(classification.auc)
