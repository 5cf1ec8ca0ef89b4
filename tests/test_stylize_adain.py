"""Tests of `jaxstyle stylize --method adain`."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_params

from jaxstyle import cli, color, images, models
from jaxstyle.commands import options
from jaxstyle.losses import Moments
from jaxstyle.methods import adain, adain_tiled

pytestmark = pytest.mark.usefixtures("quick_compiler")

CONFIG = adain.Config(levels=("relu2_1", "relu3_1"), encoder_padding="reflect")
BLACK, RED, BLUE, WHITE = (0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 1, 1)


def make_model():
    """An untrained network."""
    encoder = random_params(((4, 4), (6, 6), (8,)))
    network = adain.make_network(CONFIG, encoder, "reflect")

    def init(key):
        features = adain.encode(network, encoder, jnp.zeros((1, 16, 16, 3)))
        return network.decoder.init(key, features, adain.code_of(features))["params"]

    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32),
        jax.eval_shape(init, jax.random.key(0)),
    )
    return models.Model("adain", CONFIG, (), {"params": params, "encoder": models.nested(encoder)})


def flat(path, value, size=(24, 32)):
    images.save(path, np.broadcast_to(np.float32(value), (*size, 3)))


def halves(path, left, right, size=(24, 32)):
    """A picture of two colours, side by side."""
    pixels = np.empty((*size, 3), np.float32)
    pixels[:, : size[1] // 2], pixels[:, size[1] // 2 :] = left, right
    images.save(path, pixels)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    coarse = np.random.default_rng(1).random((5, 6, 3), np.float32)
    images.save(folder / "photo.png", images.resize(coarse, (24, 32)))
    flat(folder / "wave.png", (0.2, 0.4, 0.6), size=(30, 20))
    flat(folder / "leaf.png", (0.6, 0.8, 0.2))
    halves(folder / "both.png", (0.1, 0.2, 0.3), (0.9, 0.6, 0.3))
    models.save(folder / "any.safetensors", make_model())
    return folder


@pytest.fixture
def command(files, in_copy):
    """Runs `jaxstyle` in a folder with the files, without touching this process."""
    in_copy(files)
    return lambda *arguments: cli.main([*map(str, arguments)])


class Fake:
    """Stands for the network: a painting's code is its mean colour, and is what it paints."""

    def __init__(self):
        self.read, self.painted, self.limits = [], [], []

    def read_style(self, network, variables, picture, masks=None, *, tile, memory):
        assert picture.dtype == np.float32
        self.read.append(picture.shape[:2])
        self.limits.append((tile, memory))
        if masks is None:
            mean = picture.mean((0, 1))[None]
        else:
            np.testing.assert_allclose(masks.sum(-1), 1, atol=1e-6)
            mean = (np.einsum("hwr,hwc->rc", masks, picture) / masks.sum((0, 1))[:, None])[None]
        return {"relu2_1": Moments(jnp.asarray(mean), jnp.ones_like(mean))}

    def paint(self, network, variables, content, code, *, strength, masks, tile):
        assert content.dtype == np.float32
        self.painted.append({"strength": strength, "tile": tile, "size": content.shape[:2]})
        mean = np.asarray(code["relu2_1"].mean)[0]
        if masks is None:
            made = np.broadcast_to(mean, content.shape)
        else:
            assert masks.shape[:2] == content.shape[:2]
            np.testing.assert_allclose(masks.sum(-1), 1, atol=1e-6)
            made = masks @ mean
        return np.float32(strength * made + (1 - strength) * content)


@pytest.fixture
def fake(monkeypatch):
    stand_in = Fake()
    monkeypatch.setattr(adain, "read_style", stand_in.read_style)
    monkeypatch.setattr(adain, "paint", stand_in.paint)
    return stand_in


def only_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


def metadata(path):
    return json.loads(images.read_metadata(path)["jaxstyle"])


def pixels_of(path):
    return images.load(path).pixels


ANY = ["--model", "any.safetensors"]
OUT = [*ANY, "-o", "out.png"]
ONE = ["stylize", "photo.png", "wave.png", *OUT]
TWO = ["stylize", "photo.png", "wave.png", "leaf.png", *OUT]
LEAF_MASKS = ["--content-mask", "halves.png", "--style-mask"]
WAVE, LEAF = np.array((0.2, 0.4, 0.6)), np.array((0.6, 0.8, 0.2))
CLOSE = {"atol": 1.1 / 255}


# The network itself


def codes_of(network, variables, *paths):
    return [adain.read_style(network, variables, pixels_of(path)) for path in paths]


def test_pictures_are_those_of_the_network(command):
    two = ["stylize", "photo.png", "both.png", "leaf.png", *OUT, "--quiet"]
    assert command(*two, "--style-weights", "3,1", "--strength", 0.5) == 0
    assert command(*two, "-o", "kept.png", "--keep-colors") == 0
    halves("mask.png", BLACK, WHITE)
    assert command(*two, "-o", "regions.png", "--content-mask", "mask.png") == 0

    network, variables = adain.of_model(models.load("any.safetensors"))
    photo = pixels_of("photo.png")
    codes = codes_of(network, variables, "both.png", "leaf.png")
    mixed = adain.mix(codes, [0.75, 0.25])
    made = adain.paint(network, variables, photo, mixed, strength=0.5)
    np.testing.assert_allclose(pixels_of("out.png"), made, **CLOSE)

    made = adain.paint(network, variables, photo, adain.mix(codes, [0.5, 0.5]))[None]
    kept = color.transfer_luminance(color.match_luminance(made, photo[None]), photo[None])[0]
    np.testing.assert_allclose(pixels_of("kept.png"), kept, **CLOSE)
    assert np.abs(kept - made[0]).mean() > 0.05

    code = jax.tree.map(lambda *moments: jnp.stack(moments, 1), *codes)
    mask = pixels_of("mask.png")[..., 0]
    masks = np.stack([1 - mask, mask], -1)
    made = adain.paint(network, variables, photo, code, masks=masks)
    np.testing.assert_allclose(pixels_of("regions.png"), made, **CLOSE)


def test_flat_and_tiny_pictures(command):
    flat("photo.png", 0.5, (3, 50))
    flat("wave.png", 0.3, (1, 1))
    assert command(*ONE, "--quiet") == 0
    assert pixels_of("out.png").shape == (3, 50, 3)


# Styles


def test_tiles_are_chosen_by_memory_and_said(command, fake, capsys, monkeypatch):
    monkeypatch.setattr(options, "LEAST_MEMORY", 1)
    monkeypatch.setattr(adain_tiled, "SIDE", 16)
    assert command(*TWO, "--memory", "1KiB") == 0
    assert fake.painted[0]["tile"] == 16
    assert "in tiles of 16 pixels" in capsys.readouterr().err
    assert fake.limits == [("auto", 1024)] * 2  # the paintings, too


@pytest.mark.parametrize(
    ("tile", "used", "said"),
    [
        (1, 4, "in tiles of 4 pixels"),
        (31, None, "in one piece"),
        ("auto", None, "in one piece"),
        ("off", None, ""),
    ],
)
def test_tiles_are_of_the_side_that_is_used(command, fake, capsys, tile, used, said):
    assert command(*ONE, "--tile", tile) == 0
    assert fake.painted[0]["tile"] == used
    found = capsys.readouterr().err
    assert said in found
    assert ("tiles" in found) == (used is not None)
    assert ("piece" in found) == (said == "in one piece")
    assert fake.limits == [(None if tile == "off" else "auto", None)]


def test_paintings_are_mixed(command, fake):
    assert command(*TWO) == 0
    np.testing.assert_allclose(pixels_of("out.png")[3, 4], (WAVE + LEAF) / 2, **CLOSE)
    assert command(*TWO, "--style-weights", "3,1", "--overwrite", "--tile", "off") == 0
    np.testing.assert_allclose(pixels_of("out.png")[3, 4], 0.75 * WAVE + 0.25 * LEAF, **CLOSE)
    assert [call["tile"] for call in fake.painted] == [None, None]
    found = metadata("out.png")
    assert (found["method"], found["model"]["name"]) == ("adain", "any")
    assert (found["styles"], found["style_weights"]) == (["wave.png", "leaf.png"], [0.75, 0.25])
    assert (found["strength"], found["style_size"], found["content_mask"]) == (1.0, 512, None)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [([], (512, 341)), (["--style-size", 90], (90, 60)), (["--style-size", 0], (900, 600))],
)
def test_paintings_are_made_smaller_but_never_larger(command, fake, given, sizes):
    flat("wave.png", 0.5, (900, 600))
    assert command(*TWO, *given, "--size", 16) == 0
    assert fake.read == [sizes, (24, 32)]
    assert [call["size"] for call in fake.painted] == [(12, 16)]


def test_a_strip_between_two_paintings(command, fake):
    assert command(*TWO, "--interpolate", 3, "--strength", 1) == 0
    strip = pixels_of("out.png")
    assert strip.shape == (24, 96, 3)
    np.testing.assert_allclose(strip[5, ::32], [WAVE, (WAVE + LEAF) / 2, LEAF], **CLOSE)
    assert len(fake.read) == 2
    assert metadata("out.png")["style_weights"] == [[1, 0], [0.5, 0.5], [0, 1]]


def test_a_strip_of_strengths(command, fake):
    assert command(*ONE, "--interpolate", 3) == 0
    assert [call["strength"] for call in fake.painted] == [0, 0.5, 1]
    assert metadata("out.png")["strength"] == [0, 0.5, 1]
    np.testing.assert_allclose(pixels_of("out.png")[:, :32], pixels_of("photo.png"), **CLOSE)


def test_match_gives_the_painting_the_colors_of_the_content(command, fake):
    photo = images.resize(pixels_of("photo.png"), (24, 32))
    assert command(*ONE, "--keep-colors=match") == 0
    np.testing.assert_allclose(pixels_of("out.png")[0, 0], photo.mean((0, 1)), atol=2 / 255)


def test_the_model_that_comes_with_the_package(command, fake, monkeypatch, capsys):
    asked = []

    def embedded(name):
        asked.append(name)
        return Path("any.safetensors").absolute() if len(asked) == 1 else Path("none")

    monkeypatch.setattr(models, "_embedded", embedded)
    arguments = ["stylize", "photo.png", "wave.png", "--method", "adain", "-o", "out.png", "-q"]
    assert command(*arguments) == 0
    assert command(*arguments, "--overwrite") == 2
    line = only_line(capsys.readouterr().err)
    assert "came without a model for any painting" in line
    assert asked == ["adain", "adain"]
    with pytest.raises(ValueError, match="'mosaic'"):
        models.shipped("mosaic")


# Masks


def test_regions_of_the_same_color(command, fake):
    halves("mask.png", RED, BLUE, size=(12, 16))  # of half the size
    halves("style-mask.jpg", BLUE, RED, size=(48, 64))
    masks = ["--content-mask", "mask.png", "--style-mask", "style-mask.jpg"]
    assert command("stylize", "photo.png", "both.png", *OUT, *masks) == 0
    made = pixels_of("out.png")
    np.testing.assert_allclose(made[:, :16], np.broadcast_to((0.9, 0.6, 0.3), (24, 16, 3)), **CLOSE)
    np.testing.assert_allclose(made[:, 16:], np.broadcast_to((0.1, 0.2, 0.3), (24, 16, 3)), **CLOSE)
    found = metadata("out.png")
    assert (found["content_mask"], found["style_masks"]) == ("mask.png", ["style-mask.jpg"])


def test_a_folder_of_masks_is_none_to_write_to(command, fake, capsys):
    for name in ("in", "masks"):
        Path(name).mkdir()
    Path("in/photo.png").write_bytes(Path("photo.png").read_bytes())
    halves("masks/photo.png", RED, BLUE)
    mask = Path("masks/photo.png").read_bytes()
    words = ["stylize", "in", "wave.png", "both.png", "--content-mask", "masks", "--overwrite"]
    words += ["--method", "adain"]
    assert command(*words, "-o", "masks") == 2
    assert "masks is the folder of the masks" in only_line(capsys.readouterr().err)
    Path("out").mkdir()
    os.link("masks/photo.png", "out/photo.png")
    assert command(*words, "-o", "out") == 2
    assert "out/photo.png is read by this command" in only_line(capsys.readouterr().err)
    assert Path("masks/photo.png").read_bytes() == mask


def test_a_color_that_the_painting_lacks_takes_all_of_it(command, fake, capsys):
    halves("mask.png", RED, WHITE)
    halves("style-mask.png", BLUE, RED)
    masks = ["--content-mask", "mask.png", "--style-mask", "style-mask.png"]
    assert command("stylize", "photo.png", "both.png", *OUT, *masks) == 0
    assert "style-mask.png: no #ffffff there: that region takes" in capsys.readouterr().err
    made = pixels_of("out.png")
    np.testing.assert_allclose(made[0, [0, 31]], [(0.9, 0.6, 0.3), (0.5, 0.4, 0.3)], **CLOSE)


def test_paintings_with_masks_are_mixed_where_both_have_the_color(command, fake):
    halves("mask.png", RED, WHITE)
    halves("wave-mask.png", BLUE, RED, size=(30, 20))
    halves("both-mask.png", WHITE, RED)
    masks = ["--content-mask", "mask.png", "--style-mask", "wave-mask.png"]
    masks += ["--style-mask", "both-mask.png", "--style-weights", "1,3"]
    assert command("stylize", "photo.png", "wave.png", "both.png", *OUT, *masks) == 0
    both = 0.25 * WAVE + 0.75 * np.array((0.9, 0.6, 0.3))
    np.testing.assert_allclose(pixels_of("out.png")[0, [0, 31]], [both, (0.1, 0.2, 0.3)], **CLOSE)
    masks[-2:] = ["--interpolate", 2, "--overwrite"]
    assert command("stylize", "photo.png", "wave.png", "both.png", *OUT, *masks) == 0
    strip = pixels_of("out.png")[0, [0, 31, 32, 63]]
    expected = [WAVE, (0.1, 0.2, 0.3), (0.9, 0.6, 0.3), (0.1, 0.2, 0.3)]
    np.testing.assert_allclose(strip, expected, **CLOSE)


def test_one_painting_twice_with_other_masks(command, fake):
    flat("mask.png", RED)
    halves("left.png", RED, BLUE)
    halves("right.png", BLUE, RED)
    masks = ["--content-mask", "mask.png", "--style-mask", "left.png", "--style-mask", "right.png"]
    strip = [*masks, "--interpolate", 2, "--style-size", 16]
    assert command("stylize", "photo.png", "both.png", "both.png", *OUT, *strip) == 0
    ends = pixels_of("out.png")[0, [0, 63]]
    np.testing.assert_allclose(ends, [(0.1, 0.2, 0.3), (0.9, 0.6, 0.3)], atol=0.05)


def test_one_mask_and_a_painting_for_each_region(command, fake):
    halves("mask.png", WHITE, RED)  # red is darker
    assert command(*TWO, "--content-mask", "mask.png") == 0
    np.testing.assert_allclose(pixels_of("out.png")[0, [0, 31]], [LEAF, WAVE], **CLOSE)


def test_a_soft_mask_blends_two_paintings(command, fake):
    share = np.linspace(0, 1, 32, dtype=np.float32)[None, :, None]
    images.save("mask.png", np.broadcast_to(share, (24, 32, 3)))
    assert command(*TWO, "--content-mask", "mask.png") == 0
    expected = np.broadcast_to((1 - share) * WAVE + share * LEAF, (24, 32, 3))
    np.testing.assert_allclose(pixels_of("out.png"), expected, atol=1.6 / 255)


# Folders


def test_contents_times_paintings(command, fake, capsys):
    Path("photos").mkdir()
    Path("paintings").mkdir()
    for name, value in (("a.png", 0.1), ("b.jpg", 0.5)):
        flat(f"photos/{name}", value)
    flat("paintings/w.png", WAVE)
    flat("paintings/l.bmp.png", LEAF)
    Path("paintings/x.png").write_bytes(b"broken")
    arguments = ["stylize", "photos", "paintings", *ANY, "-o", "out"]
    assert command(*arguments) == 1
    errors = capsys.readouterr().err
    assert "jaxstyle: error: paintings/x.png" in errors
    assert "b.jpg, w.png (5 of 6)" not in errors  # nothing to prepare for a size that was made
    assert "4 made, 0 skipped as they were there already, 2 failed" in errors
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["a_l.bmp.png", "a_w.png", "b_l.bmp.png", "b_w.png"]
    np.testing.assert_allclose(pixels_of("out/b_w.png")[0, 0], WAVE, **CLOSE)
    assert metadata("out/b_w.png")["styles"] == ["w.png"]
    assert len(fake.read) == 2  # each painting once
    assert command(*arguments) == 1
    assert "0 made, 4 skipped" in capsys.readouterr().err
    assert command(*arguments, "--overwrite", "--keep-colors=match", "-q") == 1
    np.testing.assert_allclose(pixels_of("out/b_w.png")[0, 0], [0.5] * 3, atol=2 / 255)
    assert len(fake.read) == 2 + 4  # once for each content


def test_one_content_in_many_styles_and_many_in_one(command, fake):
    Path("paintings").mkdir()
    flat("paintings/w.png", WAVE)
    assert command("stylize", "photo.png", "paintings", *ANY, "-o", "new/out") == 0
    np.testing.assert_allclose(pixels_of("new/out/photo_w.png")[0, 0], WAVE, **CLOSE)
    Path("photos").mkdir()
    flat("photos/a.png", 0.1)
    assert command("stylize", "photos", "wave.png", *ANY, "-o", "new") == 0
    np.testing.assert_allclose(pixels_of("new/a.png")[0, 0], WAVE, **CLOSE)


def test_a_folder_of_masks(command, fake, capsys):
    for folder in ("photos", "masks"):
        Path(folder).mkdir()
    for name in ("a.jpg", "b.png", "c.png"):
        flat(f"photos/{name}", 0.5)
    halves("masks/a.png", BLACK, WHITE)
    halves("masks/b.png", WHITE, BLACK)
    arguments = ["stylize", "photos", "wave.png", "leaf.png", *ANY, "--content-mask", "masks"]
    assert command(*arguments, "-o", "out") == 2
    assert "masks: no mask of the name of c.png" in only_line(capsys.readouterr().err)
    assert not Path("out").exists()
    Path("photos/c.png").unlink()
    assert command(*arguments, "-o", "out") == 0
    np.testing.assert_allclose(pixels_of("out/b.png")[0, [0, 31]], [LEAF, WAVE], **CLOSE)
    np.testing.assert_allclose(pixels_of("out/a.jpg")[0, [2, 29]], [WAVE, LEAF], atol=0.02)
    assert len(fake.read) == 2


def test_names_that_two_pairs_have_in_common(command, fake, capsys):
    for folder, names in (("photos", ("a", "a_b")), ("paintings", ("b_c", "c"))):
        Path(folder).mkdir()
        for index, name in enumerate(names, 1):
            flat(f"{folder}/{name}.png", index / 4)
    arguments = ["stylize", "photos", "paintings", *ANY]
    assert command(*arguments, "-o", "out") == 0
    found = {
        path.name: (metadata(path)["content"], *metadata(path)["styles"])
        for path in Path("out").iterdir()
    }
    assert found == {
        "a_b_c.png": ("a.png", "b_c.png"),
        "a_c.png": ("a.png", "c.png"),
        "a_b_b_c.png": ("a_b.png", "b_c.png"),
        "a_b.png_c.png.png": ("a_b.png", "c.png"),
    }
    assert command(*arguments, "-o", "out") == 0
    assert "0 made, 4 skipped" in capsys.readouterr().err
    # A later run has one of the two alone, and finds the picture of the other.
    Path("photos/a_b.png").rename("a_b.png")
    assert command(*arguments, "-o", "new") == 0
    assert command("stylize", "a_b.png", "paintings", *ANY, "-o", "new") == 0
    assert metadata("new/a_b_c.png")["content"] == "a.png"
    assert metadata("new/a_b.png_c.png.png")["content"] == "a_b.png"
    capsys.readouterr()
    assert command("stylize", "a_b.png", "paintings", *ANY, "-o", "new") == 0
    assert "0 made, 2 skipped" in capsys.readouterr().err


def test_pictures_of_which_nothing_is_known_are_left_alone(command, fake, capsys):
    for folder in ("photos", "out"):
        Path(folder).mkdir()
        flat(f"{folder}/a.png", 0.5)
    before = Path("out/a.png").read_bytes()
    assert command("stylize", "photos", "wave.png", *ANY, "-o", "out") == 0
    assert "0 made, 1 skipped" in capsys.readouterr().err
    assert Path("out/a.png").read_bytes() == before


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*TWO, "--style-weights", "1,2,3"], ["3 weights", "2 paintings"]),
        ([*TWO, "--style-weights", "wave=1,leaf=2"], ["wave.png is a painting"]),
        ([*TWO, "--interpolate", "3", "--style-weights", "1,2"], ["give one of them"]),
        ([*ONE, "--interpolate", "3", "--strength", "1"], ["leave out --strength"]),
        ([*TWO, "both.png", "--interpolate", "3"], ["there are 3"]),
        ([*ONE, "--steps", "3"], ["--steps is for optimising pixels"]),
        ([*ONE, "--features", "lite"], ["--features is for optimising pixels"]),
        ([*ONE, "--method", "gatys"], ["leave out --model"]),
        ([*ONE, "--method", "adian"], ["did you mean adain"]),
        (["stylize", "photo.png", *OUT], ["any.safetensors has no styles", "file of one"]),
        (["stylize", "photo.png", *OUT, "--style", "wave"], ["any.safetensors has no styles"]),
        (["styles", *ANY], ["any.safetensors has no styles"]),
        (["stylize", "photo.png", "--method", "adain", "-o", "out.png"], ["expected STYLE"]),
        (["stylize", "photo.png", ".", "-o", "out"], [". is a folder", "--method adain"]),
        (["stylize", "photo.png", "wave.png", "-o", "o.png", "--style-size=9"], ["--style-size"]),
        (["stylize", "photo.png", "none.png", *OUT], ["none.png", "no such file"]),
        (["stylize", "photo.png", ".", "wave.png", *ANY, "-o", "out"], [". is a folder"]),
        (["stylize", "photo.png", ".", *OUT[:-1], "wave.png"], ["wave.png is a file"]),
        (["stylize", "photo.png", ".", *OUT[:-1], "."], ["folder of the paintings"]),
        ([*ONE, "-o", "wave.png", "--overwrite"], ["wave.png is read"]),
        (
            [*TWO, "--content-mask", "halves.png", "-o", "halves.png", "--overwrite"],
            ["halves.png is read"],
        ),
        ([*ONE, "--style-mask", "halves.png"], ["--content-mask"]),
        ([*ONE, "--content-mask", "halves.png"], ["(1)", "got 2", "--style-mask"]),
        ([*TWO, "both.png", "--content-mask", "halves.png"], ["(3)", "got 2"]),
        ([*TWO, "--content-mask", "wave.png"], ["wave.png has 20 x 30", "proportions"]),
        ([*TWO, "--content-mask", "leaf.png"], ["(2)", "got 1"]),
        ([*TWO, "--content-mask", "noise.png"], ["noise.png is no colour-coded mask"]),
        ([*TWO, "--content-mask", "none.png"], ["none.png", "no such file"]),
        ([*TWO, "--content-mask", "."], ["expected a file"]),
        ([*TWO, "--content-mask", "halves.png", "--style-weights", "1,2"], ["--style-weights"]),
        ([*TWO, "--content-mask", "halves.png", "--interpolate", "2"], ["--interpolate"]),
        (
            [*TWO, "--content-mask", "halves.png", "--style-mask", "halves.png"],
            ["--style-mask is given once for 2 paintings"],
        ),
        ([*ONE, "--style-weights", "1,2"], ["has 2 weights for 1 painting:"]),
        (
            ["stylize", "photo.png", ".", *ANY, "-o", "out", "--style-weights", "1,2,3"],
            [". is a folder", "leave out --style-weights"],
        ),
        (
            [*TWO, "--content-mask=halves.png", "--style-mask=noise.png", "--style-mask=noise.png"],
            ["noise.png has 32 x 24 pixels, but wave.png"],
        ),
        (
            ["stylize", "photo.png", "leaf.png", *OUT, *LEAF_MASKS, "noise.png"],
            ["noise.png is no colour-coded mask"],
        ),
        (
            ["stylize", "photo.png", "leaf.png", *OUT, *LEAF_MASKS, "others.png"],
            ["halves.png has the colours #000000, #ffffff, but others.png #0000ff, #ff0000"],
        ),
        (
            ["stylize", "photo.png", "leaf.png", *OUT, *LEAF_MASKS, "holes.png"],
            ["holes.png is a mask of which 50% is transparent"],
        ),
        ([*TWO, "--content-mask", "holes.png"], ["holes.png is a mask of which 50%"]),
        (
            ["stylize", "photo.png", "leaf.png", *OUT, *LEAF_MASKS, "none.png"],
            ["none.png", "no such file"],
        ),
        (
            [*ONE, "--content-mask=halves.png", "--style-mask=halves.png", "--style-size=15"],
            ["halves.png has 32 x 24 pixels, but wave.png 20 x 30"],
        ),
        (
            ["stylize", ".", "wave.png", *ANY, "-o", "out", "--content-mask", "halves.png"],
            ["expected a folder of masks"],
        ),
        (
            ["stylize", "photo.png", ".", *ANY, "-o", "out", "--content-mask", "halves.png"],
            ["paintings given as files"],
        ),
    ],
)
def test_mistakes(command, fake, capsys, arguments, expected):
    halves("halves.png", BLACK, WHITE)
    halves("others.png", RED, BLUE)
    opaque = np.broadcast_to(np.arange(32) < 16, (24, 32)).astype(np.float32)
    images.save("holes.png", np.broadcast_to(np.float32(RED), (24, 32, 3)), alpha=opaque)
    images.save("noise.png", np.random.default_rng(0).random((24, 32, 3), np.float32))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert command(*arguments, *([] if arguments[0] == "styles" else ["--quiet"])) == 2
    output = capsys.readouterr()
    line = only_line(output.err)
    assert line.startswith("jaxstyle: error: ")
    for text in expected:
        assert text in line
    assert output.out == ""
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    assert not fake.painted
