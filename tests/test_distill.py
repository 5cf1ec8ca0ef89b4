"""Tests of jaxstyle.methods.distill, with tiny networks on random pictures."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_params

from jaxstyle import features, weights
from jaxstyle.errors import UserError
from jaxstyle.methods import distill
from jaxstyle.training import checkpoints, parallel, updates
from jaxstyle.training.config import OptimizerConfig, TrainConfig
from jaxstyle.weights import Weights

pytestmark = pytest.mark.usefixtures("quick_compiler")

WIDTHS = ((3, 4), (5, 6), (4, 4, 4, 4), (4, 4, 4, 4), (4,))
LAYERS = tuple(f"relu{block}_1" for block in range(1, 6))
CHANNELS = dict(zip(LAYERS, (5, 6, 7, 6, 5), strict=True))
KEY = jax.random.key(0)


def save(path, params, padding="zero"):
    weights.save(path, Weights("teacher", params, padding, "normalized", "test", ""))
    return str(path)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A random network whose heads have `CHANNELS`."""
    params = distill.network(make_state(make_config(""), LAYERS, seed=3).params)
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    return save(path, jax.tree.map(np.asarray, params))


def make_config(teacher, layers=LAYERS[:2], **settings):
    model = {"widths": WIDTHS, "teachers": (f"{teacher}:{'+'.join(layers)}",)}
    model |= settings.pop("model", {})
    settings = {"batch_size": 4, "crop_size": 16, "steps": 40} | settings
    return TrainConfig(method="distill", model=distill.Config(**model), **settings)


def make_batch(seed=0, rows=4, size=16):
    """Smooth pictures, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = jnp.asarray(rng.random((rows, 5, 5, 3)), jnp.float32)
    return {"content": jax.image.resize(coarse, (rows, size, size, 3), "linear")}


def make_state(config, layers=LAYERS[:2], *, widths=WIDTHS, seed=7):
    """A first state without the random numbers of `init`, which take long to compile."""
    heads = {int(layer[4]): CHANNELS[layer] for layer in layers}
    params = random_params(widths, heads=heads, seed=seed)
    kept = {name: jnp.asarray(x) for name, x in params.items() if name.startswith("conv")}
    # The coefficients of cosines are of about equal size.
    kept["conv1_1/kernel"] *= (2 / 27) ** 0.5 / jnp.std(kept["conv1_1/kernel"])
    return updates.init_state(kept, config)


def activations(spec, batch, layers=LAYERS[:2], padding="zero"):
    params = jax.tree.map(jnp.asarray, weights.load(spec).params)
    return features.vgg(params, batch["content"], layers, padding=padding)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ((4, 4), (4, 4))}, "rows of 2, 2, 4, 4 and 1; got ((4, 4), (4, 4))"),
        ({"widths": (*WIDTHS[:4], (4, 4))}, "rows of 2, 2, 4, 4 and 1"),
        ({"padding": "reflexion"}, "padding must be one of zero, reflect, replicate"),
        ({"scale": "caffe"}, "scale must be one of normalized, oxford, torchvision, random"),
        ({"stages": ((2, "relu1_1", 16),)}, "model.stages must be rows of 4"),
        ({"layer_weights": ("relu1_1",)}, "model.layer_weights must be rows of 2"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        distill.Config(**settings)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vgg19", "model.teachers expected FEATURES:relu1_1+relu2_1; got 'vgg19'"),
        ("{teacher}:relu1_1+relu1_2", "only relu1_1 to relu5_1 can be learnt; got 'relu1_2'"),
        ("{teacher}:conv1_1", "only relu1_1 to relu5_1 can be learnt; got 'conv1_1'"),
        ("{teacher}:", "only relu1_1 to relu5_1 can be learnt; got ''"),
        ("{short}:relu2_1+relu3_1", "the network has no layer 'relu3_1'"),
        ("gone.safetensors:relu1_1", "gone.safetensors"),
        ("vgg20:relu1_1", "no features 'vgg20'"),
    ],
)
def test_teachers_that_are_refused(teacher, tmp_path, spec, message):
    short = {
        name: value
        for name, value in random_params(WIDTHS).items()
        if name.startswith(("preprocess", "conv1", "conv2"))
    }
    spec = spec.format(teacher=teacher, short=save(tmp_path / "short.safetensors", short))
    config = make_config(teacher, model={"teachers": (spec,)})
    with pytest.raises(UserError) as caught:
        distill.method(config, axis_name=None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("stages", ((2, "relu3_1", 16, 0.1),)), ("layer_weights", (("relu3_1", 2.0),))],
)
def test_layers_that_no_teacher_has(teacher, name, rows):
    with pytest.raises(UserError, match=rf"model\.{name}: no teacher has 'relu3_1' .*relu2_1\)"):
        distill.method(make_config(teacher, model={name: rows}), axis_name=None)


# --- parameters ----------------------------------------------------------------------------------


def test_init_params_are_those_of_a_network():
    channels = {"relu1_1": 5, "relu3_1": 7}
    params = jax.eval_shape(lambda key: distill.init_params(key, WIDTHS, channels), KEY)
    inputs, wanted = 3, {}
    for block, row in enumerate(WIDTHS, 1):
        for index, outputs in enumerate(row, 1):
            name = f"conv{block}_{index}"
            wanted[f"{name}/kernel"], wanted[f"{name}/bias"] = (3, 3, inputs, outputs), (outputs,)
            inputs = outputs
    for head, shape in (("conv1_1_to_vgg", (3, 5)), ("conv3_1_to_vgg", (4, 7))):
        wanted[f"{head}/kernel"], wanted[f"{head}/bias"] = (1, 1, *shape), shape[1:]
    assert {name: value.shape for name, value in params.items()} == wanted
    assert {value.dtype for value in params.values()} == {jnp.dtype("float32")}
    found = jax.eval_shape(
        lambda values, x: features.vgg(distill.network(values), x, [*LAYERS, "relu3_4"]),
        params,
        make_batch()["content"],
    )
    assert {layer: value.shape[1:] for layer, value in found.items()} == {
        "relu1_1": (16, 16, 5),
        "relu2_1": (8, 8, 5),
        "relu3_1": (4, 4, 7),
        "relu3_4": (4, 4, 4),
        "relu4_1": (2, 2, 4),
        "relu5_1": (1, 1, 4),
    }


def test_kernels_are_those_of_he_and_all_differ():
    widths = tuple(tuple(64 for _ in row) for row in WIDTHS)
    params = distill.init_params(KEY, widths, {"relu1_1": 256})
    for name, inputs in (("conv1_1", 27), ("conv1_2", 576), ("conv1_1_to_vgg", 64)):
        kernel = np.asarray(params[f"{name}/kernel"])
        assert kernel.std() == pytest.approx(np.sqrt(2 / inputs), rel=0.06)
        assert abs(kernel.mean()) < 4 * kernel.std() / np.sqrt(kernel.size)
    assert all(not np.any(value) for name, value in params.items() if name.endswith("bias"))
    sums = [float(jnp.sum(value)) for name, value in params.items() if name.endswith("kernel")]
    assert len(set(sums)) == 14  # of each layer up to conv5_1, and of one head
    other = distill.init_params(jax.random.key(1), widths, {"relu1_1": 256})
    assert np.any(other["conv1_1/kernel"] != params["conv1_1/kernel"])


def test_conv1_1_is_trained_on_coefficients_of_cosines():
    """Each patch is decomposed in NumPy, and the coefficients are multiplied with the kernel."""
    rng = np.random.default_rng(0)
    params = dict(make_state(make_config("")).params)
    params["conv1_1/bias"] = jnp.asarray(rng.normal(0, 1, 3), jnp.float32)
    picture = rng.random((1, 7, 6, 3)).astype(np.float32)
    found = features.vgg(distill.network(params), jnp.asarray(picture), ["conv1_1"])["conv1_1"]

    place = np.arange(3) + 0.5
    cosines = np.array([np.cos(np.pi * place * frequency / 3) for frequency in range(3)])
    cosines /= np.linalg.norm(cosines, axis=1, keepdims=True)
    colors = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])
    colors = colors / np.linalg.norm(colors, axis=1, keepdims=True)
    values = np.pad(4.0 * picture[0] - 2, ((1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(params["conv1_1/kernel"], np.float64)
    wanted = np.zeros((7, 6, 3))
    for y in range(7):
        for x in range(6):
            patch = values[y : y + 3, x : x + 3]
            coefficients = np.einsum("ui,vj,wk,ijk->uvw", cosines, cosines, colors, patch)
            coefficients /= np.moveaxis(distill._DEVIATIONS, 0, 2)
            wanted[y, x] = np.einsum("uvw,uvwo->o", coefficients, kernel)
    wanted += np.asarray(params["conv1_1/bias"])
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-3)


def test_network_touches_nothing_else():
    params = make_state(make_config("")).params
    made = distill.network(params)
    assert made.keys() == params.keys() | {"preprocess/kernel", "preprocess/bias"}
    for name in params.keys() - {"conv1_1/kernel"}:
        assert made[name] is params[name]
    assert "preprocess/kernel" not in params
    np.testing.assert_array_equal(made["preprocess/kernel"], 4 * np.eye(3)[None, None])


class Recorder(dict):
    """Remembers what was read."""

    def __getitem__(self, name):
        self.read = {*getattr(self, "read", ()), name}
        return super().__getitem__(name)


@pytest.mark.parametrize("layers", [LAYERS, LAYERS[:3], ("relu2_1", "relu5_1")])
def test_layers_share_the_parameters_out(layers):
    """A layer gets what it is computed from and no layer before it is; none gets it twice."""
    params = make_state(make_config(""), layers).params
    before = {"preprocess/kernel", "preprocess/bias"}
    for layer in layers:
        used = Recorder(distill.network(params))
        features.vgg(used, jnp.zeros((1, 16, 16, 3)), [layer])
        part = distill._parameters_of(layer, list(params), layers)
        assert len(part) == len(set(part))
        assert set(part) == used.read - before
        before |= used.read
    if layers == LAYERS:
        assert before - params.keys() == {"preprocess/kernel", "preprocess/bias"}
        assert params.keys() < before


def test_parameters_of_the_second_layer():
    names = list(make_state(make_config(""), LAYERS).params)
    assert distill._parameters_of("relu2_1", names, LAYERS) == [
        f"conv{layer}/{part}"
        for layer in ("1_2", "2_1", "2_1_to_vgg")
        for part in ("kernel", "bias")
    ]


# --- errors and correlations ---------------------------------------------------------------------


def test_squared_errors_are_those_of_numpy():
    rng = np.random.default_rng(0)
    shapes = {"relu1_1": (4, 6, 5, 3), "relu2_1": (4, 3, 2, 7)}
    found = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    wanted = {name: rng.normal(2, 3, shape).astype(np.float32) for name, shape in shapes.items()}
    errors = distill.squared_errors(found, wanted)
    assert list(errors) == list(found)
    for name, value in errors.items():
        difference = np.sum((found[name] - wanted[name]) ** 2, dtype=np.float64)
        assert value == pytest.approx(difference / np.sum(wanted[name] ** 2), rel=1e-5)
    zero = distill.squared_errors({"x": 0 * found["relu1_1"]}, {"x": wanted["relu1_1"]})
    assert zero["x"] == pytest.approx(1, rel=1e-6)
    # A layer that is dead everywhere: finite.
    dead = distill.squared_errors({"x": np.zeros((1, 2, 2, 3))}, {"x": np.zeros((1, 2, 2, 3))})
    assert dead["x"] == 0


def test_shares_of_errors_average_to_the_error():
    rng = np.random.default_rng(1)
    # Devices whose pictures differ in size of activation: a mean of ratios would be wrong.
    scale = np.array([1, 1, 10, 10, 0.1, 0.1, 3, 3])[:, None, None, None]
    found = {"x": (scale * rng.normal(0, 1, (8, 4, 4, 3))).astype(np.float32)}
    wanted = {"x": (scale * rng.normal(1, 1, (8, 4, 4, 3))).astype(np.float32)}
    whole = distill.squared_errors(found, wanted)["x"]

    def split(tree):
        return jax.tree.map(lambda x: jnp.asarray(x).reshape(4, 2, 4, 4, 3), tree)

    def share(found, wanted):
        return distill.squared_errors(found, wanted, "devices")["x"]

    shares = jax.vmap(share, axis_name="devices")(split(found), split(wanted))
    assert shares.shape == (4,)
    assert jnp.mean(shares) == pytest.approx(float(whole), rel=1e-5)
    assert shares.max() > 5 * shares.min()


def test_gram_correlation_is_that_of_numpy():
    rng = np.random.default_rng(2)
    found = rng.normal(0.5, 1, (3, 6, 5, 4)).astype(np.float32)
    wanted = rng.normal(0.2, 1, (3, 6, 5, 4)).astype(np.float32)
    values = distill.gram_correlation(jnp.asarray(found), jnp.asarray(wanted))
    assert values.shape == (3,)
    for value, a, b in zip(values, found, wanted, strict=True):
        grams = [np.einsum("hwc,hwd->cd", x, x).ravel() for x in (a, b)]
        assert value == pytest.approx(np.corrcoef(*grams)[0, 1], abs=1e-5)
    same = distill.gram_correlation(jnp.asarray(found), jnp.asarray(3 * found))
    np.testing.assert_allclose(same, 1, atol=1e-5)


# --- the method ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(teacher):
    """A method, its first state, and its evaluation."""
    config = make_config(teacher, LAYERS)
    method = distill.method(config, axis_name=None)
    return method, make_state(config, LAYERS), jax.jit(method.evaluate)


def test_evaluation_is_that_of_the_activations(plain, teacher):
    method, state, evaluate = plain
    batch = make_batch()
    metrics = evaluate(state, batch)
    names = [f"{kind}/{layer}" for kind in ("error", "gram") for layer in LAYERS]
    assert metrics.keys() == {"loss", *names}
    assert all((value.shape, value.dtype) == ((), jnp.float32) for value in metrics.values())
    wanted = activations(teacher, batch, LAYERS)
    found = features.vgg(method.variables(state), batch["content"], LAYERS)
    total = 0
    for layer in LAYERS:
        difference = np.asarray(found[layer]) - np.asarray(wanted[layer])
        error = np.linalg.norm(difference) / np.linalg.norm(wanted[layer])
        assert metrics[f"error/{layer}"] == pytest.approx(error, rel=1e-4)
        total += error**2
        gram = np.mean(distill.gram_correlation(found[layer], wanted[layer]))
        assert metrics[f"gram/{layer}"] == pytest.approx(float(gram), abs=1e-4)
    assert metrics["loss"] == pytest.approx(total, rel=1e-4)


def test_paintings_are_more_pictures(plain):
    _, state, evaluate = plain
    batch = make_batch()["content"]
    whole = evaluate(state, {"content": batch})
    parts = evaluate(state, {"content": batch[:1], "style": batch[1:]})
    for name, value in whole.items():
        assert parts[name] == pytest.approx(float(value), rel=1e-5)
    photographs = evaluate(state, {"content": batch[:1]})
    assert photographs["loss"] != pytest.approx(float(whole["loss"]), rel=1e-3)


def test_devices_together_evaluate_as_one(plain, teacher):
    _, state, evaluate = plain
    batch = make_batch()["content"].at[0].mul(0.1)  # one of them sees a dark picture
    whole = evaluate(state, {"content": batch})
    method = distill.method(make_config(teacher, LAYERS), axis_name="devices")
    found = jax.jit(
        jax.vmap(method.evaluate, in_axes=(None, 0), out_axes=None, axis_name="devices")
    )(state, {"content": batch[:, None]})
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert found[name] == pytest.approx(float(value), rel=1e-4), name


def test_weights_of_layers(plain, teacher):
    _, state, evaluate = plain
    model = {"layer_weights": (("relu2_1", 5.0), ("relu4_1", 0.0))}
    method = distill.method(make_config(teacher, LAYERS, model=model), axis_name=None)
    metrics, batch = evaluate(state, make_batch()), make_batch()
    squares = [float(metrics[f"error/{layer}"]) ** 2 for layer in LAYERS]
    loss = jax.jit(method.evaluate)(state, batch)["loss"]
    assert loss == pytest.approx(np.dot([1, 5, 1, 0, 1], squares), rel=1e-4)


def test_a_student_that_is_its_teacher_has_no_error(tmp_path):
    state = make_state(make_config(""), LAYERS)
    params = jax.tree.map(np.asarray, distill.network(state.params))
    path = save(tmp_path / "same.safetensors", params)
    # Teachers may be named in any order; the layers are from the lowest up.
    teachers = (f"{path}:relu5_1+relu4_1", f"{path}:relu2_1+relu1_1+relu3_1")
    config = make_config(path, model={"teachers": teachers})
    method = distill.method(config, axis_name=None)
    assert jax.eval_shape(method.init, KEY).params.keys() == state.params.keys()
    metrics = jax.jit(method.evaluate)(state, make_batch())
    for layer in LAYERS:
        assert metrics[f"error/{layer}"] < 1e-4
        assert metrics[f"gram/{layer}"] == pytest.approx(1, abs=1e-4)
    sample = np.asarray(jax.jit(method.sample)(state, make_batch()))
    columns = sample.reshape(4, 16, 7, 16, 3)
    for wanted, found in ((1, 2), (3, 4), (5, 6)):
        np.testing.assert_allclose(columns[:, :, wanted], columns[:, :, found], atol=1e-3)


def test_samples_show_the_picture_and_three_layers(plain):
    method, state, _ = plain
    for batch in (
        make_batch(),
        {"content": make_batch(rows=1)["content"], "style": make_batch(rows=3)["content"]},
    ):
        sample = np.asarray(method.sample(state, batch))
        assert sample.shape == (4, 16, 16 + 3 * 2 * 16, 3)
        assert sample.dtype == np.float32
        assert sample.min() >= 0
        assert sample.max() <= 1
        pictures = np.concatenate(list(batch.values()))
        np.testing.assert_array_equal(sample[:, :, :16], pictures)
        for column in range(1, 7):
            assert sample[:, :, 16 * column : 16 * (column + 1)].std() > 0.01
    # A random student is not its teacher.
    assert np.abs(sample[:, :, 16:32] - sample[:, :, 32:48]).mean() > 0.01


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_the_padding_is_that_of_both_networks(teacher, padding):
    config = make_config(teacher, LAYERS[:1], model={"padding": padding})
    method = distill.method(config, axis_name=None)
    state, batch = make_state(config, LAYERS[:1]), make_batch(size=8)
    wanted = activations(teacher, batch, LAYERS[:1], padding)["relu1_1"]
    found = features.vgg(method.variables(state), batch["content"], ["relu1_1"], padding=padding)[
        "relu1_1"
    ]
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert method.evaluate(state, batch)["error/relu1_1"] == pytest.approx(error, rel=1e-4)
    other = activations(teacher, batch, LAYERS[:1])["relu1_1"]
    assert np.abs(wanted - other).max() > 1e-3


def test_bfloat16_is_close_to_float32(plain, teacher):
    _, state, evaluate = plain
    config = make_config(teacher, LAYERS, precision="bfloat16")
    method = distill.method(config, axis_name=None)
    batch = make_batch()
    exact, narrow = evaluate(state, batch), jax.jit(method.evaluate)(state, batch)
    differences = []
    for name, value in exact.items():
        assert narrow[name].dtype == jnp.float32
        assert narrow[name] == pytest.approx(float(value), rel=0.03, abs=0.02), name
        differences.append(abs(narrow[name] - value))
    assert max(differences) > 1e-6
    shapes = jax.eval_shape(method.update, state, batch, KEY)[0]
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), (shapes, state))
    assert kinds[0] == kinds[1]


# --- training ------------------------------------------------------------------------------------


def error_of(metrics):
    return {name: float(value) for name, value in metrics.items() if name.startswith("error/")}


def test_stages_train_their_own_parameters_alone(teacher):
    stages = ((10, "relu1_1", 16, 0.02), (12, "relu2_1", 8, 0.03))
    optimizer = OptimizerConfig(learning_rate=0.01, schedule="cosine", warmup_steps=2)
    config = make_config(teacher, model={"stages": stages}, optimizer=optimizer, average=0.9)
    method = distill.method(config, axis_name=None)
    assert [end for end, _ in method.phases] == [10, 22]
    state = make_state(config)
    names = list(state.params)
    batch, start = make_batch(), 0
    for (end, update), (count, layer, _, rate) in zip(method.phases, stages, strict=True):
        own = set(distill._parameters_of(layer, names, LAYERS[:2]))
        other = {"relu1_1": "relu2_1", "relu2_1": "relu1_1"}[layer]
        update, before, rows = jax.jit(update), state, []
        for step in range(start, end):
            state, metrics = update(state, batch, jax.random.fold_in(KEY, step))
            rows.append(metrics)
        for name in names:
            same = np.array_equal(state.params[name], before.params[name])
            assert same == (name not in own), name
        # What is not looked at has an error of 1, and what is trained gets better.
        assert {float(row[f"error/{other}"]) for row in rows} == {1.0}
        errors = [float(row[f"error/{layer}"]) for row in rows]
        assert errors[-1] < 0.9 * errors[0]
        assert rows[0]["loss"] == pytest.approx(errors[0] ** 2, rel=1e-5)
        # Each is a run of its own: it warms up, and comes down to nothing.
        rates = np.array([row["learning_rate"] for row in rows])
        np.testing.assert_allclose(rates[:3], rate * np.array([1 / 3, 2 / 3, 1]), rtol=1e-5)
        assert np.all(np.diff(rates[2:]) < 0)
        assert rates[-1] < rate * 0.1
        start = end
        assert len(rows) == count
    assert int(state.step) == 22


def test_the_learning_rate_after_the_stages(teacher):
    stages = ((10, "relu1_1", 16, 0.02), (12, "relu2_1", 8, 0.03))
    optimizer = OptimizerConfig(learning_rate=0.01, schedule="linear")
    config = make_config(teacher, model={"stages": stages}, optimizer=optimizer, steps=42)
    rate = distill._schedule(config, config.model)
    wanted = [0.02 * (1 - i / 10) for i in range(10)]
    wanted += [0.03 * (1 - i / 12) for i in range(12)]
    wanted += [0.01 * (1 - i / 20) for i in range(21)]
    np.testing.assert_allclose([rate(step) for step in range(43)], wanted, atol=1e-7)
    assert distill._schedule(make_config(teacher), distill.Config()) is None


def test_stages_see_a_part_of_each_crop(teacher):
    config = make_config(teacher, LAYERS[:1], model={"stages": ((1, "relu1_1", 8, 0.02),)})
    method = distill.method(config, axis_name=None)
    state = make_state(config, LAYERS[:1])
    first, whole = (jax.jit(update) for update in (method.phases[0][1], method.update))
    batch = make_batch()
    beyond = {"content": batch["content"].at[:, 8:].set(0.5).at[:, :, 8:].set(0.5)}
    within = {"content": batch["content"].at[:, 7, 7].set(0.5)}
    losses = [
        [float(f(state, x, KEY)[1]["loss"]) for x in (batch, beyond, within)]
        for f in (first, whole)
    ]
    assert losses[0][0] == losses[0][1] != losses[0][2]
    assert losses[1][0] != losses[1][1]


def test_gram_matrices_in_the_loss(plain, teacher):
    _, state, evaluate = plain
    model = {"gram_weight": 0.5, "layer_weights": (("relu2_1", 2.0),)}
    method = distill.method(make_config(teacher, LAYERS, model=model), axis_name=None)
    batch = make_batch()
    held_out = evaluate(state, batch)
    after, metrics = jax.jit(method.update)(state, batch, KEY)
    squares = [float(metrics[f"error/{layer}"]) ** 2 for layer in LAYERS]
    missing = [1 - float(held_out[f"gram/{layer}"]) for layer in LAYERS]
    assert metrics["loss"] == pytest.approx(
        np.dot([1, 2, 1, 1, 1], squares) + 0.5 * sum(missing), rel=1e-4
    )
    assert sum(missing) > 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


def test_a_tiny_network_learns(teacher):
    widths = ((12, 24), (24, 6), *WIDTHS[2:])
    optimizer = OptimizerConfig(learning_rate=0.02, schedule="cosine", warmup_steps=2, b2=0.99)
    config = make_config(
        teacher, model={"widths": widths}, optimizer=optimizer, steps=60, average=0.9
    )
    method = distill.method(config, axis_name=None)
    state = make_state(config, widths=widths)
    evaluate, update = jax.jit(method.evaluate), jax.jit(method.update)
    held_out = make_batch(99)
    before = error_of(evaluate(state, held_out))
    for step in range(60):
        state, metrics = update(state, make_batch(step), KEY)
    after = error_of(evaluate(state, held_out))
    assert metrics.keys() == {"loss", "gradient_norm", "learning_rate", *after}
    for layer, limit in (("relu1_1", 0.45), ("relu2_1", 0.75)):
        assert after[f"error/{layer}"] < limit
        assert after[f"error/{layer}"] < 0.65 * before[f"error/{layer}"]
    # What is used are the averages, not the parameters of the last step.
    used = method.variables(state)
    np.testing.assert_array_equal(used["conv1_2/kernel"], state.average["conv1_2/kernel"])
    assert np.any(used["conv1_2/kernel"] != state.params["conv1_2/kernel"])


# --- a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_the_network_of_a_run_can_be_used(teacher, tmp_path, average):
    model = {"padding": "reflect", "scale": "oxford"}
    config = make_config(teacher, average=average, model=model)
    state = make_state(config)
    if average:
        state = state._replace(average=jax.tree.map(lambda x: x + 0.5, state.average))
    workdir = tmp_path / "narrow"
    with checkpoints.Checkpoints(workdir, config) as store:
        store.save(2, parallel.replicate(state), force=True)
    found = distill.load_run(workdir)
    assert (found.name, found.padding, found.scale) == ("narrow", "reflect", "oxford")
    assert found.heads == ["relu1_1", "relu2_1"]
    assert "teacher.safetensors" in found.source
    wanted = distill.method(config, axis_name=None).variables(state)
    assert found.params.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found.params[name], value, strict=True)
    # It is a network like any other: by its folder, and as a file.
    again = weights.load(workdir)
    weights.save(tmp_path / "made.safetensors", found)
    saved = weights.load(tmp_path / "made.safetensors")
    for name, value in found.params.items():
        np.testing.assert_array_equal(again.params[name], value)
        np.testing.assert_array_equal(saved.params[name], value)


def test_runs_of_other_methods(tmp_path, monkeypatch):
    found = types.SimpleNamespace(config=types.SimpleNamespace(method="adain"), state={})
    monkeypatch.setattr(checkpoints, "_restore", lambda *_, **__: found)
    with pytest.raises(UserError, match=r"mine is a run of adain: expected one of distill"):
        distill.load_run("mine")


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(UserError):
        distill.load_run(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_the_gradient_of_the_gram_correlation_is_finite_where_nothing_is_active():
    wanted = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 3)), jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(distill.gram_correlation(x, wanted)))(
        jnp.zeros_like(wanted)
    )
    assert np.isfinite(gradient).all()
