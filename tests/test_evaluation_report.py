"""Tests of the plots and of the page in jaxstyle.evaluation.report."""

import base64
import html.parser
import itertools
import math

import numpy as np
import pytest

from jaxstyle import images
from jaxstyle.errors import UserError
from jaxstyle.evaluation import report
from jaxstyle.evaluation.cells import Cell, Column, Table
from jaxstyle.evaluation.report import Section

LONG = "a residual network with instance normalisation after 40000 updates of 256 x 256 pixels"
TABLE = Table(
    "metrics",
    "Metrics <of> all & more",
    (
        Column("ssim", "SSIM <1>", better="high"),
        Column("gain", "gain", difference=True),
        Column("note", "note"),
    ),
    {
        "photo": {"ssim": Cell(1.0, 0.9, 1.2), "gain": Cell(0.5, -0.25, 0.75)},
        LONG: {"ssim": Cell(0.5), "note": Cell("<i>slow</i>")},
        "$x_1$ <b>": {"ssim": Cell(None)},
        "_below": {"ssim": Cell(-0.25, -0.5, -0.125)},
    },
    ("The judge is <lite>.",),
)


@pytest.fixture
def figures(monkeypatch):
    """The figures that were written."""
    found, write = [], report._write_figure

    def keep(figure, path):
        found.append(figure)
        write(figure, path)

    monkeypatch.setattr(report, "_write_figure", keep)
    return found


def _apart(figure, texts):
    """Whether texts lie within the figure, and none on another."""
    figure.draw_without_rendering()  # writing has a resolution of its own
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    inside = all(
        box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for box in boxes
    )
    return inside and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# --- plots ---------------------------------------------------------------------------------------


def test_bars_have_values_and_intervals(tmp_path, figures):
    report.bars(TABLE, "ssim", tmp_path / "bars.png")
    (axes,) = figures[0].axes
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in axes.patches] == [
        (pytest.approx(0), 1.0),
        (pytest.approx(1), 0.5),
        (pytest.approx(3), -0.25),
    ]
    ends = [tuple(line.get_xdata()) for line in axes.lines if len(set(line.get_xdata())) == 2]
    assert ends == [(0.9, 1.2), (-0.5, -0.125)]
    assert [text.get_text() for text in axes.texts] == ["1.000", "0.500", "–", "-0.250"]
    assert axes.yaxis_inverted()  # the first row is above
    assert axes.get_xlabel() == "SSIM <1>, higher is better"
    assert figures[0].get_suptitle() == TABLE.title
    assert images.load(tmp_path / "bars.png").pixels.std() > 0


def test_long_names_are_not_on_each_other(tmp_path, figures):
    rows = {f"{number} {LONG}": {"ssim": Cell(number)} for number in range(12)}
    table = Table("long", f"{LONG}, {LONG}", TABLE.columns, rows)
    report.bars(table, "ssim", tmp_path / "bars.png")
    (axes,) = figures[0].axes
    assert _apart(figures[0], [*axes.get_yticklabels(), *axes.texts, figures[0]._suptitle])
    left = max(text.get_window_extent().x1 for text in axes.get_yticklabels())
    assert left <= axes.bbox.x0 < 0.5 * figures[0].bbox.x1  # half of the width is left for bars


def test_intervals_of_differences_are_not_drawn_at_bars(tmp_path, figures):
    report.bars(TABLE, "gain", tmp_path / "bars.png", title="Gain")
    (axes,) = figures[0].axes
    assert all(len(set(line.get_xdata())) == 1 for line in axes.lines)
    assert figures[0].get_suptitle() == "Gain"
    with pytest.raises(ValueError, match="there is no column 'psnr'"):
        report.bars(TABLE, "psnr", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


LABELS = {"xlabel": "update", "ylabel": "loss", "title": "Convergence"}


def test_curves_are_told_apart(tmp_path, figures):
    series = {f"_{number} {LONG}": ([1, 10, 100], [1, math.inf, number]) for number in range(9)}
    report.curves(series, tmp_path / "curves.png", **LABELS)
    (axes,) = figures[0].axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 9
    np.testing.assert_equal(axes.lines[3].get_ydata(), [1, np.nan, 3])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("update", "loss")
    (legend,) = figures[0].legends
    texts = legend.get_texts()
    assert [" ".join(text.get_text().split()) for text in texts] == list(series)
    assert [line.get_color() for line in legend.get_lines()] == [
        line.get_color() for line in axes.lines
    ]
    assert _apart(figures[0], [*texts, axes.xaxis.label, axes.yaxis.label])
    assert axes.bbox.height > 2 * 150  # the legend takes nothing of the plot


def test_curves_of_nothing(tmp_path, figures):
    report.curves({}, tmp_path / "b.png", **LABELS)
    report.curves({"": ([], [])}, tmp_path / "c.png", **LABELS)
    with pytest.raises(ValueError, match=r"a: expected x and y of the same shape \[n\]"):
        report.curves({"a": ([0, 1], [0])}, tmp_path / "d.png", **LABELS)


def test_roc_has_the_area_and_the_diagonal(tmp_path, figures):
    curves = {"good": ([0, 0, 1], [0, 1, 1], 1.0), "unknown": ([0, 1], [0, 1], math.nan)}
    report.roc(curves, tmp_path / "roc.png")
    (axes,) = figures[0].axes
    found = [[list(line.get_xdata()), list(line.get_ydata())] for line in axes.lines]
    assert found == [[[0, 1], [0, 1]], [[0, 0, 1], [0, 1, 1]], [[0, 1], [0, 1]]]
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts == ["good (area 1.000)", "unknown (area –)"]
    assert axes.bbox.width == pytest.approx(axes.bbox.height)


def test_plots_leave_nothing_open_and_are_the_same_again(tmp_path):
    from matplotlib import pyplot

    for name in ("a.png", "b.png"):
        report.bars(TABLE, "ssim", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert pyplot.get_fignums() == []
    with pytest.raises(UserError, match="cannot be written"):
        report.bars(TABLE, "ssim", tmp_path / "a.png" / "c.png")


# --- the page ------------------------------------------------------------------------------------

VOID = {"meta", "link", "img"}


class Page(html.parser.HTMLParser):
    """What is in a page: elements, references and texts, in their order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.texts.append((self.open[-1], " ".join(data.split())))

    def of(self, tag):
        return [text for where, text in self.texts if where == tag]

    def attribute(self, name):
        return [found[name] for _, found in self.attributes if name in found]


@pytest.fixture
def page(tmp_path):
    """A page of all kinds of things, and its folder."""
    report.bars(TABLE, "ssim", tmp_path / "plot.png")
    noise = np.random.default_rng(0).random((40, 60, 3)).astype(np.float32)
    images.save(tmp_path / "sheet.png", noise)
    sections = [
        Section("First <one>", "A paragraph,\nof two lines.\n\n\nAnd <script>another</script>."),
        Section(
            'Second "one"',
            tables=(TABLE, Table("empty", "Empty", (), {})),
            pictures=(
                (tmp_path / "plot.png", 'A "plot" & more'),
                (tmp_path / "sheet.png", "Noise"),
            ),
        ),
    ]
    facts = {"command": "jaxstyle evaluate --set a=<b>", "versions": "jax 1\nnumpy 2"}
    path = report.write_report(
        tmp_path / "out", title="A <title> costs $5", sections=sections, facts=facts
    )
    assert path == tmp_path / "out" / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_shows_everything_as_it_is(page):
    assert page.of("title") == page.of("h1") == ["A <title> costs $5"]
    assert page.of("h2") == ["What this was made with", "First <one>", 'Second "one"']
    assert page.of("dt") == ["command", "versions"]
    assert page.of("dd") == ["jaxstyle evaluate --set a=<b>", "jax 1 numpy 2"]
    assert page.of("p") == [
        "A paragraph, of two lines.",
        "And <script>another</script>.",
        "The judge is <lite>.",
    ]
    assert page.of("figcaption") == [TABLE.title, "Empty", 'A "plot" & more', "Noise"]
    assert {"script", "b", "i", "iframe", "object", "form"}.isdisjoint(page.tags)


def test_the_page_has_a_table_of_contents(page):
    assert page.of("a") == ["First <one>", 'Second "one"']
    links = [found["href"] for tag, found in page.attributes if tag == "a"]
    targets = [f"#{name}" for name in page.attribute("id")]
    assert links == targets
    assert len(set(targets)) == 2


def test_the_page_has_all_tables(page):
    assert page.tags.count("table") == 2
    assert page.of("th") == ["method", "SSIM <1> ↑", "gain", "note", *TABLE.rows, "method"]
    assert page.of("td") == [
        *("1.000", "[0.900, 1.200]", "0.500", "[-0.250, +0.750]", "–"),
        *("0.500", "–", "<i>slow</i>"),
        *("–", "–", "–"),
        *("-0.250", "[-0.500, -0.125]", "–", "–"),
    ]
    cells = [int(found.get("colspan", 1)) for tag, found in page.attributes if tag == "th"]
    assert sum(cells[:4]) == 6  # as many as there are cells in a row
    assert page.tags.count("td") == 4 * 5


def test_the_page_refers_to_nothing_outside(page):
    references = [*page.attribute("src"), *page.attribute("href")]
    assert len(references) == 5
    assert all(reference.startswith(("#", "data:")) for reference in references)
    (policy,) = [text for text in page.attribute("content") if "default-src" in text]
    assert "default-src 'none'" in policy


def test_plots_stay_png_and_sheets_become_jpeg(page, tmp_path):
    pictures = [found for tag, found in page.attributes if tag == "img"]
    assert [found["alt"] for found in pictures] == ['A "plot" & more', "Noise"]
    head, plot = pictures[0]["src"].split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(plot) == (tmp_path / "plot.png").read_bytes()
    head, sheet = pictures[1]["src"].split(",")
    assert head == "data:image/jpeg;base64"
    shown = images.decode(base64.b64decode(sheet), name="sheet") / 255
    original = images.load(tmp_path / "sheet.png").pixels
    assert (pictures[1]["width"], pictures[1]["height"]) == ("60", "40")
    assert 0 < np.abs(shown - original).mean() < 0.06


def test_a_page_without_anything(tmp_path):
    report.write_report(tmp_path, title="Nothing", sections=[])
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.texts == [("title", "Nothing"), ("h1", "Nothing")]


def test_a_picture_that_is_missing_leaves_the_old_page(tmp_path):
    path = report.write_report(tmp_path, title="Old", sections=[])
    sections = [Section("New", pictures=((tmp_path / "none.png", ""),))]
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        report.write_report(tmp_path, title="New", sections=sections)
    assert "Old" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
