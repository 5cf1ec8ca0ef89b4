"""Tests of jaxstyle.training.loop, report and resuming, with a method that trains at once."""

import dataclasses
import json
import math
import sys
import time

import jax
import numpy as np
import pytest
import tiny
from etils import epath

from jaxstyle import images, methods
from jaxstyle.errors import UserError
from jaxstyle.training import checkpoints, loop, report, resuming
from jaxstyle.training.config import DataConfig, OptimizerConfig

pytestmark = pytest.mark.usefixtures("quick_compiler", "tiny_method")

TIMES = ("seconds", "images_per_second", "waiting")


class Observer:
    """Remembers what it is told."""

    def __init__(self):
        self.rows, self.lines, self.steps = [], [], []

    def started(self, step, steps):
        self.steps.append(step)

    def stepped(self, step):
        self.steps.append(step)

    def logged(self, row):
        self.rows.append(row)

    def note(self, message):
        self.lines.append(message)

    complain = note


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """The runs of these tests share what is compiled."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("cache")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def config(pictures):
    return tiny.make_config(pictures)


def train(config, workdir, **options):
    observer = Observer()
    result = loop.train(config, workdir, observer=observer, **options)
    return result, observer


def stop_after(count):
    """A wish to stop, from the given question on."""
    answers = iter(range(1, 10_000))
    return lambda: next(answers) >= count


def state_of(workdir, step):
    return jax.tree.leaves(checkpoints.restore(workdir, step).state)


def assert_same(workdir, other, step):
    for a, b in zip(state_of(workdir, step), state_of(other, step), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def rows_of(workdir, *, times=True):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return rows if times else [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def reference(pictures, tmp_path_factory):
    """A run from the start to the end, for others to be compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "load", lambda name: tiny)
        folder = tmp_path_factory.mktemp("runs") / "reference"
        result, observer = train(tiny.make_config(pictures, sample_every=6), folder)
    return folder, result, observer


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_says(reference):
    folder, result, observer = reference
    assert (result.step, result.finished, result.workdir) == (12, True, str(folder))
    names = {path.name for path in folder.iterdir()}
    assert names == {"checkpoints", "metrics.jsonl", "samples", "curves.png"}
    assert [path.name for path in sorted((folder / "samples").iterdir())] == [
        *("000006.png", "000012.png")
    ]
    # Four rows of a picture beside what was made of it, with white between them.
    assert images.load(folder / "samples/000006.png").pixels.shape == (4 * 16 + 3 * 4, 32, 3)
    assert images.load(folder / "curves.png").pixels.ndim == 3
    assert observer.steps == list(range(13))


def test_lines_of_metrics(reference):
    folder, result, observer = reference
    rows = rows_of(folder)
    training = [row for row in rows if "loss" in row]
    held_out = [row for row in rows if "held_out/loss" in row]
    assert [row["step"] for row in training] == [2, 4, 6, 8, 10, 12]
    assert [row["step"] for row in held_out] == [4, 8, 12]
    for row in training:
        assert list(row)[:2] == ["step", "loss"]
        assert {"gradient_norm", "learning_rate", "brightness", *TIMES} <= row.keys()
        assert 0 <= row["waiting"] <= 1
        assert row["images_per_second"] > 0
    assert training[-1]["loss"] < training[0]["loss"] / 2
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert len(observer.rows) == len(rows)
    assert result.metrics["held_out/loss"] == pytest.approx(held_out[-1]["held_out/loss"])


def test_metrics_are_means_over_the_steps(pictures, reference, tmp_path):
    folder, *_ = reference
    config = tiny.make_config(pictures, steps=4, log_every=1, evaluate_every=0)
    train(config, tmp_path)
    losses = [row["loss"] for row in rows_of(tmp_path)]
    means = [row["loss"] for row in rows_of(folder) if "loss" in row]
    assert means[:2] == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2], rel=1e-5)


def test_the_best_checkpoint_is_by_the_held_out_metric(reference):
    folder, *_ = reference
    best = checkpoints.restore(folder, "best").step
    values = {row["step"]: row["held_out/loss"] for row in rows_of(folder) if "loss" not in row}
    assert values[best] == min(values.values())


def test_phases_come_one_after_the_other(config, tmp_path):
    settings = dataclasses.replace(config, log_every=1, model=tiny.Config(first_phase=3))
    train(settings, tmp_path, should_stop=stop_after(2))
    train(settings, tmp_path, should_stop=stop_after(3))
    rows = [row for row in rows_of(tmp_path) if "loss" in row]
    assert [row["brightness"] == -1 for row in rows] == [True, True, True, False, False]
    # The first step of each phase, and of each run, waits for the compiler.
    assert ["images_per_second" in row for row in rows] == [False, True, False, False, True]


# --- going on ------------------------------------------------------------------------------------


def test_a_stop_saves_and_the_next_run_goes_on(config, reference, tmp_path):
    folder, *_ = reference
    result, _ = train(config, tmp_path, should_stop=stop_after(5))
    assert (result.step, result.finished) == (5, False)
    result, observer = train(config, tmp_path)
    assert (result.step, result.finished) == (12, True)
    assert observer.steps == list(range(5, 13))
    assert any("step 5" in line for line in observer.lines)
    assert_same(tmp_path, folder, 12)
    rows, expected = rows_of(tmp_path, times=False), rows_of(folder, times=False)
    # The stop has a line of its own, and the next begins there.
    assert [row for row in rows if row["step"] not in (5, 6)] == [
        row for row in expected if row["step"] != 6
    ]
    assert [row["step"] for row in rows_of(tmp_path)] == sorted(row["step"] for row in rows)


def test_what_a_killed_run_wrote_beyond_its_checkpoint_is_cut_off(config, reference, tmp_path):
    folder, *_ = reference
    train(dataclasses.replace(config, steps=4), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 9.0, "seconds": 8.0}\n{"step": 7, "lo')
    _, observer = train(config, tmp_path)
    assert observer.steps[0] == 4
    assert rows_of(tmp_path, times=False) == rows_of(folder, times=False)
    assert_same(tmp_path, folder, 12)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_finished_run_is_left_as_it_is(config, reference):
    folder, *_ = reference
    (folder / "curves.png").unlink()
    before = rows_of(folder)
    result, observer = train(config, folder)
    assert (result.step, result.finished) == (12, True)
    assert observer.steps == []
    assert any("done already" in line for line in observer.lines)
    assert rows_of(folder) == before
    assert (folder / "curves.png").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 1}, "seed=0, but this run has 1"),
        ({"crop_size": 24}, "--set crop_size=16"),
        ({"model": tiny.Config(channels=5)}, "model.channels=4"),
        ({"batch_size": 8}, "batch_size=4"),
        ({"optimizer": OptimizerConfig(name="sgd", learning_rate=1e-2)}, "optimizer.name='adam'"),
    ],
)
def test_settings_that_a_run_cannot_change(config, reference, changes, expected):
    folder, *_ = reference
    with pytest.raises(UserError) as caught:
        train(dataclasses.replace(config, steps=14, **changes), folder)
    assert expected in str(caught.value)
    assert "--workdir" in str(caught.value)


def test_settings_that_may_change_are_noted(config):
    lines = []
    rate = dataclasses.replace(config.optimizer, learning_rate=1e-3)
    changed = dataclasses.replace(config, steps=20, log_every=1, optimizer=rate)
    resuming.check(changed, config, note=lines.append)
    assert lines == [
        "settings that differ from those of the checkpoint: steps 12 -> 20, "
        "optimizer.learning_rate 0.01 -> 0.001, log_every 2 -> 1"
    ]
    resuming.check(config, config, note=lines.append)
    assert len(lines) == 1


# --- what goes wrong -----------------------------------------------------------------------------


def test_nan_ends_the_run_and_is_never_saved(config, tmp_path):
    spoilt = dataclasses.replace(config, model=tiny.Config(spoilt_at=7))
    with pytest.raises(loop.TrainingError) as caught:
        train(spoilt, tmp_path)
    message = str(caught.value)
    assert "loss is nan at step 7" in message
    assert "last good checkpoint is that of step 4" in message
    assert str(tmp_path) in message
    with checkpoints.Checkpoints(tmp_path, config) as store:
        assert store.steps() == [4]
    assert max(row["step"] for row in rows_of(tmp_path)) == 6
    assert all(math.isfinite(value) for row in rows_of(tmp_path) for value in row.values())


def test_a_state_that_is_not_finite_is_never_saved(config, tmp_path):
    """The last step may overflow the parameters where its own loss was still finite."""
    wild = dataclasses.replace(config, model=tiny.Config(overflow_at=4))
    with pytest.raises(loop.TrainingError, match="not finite after step 4") as caught:
        train(wild, tmp_path)
    assert "no checkpoint yet" in str(caught.value)
    with checkpoints.Checkpoints(tmp_path, config) as store:
        assert store.steps() == []


def test_batches_that_do_not_divide(config, tmp_path):
    with pytest.raises(UserError, match=r"batch_size 6 .* 4"):
        train(dataclasses.replace(config, batch_size=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_that_are_not_there(config, tmp_path):
    nowhere = DataConfig(content=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        train(dataclasses.replace(config, data=nowhere), tmp_path / "run")


def test_the_share_of_waiting_is_that_of_the_data(config, tmp_path, monkeypatch):
    crop = images.crop

    def slow(*arguments):
        time.sleep(0.05)
        return crop(*arguments)

    monkeypatch.setattr(images, "crop", slow)
    train(dataclasses.replace(config, steps=8, evaluate_every=0), tmp_path)
    # While the compiler was busy a few batches were made ahead.
    assert rows_of(tmp_path)[-1]["waiting"] > 0.7


# --- what is written -----------------------------------------------------------------------------


def test_lines_in_a_bucket_are_whole_when_a_checkpoint_is(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "is_remote", lambda path: True)
    path = epath.Path(tmp_path / "metrics.jsonl")
    file = report.MetricsFile(path, step=0)
    for step in range(1, 4):
        file.write({"step": step, "loss": 1.0})
    assert len(path.read_text().splitlines()) < 3  # it cannot be appended to
    file.flush()
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3]
    again = report.MetricsFile(path, step=2)
    assert len(again.rows) == 2
    again.close()
    assert len(path.read_text().splitlines()) == 2


def test_what_is_not_finite_is_null(tmp_path):
    file = report.MetricsFile(epath.Path(tmp_path / "metrics.jsonl"), step=0)
    file.write({"step": 1, "correlation": math.nan, "loss": 0.12345678912})
    assert rows_of(tmp_path) == [{"step": 1, "correlation": None, "loss": 0.1234568}]


def test_curves_of_what_there_is(tmp_path):
    path = epath.Path(tmp_path / "curves.png")
    report.plot_curves([], path)
    assert not path.exists()
    rows = [{"step": 1, "loss": 1.0, "a": None}, {"step": 2, "loss": 0.1, "held_out/b": -1.0}]
    report.plot_curves(rows, path)
    assert images.load(path).pixels.ndim == 3
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_samples_of_any_range(tmp_path):
    pictures = np.full((2, 8, 8, 3), np.nan, np.float32)
    pictures[1] = 2
    report.write_samples(pictures, epath.Path(tmp_path / "new" / "grid.png"))
    found = images.load(tmp_path / "new" / "grid.png").pixels
    assert found.shape == (20, 8, 3)
    assert found[:8].max() == 0
    assert found[8:].min() == 1


def test_tensorboard_is_an_extra(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"jaxstyle\[tensorboard\]"):
        train(config, tmp_path, tensorboard=True)


def test_tensorboard_gets_the_same_lines(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = report.TensorBoard(epath.Path(tmp_path), step=0)
    writer.write({"step": 2, "loss": 0.5, "held_out/loss": 0.25})
    writer.close()
    content = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    assert b"held_out/loss" in content


# --- starting from another run -------------------------------------------------------------------


def test_start_takes_the_parameters_of_another_run(config, tmp_path):
    plain = dataclasses.replace(config, average=0.0, steps=2)
    train(plain, tmp_path / "first")
    frozen = dataclasses.replace(config.optimizer, learning_rate=0.0)
    start = str(tmp_path / "first")
    new = dataclasses.replace(plain, start=start, steps=1, seed=5, optimizer=frozen)
    _, observer = train(new, tmp_path / "new")
    assert f"starting from step 2 of {start}" in observer.lines
    wanted, found = checkpoints.restore(start), checkpoints.restore(tmp_path / "new")
    assert (wanted.step, found.step) == (2, 1)
    for name, value in wanted.state["params"].items():
        np.testing.assert_array_equal(found.state["params"][name], value)


def test_start_prefers_the_average_and_begins_its_own_there(config, tmp_path):
    averaged = dataclasses.replace(config, average=0.9, steps=4)
    train(averaged, tmp_path / "first")
    frozen = dataclasses.replace(config.optimizer, learning_rate=0.0)
    new = dataclasses.replace(averaged, start=str(tmp_path / "first"), steps=1, optimizer=frozen)
    train(new, tmp_path / "new")
    wanted = checkpoints.restore(tmp_path / "first").state["average"]
    found = checkpoints.restore(tmp_path / "new").state
    for name, value in wanted.items():
        np.testing.assert_array_equal(found["params"][name], value)
        np.testing.assert_allclose(found["average"][name], value, rtol=1e-6)


def test_start_of_other_shapes_or_of_no_run_is_refused(reference, config, tmp_path):
    wider = dataclasses.replace(config.model, channels=6)
    other = dataclasses.replace(config, start=str(reference[0]), model=wider)
    with pytest.raises(UserError, match=r"start: .* is of another configuration"):
        train(other, tmp_path / "wider")
    nowhere = dataclasses.replace(config, start=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"start: there are no checkpoints .*--set start=RUN"):
        train(nowhere, tmp_path / "new")
