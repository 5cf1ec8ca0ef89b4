"""`jaxstyle sweep`: trains a configuration once for each value of a setting, and compares."""

from __future__ import annotations

import argparse
import gc

from jaxstyle.commands import processes, train
from jaxstyle.commands.interruption import Interruption
from jaxstyle.errors import UserError


def run(arguments: argparse.Namespace) -> int:
    """Trains one run after another, each from the start or from its last checkpoint.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code: 0 when all runs are done and after a stop that left a checkpoint, 1 where
        the numbers of a run became infinite or NaN; the others are trained nevertheless.

    Raises:
        UserError: a mistake in the command, the configuration or the data.
    """
    return train.supervised(arguments, _sweep)


def _sweep(arguments: argparse.Namespace, progress: train.TrainProgress, stop: Interruption) -> int:
    if len(arguments.vary) > 1:
        raise UserError("--vary is for one setting: expected it once")
    processes.start_jax(arguments, progress)
    import jax

    from jaxstyle.training import loop, parallel, sweep
    from jaxstyle.training.config import load_config, override

    config = override(load_config(arguments.config), arguments.settings)
    runs = sweep.plan(config, arguments.vary[0], arguments.workdir)
    for variant in runs.variants:  # before the first one has taken its hours
        parallel.check_batch(variant.config)
    outcomes: dict[str, str] = {}
    for number, variant in enumerate(runs.variants, 1):
        name = f"{runs.setting}={variant.value}"
        if parallel.any_process(stop.requested()):
            progress.note(f"stopped before {name}; the same command goes on from here")
            break
        stop.can_save = False  # nothing of this run is there to save yet
        progress.note(f"{name}: run {number} of {len(runs.variants)}")
        finished = True
        try:
            finished = train.train(
                variant.config,
                str(variant.folder),
                progress,
                stop,
                tensorboard=arguments.tensorboard,
            )
            outcomes[variant.value] = "done" if finished else "stopped"
        except loop.TrainingError as error:
            progress.end()
            progress.complain(f"jaxstyle: error: {name}: {error}")
            outcomes[variant.value] = "diverged"
        if jax.process_index() == 0:
            sweep.write_comparison(runs, outcomes)
        if not finished:
            break
        jax.clear_caches()  # programs hold the perceptual networks: gigabytes a run
        gc.collect()
    progress.note(f"{runs.folder}: comparison.md, comparison.png")
    return 1 if "diverged" in outcomes.values() else 0
