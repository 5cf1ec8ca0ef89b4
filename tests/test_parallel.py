"""Tests of jaxstyle.training.parallel and jaxstyle.training.meeting."""

import json
import os
import socket
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from processes import free_port, two_processes

from jaxstyle.errors import UserError
from jaxstyle.training import meeting, parallel
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig
from jaxstyle.training.updates import init_state, make_update

pytestmark = pytest.mark.usefixtures("quick_compiler")

CONFIG = TrainConfig(
    method="distill", steps=4, batch_size=8, optimizer=OptimizerConfig(learning_rate=1e-2)
)
PARTS = [(1, 1), (4, 1), (2, 2)]


def conv(images, kernel):
    return lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def loss_fn(params, statistics, batch, key):
    """A small network that learns to make the picture darker; the key is noise in the target."""
    hidden = jnp.tanh(conv(batch["content"], params["first"]) + params["bias"])
    target = 0.5 * batch["content"] + 0.1 * jax.random.normal(key, (1, 1, 1, 3))
    loss = jnp.mean((conv(hidden, params["second"]) - target) ** 2)
    return loss, ({"brightness": jnp.mean(batch["content"])}, statistics)


def init(config=CONFIG):
    rng = np.random.default_rng(0)
    params = {
        "first": jnp.asarray(rng.normal(0, 0.2, (3, 3, 3, 8)), jnp.float32),
        "bias": jnp.zeros(8),
        "second": jnp.asarray(rng.normal(0, 0.2, (3, 3, 8, 3)), jnp.float32),
    }
    return init_state(params, config)


def pictures(step, rows=8):
    rng = np.random.default_rng(step)
    return {"content": rng.integers(0, 256, (rows, 12, 16, 3), dtype=np.uint8)}


@pytest.fixture
def on_devices(monkeypatch):
    """Makes parallel see the first devices only."""

    def choose(count):
        chosen = jax.devices()[:count]
        monkeypatch.setattr(jax, "local_devices", lambda: chosen)
        monkeypatch.setattr(jax, "local_device_count", lambda: count)
        monkeypatch.setattr(jax, "device_count", lambda: count)

    return choose


def train(steps=4, config=CONFIG):
    step = parallel.make_update(make_update(loss_fn, config, axis_name=parallel.AXIS))
    state = parallel.replicate(init(config))
    for number in range(steps):
        key = jax.random.fold_in(jax.random.key(1), number)
        state, metrics = step(state, pictures(number), key)
    return state, metrics


class TestUpdate:
    def test_four_devices_equal_one(self, on_devices):
        results = []
        for count in (1, 4):
            on_devices(count)
            state, metrics = train()
            assert len(state.params["first"].sharding.device_set) == count
            results.append(parallel.to_host((state.params, metrics)))
        one, four = results
        assert one[1].keys() >= {"loss", "gradient_norm", "brightness"}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, four)

    def test_gradients_equal_those_of_one_device(self, on_devices):
        """Of plain descent one step shows the gradient itself, where Adam would hide its scale."""
        config = TrainConfig(
            method="distill", optimizer=OptimizerConfig(name="sgd", b1=0.0, learning_rate=1.0)
        )
        on_devices(4)
        before = parallel.to_host(init(config).params)
        after = parallel.to_host(train(1, config)[0].params)
        batch = {"content": pictures(0)["content"].astype(np.float32) / 255}
        key = jax.random.fold_in(jax.random.key(1), 0)
        gradient = jax.grad(lambda p: loss_fn(p, (), batch, key)[0])(before)
        jax.tree.map(
            lambda a, b, g: np.testing.assert_allclose(a - b, -g, atol=1e-5),
            after, before, gradient,
        )  # fmt: skip

    def test_replicas_agree(self):
        state, metrics = train()
        assert jax.device_count() == 4
        for leaf in jax.tree.leaves((state, metrics)):
            first, *others = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            assert len(others) == 3
            assert first.shape == leaf.shape
            for other in others:
                np.testing.assert_array_equal(first, other)

    def test_a_missing_mean_shows_in_the_shards(self):
        """What test_replicas_agree would see, as pmap itself does not."""

        def update(state, batch, key):
            return state + jnp.mean(batch["content"]), {}

        state, _ = parallel.make_update(update)(
            parallel.replicate(jnp.zeros(())), pictures(0), jax.random.key(0)
        )
        assert len({float(shard.data) for shard in state.addressable_shards}) == 4

    def test_memory_of_the_state_is_given_on(self):
        before = parallel.replicate(init())
        parallel.to_host(before)  # a copy, and no view that would hold the memory
        places = {
            shard.data.unsafe_buffer_pointer()
            for leaf in jax.tree.leaves(before.params)
            for shard in leaf.addressable_shards
        }
        step = parallel.make_update(make_update(loss_fn, CONFIG, axis_name=parallel.AXIS))
        after, _ = step(before, pictures(0), jax.random.key(0))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        assert places == {
            shard.data.unsafe_buffer_pointer()
            for leaf in jax.tree.leaves(after.params)
            for shard in leaf.addressable_shards
        }

    def test_replicate_leaves_its_source_alone(self):
        start = jax.device_put(jnp.arange(4.0), jax.local_devices()[0])
        step = parallel.make_update(lambda state, batch, key: (state + 1, {}))
        step(parallel.replicate(start), pictures(0), jax.random.key(0))
        np.testing.assert_array_equal(start, np.arange(4.0))

    def test_replicate_shares_no_memory(self):
        start = jnp.arange(1000.0)
        step = parallel.make_update(lambda state, batch, key: (state + 1, {}))
        step(parallel.replicate(parallel.replicate(start)), pictures(0), jax.random.key(0))
        np.testing.assert_array_equal(start, np.arange(1000.0))

    def test_batches_are_split_in_order(self):
        def update(state, batch, key):
            mean = jnp.mean(batch["content"])
            return state.at[lax.axis_index(parallel.AXIS)].set(mean), {}

        step = parallel.make_update(
            lambda state, batch, key: (lax.psum(update(state, batch, key)[0], parallel.AXIS), {})
        )
        content = np.repeat(np.arange(8, dtype=np.uint8), 3).reshape(8, 1, 1, 3)
        state, _ = step(parallel.replicate(jnp.zeros(4)), {"content": content}, jax.random.key(0))
        np.testing.assert_allclose(np.asarray(state) * 255, [0.5, 2.5, 4.5, 6.5], rtol=1e-6)

    def test_rows_that_do_not_divide(self):
        step = parallel.make_update(lambda state, batch, key: (state, {}))
        with pytest.raises(ValueError, match="4 devices of this process; got 6 rows"):
            step(parallel.replicate(jnp.zeros(())), pictures(0, rows=6), jax.random.key(0))


class TestEvaluateAndSample:
    def test_evaluate_averages_and_keeps_the_state(self):
        state = parallel.replicate({"gain": jnp.float32(2)})

        def evaluate(state, batch):
            assert batch["content"].dtype == jnp.float32
            return {"loss": lax.pmean(state["gain"] * jnp.mean(batch["content"]), parallel.AXIS)}

        step = parallel.make_evaluate(evaluate)
        for _ in range(2):
            found = float(step(state, pictures(3))["loss"])
        assert found == pytest.approx(2 * np.mean(pictures(3)["content"]) / 255, rel=1e-5)

    def test_sample_takes_any_number_of_rows(self):
        state = parallel.replicate({"gain": jnp.float32(0.5)})
        sample = parallel.make_sample(lambda state, batch: state["gain"] * batch["content"])
        images = sample(state, pictures(0, rows=3))
        assert len(images.sharding.device_set) == 1
        np.testing.assert_allclose(images, pictures(0, rows=3)["content"] / 510.0, rtol=1e-5)


class TestCheckBatch:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"batch_size": 6}, ["batch_size 6 does", "into 4 parts", "4 devices", "as 4"]),
            ({"batch_size": 2}, ["batch_size 2", "4 devices", "as 4"]),
            ({"batch_size": 12, "accumulate": 2}, ["12", "8 parts", "accumulate 2", "as 8"]),
            ({"batch_size": 8, "data": DataConfig(style_batch_size=5)}, ["style_batch_size 5"]),
        ],
    )
    def test_refused(self, settings, words):
        with pytest.raises(UserError) as caught:
            parallel.check_batch(TrainConfig(method="distill", **settings))
        for word in words:
            assert word in str(caught.value)

    def test_accepted(self):
        parallel.check_batch(TrainConfig(method="distill", batch_size=16, accumulate=2))
        parallel.check_batch(
            TrainConfig(method="distill", batch_size=8, data=DataConfig(style_batch_size=4))
        )


def test_one_process_agrees_with_itself():
    assert parallel.any_process(True) is True
    assert parallel.any_process(False) is False
    parallel.barrier("alone")


class TestInitialize:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"coordinator": "a:1"}, "go together; got a:1, None and None"),
            ({"num_processes": 2, "process_id": 0}, "go together; got None, 2 and 0"),
            ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "HOST:PORT.* got 'a'"),
            ({"coordinator": "a:b", "num_processes": 2, "process_id": 0}, "got 'a:b'"),
            ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "from 0 to 1.*got 2"),
        ],
    )
    def test_refused(self, arguments, words):
        with pytest.raises(UserError, match=words):
            parallel.initialize(**arguments)

    @pytest.mark.parametrize(
        ("environment", "cloud"),
        [
            ({}, None),
            ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, None),  # a shell of sbatch
            ({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, None),
            ({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "4"}, "Slurm"),
            ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
            ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
            ({"TPU_ML_PLATFORM": "JAX"}, "Cloud TPU"),
            ({"TPU_ML_PLATFORM": "JAX", "JAX_PLATFORMS": "cpu"}, None),
            ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, None),
            ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # one pod
        ],
    )
    def test_clouds(self, environment, cloud, monkeypatch):
        joined = []
        monkeypatch.setattr(os, "environ", environment)
        monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: joined.append(1))
        monkeypatch.setattr(jax.config, "update", lambda *_: None)
        parallel.initialize()
        assert parallel._cloud(environment) == cloud
        assert bool(joined) == (cloud is not None)

    def test_a_cloud_that_jax_does_not_know(self, monkeypatch):
        def fail(**arguments):
            raise ValueError("coordinator_address should be defined.")

        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        monkeypatch.setattr(jax.distributed, "initialize", fail)
        monkeypatch.setattr(jax.config, "update", lambda *_: None)
        with pytest.raises(UserError, match=r"coordinator_address should be defined\.; --coord"):
            parallel.initialize()


def meet_all(port, numbers, timeout):
    """Meets with a thread a process, `(count, index)` each; what each of them raised."""
    problems = [None] * len(numbers)

    def come(place, count, index):
        try:
            meeting.meet("127.0.0.1", port, count=count, index=index, timeout=timeout)
        except UserError as error:
            problems[place] = str(error)

    threads = [
        threading.Thread(target=come, args=(place, *pair)) for place, pair in enumerate(numbers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


class TestMeeting:
    def test_all_come(self):
        assert meet_all(free_port(), [(3, 1), (3, 0), (3, 2)], 5) == [None] * 3

    def test_some_are_missing(self):
        first, second = meet_all(free_port(), [(4, 0), (4, 2)], 1)
        assert first.startswith("of 4 processes these did not come to 127.0.0.1:")
        assert first.endswith(": 1, 3")
        assert second.startswith("process 2 did not meet the others at 127.0.0.1:")

    def test_nobody_listens(self):
        (problem,) = meet_all(free_port(), [(2, 1)], 0.5)
        assert "Connection refused" in problem

    def test_someone_else_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            (problem,) = meet_all(port, [(2, 0)], 0.5)
            assert problem == f"process 0 cannot listen on port {port}: Address already in use"

    def test_other_numbers(self):
        problems = meet_all(free_port(), [(2, 0), (3, 1)], 1)
        assert problems[1] == "process 0 was started with --num-processes 2, not 3"
        assert problems[0].endswith(": 1")

    def test_strangers_are_ignored(self):
        port = free_port()

        def stranger():
            for _ in range(100):
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                        return
                except OSError:
                    threading.Event().wait(0.01)

        thread = threading.Thread(target=stranger)
        thread.start()
        assert meet_all(port, [(2, 0), (2, 1)], 5) == [None] * 2
        thread.join()


PROCESS = """
    import json, sys
    import jax, numpy as np
    from jaxstyle.training import parallel

    port, index = sys.argv[1], int(sys.argv[2])
    parallel.initialize(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=index)
    from test_parallel import CONFIG, init, loss_fn, make_update, pictures

    assert (jax.device_count(), jax.local_device_count()) == (4, 2)
    parallel.check_batch(CONFIG)
    step = parallel.make_update(make_update(loss_fn, CONFIG, axis_name=parallel.AXIS))
    state = parallel.replicate(init())
    for number in range(4):
        key = jax.random.fold_in(jax.random.key(1), number)
        batch = pictures(number)["content"][4 * index : 4 * index + 4]
        before = state
        state, metrics = step(state, {"content": batch}, key)
        assert before.params["first"].is_deleted()
    agreed = [parallel.any_process(flag) for flag in (False, index == 1, True)]
    parallel.barrier("done")
    sample = parallel.make_sample(lambda state, batch: batch["content"] * state.params["bias"][0])
    if index == 1:
        sample(state, {"content": batch})
    host = parallel.to_host((state.params, metrics))
    print(json.dumps([agreed, jax.tree.map(lambda leaf: leaf.tolist(), host)]))
"""


def test_two_processes_train_as_one():
    """Two real processes of two devices each, over loopback."""
    command = ["-c", textwrap.dedent(PROCESS), str(free_port())]
    outputs = two_processes(command, {"TF_CPP_MIN_LOG_LEVEL": "3"})
    first, second = [json.loads(output.splitlines()[-1]) for output, _ in outputs]  # after Gloo's
    assert first == second
    agreed, found = first
    assert agreed == [False, True, True]
    state, metrics = train()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        jax.tree.map(lambda leaf: leaf.tolist(), parallel.to_host((state.params, metrics))),
        tuple(found),
    )
