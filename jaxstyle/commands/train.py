"""`jaxstyle train`: trains a method as a configuration says, and goes on with what was begun."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from jaxstyle.commands import processes
from jaxstyle.commands.interruption import Interruption, Wording
from jaxstyle.commands.progress import LINE_SECONDS, Progress, duration, warnings_shown
from jaxstyle.errors import UserError

if TYPE_CHECKING:
    from jaxstyle.training.config import TrainConfig
    from jaxstyle.training.report import Row

_WORDING = Wording(
    stopping="stopping after this step, with a checkpoint; once more to quit at once",
    lost="quit at once; what came after the last checkpoint is lost",
    nothing="stopped before the first step; nothing is lost",
)
_WAITING_SHOWN = 0.05  # share of time; less of it is not worth a word


def run(arguments: argparse.Namespace) -> int:
    """Trains, from the start or from the last checkpoint in the folder of the run.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code: 0 when all steps are done and after a stop that left a checkpoint, 1 where
        the numbers became infinite or NaN.

    Raises:
        UserError: a mistake in the command, the configuration or the data.
    """
    return supervised(arguments, _train)


def supervised(
    arguments: argparse.Namespace,
    work: Callable[[argparse.Namespace, TrainProgress, Interruption], int],
) -> int:
    """Does what trains, with progress shown and Ctrl-C and SIGTERM heard.

    Args:
        arguments: as parsed by the command line.
        work: takes them, where to show progress, and what hears signals; gives the exit code.

    Returns:
        Its exit code, or that of a run that was quit at once.
    """
    progress = TrainProgress(quiet=arguments.quiet)
    stop = Interruption(progress.note, progress.complain, wording=_WORDING, nothing_code=0)
    with stop, warnings_shown(progress):
        try:
            return work(arguments, progress, stop)
        except KeyboardInterrupt:
            progress.end()
            progress.complain(stop.farewell)
            return stop.exit_code
        finally:
            progress.end()


def _train(arguments: argparse.Namespace, progress: TrainProgress, stop: Interruption) -> int:
    processes.start_jax(arguments, progress)
    from jaxstyle.training import loop
    from jaxstyle.training.config import load_config, override

    config = override(load_config(arguments.config), arguments.settings)
    try:
        train(config, arguments.workdir, progress, stop, tensorboard=arguments.tensorboard)
    except loop.TrainingError as error:
        progress.end()
        progress.complain(f"jaxstyle: error: {error}")
        return 1
    return 0


def train(
    config: TrainConfig,
    workdir: str,
    progress: TrainProgress,
    stop: Interruption,
    *,
    tensorboard: bool,
) -> bool:
    """Trains one run, and says how it ended.

    Args:
        config: what to train.
        workdir: folder of the run.
        progress: where to show how it goes.
        stop: says when to stop.
        tensorboard: write the metrics for TensorBoard, too.

    Returns:
        Whether all steps are done; else it was stopped, with a checkpoint.

    Raises:
        UserError: a mistake in the configuration or the data, or not enough memory.
        loop.TrainingError: the numbers became infinite or NaN.
    """
    import jax

    from jaxstyle.training import loop

    begun = time.monotonic()
    try:
        result = loop.train(
            config,
            workdir,
            observer=progress,
            should_stop=stop.requested,
            tensorboard=tensorboard,
        )
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"not enough memory at batch_size {config.batch_size} and crop_size "
            f"{config.crop_size}: try smaller ones, or --set accumulate=N"
        ) from error
    progress.end()
    state = "done" if result.finished else "stopped; the same command goes on from here"
    seconds = duration(time.monotonic() - begun)
    progress.note(f"{result.workdir}: step {result.step} of {config.steps}, {seconds}; {state}")
    return result.finished


class TrainProgress(Progress):
    """Shows how far a run of training is: a bar on a terminal, sparse lines elsewhere."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._steps = 0
        self._step = 0
        self._first: tuple[int, float] | None = None  # step and time, when the compiler was done

    def started(self, step: int, steps: int) -> None:
        """The run begins, or goes on, after `step` of `steps` updates."""
        self._steps, self._step, self._first = steps, step, None  # there may have been one before
        if self.quiet:
            return
        waiting = f"step {step}/{steps}  compiling"
        if self._terminal:
            self._bar = tqdm(
                total=steps,
                initial=step,
                desc=waiting,
                bar_format="{desc} |{bar}| {percentage:3.0f}%{postfix}",
                file=self._stream,
                dynamic_ncols=True,
                leave=False,
            )
        else:
            self.note(waiting)

    def stepped(self, step: int) -> None:
        """This many updates are made."""
        self._step = step
        if self._first is None:
            self._first = step, self._clock()
        if self._bar is not None:
            self._bar.set_description_str(f"step {step}/{self._steps}", refresh=False)
            self._bar.update(step - self._bar.n)

    def logged(self, row: Row) -> None:
        """Shows a line of metrics."""
        from jaxstyle.training.report import HELD_OUT

        held_out = {k.removeprefix(HELD_OUT): v for k, v in row.items() if k.startswith(HELD_OUT)}
        where = f"step {row['step']}/{self._steps}"
        if held_out:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in held_out.items())
            self.note(f"{where}  held out: {shown}")
            return
        text = self._summary(row)
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._clock() - self._last_line >= LINE_SECONDS or row["step"] == self._steps:
            self._last_line = self._clock()
            self.note(f"{where}  {text}")

    def _summary(self, row: Row) -> str:
        parts = [f"loss {row['loss']:.4g}"]
        if "images_per_second" in row:
            parts.append(f"{row['images_per_second']:.3g} images/s")
        if row.get("waiting", 0) >= _WAITING_SHOWN:
            parts.append(f"waiting for data {row['waiting']:.0%}")
        left = self._seconds_left()
        if left is not None:
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)

    def _seconds_left(self) -> float | None:
        """By the pace since the first step, with all that comes between steps."""
        if self._first is None or self._step == self._first[0]:
            return None
        step, begun = self._first
        return (self._clock() - begun) / (self._step - step) * (self._steps - self._step)
