"""Checkpoints of a run: the only module that knows Orbax.

A checkpoint holds the state, as NumPy arrays, and the configuration, so that neither the devices
that wrote it nor a configuration file is needed to read it. They lie in `checkpoints/STEP` of the
work directory, which may be in a bucket (`gs://...`); several processes share one work directory.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import orbax.checkpoint as ocp
from etils import epath

from jaxstyle.errors import UserError
from jaxstyle.training import parallel, trees
from jaxstyle.training.config import TrainConfig, from_json, to_json

FOLDER = "checkpoints"

Which: TypeAlias = int | Literal["latest", "best"]

_logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A checkpoint that was read: its step, its state and its configuration."""

    step: int
    state: Any
    config: TrainConfig


def workdir_path(workdir: str | os.PathLike[str]) -> epath.Path:
    """A work directory as a path: absolute where it is local, as it is where it is in a bucket."""
    path = epath.Path(workdir).expanduser()
    # Path.absolute() would take a bucket for a folder of the current one.
    return path if "://" in str(path) else epath.Path(os.path.abspath(path))  # noqa: PTH100


class Checkpoints:
    """The checkpoints of a work directory, to write and to resume from; a context manager.

    The latest `config.keep_checkpoints` are kept, and the one with the lowest `config.best_metric`
    among those saved with metrics. Every process of a run calls the same methods in the same order.

    Args:
        workdir: folder of the run, made if it is missing; other files in it are left alone.
        config: settings of the run, saved along.
        warn: takes one line about a checkpoint that could not be read and is passed over.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        config: TrainConfig,
        *,
        warn: Callable[[str], None] = _logger.warning,
    ) -> None:
        self._config = config
        self._warn = warn
        self._directory = workdir_path(workdir) / FOLDER
        self._keep = _Keep(config.keep_checkpoints)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._keep,
            cleanup_tmp_directories=True,  # what a killed run left half-written
        )
        with _one_line(f"{self._directory} cannot hold checkpoints"):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._manager = _open(self._directory, options)
        self._keep.values |= _values(self._manager, config.best_metric)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self,
        step: int,
        state: Any,
        *,
        metrics: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> bool:
        """Saves a state, in the background: it is copied at once, and may be donated afterwards.

        Args:
            step: updates that made the state.
            state: a pytree of arrays, replicated over the devices.
            metrics: held-out metrics; with them the checkpoint may become the best.
            force: save also at a step that is no multiple of `config.checkpoint_every`.

        Returns:
            Whether it is being saved: not between multiples, nor where it has been already.

        Raises:
            UserError: this checkpoint, or the one before, could not be written, or the metrics have
                no `config.best_metric`.
        """
        if step in self.steps() or not (force or step % self._config.checkpoint_every == 0):
            return False
        numbers = {name: float(value) for name, value in (metrics or {}).items()}
        if metrics is not None and self._config.best_metric not in numbers:
            known = ", ".join(sorted(numbers)) or "none"
            raise UserError(
                f"best_metric {self._config.best_metric!r} is not among the metrics ({known})"
            )
        with _one_line(f"the checkpoint of step {step} could not be written to {self._directory}"):
            if step in self._manager.all_steps():  # a damaged one
                self._manager.delete(step)
                self._keep.damaged.discard(step)
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(parallel.to_host(trees.without_keys(state))),
                config=ocp.args.JsonSave(to_json(self._config)),
                held_out=ocp.args.JsonSave(numbers),
            )
            self._keep.values[step] = _value(numbers, self._config.best_metric)
            return self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Waits until what is being saved is safe.

        Raises:
            UserError: it could not be written.
        """
        with _one_line(f"a checkpoint could not be written to {self._directory}"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, and ends the threads of this object."""
        with _one_line(f"a checkpoint could not be written to {self._directory}"):
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints, those being saved included and damaged ones left out."""
        return sorted(set(self._manager.all_steps()) - self._keep.damaged)

    def latest_step(self) -> int | None:
        """The last step of which there is a checkpoint, None if there is no checkpoint."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step with the lowest `config.best_metric`, None if none was saved with metrics."""
        return _lowest({step: self._keep.values[step] for step in self.steps()})

    def restore(self, abstract_state: Any, step: int | None = None) -> Any:
        """The state of a checkpoint, replicated over the local devices.

        Args:
            abstract_state: a state, or `jax.eval_shape` of one: the structure, shapes and types.
            step: which checkpoint; None for the latest that can be read. A damaged one is passed
                over with a warning, and `latest_step` then says which one it was.

        Raises:
            UserError: there is none, none can be read, or it has other shapes than asked for.
        """
        steps = [step] if step is not None else self.steps()[::-1]
        for candidate in steps:
            raw, problem = None, None
            try:
                raw = _read(self._manager, candidate, "state", "config").state
            except _UNREADABLE as error:
                problem = _first_line(error)
            if not parallel.any_process(problem is not None):
                where = f"the checkpoint of step {candidate} in {self._directory}"
                return parallel.replicate(trees.in_form_of(abstract_state, raw, where))
            self._keep.damaged.add(candidate)
            text = problem or "another process could not read it"
            self._warn(f"the checkpoint of step {candidate} is damaged and passed over: {text}")
        which = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise UserError(f"there is no {which} in {self._directory} that can be read")


def restore_config(workdir: str | os.PathLike[str], which: Which | None = None) -> TrainConfig:
    """The configuration of a run, out of one of its checkpoints; as `restore`."""
    return _restore(workdir, "latest" if which is None else which, config_only=True).config


def restore(
    workdir: str | os.PathLike[str],
    which: Which = "latest",
    *,
    abstract_state: Any = None,
    method: str | None = None,
) -> Restored:
    """A checkpoint of a run, with nothing written.

    Args:
        workdir: folder of the run.
        which: a step, `latest`, or `best`: the lowest `best_metric` of the run's configuration, the
            latest where there are no metrics. Of the latest, damaged ones are passed over.
        abstract_state: as in `Checkpoints.restore`. Without it, tuples with names and dataclasses
            become dicts, and tuples lists.
        method: what must have been trained; None for anything.

    Returns:
        The state as NumPy arrays, wherever it was computed.

    Raises:
        UserError: there is no such checkpoint, it cannot be read, it has other shapes, or it is of
            another method.
    """
    found = _restore(workdir, which, config_only=False)
    if method is not None and found.config.method != method:
        raise UserError(f"{workdir} is a run of {found.config.method}: expected one of {method}")
    if abstract_state is None:
        return found
    where = f"the checkpoint of step {found.step} in {workdir_path(workdir) / FOLDER}"
    return found._replace(state=trees.in_form_of(abstract_state, found.state, where))


def _restore(workdir: str | os.PathLike[str], which: Which, *, config_only: bool) -> Restored:
    directory = workdir_path(workdir) / FOLDER
    if not directory.is_dir():
        raise UserError(f"there are no checkpoints in {directory}")
    problem = "there is no such checkpoint"
    options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
    with contextlib.closing(_open(directory, options)) as manager:
        steps = sorted(manager.all_steps(), reverse=True)
        if which == "best" and steps:
            metric = _restore(workdir, "latest", config_only=True).config.best_metric
            best = _lowest(_values(manager, metric))
            steps = steps if best is None else [best]
        elif which not in ("latest", "best"):
            steps = [step for step in steps if step == which]
        for step in steps:
            try:
                items = _read(manager, step, "config", *([] if config_only else ["state"]))
            except _UNREADABLE as error:
                problem = _first_line(error)
                continue
            try:
                return Restored(step, items.get("state"), from_json(items.config))
            except ValueError as error:
                raise UserError(f"the configuration in {directory / str(step)}: {error}") from error
    raise UserError(f"no checkpoint ({which}) in {directory} can be read: {problem}")


# Orbax


class _Keep:
    """Which checkpoints are kept, as Orbax asks: a preservation policy."""

    def __init__(self, latest: int) -> None:
        self._latest = latest
        self.values: dict[int, float] = {}  # of each step, what is to be low
        self.damaged: set[int] = set()  # removed when the next one has been written

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """A flag for each checkpoint, in the order given."""
        del context
        steps = {info.step for info in checkpoints} - self.damaged
        sound = {step: self.values[step] for step in steps}
        kept = set(sorted(sound)[-self._latest :])
        best = _lowest(sound)
        return [info.step in kept or info.step == best for info in checkpoints]


def _lowest(values: Mapping[int, float]) -> int | None:
    """The step of the lowest value, the later one of equals; None if none is finite."""
    step = min(values, key=lambda step: (values[step], -step), default=None)
    return None if step is None or math.isinf(values[step]) else step


def _values(manager: ocp.CheckpointManager, metric: str) -> dict[int, float]:
    """The held-out metric of each checkpoint."""
    values = {}
    for step in manager.all_steps():
        values[step] = math.inf
        with contextlib.suppress(*_UNREADABLE):
            values[step] = _value(_read(manager, step, "held_out").held_out, metric)
    return values


def _value(metrics: Mapping[str, float], metric: str) -> float:
    """What is to be low; infinite where it is missing or not a number."""
    value = float(metrics.get(metric, math.inf))
    return value if math.isfinite(value) else math.inf


def _open(directory: epath.Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    # What Orbax logs is for its developers; what fails raises. Twice added is added once.
    logging.getLogger("absl").addFilter(_not_orbax)
    return ocp.CheckpointManager(
        directory, options=options, item_names=("state", "config", "held_out")
    )


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


# What reading a damaged checkpoint raises, out of Orbax, TensorStore and the parser of JSON.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


def _read(manager: ocp.CheckpointManager, step: int, *items: str) -> Any:
    """Items of a checkpoint: the state comes without its classes.

    Read as NumPy arrays: an array of JAX would be bound to the devices that wrote it.
    """
    kinds = {
        item: ocp.args.StandardRestore() if item == "state" else ocp.args.JsonRestore()
        for item in items
    }
    with _no_stragglers():
        return manager.restore(step, args=ocp.args.Composite(**kinds))


@contextlib.contextmanager
def _no_stragglers() -> Iterator[None]:
    """Keeps what is left of a read that failed from printing a traceback for each array.

    All arrays are read at once, and the first that fails closes the event loop under the others.
    """
    hook = sys.unraisablehook
    asyncio_logger = logging.getLogger("asyncio")

    def ours(record: Any) -> bool:
        return "Event loop is closed" in str(record.exc_value)

    def unretrieved(record: logging.LogRecord) -> bool:
        return "never retrieved" not in record.getMessage()

    sys.unraisablehook = lambda found: None if ours(found) else hook(found)
    asyncio_logger.addFilter(unretrieved)
    try:
        yield
    except _UNREADABLE:
        time.sleep(0.2)  # until the last of them has come
        gc.collect()
        raise
    finally:
        sys.unraisablehook = hook
        asyncio_logger.removeFilter(unretrieved)


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return textwrap.shorten(line, 200, placeholder=" ...")
