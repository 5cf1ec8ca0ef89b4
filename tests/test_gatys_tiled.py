"""Pixel optimisation in tiles: the objective's own gradient, and states that are gone on from."""

import errno
import math
import os

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from test_gatys import NETWORK, OTHER, PLAIN, STYLE, TERMS, picture

from jaxstyle import features as vgg
from jaxstyle import strips, tiling, weights
from jaxstyle.commands.resumption import Resumption, fingerprint
from jaxstyle.config import preset, replace
from jaxstyle.errors import UserError
from jaxstyle.methods import (
    gatys,
    gatys_arrays,
    gatys_layout,
    gatys_parts,
    gatys_scales,
    gatys_tiled,
    gatys_updates,
)
from jaxstyle.objective import STYLE_LOSSES, loss_weights, make_targets, objective

pytestmark = pytest.mark.usefixtures("quick_compiler")

SIZE = (37, 50)
CONTENT = picture(1, *SIZE)


def canvas(seed=4):
    noise = np.random.default_rng(seed).random((1, *SIZE, 3), np.float32)
    return (0.7 * CONTENT + 0.3 * noise).astype(np.float32)


# --- where the tiles lie -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(37, 50), (64, 16), (3, 200), (15, 15), (161, 47)])
@pytest.mark.parametrize(("side", "margin", "grain"), [(8, 5, 4), (16, 3, 16), (1, 0, 2)])
def test_each_pixel_counts_once_in_tiles_of_one_size(size, side, margin, grain):
    tiles = gatys_layout.lay(size, side, margin, grain)
    counted = np.zeros(size, int)
    for tile in tiles:
        for span, length in zip(tile, size, strict=True):
            assert span.start % grain == 0
            assert span.start == 0 or span.first - span.start >= margin
            assert span.stop == length or span.stop - span.last >= margin
        counted[tile.row.first : tile.row.last, tile.column.first : tile.column.last] += 1
    assert (counted == 1).all()
    assert len({(t.row.stop - t.row.start, t.column.stop - t.column.start) for t in tiles}) == 1


@pytest.mark.parametrize("layer", ["relu1_1", "relu2_2", "pool2", "relu3_1"])
def test_reach_is_as_far_as_a_position_sees(layer):
    params = networks.random_params(((3, 3), (3, 3), (3, 3)))
    size, middle = 64, 32 // 2 ** gatys_layout.block_of(layer)

    def value(x):
        found = vgg.vgg(params, x, [layer], pooling="avg")[layer]
        return jnp.sum(found[0, middle, middle])

    seen = np.abs(jax.grad(value)(jnp.full((1, size, size, 3), 0.5))).sum((0, 3)) > 0
    # Positions begin with the first of their pixels.
    first = middle * 2 ** gatys_layout.block_of(layer)
    farthest = np.abs(np.argwhere(seen) - first).max()
    assert 0 < farthest <= gatys_layout.reach(params, [layer]) <= farthest + 1


def test_tiles_where_the_whole_takes_too_much():
    each = gatys_layout.bytes_per_pixel(NETWORK.params, ["relu1_1", "relu2_1"])

    def chosen(tile="auto", memory=None, size=(4000, 4000)):
        return gatys_layout.Cutting(tile, memory).of(NETWORK.params, PLAIN, size)

    assert chosen(memory=int(each * 4000**2)) is None
    assert chosen(memory=int(each * 2000**2)) == gatys_layout.SIDES[0]
    assert chosen(memory=int(each * 500**2)) == 384
    assert chosen(memory=1) == gatys_layout.SIDES[-1]
    assert chosen(None, memory=1) is None
    assert chosen(100) == 100
    assert chosen(100, size=(90, 100)) is None  # that is the whole
    for tile in (0, "often"):
        with pytest.raises(ValueError, match="tile must be"):
            gatys.stylize(CONTENT, [STYLE], features=NETWORK, config=PLAIN, tile=tile)


# --- the gradient --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("gatys", "max"), ("wasserstein", "max"), *((n, "avg") for n in STYLE_LOSSES)],
)
def test_the_gradient_is_that_of_the_whole(name, pooling):
    other = pooling == "max"
    config = replace(
        PLAIN,
        style_loss=name,
        pooling=pooling,
        content_loss="half_sum" if other else "mean",
        tv_loss="half_mean" if other else "squared_mean",
        normalize_features=other,
        standardize=other,
        clamp=not other,
    )
    padding = "reflect" if other else "zero"
    styles, shares = [STYLE[None], OTHER[None]], (0.7, 0.3)
    program = gatys_updates.program(config)
    compiled = jax.jit(make_targets, static_argnames=("config", "padding"))
    targets = compiled(
        NETWORK.params, CONTENT[None], styles, shares, config=program, padding=padding
    )
    weights = loss_weights(config, targets)

    def loss(x):
        return objective(NETWORK.params, x, targets, weights, program, padding)

    x = canvas()
    wanted, terms = jax.jit(jax.grad(loss, has_aux=True))(x)

    network = gatys_parts.Network(vgg.prepare(NETWORK.params, padding=padding), padding, program)
    assert len(network.tiles(SIZE, 8)) > 20
    own = gatys_tiled.make_targets(network, CONTENT[None], styles, shares, 8)
    for found, whole in zip(jax.tree.leaves(own), jax.tree.leaves(targets), strict=True):
        np.testing.assert_allclose(found, whole, atol=2e-5 * np.abs(whole).max())
    gradient = np.empty_like(x)
    given = network, x, own, loss_weights(config, own), 8
    found = gatys_tiled.value_and_gradient(*given, into=gradient)
    for term in TERMS:
        assert float(found[term]) == pytest.approx(float(terms[term]), rel=2e-5)
    assert np.linalg.norm(gradient - wanted) < 1e-5 * np.linalg.norm(wanted)


# Where little varies, sums around anything but the mean cancel to rounding, or to NaN.
@pytest.mark.parametrize(
    ("size", "low", "high"),
    [
        (SIZE, 0.5, 0.52),
        (SIZE, 0.5, 0.502),
        (SIZE, 0.5, 0.5),
        ((3, 3), 0, 1),
    ],  # of 3 x 3: one deep position
)
@pytest.mark.parametrize("name", ["wasserstein", "moments"])
def test_what_varies_little_is_described_as_the_whole_is(name, size, low, high):
    config = replace(PLAIN, style_loss=name, pooling="avg")
    content, smooth = picture(1, *size)[None], picture(2, *size)[None]
    style = low + (high - low) * (smooth - 0.25) / 0.5
    program = gatys_updates.program(config)
    aims = make_targets(NETWORK.params, content, [style], (1.0,), program, "reflect")
    weights = loss_weights(config, aims)

    def loss(x):
        return objective(NETWORK.params, x, aims, weights, program, "reflect")[0]

    total, wanted = jax.jit(jax.value_and_grad(loss))(content)
    network = gatys_parts.Network(NETWORK.params, "reflect", program)
    side = 1 if size == (3, 3) else 8
    own = gatys_tiled.make_targets(network, content, [style], (1.0,), side)
    for found, whole in zip(jax.tree.leaves(own.style), jax.tree.leaves(aims.style), strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-4 * np.abs(whole).max() + 1e-8)
    gradient = np.empty_like(content)
    found = gatys_tiled.value_and_gradient(network, content, own, weights, side, into=gradient)
    assert float(found["total"]) == pytest.approx(float(total), rel=1e-4)
    assert np.linalg.norm(gradient - wanted) < 2e-4 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"averaging": 0.5},
        {"optimizer": "lbfgs"},
        {"optimizer": "lbfgs", "clamp": True, "averaging": 0.5, "history": 2},
    ],
)
def test_the_path_is_that_of_the_whole(options):
    config = replace(PLAIN, pooling="avg", scales=2, size=50, steps=4, **options)
    given = {"features": NETWORK, "config": config}
    whole = list(gatys.stylize(CONTENT, [STYLE], tile=None, **given))
    for one, other in zip(gatys.stylize(CONTENT, [STYLE], tile=8, **given), whole, strict=True):
        assert (one.scale, one.step) == (other.scale, other.step)
        assert float(one.losses["total"]) == pytest.approx(float(other.losses["total"]), rel=5e-3)
        np.testing.assert_allclose(one.image, other.image, atol=0.01)


@pytest.mark.parametrize("way", ["luminance", "match"])
def test_tiles_keep_colors_too(monkeypatch, way):
    config = replace(PLAIN, pooling="avg", size=50, steps=2, scales=2, keep_colors=way)
    given = {"features": NETWORK, "config": config}
    monkeypatch.setattr(strips, "BAND_PIXELS", 150)  # three rows
    *_, whole = gatys.stylize(CONTENT, [STYLE], tile=None, **given)
    *_, tiled = gatys.stylize(CONTENT, [STYLE], tile=16, **given)
    assert isinstance(tiled.image, np.ndarray)
    np.testing.assert_allclose(tiled.image, whole.image, atol=0.01)


@pytest.mark.parametrize(
    ("options", "pictures"),
    [
        # The picture, two moments, the gradient, what is shown.
        ({}, 5),
        # The picture, that before it and its gradient, the gradient, the direction, what is
        # tried, what is shown.
        ({"optimizer": "lbfgs", "history": 3}, 7),
    ],
)
def test_arrays_in_files_give_the_same(monkeypatch, options, pictures):
    config = replace(PLAIN, size=50, steps=2, **options)
    given = {"features": NETWORK, "tile": 16, "config": config}
    *_, wanted = gatys.stylize(CONTENT, [STYLE], **given)
    mapped = []
    memmap = np.memmap

    def recorded(*arguments, **options):
        mapped.append(options["shape"])
        return memmap(*arguments, **options)

    monkeypatch.setattr(tiling, "host_memory", lambda: 0)
    monkeypatch.setattr(np, "memmap", recorded)
    *_, found = gatys.stylize(CONTENT, [STYLE], **given)
    np.testing.assert_array_equal(found.image, wanted.image)
    histories = mapped.count((3, 1, *SIZE, 3))
    assert histories == 2 * bool(options)
    assert mapped.count((1, *SIZE, 3)) == pictures
    assert len(mapped) == pictures + histories + len(PLAIN.content_layers)
    bytes_in_files = 4 * sum(map(math.prod, mapped))
    photograph = 4 * 3 * math.prod(SIZE)
    assert gatys_layout.host_bytes(SIZE, NETWORK.params, config) == pytest.approx(
        bytes_in_files + photograph, rel=0.02
    )


@pytest.mark.parametrize(("share", "wanted"), [(0.9, True), (1.1, False)])
def test_large_blocks_are_given_back_where_memory_is_tight(monkeypatch, share, wanted):
    config, told = replace(PLAIN, size=50, steps=1), []
    size = gatys_scales.scale_sizes(*CONTENT.shape[:2], config)[-1]
    network = gatys_parts.Network.of(NETWORK, config)
    tile = network.tiles(size, 16)[0]
    pixels = np.prod([span.stop - span.start for span in tile])
    each = gatys_layout.bytes_per_pixel(NETWORK.params, gatys_layout.layers_of(config))
    needed = gatys_layout.host_bytes(size, NETWORK.params, config) + 2 * pixels * each
    monkeypatch.setattr(tiling, "host_memory", lambda: int(share * needed))
    monkeypatch.setattr(gatys_tiled.runtime, "give_back_large_blocks", told.append)
    monkeypatch.setattr(gatys_arrays.Room, "of", lambda _: gatys_arrays.Room(mapped=False))
    for _ in gatys.stylize(CONTENT, [STYLE], features=NETWORK, config=config, tile=16):
        pass
    assert told == [wanted, False]  # a picture after this one may be computed whole


def test_bytes_beside_tiles():
    size = (40, 20)

    def bytes_of(params=NETWORK.params, **changes):
        return gatys_layout.host_bytes(size, params, replace(PLAIN, **changes)) / 800

    # Photograph, picture, two moments, gradient, what is shown; and 8 channels of relu2_1.
    assert bytes_of() == 6 * 12 + 4 * 8 / 4
    assert bytes_of(averaging=0.5) == bytes_of() + 12
    assert bytes_of(content_layers={"relu1_1": 1, "pool1": 1}) == 6 * 12 + 4 * (6 + 6 / 4)
    assert bytes_of(keep_colors="luminance") == bytes_of() + 12
    # L-BFGS has ten changes of the picture and of the gradient, and two pictures more than Adam.
    assert bytes_of(optimizer="lbfgs") == bytes_of() + 22 * 12
    assert bytes_of(optimizer="lbfgs", history=5) == bytes_of() + 12 * 12
    heads = networks.random_params(heads={1: 64})
    assert bytes_of(heads, content_layers={"relu1_1": 1}) == 6 * 12 + 4 * 64
    # The account without settings is that of the default ones.
    features = weights.load("lite")
    config = preset("default", scale=features.scale, heads=features.heads)
    assert gatys_layout.host_bytes(size, features.params, config) == gatys_layout.host_bytes(size)


def test_memory_that_runs_out_is_told(monkeypatch):
    def none(*_):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(gatys_arrays.mmap, "mmap", none)
    with pytest.raises(MemoryError, match="48 bytes"):
        gatys_arrays.Room(mapped=False).zeros((1, 2, 2, 3))


def test_the_network_is_uploaded_once(monkeypatch):
    monkeypatch.setattr(gatys_updates, "platform", lambda: "gpu")
    network = gatys_parts.Network.of(NETWORK, PLAIN)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(network.params))


def test_a_disk_without_room_is_told(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"no room for 1\.0 GiB.*No space left.*TMPDIR"):
        gatys_arrays.Room(mapped=True).zeros((1, 2**14, 2**14, 1))


# --- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tile", "options", "stop"),  # in the middle of a scale, and at its end
    [
        (None, {"averaging": 0.5}, 3),
        (16, {"averaging": 0.5}, 2),
        (16, {}, 3),
        (None, {"optimizer": "lbfgs"}, 2),
        (16, {"optimizer": "lbfgs"}, 2),
        (16, {"optimizer": "lbfgs", "clamp": True}, 3),
    ],
)
def test_a_run_goes_on_from_its_state_to_the_same_picture(tmp_path, tile, options, stop):
    config = replace(PLAIN, scales=2, size=50, steps=3, **options)
    given = {"features": NETWORK, "config": config, "tile": tile}
    *_, wanted = gatys.stylize(CONTENT, [STYLE], **given)
    sizes = gatys_scales.scale_sizes(*SIZE, config)
    kept = Resumption(tmp_path / "state", "one")
    assert kept.latest(sizes, config) is None
    run = gatys.stylize(CONTENT, [STYLE], **given)
    for _ in range(stop):
        iterate = next(run)
        kept.keep(iterate)
    run.close()
    found = Resumption(tmp_path / "state", "one").latest(sizes, config)
    assert (found.scale, found.step) == (1, stop)
    rest = list(gatys.stylize(CONTENT, [STYLE], resume=found, **given))
    assert len(rest) == 6 - stop
    np.testing.assert_array_equal(rest[-1].image, wanted.image)
    with pytest.raises(UserError, match="another picture"):
        Resumption(tmp_path / "state", "other").latest(sizes, config)
    kept.finish()
    assert kept.latest(sizes, config) is None


def test_a_state_that_memory_has_no_room_for_stays_in_files(tmp_path, monkeypatch):
    config = replace(PLAIN, size=50, scales=1, steps=2, optimizer="lbfgs", history=2)
    given = {"features": NETWORK, "config": config, "tile": 16}
    sizes = gatys_scales.scale_sizes(*SIZE, config)
    first, wanted = (
        iterate._replace(image=iterate.image.copy(), state=jax.tree.map(np.copy, iterate.state))
        for iterate in gatys.stylize(CONTENT, [STYLE], **given)
    )
    kept = Resumption(tmp_path / "state", "one")
    kept.keep(first)
    monkeypatch.setattr(tiling, "host_memory", lambda: 0)
    found = kept.latest(sizes, config)
    large = [leaf for leaf in jax.tree.leaves(found.state) if leaf.ndim > 3]
    assert len(large) == 6
    assert all(isinstance(leaf, np.memmap) for leaf in large)
    (last,) = gatys.stylize(CONTENT, [STYLE], resume=found, **given)
    np.testing.assert_array_equal(last.image, wanted.image)
    # What was kept is as it was.
    again = kept.latest(sizes, config)
    jax.tree.map(np.testing.assert_array_equal, again.state, first.state)


def test_tiles_stay_the_same_while_free_memory_changes(tmp_path, monkeypatch):
    """Both within a run, and in one that goes on."""
    config = replace(PLAIN, scales=2, size=200, steps=1)
    content = np.tile(CONTENT, (4, 4, 1))
    sizes = gatys_scales.scale_sizes(*content.shape[:2], config)
    each = gatys_layout.bytes_per_pixel(NETWORK.params, gatys_layout.layers_of(config))
    free = []
    monkeypatch.setattr(tiling, "available_memory", lambda held=0: free.pop())

    free.append(int(2 * each * 120**2))
    used = []
    updates = gatys_tiled.updates

    def noted(run, side, mesh):
        used.append(side)
        return updates(run, side, mesh)

    monkeypatch.setattr(gatys_tiled, "updates", noted)
    for _ in gatys.stylize(content, [STYLE], features=NETWORK, config=config):
        pass
    assert not free  # it was asked for once, for both scales
    assert used == [64]

    cutting = gatys_layout.Cutting("auto")
    assert cutting._replace(memory=5).settled(sizes[-1]).memory == 5
    assert cutting._replace(tile=64).settled(sizes[-1]).memory is None
    kept = Resumption(tmp_path, "one")
    assert kept.agree_on(1000, given=False) == 1000
    kept.keep(next(gatys.stylize(CONTENT, [STYLE], features=NETWORK, config=config, tile=None)))
    assert Resumption(tmp_path, "one").agree_on(50, given=False) == 1000
    assert Resumption(tmp_path, "one").agree_on(50, given=True) == 50
    with pytest.raises(UserError, match="another picture"):
        Resumption(tmp_path, "other").agree_on(50, given=False)


def test_a_state_that_was_cut_off_is_reported(tmp_path):
    config = replace(PLAIN, size=50, steps=2)
    kept = Resumption(tmp_path, "one")
    kept.keep(next(gatys.stylize(CONTENT, [STYLE], features=NETWORK, config=config)))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UserError, match="no state in it can be read"):
        kept.latest(gatys_scales.scale_sizes(*SIZE, config), config)


def test_fingerprints_differ_with_what_they_are_of():
    names = {
        fingerprint(CONTENT),
        fingerprint(CONTENT[:-1]),
        fingerprint(CONTENT, STYLE),
        fingerprint(CONTENT, PLAIN),
        fingerprint(CONTENT, replace(PLAIN, seed=1)),
    }
    assert len(names) == 5
    assert fingerprint(CONTENT) == fingerprint(CONTENT.copy())
    assert math.prod(map(len, names)) == 16**5
