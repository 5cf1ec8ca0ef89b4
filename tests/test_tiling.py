"""Tests of jaxstyle.tiling and methods.tiled: tiles show nowhere in the result."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import tiling
from jaxstyle.methods import residual, tiled
from jaxstyle.models import Model

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
HALF = Fraction(1, 2)


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


# --- where the tiles lie -------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 4, 5, 6, 9, 10, 23])
@pytest.mark.parametrize("side", [1, 3, 5, 100])
@pytest.mark.parametrize("margin", [0, 1, 4])
def test_every_place_counts_once_and_has_its_margin(length, side, margin):
    found = tiling.spans(length, side, margin)
    places = [place for span in found for place in range(span.first, span.last)]
    assert places == [*range(length)]
    assert {span.stop - span.start for span in found} == {min(length, side + 2 * margin)}
    for span in found:
        assert 0 <= span.start <= span.first < span.last <= span.stop <= length
        assert span.start == 0 or span.first - span.start >= margin
        assert span.stop == length or span.stop - span.last >= margin


def test_a_side_of_nothing_is_refused():
    with pytest.raises(ValueError, match="1 or more; got 0"):
        tiling.spans(5, 0, 1)


# --- statistics of the whole ---------------------------------------------------------------------


def test_moments_of_parts_are_those_of_the_whole():
    """Where the mean dwarfs the deviation, plain sums of squares would have no digit left."""
    whole = 1e6 + random(60, 4).astype(np.float64)
    parts = [whole[:1], whole[1:20], whole[20:21], whole[21:]]
    each = [tiling.Moments(len(x), x.mean(0), ((x - x.mean(0)) ** 2).sum(0)) for x in parts]
    found = functools.reduce(tiling.Moments.merge, each)
    assert found.positions == 60
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-15)
    np.testing.assert_allclose(found.variance, whole.var(0), rtol=1e-6)


# --- computing -----------------------------------------------------------------------------------


def box(params, x, *, size, stride=1, repeat=1):
    """A doubling, a sum over a window with borders that count, and a stride."""
    x = x.repeat(repeat, 1).repeat(repeat, 2)
    amount = size // 2
    x = jnp.pad(x, ((0, 0), (amount, amount), (amount, amount), (0, 0)), constant_values=7.0)
    return params * jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, size, size, 1), (1, stride, stride, 1), "VALID"
    )


def step(size, *, stride=1, repeat=1, kernel=None):
    """A step of a network; with a wrong `kernel`, one that says it sees less than it does."""
    apply = functools.partial(box, size=size, stride=stride, repeat=repeat)
    apply = CACHE.setdefault((size, stride, repeat), apply)
    return tiling.Step(apply, 1 / size**2, kernel or size, Fraction(repeat, stride))


CACHE = {}

CHAINS = {
    "wide": [step(9)],
    "down": [step(5), step(3, stride=2), step(3, stride=2)],
    "up": [step(3), step(3, repeat=2), step(5, repeat=2)],
    "down and up": [step(3, stride=2), step(3, repeat=2)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_tiles_are_as_the_whole(name):
    steps, source = CHAINS[name], random(24, 36, 2)
    whole = jnp.asarray(source)[None]
    for each in steps:
        whole = each.apply(each.params, whole)
    whole = np.asarray(whole[0])
    for tile in (4, 25):  # the second: in one axis, the whole is one tile
        found = np.full_like(whole, np.nan)
        moments = tiling.sweep(steps, source, tile=tile, into=found, moments=True)
        np.testing.assert_allclose(found, whole, atol=1e-5)
        assert moments.positions == whole.shape[0] * whole.shape[1]
        np.testing.assert_allclose(moments.mean, whole.mean((0, 1)), atol=1e-5)
        np.testing.assert_allclose(moments.variance, whole.var((0, 1)), atol=1e-5)


@pytest.mark.parametrize("name", CHAINS)
def test_a_smaller_margin_would_show(name, monkeypatch):
    """The margins are as small as they can be: with one less, some tile is wrong."""
    steps, source = CHAINS[name], random(24, 36, 2)
    grain, scale, margin = tiling._geometry(steps)
    size = [int(side * scale) for side in source.shape[:2]]
    right, wrong = np.empty((*size, 2), np.float32), np.empty((*size, 2), np.float32)
    tiling.sweep(steps, source, tile=4, into=right)
    monkeypatch.setattr(tiling, "_geometry", lambda steps: (grain, scale, margin - 1))
    tiling.sweep(steps, source, tile=4, into=wrong)
    assert np.abs(right - wrong).max() > 0.01


def test_results_can_be_added():
    source, before = random(8, 12, 1), random(8, 12, 1, seed=1)
    into = before.copy()
    assert tiling.sweep([step(1)], source, tile=5, into=into, add=True) is None
    np.testing.assert_allclose(into, before + source, atol=1e-6)


def test_sizes_that_do_not_fit_are_refused():
    halve = [step(3, stride=2)]
    with pytest.raises(ValueError, match="multiples of 2; got 5 x 4"):
        tiling.sweep(halve, random(5, 4, 1), tile=2, moments=True)
    with pytest.raises(ValueError, match=r"room for \(2, 2\) rows and columns; got \(4, 4\)"):
        tiling.sweep(halve, random(4, 4, 1), tile=2, into=random(4, 4, 1))


# --- generators ----------------------------------------------------------------------------------


def make_model(styles=1, **settings):
    """A tiny network as after some training: styles that differ, an output that is not grey."""
    config = residual.Config(**{"channels": (4, 6, 8), "blocks": 1} | settings)
    generator = residual.make_generator(config, styles)
    sizes = jnp.zeros((1, 16, 16, 3)), jnp.ones((1, styles))
    variables = jax.tree.map(
        lambda x: jnp.zeros(x.shape), jax.eval_shape(generator.init, KEY, *sizes)
    )
    rng = np.random.default_rng(3)

    def shaken(path, leaf):
        name, noise = path[-1].key, rng.normal(size=leaf.shape).astype(np.float32)
        if name == "kernel":
            return noise * np.sqrt(1.5 / np.prod(leaf.shape[:-1]), dtype=np.float32)
        return (name in ("gamma", "variance")) + np.float32(0.2) * np.abs(noise)

    variables = jax.tree.map_with_path(shaken, variables)
    return Model("residual", config, tuple("abcd"[:styles]), variables)


@pytest.mark.parametrize(
    ("size", "tile", "styles", "settings"),
    [
        ((45, 70), 12, 1, {}),
        ((41, 23), 24, 3, {"upsample": "transpose", "residual": False, "blocks": 2}),
        ((37, 18), 8, 1, {"norm": "contrast", "blocks": 2}),
        ((37, 18), 8, 1, {"norm": "contrast", "contrast_at": "input"}),
        ((21, 50), 12, 1, {"norm": "batch", "channels": (4, 6), "output": "tanh150"}),
        ((30, 17), 9, 1, {"norm": "none", "residual": False}),
        ((30, 17), 9, 2, {"channels": (4,)}),
        ((65, 40), 20, 1, {"channels": (3, 4, 5, 6), "blocks": 0}),
        ((1, 33), 1, 1, {"blocks": 0}),
    ],
)
def test_pictures_in_tiles_are_as_the_whole(size, tile, styles, settings):
    model, content = make_model(styles, **settings), random(*size, 3)
    shares = np.arange(1, styles + 1) / np.arange(1, styles + 1).sum()
    paint = functools.partial(residual.paint, model, content, style_weights=shares)
    whole, found = paint(tile=None), paint(tile=tile)
    assert found.shape == content.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole, atol=1e-5)
    if min(size) > 1:
        assert whole.std() > 0.03, "a flat picture would show no seam"


def test_one_pixel_in_tiles_is_as_the_whole():
    """Nearly: where nothing deviates, normalising multiplies rounding by 1 / sqrt(epsilon)."""
    model, content = make_model(blocks=0), random(1, 1, 3)
    whole, found = (residual.paint(model, content, tile=tile) for tile in (None, 4))
    np.testing.assert_allclose(found, whole, atol=0.5 / 255)


def test_tiles_with_moments_of_their_own_would_show():
    model, content = make_model(), random(45, 70, 3)
    whole = residual.paint(model, content, tile=None)
    part = residual.paint(model, content[:, :40], tile=None)
    assert np.abs(part - whole[:, :40])[:, :20].max() > 0.01


def test_tiles_blend_with_the_content_and_leave_it_alone():
    model, content = make_model(), random(33, 20, 3)
    before = content.copy()
    full = residual.paint(model, content, tile=12)
    blended = residual.paint(model, content, tile=12, strength=0.25)
    np.testing.assert_allclose(blended, 0.75 * content + 0.25 * full, atol=1e-6)
    np.testing.assert_array_equal(content, before)


def test_blocks_share_their_programs():
    """Many blocks take no longer to compile than one."""
    content, counts = random(20, 16, 3), []
    for blocks in (1, 3):
        tiling._compute.clear_cache()
        residual.paint(make_model(blocks=blocks), content, tile=12)
        counts.append(tiling._compute._cache_size())
    assert counts[0] == counts[1]


def test_tiles_are_for_pictures_that_do_not_fit(monkeypatch):
    model, content = make_model(), random(20, 24, 3)
    calls, real = [], tiled.generate

    def generate(*arguments, tile):
        calls.append(tile)
        return real(*arguments, tile=tile)

    monkeypatch.setattr(tiled, "generate", generate)
    needed = tiled.whole_bytes(residual.make_generator(model.config, 1), 20 * 24)
    whole = residual.paint(model, content, memory=needed)
    assert calls == []
    np.testing.assert_allclose(residual.paint(model, content, memory=needed - 1), whole, atol=1e-5)
    assert calls == [tiled.SIDE]
    monkeypatch.setattr(tiling, "available_memory", lambda: 2 * needed - 2)
    residual.paint(model, content)
    assert len(calls) == 2


@pytest.mark.parametrize("tile", [0, -4, "Auto", 1.5])
def test_tiles_that_cannot_be_are_refused(tile):
    with pytest.raises(ValueError, match="tile must be a number of pixels above 0, auto or None"):
        residual.paint(make_model(), random(8, 8, 3), tile=tile)


def test_more_pixels_and_channels_take_more_memory():
    def needed(pixels, **settings):
        config = residual.Config(**settings)
        return tiled.whole_bytes(residual.make_generator(config, 1), pixels)

    assert needed(2 * 10**6) == 2 * needed(10**6)
    assert needed(10**6, channels=(16, 32, 64)) < 0.7 * needed(10**6)


# --- memory --------------------------------------------------------------------------------------


def test_the_memory_of_this_machine_is_known():
    assert 2**24 < tiling.available_memory() < 2**50


def test_the_limit_of_a_container_counts(monkeypatch):
    monkeypatch.setattr(tiling, "_machine_memory", lambda: 8 * 2**30)
    monkeypatch.setattr(tiling, "_container_memory", lambda: 2**30)
    assert tiling.available_memory() == 2**30
    monkeypatch.setattr(tiling, "_container_memory", lambda: -5)
    assert tiling.available_memory() == 0
    monkeypatch.setattr(tiling, "_container_memory", lambda: None)
    assert tiling.available_memory() == 8 * 2**30
    monkeypatch.setattr(tiling, "_machine_memory", lambda: None)
    assert tiling.available_memory() == 4 * 2**30


def write_group(folder, limit, used, cache, *, version=2):
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\nslab 7\n")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups as the system shows them, of a process whose own are given."""
    monkeypatch.setattr(tiling, "_machine_memory", lambda: 2**40)
    monkeypatch.setattr(tiling, "_PROCESS", tmp_path)
    monkeypatch.setattr(tiling, "_GROUPS", tmp_path / "groups")

    def own(text):
        (tmp_path / "cgroup").write_text(text)
        return tmp_path / "groups"

    return own


def test_what_a_container_has_cached_is_free(groups):
    write_group(groups("0::/\n"), 1000, 900, 300)
    assert tiling.available_memory() == 400


def test_the_tightest_of_nested_groups_counts(groups):
    root = groups("1:name=systemd:/\n0::/slurm/job_7\n")
    write_group(root / "slurm" / "job_7", "max", 500, 0)
    write_group(root / "slurm", 2000, 500, 100)
    assert tiling.available_memory() == 1600
    write_group(root / "slurm" / "job_7", 700, 500, 50)
    assert tiling.available_memory() == 250


def test_groups_of_the_first_version_count(groups):
    root = groups("4:cpu,memory:/docker/abc\n0::/\n") / "memory"
    assert tiling.available_memory() == 2**40
    # The path is that of the host; in the container its own group is the root.
    write_group(root, 3000, 1000, 200, version=1)
    assert tiling.available_memory() == 2200
    write_group(root / "docker" / "abc", 2000, 1000, 200, version=1)
    assert tiling.available_memory() == 1200
