"""The parts of a report: each asks for pictures, judges them, and shows what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxstyle import classification, images
from jaxstyle.errors import UserError
from jaxstyle.evaluation import judges, pictures, report, tables
from jaxstyle.evaluation.painters import Painter
from jaxstyle.evaluation.report import Section
from jaxstyle.evaluation.scores import Record, Studio
from jaxstyle.evaluation.tables import Cell, Column, Table
from jaxstyle.training.report import read_rows

_TESTS = 5
_RESAMPLES = 200  # of figures that are made of many pictures at once
# The rows of a contact sheet.
_SHOWN = 8

DISTANCES = (
    Column("gram", "Gram", better="low"),
    Column("moments", "mean/std", better="low"),
    Column("wasserstein", "Wasserstein-2", better="low"),
    Column("colors", "colour histogram", better="low"),
    Column("content_distance", "content", better="low"),
    Column("perceptual", "perceptual", better="low"),
    Column("ssim", "SSIM", better="high"),
    Column("ms_ssim", "MS-SSIM", better="high"),
    Column("psnr", "PSNR", unit="dB", better="high", digits=2),
    Column("tv", "total variation"),
)
STRUCTURE = (
    Column("miou", "MIoU", better="high"),
    Column("accuracy", "accuracy", better="high"),
    Column("precision", "precision", better="high"),
    Column("recall", "recall", better="high"),
    Column("f1", "F1", better="high"),
)
COMPOSITION = (Column("composition", "MIoU of shares", better="high"),)
RECOGNITION = (*STRUCTURE[1:], Column("auc", "AUC", better="high"))
_RECOGNIZED = Column("recognized", "Share recognised", better="high")


class StoppedError(Exception):
    """Whoever wanted the evaluation has asked to stop; what is done is kept."""


class Context(NamedTuple):
    """What every part is given.

    Attributes:
        studio: what is painted, and who judges.
        painters: by the names of their rows.
        note: takes a line for the user.
        stopping: whether to stop.
    """

    studio: Studio
    painters: Mapping[str, Painter]
    note: Callable[[str], None]
    stopping: Callable[[], bool]

    def done(self, name: str, part: str) -> Callable[[int, int], None]:
        """Tells the user how far a method is, and raises `StoppedError` where that is asked for."""

        def tell(number: int, count: int) -> None:
            if number == count or number % 16 == 0:
                self.note(f"{part}, {name}: {number} of {count} pictures")
            if self.stopping():
                raise StoppedError

        return tell

    @property
    def statistics(self) -> dict[str, Any]:
        """Settings of the intervals."""
        config = self.studio.config
        return {"seed": config.seed, "resamples": config.resamples}


def pair_records(context: Context) -> list[Record]:
    """The figures of every method on every pair that it paints."""
    studio, records = context.studio, []
    score = studio.score_pair(studio.regions())
    for name, painter in context.painters.items():
        limit = studio.config.methods[name].photos or None
        few = set(list(studio.photos)[:limit])
        chosen = [pair for pair in studio.pairs if pair.photo in few]
        records += studio.judged(
            name, painter, "pairs", studio.photos, chosen, score, done=context.done(name, "pairs")
        )
    return records


# --- pairs ---------------------------------------------------------------------------------------


def distances(context: Context, records: Sequence[Record]) -> Section:
    """Distances to photographs and paintings, and a sheet of pictures."""
    methods = list(context.painters)
    present = [column for column in DISTANCES if any(column.key in row for row in records)]
    shown = [
        tables.overall(
            records,
            present,
            methods=methods,
            name="distances",
            title="Distance to the painting and to the photograph",
            **context.statistics,
        )
    ]
    shown += [_by_style(context, records, column) for column in (DISTANCES[0], DISTANCES[6])]
    plot = context.studio.folder / "gram.png"
    report.bars(shown[0], "gram", plot)
    sheet = context.studio.folder / "pairs.png"
    _save_sheet(context, sheet)
    pictures_ = ((plot, "Gram distance to the painting"), (sheet, _SHEET))
    return Section("Distances", _DISTANCES, tuple(shown), pictures_)


def _by_style(
    context: Context, records: Sequence[Record], column: Column, *, name: str = ""
) -> Table:
    """A metric painting by painting, beside the baseline on the same photographs."""
    baseline, there = context.studio.config.baseline, {row["method"] for row in records}
    return tables.by_style(
        records,
        column,
        methods=[name for name in context.painters if name in there],
        baseline=baseline,
        name=name or f"{column.key}_by_style",
        title=f"{column.title} for each painting, beside that of {baseline}",
        **context.statistics,
    )


_DISTANCES = """\
Gram, mean/std and Wasserstein-2 are squared distances of statistics of features to those of the \
painting, relative to these, the mean of relu1_1 to relu5_1. Content is the squared distance of \
relu4_1 to the photograph's, relative to that. Perceptual has the form of LPIPS, without its \
weights: it is not LPIPS. Total variation is the picture's own, half the mean absolute \
difference of neighbours. All are explained in docs/evaluation.md."""


_SHEET = "Each painting with a photograph of its own; white where a method did not paint the pair"


def _save_sheet(context: Context, path: Path) -> None:
    """A row for each painting, each with a photograph of its own: photograph, painting, methods."""
    studio = context.studio
    methods = [name for name in context.painters if studio.paints(name)]
    names = list(studio.photos)
    cells: list[np.ndarray] = []
    blank = np.ones((studio.config.size, studio.config.size, 3), np.float32)
    for index, style in enumerate(list(studio.paintings)[:_SHOWN]):
        photo = names[index % len(names)]
        cells += [studio.photos[photo], studio.paintings[style]]
        for name in methods:
            found = studio.kept(name, context.painters[name], pictures.Pair(photo, style))
            cells.append(blank if found is None else found)
    labels = ["photograph", "painting", *methods]
    labels += [""] * (len(cells) - len(labels))
    images.save(path, images.contact_sheet(cells, labels, columns=2 + len(methods)))


def structure(context: Context, records: Sequence[Record]) -> Section:
    """Regions that are found again: those of people, and clusters."""
    config = context.studio.config
    shown = [
        tables.overall(
            records,
            STRUCTURE,
            methods=list(context.painters),
            name="structure",
            title="Regions of the photograph found again (clusters of its features)",
            **context.statistics,
        ),
        _by_style(context, records, STRUCTURE[0]),
    ]
    if config.segmented and config.segments:
        shown += _segmented(context)
    return Section("Structure kept", _STRUCTURE, tuple(shown))


_STRUCTURE = """\
Each position of a picture's feature map goes to the region of the photograph whose prototype is \
nearest, after both were standardised channel by channel; the figures compare that with the \
photograph's own regions. The row of the photograph itself is what can be had."""


def _segmented(context: Context) -> list[Table]:
    """Table III of Pu and Li: five tests a model on photographs of their own, and the mean."""
    studio = context.studio
    photos, regions = studio.segmented()
    layer = studio.config.structure_layer
    own = {name: studio.judge.features(photo)[layer] for name, photo in photos.items()}

    def score(picture: np.ndarray, pair: pictures.Pair) -> Record:
        made = studio.judge.features(picture)[layer]
        return judges.structure(made, own[pair.photo], regions[pair.photo])[0]

    pairs = [pictures.Pair(photo, style) for photo in photos for style in studio.paintings]
    painters = {name: p for name, p in context.painters.items() if not p.updates}
    drawn = {name: labels.tolist() for name, labels in regions.items()}
    records: list[Record] = []
    for name, painter in painters.items():
        done = context.done(name, "segmented")
        records += studio.judged(
            name, painter, "segmented", photos, pairs, score, done=done, beside=drawn
        )
    whole = tables.overall(
        records,
        STRUCTURE,
        methods=list(painters),
        name="structure_segmented",
        title="Regions of the photograph found again (drawn by people)",
        **context.statistics,
    )
    return [whole, _five_tests(records, list(photos), list(painters))]


def _five_tests(records: Sequence[Record], photos: Sequence[str], methods: Sequence[str]) -> Table:
    test_of = {photo: index % _TESTS for index, photo in enumerate(photos)}
    rows = {}
    for method in methods:
        values: list[list[float]] = [[] for _ in range(_TESTS)]
        for row in records:
            if row["method"] == method:
                values[test_of[row["content"]]].append(row["miou"])
        means = [float(np.mean(part)) if part else None for part in values]
        known = [mean for mean in means if mean is not None]
        cells = {f"test{i + 1}": Cell(mean) for i, mean in enumerate(means)}
        rows[method] = cells | {"mean": Cell(float(np.mean(known)) if known else None)}
    columns = [Column(f"test{i + 1}", f"test {i + 1}") for i in range(_TESTS)]
    return Table(
        "structure_tests",
        "MIoU in five tests on photographs of their own (the form of Table III)",
        (*columns, Column("mean", "mean", better="high")),
        rows,
        (f"{len(photos)} photographs, a fifth of them in each test.",),
    )


def composition(context: Context, records: Sequence[Record]) -> Section:
    """Shares of the painting's clusters."""
    shown = tables.overall(
        records,
        COMPOSITION,
        methods=list(context.painters),
        name="composition",
        title="Composition of the painting found again",
        **context.statistics,
    )
    each = _by_style(context, records, COMPOSITION[0])
    return Section("Style composition", _COMPOSITION, (shown, each))


_COMPOSITION = """\
The positions of the painting's feature map are clustered; the figure is the mean over clusters of \
the smaller share over the larger one, of the painting's positions and of the picture's. It is 1 \
for the painting itself, and the nearest to what Pu and Li write of their MIoU."""


# --- recognition ---------------------------------------------------------------------------------


def recognition(context: Context, records: Sequence[Record]) -> Section:
    """Which painting a picture is nearest to, on test and on training photographs."""
    studio = context.studio
    shown, plots = [], []
    parts = {"test": list(records)}
    if studio.config.training_content:
        parts["training"] = _training_records(context)
    for part, found in parts.items():
        methods = [name for name in context.painters if any(r["method"] == name for r in found)]
        scored = {name: _scores(studio, name, found) for name in methods}
        shown.append(_recognition_table(context, part, scored))
        marked = _marked(studio, found)
        shown.append(_by_style(context, marked, _RECOGNIZED, name=f"recognition_{part}_by_style"))
        plot = studio.folder / f"roc_{part}.png"
        curves = {name: _curve(*value) for name, value in scored.items()}
        report.roc(curves, plot, title=f"Style recognised, {part} photographs")
        plots.append((plot, f"One painting against the rest, all pictures, {part} photographs"))
    return Section("Style recognised", _RECOGNITION, tuple(shown), tuple(plots))


_RECOGNITION = """\
A picture is recognised if, among all the paintings, its own is the nearest by Gram matrices. \
Precision, recall and F1 are means over the paintings, AUC the mean of one against the rest with \
minus the distance as the score. The photograph itself is at chance."""


def _training_records(context: Context) -> list[Record]:
    studio = context.studio
    photos, pairs = studio.training()
    records: list[Record] = []
    for name, painter in context.painters.items():
        if painter.updates:
            continue
        done = context.done(name, "training")

        def score(picture: np.ndarray, pair: pictures.Pair) -> Record:
            features = studio.judge.features(picture)
            return {"scores": studio.recognizer.scores(features).tolist()}

        records += studio.judged(name, painter, "training", photos, pairs, score, done=done)
    return records


def _marked(studio: Studio, records: Sequence[Record]) -> list[Record]:
    """Records with 1 where a picture's own painting is the nearest, else 0."""
    names = list(studio.paintings)
    return [
        {**row, "recognized": float(names[int(np.argmax(row["scores"]))] == row["style"])}
        for row in records
    ]


def _scores(
    studio: Studio, method: str, records: Sequence[Record]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels, scores and photographs of a method's pictures."""
    names = list(studio.paintings)
    rows = [row for row in records if row["method"] == method]
    labels = np.array([names.index(row["style"]) for row in rows])
    return labels, np.array([row["scores"] for row in rows]), [row["content"] for row in rows]


def _curve(labels: np.ndarray, scores: np.ndarray, _: Any) -> tuple[Any, Any, float]:
    """The ROC of all pairs of a picture and a painting."""
    same = (labels[:, None] == np.arange(scores.shape[1])).reshape(-1)
    curve = classification.roc_curve(same, scores.reshape(-1))
    return curve[0], curve[1], float(_auc(same, scores.reshape(-1)))


_auc = jax.jit(classification.auc)


def _recognition_table(
    context: Context, part: str, scored: Mapping[str, tuple[np.ndarray, np.ndarray, list[str]]]
) -> Table:
    rows = {}
    for name, (labels, scores, photos) in scored.items():
        found = judges.recognition(labels, scores)
        samples = [
            judges.recognition(labels[places], scores[places])
            for places in _resampled(photos, context.studio.config.seed)
        ]
        rows[name] = {"pairs": Cell(float(len(labels)))}
        for column in RECOGNITION:
            values = [sample[column.key] for sample in samples]
            known = [value for value in values if not np.isnan(value)]  # AUC needs two paintings
            low, high = np.percentile(known, [2.5, 97.5]) if known else (np.nan, np.nan)
            rows[name][column.key] = Cell(found[column.key], float(low), float(high))
    columns = (Column("pairs", "pictures", digits=0), *RECOGNITION)
    note = "In brackets: 95% intervals by bootstrap over the photographs."
    title = f"Style recognised, {part} photographs"
    return Table(f"recognition_{part}", title, columns, rows, (note,))


def _resampled(photos: Sequence[str], seed: int) -> list[np.ndarray]:
    """Places of records, photographs drawn again with all their pictures."""
    rng = np.random.default_rng(seed)
    names, numbers = np.unique(photos, return_inverse=True)
    places = [np.flatnonzero(numbers == number) for number in range(len(names))]
    drawn = rng.integers(len(names), size=(_RESAMPLES, len(names)))
    return [np.concatenate([places[i] for i in row]) for row in drawn]


# --- convergence ---------------------------------------------------------------------------------


def convergence(runs: Mapping[str, str], folder: Path) -> Section:
    """Loss and accuracy against the step, of training runs.

    Raises:
        UserError: a folder is no run, or has no steps yet.
    """
    losses, accuracies, rows = {}, {}, {}
    for name, run in runs.items():
        path = epath.Path(run).expanduser() / "metrics.jsonl"
        lines = read_rows(path)
        steps, values = _series(lines, "loss")
        if not steps:
            raise UserError(f"runs.{name}: {path} has no losses: expected the folder of a run")
        relative = [value / values[0] for value in values]
        losses[name] = (steps, relative)
        cells = {"steps": Cell(float(steps[-1])), "loss": Cell(relative[-1])}
        held_out = _series(lines, "held_out/loss")[1]
        if held_out:
            cells["held_out"] = Cell(held_out[-1])
        seen = _series(lines, "held_out/accuracy")
        if seen[0]:
            accuracies[name] = seen
            cells["accuracy"] = Cell(seen[1][-1])
        rows[name] = cells
    plots = []
    for key, title, series in (
        ("loss", "loss / first loss", losses),
        ("accuracy", "accuracy", accuracies),
    ):
        if series:
            path = folder / f"convergence_{key}.png"
            report.curves(series, path, xlabel="step", ylabel=title, title=f"Training: {key}")
            plots.append((path, f"{title} against the step"))
    columns = (
        Column("steps", "steps", digits=0),
        Column("loss", "last loss / first loss", better="low"),
        Column("held_out", "loss on held-out photographs"),
        Column("accuracy", "accuracy", better="high"),
    )
    table = Table("convergence", "Where training ended", columns, rows, ())
    return Section("Convergence", _CONVERGENCE, (table,), tuple(plots))


_CONVERGENCE = """\
Losses of different weights and networks have no common unit: each is divided by its first value, \
which is large where the learning rate threw a run off at its start. The loss on held-out \
photographs is shown as it is; compare it between runs that differ in nothing else than training."""


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    # What was not finite is null.
    found = [
        (line["step"], math.nan if line[key] is None else line[key])
        for line in lines
        if key in line
    ]
    return [step for step, _ in found], [value for _, value in found]
