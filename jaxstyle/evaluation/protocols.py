"""The parts of a report on pairs: each judges pictures, and shows what came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxstyle import images
from jaxstyle.evaluation import judges, pictures, report, tables
from jaxstyle.evaluation.cells import Cell, Column, Table
from jaxstyle.evaluation.context import Context
from jaxstyle.evaluation.report import Section
from jaxstyle.evaluation.scores import Record

_TESTS = 5
# The rows of a contact sheet.
_SHOWN = 8

DISTANCES = (
    Column("gram", "Gram", better="low"),
    Column("moments", "mean/std", better="low"),
    Column("wasserstein", "Wasserstein-2", better="low"),
    Column("colors", "colour histogram", better="low"),
    Column("content_distance", "content", better="low"),
    Column("perceptual", "perceptual", better="low"),
    Column("lpips", "LPIPS", better="low"),
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
_MIOU = STRUCTURE[0]
COMPOSITION = (Column("composition", "MIoU of shares", better="high"),)


def pair_records(context: Context) -> list[Record]:
    """The figures of every method on every pair that it paints."""
    studio, records = context.studio, []
    score = studio.score_pair(studio.regions())
    for name in context.painters:
        records += context.judged(name, "pairs", studio.photos, studio.pairs_of(name), score)
    return records


def _overall(
    context: Context, records: Sequence[Record], columns: Sequence[Column], **options: Any
) -> Table:
    """`tables.overall` with all the rows, or the `methods` among the options."""
    given = {"methods": list(context.painters), **context.statistics, **options}
    return tables.overall(records, columns, **given)


def by_style(
    context: Context, records: Sequence[Record], column: Column, *, name: str = ""
) -> Table:
    """A metric painting by painting, beside the baseline on the same photographs.

    Args:
        context: see there.
        records: of all methods.
        column: the metric.
        name: of the table, by default that of the metric with `_by_style`.
    """
    baseline, there = context.studio.config.baseline, {row["method"] for row in records}
    return tables.by_style(
        records,
        column,
        methods=[method for method in context.painters if method in there],
        baseline=baseline,
        name=name or f"{column.key}_by_style",
        title=f"{column.title} for each painting, beside that of {baseline}",
        **context.statistics,
    )


def distances(context: Context, records: Sequence[Record]) -> Section:
    """Distances to photographs and paintings, and a sheet of pictures."""
    present = [column for column in DISTANCES if any(column.key in row for row in records)]
    title = "Distance to the painting and to the photograph"
    whole = _overall(context, records, present, name="distances", title=title)
    each = [by_style(context, records, column) for column in present]
    folder = context.studio.folder
    shown = [(_plotted(context, whole, key), title) for key, title in _PLOTTED.items()]
    _save_sheet(context, folder / "pairs.png")
    shown.append((folder / "pairs.png", _SHEET))
    same = _on_common_pairs(context, records, present)
    return Section("Distances", _DISTANCES, (whole, same, *each), tuple(shown))


def _on_common_pairs(
    context: Context, records: Sequence[Record], columns: Sequence[Column]
) -> Table:
    """The methods that paint in every style, on the pairs that all of them have painted."""
    every = set(context.studio.paintings)
    methods = [name for name, painter in context.painters.items() if {*painter.styles} >= every]
    absent = [name for name in context.painters if name not in methods]
    notes = [f"Without {', '.join(absent)}, which know some of the paintings."] if absent else []
    return _overall(
        context,
        records,
        [*columns, *COMPOSITION, dataclasses.replace(_MIOU, title="MIoU of regions")],
        methods=methods,
        name="common",
        title="The same pairs for all methods",
        common=True,
        notes=notes,
    )


def _plotted(context: Context, table: Table, key: str) -> Path:
    """A plot of a column."""
    path = context.studio.folder / f"{table.name}_{key}.png"
    report.bars(table, key, path)
    return path


_PLOTTED = {"gram": "Gram distance to the painting", "ssim": "Structural similarity"}

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
    title = "Regions of the photograph found again (clusters of its features)"
    whole = _overall(context, records, STRUCTURE, name="structure", title=title)
    shown = [whole, by_style(context, records, _MIOU)]
    plots = [(_plotted(context, whole, _MIOU.key), "Clusters found again: MIoU")]
    if config.segmented and config.segments:
        drawn = _segmented(context)
        shown += drawn
        plots.append((_plotted(context, drawn[0], _MIOU.key), "People's regions found again: MIoU"))
    return Section("Structure kept", _STRUCTURE, tuple(shown), tuple(plots))


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
        return judges.structure(made, own[pair.photo], regions[pair.photo])

    pairs = [pictures.Pair(photo, style) for photo in photos for style in studio.paintings]
    drawn = {name: labels.tolist() for name, labels in regions.items()}
    records: list[Record] = []
    for name in context.one_pass:
        records += context.judged(name, "segmented", photos, pairs, score, beside=drawn)
    whole = _overall(
        context,
        records,
        STRUCTURE,
        methods=context.one_pass,
        name="structure_segmented",
        title="Regions of the photograph found again (drawn by people)",
        notes=context.left_out,
    )
    each = by_style(context, records, _MIOU, name="structure_segmented_by_style")
    return [whole, each, _five_tests(records, list(photos), context)]


def _five_tests(records: Sequence[Record], photos: Sequence[str], context: Context) -> Table:
    test_of = {photo: index % _TESTS for index, photo in enumerate(photos)}
    rows = {}
    for method in context.one_pass:
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
        (f"{len(photos)} photographs, dealt to the tests in turn.", *context.left_out),
    )


def composition(context: Context, records: Sequence[Record]) -> Section:
    """Shares of the painting's clusters."""
    title = "Composition of the painting found again"
    shown = _overall(context, records, COMPOSITION, name="composition", title=title)
    each = by_style(context, records, COMPOSITION[0])
    plot = _plotted(context, shown, COMPOSITION[0].key)
    plots = ((plot, "Composition of the painting found again: MIoU of shares"),)
    return Section("Style composition", _COMPOSITION, (shown, each), plots)


_COMPOSITION = """\
The positions of the painting's feature map are clustered; the figure is the mean over clusters of \
the smaller share over the larger one, of the painting's positions and of the picture's. It is 1 \
for the painting itself, and the nearest to what Pu and Li write of their MIoU."""
