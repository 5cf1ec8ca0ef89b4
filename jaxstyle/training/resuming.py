"""Which settings may change between the parts of a run."""

from __future__ import annotations

from collections.abc import Callable

from jaxstyle import models
from jaxstyle.errors import UserError
from jaxstyle.training.config import TrainConfig, to_json

# What may differ from the checkpoint: how long, how fast, where the pictures are, what is shown.
# All else shapes the parameters or the order of the data.
_FREE = (
    *("steps", "checkpoint_every", "keep_checkpoints", "best_metric", "log_every"),
    *("evaluate_every", "evaluate_batches", "sample_every", "samples", "accumulate"),
    *("data.content", "data.style", "data.held_out", "data.held_out_style", "data.tfds_dir"),
    *("data.threads", "data.prefetch"),
    *("optimizer.learning_rate", "optimizer.schedule", "optimizer.warmup_steps"),
    "optimizer.final_fraction",
)


def check(config: TrainConfig, saved: TrainConfig, *, note: Callable[[str], None]) -> None:
    """Compares the settings of a run with those of its checkpoint.

    Args:
        config: the settings to go on with.
        saved: those of the checkpoint.
        note: takes a line about settings that have changed and may.

    Raises:
        UserError: a setting has changed that a run cannot go on without.
    """
    before, now = (models.flat(to_json(x), separator=".") for x in (saved, config))
    changed = [name for name in now | before if before.get(name) != now.get(name)]
    for name in changed:
        if name not in _FREE:
            raise UserError(
                f"the checkpoint was made with {name}={before.get(name)!r}, but this run has "
                f"{now.get(name)!r}: set it back with --set {name}={before.get(name)}, or choose "
                "another --workdir"
            )
    if changed:
        changes = ", ".join(f"{name} {before.get(name)!r} -> {now.get(name)!r}" for name in changed)
        note(f"settings that differ from those of the checkpoint: {changes}")
