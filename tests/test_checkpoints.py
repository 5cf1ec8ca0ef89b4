"""Tests of jaxstyle.training.checkpoints and jaxstyle.training.trees."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from processes import PYTHONPATH, free_port, python, two_processes

from jaxstyle.errors import UserError
from jaxstyle.training import checkpoints, parallel
from jaxstyle.training.checkpoints import Checkpoints, workdir_path
from jaxstyle.training.config import TrainConfig

CONFIG = TrainConfig(method="distill", checkpoint_every=10, keep_checkpoints=2, seed=7)


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any
    average: Any
    pool: Any


def make_state(seed=0, width=3):
    """A state with all that states have: classes, lists, nothing, keys, and small types."""
    rng = np.random.default_rng(seed)
    params = {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 4, width)), jnp.float32)},
        "half": jnp.asarray(rng.normal(size=5), jnp.bfloat16),
        "layers": [jnp.float32(seed), (jnp.arange(3), jnp.asarray([True, False]))],
    }
    opt_state = optax.adam(1e-3).init(params["conv"])
    return State(jnp.int32(seed), params, opt_state, (), {"key": jax.random.key(seed), "old": None})


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def abstract(**options):
    return jax.eval_shape(lambda: make_state(**options))


def saved(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def store(tmp_path):
    with Checkpoints(tmp_path, CONFIG) as opened:
        yield opened


class TestSaveAndRestore:
    def test_a_state_comes_back_on_all_devices(self, tmp_path):
        state = parallel.replicate(make_state(3))
        with Checkpoints(tmp_path, CONFIG) as store:
            assert store.latest_step() is None
            assert store.best_step() is None
            assert store.save(10, state)
        with Checkpoints(tmp_path, CONFIG) as store:
            assert store.latest_step() == 10
            found = store.restore(jax.eval_shape(lambda: state))
        same(found, state)
        assert isinstance(found, State)
        assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(found)} == {4}

    def test_another_number_of_devices(self, tmp_path):
        """Saved on four devices, read by a process that has one."""
        with Checkpoints(tmp_path, CONFIG) as store:
            store.save(10, parallel.replicate(make_state(3)))
        code = """
            import sys, jax
            from jaxstyle.training.checkpoints import Checkpoints
            from test_checkpoints import CONFIG, abstract, make_state, same

            assert jax.device_count() == 1
            with Checkpoints(sys.argv[1], CONFIG) as store:
                same(store.restore(abstract()), make_state(3))
        """
        done = python(code, tmp_path, environment={"JAX_NUM_CPU_DEVICES": "1"})
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_a_step_may_donate_the_state_at_once(self, tmp_path):
        step = parallel.make_update(
            lambda state, batch, key: (jax.tree.map(lambda leaf: leaf + 1, state), {})
        )
        batch = {"content": np.zeros((4, 1, 1, 3), np.uint8)}
        state = parallel.replicate({"a": jnp.zeros(1_000_000), "b": jnp.zeros(())})
        with Checkpoints(tmp_path, CONFIG) as store:
            for number in range(5):
                before = state
                store.save(10 * number, state)
                for _ in range(3):
                    state, _ = step(state, batch, jax.random.key(0))
                assert before["a"].is_deleted()
                store.wait()
                found = checkpoints.restore(tmp_path).state
                assert (found["a"] == 3 * number).all()
                assert found["b"] == 3 * number

    def test_when_it_saves(self, store, tmp_path):
        assert not store.save(15, make_state())
        assert store.save(15, make_state(), force=True)
        assert not store.save(15, make_state(), force=True)  # there already
        assert store.save(20, make_state())
        assert store.latest_step() == 20
        store.wait()
        assert saved(tmp_path) == [15, 20]

    def test_there_is_none(self, store):
        with pytest.raises(UserError, match=r"there is no checkpoint in .*checkpoints that can"):
            store.restore(abstract())
        with pytest.raises(UserError, match="there is no checkpoint of step 4 in"):
            store.restore(abstract(), step=4)

    def test_a_chosen_step(self, store):
        for step in (10, 20):
            store.save(step, make_state(step))
        same(store.restore(abstract(), step=10), make_state(10))

    @pytest.mark.parametrize(
        ("other", "words"),
        [
            (make_state(width=5), r"conv.kernel is float32\[3, 3, 4, 3\] in it and .*4, 5\] in"),
            (make_state()._replace(average=jnp.zeros(2)), r"average is missing in it and float32"),
            (
                make_state()._replace(step=jnp.float32(0)),
                r"step is int32\[\] in it and float32\[\]",
            ),
            (make_state()._replace(pool=None), r"pool.key is uint32\[2\] in it and missing in"),
        ],
    )
    def test_other_shapes(self, store, other, words):
        store.save(10, make_state())
        with pytest.raises(
            UserError, match=rf"step 10 in .* is of another configuration: .*{words}"
        ):
            store.restore(other)
        assert store.latest_step() == 10  # it is not damaged, and stays


class TestKeeping:
    def test_latest_and_best(self, store, tmp_path):
        for step, loss in [(10, 3.0), (20, 1.0), (30, None), (40, 2.0), (50, float("nan"))]:
            metrics = None if loss is None else {"loss": jnp.float32(loss), "other": 0.0}
            store.save(step, make_state(), metrics=metrics)
        store.wait()
        assert saved(tmp_path) == [20, 40, 50]
        assert store.best_step() == 20
        assert store.latest_step() == 50

    def test_the_best_is_known_after_a_restart(self, tmp_path):
        for step, loss in [(10, 1.0), (20, 3.0), (30, 2.0), (40, 2.0)]:
            with Checkpoints(tmp_path, CONFIG) as store:
                store.save(step, make_state(step), metrics={"loss": loss})
        assert saved(tmp_path) == [10, 30, 40]
        assert checkpoints.restore(tmp_path, "best").step == 10

    def test_without_metrics_none_is_best(self, store, tmp_path):
        for step in (10, 20, 30):
            store.save(step, make_state(step))
        store.wait()
        assert store.best_step() is None
        assert saved(tmp_path) == [20, 30]
        assert checkpoints.restore(tmp_path, "best").step == 30

    def test_a_metric_that_is_not_there(self, store):
        with pytest.raises(
            UserError, match=r"best_metric 'loss' is not among the metrics \(ssim\)"
        ):
            store.save(10, make_state(), metrics={"ssim": 0.5})

    def test_other_files_are_left_alone(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text("{}")
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
        (tmp_path / "checkpoints" / "backup").mkdir()
        with Checkpoints(tmp_path, CONFIG) as store:
            for step in (10, 20, 30):
                store.save(step, make_state())
        left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
        assert left == {"20", "30", "notes.txt", "backup"}
        assert (tmp_path / "metrics.jsonl").read_text() == "{}"


class TestWithoutARun:
    def test_config_and_state(self, tmp_path):
        with Checkpoints(tmp_path, CONFIG) as store:
            for step in (10, 20):
                store.save(step, make_state(step), metrics={"loss": float(step)})
        assert checkpoints.restore_config(tmp_path) == CONFIG
        assert checkpoints.restore_config(tmp_path, 10) == CONFIG
        latest = checkpoints.restore(tmp_path)
        assert (latest.step, latest.config) == (20, CONFIG)
        np.testing.assert_array_equal(
            latest.state["params"]["conv"]["kernel"], make_state(20).params["conv"]["kernel"]
        )
        best = checkpoints.restore(tmp_path, "best", abstract_state=abstract())
        assert best.step == 10
        same(best.state, make_state(10))
        assert isinstance(best.state.params["half"], np.ndarray)

    def test_nothing_is_written(self, tmp_path):
        with Checkpoints(tmp_path, CONFIG) as store:
            store.save(10, make_state())
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        checkpoints.restore(tmp_path)
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def test_there_is_none(self, tmp_path):
        with pytest.raises(UserError, match="there are no checkpoints in"):
            checkpoints.restore_config(tmp_path / "nowhere")
        assert not (tmp_path / "nowhere").exists()
        with Checkpoints(tmp_path, CONFIG) as store:
            store.save(10, make_state())
        with pytest.raises(UserError, match=r"no checkpoint \(30\) in .*: there is no such"):
            checkpoints.restore(tmp_path, 30)

    def test_a_configuration_of_another_version(self, tmp_path):
        with Checkpoints(tmp_path, CONFIG) as store:
            store.save(10, make_state())
        (file,) = (tmp_path / "checkpoints" / "10" / "config").glob("metadata")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"new_setting": 1}))
        with pytest.raises(UserError, match=r"configuration in .*10: there is no setting 'new_"):
            checkpoints.restore_config(tmp_path)


class TestDamage:
    @pytest.mark.parametrize("damage", ["emptied", "cut", "removed"])
    def test_every_file(self, tmp_path, damage, capfd):
        """Whatever is missing of the latest, either it reads right or the one before is taken."""
        with Checkpoints(tmp_path, CONFIG) as store:
            for step in (10, 20):
                store.save(step, make_state(step), metrics={"loss": float(-step)})
        passed_over = 0
        files = [path for path in (tmp_path / "checkpoints" / "20").rglob("*") if path.is_file()]
        for file in files:
            content = file.read_bytes()
            if damage == "removed":
                file.unlink()
            else:
                file.write_bytes(b"" if damage == "emptied" else content[: len(content) // 2])
            warnings = []
            with Checkpoints(tmp_path, CONFIG, warn=warnings.append) as store:
                found = store.restore(abstract())
                step = store.latest_step()
                assert store.best_step() in (10, step)
            same(found, make_state(step))
            assert checkpoints.restore(tmp_path).step in (10, 20)
            assert step == 20 or len(warnings) <= 1
            passed_over += step == 10
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
        assert passed_over >= 3
        assert capfd.readouterr() == ("", "")

    def test_going_on_replaces_it(self, tmp_path):
        def spoil(step):
            for file in (tmp_path / "checkpoints" / str(step) / "state").rglob("*"):
                if file.is_file():
                    file.write_bytes(b"")

        with Checkpoints(tmp_path, CONFIG) as store:
            for step in (10, 20, 30):
                store.save(step, make_state(step))
        spoil(30)
        warnings = []
        with Checkpoints(tmp_path, CONFIG, warn=warnings.append) as store:
            same(store.restore(abstract()), make_state(20))
            assert store.latest_step() == 20
            assert store.save(30, make_state(31))
            assert store.latest_step() == 30
            store.wait()
            same(store.restore(abstract()), make_state(31))
        (text,) = warnings
        assert text.startswith("the checkpoint of step 30 is damaged and passed over: ")
        assert "\n" not in text

    def test_a_damaged_one_does_not_count_as_kept(self, tmp_path):
        with Checkpoints(tmp_path, CONFIG) as store:
            for step in (10, 20):
                store.save(step, make_state(step))
        (tmp_path / "checkpoints" / "20" / "config" / "metadata").write_text("{")
        with Checkpoints(tmp_path, CONFIG, warn=lambda text: None) as store:
            store.restore(abstract())
            store.save(15, make_state(15), force=True)
        assert saved(tmp_path) == [10, 15]

    def test_all_are_damaged(self, tmp_path):
        with Checkpoints(tmp_path, CONFIG) as store:
            store.save(10, make_state())
        (tmp_path / "checkpoints" / "10" / "config" / "metadata").write_text("{")
        with (
            Checkpoints(tmp_path, CONFIG, warn=lambda text: None) as store,
            pytest.raises(UserError, match="there is no checkpoint in"),
        ):
            store.restore(abstract())
        with pytest.raises(UserError, match=r"no checkpoint \(latest\) in .* can be read"):
            checkpoints.restore(tmp_path)
        assert saved(tmp_path) == [10]  # it may be of use to someone


class TestProblems:
    def test_the_folder_is_a_file(self, tmp_path):
        (tmp_path / "checkpoints").write_text("")
        with pytest.raises(UserError, match="checkpoints cannot hold checkpoints: "):
            Checkpoints(tmp_path, CONFIG)

    def test_a_write_that_fails_in_the_background(self, tmp_path):
        """Files cannot grow any more, as on a full disk: one line, and the one before is left."""
        code = """
            import resource, sys
            import jax.numpy as jnp, numpy as np
            from jaxstyle.errors import UserError
            from jaxstyle.training.checkpoints import Checkpoints
            from test_checkpoints import CONFIG

            store = Checkpoints(sys.argv[1], CONFIG)
            store.save(10, {"a": jnp.zeros(10)})
            store.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            noise = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
            try:
                store.save(20, {"a": noise})
                store.wait()
            except UserError as error:
                print(error)
            print(store.latest_step())
        """
        done = python(code, tmp_path)
        assert done.returncode == 0, done.stderr
        problem, latest = done.stdout.splitlines()
        assert "could not be written to" in problem
        assert latest == "10"
        assert "Traceback" not in done.stderr

    def test_it_is_quiet(self, tmp_path):
        code = """
            import sys
            import jax.numpy as jnp
            from jaxstyle.training import checkpoints
            from test_checkpoints import CONFIG

            for steps in ((10, 20), (30,)):
                with checkpoints.Checkpoints(sys.argv[1], CONFIG) as store:
                    if store.latest_step():
                        store.restore({"a": jnp.zeros(3)})
                    for step in steps:
                        store.save(step, {"a": jnp.zeros(3)}, metrics={"loss": 1.0})
                    store.save(steps[-1] + 1, {"a": jnp.zeros(3)}, force=True)
            checkpoints.restore(sys.argv[1], "best")
        """
        done = python(code, tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


KILLED = """
    import sys
    import jax.numpy as jnp
    from jaxstyle.training.checkpoints import Checkpoints
    from test_checkpoints import CONFIG

    with Checkpoints(sys.argv[1], CONFIG, warn=lambda text: sys.exit(text)) as store:
        step = store.latest_step() or 0
        if step:
            state = store.restore({"a": jnp.zeros(300_000), "b": jnp.zeros(3)})
            assert (state["a"] == step).all() and (state["b"] == step).all()
        while True:
            step += 10
            store.save(step, {"a": jnp.full(300_000, step * 1.0), "b": jnp.full(3, step * 1.0)})
            print(step, flush=True)
"""


def test_killed_at_any_moment(tmp_path):
    """What a killed process leaves is whole, and the next one goes on from it."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    rng = random.Random(0)
    last = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, process.stderr and process.stderr.read()
        assert int(first) > last
        if last == 0:  # printed while the very first is being written
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = checkpoints.restore(tmp_path)
        assert (found.state["a"] == found.step).all()
        assert found.step >= last
        last = found.step
    assert last > 0
    with Checkpoints(tmp_path, CONFIG) as store:
        store.save(last + 10, {"a": jnp.zeros(3)})
    assert saved(tmp_path) == [last, last + 10]  # nothing half-written is left


PROCESS = """
    import sys
    import jax
    from jaxstyle.training import checkpoints, parallel

    folder, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
    parallel.initialize(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=index)
    from test_checkpoints import CONFIG, abstract, make_state, same

    warnings = []
    with checkpoints.Checkpoints(folder, CONFIG, warn=warnings.append) as store:
        same(store.restore(abstract()), make_state(10))
        assert (len(warnings), store.latest_step()) == (1, 10)
        state = parallel.replicate(make_state(12))
        for step in (20, 30, 40):
            store.save(step, state, metrics={"loss": float(step)})
    with checkpoints.Checkpoints(folder, CONFIG) as store:
        assert (store.latest_step(), store.best_step()) == (40, 20)
        same(store.restore(abstract()), state)
    assert checkpoints.restore_config(folder) == CONFIG
    parallel.barrier("done")
"""


def test_two_processes(tmp_path):
    """Two processes read what one has written, pass over what is damaged, and write."""
    with Checkpoints(tmp_path, CONFIG) as store:
        for step in (10, 20):
            store.save(step, parallel.replicate(make_state(step)))
    (tmp_path / "checkpoints" / "20" / "config" / "metadata").write_text("{")
    code = textwrap.dedent(PROCESS)
    two_processes(["-c", code, str(tmp_path), str(free_port())], {})
    assert saved(tmp_path) == [20, 30, 40]
    same(checkpoints.restore(tmp_path, abstract_state=abstract()).state, make_state(12))


class TestWorkdirPath:
    def test_buckets_stay_as_they_are(self):
        assert str(workdir_path("gs://bucket/runs/a")) == "gs://bucket/runs/a"
        assert str(workdir_path("gs://bucket/runs/a") / "checkpoints").startswith("gs://bucket/")

    def test_local_ones_are_absolute(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert workdir_path("runs/../run") == epath.Path(tmp_path / "run")
        assert workdir_path(tmp_path / "run") == epath.Path(tmp_path / "run")
        assert workdir_path("~/run") == epath.Path(tmp_path / "home" / "run")
