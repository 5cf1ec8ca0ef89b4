"""Arrays of a picture's size in the host's memory, where its pixels are optimised in tiles.

Those of the optimiser's state are updated in place, some rows at a time; where they would take too
much of the memory, all of them are mapped from files.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import strips, tiling
from jaxstyle.config import StylizeConfig
from jaxstyle.errors import UserError, reason_of
from jaxstyle.methods import gatys_updates
from jaxstyle.methods.gatys_parts import compiled_here
from jaxstyle.objective import to_variables


class Room(NamedTuple):
    """Where arrays of the picture's size are kept.

    Attributes:
        mapped: in files without a name, which the system writes out where memory runs short.
    """

    mapped: bool

    @classmethod
    def of(cls, needed: int) -> Room:
        """Memory, if so many bytes leave a quarter of it free.

        Not sooner than must be: what changes in files is written to the disk over and over.

        Args:
            needed: by the arrays, and by what is computed of them at a time.
        """
        return cls(needed > tiling.host_memory() // 4 * 3)

    def zeros(self, shape: Sequence[int]) -> np.ndarray:
        """An array of float32.

        Raises:
            MemoryError: there is no memory for it.
            UserError: there is no room on the disk.
        """
        if not self.mapped:
            # Not from the allocator, which would keep it, in pieces, for what is smaller.
            size = max(4 * math.prod(shape), 1)
            try:
                memory = mmap.mmap(-1, size)
            except OSError as error:
                raise MemoryError(f"no {size} bytes: {reason_of(error)}") from error
            return np.frombuffer(memory, np.float32, math.prod(shape)).reshape(shape)
        with tempfile.TemporaryFile(prefix="jaxstyle-") as file:
            _allot(file.fileno(), max(4 * math.prod(shape), 1))
            # The map keeps the file until the array is gone.
            return np.asarray(np.memmap(file, np.float32, "w+", shape=tuple(shape)))

    def copy(self, array: Any) -> np.ndarray:
        """A copy; arrays that are no pictures are kept in memory."""
        array = np.asarray(array)
        if array.ndim < 4:
            return array.copy()
        kept = self.zeros(array.shape)
        kept[...] = array
        return kept


MEMORY = Room(mapped=False)
"""Never in files."""


def _allot(file: int, size: int) -> None:
    """Takes the room of a file now: a map of one that has none ends the process when written to."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()} has no room for {size / 2**30:.1f} GiB, which memory has "
            f"not either ({reason_of(error)}): set TMPDIR to a folder with more, or choose a "
            "smaller --size"
        ) from error


def first_state(start: np.ndarray, config: StylizeConfig, room: Room) -> Any:
    """`gatys_updates.init_state`, of arrays that are updated in place.

    Args:
        start: the first picture, `[1, height, width, 3]`.
        config: settings.
        room: for the arrays.
    """
    # Of one pixel: all others begin alike, but for the picture itself.
    small = gatys_updates.init_state(jnp.asarray(start[:, :1, :1]), config)

    def large(leaf: Array) -> np.ndarray:
        if leaf.ndim < 4:
            return np.asarray(leaf)
        return room.zeros((*leaf.shape[:-4], *start.shape))

    state = jax.tree.map(large, small)
    for strip in strips.band_slices(*start.shape[1:3]):
        state.variables[:, strip] = to_variables(jnp.asarray(start[:, strip]), config)
    return state


# --- updates in place ----------------------------------------------------------------------------


def descend(state: Any, gradient: np.ndarray, config: StylizeConfig, shown: np.ndarray) -> Any:
    """`gatys_updates.descend` in place, of optimisers that update each pixel by itself.

    Args:
        state: NumPy arrays.
        gradient: `[1, height, width, 3]`.
        config: settings.
        shown: gets the picture.

    Returns:
        The state, whose scalars are new.
    """
    return _in_strips(_descended, state, gradient, config, shown)


def move(state: Any, variables: np.ndarray, config: StylizeConfig, shown: np.ndarray) -> Any:
    """`gatys_updates.move` in place; arguments and result as `descend` has them."""
    optimizer = state.opt_state
    made = _in_strips(_moved, state._replace(opt_state=()), variables, config, shown)
    return made._replace(opt_state=optimizer)


def _in_strips(
    function: Callable[..., Any],
    state: Any,
    given: np.ndarray,
    config: StylizeConfig,
    shown: np.ndarray,
) -> Any:
    leaves, tree = jax.tree.flatten(state)
    large = [np.shape(leaf) == given.shape for leaf in leaves]
    fresh = leaves
    for strip in strips.band_slices(*given.shape[1:3]):
        parts = [leaf[:, strip] if cut else leaf for leaf, cut in zip(leaves, large, strict=True)]
        made, picture = function(tree.unflatten(parts), given[:, strip], config=config)
        fresh = jax.tree.leaves(made)
        shown[:, strip] = picture
        for leaf, new, cut in zip(leaves, fresh, large, strict=True):
            if cut:
                leaf[:, strip] = new
    pairs = zip(leaves, fresh, large, strict=True)
    return tree.unflatten([old if cut else np.asarray(new) for old, new, cut in pairs])


@compiled_here
def _descended(state: Any, gradient: Array, *, config: StylizeConfig) -> Any:
    return gatys_updates.descend(state, gradient, config)


@compiled_here
def _moved(state: Any, variables: Array, *, config: StylizeConfig) -> Any:
    return gatys_updates.move(state, variables, config)
