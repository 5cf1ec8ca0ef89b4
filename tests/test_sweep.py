"""Tests of jaxstyle.training.sweep and `jaxstyle sweep`, with a method that trains at once."""

import json
import signal

import pytest
import tiny
from processes import ROOT

from jaxstyle import cli, images, runtime
from jaxstyle.commands.train import TrainProgress
from jaxstyle.errors import UserError
from jaxstyle.methods import residual
from jaxstyle.training import checkpoints, loop, report, sweep
from jaxstyle.training.config import TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compiler", "tiny_method")

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import tiny

def get_config():
    return tiny.make_config({pictures!r}, steps=6, checkpoint_every=2)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with pictures and a configuration."""
    folder = tmp_path_factory.mktemp("sweep")
    pictures = tiny.write_pictures(folder / "pictures")
    text = CONFIG.format(tests=str(ROOT / "tests"), pictures=str(pictures))
    (folder / "run.py").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Those of the single runs, which take longer than the steps."""
    monkeypatch.setattr(report, "plot_curves", lambda *_: None)


@pytest.fixture
def config():
    return tiny.make_config("pictures")


@pytest.fixture
def command(shared, tmp_path, monkeypatch):
    """Runs `jaxstyle sweep` in this process; the runs go to `sweep`."""
    monkeypatch.setattr(runtime, "prepare", lambda **_: None)

    def run(*arguments):
        given = ["--config", str(shared / "run.py"), "--workdir", str(tmp_path / "sweep")]
        return cli.main(["sweep", *given, *arguments])

    return run


@pytest.fixture
def trained(monkeypatch):
    """The runs that were trained: name of the folder, steps before, learning rate."""
    calls, train = [], loop.train

    def watched(config, workdir, **options):
        name = workdir.rpartition("/")[2]
        started = options["observer"].started
        options["observer"].started = lambda step, steps: (
            calls.append((name, step, config.optimizer.learning_rate)),
            started(step, steps),
        )
        try:
            return train(config, workdir, **options)
        finally:
            options["observer"].started = started

    monkeypatch.setattr(loop, "train", watched)
    return calls


# --- which runs there are ------------------------------------------------------------------------


def test_runs_have_folders_by_their_values(config, tmp_path):
    found = sweep.plan(config, " optimizer.learning_rate = 1e-2, 0.5", tmp_path / "runs")
    assert found.setting == "optimizer.learning_rate"
    assert [variant.config.optimizer.learning_rate for variant in found.variants] == [0.01, 0.5]
    assert [variant.value for variant in found.variants] == ["1e-2", "0.5"]
    names = [variant.folder.name for variant in found.variants]
    assert names == ["optimizer.learning_rate=1e-2", "optimizer.learning_rate=0.5"]
    assert found.variants[0].folder.parent == found.folder
    assert not (tmp_path / "runs").exists()


def test_values_with_commas_and_slashes(tmp_path):
    config = TrainConfig(method="residual", model=residual.Config())
    found = sweep.plan(config, "model.channels=(4, 6),(8,)", tmp_path)
    assert [variant.config.model.channels for variant in found.variants] == [(4, 6), (8,)]
    found = sweep.plan(config, "data.style=a/wave.jpg,../leaf.jpg", "gs://bucket/runs")
    assert [str(variant.folder) for variant in found.variants] == [
        "gs://bucket/runs/data.style=a_wave.jpg",
        "gs://bucket/runs/data.style=.._leaf.jpg",
    ]


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        ("steps", "two values"),
        ("steps=3", "two values"),
        ("=3,4", "two values"),
        ("stepz=3,4", "--vary stepz=3: there is no setting 'stepz'"),
        ("steps=3,many", "--vary steps=many: expected a value like"),
        ("steps=3,4,3", "'3' and '3' would be the same run"),
        ("optimizer.learning_rate=1e-3,0.001", "'1e-3' and '0.001' would be the same run"),
        ("data.style=a/b,a:b", "'a/b' and 'a:b' would be the same run"),
    ],
)
def test_mistakes(config, tmp_path, vary, expected):
    with pytest.raises(UserError) as error:
        sweep.plan(config, vary, tmp_path)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--vary"),
        (["--vary", "steps=3,4", "--vary", "seed=1,2"], "expected it once"),
        (["--vary", "batch_size=4,6"], "batch_size 6"),
    ],
)
def test_mistakes_of_the_command(command, capsys, tmp_path, arguments, expected):
    assert command(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxstyle: error: ")
    assert expected in line
    assert not (tmp_path / "sweep").exists()


# --- what is trained -----------------------------------------------------------------------------


def states(folder):
    """The first table of the comparison: what became of each run, and its steps."""
    lines = (folder / "comparison.md").read_text().split("\n\n")[1].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {value: (state, int(step)) for value, state, step in cells}


def test_a_run_that_diverges_leaves_the_others(command, trained, capsys, tmp_path):
    folder, vary = tmp_path / "sweep", ["--vary", "model.spoilt_at=5,-1"]
    assert command(*vary, "--quiet") == 1
    assert [name for name, *_ in trained] == ["model.spoilt_at=5", "model.spoilt_at=-1"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxstyle: error: model.spoilt_at=5: loss is nan at step 5")
    assert states(folder) == {"5": ("diverged", 4), "-1": ("done", 6)}
    assert images.load(folder / "comparison.png").pixels.std() > 0
    rows = (folder / "model.spoilt_at=-1" / "metrics.jsonl").read_text()
    last = [json.loads(row) for row in rows.splitlines()][-1]
    assert f"| -1 | {last['held_out/loss']:.4g} (" in (folder / "comparison.md").read_text()
    # What is finished stays as it is.
    assert command(*vary) == 1
    assert [(name, step) for name, step, _ in trained[2:]] == [("model.spoilt_at=5", 4)]
    assert (folder / "model.spoilt_at=-1" / "metrics.jsonl").read_text() == rows
    assert "all 6 steps are done already" in capsys.readouterr().err


def test_a_signal_stops_all_and_the_same_command_goes_on(
    command, trained, capsys, tmp_path, monkeypatch
):
    stepped = TrainProgress.stepped

    def terminated(self, step):
        stepped(self, step)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    folder, vary = tmp_path / "sweep", ["--vary", "optimizer.learning_rate=0.01,0.02"]
    with monkeypatch.context() as patch:
        patch.setattr(TrainProgress, "stepped", terminated)
        assert command(*vary) == 0
    assert "the same command goes on from here" in capsys.readouterr().err
    assert states(folder) == {"0.01": ("stopped", 3), "0.02": ("to come", 0)}
    assert checkpoints.restore(folder / "optimizer.learning_rate=0.01").step == 3
    assert command(*vary) == 0
    assert [(rate, step) for _, step, rate in trained] == [(0.01, 0), (0.01, 3), (0.02, 0)]
    assert states(folder) == {"0.01": ("done", 6), "0.02": ("done", 6)}


def test_a_signal_after_the_last_step_begins_no_other_run(command, monkeypatch, capsys, tmp_path):
    calls = []

    def train(config, workdir, *, should_stop, **_):
        calls.append(config.seed)
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        return loop.Result(config.steps, True, {}, workdir)

    monkeypatch.setattr(loop, "train", train)
    assert command("--vary", "seed=0,1") == 0
    assert calls == [0]
    assert "stopped before seed=1; the same command goes on" in capsys.readouterr().err
    assert states(tmp_path / "sweep") == {"0": ("done", 0), "1": ("to come", 0)}


def test_a_signal_before_the_first_step_of_a_run_waits_for_nothing(command, monkeypatch, capsys):
    def train(config, workdir, *, should_stop, **_):
        if config.seed == 0:
            assert not should_stop()
            return loop.Result(config.steps, True, {}, workdir)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the compiler would go on")

    monkeypatch.setattr(loop, "train", train)
    assert command("--vary", "seed=0,1") == 0
    assert "stopped before the first step" in capsys.readouterr().err
