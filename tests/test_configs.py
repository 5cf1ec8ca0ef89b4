"""The configurations that come along: each is loaded, kept, and run, shrunken, for a step."""

import ast
import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from networks import NARROW, random_params, random_weights
from processes import ROOT

from jaxstyle import images, weights
from jaxstyle.errors import UserError
from jaxstyle.evaluation.config import EvaluateConfig
from jaxstyle.training import checkpoints, config, loop, report
from jaxstyle.weights import Weights

pytestmark = pytest.mark.usefixtures("quick_compiler")

FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
EVALUATIONS = [name for name in FILES if name.startswith("eval_")]
NAMES = [name for name in FILES if name not in EVALUATIONS]


def test_all_are_listed():
    assert "lite" in NAMES
    assert config.packaged_configs() == NAMES
    assert config.packaged_configs(evaluation=True) == EVALUATIONS == ["eval_papers"]


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_read_and_kept(name):
    settings = config.load_config(name)
    assert settings == config.load_config(str(ROOT / "configs" / f"{name}.py"))
    assert config.from_json(json.loads(json.dumps(config.to_json(settings)))) == settings
    assert settings.data.content
    assert settings.model is not None
    # As a user who has another folder starts it.
    changed = config.override(settings, ["data.content=elsewhere", "steps=7"])
    assert (changed.data.content, changed.steps) == ("elsewhere", 7)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_a_configuration_of_an_evaluation_is_read(name):
    settings = config.load_config(name, kind=EvaluateConfig)
    assert settings == config.load_config(str(ROOT / "configs" / f"{name}.py"), kind=EvaluateConfig)
    assert settings.methods[settings.baseline].kind == "photo"
    changed = config.override(settings, ["size=128", "methods.cnn.model=elsewhere/{style}"])
    assert (changed.size, changed.methods["cnn"].model) == (128, "elsewhere/{style}")
    assert changed.methods["fnst"] == settings.methods["fnst"]
    with pytest.raises(UserError, match="must give a TrainConfig; got EvaluateConfig"):
        config.load_config(str(ROOT / "configs" / f"{name}.py"))


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_says_what_it_is(name):
    text = ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))
    assert text
    assert text.splitlines()[0].endswith(".")


# A layer a block: all that most configurations ask for, and less to compile.
SHORT = ((4,), (6,), (8,), (8,), (8,))


def network(model, folder):
    """A file of a network that has the layers of the losses."""
    layers = {*model.content_layers, *model.style_layers}
    short = all(layer.endswith("_1") for layer in layers)
    return f"{folder}/{'short' if short else 'plain'}.safetensors"


def shrink_distill(model, folder):
    teachers = [
        f"{folder}/teacher.safetensors:{spec.rpartition(':')[2]}" for spec in model.teachers
    ]
    # A step of the first stage, and one after it.
    stages = tuple((1, *stage[1:]) for stage in model.stages[:1])
    return {"teachers": tuple(teachers), "stages": stages, "widths": NARROW}


def shrink_residual(model, folder):
    channels = (4,) * len(model.channels)
    return {"features": network(model, folder), "channels": channels, "blocks": 1, "style_size": 16}


def shrink_adain(model, folder):
    file = network(model, folder)
    return {"encoder": file, "features": file, "modulation": min(model.modulation, 4)}


SHRINK = {"adain": shrink_adain, "distill": shrink_distill, "residual": shrink_residual}


def shrink(settings, folder):
    """The same run, as small as it gets: what it does stays, how much of it does not."""
    model = dataclasses.replace(settings.model, **SHRINK[settings.method](settings.model, folder))
    data = dataclasses.replace(
        settings.data,
        content=str(folder / "photos"),
        style=str(folder / "photos" / "0.png") if settings.data.style else "",
        held_out=str(folder / "photos") if settings.data.held_out else "",
        held_out_style=str(folder / "photos") if settings.data.held_out_style else "",
        style_batch_size=4 if settings.data.style_batch_size else 0,
        threads=1,
    )
    return dataclasses.replace(
        settings,
        model=model,
        data=data,
        start="",  # not that of another run
        steps=1 + len(getattr(model, "stages", ())),
        batch_size=4,
        crop_size=16,
        evaluate_every=0,
        sample_every=0,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "photos").mkdir()
    for index in range(4):
        coarse = np.random.default_rng(index).random((5, 6, 3), np.float32)
        images.save(folder / "photos" / f"{index}.png", images.resize(coarse, (24, 32)))
    heads = random_params(heads=dict.fromkeys(range(1, 6), 5))
    teacher = Weights("teacher", heads, "zero", "normalized", "test", "")
    weights.save(folder / "teacher.safetensors", teacher)
    weights.save(folder / "plain.safetensors", random_weights())
    weights.save(folder / "short.safetensors", random_weights(widths=SHORT))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_runs(name, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "plot_curves", lambda *_: None)  # takes longer than the steps
    settings = shrink(config.load_config(name), folder)
    result = loop.train(settings, tmp_path)
    assert (result.step, result.finished) == (settings.steps, True)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == settings.steps
    assert math.isfinite(rows[-1]["loss"])
    assert rows[-1]["gradient_norm"] > 0
    found = checkpoints.restore(tmp_path, "latest")
    assert found.config == settings
    floats = [np.asarray(x) for x in jax.tree.leaves(found.state) if np.asarray(x).dtype == "f4"]
    assert all(np.isfinite(leaf).all() for leaf in floats)
    assert len(floats) > 10
