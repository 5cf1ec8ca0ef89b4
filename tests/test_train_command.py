"""Tests of `jaxstyle train` and train.py, with a method that trains at once."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny
from processes import ROOT, free_port

from jaxstyle import cli, runtime
from jaxstyle.errors import UserError
from jaxstyle.training import checkpoints, loop
from jaxstyle.training.loop import Result

pytestmark = pytest.mark.usefixtures("tiny_method")

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import tiny

def get_config():
    return tiny.make_config({pictures!r})
"""
MANY = ["--set", "steps=5000", "--set", "log_every=10", "--set", "evaluate_every=0"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with pictures, a configuration and what is compiled."""
    folder = tmp_path_factory.mktemp("train")
    pictures = tiny.write_pictures(folder / "pictures")
    text = CONFIG.format(tests=str(ROOT / "tests"), pictures=str(pictures))
    (folder / "run.py").write_text(text)
    return folder


@pytest.fixture
def command(shared, tmp_path, monkeypatch):
    """Runs `jaxstyle train` in this process."""
    monkeypatch.setattr(runtime, "prepare", lambda **_: None)

    def run(*arguments):
        given = ["--config", str(shared / "run.py"), "--workdir", str(tmp_path / "run")]
        return cli.main(["train", *given, *arguments])

    return run


@pytest.fixture
def fake(monkeypatch):
    """Stands for the loop: notes how it was called."""
    calls = []

    def train(config, workdir, *, observer, should_stop, tensorboard):
        calls.append({"config": config, "workdir": workdir, "tensorboard": tensorboard})
        observer.started(2, config.steps)
        for step in range(3, config.steps + 1):
            observer.stepped(step)
            row = {"step": step, "loss": 0.25, "images_per_second": 8.0, "waiting": 0.5}
            observer.logged(row)
        observer.logged({"step": config.steps, "held_out/loss": 0.5, "seconds": 1.0})
        return Result(config.steps, True, {}, workdir)

    monkeypatch.setattr(loop, "train", train)
    return calls


def only_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


# --- options and mistakes ------------------------------------------------------------------------


def test_help_names_what_there_is(capsys):
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--config", "--workdir", "--set", "--coordinator", "exit codes", "gs://"):
        assert word in text


def test_train_py_is_the_same_command():
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert "jaxstyle train --config" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "stepz=3"], "did you mean steps"),
        (["--set", "steps"], "NAME=VALUE"),
        (["--set", "steps=many"], "steps=many"),
        (["--set", "optimizer.rate=1"], "optimizer.rate"),
        (["--config", "nothing.py"], "nothing.py"),
        (["--config", "nothing"], "nothing"),
        (["--stepz", "3"], "--stepz"),
        (["--device", "gpu"], "no device 'gpu': there is cpu"),
        (["--device", "abacus"], "abacus"),
        (["--num-processes", "2"], "--coordinator"),
        (["--set", "batch_size=6"], "batch_size 6"),
    ],
)
def test_mistakes(command, capsys, tmp_path, arguments, expected):
    assert command(*arguments) == 2
    line = only_line(capsys.readouterr().err)
    assert line.startswith("jaxstyle: error: ")
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_a_file(command, capsys, tmp_path):
    (tmp_path / "run").write_text("mine")
    assert command() == 2
    assert "run" in only_line(capsys.readouterr().err)
    assert (tmp_path / "run").read_text() == "mine"


def test_config_and_workdir_are_needed(capsys):
    assert cli.main(["train"]) == 2
    assert "--config" in only_line(capsys.readouterr().err)


def test_options_reach_the_loop(command, fake, tmp_path):
    assert command("--set", "steps=4", "--set", "optimizer.learning_rate=0.5", "--tensorboard") == 0
    call = fake[0]
    assert call["config"].steps == 4
    assert call["config"].optimizer.learning_rate == 0.5
    assert call["workdir"] == str(tmp_path / "run")
    assert call["tensorboard"] is True


@pytest.mark.parametrize(
    ("error", "code"), [(loop.TrainingError("loss is nan at step 7"), 1), (UserError("no such"), 2)]
)
def test_exit_codes(command, monkeypatch, capsys, error, code):
    def train(*_, **__):
        raise error

    monkeypatch.setattr(loop, "train", train)
    assert command() == code
    assert only_line(capsys.readouterr().err) == f"jaxstyle: error: {error}"


def test_no_memory(command, monkeypatch, capsys):
    def train(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(loop, "train", train)
    assert command() == 2
    line = only_line(capsys.readouterr().err)
    assert "batch_size 4" in line
    assert "accumulate" in line


# --- progress ------------------------------------------------------------------------------------


def test_progress_without_a_terminal(command, fake, capsys):
    assert command("--set", "steps=5") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 2/5  compiling"
    assert lines[1].startswith("step 5/5  loss 0.25  8 images/s  waiting for data 50%")
    assert lines[1].endswith(" left")
    assert lines[2] == "step 5/5  held out: loss 0.5"
    assert re.search(r"run: step 5 of 5, \d+ s; done$", lines[3])
    assert len(lines) == 4


def test_progress_on_a_terminal(command, fake, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert command("--set", "steps=5") == 0
    text = capsys.readouterr().err
    assert "\r" in text
    assert "step 5/5" in text
    assert text.splitlines()[-1].endswith("done")


def test_quiet(command, fake, capsys):
    assert command("--quiet") == 0
    assert capsys.readouterr() == ("", "")


# --- processes of their own ----------------------------------------------------------------------


def start(shared, workdir, *arguments, devices=1):
    """A real process that trains."""
    command = [sys.executable, str(ROOT / "tests" / "tiny.py"), "train"]
    command += ["--config", "run.py", "--workdir", str(workdir), *arguments]
    environment = {
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAXSTYLE_CACHE_DIR": str(shared / "cache"),
    }
    return subprocess.Popen(
        command, env=os.environ | environment, cwd=shared, stderr=subprocess.PIPE, text=True
    )


def steps_of(workdir):
    """Steps of the lines that are there."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def wait_for_step(process, workdir, step):
    while max(steps_of(workdir), default=0) < step:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def end(process):
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def assert_same(workdir, other, step):
    states = [jax.tree.leaves(checkpoints.restore(path, step).state) for path in (workdir, other)]
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(shared, tmp_path):
    settings = ["--set", "steps=400", "--set", "checkpoint_every=20", "--set", "data.threads=1"]
    code, errors = end(start(shared, tmp_path / "whole", *settings))
    assert code == 0, errors
    workdir, moments = tmp_path / "killed", random.Random(0)
    for part in range(3):
        process = start(shared, workdir, *settings)
        wait_for_step(process, workdir, 30 + 100 * part)
        time.sleep(0.3 * moments.random())
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    code, errors = end(start(shared, workdir, *settings))
    assert code == 0, errors
    assert "going on from the checkpoint of step" in errors
    assert_same(workdir, tmp_path / "whole", 400)
    assert steps_of(workdir) == steps_of(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_is_no_failure(shared, tmp_path, number):
    process = start(shared, tmp_path, *MANY, "--set", "checkpoint_every=5000")
    wait_for_step(process, tmp_path, 20)
    process.send_signal(number)
    code, errors = end(process)
    assert code == 0
    assert "stopping after this step, with a checkpoint" in errors
    step = checkpoints.restore(tmp_path).step
    assert step == max(steps_of(tmp_path))
    assert f"step {step} of 5000" in errors
    assert "the same command goes on from here" in errors
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoints", "metrics.jsonl", "curves.png"}


def test_a_signal_before_the_first_step_is_no_failure_either(shared, tmp_path):
    process = start(shared, tmp_path, *MANY, "--set", "model.channels=5")  # to be compiled anew
    assert "compiling" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    code, errors = end(process)
    assert code == 0
    assert "stopped before the first step" in errors or "goes on from here" in errors


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all(shared, tmp_path):
    common = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    processes = [
        start(shared, tmp_path, *MANY, *common, "--process-id", str(index)) for index in range(2)
    ]
    wait_for_step(processes[0], tmp_path, 20)
    processes[1].send_signal(signal.SIGTERM)
    results = [end(process) for process in processes]
    assert [code for code, _ in results] == [0, 0], results
    assert checkpoints.restore(tmp_path).step == max(steps_of(tmp_path))
    assert "loss" not in results[1][1]  # the first process speaks for all
