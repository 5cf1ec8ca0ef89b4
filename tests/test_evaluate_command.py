"""Tests of an evaluation from its settings to its report, and of the commands, with tiny models."""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from networks import random_weights, save_lpips
from processes import ROOT
from sklearn import metrics as reference
from test_evaluation import SHORT, STYLES, picture, residual_model

from jaxstyle import cli, images, models, runtime, weights
from jaxstyle.errors import UserError
from jaxstyle.evaluation import (
    judges,
    machine,
    painters,
    protocols,
    recognition,
    run,
    speed,
    speeds,
    tables,
)
from jaxstyle.evaluation.config import EvaluateConfig, MethodConfig

pytestmark = pytest.mark.usefixtures("quick_compiler")

PHOTOS = ("a", "b", "c")
CONFIG = """
from jaxstyle.evaluation.config import EvaluateConfig, MethodConfig

def get_config():
    return EvaluateConfig(
        size=32, protocols=("distances",), resamples=20, clusters=4,
        features={features!r},
        methods={{
            "photo": MethodConfig(),
            "ours": MethodConfig(kind="residual", model={model!r}),
            "rest": MethodConfig(kind="residual", model={model!r}),
        }},
    )
"""


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Programs that run once need no optimisation, and the judge is compiled but once."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "Judge", functools.cache(judges.Judge))
        patch.setattr(recognition, "RESAMPLES", 4)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def write_segments(path, columns):
    """Two regions, side by side."""
    pixels = np.zeros((32, 32, 3), np.float32)
    pixels[:, columns:] = 1
    images.save(path, pixels)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of pictures that have their size already, of models and of a run."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("photos", "paintings", "segments", "run"):
        (folder / name).mkdir()
    for seed, name in enumerate(PHOTOS):
        images.save(folder / "photos" / f"{name}.png", picture(seed))
    for seed, name in enumerate(PHOTOS):
        write_segments(folder / "segments" / f"{name}.png", 8 * (seed + 1))
    for seed, name in enumerate(STYLES, 10):
        images.save(folder / "paintings" / f"{name}.png", picture(seed))
    models.save(folder / "two.safetensors", residual_model(STYLES))
    models.save(folder / "one_leaf.safetensors", residual_model(("0",), seed=1))
    weights.save(folder / "net.safetensors", random_weights())
    held_out = {"held_out/accuracy": 0.5, "held_out/loss": 2.5}
    lines = [{"step": 10, "loss": 4.0}, {"step": 20, "loss": 3.0, **held_out}]
    lines += [{"step": 30, "loss": None}, {"step": 40, "loss": 1.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "run" / "metrics.jsonl").write_text(text + '{"step": 50, "lo')
    (folder / "config.py").write_text(
        CONFIG.format(
            features=str(folder / "net.safetensors"), model=str(folder / "two.safetensors")
        )
    )
    return folder


def make_methods(files):
    ours = str(files / "two.safetensors")
    return {
        "photo": MethodConfig(),
        "painting": MethodConfig(kind="painting"),
        "ours": MethodConfig(kind="residual", model=ours),
        "one": MethodConfig(kind="residual", model=str(files / "one_{style}.safetensors")),
        "gone": MethodConfig(kind="residual", model=str(files / "gone.safetensors")),
        "slow": MethodConfig(
            kind="gatys", features=str(files / "net.safetensors"), settings=SHORT, photos=1
        ),
    }


def make_config(files, **changes):
    settings = {
        "title": "Small pictures",
        "content": str(files / "photos"),
        "style": str(files / "paintings"),
        "size": 32,
        "methods": make_methods(files),
        "protocols": ("distances", "structure", "composition", "recognition", "convergence"),
        "features": str(files / "net.safetensors"),
        "clusters": 4,
        "segmented": str(files / "photos"),
        "segments": str(files / "segments"),
        "training_content": str(files / "photos"),
        "runs": {"tiny": str(files / "run")},
        "resamples": 20,
    }
    return EvaluateConfig(**settings | changes)


def few(files, **changes):
    """Two rows and one protocol."""
    methods = {name: make_methods(files)[name] for name in ("photo", "ours")}
    small = {"methods": methods, "protocols": ("distances",), "runs": {}}
    return make_config(files, **small | changes)


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """The folder of an evaluation, and what it warned of."""
    folder, warnings = tmp_path_factory.mktemp("whole"), []
    assert run.evaluate(
        make_config(files), folder, command="jaxstyle evaluate <all>", warn=warnings.append
    )
    return folder, warnings


@pytest.fixture
def painted(monkeypatch):
    """The names of the rows that have painted, one for each picture."""
    found, make = [], painters.make

    def counted(name, config, paintings):
        painter = make(name, config, paintings)

        def paint(photo, style):
            found.append(name)
            return painter.paint(photo, style)

        return painter._replace(paint=paint)

    monkeypatch.setattr(painters, "make", counted)
    return found


def table(folder, name):
    return tables.from_json((folder / "tables" / f"{name}.json").read_text())


def values(folder, name):
    """What a table shows, by rows and columns."""
    rows = table(folder, name).rows
    return {row: {key: cell.value for key, cell in cells.items()} for row, cells in rows.items()}


def files_of(folder, pattern):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob(pattern)
        if path.is_file()
    }


# --- the report ----------------------------------------------------------------------------------


def test_the_folder_gets_a_report_and_tables(whole):
    folder, _ = whole
    absent = ("ms_ssim", "lpips")
    metrics = [column.key for column in protocols.DISTANCES if column.key not in absent]
    judged = ["distances", "common", *(f"{key}_by_style" for key in metrics)]
    judged += ["structure", "miou_by_style", "structure_segmented", "structure_tests"]
    judged += ["structure_segmented_by_style", "composition", "composition_by_style"]
    for part in ("test", "training"):
        judged += [f"recognition_{part}{kind}" for kind in ("", "_by_style", "_classes")]
    names = ["methods", *judged, "convergence"]
    expected = {f"{name}.{form}" for name in names for form in ("md", "csv", "json")}
    assert {path.name for path in (folder / "tables").iterdir()} == expected
    page = (folder / "report.html").read_text()
    for text in ("Small pictures", "jaxstyle evaluate &lt;all&gt;", "squares of 32 pixels"):
        assert text in page
    for name in names:
        assert table(folder, name).title in page
    plots = ["distances_gram", "structure_miou", "structure_segmented_miou", "pairs", "roc_test"]
    plots += ["composition_composition", "recognition_test_accuracy", "convergence_loss"]
    for plot in plots:
        assert (folder / f"{plot}.png").is_file()
    for name in judged:
        notes = "\n".join(table(folder, name).notes)
        assert table(folder, name).notes[-1] in (folder / "tables" / f"{name}.md").read_text()
        for text in ("processor: ", "Judged in: ", "squares of 32 pixels", "Seed: "):
            assert text in notes
    # What was trained elsewhere says nothing of this machine.
    assert not any("processor" in note for note in table(folder, "convergence").notes)
    # A row for each painting: its photograph, the painting, and three methods.
    sheet = images.load(folder / "pairs.png").pixels
    assert sheet.shape[1] / sheet.shape[0] > 1.5


def test_the_bounds_are_what_they_must_be(whole):
    folder, _ = whole
    distances, structure = values(folder, "distances"), values(folder, "structure")
    photo, painting = distances["photo"], distances["painting"]
    assert photo["ssim"] == pytest.approx(1, abs=1e-6)
    assert photo["psnr"] == "∞"
    assert photo["content_distance"] == pytest.approx(0, abs=1e-6) == photo["perceptual"]
    assert photo["gram"] > 0.01 < photo["colors"]
    assert painting["gram"] == pytest.approx(0, abs=1e-6) == painting["moments"]
    assert painting["colors"] == 0
    assert painting["ssim"] < 0.9
    composition = values(folder, "composition")
    assert composition["painting"]["composition"] == 1
    others = [row["composition"] for name, row in composition.items() if name != "painting"]
    assert max(others) < 1
    best = max(row["miou"] for row in structure.values())
    assert structure["photo"]["miou"] == best > structure["painting"]["miou"]
    recognized = values(folder, "recognition_test")
    assert recognized["painting"]["accuracy"] == recognized["painting"]["auc"] == 1
    assert recognized["photo"]["accuracy"] == 0.5


def test_a_difference_to_the_baseline_has_an_interval(whole):
    folder, _ = whole
    rows = table(folder, "gram_by_style").rows
    assert rows["photo"]["leaf"].low is None
    found = rows["painting"]["leaf"]
    assert found.low <= -rows["photo"]["leaf"].value <= found.high < 0


def test_pictures_are_recognised_painting_by_painting(whole):
    folder, _ = whole
    for part in ("test", "training"):
        rows = values(folder, f"recognition_{part}_by_style")
        accuracy = values(folder, f"recognition_{part}")
        assert list(rows) == list(accuracy)
        for name, row in rows.items():
            assert row["all paintings"] == pytest.approx(accuracy[name]["accuracy"], abs=1e-6)
        assert set(rows["painting"].values()) == {1}


def test_what_is_missing_is_left_out_with_a_warning(whole):
    folder, warnings = whole
    (line,) = warnings
    assert line.startswith("without gone: ")
    assert "gone.safetensors" in line
    rows = ["photo", "painting", "ours", "one", "slow"]
    assert list(values(folder, "distances")) == rows


def test_methods_paint_as_many_photographs_as_they_are_to(whole):
    folder, _ = whole
    pairs = {name: row["pairs"] for name, row in values(folder, "distances").items()}
    assert pairs == {"photo": 6, "painting": 6, "ours": 6, "one": 3, "slow": 2}
    made = {path.name for path in folder.glob("pictures/pairs/slow-*/*/*.png")}
    assert made == {"a.png", "b.png"}  # another one in each style
    # What is optimised paints neither those that people have segmented nor those of training.
    for name in ("structure_segmented", "structure_tests", "recognition_training"):
        assert list(values(folder, name)) == ["photo", "painting", "ours", "one"]


def test_of_one_painting_there_is_no_auc(whole):
    folder, _ = whole
    recognized = values(folder, "recognition_test")["one"]
    assert (recognized["pairs"], recognized["auc"]) == (3, None)
    assert table(folder, "recognition_test").rows["one"]["auc"].low is None
    assert recognized["accuracy"] is not None


def test_five_tests_are_means_over_their_photographs(whole):
    folder, _ = whole
    rows = values(folder, "structure_tests")
    for name in ("photo", "ours"):
        (path,) = folder.glob(f"scores/segmented/{name}-*.json")
        records = json.loads(path.read_text())["records"]
        assert len(records) == 6
        means = [np.mean([r["miou"] for r in records if r["content"] == x]) for x in PHOTOS]
        assert [rows[name][f"test{i}"] for i in (1, 2, 3)] == pytest.approx(means)
        assert [rows[name][f"test{i}"] for i in (4, 5)] == [None, None]  # of three photographs
        assert rows[name]["mean"] == pytest.approx(np.mean(means))
    assert "3 photographs" in table(folder, "structure_tests").notes[0]


def test_training_photographs_have_one_style_each(whole):
    folder, _ = whole
    (path,) = folder.glob("scores/training/ours-*.json")
    records = json.loads(path.read_text())["records"]
    assert [(r["content"], r["style"]) for r in records] == [
        ("a", "leaf"),
        ("b", "sand"),
        ("c", "leaf"),
    ]


def test_losses_are_relative_to_the_first(whole):
    folder, _ = whole
    row = values(folder, "convergence")["tiny"]
    assert row == {"steps": 40, "loss": 0.25, "held_out": 2.5, "accuracy": 0.5}


# --- going on ------------------------------------------------------------------------------------


def test_nothing_is_painted_or_judged_twice(files, whole, painted, monkeypatch):
    folder, _ = whole
    before, scores = files_of(folder / "tables", "*"), files_of(folder / "scores", "*.json")
    monkeypatch.setattr(judges, "distances", None)
    assert run.evaluate(make_config(files), folder)
    assert painted == []
    assert files_of(folder / "tables", "*") == before
    assert files_of(folder / "scores", "*.json") == scores


def test_an_evaluation_goes_on_where_it_was_stopped(files, tmp_path, painted):
    config, asked = few(files), []
    assert run.evaluate(config, tmp_path / "whole")
    assert painted == ["photo"] * 6 + ["ours"] * 6
    painted.clear()

    def stopping():
        asked.append(True)
        return len(asked) == 8

    assert not run.evaluate(config, tmp_path / "parts", stopping=stopping)
    assert painted == ["photo"] * 6 + ["ours"] * 2
    assert not list((tmp_path / "parts" / "tables").glob("distances*"))
    kept = files_of(tmp_path / "parts", "*.png")
    assert len(kept) == 8
    assert [path.name[:6] for path in (tmp_path / "parts").glob("scores/*/*")] == ["photo-"]
    painted.clear()
    assert run.evaluate(config, tmp_path / "parts")
    assert painted == ["ours"] * 4
    assert kept.items() <= files_of(tmp_path / "parts", "*.png").items()
    tables_of = [files_of(tmp_path / name / "tables", "*") for name in ("parts", "whole")]
    assert tables_of[0] == tables_of[1] != {}


def test_changed_settings_take_no_figures_of_others(files, tmp_path, painted):
    def found(**changes):
        painted.clear()
        assert run.evaluate(few(files, **changes), tmp_path)
        return values(tmp_path, "distances")["ours"], len(painted)

    first, count = found()
    assert count == 12
    larger, count = found(size=48)
    assert count == 12
    assert larger["ssim"] != first["ssim"]
    # Another judge judges the same pictures.
    weights.save(tmp_path / "other.safetensors", random_weights(seed=4))
    judged, count = found(features=str(tmp_path / "other.safetensors"))
    assert count == 0
    assert judged["gram"] != first["gram"]
    assert judged["ssim"] == first["ssim"]
    # Another network paints, in a row of the same name.
    models.save(tmp_path / "new.safetensors", residual_model(STYLES, seed=5))
    methods = {"photo": MethodConfig()}
    methods["ours"] = MethodConfig(kind="residual", model=str(tmp_path / "new.safetensors"))
    painting, count = found(methods=methods)
    assert count == 6
    assert painting["ssim"] != first["ssim"]
    assert found() == (first, 0)


def test_changed_code_takes_no_figures_of_the_old(files, tmp_path, painted, monkeypatch):
    assert run.evaluate(few(files), tmp_path)
    assert len(painted) == 12
    monkeypatch.setattr(machine, "code", lambda: "other")
    assert run.evaluate(few(files), tmp_path)
    assert len(painted) == 24


def test_the_code_is_that_of_what_paints_and_judges(tmp_path, monkeypatch):
    (tmp_path / "commands").mkdir()
    (tmp_path / "evaluation").mkdir()
    monkeypatch.setattr(machine, "_PACKAGE", tmp_path)
    found = []
    paints = ["color.py", "evaluation/judges.py"]
    for name in [*paints, "commands/evaluate.py", "evaluation/report.py"]:
        (tmp_path / name).write_text("x = 1")
        found.append(machine.code.__wrapped__())
    assert found[0] != found[1] == found[2] == found[3]


def test_figures_that_cannot_be_read_are_made_again(files, tmp_path, painted):
    assert run.evaluate(few(files), tmp_path)
    before = values(tmp_path, "distances")
    for number, path in enumerate(sorted(tmp_path.glob("scores/pairs/*.json"))):
        path.write_text(["{", "[1]"][number])
    painted.clear()
    assert run.evaluate(few(files), tmp_path)
    assert (values(tmp_path, "distances"), painted) == (before, [])


def test_what_cannot_paint_is_left_out_with_a_warning(files, tmp_path, monkeypatch):
    make = painters.make

    def broken(name, config, paintings):
        painter = make(name, config, paintings)
        nothing = painter._replace(paint=lambda photo, style: np.full_like(photo, np.nan))
        return nothing if name == "ours" else painter

    monkeypatch.setattr(painters, "make", broken)
    warnings = []
    assert run.evaluate(few(files), tmp_path, warn=warnings.append)
    (line,) = warnings
    assert line == "pairs: without ours: its picture of a in leaf has no finite values"
    assert values(tmp_path, "distances")["ours"]["pairs"] == 0


def test_rows_say_what_they_are(whole, files, tmp_path):
    folder, _ = whole
    assert values(folder, "methods")["slow"]["what"].startswith("preset default, 2 updates")
    assert any("two.safetensors" in note for note in table(folder, "distances").notes)
    methods = {"photo": MethodConfig(note="does nothing")}
    assert run.evaluate(few(files, methods=methods), tmp_path)
    assert values(tmp_path, "methods") == {
        "photo": {"what": "the photograph itself", "note": "does nothing"}
    }


def test_common_pairs_are_those_of_all_who_know_all_paintings(whole):
    folder, _ = whole
    rows = values(folder, "common")
    assert {name: row["pairs"] for name, row in rows.items()} == dict.fromkeys(
        ("photo", "painting", "ours", "slow"), 2
    )
    (path,) = folder.glob("scores/pairs/ours-*.json")
    records = json.loads(path.read_text())["records"]
    wanted = [
        r["gram"] for r in records if (r["content"], r["style"]) in {("a", "leaf"), ("b", "sand")}
    ]
    assert rows["ours"]["gram"] == pytest.approx(np.mean(wanted))
    assert any("Without one" in note for note in table(folder, "common").notes)


def test_classes_are_those_of_scikit_learn(whole):
    folder, _ = whole
    (path,) = folder.glob("scores/pairs/ours-*.json")
    records = json.loads(path.read_text())["records"]
    true = [STYLES.index(record["style"]) for record in records]
    found = [int(np.argmax(record["scores"])) for record in records]
    rows = values(folder, "recognition_test_classes")
    options = {"average": None, "zero_division": 0, "labels": [0, 1]}
    for number, style in enumerate(STYLES):
        row = rows[f"ours: {style}"]
        counts = reference.confusion_matrix(true, found, labels=[0, 1])[number]
        assert [row["as_0"], row["as_1"]] == counts.tolist()
        for key in ("precision", "recall", "f1"):
            figure = {"f1": reference.f1_score}.get(key) or getattr(reference, f"{key}_score")
            assert row[key] == pytest.approx(figure(true, found, **options)[number])


def test_one_photograph_has_no_interval(files, tmp_path):
    (tmp_path / "photos").mkdir()
    images.save(tmp_path / "photos" / "a.png", picture(0))
    config = few(files, content=str(tmp_path / "photos"), protocols=("recognition",))
    assert run.evaluate(config, tmp_path / "out")
    cell = table(tmp_path / "out", "recognition_test").rows["ours"]["accuracy"]
    assert cell.value is not None
    assert cell.low is None


def test_other_segmentations_take_no_figures_of_others(files, tmp_path, painted):
    def found(segments):
        config = few(files, protocols=("structure",), segments=str(segments))
        assert run.evaluate(config, tmp_path / "out")
        return values(tmp_path / "out", "structure_segmented")["ours"]

    first, count = found(files / "segments"), len(painted)
    (tmp_path / "segments").mkdir()
    for name in PHOTOS:
        write_segments(tmp_path / "segments" / f"{name}.png", 12 if name == "a" else 20)
    assert found(tmp_path / "segments") != first
    assert len(painted) == count
    assert found(files / "segments") == first


def test_speed_is_measured_once(files, tmp_path, monkeypatch):
    asked = []

    def measure(name, *_, **__):
        asked.append(name)
        return [{"method": name, "error": "none" if len(asked) == 1 else ""}]

    for name in ("measure", "measure_styles"):
        monkeypatch.setattr(speed, name, measure)
    for name in ("speed_table", "cost_table", "styles_table"):
        empty = tables.Table(name, name, (), {})
        monkeypatch.setattr(speeds.speed_tables, name, lambda _, empty=empty: empty)
    config = few(files, protocols=("speed",), throughput=0)
    assert run.evaluate(config, tmp_path)
    assert asked == ["ours"] * 2  # photographs themselves take no time
    assert run.evaluate(config, tmp_path)
    assert len(asked) == 3  # what had failed
    assert run.evaluate(config, tmp_path)
    assert len(asked) == 3
    assert run.evaluate(dataclasses.replace(config, speed_runs=7), tmp_path)
    assert len(asked) == 5
    # Another photograph, under the same name.
    shutil.copytree(files / "photos", tmp_path / "photos")
    images.save(tmp_path / "photos" / "b.png", picture(77))
    assert run.evaluate(dataclasses.replace(config, content=str(tmp_path / "photos")), tmp_path)
    assert len(asked) == 7


def test_the_papers_tables_in_a_hurry(tmp_path, monkeypatch):
    """The shipped networks and configuration, on the pictures that come with the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "prepare", lambda **_: None)
    for name in ("photos", "paintings"):
        (tmp_path / name).mkdir()
    photo, painting = (ROOT / "examples" / f"{name}.jpg" for name in ("photo", "painting"))
    copies = {"photos/a": photo, "photos/b": painting}
    copies |= {"paintings/wave": painting, "paintings/mosaic": photo}
    for name, source in copies.items():
        shutil.copy(source, tmp_path / f"{name}.jpg")
    given = ["--config", "eval_papers", "--output", "out", "--quick", "-q"]
    for setting in ("content=photos", "style=paintings", "training_content=photos"):
        given += ["--set", setting]
    assert cli.main(["evaluate", *given]) == 0
    rows = ["photo", "painting", "ResNet-IN", "AdaIN", "default", "gatys2016", "jin2021"]
    assert list(values(tmp_path / "out", "methods")) == rows
    found = values(tmp_path / "out", "distances")
    assert found["AdaIN"]["gram"] < 0.9 * found["photo"]["gram"]
    speeds_ = values(tmp_path / "out", "speed")
    assert list(speeds_) == rows[2:]
    assert all(row["seconds-64"] > 0 for row in speeds_.values())
    assert "not how fast" in (tmp_path / "out" / "report.html").read_text()


# --- mistakes ------------------------------------------------------------------------------------


def changed(files, case):
    if case == "no methods":
        return {"methods": {}, "baseline": "photo"}
    if case == "no segments":
        return {"segments": ""}
    if case == "no content":
        return {"content": ""}
    if case == "no such folder":
        return {"style": str(files / "none")}
    if case == "missing baseline":
        return {"methods": make_methods(files), "baseline": "gone"}
    if case == "other names":
        return {"segments": str(files / "paintings"), "protocols": ("structure",)}
    if case == "no training":
        return {"training_content": str(files / "none")}
    if case == "no runs":
        return {"protocols": ("convergence",)}
    return {"runs": {"tiny": str(files / "paintings")}, "protocols": ("convergence",)}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no methods", "methods are not set"),
        ("no segments", "segmented and segments go together"),
        ("no content", "content is not set: --set content=FOLDER"),
        ("no such folder", "no such folder"),
        ("missing baseline", "gone.safetensors"),
        ("other names", "no picture in .*photos has its name in .*paintings"),
        ("no training", "no such folder"),
        ("no runs", "runs are not set"),
        ("no run", "runs.tiny: .* has no losses"),
    ],
)
def test_mistakes_are_told(files, tmp_path, painted, case, message):
    with pytest.raises(UserError, match=message):
        run.evaluate(few(files, **changed(files, case)), tmp_path)
    assert painted == [] or case == "other names"


def test_lpips_is_a_column_where_its_files_are_given(files, tmp_path):
    given = ", ".join(str(path) for path in save_lpips(tmp_path))
    assert run.evaluate(few(files, lpips=given), tmp_path / "out")
    found = values(tmp_path / "out", "distances")
    assert found["photo"]["lpips"] == 0 < found["ours"]["lpips"]
    assert (
        "LPIPS: vgg16.safetensors,lpips.safetensors" in table(tmp_path / "out", "common").notes[-2]
    )
    with pytest.raises(UserError, match="two files with a comma"):
        run.evaluate(few(files, lpips="one"), tmp_path / "other")


def test_a_single_painting_will_do(files, tmp_path):
    (tmp_path / "paintings").mkdir()
    images.save(tmp_path / "paintings" / "leaf.png", picture(10))
    config = few(files, style=str(tmp_path / "paintings"), protocols=("distances", "recognition"))
    assert run.evaluate(config, tmp_path / "out")
    assert list(values(tmp_path / "out", "gram_by_style")["ours"]) == ["leaf"]
    assert values(tmp_path / "out", "recognition_test")["ours"]["auc"] is None


# --- surveys -------------------------------------------------------------------------------------


def test_a_survey_shows_what_is_painted(files, whole, painted, tmp_path):
    folder, _ = whole
    assert run.write_survey(make_config(files), folder, tmp_path)
    key = json.loads((tmp_path / "key.json").read_text())
    found = {(entry["method"], entry["trial"]) for entry in key["pictures"].values()}
    every = {(name, style) for name in ("ours", "slow") for style in STYLES}
    assert found == every | {("one", "leaf")}
    assert painted == []  # `slow` has painted the first photograph alone: all are of that
    assert (tmp_path / "survey.html").is_file()


def test_a_survey_asks_only_for_paintings_that_somebody_paints(files, tmp_path):
    methods = {name: make_methods(files)[name] for name in ("photo", "one")}
    config = few(files, methods=methods)
    assert run.write_survey(config, tmp_path / "out", tmp_path / "page")
    key = json.loads((tmp_path / "page" / "key.json").read_text())
    assert [entry["trial"] for entry in key["pictures"].values()] == ["leaf"]
    with pytest.raises(UserError, match="no method paints"):
        run.write_survey(
            few(files, methods={"photo": MethodConfig()}), tmp_path / "out", tmp_path / "none"
        )


def test_a_survey_can_be_stopped(files, tmp_path):
    config = few(files)
    arguments = config, tmp_path / "out", tmp_path / "page"
    assert not run.write_survey(*arguments, stopping=lambda: True)
    assert not (tmp_path / "page").exists()
    assert len(files_of(tmp_path / "out", "*.png")) == 1
    assert run.write_survey(*arguments)


def test_a_page_that_is_there_is_kept_and_nothing_painted_for_another(files, painted, tmp_path):
    (tmp_path / "key.json").write_text("answers depend on it")
    with pytest.raises(UserError, match=r"key\.json exists"):
        run.write_survey(few(files), tmp_path / "out", tmp_path)
    assert painted == []
    assert (tmp_path / "key.json").read_text() == "answers depend on it"


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def command(files, tmp_path, monkeypatch):
    """Runs `jaxstyle evaluate` in an empty folder, without touching this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "prepare", lambda **_: None)

    def evaluate(*arguments, settings=("content=photos", "style=paintings")):
        given = ["--config", str(files / "config.py"), "--output", "out", "--quick", "-q"]
        for item in settings:
            name, _, folder = item.partition("=")
            given += ["--set", f"{name}={files / folder}"]
        return cli.main(["evaluate", *given, *arguments])

    return evaluate


def only_line(text):
    (line,) = text.splitlines()
    assert line.startswith("jaxstyle: error: ")
    return line


def test_the_command_writes_a_report(command, tmp_path, capsys):
    assert command("--set", "title=By hand") == 0
    assert capsys.readouterr().err == ""
    report = (tmp_path / "out" / "report.html").read_text()
    assert "By hand" in report
    assert "jaxstyle evaluate --config" in report
    assert values(tmp_path / "out", "distances")["ours"]["pairs"] == 4  # two photographs, quickly


def test_the_command_says_what_it_leaves_out(command, tmp_path, capsys):
    assert command("--set", "methods.rest.model=none.safetensors") == 0
    error = capsys.readouterr().err
    assert "without rest: cannot read none.safetensors" in error
    assert list(values(tmp_path / "out", "distances")) == ["photo", "ours"]


def test_the_command_tells_mistakes_in_a_line(command, capsys, files):
    assert command(settings=["style=paintings"]) == 2
    assert "content is not set" in only_line(capsys.readouterr().err)
    assert command("--config", "eval_paper") == 2
    assert "did you mean eval_papers" in only_line(capsys.readouterr().err)
    assert command("--config", "lite") == 2
    assert "EvaluateConfig" in only_line(capsys.readouterr().err)
    assert command("--set", "baseline=nobody") == 2
    assert "not among the methods" in only_line(capsys.readouterr().err)
    assert command("--device", "tpu") == 2
    assert "no device 'tpu': there is cpu" in only_line(capsys.readouterr().err)
    assert command("--set", "sizes=3") == 2
    assert "did you mean size" in only_line(capsys.readouterr().err)
    assert command(settings=["content=photos", "style=none"]) == 2
    assert "no such folder" in only_line(capsys.readouterr().err)


def test_the_command_stops_in_good_order(command, monkeypatch, capsys, tmp_path):
    def evaluate(*_, stopping, **__):
        assert not stopping()
        return False

    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate", evaluate)
        assert command() != 1
    assert "the same command goes on from here" in capsys.readouterr().err


def test_a_survey_comes_and_goes(command, tmp_path, capsys):
    given = ["--survey", "page", "--set", "methods.rest.model=none.safetensors"]
    assert command(*given) == 0
    page = (tmp_path / "page" / "survey.html").read_bytes()
    capsys.readouterr()
    assert command(*given) == 2
    assert "exists" in capsys.readouterr().err.splitlines()[-1]
    assert command(*given, "--overwrite") == 0
    # New codes: whoever knows the old key learns nothing of the new page.
    assert (tmp_path / "page" / "survey.html").read_bytes() != page
    assert not (tmp_path / "out" / "report.html").exists()
    capsys.readouterr()

    key = json.loads((tmp_path / "page" / "key.json").read_text())
    ratings = [
        {"picture": code, "completeness": 7, "fluency": 4, "coherence": 1, "seconds": 2.5}
        for code in key["pictures"]
    ]
    answers = {"survey": key["survey"], "rater": "Ada", "started": "2024-05-01T10:00:00.000Z"}
    answers |= {"finished": None, "order": list(key["pictures"]), "ratings": ratings}
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "ada.json").write_text(json.dumps(answers))
    survey = ["survey", "page/key.json"]
    assert cli.main([*survey, "answers", "-o", "t.md"]) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "t.md").read_text()
    assert "| ours | 7.00 | 4.00 | 1.00 | 4.00 |" in written
    assert printed == f"{written}\n{(tmp_path / 't-by-trial.md').read_text()}"
    assert "leaf" in (tmp_path / "t-by-trial.md").read_text()
    assert cli.main([*survey, "answers/ada.json", "-o", "t.csv"]) == 0
    assert (tmp_path / "t.csv").read_text().splitlines()[1].startswith("ours,7.0,")
    assert cli.main([*survey, "answers", "-o", "t-by-trial.csv"]) == 2  # it is there
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["key.json", "answers.json"], "key.json: cannot be read"),
        (["key.json", "empty"], "empty has no JSON files"),
        (["key.json", "answers.json", "-o", "t.txt"], "t.txt must end in one of .md, .csv, .json"),
        (["key.json", "answers.json", "-o", "old.md"], "old.md exists: choose another name"),
        (["old.json", "answers.json", "-o", "old.json", "--overwrite"], "old.json is read by"),
        (["key.json", "old.json", "-o", "old.json", "--overwrite"], "old.json is read by"),
        (["key.json", "old", "-o", "old/a.json", "--overwrite"], "a.json is read by"),
        (["key.json"], "ANSWERS"),
    ],
)
def test_mistakes_of_a_survey_are_told_in_a_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    for name in ("old.md", "old.json", "old/a.json"):
        (tmp_path / name).write_text("old")
    assert cli.main(["survey", *arguments]) == 2
    assert message in only_line(capsys.readouterr().err)
    for name in ("old.md", "old.json", "old/a.json"):
        assert (tmp_path / name).read_text() == "old"


def test_evaluate_py_is_the_same_command():
    result = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert "jaxstyle evaluate --config" in result.stdout
