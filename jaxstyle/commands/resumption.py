"""States of pixel optimisations, kept so that a run which was killed goes on where it was."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxstyle.errors import UserError

if TYPE_CHECKING:
    from jaxstyle.config import StylizeConfig
    from jaxstyle.methods.gatys import Iterate

_KEPT = 2  # the one before stays until the next is whole
_STEPS = 10**7  # more than a scale has updates


def fingerprint(*parts: Any) -> str:
    """A short name of all that a picture depends on: arrays, and what prints the same."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr(part.shape).encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


class Resumption:
    """The folder of one optimisation's state.

    Args:
        folder: is made when a state is kept.
        name: fingerprint of the run.

    Raises:
        UserError: the folder has the state of another run, or cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder.absolute()
        self._name = name

    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, create=True
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def latest(self, sizes: list[tuple[int, int]], config: StylizeConfig) -> Iterate | None:
        """Where to go on, with nothing but its place and its state; None to begin.

        Args:
            sizes: of the scales.
            config: settings of the run.
        """
        import jax
        import jax.numpy as jnp
        import orbax.checkpoint as ocp

        from jaxstyle.methods import gatys, gatys_updates

        if not self._folder.is_dir():
            return None
        with self._manager() as manager:
            number = manager.latest_step()
            if number is None:
                return None
            try:
                run = manager.restore(number, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
                if run["run"]["name"] != self._name:
                    raise UserError(
                        f"{self._folder} has the state of another picture, or of other settings: "
                        "name another folder, or remove it to begin anew"
                    )
                scale, step = divmod(number, _STEPS)
                wanted = jax.eval_shape(
                    lambda start: gatys_updates.init_state(start, config),
                    jax.ShapeDtypeStruct((1, *sizes[scale - 1], 3), jnp.float32),
                )
                leaves, tree = jax.tree.flatten(wanted)
                abstract = {f"{index:03}": leaf for index, leaf in enumerate(leaves)}
                found = manager.restore(
                    number, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                )["state"]
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{self._folder}: the state cannot be read: {error}") from error
        state = tree.unflatten([np.asarray(found[name]) for name in sorted(found)])
        return gatys.Iterate(jnp.zeros((1, 1, 3)), step, 0, scale, len(sizes), {}, state)

    def keep(self, iterate: Iterate) -> None:
        """Keeps the state after an update, before the next one is asked for."""
        import jax
        import orbax.checkpoint as ocp

        leaves = jax.tree.leaves(iterate.state)
        state = {f"{index:03}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
        with self._manager() as manager:
            manager.save(
                iterate.scale * _STEPS + iterate.step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), run=ocp.args.JsonSave({"name": self._name})
                ),
            )

    def finish(self) -> None:
        """Removes the states: the picture is there."""
        with self._manager() as manager:
            numbers = manager.all_steps()
        for number in numbers:
            shutil.rmtree(self._folder / str(number))
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()
