"""Tests of jaxstyle.training.config: files, overrides, JSON, and what is refused."""

import dataclasses
import json
import re

import pytest

from jaxstyle.errors import UserError
from jaxstyle.methods import distill
from jaxstyle.training.config import (
    DataConfig,
    OptimizerConfig,
    TrainConfig,
    from_json,
    load_config,
    override,
    packaged_configs,
    to_json,
)

CONFIG = TrainConfig(method="distill")
# Every setting differs from its default, so that none can be lost unnoticed.
CHANGED = TrainConfig(
    method="distill",
    model=distill.Config(
        widths=((1, 2), (3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13,)),
        teachers=("a.safetensors:relu1_1+relu2_1", "vgg16:relu3_1"),
        layer_weights=(("relu1_1", 0.5),),
        gram_weight=0.5,
        stages=((2, "relu1_1", 8, 0.5), (3, "relu2_1", 16, 0.25)),
        padding="reflect",
        scale="oxford",
    ),
    start="runs/other",
    steps=7,
    batch_size=12,
    crop_size=24,
    seed=5,
    optimizer=OptimizerConfig(
        name="muon",
        learning_rate=0.25,
        schedule="cosine",
        warmup_steps=3,
        final_fraction=0.125,
        b1=0.5,
        b2=0.75,
        weight_decay=0.01,
        clip_norm=2.0,
    ),
    data=DataConfig(
        content="photos",
        style="paintings",
        held_out="a",
        held_out_style="b",
        tfds_dir="c",
        style_batch_size=8,
        min_scale=1.25,
        max_scale=1.5,
        flip=False,
        threads=4,
        prefetch=5,
    ),
    precision="bfloat16",
    accumulate=3,
    average=0.5,
    checkpoint_every=11,
    keep_checkpoints=4,
    best_metric="gram/relu1_1",
    log_every=13,
    evaluate_every=0,
    evaluate_batches=2,
    sample_every=0,
    samples=2,
)

GOOD = """
from jaxstyle.training.config import TrainConfig

def get_config():
    return TrainConfig(method="distill", steps=123)
"""


def write(folder, text, name="run.py"):
    path = folder / name
    path.write_text(text)
    return str(path)


def settings_of(config, prefix=""):
    """Settings by their whole names."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (TrainConfig, {"method": "distil"}, "no method 'distil'; did you mean distill?"),
        (TrainConfig, {}, "there is no method ''"),
        (TrainConfig, {"steps": 0}, "steps must be finite and at least 1; got 0"),
        (TrainConfig, {"batch_size": 2.5}, "batch_size must be of type int; got 2.5"),
        (TrainConfig, {"crop_size": 7}, "crop_size must be finite and at least 8; got 7"),
        (TrainConfig, {"precision": "float16"}, "precision must be one of float32, bfloat16"),
        (TrainConfig, {"average": 1.0, "method": "distill"}, "average must be below 1; got 1.0"),
        (TrainConfig, {"model": 3, "method": "distill"}, "model must be the Config of distill"),
        (OptimizerConfig, {"name": "adma"}, "did you mean adam?"),
        (OptimizerConfig, {"schedule": "cosin"}, "did you mean cosine?"),
        (OptimizerConfig, {"learning_rate": float("nan")}, "learning_rate must be finite"),
        (OptimizerConfig, {"schedule": "inverse_time"}, "above 0 and at most 1 for inverse_time"),
        (OptimizerConfig, {"schedule": "inverse_time", "final_fraction": 1.5}, "got 1.5"),
        (DataConfig, {"threads": 0}, "threads must be finite and at least 1; got 0"),
        (DataConfig, {"flip": 1}, "flip must be of type bool; got 1"),
        (DataConfig, {"min_scale": 0.5}, "data.min_scale must be at least 1"),
        (DataConfig, {"min_scale": 2.0}, "at most data.max_scale; got 2.0 and 1.0"),
    ],
)
def test_what_is_refused(kind, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**settings)


def test_the_model_is_that_of_the_method():
    assert CONFIG.model == distill.Config()
    other = distill.Config(padding="reflect")
    assert TrainConfig(method="distill", model=other).model is other


def test_parts_are_not_shared():
    assert (CONFIG.optimizer, CONFIG.data) == (OptimizerConfig(), DataConfig())
    assert TrainConfig(method="distill").data is not CONFIG.data


def test_settings_can_be_hashed():
    again = from_json(json.loads(json.dumps(to_json(CHANGED))))
    assert len({CONFIG, CHANGED, again}) == 2


def test_every_setting_has_a_line_of_help():
    for kind in (TrainConfig, DataConfig, OptimizerConfig):
        for entry in dataclasses.fields(kind):
            if "help" in entry.metadata:
                assert len(entry.metadata["help"]) > 5
                assert "\n" not in entry.metadata["help"]


# --- files ---------------------------------------------------------------------------------------


def test_a_file(tmp_path):
    assert load_config(write(tmp_path, GOOD)) == dataclasses.replace(CONFIG, steps=123)


def test_a_file_in_the_own_folder_of_the_user(tmp_path, monkeypatch):
    write(tmp_path, GOOD)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config("~/run.py").steps == 123


def test_a_file_knows_where_it_lies(tmp_path):
    """As a program that is started does; and it is not taken for the main one."""
    text = f"print(__file__)\nif __name__ == '__main__': raise SystemExit\n{GOOD}"
    write(tmp_path, text.replace("123", "len(__file__)"))
    path = str(tmp_path / "run.py")
    assert load_config(path).steps == len(path)


def test_a_name():
    assert "lite" in packaged_configs()
    assert load_config("lite").method == "distill"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no function get_config()"),
        ("def get_config(:", "SyntaxError"),
        ("import jaxstyle.nothing", "No module named 'jaxstyle.nothing'"),
        ("from jaxstyle.methods import adian", "cannot import name 'adian'"),
        ("def get_config(): return undefined", "name 'undefined' is not defined"),
        ("def get_config(seed): return seed", "missing 1 required positional argument"),
        ("def get_config(): return {}", "must give a TrainConfig; got dict"),
        (GOOD.replace("steps", "stepz"), "unexpected keyword argument 'stepz'"),
        (GOOD.replace("123", "0"), "steps must be finite and at least 1; got 0"),
        (
            "from jaxstyle.methods import distill\ndef get_config(): return distill.Confg()",
            "has no attribute 'Confg'",
        ),
        ("def get_config(): return {}['lost']", "KeyError: 'lost'"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert path in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"there is no configuration .*gone\.py$"):
        load_config(str(tmp_path / "gone.py"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config(str(tmp_path / "folder.py"))
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config(str(tmp_path / "bytes.py"))


def test_unknown_names():
    with pytest.raises(UserError) as caught:
        load_config("lit")
    message = str(caught.value)
    assert "did you mean lite?" in message
    for name in packaged_configs():
        assert name in message
    assert "\n" not in message
    with pytest.raises(UserError, match=r"a file ends in \.py"):
        load_config("runs/mine")


# --- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("steps=250", 250),
        ("steps= 250 ", 250),
        ("optimizer.learning_rate=1e-2", 0.01),
        ("optimizer.learning_rate=2", 2.0),  # a whole number where a fraction was
        ("optimizer.name=sgd", "sgd"),
        ("data.flip=false", False),
        ("data.flip=True", True),
        ("data.content=gs://bucket/a=b,c d", "gs://bucket/a=b,c d"),
        ("data.content=", ""),
        ("data.content=12", "12"),  # a folder may have any name
        ("model.padding=reflect", "reflect"),
        ("model.teachers=('a:relu1_1', 'b:relu2_1')", ("a:relu1_1", "b:relu2_1")),
        ("model.teachers=['a:relu1_1']", ("a:relu1_1",)),
        ("model.stages=[[5, 'relu1_1', 16, 0.5]]", ((5, "relu1_1", 16, 0.5),)),
        ("model.layer_weights=()", ()),
        ("average=0.99", 0.99),
    ],
)
def test_override(item, value):
    name = item.partition("=")[0]
    config = override(CONFIG, [item])
    found = dict(settings_of(config))
    assert found[name] == value
    assert type(found[name]) is type(value)
    hash(config)
    # Nothing else is touched, and not the configuration that was given.
    others = dict(settings_of(CONFIG)) | {name: value}
    assert found == others
    assert TrainConfig(method="distill") == CONFIG


def test_overrides_come_one_after_the_other():
    config = override(CHANGED, ["steps=1", "data.max_scale=3", "data.min_scale=2", "steps=2"])
    assert (config.steps, config.data.min_scale, config.data.max_scale) == (2, 2.0, 3.0)
    assert config.model is CHANGED.model
    assert override(CHANGED, []) is CHANGED


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("steps", "expected NAME=VALUE"),
        ("stepz=3", "no setting 'stepz'; did you mean steps?"),
        ("optimizer.learning_rat=1", "'optimizer.learning_rat'; did you mean learning_rate?"),
        ("optimiser.b1=1", "'optimiser.b1'; did you mean optimizer?"),
        ("model.xyzzy=1", "no setting 'model.xyzzy' (there are widths, teachers,"),
        ("=3", "no setting ''"),
        ("steps.more=3", "steps has no parts"),
        ("data=photos", "data has parts of its own: data.content, data.style"),
        ("steps=many", "expected a value like 10000"),
        ("steps=2.5", "expected a value like 10000"),
        ("steps=1e4", "expected a value like 10000"),
        ("steps=True", "expected a value like 10000"),
        ("steps=", "expected a value like 10000"),
        ("steps=__import__('os')", "expected a value like 10000"),
        ("steps={[]: 1}", "expected a value like 10000"),
        ("average=False", "expected a value like 0.0"),
        ("data.flip=1", "expected true or false"),
        ("data.flip=yes", "expected true or false"),
        ("steps=0", "steps must be finite and at least 1; got 0"),
        ("optimizer.learning_rate=1e999", "learning_rate must be finite"),
        ("optimizer.name=adma", "did you mean adam?"),
        ("method=distil", "did you mean distill?"),
        ("model.teachers=vgg19:relu1_1", "expected a value like ("),
        ("model.teachers=('vgg19:relu1_1')", "expected a value like ("),
        ("model.widths=((1, 2),)", "rows of 2, 2, 4, 4 and 1"),
    ],
)
def test_overrides_that_are_refused(item, message):
    with pytest.raises(UserError) as caught:
        override(CONFIG, ["seed=1", item])
    assert str(caught.value).startswith("--set ")
    assert item in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- JSON ----------------------------------------------------------------------------------------


def test_the_changed_configuration_differs_everywhere():
    default, changed = dict(settings_of(CONFIG)), dict(settings_of(CHANGED))
    assert [name for name in default if default[name] == changed[name]] == ["method"]


@pytest.mark.parametrize("config", [CONFIG, CHANGED], ids=["default", "changed"])
def test_json_and_back(config):
    values = to_json(config)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    again = from_json(values)
    assert again == config
    assert to_json(again) == values
    assert from_json(json.loads(json.dumps(values))) == config


def test_json_is_plain():
    values = to_json(CHANGED)
    assert list(values) == [entry.name for entry in dataclasses.fields(TrainConfig)]
    assert values["optimizer"]["learning_rate"] == 0.25
    assert values["model"]["stages"] == [[2, "relu1_1", 8, 0.5], [3, "relu2_1", 16, 0.25]]


def test_settings_that_older_versions_lacked_take_their_defaults():
    values = to_json(CHANGED)
    del values["average"], values["data"]["threads"], values["model"]["padding"]
    config = from_json(values)
    assert config.average == 0
    assert config.data == dataclasses.replace(CHANGED.data, threads=DataConfig().threads)
    assert config.model == dataclasses.replace(CHANGED.model, padding="zero")
    assert from_json({"method": "distill"}) == CONFIG


def test_from_json_leaves_what_it_reads():
    values = to_json(CHANGED)
    from_json(values)
    assert values == to_json(CHANGED)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["stepz"], 1, "no setting 'stepz' in TrainConfig"),
        (["data", "thread"], 1, "no setting 'thread' in DataConfig"),
        (["optimizer", "rate"], 1, "no setting 'rate' in OptimizerConfig"),
        (["model", "width"], 1, "no setting 'width' in Config"),
        (["method"], "gone", "there is no method 'gone'"),
        (["method"], None, "there is no method ''"),
        (["steps"], -1, "steps must be finite and at least 1; got -1"),
    ],
)
def test_json_that_is_refused(path, value, message):
    values = to_json(CHANGED)
    *parts, name = path
    inner = values[parts[0]] if parts else values
    inner[name] = value
    if value is None:
        del inner[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        from_json(values)
