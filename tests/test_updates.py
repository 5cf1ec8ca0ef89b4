"""Tests of jaxstyle.training.updates, against NumPy and by hand."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxstyle.training import parallel
from jaxstyle.training.config import OptimizerConfig, TrainConfig
from jaxstyle.training.updates import (
    averaged,
    cast,
    init_state,
    learning_rate,
    make_update,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")

ROWS, INPUTS, OUTPUTS = 24, 5, 4
KEY = jax.random.key(0)
DESCENT = OptimizerConfig(name="sgd", b1=0.0, learning_rate=1.0)


def make_config(**settings):
    optimizer = settings.pop("optimizer", OptimizerConfig(learning_rate=0.05))
    return TrainConfig(method="distill", optimizer=optimizer, **settings)


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "kernel": rng.normal(0, 1, (INPUTS, OUTPUTS)).astype(np.float32),
        "bias": rng.normal(0, 1, OUTPUTS).astype(np.float32),
    }


def make_batch(seed=1, rows=ROWS):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(0, 1, (rows, INPUTS)).astype(np.float32),
        "y": rng.normal(0, 1, (rows, OUTPUTS)).astype(np.float32),
    }


def loss_fn(params, statistics, batch, key):
    """Linear regression: half the squared error, summed over outputs, averaged over rows."""
    del key
    error = batch["x"] @ params["kernel"] + params["bias"] - batch["y"]
    loss = 0.5 * jnp.mean(jnp.sum(error**2, axis=1))
    return loss, ({"mean": jnp.mean(batch["x"])}, statistics)


def loss_and_gradient(params, batch):
    """The same in NumPy, in double precision."""
    x, y = (np.asarray(batch[name], np.float64) for name in "xy")
    error = x @ params["kernel"] + params["bias"] - y
    gradient = {"kernel": x.T @ error / len(x), "bias": error.mean(axis=0)}
    return 0.5 * (error**2).sum(axis=1).mean(), gradient


def norm(tree):
    return np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in tree.values()))


def run(config, steps=1, *, loss=loss_fn, state=None, statistics=(), axis_name=None, **options):
    """Some steps, each on a batch of its own; all states and metrics."""
    update = jax.jit(make_update(loss, config, axis_name=axis_name, **options))
    if state is None:
        params = jax.tree.map(jnp.asarray, make_params())
        state = init_state(params, config, statistics=statistics)
    states, rows = [state], []
    for step in range(steps):
        state, metrics = update(state, make_batch(step), jax.random.fold_in(KEY, step))
        states.append(state)
        rows.append(jax.tree.map(np.asarray, metrics))
    return states, rows


def assert_close(found, wanted, **tolerance):
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], **tolerance)


# --- one step ------------------------------------------------------------------------------------


def test_loss_gradient_and_norm_are_those_of_numpy():
    (before, after), (metrics,) = run(make_config(optimizer=DESCENT))
    loss, gradient = loss_and_gradient(make_params(), make_batch(0))
    assert_close(
        after.params,
        {name: before.params[name] - gradient[name] for name in gradient},
        atol=1e-6,
    )
    assert metrics.keys() == {"loss", "gradient_norm", "learning_rate", "mean"}
    assert metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert metrics["gradient_norm"] == pytest.approx(norm(gradient), rel=1e-6)
    assert metrics["learning_rate"] == 1
    assert metrics["mean"] == pytest.approx(make_batch(0)["x"].mean(), abs=1e-6)
    assert all((value.shape, value.dtype) == ((), np.float32) for value in metrics.values())
    assert (int(before.step), int(after.step), after.step.dtype) == (0, 1, jnp.int32)


def test_the_key_reaches_the_loss():
    def noisy(params, statistics, batch, key):
        return jax.random.uniform(key), ({}, statistics)

    _, rows = run(make_config(), 2, loss=noisy)
    for step, row in enumerate(rows):
        assert row["loss"] == jax.random.uniform(jax.random.fold_in(KEY, step))


def test_statistics_are_carried_and_not_learnt():
    def loss(params, statistics, batch, key):
        value, (metrics, _) = loss_fn(params, statistics, batch, key)
        moved = 0.5 * statistics["mean"] + 0.5 * jnp.mean(batch["x"], axis=0)
        return value, (metrics, {"mean": moved})

    states, _ = run(make_config(), 3, loss=loss, statistics={"mean": jnp.zeros(INPUTS)})
    wanted = np.zeros(INPUTS)
    for step in range(3):
        wanted = 0.5 * wanted + 0.5 * make_batch(step)["x"].mean(axis=0)
    np.testing.assert_allclose(states[-1].statistics["mean"], wanted, atol=1e-6)


def test_a_state_can_be_donated():
    """No two of its arrays share memory, which a donation of both would be refused for."""
    config = make_config(average=0.5)
    params = jax.tree.map(jnp.asarray, make_params())
    state = init_state(params, config)
    assert_close(state.average, params, rtol=0)
    update = jax.jit(make_update(loss_fn, config, axis_name=None), donate_argnums=0)
    state, _ = update(state, make_batch(), KEY)
    state, _ = update(state, make_batch(), KEY)
    assert int(state.step) == 2


# --- accumulation --------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 4, ROWS])
def test_parts_of_a_batch_equal_the_whole(parts):
    whole, rows = run(make_config(optimizer=DESCENT), 2)
    split, other = run(make_config(optimizer=DESCENT, accumulate=parts), 2)
    assert_close(split[1].params, whole[1].params, atol=1e-6)
    assert_close(split[2].params, whole[2].params, atol=1e-5)
    for row, wanted in zip(other, rows, strict=True):
        assert_close(row, wanted, rtol=1e-5, atol=1e-7)


def test_parts_come_in_order_with_keys_of_their_own():
    def loss(params, statistics, batch, key):
        place = statistics["count"]
        seen = statistics["seen"].at[place].set(batch["x"][0])
        drawn = statistics["drawn"].at[place].set(jax.random.uniform(key))
        value = jnp.sum(params["bias"]) * (1.0 + place)
        return value, ({"place": 1.0 * place}, {"count": place + 1, "seen": seen, "drawn": drawn})

    start = {
        "count": jnp.zeros((), jnp.int32),
        "seen": jnp.zeros((3, INPUTS)),
        "drawn": jnp.zeros(3),
    }
    states, (metrics,) = run(
        make_config(optimizer=DESCENT, accumulate=3), loss=loss, statistics=start
    )
    statistics = states[-1].statistics
    assert int(statistics["count"]) == 3
    np.testing.assert_array_equal(statistics["seen"], make_batch(0)["x"][:: ROWS // 3])
    assert len(set(np.asarray(statistics["drawn"]).tolist())) == 3
    # The mean over parts, of metrics and of the gradient, which are 1, 2 and 3 here.
    assert metrics["place"] == pytest.approx(1)
    change = states[1].params["bias"] - states[0].params["bias"]
    np.testing.assert_allclose(change, -2 * np.ones(OUTPUTS), rtol=1e-6)


# --- moving average ------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_the_moving_average_is_that_of_numpy(decay):
    steps = 12
    states, _ = run(make_config(average=decay), steps)
    wanted = make_params()
    for step in range(steps):
        # It forgets faster early on: by 1/10, 2/11, 3/12, ... until that exceeds the decay.
        now = min(decay, (1 + step) / (10 + step))
        after = states[step + 1].params
        wanted = {name: now * wanted[name] + (1 - now) * after[name] for name in wanted}
        assert_close(states[step + 1].average, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(states[-1].average["kernel"] - states[-1].params["kernel"]).max() > 1e-3


def test_parameters_to_use():
    (_, plain), _ = run(make_config())
    assert plain.average == ()
    assert averaged(plain) is plain.params
    (_, moved), _ = run(make_config(average=0.5))
    assert averaged(moved) is moved.average
    # Averaging looks on: what is trained is the same.
    assert_close(moved.params, plain.params, rtol=0)


# --- precision -----------------------------------------------------------------------------------


def test_cast_changes_floats_alone():
    tree = {
        "a": jnp.ones(2),
        "b": (jnp.arange(3), jnp.ones((), jnp.bfloat16)),
        "c": jnp.array(True),
        "key": jax.random.key(1),
        "none": None,
    }
    found = cast(tree, jnp.float16)
    assert [leaf.dtype for leaf in (found["a"], *found["b"], found["c"])] == [
        *(jnp.float16, jnp.int32, jnp.float16, jnp.bool_)
    ]
    assert found["key"] is tree["key"]
    assert found["none"] is None


def test_bfloat16_computes_but_parameters_stay_float32():
    def loss(params, statistics, batch, key):
        used = cast(params, jnp.bfloat16)
        assert used["kernel"].dtype == jnp.bfloat16
        narrow = cast(batch, jnp.bfloat16)
        error = cast(narrow["x"] @ used["kernel"] + used["bias"], jnp.float32) - batch["y"]
        return 0.5 * jnp.mean(jnp.sum(error**2, axis=1)), ({}, statistics)

    config = make_config(optimizer=DESCENT)
    (before, after), (metrics,) = run(config, loss=loss)
    value, gradient = loss_and_gradient(make_params(), make_batch(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == np.float32
    assert metrics["loss"] == pytest.approx(value, rel=0.02)
    for name in gradient:
        change = before.params[name] - after.params[name]
        assert norm({"difference": change - gradient[name]}) < 0.02 * norm(gradient)
        assert np.abs(change - gradient[name]).max() > 0  # it was not float32 all the same


# --- learning rate -------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "inverse_time"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_schedules(schedule, warmup):
    settings = OptimizerConfig(
        learning_rate=0.8, schedule=schedule, warmup_steps=warmup, final_fraction=0.25
    )
    rate = learning_rate(settings, 24)
    found = np.array([rate(step) for step in range(30)])
    wanted = []
    for step in range(30):
        done = min(max(step - warmup, 0) / (24 - warmup), 1)
        part = {
            "constant": 1.0,
            "linear": 1 - 0.75 * done,
            "cosine": 0.25 + 0.75 * (1 + np.cos(np.pi * done)) / 2,
            "inverse_time": 1 / (1 + 3 * max(step - warmup, 0) / (24 - warmup)),
        }[schedule]
        if step < warmup:  # from a first step that is not wasted, to the highest
            part = (1 + step) / (warmup + 1)
        wanted.append(0.8 * part)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert found.max() == pytest.approx(0.8)
    last = {"constant": 0.8, "inverse_time": found[24:]}.get(schedule, 0.2)
    assert found[24:] == pytest.approx(last)
    if schedule == "inverse_time":  # which has no end
        assert found[24] == pytest.approx(0.2)
        assert (np.diff(found[24:]) < 0).all()


def test_the_schedule_of_huang_and_belongie():
    """Their code has 1e-4 / (1 + 5e-5 step), for 160,000 steps."""
    settings = OptimizerConfig(learning_rate=1e-4, schedule="inverse_time", final_fraction=1 / 9)
    rate = learning_rate(settings, 160_000)
    for step in (0, 1, 20_000, 160_000):
        assert float(rate(step)) == pytest.approx(1e-4 / (1 + 5e-5 * step), rel=1e-5)


def test_warm_ups_as_long_as_the_run():
    for steps in (1, 5):
        settings = OptimizerConfig(schedule="cosine", warmup_steps=5, learning_rate=1.0)
        rates = [float(learning_rate(settings, steps)(step)) for step in range(6)]
        np.testing.assert_allclose(rates, np.arange(1, 7) / 6, rtol=1e-6)


def test_the_learning_rate_is_that_of_the_step():
    settings = OptimizerConfig(
        name="sgd", b1=0.0, learning_rate=0.5, schedule="linear", warmup_steps=1
    )
    states, rows = run(make_config(optimizer=settings, steps=5), 5)
    wanted = [0.25, 0.5, 0.375, 0.25, 0.125]
    assert [row["learning_rate"] for row in rows] == pytest.approx(wanted)
    for step, rate in enumerate(wanted):
        _, gradient = loss_and_gradient(states[step].params, make_batch(step))
        change = states[step + 1].params["kernel"] - states[step].params["kernel"]
        np.testing.assert_allclose(change, -rate * gradient["kernel"], atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_a_schedule_of_the_methods_own(name):
    settings = OptimizerConfig(name=name, learning_rate=1.0)
    states, rows = run(make_config(optimizer=settings), 3, schedule=lambda step: 0.25 * (step == 1))
    assert [row["learning_rate"] for row in rows] == [0, 0.25, 0]
    moved = [
        any(np.any(a.params[k] != b.params[k]) for k in a.params)
        for a, b in itertools.pairwise(states)
    ]
    assert moved == [False, True, False]


# --- optimisers ----------------------------------------------------------------------------------


def reference(config, steps):
    """SGD with momentum, Adam and AdamW in NumPy."""
    settings = config.optimizer
    b1, b2, rate = settings.b1, settings.b2, settings.learning_rate
    params = {name: value.astype(np.float64) for name, value in make_params().items()}
    first = {name: np.zeros_like(value) for name, value in params.items()}
    second = {name: np.zeros_like(value) for name, value in params.items()}
    for step in range(steps):
        _, gradient = loss_and_gradient(params, make_batch(step))
        for name, g in gradient.items():
            if settings.name == "sgd":
                first[name] = b1 * first[name] + g
                params[name] = params[name] - rate * first[name]
                continue
            first[name] = b1 * first[name] + (1 - b1) * g
            second[name] = b2 * second[name] + (1 - b2) * g * g
            mean = first[name] / (1 - b1 ** (step + 1))
            size = np.sqrt(second[name] / (1 - b2 ** (step + 1)))
            decay = settings.weight_decay * params[name] if settings.name == "adamw" else 0
            params[name] = params[name] - rate * (mean / (size + 1e-8) + decay)
    return params


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "sgd", "b1": 0.5},
        {"name": "adam", "b1": 0.8, "b2": 0.95},
        {"name": "adamw", "b1": 0.8, "b2": 0.95, "weight_decay": 0.5},
    ],
    ids=lambda settings: settings["name"],
)
def test_optimizers_are_those_of_numpy(settings):
    config = make_config(optimizer=OptimizerConfig(learning_rate=0.05, **settings))
    states, _ = run(config, 6)
    assert_close(states[-1].params, reference(config, 6), atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_every_optimizer_lowers_a_loss(name):
    config = make_config(optimizer=OptimizerConfig(name=name, learning_rate=0.05))
    update = jax.jit(make_update(loss_fn, config, axis_name=None))
    state, batch = init_state(jax.tree.map(jnp.asarray, make_params()), config), make_batch()
    x = np.hstack([batch["x"], np.ones((ROWS, 1))])
    least = 0.5 * np.linalg.lstsq(x, batch["y"], rcond=None)[1].sum() / ROWS
    losses = []
    for _ in range(100):
        state, metrics = update(state, batch, KEY)
        losses.append(float(metrics["loss"]))
    assert losses[-1] - least < 0.1 * (losses[0] - least)
    assert losses[-1] > least - 1e-5


def test_muon_moves_kernels_orthogonally_and_the_rest_as_adam_does():
    rng = np.random.default_rng(3)
    shapes = {"conv": (3, 3, 4, 6), "dense": (7, 5), "bias": (6,), "gamma": (2, 4), "out": (5, 3)}
    gradients = {name: rng.normal(0, 1e-3, shape) for name, shape in shapes.items()}

    def loss(params, statistics, batch, key):
        return sum(jnp.sum(params[name] * gradients[name]) for name in shapes), ({}, statistics)

    config = make_config(optimizer=OptimizerConfig(name="muon", learning_rate=0.5))
    params = {
        name: jnp.asarray(rng.normal(0, 1, shape), jnp.float32) for name, shape in shapes.items()
    }
    state = init_state(params, config)
    assert state.params.keys() == shapes.keys()
    leaves = [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
    # One momentum for a kernel, in the kernel's own shape; two moments for a bias, a table of
    # gammas, and what makes colours.
    assert [leaves.count(shapes[name]) for name in shapes] == [1, 1, 2, 2, 2]
    (_, after), _ = run(config, loss=loss, state=state)
    for name in ("conv", "dense"):
        change = np.asarray(after.params[name] - params[name]).reshape(-1, shapes[name][-1])
        singular = np.linalg.svd(change / 0.5, compute_uv=False)
        assert len(singular) == shapes[name][-1]
        # Five steps of Newton and Schulz bring them near 1, and no nearer.
        assert 0.6 < singular.min() <= singular.max() < 1.3, name
        # Downhill: -U V' of the gradient U S V'.
        u, _, v = np.linalg.svd(gradients[name].reshape(change.shape), full_matrices=False)
        assert np.sum(-change / 0.5 * (u @ v)) / len(singular) > 0.6
    for name in ("bias", "gamma", "out"):
        change = after.params[name] - params[name]
        # Adam's first step is the gradient's sign; with a look ahead (Nesterov), and a bit more.
        wanted = -0.05 * (1 + 0.9 * 0.1 / (1 - 0.9**2)) * np.sign(gradients[name])
        np.testing.assert_allclose(change, wanted, rtol=1e-3)


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_weight_decay_is_that_of_adamw_and_muon_alone(name):
    settings = OptimizerConfig(name=name, learning_rate=0.1)
    decayed = dataclasses.replace(settings, weight_decay=0.5)
    (before, a), _ = run(make_config(optimizer=settings))
    (_, b), _ = run(make_config(optimizer=decayed))
    difference = a.params["kernel"] - b.params["kernel"]
    wanted = 0.1 * 0.5 * before.params["kernel"] if name == "muon" else 0
    np.testing.assert_allclose(difference, wanted + np.zeros_like(difference), atol=1e-6)


def test_clip_norm_limits_the_length_of_the_gradient():
    _, gradient = loss_and_gradient(make_params(), make_batch(0))
    whole = norm(gradient)
    for limit, factor in ((whole / 4, 0.25), (2 * whole, 1.0)):
        settings = dataclasses.replace(DESCENT, clip_norm=limit)
        (before, after), (metrics,) = run(make_config(optimizer=settings))
        wanted = {name: before.params[name] - factor * gradient[name] for name in gradient}
        assert_close(after.params, wanted, atol=1e-6)
        # What is reported is the length before.
        assert metrics["gradient_norm"] == pytest.approx(whole, rel=1e-6)


# --- a part of the parameters --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_what_is_not_trained_is_frozen_exactly(name):
    """Momentum of earlier steps and the decay of weights do not move it either."""
    settings = OptimizerConfig(name=name, learning_rate=0.05, weight_decay=0.5)
    config = make_config(optimizer=settings, average=0.5)
    earlier, _ = run(config, 2)
    states, rows = run(config, 3, state=earlier[-1], is_trained=lambda name: name == "bias")
    _, gradient = loss_and_gradient(states[0].params, make_batch(0))
    assert rows[0]["gradient_norm"] == pytest.approx(norm({"bias": gradient["bias"]}), rel=1e-5)
    for before, after in itertools.pairwise(states):
        np.testing.assert_array_equal(after.params["kernel"], before.params["kernel"])
        assert np.all(after.params["bias"] != before.params["bias"])
    assert not np.array_equal(earlier[1].params["kernel"], earlier[2].params["kernel"])


def test_frozen_parameters_get_no_gradient():
    (before, after), _ = run(make_config(optimizer=DESCENT), is_trained=lambda name: name != "bias")
    _, gradient = loss_and_gradient(make_params(), make_batch(0))
    np.testing.assert_array_equal(after.params["bias"], before.params["bias"])
    np.testing.assert_allclose(
        after.params["kernel"], before.params["kernel"] - gradient["kernel"], atol=1e-6
    )


# --- devices -------------------------------------------------------------------------------------


def image_loss(params, statistics, batch, key, *, axis_name):
    """Standardises by statistics of the whole batch, and remembers them, as batch norm does."""
    x = batch["content"]
    mean, square = jnp.mean(x, axis=(0, 1, 2)), jnp.mean(x * x, axis=(0, 1, 2))
    if axis_name is not None:
        mean, square = lax.pmean((mean, square), axis_name)
    x = (x - mean) * lax.rsqrt(square - mean**2 + 1e-3)
    noise = jax.random.normal(key, (3,))
    error = jnp.tanh(x @ params["kernel"]) - x * noise + params["bias"]
    # Of the device's own rows, so that it is the update that has to average it.
    own = {"mean": 0.9 * statistics["mean"] + 0.1 * jnp.mean(batch["content"], axis=(0, 1, 2))}
    return jnp.mean(error**2), ({"brightness": jnp.mean(batch["content"])}, own)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_four_devices_equal_one(name):
    settings = OptimizerConfig(name=name, learning_rate=0.05, clip_norm=1.0)
    config = make_config(optimizer=settings, average=0.5)
    rng = np.random.default_rng(0)
    params = {
        "kernel": rng.normal(0, 1, (3, 3)).astype(np.float32),
        "bias": np.zeros(3, np.float32),
    }

    def train(step, place, to_batch, axis_name):
        loss = functools.partial(image_loss, axis_name=axis_name)
        update = step(make_update(loss, config, axis_name=axis_name))
        start = jax.tree.map(jnp.asarray, params)
        state = place(init_state(start, config, statistics={"mean": jnp.zeros(3)}))
        rows = []
        for number in range(4):
            batch = np.random.default_rng(number).integers(0, 256, (8, 6, 5, 3), np.uint8)
            batch[:4] //= 3  # the devices see pictures of their own
            key = jax.random.fold_in(KEY, number)
            state, metrics = update(state, {"content": to_batch(batch)}, key)
            rows.append(metrics)
        return parallel.to_host((state, rows))

    assert jax.device_count() == 4
    one = train(jax.jit, lambda state: state, lambda x: x.astype(np.float32) / 255, None)
    four = train(parallel.make_update, parallel.replicate, lambda x: x, parallel.AXIS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, atol=1e-5), one, four)
    assert norm(jax.tree.map(np.subtract, one[0].params, params)) > 0.1
    assert np.all(one[0].statistics["mean"] > 0.05)


def test_parts_on_four_devices_equal_the_whole_on_one():
    config = make_config(optimizer=DESCENT)
    loss = functools.partial(image_loss, axis_name=None)
    params = {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}
    state = init_state(params, config, statistics={"mean": jnp.zeros(3)})
    # Statistics are those of the part: the same for all parts of a batch of equal pictures.
    pixels = np.random.default_rng(0).integers(0, 256, (1, 6, 5, 3), np.uint8).repeat(16, axis=0)
    one, metrics = jax.jit(make_update(loss, config, axis_name=None))(
        state, {"content": pixels.astype(np.float32) / 255}, KEY
    )

    def fixed(params, statistics, batch, key):
        return image_loss(params, statistics, batch, KEY, axis_name=parallel.AXIS)

    parts = dataclasses.replace(config, accumulate=2)
    step = parallel.make_update(make_update(fixed, parts, axis_name=parallel.AXIS))
    four, others = step(parallel.replicate(state), {"content": pixels}, KEY)
    assert_close(four.params, one.params, atol=1e-5)
    assert others["loss"] == pytest.approx(float(metrics["loss"]), rel=1e-5)
    assert others["gradient_norm"] == pytest.approx(float(metrics["gradient_norm"]), rel=1e-5)
