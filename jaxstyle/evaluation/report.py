"""What a reader gets of an evaluation: plots, and one page that has everything in it."""

from __future__ import annotations

import base64
import html
import importlib.resources
import io
import itertools
import math
import string
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxstyle import images
from jaxstyle.evaluation.cells import NOTHING, Cell, Column, Table
from jaxstyle.evaluation.tables import PathLike, write_file

PAGE = "report.html"
"""The name of the page."""

# Okabe and Ito 2008, "Color Universal Design": told apart by colour-blind readers, too. Their
# yellow is left out: a line of it is too faint on white.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("-", "--", ":", "-.")  # each with all of the colours
_BAR, _INK, _FAINT = "#56b4e9", "#1c1c1c", "#6a6a6a"
_WIDTH, _RESOLUTION = 7.5, 150  # inches, and dots in one
_ROW = 0.2  # inches from one line of text to the next
_MARKED = 30  # points at most of a curve whose points are marked
_QUALITY = 88  # of the JPEGs in the page
_BETTER = {"high": ", higher is better", "low": ", lower is better", "": ""}


# --- plots ---------------------------------------------------------------------------------------


def bars(table: Table, column_key: str, path: PathLike, *, title: str | None = None) -> None:
    """Plots a column of a table: a bar a row, from the top, with its interval and its value.

    A row without a number has a dash. The intervals of a difference are not drawn: they are not
    around the ends of the bars.

    Args:
        table: where the column is.
        column_key: of the column.
        path: the PNG file to write; one that exists is replaced.
        title: above the plot; None for that of the table.

    Raises:
        ValueError: there is no such column.
        UserError: the file cannot be written.
    """
    column, cells = table.column(column_key), table.cells(column_key)
    names = [_literal(name, width=34) for name in cells]
    height = sum(_ROW * (1.6 + name.count("\n")) for name in names)
    figure, axes = _figure(height + 1.1, table.title if title is None else title)
    for place, cell in enumerate(cells.values()):
        _bar(axes, place, cell, column)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.1)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=_FAINT, linewidth=0.8)
    unit = f" ({column.unit})" if column.unit else ""
    axes.set_xlabel(_literal(f"{column.title}{unit}{_BETTER[column.better]}", width=80))
    _write_figure(figure, path)


def _bar(axes: Any, place: int, cell: Cell, column: Column) -> None:
    """A row of `bars`."""
    end = 0.0
    if cell.number is not None:
        axes.barh(place, cell.number, height=0.65, color=_BAR)
        end = max(end, cell.number)
        if cell.low is not None and cell.high is not None and not column.difference:
            axes.plot([cell.low, cell.high], [place, place], color=_INK, linewidth=1.5)
            end = max(end, cell.high)
    axes.annotate(
        _literal(cell.text(column)[0]),
        (end, place),
        xytext=(4, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize="small",
    )


def curves(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: PathLike,
    *,
    xlabel: str,
    ylabel: str,
    title: str,
) -> None:
    """Plots curves. What is not finite is a gap.

    Args:
        series: x and y of each curve, `[n]` both, by what it is called.
        path: the PNG file to write; one that exists is replaced.
        xlabel: below the plot.
        ylabel: at its side.
        title: above it.

    Raises:
        ValueError: a curve has not as many x as y.
        UserError: the file cannot be written.
    """
    figure, axes = _figure(4.2, title)
    lines = {}
    for style, (name, (x, y)) in zip(_line_styles(), series.items(), strict=False):
        x, y = _points(name, x, y)
        marker = "o" if x.size <= _MARKED else ""
        lines[name] = axes.plot(x, y, marker=marker, markersize=4, **style)[0]
    axes.set_xlabel(_literal(xlabel, width=80))
    axes.set_ylabel(_literal(ylabel, width=45))
    _legend(figure, lines)
    _write_figure(figure, path)


def roc(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, float]],
    path: PathLike,
    *,
    title: str = "Receiver operating characteristic",
) -> None:
    """Plots receiver operating characteristics, with the diagonal that guessing gives.

    Args:
        curves: false positive rates, true positive rates, `[n]` both, and the area under the
            curve, by what the curve is called.
        path: the PNG file to write; one that exists is replaced.
        title: above the plot.

    Raises:
        ValueError: a curve has not as many false as true positive rates.
        UserError: the file cannot be written.
    """
    figure, axes = _figure(5.6, title)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.8, linestyle=(0, (2, 4)))
    lines = {}
    for style, (name, (x, y, area)) in zip(_line_styles(), curves.items(), strict=False):
        x, y = _points(name, x, y)
        shown = f"{area:.3f}" if math.isfinite(area) else NOTHING
        lines[f"{name} (area {shown})"] = axes.plot(x, y, **style)[0]
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    _legend(figure, lines)
    _write_figure(figure, path)


def _figure(height: float, title: str) -> tuple[Any, Any]:
    """A figure and its axes."""
    # The object interface leaves the caller's own figures and backend alone, and nothing open.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(_literal(title, width=80), fontsize="large")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line_styles() -> Any:
    """How each curve is drawn, until all are told apart; from the beginning then."""
    styles = [
        {"color": color, "linestyle": dashes, "linewidth": 1.6}
        for dashes, color in itertools.product(_DASHES, _COLORS)
    ]
    return itertools.cycle(styles)


def _points(name: str, x: ArrayLike, y: ArrayLike) -> tuple[Any, Any]:
    """A curve's points; what is not finite is nan, which matplotlib leaves out."""
    found = [np.asarray(values, np.float64) for values in (x, y)]
    if found[0].ndim != 1 or found[0].shape != found[1].shape:
        raise ValueError(
            f"{name}: expected x and y of the same shape [n], "
            f"got {list(found[0].shape)} and {list(found[1].shape)}"
        )
    x, y = (np.where(np.isfinite(values), values, np.nan) for values in found)
    return x, y


def _legend(figure: Any, lines: Mapping[str, Any]) -> None:
    """Names below the plot, which grows by the room that they take."""
    if not lines:
        return
    names = [_literal(name, width=80) for name in lines]
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(1, min(len(names), 90 // (longest + 8)))
    rows = math.ceil(sum(1 + name.count("\n") for name in names) / columns)
    figure.set_figheight(figure.get_figheight() + _ROW * rows)
    figure.legend(
        list(lines.values()),
        names,
        loc="outside lower center",
        ncols=columns,
        fontsize="small",
        frameon=False,
        handlelength=3,
    )


def _literal(text: str, *, width: int = 0) -> str:
    """Text as matplotlib shows it as it is, in lines of at most `width` letters."""
    # A line: no formulas between dollars. And no name that begins with _, which legends leave out.
    lines = textwrap.wrap(text, width) if width else [text]
    shown = "\n".join(lines).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _write_figure(figure: Any, path: PathLike) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_RESOLUTION)
    write_file(path, buffer.getvalue())


# --- the page ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: plain text, with an empty line between paragraphs.
        tables: what it shows.
        pictures: files and their captions, below the tables.
    """

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    pictures: tuple[tuple[PathLike, str], ...] = ()


def write_report(
    folder: PathLike,
    *,
    title: str,
    sections: Sequence[Section],
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Writes `report.html`: one file with all tables and pictures in it.

    It needs no network and runs no script. Pictures become JPEG; those that are smaller as the PNG
    that they are, as plots are, stay that.

    Args:
        folder: where it goes; it is made if it is missing, and a report in it is replaced.
        title: the heading of the page.
        sections: its parts, in their order.
        facts: what it was made with: the command, the machine, versions, settings.

    Returns:
        The path of the page.

    Raises:
        UserError: a picture cannot be read, or the page cannot be written.
    """
    names = [f"section-{number}" for number in range(1, len(sections) + 1)]
    entries = [
        f'<li><a href="#{name}">{html.escape(section.title)}</a></li>'
        for name, section in zip(names, sections, strict=True)
    ]
    contents = ['<nav aria-label="Contents">', "<ol>", *entries, "</ol>", "</nav>"]
    body = [f"<h1>{html.escape(title)}</h1>", *(contents if sections else [])]
    body += _facts(facts or {})
    for name, section in zip(names, sections, strict=True):
        body += _section(name, section)
    template = importlib.resources.files("jaxstyle.evaluation").joinpath("report.html")
    page = string.Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(title), body="\n".join(body)
    )
    path = Path(folder) / PAGE
    write_file(path, page.encode())
    return path


def _facts(facts: Mapping[str, str]) -> list[str]:
    """The block of what the report was made with."""
    if not facts:
        return []
    entries = [
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in facts.items()
    ]
    return [
        "<section>",
        "<h2>What this was made with</h2>",
        "<dl>",
        *entries,
        "</dl>",
        "</section>",
    ]


def _section(name: str, section: Section) -> list[str]:
    paragraphs = [" ".join(part.split()) for part in section.text.split("\n\n")]
    return [
        f'<section id="{name}">',
        f"<h2>{html.escape(section.title)}</h2>",
        *(f"<p>{html.escape(part)}</p>" for part in paragraphs if part),
        *(line for table in section.tables for line in _table(table)),
        *(line for path, caption in section.pictures for line in _picture(path, caption)),
        "</section>",
    ]


def _table(table: Table) -> list[str]:
    """A table, which scrolls where the page is too narrow for it, and its notes."""
    title = html.escape(table.title)
    head = [f'<th scope="col">{html.escape(table.row_title)}</th>']
    for column in table.columns:
        kind = ' class="number"' if not table.has_words(column.key) else ""
        # An interval has a cell of its own, for values to stand below each other.
        kind = ' colspan="2"' if table.has_intervals(column.key) else kind
        head.append(f'<th scope="col"{kind}>{html.escape(column.heading)}</th>')
    rows = []
    for row, cells in table.rows.items():
        line = [f'<th scope="row">{html.escape(row)}</th>']
        line += [_cell(table, column, cells.get(column.key, Cell())) for column in table.columns]
        rows.append(f"<tr>{''.join(line)}</tr>")
    return [
        "<figure>",
        f"<figcaption>{title}</figcaption>",
        f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">',
        "<table>",
        f"<thead><tr>{''.join(head)}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody>",
        "</table>",
        "</div>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in table.notes),
        "</figure>",
    ]


def _cell(table: Table, column: Column, cell: Cell) -> str:
    value, interval = map(html.escape, cell.text(column))
    if table.has_intervals(column.key):
        return f'<td class="value">{value}</td><td class="interval">{interval}</td>'
    return (
        f'<td class="number">{value}</td>'
        if not table.has_words(column.key)
        else f"<td>{value}</td>"
    )


def _picture(path: PathLike, caption: str) -> list[str]:
    """A picture with its caption."""
    shown = html.escape(caption)
    kind, content, (height, width) = _encoded(path)
    data = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return [
        f'<figure class="picture {kind}">',
        f'<img src="{data}" alt="{shown}" width="{width}" height="{height}">',
        f"<figcaption>{shown}</figcaption>",
        "</figure>",
    ]


def _encoded(path: PathLike) -> tuple[str, bytes, tuple[int, int]]:
    """A picture for the page: its format, its bytes, its height and width."""
    pixels, alpha = images.load(path, max_pixels=None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        images.save(file, pixels, alpha=alpha, quality=_QUALITY)
        jpeg = file.read_bytes()
    size = (pixels.shape[0], pixels.shape[1])
    png = Path(path).read_bytes()
    if png.startswith(b"\x89PNG") and len(png) <= len(jpeg):
        return "png", png, size
    return "jpeg", jpeg, size
