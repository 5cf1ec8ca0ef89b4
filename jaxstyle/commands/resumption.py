"""States of pixel optimisations, kept so that a run which was killed goes on where it was."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxstyle.errors import UserError, reason_of

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
        self._memory: int | None = None

    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, create=True
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def agree_on(self, memory: int | None, *, given: bool) -> int | None:
        """What an update may take: as it was before, unless the user says it, or else as it is now.

        Args:
            memory: bytes that it may take now; None where that decides nothing.
            given: the user has said it.
        """
        self._memory = memory
        if self._folder.is_dir() and not given:
            with self._manager() as manager:
                number = manager.latest_step()
                if number is not None:
                    self._memory = self._run(manager, number).get("memory", memory)
        return self._memory

    def _run(self, manager: Any, number: int) -> dict[str, Any]:
        """What is kept of a run beside its state; raises UserError if it is another's."""
        import orbax.checkpoint as ocp

        try:
            found = manager.restore(number, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
            run = found["run"]
            other = run["name"] != self._name
        except (OSError, ValueError, KeyError) as error:
            raise self._unreadable(error) from error
        if other:
            raise UserError(
                f"{self._folder} has the state of another picture, or of other settings: name "
                "another folder, or remove it to begin anew"
            )
        return run

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self._folder}: the state cannot be read: {reason_of(error)}")

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
            self._run(manager, number)
            scale, step = divmod(number, _STEPS)
            wanted = jax.eval_shape(
                lambda start: gatys_updates.init_state(start, config),
                jax.ShapeDtypeStruct((1, *sizes[scale - 1], 3), jnp.float32),
            )
            leaves, tree = jax.tree.flatten(wanted)
            abstract = {f"{index:03}": leaf for index, leaf in enumerate(leaves)}
            try:
                found = manager.restore(
                    number, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                )["state"]
            except (OSError, ValueError, KeyError) as error:
                raise self._unreadable(error) from error
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
                    state=ocp.args.StandardSave(state),
                    run=ocp.args.JsonSave({"name": self._name, "memory": self._memory}),
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
