"""Tests of the comparisons in jaxstyle.training.report; tests/test_loop.py has the rest."""

from etils import epath

from jaxstyle import images
from jaxstyle.training import report

RUNS = {
    "0.1": [
        {"step": 1, "learning_rate": 0.1, "style": 3.0, "loss": 4.0, "tv": 0.0, "seconds": 1.0},
        {"step": 1, "held_out/loss": 5.0, "held_out/accuracy": 0.75, "held_out/tv": 0.0},
        {"step": 2, "learning_rate": 0.1, "style": 1.0, "loss": 2.0, "tv": 0.0, "seconds": 2.0},
        {"step": 2, "held_out/loss": 6.0, "held_out/accuracy": 0.5, "held_out/tv": 0.0},
    ],
    "a|b": [],
}


def test_the_table_has_last_and_best_values():
    text = report.comparison_table(RUNS, {"0.1": "done", "a|b": "to come"}, title="rate")
    assert [line for line in text.splitlines() if line.startswith(("|", "##"))] == [
        "| rate | state | step |",
        "| --- | --- | --- |",
        "| 0.1 | done | 2 |",
        "| a\\|b | to come | 0 |",
        "## Held out",
        "| rate | loss | accuracy |",
        "| --- | --- | --- |",
        "| 0.1 | 6 (5 at 1) | 0.5 (0.75 at 1) |",
        "| a\\|b |  |  |",
        "## Training",
        "| rate | loss | style |",
        "| --- | --- | --- |",
        "| 0.1 | 2 (2 at 2) | 1 (1 at 2) |",
        "| a\\|b |  |  |",
    ]


def test_the_plot_has_a_panel_a_metric_and_a_colour_a_run(tmp_path, monkeypatch):
    figures, write = [], report._write_figure
    monkeypatch.setattr(
        report, "_write_figure", lambda figure, path: (figures.append(figure), write(figure, path))
    )
    path = epath.Path(tmp_path / "comparison.png")
    report.plot_comparison({"a": [], "b": []}, path, title="rate")
    assert not path.exists()
    runs = RUNS | {"0.2": [{"step": 1, "held_out/loss": 1.0, "loss": None}]}
    report.plot_comparison(runs, path, title="rate")
    assert images.load(tmp_path / "comparison.png").pixels.std() > 0
    (figure,) = figures
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["loss", "accuracy", "style", "learning_rate"]  # tv is zero throughout
    curves = [(list(line.get_ydata()), line.get_color()) for line in panels["loss"].lines]
    assert curves == [([4, 2], "C0"), ([5, 6], "C0"), ([1], "C2")]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["0.1", "a|b", "0.2", "training", "held out"]
