"""What every method that is trained has to keep to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from networks import random_weights

from jaxstyle import images, methods, weights
from jaxstyle.methods import adain, distill, residual
from jaxstyle.training import parallel
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compiler")

SIZE, ROWS, STEPS = 16, 8, 3
PLATFORMS = ("cpu", "cuda", "tpu")
# Plain descent shows the gradient's direction as it is, and its length is among the metrics.
OPTIMIZER = OptimizerConfig(name="sgd", b1=0.5, learning_rate=0.05, clip_norm=1.0)


def make_distill(folder):
    widths = ((4, 4), (4, 4), (4, 4, 4, 4), (4, 4, 4, 4), (4,))
    teacher = folder / "teacher.safetensors"
    return {
        "model": distill.Config(
            widths=widths,
            teachers=(f"{teacher}:relu1_1+relu2_1",),
            stages=((1, "relu1_1", 8, 0.02),),
        ),
        "data": DataConfig(content=str(folder), style=str(folder)),
    }


def make_residual(folder):
    return {
        "model": residual.Config(
            channels=(4, 4, 4),
            blocks=1,
            features=str(folder / "teacher.safetensors"),
            content_layers={"relu2_1": 1.0},
            style_layers={"relu1_1": 1.0, "relu2_1": 1.0},
            style_size=SIZE,
        ),
        "data": DataConfig(content=str(folder), style=f"{folder}/0.png,{folder}/1.png"),
    }


def make_adain(folder):
    return {
        "model": adain.Config(
            encoder=str(folder / "teacher.safetensors"),
            features=str(folder / "teacher.safetensors"),
            levels=("relu1_1", "relu2_1"),
            modulation=4,
            norm=True,
            colors=True,
            vary_colors=True,
            content_layers={"relu2_1": 1.0},
            style_layers={"relu1_1": 1.0, "relu2_1": 1.0},
            normalize_features=True,
        ),
        "data": DataConfig(content=str(folder), style=str(folder)),
    }


SETTINGS = {"adain": make_adain, "distill": make_distill, "residual": make_residual}


def test_every_method_is_tested_here():
    assert set(methods.NAMES) == set(SETTINGS)
    assert len(set(methods.NAMES)) == len(methods.NAMES)


def test_unknown_methods():
    with pytest.raises(ValueError, match=r"no method 'distil'; did you mean distill\?"):
        methods.load("distil")
    with pytest.raises(ValueError, match=rf"\({', '.join(methods.NAMES)}\)"):
        methods.load("gatys")  # which trains nothing


@pytest.mark.parametrize("name", methods.NAMES)
def test_settings_of_a_method(name):
    module = methods.load(name)
    assert module.__name__ == f"jaxstyle.methods.{name}"
    assert dataclasses.is_dataclass(module.Config)
    default = module.Config()
    assert default == module.Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(default, dataclasses.fields(default)[0].name, None)
    assert TrainConfig(method=name).model == default


def make_batch(step, config):
    rng = np.random.default_rng(step)
    names = [name for name in ("content", "style") if getattr(config.data, name)]
    coarse = {name: rng.integers(0, 256, (ROWS, 4, 4, 3), np.uint8) for name in names}
    batch = {
        name: x.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2) for name, x in coarse.items()
    }
    for pictures in batch.values():
        pictures[: ROWS // 2] //= 3  # devices see pictures of their own
    return batch


def to_float(batch):
    return {name: x.astype(np.float32) / 255 for name, x in batch.items()}


def fold(step):
    return jax.random.fold_in(jax.random.key(1), step)


class Case:
    """A method, and what one device makes of it, by way of the exported updates."""

    def __init__(self, name, folder):
        settings = {"steps": 10, "crop_size": SIZE, "batch_size": ROWS, "average": 0.5}
        self.config = TrainConfig(
            method=name, optimizer=OPTIMIZER, **settings, **SETTINGS[name](folder)
        )
        self.make = methods.load(name).method
        self.method = self.make(self.config, axis_name=None)
        self.init = jax.jit(self.method.init)
        self.shapes = jax.eval_shape(self.method.init, jax.random.key(0))
        batch = jax.eval_shape(to_float, make_batch(0, self.config))
        updates = [*(update for _, update in self.method.phases), self.method.update]
        arguments = self.shapes, batch, jax.eval_shape(fold, 0)
        self.exported = [
            export.export(jax.jit(update), platforms=PLATFORMS)(*arguments) for update in updates
        ]
        self._steps = [jax.jit(made.call) for made in self.exported]
        self.results = self.train(0)

    def train(self, seed):
        """The state and the metrics after every step."""
        state, results = self.init(jax.random.key(seed)), []
        for step in range(STEPS):
            update = self._steps[min(step, len(self._steps) - 1)]
            state, metrics = update(state, to_float(make_batch(step, self.config)), fold(step))
            results.append((state, metrics))
        return results


@pytest.fixture(scope="module", params=methods.NAMES)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    weights.save(folder / "teacher.safetensors", random_weights())
    for index in range(2):
        coarse = np.random.default_rng(index).random((5, 6, 3), np.float32)
        images.save(folder / f"{index}.png", images.resize(coarse, (20, 24)))
    return Case(request.param, folder)


def form(tree):
    """The structure of a tree, and what its arrays are."""
    leaves = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), leaves


def test_states_keep_their_form(case):
    for state, _ in [(case.init(jax.random.key(0)), None), *case.results]:
        assert form(state) == form(case.shapes)
        for leaf in jax.tree.leaves(state):
            assert isinstance(leaf, jax.Array)
    ends = [end for end, _ in case.method.phases]
    assert ends == sorted(set(ends))


def test_metrics(case):
    batch = to_float(make_batch(0, case.config))
    held_out = jax.eval_shape(case.method.evaluate, case.shapes, batch)
    assert case.config.best_metric in held_out
    for _, metrics in case.results:
        assert {"loss", "gradient_norm"} <= metrics.keys()
        # The phases' are those of the whole, so that lines of them fit together.
        assert metrics.keys() == case.results[-1][1].keys()
        assert metrics["gradient_norm"] > 0
        for name, value in metrics.items():
            assert np.isfinite(value), name
    for name, value in [*held_out.items(), *case.results[-1][1].items()]:
        assert (value.shape, value.dtype) == ((), jnp.float32), name


def test_variables_are_a_part_of_what_is_kept(case):
    state = case.results[-1][0]
    variables = case.method.variables(state)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (variables, state)]
    assert 0 < sizes[0] < sizes[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_samples(case):
    batch = to_float(make_batch(0, case.config))
    shape = jax.eval_shape(case.method.sample, case.shapes, batch)
    assert shape.dtype == jnp.float32
    rows, height, width, channels = shape.shape
    assert rows % ROWS == 0
    assert (height, width % SIZE, channels) == (SIZE, 0, 3)


def test_updates_are_exported_to_every_platform(case):
    for made in case.exported:
        assert made.platforms == PLATFORMS
    # And what was exported, which is what the other tests run, trains.
    start = case.init(jax.random.key(0))
    pairs = zip(jax.tree.leaves(start), jax.tree.leaves(case.results[-1][0]), strict=True)
    assert any(np.any(a != b) for a, b in pairs)


def test_the_same_seed_gives_the_same_parameters(case):
    again = case.train(0)
    jax.tree.map(np.testing.assert_array_equal, again, case.results)
    other = case.train(1)[-1][0]
    pairs = zip(jax.tree.leaves(other), jax.tree.leaves(again[-1][0]), strict=True)
    assert any(np.any(a != b) for a, b in pairs)


def test_four_devices_equal_one(case):
    method = case.make(case.config, axis_name=parallel.AXIS)
    steps = [*(update for _, update in method.phases), method.update]
    steps = [parallel.make_update(update) for update in steps]
    state = parallel.replicate(case.init(jax.random.key(0)))
    assert jax.device_count() == 4
    for step, (wanted, expected) in enumerate(case.results):
        update = steps[min(step, len(steps) - 1)]
        state, metrics = update(state, make_batch(step, case.config), fold(step))
        found = parallel.to_host(state)
        assert form(found) == form(case.shapes)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, wanted)
        assert metrics.keys() == expected.keys()
        for name in ("loss", "gradient_norm"):
            assert metrics[name] == pytest.approx(float(expected[name]), rel=1e-4), name
    for leaf in jax.tree.leaves(state):
        first, *others = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(others) == 3
        for shard in others:
            np.testing.assert_array_equal(shard, first)
