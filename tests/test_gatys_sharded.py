"""Pixel optimisation with rows spread over devices: the objective's own gradient, and exchanges."""

import collections
import re
import textwrap

import jax
import numpy as np
import pytest
from processes import free_port, two_processes
from safetensors.numpy import save_file
from test_gatys import NETWORK, PLAIN, STYLE, TERMS, picture

from jaxstyle import cli, images, rows, runtime
from jaxstyle.config import replace
from jaxstyle.methods import gatys, gatys_parts, gatys_sharded, gatys_updates
from jaxstyle.objective import STYLE_LOSSES, loss_weights, make_targets, objective

pytestmark = pytest.mark.usefixtures("quick_compiler")

SIZE = (37, 22)  # strips of 10 and of 20 rows on four and on two devices, not all filled
CONTENT = picture(1, *SIZE)


def canvas(size=SIZE):
    noise = np.random.default_rng(4).random((1, *size, 3), np.float32)
    return (0.7 * picture(1, *size) + 0.3 * noise).astype(np.float32)


class Sharded:
    """All that an update needs, of a picture on some devices."""

    def __init__(self, config, content, styles, shares, *, count, padding):
        mesh = rows.make_mesh(jax.devices()[:count])
        self.network = gatys_parts.Network.of(NETWORK._replace(padding=padding), config, mesh)
        self.layout = self.network.layout(content.shape[1])
        self.targets = gatys_sharded.make_targets(self.network, content, styles, shares)
        weights = loss_weights(config, self.targets)
        whole = gatys_parts.Whole.of(content.shape[1:3], config)
        self.given = self.targets._replace(size={}), *self.layout.copy((weights, whole))
        self.static = {"config": self.network.config, "padding": padding, "layout": self.layout}

    def gradient(self, variables):
        def loss(x, params, *given):
            return gatys_sharded.objective(params, x, *given, **self.static)

        # As arguments, as another process has some of them.
        given = self.layout.spread(variables), self.network.params, *self.given
        gradient, terms = jax.jit(jax.grad(loss, has_aux=True))(*given)
        return self.layout.gather(gradient), terms


# --- the gradient --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "padding", "size", "counts"),
    [
        ("elements", "zero", SIZE, (1, 2, 4)),
        ("wasserstein", "reflect", (16, 9), (4,)),  # every row counts
        ("moments", "replicate", SIZE, (2,)),
        ("gatys", "reflect", (3, 20), (4,)),  # some devices have no row that counts
        ("positions", "zero", (2, 8), (4,)),
        ("wasserstein", "reflect", (3, 3), (2,)),  # the deepest features have one position
    ],
)
def test_the_gradient_is_that_of_the_whole(name, padding, size, counts):
    assert {"elements", "wasserstein", "moments", "gatys", "positions"} == {*STYLE_LOSSES}
    odd = name in ("wasserstein", "gatys")
    config = replace(
        PLAIN,
        style_loss=name,
        pooling="avg",
        content_loss="half_sum" if odd else "mean",
        tv_loss="half_mean" if odd else "squared_mean",
        normalize_features=odd,
        standardize=odd,
        clamp=not odd,
    )
    content, *styles = (picture(seed, *size)[None] for seed in (1, 2, 3))
    program, x, shares = gatys_updates.program(config), canvas(size), (0.7, 0.3)

    @jax.jit
    def whole(x):
        targets = make_targets(NETWORK.params, content, styles, shares, program, padding)
        weights = loss_weights(config, targets)

        def loss(x):
            return objective(NETWORK.params, x, targets, weights, program, padding)

        return *jax.grad(loss, has_aux=True)(x), targets

    wanted, terms, targets = whole(x)
    for count in counts:
        run = Sharded(config, content, styles, shares, count=count, padding=padding)
        own = run.targets._replace(
            content={n: run.layout.gather(x) for n, x in run.targets.content.items()}
        )
        for found, other in zip(jax.tree.leaves(own), jax.tree.leaves(targets), strict=True):
            np.testing.assert_allclose(found, other, atol=2e-5 * np.abs(other).max())
        gradient, found = run.gradient(x)
        assert gradient.shape == x.shape
        for term in TERMS:
            assert float(found[term]) == pytest.approx(float(terms[term]), rel=1e-5, abs=1e-9)
        assert np.linalg.norm(gradient - wanted) < 1e-5 * np.linalg.norm(wanted)


PROCESS = """
    import sys
    import jax, numpy as np
    from jaxstyle.training import parallel

    port, target, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
    parallel.initialize(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=index)
    from test_gatys_sharded import CONTENT, STYLE, Sharded, canvas, of_two_processes

    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    run = Sharded(of_two_processes(), CONTENT[None], [STYLE[None]], (1.0,), count=4, padding="zero")
    gradient, _ = run.gradient(canvas())
    if index == 1:
        np.save(target, gradient)
    assert parallel.as_in_first([index == 0, index == 1]) == [True, False]
    try:
        parallel.as_in_first([True] * (index + 1))
    except parallel.UserError as error:
        assert "different numbers of pictures (1, 2)" in str(error)
    else:
        raise AssertionError
"""


def of_two_processes():
    return replace(PLAIN, style_loss="wasserstein", pooling="avg")


def test_the_gradient_of_two_processes_is_that_of_the_whole(tmp_path):
    """Two real processes of two devices each, over loopback."""
    config, target = of_two_processes(), tmp_path / "gradient.npy"
    command = ["-c", textwrap.dedent(PROCESS), str(free_port()), str(target)]
    two_processes(command, {"TF_CPP_MIN_LOG_LEVEL": "3"})
    program = gatys_updates.program(config)
    styles = [STYLE[None]]
    targets = make_targets(NETWORK.params, CONTENT[None], styles, (1.0,), program, "zero")
    weights = loss_weights(config, targets)

    def loss(x):
        return objective(NETWORK.params, x, targets, weights, program, "zero")[0]

    wanted = jax.jit(jax.grad(loss))(canvas())
    assert np.linalg.norm(np.load(target) - wanted) < 1e-5 * np.linalg.norm(wanted)


def exchanges(compiled):
    pattern = r" (all-\w+(?:-\w+)*|collective-\w+|reduce-scatter)(?:-start)?\("
    return collections.Counter(re.findall(pattern, compiled.as_text()))


# Up and down, there and back: for two convolutions, and from below for the variation. With the
# second padding the first convolution is of the pixels, whose rows serve the variation, too.
@pytest.mark.parametrize(("height", "padding", "permutes"), [(64, "zero", 10), (37, "reflect", 9)])
def test_neighbours_exchange_rows_and_sums_are_added_once(height, padding, permutes):
    config = replace(PLAIN, averaging=0.9)
    content = picture(1, height, 22)[None]
    run = Sharded(config, content, [content], (1.0,), count=4, padding=padding)
    scale = gatys_sharded.Scale(NETWORK, config, content, [], (), lambda: content)
    state = gatys_sharded.first_state(scale, run.layout)
    lowered = gatys_sharded.jitted("cpu").lower(state, run.network.params, *run.given, **run.static)
    compiled = lowered.compile()
    assert exchanges(compiled) == {"collective-permute": permutes, "all-reduce": 1}
    made, shown, terms = compiled.output_shardings
    for sharding, leaf in zip(jax.tree.leaves(made), jax.tree.leaves(state), strict=True):
        assert sharding.spec == (rows.SPREAD if leaf.ndim == 4 else rows.COPIED)
    assert shown.spec == rows.SPREAD
    assert all(sharding.is_fully_replicated for sharding in terms.values())


@pytest.mark.parametrize("name", ["wasserstein", "gatys"])
def test_strips_of_tiles_exchange_no_more(name):
    """Neither pass over the tiles gathers what is in strips."""
    config = replace(PLAIN, style_loss=name)
    content = picture(1, 64, 22)[None]
    run = Sharded(config, content, [content], (1.0,), count=4, padding="zero")
    targets, weights, whole = run.given
    bounds = run.layout.copy(np.array([[0, 40], [0, 2**30]], np.int32))
    part = run.layout.spread(content)
    given = run.network.params, part, bounds, targets.content

    def compiled(function, *arguments):
        jitted = jax.jit(function, static_argnames=("config", "padding", "layout"))
        return jitted.lower(*arguments, **run.static).compile()

    measured = compiled(gatys_parts.parts, *given, None, weights, whole)
    # Two convolutions and the variation; and the sums, once.
    assert exchanges(measured) == {"collective-permute": 5, "all-reduce": 1}
    sums = {
        each: jax.eval_shape(lambda x: STYLE_LOSSES[name].sums(x, x[..., :1], None), x)
        for each, x in gatys_parts.extract(NETWORK.params, content, config, "zero").items()
    }
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), sums)
    means = {each: one.mean[0] for each, one in zeros.items()}
    slopes = {each: (one.mean, one.second) for each, one in zeros.items()}
    around = run.layout.copy((means, slopes))
    pulled = compiled(gatys_parts.pull.__wrapped__, *given, around[0], weights, whole, around[1])
    found = exchanges(pulled)
    assert found["collective-permute"] >= 5
    assert not {*found} - {"collective-permute", "all-reduce"}
    assert pulled.output_shardings.spec == rows.SPREAD


# --- runs ----------------------------------------------------------------------------------------


BASE = replace(PLAIN, pooling="avg", size=37, steps=2, scales=2, averaging=0.5)
GIVEN = {"features": NETWORK, "config": BASE, "tile": None}


def run_on(count, **options):
    devices = None if count is None else jax.devices()[:count]
    iterates = gatys.stylize(CONTENT, [STYLE], devices=devices, **(GIVEN | options))
    return [i._replace(image=np.array(i.image), state=kept(i)) for i in iterates]


def kept(iterate):
    return gatys_sharded.to_host(iterate.state, iterate.image.shape[0])


@pytest.fixture(scope="module")
def whole():
    return run_on(None)


@pytest.fixture(scope="module")
def shared():
    return run_on(4)


def assert_same_path(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one.scale, one.step) == (other.scale, other.step)
        assert one.image.shape == other.image.shape
        assert float(one.losses["total"]) == pytest.approx(float(other.losses["total"]), rel=5e-3)
        np.testing.assert_allclose(one.image, other.image, atol=0.01)


def test_the_path_is_that_of_the_whole(whole, shared):
    assert_same_path(shared, whole)
    assert shared[-1].state.variables.shape == (1, *SIZE, 3)


def test_line_searches_are_those_of_the_whole():
    config = replace(BASE, optimizer="lbfgs", scales=1, averaging=0)
    assert_same_path(*(run_on(count, config=config) for count in (2, None)))


@pytest.mark.parametrize("count", [None, 4])
@pytest.mark.parametrize("step", [1, 2, 3])  # in a scale, at its end, in the last one
def test_a_run_goes_on_from_its_state_on_other_devices(whole, shared, count, step):
    found = run_on(count, resume=shared[step - 1])
    assert_same_path(found, whole[step:])
    if count == 4:
        for one, other in zip(found, shared[step:], strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            assert float(one.losses["total"]) == float(other.losses["total"])


def test_tiles_and_strips_together(whole):
    # The last scale, from where the first one came to.
    found = run_on(2, tile=12, resume=whole[1], config=BASE)
    assert_same_path(found, whole[2:])


def test_memory_of_all_devices_counts():
    devices = jax.devices()
    # Of CPUs it is the same memory.
    assert gatys_sharded.cutting("auto", 1000, devices, SIZE) == ("auto", 1000)
    for chosen in (devices, None):
        found = gatys_sharded.cutting("auto", None, chosen, SIZE)
        assert found.tile == "auto"
        assert found.memory is not None
        assert found.memory > 0
    assert gatys_sharded.cutting(64, None, devices, SIZE) == (64, None)


def test_devices_that_cannot_share_are_refused():
    with pytest.raises(ValueError, match="devices of one kind; got none"):
        gatys.stylize(CONTENT, [STYLE], features=NETWORK, config=PLAIN, devices=[])


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a picture that one device has made."""
    folder = tmp_path_factory.mktemp("pictures")
    images.save(folder / "photo.png", CONTENT)
    images.save(folder / "wave.png", picture(2, *SIZE))
    save_file(dict(NETWORK.params), folder / "net.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(runtime, "prepare", lambda **_: None)
        assert cli.main([*COMMAND, "-o", "one.png"]) == 0
    return folder


@pytest.fixture
def folder(made, in_copy):
    return in_copy(made)


COMMAND = ["stylize", "photo.png", "wave.png", "--features", "net.safetensors", "--size", "37"]
COMMAND += ["--steps", "2", "--scales", "1", "--style-loss", "elements", "--pooling", "avg"]
COMMAND += ["--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_1"]


def test_the_command_shards(folder, capsys):
    assert cli.main([*COMMAND, "-o", "four.png", "--shard"]) == 0
    assert "rows are spread over 4 devices" in capsys.readouterr().err
    one, four = (images.load(folder / f"{name}.png").pixels for name in ("one", "four"))
    np.testing.assert_allclose(four, one, atol=2 / 255)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*COMMAND, "-o", "out.png", "--process-id", "0"], "--process-id goes with --shard"),
        ([*COMMAND, "-o", "out.png", "--shard", "--device", "cuda:1"], "all devices of a kind"),
        ([*COMMAND, "-o", "out.png", "--shard", "--process-id", "0"], "go together"),
        (
            ["stylize", "photo.png", "wave.png", "--method", "adain", "--shard", "-o", "out.png"],
            "--shard is for optimising pixels",
        ),
        (
            ["stylize", "photo.png", "--style", "wave", "--num-processes", "2", "-o", "out.png"],
            "--num-processes is for paintings",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(folder, capsys, arguments, problem):
    assert cli.main(arguments) == 2
    assert problem in capsys.readouterr().err
    assert not (folder / "out.png").exists()


def test_two_processes_make_one_picture(folder):
    """Two real processes of two devices each, over loopback; the first one writes."""
    environment = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAXSTYLE_CACHE_DIR": str(folder / "cache"),
    }
    address = f"127.0.0.1:{free_port()}"
    shared = ["--shard", "--coordinator", address, "--num-processes", "2", "--process-id"]
    command = ["-m", "jaxstyle", *COMMAND, "-o", "two.png", *shared]
    outputs = two_processes(command, environment)
    assert "4 devices of 2 processes" in outputs[0][1]
    assert "photo" not in outputs[1][1]
    one, two = (images.load(folder / f"{name}.png").pixels for name in ("one", "two"))
    np.testing.assert_allclose(two, one, atol=2 / 255)
