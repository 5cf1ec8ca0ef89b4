"""Tests of `jaxstyle stylize`, `styles` and `weights convert` with trained models."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_weights
from processes import ROOT, python

import jaxstyle
from jaxstyle import cli, color, images, models, runtime, weights
from jaxstyle.commands import options
from jaxstyle.errors import UserError
from jaxstyle.methods import residual, tiled
from jaxstyle.training import loop
from jaxstyle.training.config import DataConfig, TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compiler")

STYLES = ("wave", "mosaic", "leaf")
CONFIG = residual.Config(channels=(4, 6, 8), blocks=1)


def make_model(styles):
    """An untrained network whose styles differ."""
    generator = residual.make_generator(CONFIG, len(styles))
    example = jnp.zeros((1, 16, 16, 3)), jnp.ones((1, len(styles)))
    shapes = jax.eval_shape(generator.init, jax.random.key(0), *example)
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: random.normal(0, 0.3, leaf.shape).astype(np.float32), shapes
    )
    return models.Model("residual", CONFIG, tuple(styles), variables)


def write_photo(path, seed, size=(24, 32), alpha=None):
    coarse = np.random.default_rng(seed).random((5, 6, 3), np.float32)
    images.save(path, images.resize(coarse, size), alpha=alpha)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_photo(folder / "photo.png", 1)
    write_photo(folder / "painting.png", 2)
    models.save(folder / "three.safetensors", make_model(STYLES))
    models.save(folder / "one.safetensors", make_model(["wave"]))
    weights.save(folder / "net.safetensors", random_weights())
    return folder


@pytest.fixture
def command(files, in_copy):
    """Runs `jaxstyle` in a folder with the files, without touching this process."""
    folder = in_copy(files)

    def run(*arguments):
        return cli.main([*map(str, arguments)])

    run.folder = folder
    return run


class Fake:
    """Stands for `residual.paint`: greys by the first style's share, and a note of each call."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, content, *, style_weights, strength, tile):
        assert content.dtype == np.float32
        assert len(style_weights) == len(model.styles)
        call = {"content": content, "strength": strength, "tile": tile}
        self.calls.append(call | {"shares": list(style_weights)})
        return np.full_like(content, style_weights[0])


@pytest.fixture
def fake(monkeypatch):
    stand_in = Fake()
    monkeypatch.setattr(residual, "paint", stand_in)
    return stand_in


@pytest.fixture
def shipped(command, monkeypatch):
    """Lets the file of three styles be the one that comes with the package."""
    path = Path("three.safetensors").absolute()
    monkeypatch.setattr(models, "_embedded", lambda _: path)


def only_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


def metadata(path):
    return json.loads(images.read_metadata(path)["jaxstyle"])


PHOTO = ["stylize", "photo.png", "-o", "out.png"]
ONE = [*PHOTO, "--model", "one.safetensors"]
THREE = [*PHOTO, "--model", "three.safetensors"]


# Which model, which styles


@pytest.mark.parametrize(
    ("arguments", "shares"),
    [
        (ONE, [1]),
        ([*ONE, "--style", "wave"], [1]),
        ([*ONE, "--style-weights", "wave=3"], [1]),
        ([*THREE, "--style", "leaf"], [0, 0, 1]),
        ([*THREE, "--style-weights", "leaf=1,wave=3"], [0.75, 0, 0.25]),
        ([*THREE, "--style-weights", " wave = 0.5 , mosaic=0.5"], [0.5, 0.5, 0]),
        ([*THREE, "--style-weights", "mosaic=0,wave=1e-3"], [1, 0, 0]),
        ([*PHOTO, "--style", "mosaic"], [0, 1, 0]),
        ([*PHOTO, "--style-weights", "mosaic=0.2,leaf=0.2"], [0, 0.5, 0.5]),
    ],
)
def test_styles_are_chosen_by_name(command, shipped, fake, arguments, shares):
    assert command(*arguments) == 0
    assert fake.calls[0]["shares"] == pytest.approx(shares)
    assert (fake.calls[0]["strength"], fake.calls[0]["tile"]) == (1.0, None)
    np.testing.assert_array_equal(fake.calls[0]["content"], images.load("photo.png").pixels)
    assert images.load("out.png").pixels.shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (THREE, ["3 styles", "--style", "--style-weights", "(wave, mosaic, leaf)"]),
        ([*THREE, "--style", "wavy"], ["no style 'wavy'; did you mean wave? (wave, mosaic, leaf)"]),
        ([*THREE, "--style-weights", "wave=1,leav=1"], ["'leav'; did you mean leaf?"]),
        ([*THREE, "--style", ""], ["no style ''"]),
        ([*THREE, "--style", "painting.png"], ["painting.png is a file", "without --style"]),
        ([*THREE, "--style", "wave,leaf"], ["--style-weights", "--interpolate"]),
        ([*THREE, "--style-weights", "wave=1,wave=2"], ["wave is named twice"]),
        ([*THREE, "--style-weights", "wave=-1,leaf=2"], ["--style-weights", "'-1'"]),
        ([*THREE, "--style-weights", "wave=nan"], ["'nan'"]),
        ([*THREE, "--style-weights", "wave=1e308,leaf=1e308"], ["finite"]),
        ([*THREE, "--style-weights", "wave=0,leaf=0"], ["above 0"]),
        ([*THREE, "--style-weights", "wave=1,2"], ["a name for each share"]),
        ([*THREE, "--style-weights", "=1"], ["--style-weights", "'=1'"]),
        ([*THREE, "--style-weights", "1,2,3"], ["by name", "wave=0.7"]),
        ([*THREE, "--style-weights", "wave=1", "--style", "leaf"], ["both choose"]),
        ([*THREE, "--style", "wave", "painting.png"], ["painting.png is a second picture"]),
        ([*THREE, "painting.png"], ["painting.png is a second picture", "--model"]),
        ([*THREE, "--method", "adain"], ["expected STYLE"]),
        ([*THREE, "--method", "adain", "--style", "wave"], ["--style names", "--method"]),
        ([*ONE, "--content-mask", "photo.png"], ["--content-mask is for paintings"]),
        ([*PHOTO, "painting.png", "--style-weights", "wave=1"], ["painting.png is a painting"]),
        ([*PHOTO, "--style-weights", "0.5,0.5"], ["STYLE", "--model"]),
        ([*THREE, "--interpolate", "3"], ["--style FIRST,SECOND"]),
        ([*THREE, "--interpolate", "3", "--style", "wave"], ["--style FIRST,SECOND"]),
        ([*THREE, "--interpolate", "3", "--style", "wave,wave"], ["--style FIRST,SECOND"]),
        ([*THREE, "--interpolate", "3", "--style", "wave,leaf,wave"], ["--style FIRST,SECOND"]),
        ([*THREE, "--interpolate", "3", "--style", "wave,leav"], ["'leav'; did you mean leaf?"]),
        ([*THREE, "--interpolate", "3", "--style-weights", "wave=1,leaf=1"], ["FIRST,SECOND"]),
        ([*THREE, "--interpolate", "1", "--style", "wave,leaf"], ["at least 2"]),
        ([*ONE, "--strength", "1.5"], ["--strength", "from 0 to 1"]),
        ([*ONE, "--strength", "nan"], ["--strength", "'nan'"]),
        ([*ONE, "--tile", "0"], ["--tile", "auto, off"]),
        ([*ONE, "--tile", "none"], ["--tile", "auto, off"]),
        ([*ONE, "--keep-colors=luminence"], ["did you mean luminance"]),
        ([*ONE, "--device", "abacus"], ["'abacus'"]),
        ([*PHOTO, "--model", "none.safetensors"], ["cannot read none.safetensors"]),
        ([*PHOTO, "--model", "net.safetensors"], ["net.safetensors is no model"]),
        ([*PHOTO, "--model", "."], ["there are no checkpoints"]),
        (["stylize", "none.png", "-o", "out.png", "--style", "wave"], ["none.png", "no such file"]),
        ([*ONE, "-o", "photo.png", "--overwrite"], ["photo.png is read"]),
        ([*ONE, "-o", "out.xyz"], [".xyz"]),
        (["stylize", ".", "-o", ".", "--model", "one.safetensors"], ["folder of the contents"]),
        (["styles", "--model", "none.safetensors"], ["cannot read"]),
        (["styles", "photo.png"], ["-o FILE"]),
        (["styles", "-o", "out.png"], ["PHOTO"]),
        (["styles", "--columns", "3"], ["--columns", "PHOTO"]),
        (["styles", "none.png", "-o", "out.png"], ["none.png", "no such file"]),
        (["styles", "photo.png", "-o", "out.xyz"], [".xyz"]),
        (["styles", "photo.png", "-o", "photo.png", "--overwrite"], ["photo.png is read"]),
        (["styles", "photo.png", "-o", "painting.png"], ["--overwrite"]),
        (["weights", "convert", "one.safetensors", "out.png"], [".safetensors"]),
        (
            ["weights", "convert", "one.safetensors", "x.safetensors", "--padding", "zero"],
            ["--padding"],
        ),
    ],
)
def test_mistakes(command, shipped, fake, capsys, arguments, expected):
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


@pytest.mark.parametrize(
    "option",
    [
        *("--preset=default", "--features=lite", "--padding=auto", "--preview=p.png"),
        *("--trace=t.jsonl", "--content-weight=1", "--steps=3", "--init=noise", "--no-clamp"),
        *("--style-scale=1", "--seed=0"),
    ],
)
def test_options_of_the_optimisation_are_refused(command, fake, capsys, option):
    assert command(*ONE, option) == 2
    name = option.partition("=")[0].replace("--no-", "--")
    line = only_line(capsys.readouterr().err)
    assert line.startswith(f"jaxstyle: error: {name} is for paintings")
    assert not fake.calls


def test_every_setting_is_for_some_ways_or_all():
    from jaxstyle.commands import stylize

    parser = cli._build_parsers()[1]["stylize"]
    shared = {"help", "content", "styles", "output", "overwrite", "quality", "max_pixels"}
    shared |= {"style_weights", "device", "quiet", "model", "style", "method"}
    named = {*stylize._FOR_NETWORKS, *stylize._FOR_PIXELS, *stylize._FOR_ALL}
    named |= {*stylize._FOR_ANY_PAINTING}
    assert {action.dest for action in parser._actions} - shared == named


def test_a_build_without_styles(command, monkeypatch, capsys):
    monkeypatch.setattr(models, "_embedded", lambda _: Path("none.safetensors"))
    assert command(*PHOTO, "--style", "wave") == 2
    line = only_line(capsys.readouterr().err)
    assert "came without trained styles" in line
    assert "--model" in line


def test_the_styles_that_come_with_the_package():
    model = models.shipped()
    assert model.name == "styles"
    assert len(model.styles) >= 8
    assert {"wave", "mosaic", "la_muse", "the_scream", "udnie"} <= set(model.styles)
    assert len(models._embedded().read_bytes()) <= 2 * 2**20
    content = images.resize(np.random.default_rng(0).random((4, 4, 3)), (24, 32))
    shares = np.eye(len(model.styles))
    made = [residual.paint(model, content, style_weights=row) for row in shares[:2]]
    assert np.abs(made[0] - made[1]).mean() > 0.01


# Options


def test_options_reach_the_network(command, fake):
    assert command(*ONE, "--strength", "0.25", "--tile", "31") == 0
    assert command(*ONE, "--tile", "off", "--overwrite") == 0
    assert command(*ONE, "--tile", "32", "--overwrite") == 0  # as large as the picture
    found = [(call["strength"], call["tile"]) for call in fake.calls]
    assert found == [(0.25, 31), (1.0, None), (1.0, None)]


def test_tiles_are_chosen_by_memory_and_said(command, fake, capsys, monkeypatch):
    monkeypatch.setattr(options, "LEAST_MEMORY", 1)
    monkeypatch.setattr(tiled, "SIDE", 16)
    assert command(*ONE, "--memory", "1KiB") == 0
    assert fake.calls[0]["tile"] == 16
    said = "32 x 24 pixels: in tiles of 16 pixels"
    assert said in capsys.readouterr().err
    assert command(*ONE, "--memory", "1GiB", "--overwrite") == 0
    assert fake.calls[1]["tile"] is None
    assert "tiles" not in capsys.readouterr().err


@pytest.mark.parametrize(("size", "shape"), [(64, (48, 64)), (16, (12, 16)), (1, (1, 1))])
def test_size_is_that_of_the_longer_side(command, fake, size, shape):
    assert command(*ONE, "--size", size) == 0
    assert images.load("out.png").pixels.shape == (*shape, 3)
    assert metadata("out.png")["size"] == size


def test_alpha_is_put_back(command, fake):
    alpha = np.zeros((24, 32), np.float32)
    alpha[:, 16:] = 1
    write_photo("photo.png", 1, alpha=alpha)
    assert command(*ONE) == 0
    np.testing.assert_allclose(images.load("out.png").alpha, alpha, atol=1 / 255)
    strip = ["--style", "wave,leaf", "--interpolate", 2, "--overwrite"]
    assert command(*THREE, *strip) == 0
    np.testing.assert_allclose(images.load("out.png").alpha, np.tile(alpha, 2), atol=1 / 255)


@pytest.mark.parametrize("way", ["luminance", "match"])
def test_colors_are_kept(command, way):
    assert command(*ONE, f"--keep-colors={way}") == 0
    assert command(*ONE, "--keep-colors", way, "--strength", 0, "-o", "same.png") == 0
    photo = images.load("photo.png").pixels
    np.testing.assert_allclose(images.load("same.png").pixels, photo, atol=1.1 / 255)
    made = residual.paint(models.load("one.safetensors"), photo)[None]
    if way == "luminance":
        expected = color.transfer_luminance(color.match_luminance(made, photo[None]), photo[None])
    else:
        expected = color.match_moments(made, photo[None])
    out = images.load("out.png").pixels
    np.testing.assert_allclose(out, expected[0], atol=1.1 / 255)
    assert np.abs(out - made[0]).mean() > 0.05


def test_metadata_tell_what_made_the_picture(command, shipped, fake):
    assert command(*PHOTO, "--style-weights", "wave=3,leaf=1", "--strength", 0.5) == 0
    found = metadata("out.png")
    assert found["version"] == jaxstyle.__version__
    assert (found["content"], found["method"]) == ("photo.png", "residual")
    assert found["model"]["name"] == "styles"
    assert re.fullmatch("[0-9a-f]{64}", found["model"]["sha256"])
    assert found["style_weights"] == {"wave": 0.75, "leaf": 0.25}
    assert (found["strength"], found["size"], found["keep_colors"]) == (0.5, None, None)
    assert found["finished"] is True


def test_a_strip_leads_from_one_style_to_another(command, fake):
    assert command(*THREE, "--style", "wave,leaf", "--interpolate", 3, "--size", 16) == 0
    shares = [call["shares"] for call in fake.calls]
    assert shares == [[1, 0, 0], [0.5, 0, 0.5], [0, 0, 1]]
    strip = images.load("out.png").pixels
    assert strip.shape == (12, 3 * 16, 3)
    np.testing.assert_allclose(strip[0, ::16, 0], [1, 0.5, 0], atol=1 / 255)
    assert metadata("out.png")["style_weights"][1] == {"wave": 0.5, "leaf": 0.5}


def test_a_strip_too_wide_for_its_format(command, fake, capsys):
    strip = ["--style", "wave,leaf", "--interpolate", 3000, "-o", "out.jpg"]
    assert command(*THREE, *strip) == 2
    assert "JPEG holds at most 65500 pixels" in only_line(capsys.readouterr().err)
    assert not fake.calls


# Folders, progress, Ctrl-C


def test_folder(command, fake, capsys):
    Path("in").mkdir()
    write_photo("in/a.png", 1)
    write_photo("in/b.jpg", 2, size=(1, 7))
    Path("in/c.bmp").write_bytes(b"broken")
    arguments = ["stylize", "in", "--model", "three.safetensors", "-o", "new/out"]
    assert command(*arguments, "--style", "wave,leaf", "--interpolate", 2) == 1
    errors = capsys.readouterr().err
    assert "jaxstyle: error: in/c.bmp" in errors
    assert "2 made, 0 skipped as they were there already, 1 failed" in errors
    assert images.load("new/out/b.jpg").pixels.shape == (1, 14, 3)
    before = Path("new/out/a.png").read_bytes()
    assert command(*arguments, "--style", "leaf") == 1
    assert Path("new/out/a.png").read_bytes() == before
    assert "0 made, 2 skipped" in capsys.readouterr().err
    assert command(*arguments, "--style", "leaf", "--overwrite") == 1
    assert Path("new/out/a.png").read_bytes() != before


def test_progress_says_the_size_and_the_seconds(command, fake, capsys):
    Path("in").mkdir()
    write_photo("in/a.png", 1)
    write_photo("in/b.png", 2)
    assert command("stylize", "in", "--model", "one.safetensors", "-o", "out") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a.png (1 of 2): preparing (the first time takes longer)"
    for line, name in zip(lines[1:], "ab", strict=False):  # nothing to prepare for the second
        assert re.fullmatch(rf"out/{name}.png: 32 x 24 pixels, \d+\.\d s", line)
    assert len(lines) == 4


def test_quiet(command, fake, capsys):
    assert command(*ONE, "--quiet") == 0
    assert command("styles", "photo.png", "-o", "s.png", "--model", "one.safetensors", "-q") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [MemoryError, "RESOURCE_EXHAUSTED: out of it"])
def test_no_memory(command, monkeypatch, capsys, error):
    def paint(*_, **__):
        raise jax.errors.JaxRuntimeError(error) if isinstance(error, str) else error

    monkeypatch.setattr(residual, "paint", paint)
    assert command(*ONE, "--quiet") == 2
    assert "not enough memory for 32 x 24 pixels" in only_line(capsys.readouterr().err)
    assert command("styles", "photo.png", "-o", "s.png", "--model", "one.safetensors", "-q") == 2
    assert "not enough memory at --size 256" in only_line(capsys.readouterr().err)


def test_numbers_that_are_not_finite(command, monkeypatch, capsys):
    monkeypatch.setattr(residual, "paint", lambda _, content, **__: content * np.nan)
    assert command(*ONE, "--quiet") == 2
    assert "not finite" in only_line(capsys.readouterr().err)
    assert not Path("out.png").exists()


def test_an_interrupt_quits_at_once(command):
    code = """
        import sys, time
        from jaxstyle import cli
        from jaxstyle.methods import residual

        def slow(*_, **__):
            print("painting", flush=True)
            time.sleep(60)

        residual.paint = slow
        sys.exit(cli.main(sys.argv[1:]))
    """
    environment = {"PYTHONPATH": str(ROOT), "JAXSTYLE_CACHE_DIR": str(command.folder / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *ONE, "--quiet"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "painting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the picture at work was not written" in only_line(errors)
    assert not Path("out.png").exists()


def test_help_of_styles_is_instant_and_all_help_names_both_ways(capsys):
    result = python("""
        import sys
        from jaxstyle import cli
        assert cli.main(["styles", "--help"]) == 0
        heavy = {"jax", "numpy", "PIL", "tqdm"} & set(sys.modules)
        assert not heavy, heavy
    """)
    assert result.returncode == 0, result.stderr
    assert "--style-weights" in result.stdout
    assert cli.main(["stylize", "--help"]) == 0
    text = capsys.readouterr().out
    assert "jaxstyle stylize CONTENT STYLE [STYLE ...] -o OUT" in text
    assert "jaxstyle stylize CONTENT --style NAME" in text


# The other commands


def test_styles_are_listed(command, shipped, capsys):
    assert command("styles") == 0
    assert command("styles", "--model", "one.safetensors") == 0
    assert capsys.readouterr() == ("wave\nmosaic\nleaf\nwave\n", "")


def test_a_contact_sheet_shows_every_style(command, fake):
    write_photo("photo.png", 1, alpha=np.full((24, 32), 0.5, np.float32))
    sheet = ["styles", "photo.png", "--model", "three.safetensors", "-o", "sheet.png"]
    assert command(*sheet, "--size", 64, "--columns", 4) == 0
    assert [call["shares"].index(1) for call in fake.calls] == [0, 1, 2]
    found = images.load("sheet.png")
    assert found.alpha is None
    shown = images.resize(images.load("photo.png").pixels, (48, 64))
    half = (np.stack([shown, np.ones_like(shown), 0 * shown, 0 * shown]) + 1) / 2
    expected = images.contact_sheet(list(half), ["photo", *STYLES], columns=4)
    np.testing.assert_allclose(found.pixels, expected, atol=2 / 255)
    assert metadata("sheet.png")["styles"] == list(STYLES)
    assert command(*sheet, "--overwrite") == 0
    assert images.load("sheet.png").pixels.shape[1] > 2 * 256


@pytest.fixture(scope="module")
def run_folder(files, tmp_path_factory):
    """The folder of a run of two steps."""
    painting = str(files / "painting.png")
    settings = {"content_layers": {"relu1_1": 1.0}, "style_layers": {"relu1_1": 1.0}}
    model = residual.Config(
        channels=(3, 4), blocks=0, features=str(files / "net.safetensors"), **settings
    )
    config = TrainConfig(
        method="residual",
        model=model,
        steps=2,
        batch_size=4,
        crop_size=16,
        sample_every=0,
        data=DataConfig(content=painting, style=painting),
    )
    folder = tmp_path_factory.mktemp("runs") / "run"
    loop.train(config, folder)
    return folder


def test_a_run_is_a_model_and_becomes_a_file(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "prepare", lambda **_: None)
    monkeypatch.chdir(tmp_path)
    write_photo("photo.png", 1, size=(15, 17))
    assert cli.main([*PHOTO, "--model", str(run_folder)]) == 0
    assert metadata("out.png")["model"] == {"name": "run", "step": 2}
    assert cli.main(["weights", "convert", str(run_folder), "run.safetensors"]) == 0
    assert cli.main(["weights", "convert", "run.safetensors", "half.safetensors", "--half"]) == 0
    assert capsys.readouterr().out == "run.safetensors\nhalf.safetensors\n"
    assert Path("half.safetensors").stat().st_size < Path("run.safetensors").stat().st_size
    assert models.load("half.safetensors").styles == ("painting",)
    out = images.load("out.png").pixels
    assert out.shape == (15, 17, 3)
    for name in ("run", "half"):
        arguments = ["--model", f"{name}.safetensors", "--style", "painting", "--overwrite"]
        assert cli.main([*PHOTO, *arguments]) == 0
        np.testing.assert_allclose(images.load("out.png").pixels, out, atol=3 / 255)
    assert metadata("out.png")["model"]["name"] == "half"


def test_models_are_told_from_features(command):
    assert models.is_model("one.safetensors")
    for path in ("net.safetensors", "photo.png", "none.safetensors", "."):
        assert not models.is_model(path)
    Path("empty.safetensors").write_bytes(b"")
    assert not models.is_model("empty.safetensors")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "distill"}, "stylises no pictures"),
        ({"styles": ("wave", "wave", "leaf")}, "different names"),
        ({"styles": ()}, "different names"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path, changes, expected):
    path = tmp_path / "model.safetensors"
    models.save(path, make_model(STYLES)._replace(**changes))
    with pytest.raises(UserError, match=expected):
        models.load(path)


def test_shares():
    assert options.shares("0.7,0.3") == [0.7, 0.3]
    assert options.shares("a=b=1") == {"a=b": 1.0}  # names come from files


# From files to files


@pytest.mark.parametrize("size", [(1, 1), (17, 5)])
def test_the_network_paints_pictures_of_any_size(command, size):
    write_photo("photo.png", 3, size)
    assert command(*THREE, "--style-weights", "wave=1,leaf=1", "--strength", 0.5) == 0
    photo, out = (images.load(name).pixels for name in ("photo.png", "out.png"))
    assert out.shape == (*size, 3)
    model = models.load("three.safetensors")
    made = residual.paint(model, photo, style_weights=[0.5, 0, 0.5])
    np.testing.assert_allclose(out, (photo + made) / 2, atol=1.1 / 255)
