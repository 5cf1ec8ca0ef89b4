import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT, python
from safetensors.numpy import save_file

import jaxstyle
from jaxstyle import cli, images, tiling, weights
from jaxstyle.commands import optimise, options
from jaxstyle.commands.resumption import Resumption
from jaxstyle.config import PRESETS, StylizeConfig, preset
from jaxstyle.methods import gatys, gatys_layout

pytestmark = pytest.mark.usefixtures("quick_compiler")

WIDTHS = {"conv1_1": 4, "conv1_2": 4, "conv2_1": 4, "conv2_2": 6}
WIDTHS |= {f"conv3_{i}": 6 for i in (1, 2, 3, 4)} | {f"conv4_{i}": 8 for i in (1, 2, 3, 4)}
WIDTHS |= {"conv5_1": 8}
DEFAULT = preset("default", scale="normalized")
SMALL = ["--size", "32", "--steps", "3", "--scales", "1"]
# Few layers, for they are what the compiler takes long for.
LIGHT = ["--style-layers", "relu1_1,relu1_2", "--content-layers", "relu2_1"]
LIGHT += ["--style-loss", "elements", "--averaging", "0"]


# Pictures, a network, and a stylize that costs nothing


def write_picture(path, seed, size=(24, 32), alpha=None):
    pixels = np.random.default_rng(seed).random((*size, 3), np.float32)
    images.save(path, images.resize(pixels[::4, ::4], size), alpha=alpha)
    return path


def write_network(path, metadata=None):
    """A narrow VGG-19 with random parameters."""
    random = np.random.default_rng(0)
    tensors = {
        "preprocess/kernel": np.eye(3, dtype=np.float32)[None, None],
        "preprocess/bias": np.full(3, -0.5, np.float32),
    }
    inputs = 3
    for layer, outputs in WIDTHS.items():
        kernel = random.normal(size=(3, 3, inputs, outputs)) * np.sqrt(2 / (9 * inputs))
        tensors[f"{layer}/kernel"] = kernel.astype(np.float32)
        tensors[f"{layer}/bias"] = np.zeros(outputs, np.float32)
        inputs = outputs
    save_file(tensors, path, metadata)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_picture(folder / "photo.png", 1)
    write_picture(folder / "wave.png", 2, (40, 20))
    write_picture(folder / "dots.png", 3)
    write_network(folder / "net.safetensors")
    return folder


@pytest.fixture
def command(pictures, in_copy):
    """Runs `jaxstyle stylize` in a folder with the pictures, without touching this process."""
    folder = in_copy(pictures)

    def run(*arguments):
        return cli.main(["stylize", *map(str, arguments), "--features", "net.safetensors"])

    run.folder = folder
    return run


class Fake:
    """Stands for `gatys.stylize`: a few iterates of one grey, and a note of what was asked."""

    def __init__(self):
        self.calls = []
        self.totals = None
        self.how = None

    def __call__(self, content, styles, *, features, config, style_weights=None, init=None, **how):
        self.how = how
        self.calls.append(
            {
                "content": content,
                "styles": styles,
                "features": features,
                "config": config,
                "style_weights": style_weights,
                "init": init,
            }
        )
        shape = images.fitted_size(*content.shape[:2], config.size)
        for scale in range(1, config.scales + 1):
            for step in range(1, config.steps + 1):
                total = 1.0 / step if self.totals is None else self.totals[step - 1]
                losses = {"total": total, "content": total / 2, "style": total / 2, "tv": 0.0}
                image = np.full((*shape, 3), 0.5, np.float32)
                yield gatys.Iterate(
                    image=image,
                    step=step,
                    steps=config.steps,
                    scale=scale,
                    scales=config.scales,
                    losses=losses,
                    state=(np.full(3, step, np.float32),),
                )

    @property
    def config(self):
        return self.calls[-1]["config"]


@pytest.fixture
def fake(monkeypatch):
    stand_in = Fake()
    monkeypatch.setattr(gatys, "stylize", stand_in)
    return stand_in


def only_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


# Help


def test_help_is_instant():
    code = """
        import sys
        from jaxstyle import cli
        assert cli.main(["stylize", "--help"]) == 0
        heavy = {"jax", "numpy", "PIL", "tqdm", "matplotlib", "h5py"} & set(sys.modules)
        assert not heavy, heavy
    """
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        result = python(code)
        seconds.append(time.monotonic() - begun)
        assert result.returncode == 0, result.stderr
    assert min(seconds) < 0.5


def test_help_names_every_setting_and_its_default(capsys):
    assert cli.main(["stylize", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in StylizeConfig.__dataclass_fields__.items():
        value = getattr(PRESETS["default"].native, name)
        if isinstance(value, float):
            value = f"{value:g}"
        elif isinstance(value, bool):
            value = "on" if value else "off"
        shown = f"(default: {value})" if isinstance(value, int | str) else "(default: "
        assert re.search(rf"{flag(name)}[ ,] *\S.*? {re.escape(field.metadata['help'])} ", text)
        assert f"{field.metadata['help']} {shown}" in text
    assert "jaxstyle stylize CONTENT STYLE [STYLE ...] -o OUT" in text
    assert f"(default: {images.MAX_PIXELS})" in text


def test_module_and_version():
    result = subprocess.run(
        [sys.executable, "-m", "jaxstyle", "--version"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, f"jaxstyle {jaxstyle.__version__}\n")


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 2
    assert "stylize" in capsys.readouterr().err


# Mistakes: one line, exit code 2, nothing written


BASIC = ["photo.png", "wave.png", "-o", "out.png"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*BASIC, "--sise", "3"], ["--sise", "did you mean --size"]),
        ([*BASIC, "--stepz=3"], ["--stepz", "did you mean --steps"]),
        ([*BASIC, "--size", "0"], ["--size", "at least 1", "'0'"]),
        ([*BASIC, "--size", "12.5"], ["--size", "whole number"]),
        ([*BASIC, "--steps", "-3"], ["--steps", "at least 1"]),
        ([*BASIC, "--scales", "many"], ["--scales", "'many'"]),
        ([*BASIC, "--style-weight", "nan"], ["--style-weight", "at least 0", "'nan'"]),
        ([*BASIC, "--content-weight", "inf"], ["--content-weight"]),
        ([*BASIC, "--tv-weight", "-1"], ["--tv-weight", "at least 0"]),
        ([*BASIC, "--learning-rate", "-1"], ["--learning-rate", "at least 0"]),
        ([*BASIC, "--averaging", "1"], ["averaging must be below 1"]),
        ([*BASIC, "--standardize"], ["clamp"]),
        ([*BASIC, "--seed", "-1"], ["--seed"]),
        ([*BASIC, "--seed", "9" * 400], ["--seed"]),
        ([*BASIC, "--quality", "101"], ["--quality", "1 to 100"]),
        ([*BASIC, "--pooling", "avgg"], ["--pooling", "did you mean avg"]),
        ([*BASIC, "--optimizer", "lbgfs"], ["did you mean lbfgs"]),
        ([*BASIC, "--preset", "defualt"], ["--preset", "did you mean default"]),
        ([*BASIC, "--padding", "zeros"], ["did you mean zero"]),
        ([*BASIC, "--keep-colors=luminence"], ["did you mean luminance"]),
        ([*BASIC, "--content-layers", "relu4_9"], ["'relu4_9'", "net", "did you mean relu4_"]),
        ([*BASIC, "--style-layers", "relu1_1,,"], ["--style-layers", "between commas"]),
        ([*BASIC, "--style-layers", "relu1_1,relu1_1"], ["relu1_1 is named twice"]),
        ([*BASIC, "--style-layers", "relu1_1=x"], ["--style-layers", "'x'"]),
        ([*BASIC, "--style-weights", "1,2"], ["2 weights", "1 styles"]),
        ([*BASIC, "--style-weights", "0"], ["above 0"]),
        ([*BASIC, "--style-weights", "wave=1"], ["trained model", "wave.png is a painting"]),
        ([*BASIC, "--strength", "0.5"], ["--strength is for trained models", "--model"]),
        ([*BASIC, "--keep-colors", "luminance,match"], ["--keep-colors", "one of luminance, m"]),
        ([*BASIC, "--tile", "often"], ["auto, off or a number of pixels"]),
        ([*BASIC, "--tile", "0"], ["a number of pixels, at least 1", "'0'"]),
        ([*BASIC, "--memory", "lots"], ["a size, as in 4GiB", "'lots'"]),
        ([*BASIC, "--memory", "0.0.1GB"], ["a size, as in 4GiB"]),
        ([*BASIC, "--memory", "4"], ["--memory", "at least 16MiB, as in 4GiB", "4 bytes"]),
        ([*BASIC, "--memory", "15.9MiB"], ["--memory", "at least 16MiB"]),
        ([*BASIC, "--interpolate", "3"], ["--interpolate is for trained models"]),
        ([*BASIC, "--init", "contnet"], ["--init", "did you mean content"]),
        ([*BASIC, "--device", "abacus"], ["'abacus'", "cpu"]),
        ([*BASIC, "--device", "cpu:99"], ["'cpu:99'", "cpu"]),
        ([*BASIC, "--preview", "nowhere/p.png"], ["nowhere"]),
        ([*BASIC, "--preview", "p.xyz"], [".xyz"]),
        ([*BASIC, "--preview", "out.png"], ["out.png", "twice"]),
        ([*BASIC, "--trace", "nowhere/t.jsonl"], ["nowhere"]),
        ([*BASIC, "--preview", "wave.png", "--overwrite"], ["wave.png is read"]),
        (["photo.png", "-o", "out.png"], ["STYLE", "--style NAME", "--model"]),
        (["photo.png", "wave.png"], ["-o"]),
        (["none.png", "wave.png", "-o", "out.png"], ["none.png", "no such file"]),
        (["photo.png", "none.png", "-o", "out.png"], ["none.png", "no such file"]),
        (["net.safetensors", "wave.png", "-o", "out.png"], ["net.safetensors", "not a picture"]),
        (["photo.png", "wave.png", "-o", "out.xyz"], [".xyz"]),
        (["photo.png", "wave.png", "-o", "nowhere/out.png"], ["nowhere"]),
        (["photo.png", "wave.png", "-o", "."], ["folder"]),
        (["photo.png", "wave.png", "-o", "photo.png", "--overwrite"], ["photo.png is read"]),
        (["photo.png", "wave.png", "-o", "wave.png", "--overwrite"], ["wave.png is read"]),
        ([".", "wave.png", "-o", "."], ["folder of the contents"]),
        ([".", "wave.png", "-o", "net.safetensors"], ["is a file"]),
    ],
)
def test_mistakes(command, fake, capsys, arguments, expected):
    before = {path: path.read_bytes() for path in command.folder.iterdir()}
    assert command(*arguments) == 2
    output = capsys.readouterr()
    line = only_line(output.err)
    assert line.startswith("jaxstyle: error: ")
    for text in expected:
        assert text in line
    assert output.out == ""
    assert {path: path.read_bytes() for path in command.folder.iterdir()} == before
    assert not fake.calls


def test_unknown_command(capsys):
    assert cli.main(["stylise"]) == 2
    assert "did you mean stylize" in only_line(capsys.readouterr().err)


def test_features_that_are_not_there(command, capsys):
    assert cli.main(["stylize", *BASIC, "--features", "vgg18"]) == 2
    assert "did you mean vgg1" in only_line(capsys.readouterr().err)


def test_loss_that_is_no_number(command, fake, capsys):
    fake.totals = [1.0, float("nan"), 1.0]
    assert command(*BASIC, *SMALL, "--quiet") == 2
    line = only_line(capsys.readouterr().err)
    assert "nan at step 2 of scale 1" in line
    assert "--learning-rate" in line
    assert not Path("out.png").exists()


def test_no_memory(command, monkeypatch, capsys):
    def stylize(*_, **__):
        raise MemoryError
        yield

    monkeypatch.setattr(gatys, "stylize", stylize)
    assert command(*BASIC, "--quiet") == 2
    assert "not enough memory at --size 512" in only_line(capsys.readouterr().err)


def test_no_trained_features_at_hand(command, fake, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(weights, "default_spec", lambda: "random")
    assert cli.main(["stylize", *BASIC]) == 0
    assert "jaxstyle weights fetch vgg19" in capsys.readouterr().err
    assert fake.calls[0]["features"].name == "random"


# The other command


def test_weights_are_listed(capsys):
    assert cli.main(["weights", "list"]) == 0
    text = capsys.readouterr().out
    for row in weights.list_weights():
        assert row.name in text
        assert row.path in text


def test_weights_are_fetched_by_name(monkeypatch, capsys):
    asked = []

    def fetch(name, *, progress):
        asked.append((name, progress))
        return Path("cache/vgg19.h5")

    monkeypatch.setattr(weights, "fetch", fetch)
    assert cli.main(["weights", "fetch", "vgg19"]) == 0
    assert cli.main(["weights", "fetch", "vgg19", "--quiet"]) == 0
    assert asked == [("vgg19", True), ("vgg19", False)]
    assert capsys.readouterr().out == "cache/vgg19.h5\n" * 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fetch"], "fetch what?"),
        (["fetch", "vgg18"], "vgg18"),
        (["list", "vgg19"], "takes no name"),
        (["fitch", "vgg19"], "did you mean fetch"),
        ([], "list|fetch"),
    ],
)
def test_mistakes_about_weights(capsys, arguments, expected):
    assert cli.main(["weights", *arguments]) == 2
    assert expected in only_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("preset", "cached", "expected"),
    [
        ("default", ["vgg19"], "lite"),
        ("local2021", ["vgg16", "vgg19"], "vgg16"),
        ("local2021", ["vgg19"], "lite"),
    ],
)
def test_a_preset_prefers_its_own_features(monkeypatch, preset, cached, expected):
    from jaxstyle.commands import optimise

    rows = [weights.Listed(name, "cached", 1, "", "", "") for name in cached]
    monkeypatch.setattr(weights, "list_weights", lambda: rows)
    monkeypatch.setattr(weights, "default_spec", lambda: "lite")
    assert optimise._own_features(preset) == expected


# Options


def test_defaults_are_those_of_the_preset(command, fake):
    assert command(*BASIC) == 0
    assert fake.config == DEFAULT
    assert fake.calls[0]["init"] is None
    assert fake.calls[0]["style_weights"] is None
    assert fake.calls[0]["features"].padding == "reflect"
    np.testing.assert_array_equal(
        fake.calls[0]["content"], images.load("photo.png").pixels, strict=True
    )


def test_options_change_their_setting_alone(command, fake):
    options = {
        "size": 40,
        "style_scale": 0.5,
        "content_weight": 2.0,
        "style_weight": 3.0,
        "tv_weight": 0.0,
        "pooling": "avg",
        "optimizer": "lbfgs",
        "learning_rate": 0.5,
        "steps": 2,
        "scales": 2,
        "averaging": 0.0,
        "init": "noise",
        "seed": 7,
    }
    arguments = [x for name, value in options.items() for x in (flag(name), value)]
    assert command(*BASIC, *arguments) == 0
    wanted = {name: getattr(DEFAULT, name) for name in StylizeConfig.__dataclass_fields__}
    assert vars(fake.config) == wanted | options


def flag(name):
    return "--" + name.replace("_", "-")


def test_options_may_stand_between_pictures(command, fake):
    arguments = ["photo.png", "--size", 30, "wave.png", "--steps", 1, "dots.png", "-o", "out.png"]
    assert command(*arguments) == 0
    assert len(fake.calls[0]["styles"]) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--keep-colors", "photo.png", "wave.png"], "luminance"),
        (["photo.png", "wave.png", "--keep-colors"], "luminance"),
        (["photo.png", "--keep-colors", "wave.png"], "luminance"),
        (["photo.png", "--keep-colors", "match", "wave.png"], "match"),
        (["photo.png", "wave.png", "--keep-colors=match"], "match"),
        (["photo.png", "wave.png"], None),
    ],
)
def test_keep_colors_may_stand_alone(command, fake, arguments, expected):
    assert command(*arguments, "-o", "out.png") == 0
    assert fake.config.keep_colors == expected
    assert len(fake.calls[0]["styles"]) == 1


def test_layers_without_weight_share_the_total(command, fake):
    layers = "relu1_1,relu2_1=0.5"
    assert command(*BASIC, "--content-layers", "relu4_2", "--style-layers", layers) == 0
    total = sum(DEFAULT.style_layers.values())
    assert dict(fake.config.content_layers) == {"relu4_2": sum(DEFAULT.content_layers.values())}
    assert dict(fake.config.style_layers) == {"relu1_1": pytest.approx(total / 2), "relu2_1": 0.5}


def test_several_styles_with_weights(command, fake):
    arguments = ["photo.png", "wave.png", "dots.png", "-o", "out.png"]
    assert command(*arguments, "--style-weights", "0.7,0.3") == 0
    assert fake.calls[0]["style_weights"] == [0.7, 0.3]
    assert [style.shape for style in fake.calls[0]["styles"]] == [(40, 20, 3), (24, 32, 3)]


def test_a_file_to_start_from(command, fake):
    assert command(*BASIC, "--init", "dots.png") == 0
    np.testing.assert_array_equal(fake.calls[0]["init"], images.load("dots.png").pixels)
    assert metadata("out.png")["settings"]["init"] == "dots.png"


def test_padding_goes_before_that_of_the_features(command, fake):
    assert command(*BASIC, "--padding", "zero") == 0
    assert fake.calls[0]["features"].padding == "zero"


def test_device_by_name(command, fake):
    assert command(*BASIC, "--device", "cpu:1") == 0


# Files


def metadata(path):
    return json.loads(images.read_metadata(path)["jaxstyle"])


def test_an_output_is_only_replaced_when_asked(command, fake, capsys):
    Path("out.png").write_bytes(b"mine")
    assert command(*BASIC, "--steps", 1) == 2
    assert "--overwrite" in only_line(capsys.readouterr().err)
    assert Path("out.png").read_bytes() == b"mine"
    assert command(*BASIC, "--steps", 1, "--overwrite") == 0
    assert images.load("out.png").pixels.shape == (384, 512, 3)


@pytest.mark.parametrize("option", ["--preview", "--trace"])
def test_side_files_are_only_replaced_when_asked(command, fake, capsys, option):
    Path("side.png").write_bytes(b"mine")
    assert command(*BASIC, *SMALL, option, "side.png") == 2
    assert "--overwrite" in only_line(capsys.readouterr().err)
    assert command(*BASIC, *SMALL, option, "side.png", "--overwrite") == 0
    assert images.load("side.png").pixels.ndim == 3


def test_a_link_to_an_input_is_an_input(command, fake, capsys):
    os.link("photo.png", "out.png")
    assert command(*BASIC, "--overwrite") == 2
    assert "read by this command" in only_line(capsys.readouterr().err)


def test_alpha_is_put_back(command, fake):
    alpha = np.zeros((24, 32), np.float32)
    alpha[:, 16:] = 1
    write_picture("photo.png", 1, alpha=alpha)
    assert command(*BASIC, *SMALL) == 0
    out = images.load("out.png")
    assert out.alpha.shape == (24, 32)
    np.testing.assert_allclose(out.alpha, alpha, atol=1 / 255)


def test_metadata_tell_what_made_the_picture(command, fake):
    Path("in").mkdir()
    write_picture("in/photo.png", 1)
    assert command("in/photo.png", "wave.png", "-o", "out.jpg", *SMALL, "--seed", 5) == 0
    found = metadata("out.jpg")
    assert found["version"] == jaxstyle.__version__
    assert (found["content"], found["styles"]) == ("photo.png", ["wave.png"])
    assert found["features"]["name"] == "net"
    assert re.fullmatch("[0-9a-f]{64}", found["features"]["sha256"])
    assert found["settings"]["seed"] == 5
    assert found["settings"]["size"] == 32
    assert found["finished"] is True
    assert str(command.folder) not in json.dumps(found)


# Folders


@pytest.fixture
def album(command):
    Path("in").mkdir()
    write_picture("in/a.png", 1)
    write_picture("in/b.jpg", 2)
    Path("in/c.bmp").write_bytes(b"broken")
    write_picture("in/d.png", 4)
    Path("in/notes.txt").write_text("no picture")
    return Path("in")


def test_folder(command, fake, album, capsys):
    assert command("in", "wave.png", "-o", "new/out", *SMALL) == 1
    assert sorted(path.name for path in Path("new/out").iterdir()) == ["a.png", "b.jpg", "d.png"]
    errors = capsys.readouterr().err
    assert "jaxstyle: error: in/c.bmp" in errors
    assert "3 made, 0 skipped as they were there already, 1 failed" in errors


def test_folder_skips_what_is_there(command, fake, album, capsys):
    Path("in/c.bmp").unlink()
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"mine")
    write_picture("out/b.jpg", 9)
    assert command("in", "wave.png", "-o", "out", *SMALL) == 0
    assert "1 made, 2 skipped" in capsys.readouterr().err
    assert Path("out/a.png").read_bytes() == b"mine"
    assert command("in", "wave.png", "-o", "out", *SMALL, "--overwrite") == 0
    assert metadata("out/a.png")["content"] == "a.png"
    assert len(fake.calls) == 4


def test_folder_goes_on_with_what_was_stopped(command, fake, album):
    Path("in/c.bmp").unlink()
    Path("out").mkdir()
    for name, finished in (("a.png", False), ("d.png", True)):
        made_by = {"jaxstyle": json.dumps({"finished": finished})}
        images.save(f"out/{name}", np.zeros((4, 4, 3), np.float32), metadata=made_by)
    assert command("in", "wave.png", "-o", "out", *SMALL) == 0
    assert images.load("out/a.png").pixels.shape == (24, 32, 3)
    assert images.load("out/d.png").pixels.shape == (4, 4, 3)


def test_folder_keeps_apart_what_would_have_one_name(command, fake):
    Path("in").mkdir()
    write_picture("in/a.png", 1)
    Path("in/a.gif").write_bytes(Path("in/a.png").read_bytes())
    assert command("in", "wave.png", "-o", "out", *SMALL) == 0
    assert metadata("out/a.png")["content"] == "a.gif"  # the first by name
    assert metadata("out/a.png.png")["content"] == "a.png"


def test_folder_never_writes_over_a_style(command, fake, album, capsys):
    Path("out").mkdir()
    write_picture("out/a.png", 1)
    assert command("in", "out/a.png", "-o", "out", *SMALL, "--overwrite") == 2
    assert "out/a.png is read" in only_line(capsys.readouterr().err)


def test_folder_trace_names_the_pictures(command, fake, album):
    Path("in/c.bmp").unlink()
    assert command("in", "wave.png", "-o", "out", *SMALL, "--trace", "t.png") == 0
    rows = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert [row["picture"] for row in rows[::3]] == ["a.png", "b.jpg", "d.png"]
    assert images.load("t.png").pixels.ndim == 3


# Progress


def test_progress_without_a_terminal(command, fake, capsys):
    assert command(*BASIC, "--size", 32, "--scales", 2, "--steps", 5) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["scale 1/2", "scale 2/2"]
    assert "step 5/5  total 0.2  content 0.1  style 0.1  tv 0" in lines[1]
    assert lines[1].endswith(" left")
    assert lines[-1].startswith("out.png: 32 x 24 pixels, 10 steps, ")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", "".join(lines))


def test_progress_on_a_terminal(command, fake, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert command(*BASIC, "--size", 32, "--scales", 2, "--steps", 5) == 0
    text = capsys.readouterr().err
    assert "\r" in text
    assert text.splitlines()[-1].startswith("out.png: 32 x 24 pixels")


def test_quiet(command, fake, capsys):
    assert command(*BASIC, *SMALL, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_warnings_of_the_package_are_lines(command, fake, capsys):
    from PIL import Image

    Image.new("RGB", (8, 8)).save("photo.png", icc_profile=b"broken")
    assert command(*BASIC, *SMALL) == 0
    assert "warning: photo.png: its colour profile is broken" in capsys.readouterr().err


def test_time_left_counts_pixels():
    from jaxstyle.commands.progress import Moment, TimeLeft, duration

    times = iter([0.0, 10.0, 11.0, 12.0, 20.0, 24.0])
    left = TimeLeft([(100, 3), (400, 3)], clock=lambda: next(times))
    assert left.update(Moment(1, 2, 1, 3)) is None  # 10 s were the compiler's
    # One more step of 1 s, three of four times the pixels, and the compiler once more.
    assert left.update(Moment(1, 2, 2, 3)) == pytest.approx(1 + 3 * 4 + 10)
    assert left.fraction == pytest.approx(200 / (300 + 1200))
    left.update(Moment(1, 2, 3, 3))
    left.update(Moment(2, 2, 1, 3))
    assert left.update(Moment(2, 2, 2, 3)) == pytest.approx(4)
    assert [duration(s) for s in (8.2, 80, 7500)] == ["8 s", "1 min 20 s", "2 h 5 min"]


# Ctrl-C, in a process of its own, with a stylize that costs nothing


SLOW_RUN = """
    import hashlib, sys, time
    import numpy as np
    from jaxstyle import cli, images
    from jaxstyle.methods import gatys

    mode, arguments = sys.argv[1], sys.argv[2:]

    def slow(content, styles, *, features, config, **_):
        print("ready", flush=True)
        if mode == "compiler":  # holds Python back, as the compiler does
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        for step in range(1, 1000):
            losses = dict.fromkeys(("total", "content", "style", "tv"), 1.0)
            yield gatys.Iterate(
                image=np.full((8, 8, 3), 0.5, np.float32),
                step=step, steps=1000, scale=1, scales=1, losses=losses,
            )
            if step == 3:
                print("stepping", flush=True)
            if mode == "stuck" and step == 3:
                hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
            time.sleep(1.0 if mode == "slow" and step >= 3 else 0.01)

    gatys.stylize = slow
    sys.exit(cli.main(arguments))
"""


def interrupted(folder, mode, wait_for, signals, *more):
    """Sends signals once a word was said; the exit code, standard error and the seconds it took."""
    arguments = [*BASIC, "--features", "net.safetensors", *more]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW_RUN), mode, "stylize", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAXSTYLE_CACHE_DIR": str(folder / "cache")},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while wait_for not in process.stdout.readline():
        assert process.poll() is None
    begun = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.monotonic() - begun


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_interrupt_writes_the_picture_so_far(command, number, code):
    before = set(command.folder.iterdir())
    found, errors, _ = interrupted(command.folder, "quick", "stepping", [number])
    assert found == code
    assert "stopping after this step to save it" in errors
    assert "stopped early; the picture so far is in out.png: 8 x 8 pixels" in errors
    assert metadata("out.png")["finished"] is False
    assert 3 <= metadata("out.png")["step"] < 1000
    assert {path.name for path in set(command.folder.iterdir()) - before} == {"out.png", "cache"}


@pytest.mark.parametrize(
    ("mode", "wait_for", "signals", "says"),
    [
        ("stuck", "stepping", [signal.SIGINT] * 2, "quit at once; the picture was not written"),
        ("compiler", "ready", [signal.SIGTERM], "interrupted, with nothing to write yet"),
    ],
)
def test_interrupt_is_heard_while_the_compiler_is_busy(command, mode, wait_for, signals, says):
    before = set(command.folder.iterdir())
    found, errors, seconds = interrupted(
        command.folder, mode, wait_for, signals, "--quiet", "--trace", "t.png"
    )
    assert found == 128 + signals[0]
    assert seconds < 5
    assert only_line(errors) == f"jaxstyle: {says}"
    left = {path.name for path in set(command.folder.iterdir()) - before}
    assert left <= {"cache", "t.jsonl"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_second_interrupt_quits_at_once(command, number, code):
    found, errors, _ = interrupted(command.folder, "slow", "stepping", [number, number], "-q")
    assert (found, only_line(errors)) == (
        code,
        "jaxstyle: quit at once; the picture was not written",
    )
    assert not Path("out.png").exists()


def test_handlers_are_put_back(command, fake):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert command(*BASIC, *SMALL) == 0
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


# From files to files


def test_picture_preview_and_trace(command, capsys):
    arguments = [*LIGHT, "--size", 48, "--scales", 2, "--steps", 4, "--preview", "preview.jpg"]
    assert command(*BASIC, *arguments, "--trace", "trace.png") == 0
    out = images.load("out.png").pixels
    assert out.shape == (36, 48, 3)
    preview = images.load("preview.jpg").pixels
    assert np.abs(preview - out).mean() < 0.05
    assert images.load("trace.png").pixels.ndim == 3
    rows = [json.loads(line) for line in Path("trace.jsonl").read_text().splitlines()]
    places = [
        *((1, step) for step in (1, 2, 3, 4)),
        (2, 1),
        (2, 2),
    ]  # half as many where it is fine
    assert [(row["scale"], row["step"]) for row in rows] == places
    for row in rows:
        assert set(row) == {"scale", "step", "total", "content", "style", "tv", "seconds"}
        terms = row["content"] + row["style"] + row["tv"]
        assert list(row)[2:6] == ["total", "content", "style", "tv"]
        assert row["total"] == pytest.approx(terms, rel=1e-5)
    assert rows[-1]["style"] < rows[4]["style"]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert "scale 2/2  step 2/2" in capsys.readouterr().err


def test_same_seed_same_file(command):
    for name in ("a.png", "b.png"):
        arguments = ["photo.png", "wave.png", "-o", name, *SMALL, *LIGHT, "--init", "noise"]
        assert command(*arguments, "--seed", 3, "-q") == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_lbfgs_two_styles_and_kept_colors(command):
    styles = ["wave.png", "dots.png", "--style-weights", "0.7,0.3"]
    options = ["--optimizer", "lbfgs", "--pooling", "avg", "--keep-colors", "--init", "dots.png"]
    assert command("photo.png", *styles, "-o", "out.webp", *SMALL, *LIGHT, *options, "-q") == 0
    assert images.load("out.webp").pixels.shape == (24, 32, 3)


def test_a_real_process(command):
    """As a user runs it: caches, signals and all; stopped by Ctrl-C, it writes what it has."""
    options = ["--features", "net.safetensors", *SMALL, "--steps", "1000000"]
    options += ["--trace", "t.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxstyle", "stylize", *BASIC, *options],
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "JAXSTYLE_CACHE_DIR": str(command.folder / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (Path("t.jsonl").exists() and len(Path("t.jsonl").read_text().splitlines()) > 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the picture so far is in out.png: 32 x 24 pixels" in errors
    assert images.load("out.png").pixels.shape == (24, 32, 3)
    rows = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == metadata("out.png")["step"]
    assert list((command.folder / "cache" / "xla").iterdir())


# Keeps the state after every update, not every minute.
OFTEN = """
import sys
from jaxstyle import cli
from jaxstyle.commands import optimise
optimise._STATE_SECONDS = 0
sys.exit(cli.main(sys.argv[1:]))
"""


def test_after_a_kill_the_same_command_goes_on_to_the_same_file(command):
    """In processes of their own throughout: what compiles a step may differ from that here."""
    options = ["--features", "net.safetensors", *SMALL, *LIGHT, "--scales", "2", "--steps", "60"]
    options += ["--steps-factor", "1", "--tile", "16"]

    beside = ["--preview", "preview.png", "--trace", "t.jsonl", "--state", "states"]

    def begin(output, *more):
        return subprocess.Popen(
            [sys.executable, "-c", OFTEN, "stylize", *BASIC[:-1], output, *options, *more],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    process = begin("out.png")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    process = begin("again.png", *beside)
    deadline = time.monotonic() + 120
    while not len(list(Path("states").glob("again.png.state/*/run.json"))) > 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not Path("again.png").exists()
    process = begin("again.png", *beside)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "going on after step" in errors
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    assert not list(Path("states").glob("*/*"))
    rows = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    places = [(row["scale"], row["step"]) for row in rows]
    assert places == [(scale, step) for scale in (1, 2) for step in range(1, 61)]


def test_a_run_that_was_stopped_goes_on_with_its_own_files(command, fake, capsys, monkeypatch):
    given = [*BASIC, *SMALL, "--state", "states", "--trace", "t.jsonl", "--preview", "p.png"]
    unfinished = {"jaxstyle": json.dumps({"finished": False})}
    images.save("out.png", np.zeros((4, 4, 3), np.float32), metadata=unfinished)
    for name in ("t.jsonl", "p.png"):
        Path(name).write_bytes(b"mine")
    assert command(*given) == 2  # there is no state that they could be of
    assert "out.png exists" in only_line(capsys.readouterr().err)
    for name in ("out.png", "t.jsonl", "p.png"):
        Path(name).rename(f"other-{name}")
    leave_state(monkeypatch, *given)
    Path("other-out.png").rename("out.png")
    capsys.readouterr()
    monkeypatch.setattr(Resumption, "_state", lambda *_: None)  # of the stand-in
    assert command(*given) == 0
    assert "going on after step" in capsys.readouterr().err
    assert metadata("out.png")["finished"]
    assert command(*given) == 2  # that is a picture now, and the user's
    assert "out.png exists" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["folder", "settings", "file", "unfinished state"])
def test_a_state_gives_no_right_to_files_of_others(command, fake, capsys, monkeypatch, other):
    """Not that of another picture, of other settings, or of a run that did not write them."""
    given = [*BASIC, *SMALL, "--state", "states", "--preview", "p.png"]
    if other == "file":
        leave_state(monkeypatch, *given[:-2])
    elif other == "unfinished state":
        Path("states/out.png.state/10000001.partial").mkdir(parents=True)
    else:
        leave_state(monkeypatch, *given, *(["--seed", 9] if other == "settings" else []))
    if other == "folder":
        Path("in").mkdir()
        Path("wave.png").rename("in/wave.png")
        given[:4] = ["in", "dots.png", "-o", "out"]
    Path("p.png").write_bytes(b"mine")
    capsys.readouterr()
    assert command(*given) == 2
    assert "p.png exists" in only_line(capsys.readouterr().err)
    assert Path("p.png").read_bytes() == b"mine"


def leave_state(monkeypatch, *given):
    """Runs `jaxstyle stylize` until the state after its second update is kept, and no further."""
    keep = Resumption.keep

    def keep_and_fail(self, iterate):
        keep(self, iterate)
        if iterate.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimise, "_STATE_SECONDS", 0)
        patch.setattr(Resumption, "keep", keep_and_fail)
        words = ["stylize", *map(str, given), "--features", "net.safetensors"]
        assert cli.main(words) in (128, 130)


def test_what_cannot_be_written_beside_does_not_cost_the_picture(
    command, fake, capsys, monkeypatch
):
    def full(*_):
        raise ValueError("OUT_OF_RANGE\nFile too large")

    monkeypatch.setattr(optimise, "_STATE_SECONDS", 0)
    monkeypatch.setattr(Resumption, "keep", full)
    save = images.save

    def only_pictures(path, *values, **options):
        if Path(path).name == "p.png":
            raise OSError(28, "No space left on device")
        save(path, *values, **options)

    monkeypatch.setattr(images, "save", only_pictures)
    given = ["--state", "states", "--preview", "p.png", "--trace", "t.jsonl"]
    assert command(*BASIC, *SMALL, *given) == 0
    errors = capsys.readouterr().err
    assert errors.count("warning: the state cannot be written: OUT_OF_RANGE File too large") == 1
    assert errors.count("warning: the preview cannot be written: No space left on device") == 1
    assert metadata("out.png")["finished"]
    assert len(Path("t.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("folder", [False, True])
def test_a_state_may_lie_where_the_pictures_do(command, fake, monkeypatch, folder):
    monkeypatch.setattr(optimise, "_STATE_SECONDS", 0)
    given, made = ["photo.png", "wave.png"], Path("out.png")
    if folder:
        Path("in").mkdir()
        given, made = (
            [Path("photo.png").rename("in/photo.png").parent, "wave.png"],
            Path("o/photo.png"),
        )
    state = made.parent
    assert command(*given, "-o", state if folder else made, *SMALL, "--state", state) == 0
    assert metadata(made)["finished"]
    assert not list(state.glob("*.state"))


def test_a_folder_called_like_a_picture_is_not_taken_for_one(command, fake, capsys):
    Path("in").mkdir()
    Path("photo.png").rename("in/photo.png")
    Path("o/photo.png").mkdir(parents=True)
    assert command("in", "wave.png", "-o", "o", *SMALL) == 1
    assert "0 made, 0 skipped as they were there already, 1 failed" in capsys.readouterr().err


SPOILT = {
    "a file is empty": lambda state: (state / "000.npy").write_bytes(b""),
    "a file is cut": lambda state: (state / "000.npy").write_bytes(
        (state / "000.npy").read_bytes()[:-5]
    ),
    "a file is gone": lambda state: (state / "001.npy").unlink(),
    "an array is of another kind": lambda state: np.save(state / "000.npy", np.zeros(3)),
    "no record": lambda state: (state / "run.json").unlink(),
    "an empty record": lambda state: (state / "run.json").write_text(""),
    "a record of something else": lambda state: (state / "run.json").write_text("[1]"),
    "a record that lacks something": lambda state: (state / "run.json").write_text('{"name": 1}'),
    "nothing": lambda state: [path.unlink() for path in state.iterdir()],
}


@pytest.fixture
def real_states(command, capsys):
    """A run that was stopped with two states, of steps 1 and 2; its arguments and the states."""
    given = ["photo.png", "wave.png", "-o", "real.png", *SMALL, *LIGHT, "--state", "states"]
    with pytest.MonkeyPatch.context() as patch:
        leave_state(patch, *given)
    capsys.readouterr()
    return given, [Path("states/real.png.state") / number for number in ("10000001", "10000002")]


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_state_is_passed_over(command, real_states, capsys, monkeypatch, how):
    given, states = real_states
    SPOILT[how](states[1])
    monkeypatch.setattr(optimise, "_STATE_SECONDS", 0)
    assert command(*given) == 0
    errors = capsys.readouterr().err
    assert errors.count("warning: ") == 1
    assert "the latest state cannot be read (" in errors
    assert "going on after step 1 of scale 1" in errors
    assert not list(Path("states").iterdir())


def test_damaged_states_alone_are_to_be_removed(command, real_states, capsys):
    given, states = real_states
    for state in states:
        SPOILT["an empty record"](state)
    assert command(*given) == 2
    assert "no state in it can be read (" in (errors := capsys.readouterr().err)
    assert errors.splitlines()[-1].endswith("remove that folder to begin anew")
    assert all(state.is_dir() for state in states)


def test_other_settings_do_not_go_on_from_a_state(command, real_states, capsys):
    given, _ = real_states
    for more in (["--steps", "4"], ["--tile", "16"], ["--style-weights", "2"]):
        assert command(*given, *more) == 2
        assert "of another picture, or of other settings" in capsys.readouterr().err


def test_what_a_kill_leaves_goes_and_what_others_put_there_stays(command, real_states):
    given, (state, _) = real_states
    (state.parent / "10000003.partial").mkdir()
    (state.parent / "10000003.partial/000.npy").write_bytes(b"half")
    (state.parent / "mine.txt").write_text("mine")
    assert command(*given) == 0
    assert [path.name for path in state.parent.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_one_run_at_a_time_has_a_state(command, fake, capsys):
    given = [*BASIC, *SMALL, "--state", "states"]
    with Resumption(Path("states/out.png.state"), "x").held():
        assert command(*given) == 2
        error = only_line(capsys.readouterr().err)
        assert "states/out.png.state is in use by another run" in error
        assert f"(process {os.getpid()})" in error
        assert not fake.calls
    # As if its process had been killed: the file is there, and nobody has it.
    Path("states/out.png.state").mkdir(parents=True)
    Path("states/out.png.state/lock").write_text("1")
    assert command(*given) == 0
    assert not list(Path("states").iterdir())


def test_a_state_needs_a_folder(command, fake, capsys):
    Path("states").write_text("mine")
    for folder in ("states", "states/deeper"):
        assert command(*BASIC, *SMALL, "--state", folder) == 2
        assert "states" in only_line(capsys.readouterr().err)
    assert not fake.calls


def test_a_name_may_begin_with_a_dash_behind_two(command, fake, capsys):
    Path("-x.png").write_bytes(Path("photo.png").read_bytes())
    words = ["stylize", "--features", "net.safetensors", "-o", "out.png", *SMALL]
    assert cli.main([*words, "--", "-x.png", "wave.png"]) == 0
    assert metadata("out.png")["content"] == "-x.png"
    assert cli.main([*words, "--overwrite", "--", "--help", "wave.png"]) == 2
    assert "--help: no such file" in capsys.readouterr().err


def test_a_reader_that_has_left_is_no_error():
    """With a buffer, as where nobody asks for none: it is written when the command is over."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "jaxstyle", "--version"],
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
            | {"PYTHONPATH": str(ROOT)},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, "")


def test_tiles_are_passed_on_and_said(command, fake, capsys):
    assert command(*BASIC, "--tile", "64", "--memory", "16.5MiB") == 0
    assert fake.how == {"tile": 64, "memory": 33 * 2**19, "resume": None, "devices": None}
    assert "in tiles of 64 pixels" in capsys.readouterr().err
    assert command(*BASIC, "--overwrite", "--tile", "off") == 0
    assert fake.how["tile"] is None
    assert not re.search("tiles|piece", capsys.readouterr().err)


def test_it_is_said_where_tiles_are_asked_for_and_not_needed(command, fake, capsys):
    assert command(*BASIC) == 0
    assert "piece" not in capsys.readouterr().err
    assert command(*BASIC, "--overwrite", "--tile", "auto") == 0
    assert re.search(r"\d+ x \d+ pixels: in one piece", capsys.readouterr().err)


def test_memory_is_half_of_what_the_arrays_leave(command, fake, monkeypatch):
    """Those of L-BFGS are many."""
    monkeypatch.setattr(tiling, "available_memory", lambda *, held=0: 2**40 - 2 * held)
    taken = []
    for more in ([], ["--optimizer", "lbfgs"]):
        assert command(*BASIC, *SMALL, *more, "--overwrite") == 0
        features = fake.calls[-1]["features"]
        taken.append(gatys_layout.host_bytes((24, 32), features.params, fake.config))
        assert fake.how["memory"] == 2**39 - taken[-1]
    assert taken[1] > 2 * taken[0]


def test_memory_that_is_not_enough_is_said(command, fake, capsys, monkeypatch):
    monkeypatch.setattr(options, "LEAST_MEMORY", 1)  # the network is a narrow one
    small = ["--size", 512, "--memory", "1MiB"]
    assert command(*BASIC, *small) == 0
    errors = capsys.readouterr().err
    found = re.search(r"not enough: an update in tiles of 64 pixels takes about (\d+) MiB", errors)
    assert found
    assert "less than that cannot be had" in errors
    assert int(found[1]) > 1
    assert command(*BASIC, *small, "--tile", "off", "--overwrite") == 0
    errors = capsys.readouterr().err
    assert "--memory is not enough: an update of the whole takes about" in errors
    assert command(*BASIC, "--size", 512, "--memory", f"{found[1]}.9MiB", "--overwrite") == 0
    assert "not enough" not in capsys.readouterr().err
