"""Contact sheets: pictures optimised together, how they are laid out, and the command."""

import functools
import json
import shlex
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from test_cli import command, pictures, write_picture  # noqa: F401
from test_gatys import CONTENT, NETWORK, OTHER, PLAIN, STYLE, picture

import jaxstyle
from jaxstyle import cli, convolution, images, objective, sheets
from jaxstyle.commands import sheet_options
from jaxstyle.config import StylizeConfig, preset, replace
from jaxstyle.methods import (
    gatys,
    gatys_batch,
    gatys_layout,
    gatys_scales,
    gatys_sheet,
    gatys_updates,
)
from jaxstyle.methods.gatys_batch import Variant

pytestmark = pytest.mark.usefixtures("quick_compiler")


SHALLOW = {"relu1_1": 1.0}  # enough for the compiler
SMALL = replace(PLAIN, size=24, scales=2, steps=4, steps_factor=0.5, averaging=0.5)


def alone(variant, *, features=NETWORK, **options):
    """What `gatys.stylize` makes of a variant."""
    run = gatys.stylize(
        CONTENT, [variant.style], features=features, config=variant.config, **options
    )
    return [np.asarray(iterate.image) for iterate in run][-1]


def assert_alike(variants, *, features=NETWORK, group=None, **options):
    found = gatys_batch.optimise_together(
        CONTENT, variants, features=features, group=group, **options
    )
    assert found.dtype == np.float32
    assert len(found) == len(variants)
    for pixels, variant in zip(found, variants, strict=True):
        np.testing.assert_allclose(pixels, alone(variant, features=features, **options), atol=1e-3)
    return found


# Pictures that are optimised together


def test_each_picture_is_what_it_is_alone():
    """Weights, step sizes, seeds and paintings differ; the last of two groups is filled."""
    config = replace(SMALL, init="noise", content_layers=SHALLOW, style_layers=SHALLOW)
    variants = [
        Variant(STYLE, config),
        Variant(picture(5, 15, 22), replace(config, style_weight=40.0, content_weight=3.0)),
        Variant(STYLE, replace(config, learning_rate=0.01, tv_weight=0.0, seed=1)),
    ]
    before = gatys_batch.jitted("cpu")._cache_size()
    found = assert_alike(variants, group=2)
    assert gatys_batch.jitted("cpu")._cache_size() == before + 2  # an update for each scale
    for index, pixels in enumerate(found):
        for other in found[:index]:
            assert np.abs(pixels - other).mean() > 0.003


def test_a_start_and_kept_colors():
    config = replace(SMALL, scales=1, keep_colors="luminance")
    variants = [Variant(STYLE, replace(config, style_weight=weight)) for weight in (1.0, 9.0)]
    found = assert_alike(variants, init=picture(7, 20, 30))
    difference = found[0] - CONTENT
    inside = ((found[0] > 0) & (found[0] < 1)).all(2)
    np.testing.assert_allclose((difference - difference[..., :1])[inside], 0, atol=1e-5)


def test_lbfgs():
    """One picture after the other, in one program."""
    config = replace(SMALL, optimizer="lbfgs", scales=1, steps=3, clamp=False, init="noise")
    config = replace(config, content_layers=SHALLOW, style_layers=SHALLOW, averaging=0.0)
    before = gatys_batch.jitted("cpu")._cache_size()
    assert_alike([Variant(STYLE, replace(config, style_weight=weight)) for weight in (1.0, 30.0)])
    assert gatys_batch.jitted("cpu")._cache_size() == before + 1


def test_transformed_kernels():
    """Those of the CPU, with their own gradients and a way for each platform, go with vmap."""
    random = np.random.default_rng(0)
    kernel = random.normal(0, 0.02, (3, 3, 256, 256)).astype(np.float32)
    prepared = convolution.prepare_kernel(kernel)
    assert isinstance(prepared, convolution.PreparedKernel)
    pictures = random.normal(size=(2, 1, 5, 6, 256)).astype(np.float32)  # noqa: F811

    def loss(x, kernel):
        return jnp.sum(jnp.square(convolution.conv2d(x, kernel, padding="reflect")))

    mapped = jax.jit(jax.vmap(jax.grad(loss), in_axes=(0, None)))
    assert "f32[6,256,256]" in str(jax.make_jaxpr(mapped)(pictures, prepared))
    wanted = jax.jit(jax.grad(loss))
    for found, one in zip(mapped(pictures, prepared), pictures, strict=True):
        np.testing.assert_allclose(found, wanted(one, jnp.asarray(kernel)), rtol=1e-3, atol=2e-3)


def test_the_kernels_are_not_copied_for_each_picture():
    """A batch of pictures, and not a convolution in groups."""
    config = replace(SMALL, scales=1)
    make = functools.partial(objective.make_targets, config=config, padding="zero")
    content, style = jnp.asarray(CONTENT)[None], jnp.asarray(STYLE)[None]
    targets = jax.eval_shape(make, NETWORK.params, content, [style], (1.0,))
    weights = jax.eval_shape(functools.partial(objective.loss_weights, config), targets)
    state = gatys_updates.init_state(content, config)
    states, targets, weights, rates = jax.tree.map(
        lambda x: jnp.ones((5, *x.shape), x.dtype), (state, targets, weights, jnp.ones(()))
    )
    update = jax.jit(gatys_batch.update, static_argnames=("config", "padding"))
    text = update.lower(
        states, NETWORK.params, targets, weights, rates, config=config, padding="zero"
    ).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions
    for line in convolutions:
        assert "feature_group_count = 1 : i64" in line
        assert "batch_group_count = 1 : i64" in line


def test_iterates_and_groups():
    """Of one schedule each."""
    variants = [
        Variant(STYLE, replace(SMALL, steps=steps, style_weight=weight))
        for weight in (1.0, 2.0)
        for steps in (4, 2)
    ]
    seen = []
    for group in gatys_batch.stylize_together(CONTENT, variants, features=NETWORK):
        seen.append((group.members, group.work))
        places = [(i.scale, i.step, i.scales, i.steps) for i in group.iterates]
        fine, coarse = group.work[1][1], group.work[0][1]
        assert places == [
            *((1, step + 1, 2, coarse) for step in range(coarse)),
            *((2, step + 1, 2, fine) for step in range(fine)),
        ]
    assert seen == [((0, 2), [(96, 4), (384, 2)]), ((1, 3), [(96, 2), (384, 1)])]


def test_what_the_compiler_must_know_differs_between_groups():
    changes = [
        {},
        {"style_loss": "moments"},
        {"pooling": "avg"},
        {"averaging": 0.0},
        {"clamp": False},
    ]
    changes += [{"learning_rate": 1.0}, {"style_weight": 3.0}, {"seed": 1}, {"style_scale": 2.0}]
    variants = [Variant(STYLE, replace(SMALL, **change)) for change in changes]
    found = gatys_batch.plan(variants, CONTENT.shape, features=NETWORK)
    assert found == [(0, 5, 6, 7, 8), (1,), (2,), (3,), (4,)]


def test_memory_that_is_given_decides_how_many_are_made_together():
    size = gatys_scales.scale_sizes(*CONTENT.shape[:2], SMALL)[-1]
    two = 2 * gatys_layout.picture_bytes(NETWORK.params, SMALL, size)
    variants = [Variant(STYLE, replace(SMALL, seed=seed)) for seed in range(4)]
    groups = gatys_batch.stylize_together(CONTENT, variants, features=NETWORK, memory=two)
    assert [group.members for group in groups] == [(0, 1), (2, 3)]


def test_losses_are_those_of_each_picture():
    variants = [Variant(style, SMALL) for style in (STYLE, OTHER)]
    group = next(gatys_batch.stylize_together(CONTENT, variants, features=NETWORK))
    losses = next(group.iterates).losses
    for index, variant in enumerate(variants):
        run = gatys.stylize(CONTENT, [variant.style], features=NETWORK, config=SMALL)
        first = next(run).losses
        for name, value in first.items():
            assert losses[name].shape == (2,)
            assert float(losses[name][index]) == pytest.approx(float(value), rel=1e-4, abs=1e-7)


def members(count, **options):
    variants = [Variant(STYLE, replace(SMALL, seed=seed)) for seed in range(count)]
    groups = gatys_batch.plan(variants, CONTENT.shape, features=NETWORK, **options)
    assert [index for group in groups for index in group] == list(range(count))
    return [len(group) for group in groups]


def test_groups_fit_memory_and_are_even():
    assert members(7, group=3) == [3, 3, 1]
    assert members(7, group=4) == [4, 3]
    assert members(8, group=5) == [4, 4]
    assert members(3, group=9) == [3]
    assert members(3) == [3]
    size = gatys_scales.scale_sizes(*CONTENT.shape[:2], SMALL)[-1]
    one = gatys_layout.picture_bytes(NETWORK.params, SMALL, size)
    assert members(4, memory=2 * one) == [2, 2]
    assert members(4, memory=one // 2) == [1, 1, 1, 1]


def test_bytes_of_a_picture():
    wanted = functools.partial(gatys_layout.picture_bytes, NETWORK.params)
    size, config = (40, 20), SMALL
    # conv1_1 has 6 channels, conv2_1 has 8 on a quarter of the positions; and Adam's own.
    assert wanted(config, size) == round(800 * (14.4 * (6 + 8 / 4) + 48))
    shallow = replace(config, content_layers=SHALLOW, style_layers=SHALLOW)
    assert wanted(shallow, size) == round(800 * (14.4 * 6 + 48))
    searched = replace(config, optimizer="lbfgs", history=10)
    assert wanted(searched, size) > 2 * wanted(config, size)
    full = gatys_layout.picture_bytes(
        networks.random_params(heads={1: 64}),
        replace(config, style_layers={"relu1_1": 1}),
        size,
    )
    assert full > 14 * 40 * 20 * 64


def test_mistakes_are_told_at_the_call():
    together = functools.partial(gatys_batch.stylize_together, CONTENT, features=NETWORK)
    one = Variant(STYLE, SMALL)
    for arguments, message in (
        ([], "at least one variant"),
        ([one, Variant(STYLE, replace(SMALL, size=30))], "one size; got 24, 30"),
        ([Variant(255 * STYLE, SMALL)], "style: expected values in"),
        ([Variant(STYLE, replace(SMALL, init="nose"))], "init must be one of"),
        ([Variant(STYLE, replace(SMALL, style_layers={"relu9_9": 1}))], "no layer 'relu9_9'"),
    ):
        with pytest.raises(ValueError, match=message):
            together(arguments)
    with pytest.raises(ValueError, match="group must be 1 or more; got 0"):
        together([one], group=0)


# The layout


def test_columns():
    assert sheets.column_count([3]) == 3
    assert sheets.column_count([6]) == 6
    assert sheets.column_count([7]) == 4
    assert sheets.column_count([13]) == 5
    assert sheets.column_count([3, 2]) == 2
    assert sheets.column_count([2, 3, 9]) == 9
    for wrong in ([], [2, 0]):
        with pytest.raises(ValueError, match="dimensions of at least 1 value"):
            sheets.column_count(wrong)


def labelled(color, *lines, size=(30, 40)):
    return sheets.Labelled(np.broadcast_to(np.float32(color), (*size, 3)), lines)


def ink(sheet, rows=slice(None), columns=slice(None)):
    return (sheet[rows, columns].max(2) < 0.5).any()


RED, GREEN, BLUE = np.eye(3)


def test_cells_are_in_rows_and_columns():
    sheet = sheets.draw(
        [labelled(BLUE, "head", size=(20, 30))],
        [labelled(RED, "one"), labelled(GREEN, "two"), labelled(RED, "3", size=(10, 10))],
        columns=2,
    )
    assert sheet.dtype == np.float32
    places = {}
    for name, color in (("blue", BLUE), ("red", RED), ("green", GREEN)):
        down, across = np.nonzero((np.abs(sheet - color) < 0.01).all(2))
        places[name] = down.min(), down.max() + 1, across.min(), across.max() + 1
    assert (places["blue"][1] - places["blue"][0], places["blue"][3] - places["blue"][2]) == (
        20,
        30,
    )
    top, _, left, _ = places["green"]
    assert top == places["red"][0] > places["blue"][1]
    assert left > places["red"][3]
    down, across = np.nonzero((np.abs(sheet - RED) < 0.01).all(2))
    below = down > places["green"][1]
    assert below.sum() == 100  # the third is in the next row, in the middle of the first column
    first = across[~below]
    assert across[below].mean() == pytest.approx(first.mean(), abs=1)
    assert ink(sheet, slice(places["green"][1], down[below].min()))


def test_columns_grow_with_their_labels():
    """Nothing is cut, and no letter touches the border of the sheet."""
    line = "content-weight 0.35"
    narrow = sheets.draw([], [labelled(RED, "a")] * 2, columns=2)
    wide = sheets.draw([], [labelled(RED, line)] * 2, columns=2)
    assert wide.shape[0] == narrow.shape[0]
    assert wide.shape[1] > narrow.shape[1] + 100
    assert sheets.draw([], [labelled(RED, line, line)] * 2, columns=2).shape[0] > wide.shape[0]
    middle = wide.shape[1] // 2
    assert ink(wide, columns=slice(6, middle - 6))
    assert not ink(wide, columns=slice(middle - 5, middle + 5))
    for edge in (slice(0, 4), slice(-4, None)):
        assert not ink(wide, columns=edge)
        assert not ink(wide, rows=edge)
    # A line is shortened, though, before it makes the sheet endless; dollars are no formula.
    endless = sheets.draw([], [labelled(RED, "$x$" * 99), labelled(RED, "a\nb")], columns=2)
    assert endless.shape[1] < 2 * 16 * 12 + 60


def test_the_size_of_a_sheet_is_known_before_it_is_drawn():
    for head, cells, columns in (
        ([], [labelled(RED, "a")], 1),
        ([labelled(BLUE, "head", size=(20, 90))], [labelled(RED, "one", "two")] * 5, 2),
        ([labelled(BLUE)] * 3, [labelled(RED, "content-weight 0.35"), labelled(RED)], 2),
    ):
        wanted = sheets.draw(head, cells, columns=columns).shape[:2]
        assert sheets.sheet_size(head, cells, columns=columns) == wanted
    with pytest.raises(ValueError, match="expected cells and columns"):
        sheets.sheet_size([], [], columns=1)


def test_what_is_not_there_is_grey_and_says_so():
    found = sheets.blank((30, 40), ["#1", "seed 3"], sheets.LOST)
    assert found.lines == ["#1", "seed 3", "the loss is no number"]
    assert np.shape(found.pixels) == (30, 40, 3)
    assert 0.5 < np.min(found.pixels) == np.max(found.pixels) < 1


def test_values_that_change_nothing():
    configs = [replace(SMALL, history=history) for history in (5, 10)]
    with pytest.raises(ValueError, match=r"history has several.*set optimizer to lbfgs"):
        sheets.check_differences(["style", "history"], configs)
    # Where one picture uses it, it is of use.
    sheets.check_differences(["history"], [*configs, replace(SMALL, optimizer="lbfgs")])
    sheets.check_differences(["style_weight", "steps"], configs)
    noise = [replace(SMALL, init="noise", seed=seed) for seed in (1, 2)]
    sheets.check_differences(["seed"], noise)
    with pytest.raises(ValueError, match="start from a picture"):
        sheets.check_differences(["seed"], noise, has_start=True)


def test_what_cannot_be_drawn():
    for cells, columns in (([], 2), ([labelled(RED, "a")], 0)):
        with pytest.raises(ValueError, match="expected cells and columns"):
            sheets.draw([], cells, columns=columns)
    for pixels in (np.zeros((4, 4)), np.full((4, 4, 3), np.nan)):
        with pytest.raises(ValueError, match="finite pictures"):
            sheets.draw([], [sheets.Labelled(pixels, ["a"])], columns=1)


# The command


class Fake:
    """Stands for `stylize_together`: greys, and a note of what was asked."""

    def __init__(self):
        self.calls = []
        self.lost = ()
        self.interrupt_at = None

    def __call__(self, content, variants, *, features, init, group, memory):
        self.calls.append({"variants": variants, "init": init, "group": group, "memory": memory})
        size = images.fitted_size(*content.shape[:2], variants[0].config.size)
        half = -(-len(variants) // 2) if group else len(variants)
        for start in range(0, len(variants), half):
            chosen = tuple(range(len(variants)))[start : start + half]
            yield gatys_batch.Group(chosen, [(size[0] * size[1], 3)], self.iterates(chosen, size))

    def iterates(self, chosen, size):
        for step in (1, 2, 3):
            total = jnp.asarray([np.nan if i in self.lost else 1.0 for i in chosen])
            losses = dict.fromkeys(("total", "content", "style", "tv"), total)
            greys = jnp.asarray([0.1 * (i + 1) for i in chosen])[:, None, None, None]
            shown = jnp.broadcast_to(greys, (len(chosen), *size, 3))
            if step == self.interrupt_at:
                signal.raise_signal(signal.SIGINT)
            yield gatys_batch.Iterates(shown, step, 3, 1, 1, losses)

    @property
    def configs(self):
        return [variant.config for variant in self.calls[-1]["variants"]]


@pytest.fixture
def fake(monkeypatch):
    stand_in = Fake()
    monkeypatch.setattr(gatys_batch, "stylize_together", stand_in)
    return stand_in


@pytest.fixture
def sheet(command):  # noqa: F811
    """Runs `jaxstyle sheet` in a folder with pictures."""

    def run(*arguments):
        given = ["sheet", *map(str, arguments), "--features", "net.safetensors", "-o", "sheet.png"]
        return cli.main([*given, "--size", "32"])

    return run


def record():
    return json.loads(Path("sheet.json").read_text())


TWO = ("photo.png", "wave.png", "--style-weight", "1,1e2,3e3", "--content-weight", "0.2,0.35")


def test_combinations_in_the_order_of_the_options(sheet, fake, capsys):
    assert sheet(*TWO) == 0
    found = [(c.style_weight, c.content_weight) for c in fake.configs]
    assert found == [(s, c) for s in (1.0, 100.0, 3000.0) for c in (0.2, 0.35)]
    assert {c.size for c in fake.configs} == {32}
    usual = replace(preset("default", scale="normalized"), size=32)
    assert {replace(c, style_weight=1.0, content_weight=0.35) for c in fake.configs} == {usual}
    cells = record()["cells"]
    assert [(cell["row"], cell["column"]) for cell in cells] == [
        (row, column) for row in (1, 2, 3) for column in (1, 2)
    ]
    assert cells[2]["differs"] == {"style_weight": "1e2", "content_weight": "0.2"}
    assert cells[2]["settings"]["style_weight"] == 100.0
    assert all(cell["finished"] for cell in cells)
    assert record()["differs"] == {
        "style_weight": ["1", "1e2", "3e3"],
        "content_weight": ["0.2", "0.35"],
    }
    pixels = images.load("sheet.png").pixels
    for value in (1, 6):  # the greys are on the sheet, at the size that was asked for
        same = (np.abs(pixels - value / 10) < 0.005).all(2)
        assert same.sum() >= 32 * 24
    made_by = images.read_metadata("sheet.png")["jaxstyle"]
    assert json.loads(made_by)["size"] == 32
    assert "command" not in made_by
    streams = capsys.readouterr()
    assert "# 3: style-weight 1e2, content-weight 0.2\n" + cells[2]["command"] in streams.out
    assert "6 pictures, " in streams.err.splitlines()[-1]
    assert streams.err.splitlines()[-1].endswith("settings and commands are in sheet.json")


def test_memory_is_said_as_for_stylize(sheet, fake, capsys):
    values = ["photo.png", "wave.png", "--seed", "3,4", "--init", "noise", "-q"]
    assert sheet(*values, "--memory", "3GiB") == 0
    assert fake.calls[0]["memory"] == 3 * 2**30
    assert sheet(*values, "--memory", "some", "--overwrite") == 2
    assert "--memory" in capsys.readouterr().err


def test_order_on_the_command_line_is_that_of_the_dimensions(sheet, fake):
    assert sheet("photo.png", "--tv-weight", "0,1", "wave.png", "--seed", "3,4", "dots.png",
                 "--init", "noise", "-q") == 0  # fmt: skip
    assert list(record()["differs"]) == ["style", "tv_weight", "seed"]
    found = [
        (len(variant.style[0]), variant.config.tv_weight, variant.config.seed)
        for variant in fake.calls[0]["variants"]
    ]
    assert found == [(w, tv, s) for w in (20, 32) for tv in (0.0, 1.0) for s in (3, 4)]


def test_other_settings_may_have_several_values(sheet, fake):
    options = ["--style-loss", "moments, elements", "--steps", "2,4,8"]
    assert sheet("photo.png", "wave.png", *options, "--group", "2") == 0
    assert [(c.style_loss, c.steps) for c in fake.configs] == [
        (loss, steps) for loss in ("moments", "elements") for steps in (2, 4, 8)
    ]
    assert fake.calls[0]["group"] == 2
    assert fake.calls[0]["memory"] is None
    assert {"size", "init", "clamp", "style_layers", "keep_colors"}.isdisjoint(
        sheet_options.varied_names()
    )
    assert {"style_weight", "seed", "learning_rate", "pooling", "scales"} <= {
        *sheet_options.varied_names()
    }


def test_commands_make_the_same_picture_large(sheet, fake, monkeypatch):
    """Each command is parsed and run, but for the optimisation: the settings are the cell's."""
    given = ["--preset", "jin2021", "--seed", "5", "--no-clamp", "--pooling", "avg,max"]
    given += ["--style-layers", "relu1_1=0.1,relu2_1", "--keep-colors=match", "--padding", "zero"]
    given += ["--learning-rate", "0.1,2e-2", "--init", "a start.png", "--device", "cpu:1"]
    write_picture(Path("a start.png"), 4)
    write_picture(Path("it's a wave.png"), 5)
    assert sheet("photo.png", "wave.png", "it's a wave.png", *given, "--max-pixels", "5000") == 0
    asked = []

    def stylize(content, styles, *, features, config, init, **_):
        asked.append((content, styles, features, config, init))
        image = np.zeros((*images.fitted_size(*content.shape[:2], 32), 3), np.float32)
        losses = dict.fromkeys(("total", "content", "style", "tv"), 1.0)
        yield gatys.Iterate(image, config.steps, config.steps, config.scales, config.scales, losses)

    monkeypatch.setattr(gatys, "stylize", stylize)
    cells = record()["cells"]
    assert len(cells) == 8
    for cell, variant in zip(cells, fake.calls[0]["variants"], strict=True):
        program, *words = shlex.split(cell["command"])
        assert program == "jaxstyle"
        assert words[words.index("-o") + 1] == f"sheet-{cell['number']}.png"
        assert cli.main(words) == 0
        content, styles, features, config, init = asked[-1]
        np.testing.assert_array_equal(content, images.load("photo.png").pixels)
        np.testing.assert_array_equal(styles[0], variant.style)
        np.testing.assert_array_equal(init, fake.calls[0]["init"])
        assert features.padding == "zero"
        assert config.size == 450
        assert replace(config, size=32) == variant.config
        assert config.style_layers == {"relu1_1": 0.1, "relu2_1": 2.5}
        assert Path(words[-1]).exists()


def test_a_command_is_never_smaller_than_the_sheet(command, fake):  # noqa: F811
    words = ["sheet", *TWO, "--features", "net.safetensors", "-o", "sheet.png", "-q"]
    assert cli.main([*words, "--size", "600"]) == 0
    assert "--size 600" in record()["cells"][0]["command"]
    assert cli.main([*words, "--overwrite"]) == 0
    assert "--size" not in record()["cells"][0]["command"]
    assert record()["size"] == 256


def test_mistakes(sheet, fake, capsys):
    Path("folder").mkdir()
    for arguments, expected in (
        (["photo.png", "wave.png"], "one picture only"),
        (["photo.png", "wave.png", "--seed", "1,2"], "or add --init noise"),
        (["photo.png", "wave.png", "--history", "5,10"], "add --optimizer lbfgs"),
        (["photo.png", "wave.png", "--scale-factor", "2,3", "--scales", "1"], "add --scales 2"),
        (["photo.png", "wave.png", "--steps-factor", "1,0.5", "--scales", "1"], "add --scales 2"),
        (
            ["photo.png", "wave.png", "--adam-b1", "0.8,0.9", "--optimizer", "lbfgs"],
            "add --optimizer adam",
        ),
        (
            ["photo.png", "wave.png", "--style-loss", "gatys,moments", "--style-weight", "0"],
            "add --style-weight 1",
        ),
        (["photo.png", "wave.png", "--init", "noise,content"], "one start for all pictures"),
        (
            ["photo.png", "wave.png", "--keep-colors", "luminance,match", "--seed", "1,2"],
            "(one of luminance, match)",
        ),
        (["photo.png", "wave.png", "--seed", "1,2", "--init", "dots.png"], "start from a picture"),
        (["photo.png", "wave.png", "--learning-rate", "1,2", "--optimizer", "lbfgs"], "L-BFGS"),
        (["photo.png", "wave.png", "--style-weight", "1,2,1.0"], "1 is there twice"),
        (["photo.png", "wave.png", "--style-weight", "1,x"], "expected a number"),
        (["photo.png", "wave.png", "--style-weight", "1,,2"], "expected a number"),
        (["photo.png", "wave.png", "--pooling", "avg,mix"], "unknown 'mix'; did you mean max?"),
        (["photo.png", "wave.png", "--averaging", "0.5,1"], "averaging must be below 1"),
        (["photo.png", "wave.png", "wave.png"], "wave.png is there twice"),
        (["photo.png", "wave.png", "folder"], "folder is a folder"),
        (["nothing.png", "wave.png", "dots.png"], "nothing.png"),
        (["photo.png", "wave.png", "dots.png", "--style-weights", "1,2"], "--style-weights"),
        (["photo.png", "wave.png", "--style-layers", "relu9_9", "--seed", "1,2"], "relu9_9"),
    ):
        assert sheet(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert expected in error
        assert len(error.splitlines()) == 1
    assert not fake.calls
    assert not Path("sheet.png").exists()


def test_nothing_is_drawn_before_the_pictures_are_made(sheet, fake, monkeypatch, capsys):
    """But a sheet that its format cannot hold is refused by then."""
    draw, before = sheets.draw, []

    def noted(*given, **options):
        before.append(len(fake.calls))
        return draw(*given, **options)

    monkeypatch.setattr(sheets, "draw", noted)
    assert sheet(*TWO) == 0
    assert before == [1]
    monkeypatch.setattr(images, "_LONGEST_SIDE", {"WEBP": 100})
    words = ["--features", "net.safetensors", "--size", "32", "--overwrite"]
    assert cli.main(["sheet", *TWO, *words, "-o", "sheet.webp"]) == 2
    assert "WEBP holds at most 100 pixels a side" in capsys.readouterr().err
    assert len(fake.calls) == len(before) == 1


@pytest.mark.parametrize("name", ["sheet.png", "sheet.json"])
def test_files_are_only_replaced_when_asked(sheet, fake, capsys, name):
    Path(name).write_bytes(b"mine")
    assert sheet(*TWO) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert Path(name).read_bytes() == b"mine"
    assert sheet(*TWO, "--overwrite", "-q") == 0
    assert Path(name).read_bytes() != b"mine"
    assert capsys.readouterr() == ("", "")


def test_a_loss_that_is_no_number_spoils_its_own_picture_alone(sheet, fake, capsys):
    fake.lost = (1, 4)
    assert sheet(*TWO, "-q") == 1
    assert "the loss of #2, #5 became infinite or NaN" in capsys.readouterr().err
    assert [cell["finished"] for cell in record()["cells"]] == [
        True,
        False,
        True,
        True,
        False,
        True,
    ]


def test_ctrl_c_writes_the_sheet_so_far(sheet, fake, capsys):
    fake.interrupt_at = 2
    assert sheet(*TWO, "--group", "3") == 130
    error = capsys.readouterr().err
    assert "stopping after this step to save it" in error
    assert "stopped early; the sheet so far is in sheet.png" in error
    assert not record()["finished"]
    assert images.load("sheet.png").pixels.ndim == 3


def test_alpha_is_white(sheet, fake):
    alpha = np.zeros((24, 32), np.float32)
    write_picture(Path("photo.png"), 1, alpha=alpha)
    assert sheet(*TWO) == 0
    pixels = images.load("sheet.png").pixels
    assert not (np.abs(pixels - 0.1) < 0.005).all(2).any()


def test_help(capsys):
    assert cli.main(["sheet", "--help"]) == 0
    text = capsys.readouterr().out
    for words in ("--style-weight X,...", "--seed N,...", "(default: 256)", "exit codes:"):
        assert words in text
    for name in StylizeConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text


def test_from_files_to_a_sheet(sheet):
    """Nothing stands in: a cell has what its command makes, at the size of the sheet."""
    options = ["--style-weight", "1,100", "--steps", "2", "--scales", "1", "--averaging", "0"]
    options += [
        "--style-layers",
        "relu1_1",
        "--content-layers",
        "relu1_2",
        "--style-loss",
        "elements",
    ]
    assert sheet("photo.png", "wave.png", *options, "--learning-rate", "0.1", "-q") == 0
    command, _, output = record()["cells"][1]["command"].rpartition(" -o ")  # noqa: F811
    assert cli.main([*shlex.split(command)[1:], "--size", "32", "-o", output, "-q"]) == 0
    wanted, found = images.load(output).pixels, images.load("sheet.png").pixels
    views = np.lib.stride_tricks.sliding_window_view(found, wanted.shape[:2], (0, 1))
    distances = np.abs(views[..., 4::8, 4::8] - wanted.transpose(2, 0, 1)[:, 4::8, 4::8])
    assert distances.mean((2, 3, 4)).min() < 1 / 255


# --- as a function -------------------------------------------------------------------------------


def test_a_sheet_is_a_function(tmp_path):
    vary = {"style_weight": [1.0, 30.0, 100.0]}
    found = jaxstyle.contact_sheet(
        CONTENT, {"wave": STYLE, "dots": OTHER}, features=NETWORK, vary=vary, config=SMALL
    )
    assert [each["style"] for each in found.settings] == ["wave"] * 3 + ["dots"] * 3
    assert [own.style_weight for own in found.configs] == [1, 30, 100] * 2
    assert found.pictures.shape == (6, *gatys_scales.scale_sizes(*CONTENT.shape[:2], SMALL)[-1], 3)
    wanted = alone(Variant(OTHER, replace(SMALL, style_weight=30.0)))
    np.testing.assert_allclose(found.pictures[4], wanted, atol=1e-3)
    images.save(tmp_path / "sheet.png", found.image)
    assert found.image.shape[1] > 3 * found.pictures.shape[2]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "several"),
        ({"seed": []}, "several"),
        ({"size": [32, 64]}, "one size"),
        ({"history": [5, 10]}, "set optimizer to lbfgs"),
        ({"styleweight": [1, 2]}, "styleweight"),
        ({"style_loss": ["gatys", "none"]}, "style_loss"),
    ],
)
def test_a_sheet_of_nothing_is_refused(vary, message):
    with pytest.raises(ValueError, match=message):
        jaxstyle.contact_sheet(CONTENT, {"wave": STYLE}, features=NETWORK, vary=vary, config=SMALL)


def test_a_picture_that_was_lost_says_so_on_the_sheet(monkeypatch):
    made = np.full((2, 24, 24, 3), 0.5, np.float32)
    made[1] = np.nan
    monkeypatch.setattr(gatys_sheet, "optimise_together", lambda *_, **__: made)
    drawn = []
    monkeypatch.setattr(
        sheets, "draw", lambda head, cells, *, columns: drawn.extend(cells) or made[0]
    )
    jaxstyle.contact_sheet(
        CONTENT, {"wave": STYLE}, features=NETWORK, vary={"style_weight": [1.0, 2.0]}, config=SMALL
    )
    assert "no number" not in " ".join(drawn[0].lines)
    assert drawn[1].lines[-1] == "the loss is no number"
