"""The training loop: step, log, evaluate, show, checkpoint, and stop in good order.

The loop knows a method's tuple of functions and nothing of what is inside. What a run does at a
step depends on its configuration, its seed and the number of the step alone, so that a run that is
killed and goes on from its last checkpoint ends as one that never was.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxstyle import methods, models
from jaxstyle.errors import UserError
from jaxstyle.methods import Method
from jaxstyle.training import checkpoints, data, parallel, report, resuming, trees, updates
from jaxstyle.training.checkpoints import Checkpoints
from jaxstyle.training.config import TrainConfig
from jaxstyle.training.log import Log

_WATCHED = ("loss", "gradient_norm")  # what ends a run when it is not finite
_INIT = 0xFFFFFFFF  # folded into the key where steps fold in their number
_IN_FLIGHT = 2  # steps that the device may be behind: their batches take its memory


class Result(NamedTuple):
    """How a run ended.

    Attributes:
        step: updates that were made.
        finished: all that the configuration asks for were made.
        metrics: the last values, by name.
        workdir: where everything is.
    """

    step: int
    finished: bool
    metrics: dict[str, float]
    workdir: str


class TrainingError(Exception):
    """The numbers of a run are no longer finite; the message says since when and what is left."""


def train(
    config: TrainConfig,
    workdir: str | os.PathLike[str],
    *,
    observer: report.Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    tensorboard: bool = False,
) -> Result:
    """Trains a method, from the start or from the last checkpoint in `workdir`.

    The folder gets checkpoints, `metrics.jsonl`, `samples/` and, at the end, `curves.png`; other
    files in it are left alone. In a run of several processes all of them call this.

    Args:
        config: what to train, and how.
        workdir: a folder, which need not exist; it may lie in a bucket, as `gs://bucket/run`.
        observer: is told how the run goes; by default, the logger `jaxstyle.training` is.
        should_stop: asked after every step (in a run of several processes, at every line of
            metrics); where it says yes in any process, the state is saved and the run ends.
        tensorboard: write the metrics for TensorBoard, too.

    Returns:
        How it ended.

    Raises:
        UserError: the data, the batch or the folder do not fit the configuration.
        TrainingError: the loss or a parameter became infinite or NaN. Nothing of it was saved.
    """
    observer = observer or report.LoggingObserver()
    parallel.check_batch(config)
    folder = checkpoints.workdir_path(workdir)
    method = methods.load(config.method).method(config, axis_name=parallel.AXIS)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Checkpoints(workdir, config, warn=observer.complain))
        key = jax.random.key(config.seed)
        state, step = _begin(method, store, config, folder, key, observer)
        if step >= config.steps:
            observer.note(f"{workdir}: all {config.steps} steps are done already")
            return _finished(folder, Result(step, True, {}, str(workdir)))
        batches = stack.enter_context(_open_batches(config, method, step, observer))
        log = stack.enter_context(Log(folder, step, observer, tensorboard=tensorboard))
        observer.started(step, config.steps)
        run = _Run(config, method, folder, store, batches, log, should_stop)
        step = run.go(state, step, key)
        if batches.skipped:
            observer.note(f"{batches.skipped} pictures could not be read and were skipped")
        result = Result(step, step >= config.steps, log.latest, str(workdir))
        return _finished(folder, result)


def _begin(
    method: Method,
    store: Checkpoints,
    config: TrainConfig,
    folder: epath.Path,
    key: Any,
    observer: report.Observer,
) -> tuple[Any, int]:
    """The state to go on with, on every device, and how many updates it has seen."""
    init_key = jax.random.fold_in(key, _INIT)
    if store.latest_step() is None:
        state = jax.jit(method.init)(init_key)
        return parallel.replicate(_started(state, config, observer)), 0
    resuming.check(config, checkpoints.restore_config(folder), note=observer.note)
    state = store.restore(jax.eval_shape(method.init, init_key))
    step = store.latest_step()
    assert step is not None  # it says which one was restored
    observer.note(f"going on from the checkpoint of step {step}")
    return state, step


def _started(state: Any, config: TrainConfig, observer: report.Observer) -> Any:
    """The first state with parameters of another run or of a model, if the configuration says."""
    if not config.start:
        return state
    if not hasattr(state, "params"):
        raise UserError(f"start: {config.method} cannot start from parameters")
    found, origin = _starting_params(config)
    where = f"start: the parameters in {config.start}"
    params = trees.in_form_of(state.params, found, where)
    observer.note(f"starting from {origin}")
    state = state._replace(params=jax.tree.map(jnp.asarray, params))
    if state.average:
        state = state._replace(average=jax.tree.map(jnp.copy, state.params))
    return state


def _starting_params(config: TrainConfig) -> tuple[Any, str]:
    """The parameters to start from, and where they come from."""
    if config.start.endswith(".safetensors"):
        model = models.load(config.start)
        if model.method != config.method:
            raise UserError(f"start: {config.start} is of {model.method}, not of {config.method}")
        return model.variables["params"], config.start
    try:
        found = checkpoints.restore(config.start)
    except UserError as error:
        raise UserError(f"start: {error} (--set start=RUN names the run to begin with)") from error
    if not {"params", "average"} <= found.state.keys():
        raise UserError(f"start: {config.start} has no parameters that {config.method} can take")
    return updates.restored_average(found.state), f"step {found.step} of {config.start}"


def _finished(folder: epath.Path, result: Result) -> Result:
    """Plots what there is in the end; the run may have been killed before it came to that."""
    if jax.process_index() == 0:
        rows = report.MetricsFile(folder / "metrics.jsonl", step=result.step).rows
        report.plot_curves(rows, folder / "curves.png")
    return result


def _open_batches(
    config: TrainConfig, method: Method, step: int, observer: report.Observer
) -> data.Batches:
    return data.Batches(
        config,
        start_step=step,
        kinds=method.kinds,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        warn=observer.note,
    )


class _Run:
    """The steps of a run, and what is due after each."""

    def __init__(
        self,
        config: TrainConfig,
        method: Method,
        folder: epath.Path,
        store: Checkpoints,
        batches: data.Batches,
        log: Log,
        should_stop: Callable[[], bool],
    ) -> None:
        self._config = config
        self._folder = folder
        self._store = store
        self._batches = batches
        self._log = log
        self._should_stop = should_stop
        self._phases = [(end, parallel.make_update(update)) for end, update in method.phases]
        self._update = parallel.make_update(method.update)
        self._evaluate = parallel.make_evaluate(method.evaluate)
        self._sample = parallel.make_sample(method.sample)
        self._finite = jax.jit(_finite)  # on the device, from which saving fetches the state anyway
        self._kinds = method.kinds
        self._pending: list[Any] = []  # metrics that are still on the device, a dict a step
        self._held_out: list[Any] = []
        self._shown: Any = None

    def go(self, state: Any, step: int, key: Any) -> int:
        """Trains until all steps are done or someone wants to stop; how many there were then."""
        stopping, update = False, None
        fold_in = jax.jit(jax.random.fold_in)  # else a millisecond a step
        while step < self._config.steps and not stopping:
            batch = self._next_batch()
            before, update = update, self._update_at(step)
            state, metrics = update(state, batch, fold_in(key, np.uint32(step)))
            step += 1
            self._pending.append(metrics)
            if update is not before:  # the first step waits for the compiler
                jax.block_until_ready(metrics)
                self._log.pace.begin(len(self._pending))
            self._log.observer.stepped(step)
            stopping = self._stops(step)
            self._after(state, step, stopping=stopping)
        self._store.wait()
        return step

    def _update_at(self, step: int) -> Callable[..., Any]:
        """The update to make after `step` others: that of the phase, or the last."""
        return next((update for end, update in self._phases if step < end), self._update)

    def _next_batch(self) -> Any:
        """The next batch; what is waited for it, while the device has nothing to do, is counted."""
        if not self._batches.ready:
            jax.block_until_ready(self._pending[-1:])  # until then the device is busy anyway
        elif len(self._pending) > _IN_FLIGHT:
            jax.block_until_ready(self._pending[-_IN_FLIGHT])
        begun = time.monotonic()
        batch = next(self._batches)
        self._log.pace.waited += time.monotonic() - begun
        return batch

    def _stops(self, step: int) -> bool:
        """Whether to stop here: all processes have to come to the same answer."""
        if jax.process_count() == 1:
            return self._should_stop()
        due = step % self._config.log_every == 0
        return due and parallel.any_process(self._should_stop())

    def _after(self, state: Any, step: int, *, stopping: bool) -> None:
        """Does what is due after a step."""
        config = self._config
        last = step == config.steps

        def due(every: int) -> bool:
            return every > 0 and (last or step % every == 0)

        save = stopping or due(config.checkpoint_every)
        if save or due(config.log_every):
            self._write_metrics(step)
        with self._log.pace.paused():
            held_out = None
            if due(config.evaluate_every):
                held_out = self._evaluate_held_out(state, step)
            if due(config.sample_every) and jax.process_index() == 0:
                self._write_samples(state, step)
            if save:
                self._check_state(state, step)
                self._log.flush()
                self._store.save(step, state, metrics=held_out, force=True)

    def _write_metrics(self, step: int) -> None:
        """Fetches the metrics since the last line, and writes their means as one."""
        rows = parallel.to_host(self._pending)
        first = step - len(rows) + 1
        self._pending = []
        for number, row in enumerate(rows, first):
            for name in _WATCHED:
                if not math.isfinite(row[name]):
                    raise self._failure(f"{name} is {float(row[name])} at step {number}")
        self._log.write_training(step, _means(rows), len(rows), self._config.batch_size)

    def _check_state(self, state: Any, step: int) -> None:
        """Sees to it that nothing bad is saved: a step may spoil what the next would find."""
        for path, finite in jax.tree.leaves_with_path(parallel.to_host(self._finite(state))):
            if not finite:
                name = jax.tree_util.keystr(path)
                raise self._failure(f"the state ({name}) is not finite after step {step}")

    def _failure(self, what: str) -> TrainingError:
        self._store.wait()
        good = self._store.latest_step()
        left = "there is no checkpoint yet"
        if good is not None:
            left = f"the last good checkpoint is that of step {good} in {self._folder}"
        return TrainingError(
            f"{what}; {left}; try a smaller --set optimizer.learning_rate=X, or a limit of the "
            "gradient, --set optimizer.clip_norm=1"
        )

    def _evaluate_held_out(self, state: Any, step: int) -> dict[str, float]:
        """The means of the metrics over the pictures that were kept out."""
        config = self._config
        if not self._held_out:
            self._held_out = data.fixed_batches(
                config,
                rows=config.batch_size,
                count=config.evaluate_batches,
                kinds=self._kinds,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                warn=self._log.observer.note,
            )
        found = parallel.to_host([self._evaluate(state, batch) for batch in self._held_out])
        means = _means(found)
        self._log.write_held_out(step, means)
        return means

    def _write_samples(self, state: Any, step: int) -> None:
        if self._shown is None:
            rows = self._config.samples
            warn, kinds = self._log.observer.note, self._kinds
            [self._shown] = data.fixed_batches(self._config, rows=rows, kinds=kinds, warn=warn)
        pictures = np.asarray(self._sample(state, self._shown))
        report.write_samples(pictures, self._folder / "samples" / f"{step:06}.png")


def _finite(state: Any) -> Any:
    """Whether each array is finite; of others than floating-point numbers, that they are."""

    def finite(leaf: Any) -> Any:
        return jnp.isfinite(leaf).all() if jnp.issubdtype(leaf.dtype, jnp.floating) else True

    return jax.tree.map(finite, state)


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The means of metrics, the loss first."""
    names = sorted(rows[0], key=lambda name: (name != "loss", name))
    return {name: float(np.mean([row[name] for row in rows])) for name in names}
