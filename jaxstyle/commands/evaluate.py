"""`jaxstyle evaluate`: judges methods, and goes on with what was begun."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from jaxstyle.commands import processes
from jaxstyle.commands.interruption import Interruption, Wording
from jaxstyle.commands.progress import LINE_SECONDS, Progress, duration, warnings_shown

if TYPE_CHECKING:
    from jaxstyle.evaluation.config import EvaluateConfig

_WORDING = Wording(
    stopping="stopping after this picture; once more to quit at once",
    lost="quit at once; the same command goes on with the pictures that are done",
    nothing="stopped before the first picture; nothing is lost",
)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates, from the start or from what the folder has already.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code.

    Raises:
        UserError: a mistake in the command, the configuration or the data.
    """
    progress = Progress(quiet=arguments.quiet)
    stop = Interruption(progress.note, progress.complain, wording=_WORDING)
    with stop, warnings_shown(progress):
        try:
            return _evaluate(arguments, progress, stop)
        except KeyboardInterrupt:
            progress.end()
            progress.complain(stop.farewell)
            return stop.exit_code


def _evaluate(arguments: argparse.Namespace, progress: Progress, stop: Interruption) -> int:
    processes.start_alone(arguments, progress)
    from jaxstyle.evaluation import run as evaluation
    from jaxstyle.evaluation.config import EvaluateConfig, quick
    from jaxstyle.training.config import load_config, override

    begun = time.monotonic()
    config: EvaluateConfig = override(
        load_config(arguments.config, kind=EvaluateConfig), arguments.settings
    )
    config = quick(config) if arguments.quick else config
    lines = _Lines(progress)
    if arguments.survey is not None:
        finished = evaluation.write_survey(
            config,
            arguments.output,
            arguments.survey,
            overwrite=arguments.overwrite,
            note=lines,
            warn=progress.complain,
            stopping=stop.requested,
        )
        made = arguments.survey / "survey.html"
    else:
        finished = evaluation.evaluate(
            config,
            arguments.output,
            command=arguments.typed,
            note=lines,
            warn=progress.complain,
            stopping=stop.requested,
        )
        made = arguments.output / "report.html"
    spent = duration(time.monotonic() - begun)
    if not finished:
        progress.complain(f"stopped after {spent}; the same command goes on from here")
        return stop.exit_code
    progress.note(f"{made}: done, {spent}")
    return 0


class _Lines:
    """Lines about how far it is, no more of them than can be read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last = -LINE_SECONDS

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS:
            self._last = now
            self._progress.note(line)
