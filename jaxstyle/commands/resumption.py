"""States of pixel optimisations, kept so that a run which was killed goes on where it was.

A state is a folder with a file for each of its arrays, written as they lie in memory and read
straight into it: of a large picture a copy would be hundreds of megabytes. It is written beside its
place and renamed, and the one before stays until it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from jaxstyle.errors import UserError, reason_of

if TYPE_CHECKING:
    from jaxstyle.config import StylizeConfig
    from jaxstyle.methods.gatys import Iterate

_KEPT = 2  # the one before stays until the next is whole
_STEPS = 10**7  # more than a scale has updates
_RUN, _LOCK, _PARTIAL = "run.json", "lock", ".partial"
# What reading a damaged state raises.
_UNREADABLE = (OSError, EOFError, ValueError)

_log = logging.getLogger(__name__)


def fingerprint(*parts: Any) -> str:
    """A short name of all that a picture depends on: arrays, and what prints the same."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part).data)  # as it lies there, without a copy
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()[:16]


def state_folder(folder: Path, output: Path) -> Path:
    """Where the state of a picture is kept: no picture has such a name, so it may lie among them.

    Args:
        folder: of all states.
        output: file of the picture.
    """
    return folder / f"{output.name}.state"


def has_states(folder: Path) -> bool:
    """Whether there is a state in a folder that `state_folder` names."""
    return bool(_numbers(folder))


class Resumption:
    """The folder of one optimisation's state.

    Args:
        folder: is made when a state is kept.
        name: fingerprint of the run.
        files: what the run writes, which one that goes on may replace.

    Raises:
        UserError: the folder has the state of another run, or none that can be read.
    """

    def __init__(self, folder: Path, name: str, *, files: Sequence[Path] = ()) -> None:
        self._folder = folder.absolute()
        self._name = name
        self._files = [str(path.absolute()) for path in files]
        self._memory: int | None = None
        self._damaged: list[int] = []  # removed when there is another one to keep

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder, and keeps other runs away from it; one that stays empty goes again.

        Raises:
            UserError: another run has it, or nothing can be written there.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = _lock(self._folder / _LOCK)
            for name in self._partial():  # what a run that was killed has left
                shutil.rmtree(self._folder / name)
        except OSError as error:
            problem = f"{self._folder}: no state can be kept there: {reason_of(error)}"
            raise UserError(problem) from error
        try:
            yield
        finally:
            # Not after it is closed: it could be another's by then.
            with contextlib.suppress(OSError):
                (self._folder / _LOCK).unlink()
            file.close()
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def agree_on(self, memory: int | None, *, given: bool) -> int | None:
        """What an update may take: as it was before, unless the user says it, or else as it is now.

        Args:
            memory: bytes that it may take now; None where that decides nothing.
            given: the user has said it.
        """
        run = None if given else self._latest_run()
        self._memory = memory if run is None else run["memory"]
        return self._memory

    def files(self) -> list[str]:
        """What this very run has written before it was stopped; nothing if there is no state of it.

        Returns:
            Absolute paths.
        """
        try:
            run = self._latest_run()
        except UserError:
            return []
        return [] if run is None else run["files"]

    def _latest_run(self) -> dict[str, Any] | None:
        for number in _numbers(self._folder):
            with contextlib.suppress(*_UNREADABLE):
                return self._run(number)
        return None

    def _run(self, number: int) -> dict[str, Any]:
        """What is kept of a run beside its state; raises UserError if it is another's."""
        run = json.loads((self._folder / str(number) / _RUN).read_text(encoding="utf-8"))
        if not isinstance(run, dict) or not {"name", "memory", "files"} <= run.keys():
            raise ValueError(f"{_RUN} is of something else")
        if run["name"] != self._name:
            raise UserError(
                f"{self._folder} has the state of another picture, or of other settings: name "
                "another folder, or remove it to begin anew"
            )
        return run

    def latest(self, sizes: list[tuple[int, int]], config: StylizeConfig) -> Iterate | None:
        """Where to go on, with nothing but its place and its state; None to begin.

        A state that cannot be read is passed over, with a warning, if there is one before it.

        Args:
            sizes: of the scales.
            config: settings of the run.
        """
        import jax.numpy as jnp

        from jaxstyle.methods import gatys

        self._damaged, problem = [], ""
        for number in _numbers(self._folder):
            scale, step = divmod(number, _STEPS)
            try:
                self._run(number)
                state = self._state(number, sizes[:scale], config)
            except _UNREADABLE as error:
                problem = reason_of(error)
                self._damaged.append(number)
                continue
            if problem:
                _log.warning(
                    "%s: the latest state cannot be read (%s): going back to the one before",
                    *(self._folder, problem),
                )
            return gatys.Iterate(jnp.zeros((1, 1, 3)), step, 0, scale, len(sizes), {}, state)
        if problem:
            raise UserError(
                f"{self._folder}: no state in it can be read ({problem}): remove that folder to "
                "begin anew"
            )
        return None

    def _state(self, number: int, sizes: list[tuple[int, int]], config: StylizeConfig) -> Any:
        """Reads the state at the last of some scales; raises what `_UNREADABLE` has."""
        import jax
        import jax.numpy as jnp

        from jaxstyle import tiling
        from jaxstyle.methods import gatys_updates
        from jaxstyle.rows import PICTURE_AXES

        if not sizes:
            raise ValueError("its number is of no scale")
        wanted = jax.eval_shape(
            lambda start: gatys_updates.init_state(start, config),
            jax.ShapeDtypeStruct((1, *sizes[-1], 3), jnp.float32),
        )
        leaves, tree = jax.tree.flatten(wanted)
        # What has no room in memory is copied from file to file, a part at a time: tiles keep such
        # arrays in files of their own.
        size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
        mode: Literal["c"] | None = "c" if size > tiling.host_memory() // 2 else None
        found = []
        for index, leaf in enumerate(leaves):
            mapped = mode if leaf.ndim >= PICTURE_AXES else None
            array = np.load(self._array(number, index), mmap_mode=mapped, allow_pickle=False)
            if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(f"expected {leaf.dtype}{leaf.shape}; got {array.shape}")
            found.append(array)
        return tree.unflatten(found)

    def _array(self, number: int | str, index: int) -> Path:
        return self._folder / str(number) / f"{index:03}.npy"

    def keep(self, iterate: Iterate) -> None:
        """Keeps the state after an update, before the next one is asked for.

        Raises:
            OSError: it cannot be written.
        """
        import jax

        number = iterate.scale * _STEPS + iterate.step
        partial = f"{number}{_PARTIAL}"
        folder = self._folder / partial
        for name in (partial, *map(str, self._damaged), str(number)):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        self._damaged = []
        folder.mkdir(parents=True)
        try:
            for index, leaf in enumerate(jax.tree.leaves(iterate.state)):
                with self._array(partial, index).open("wb") as file:
                    np.save(file, np.asarray(leaf), allow_pickle=False)
                    _to_disk(file)
            run = {"name": self._name, "memory": self._memory, "files": self._files}
            with (folder / _RUN).open("w", encoding="utf-8") as file:
                json.dump(run, file)
                _to_disk(file)
            folder.rename(self._folder / str(number))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for old in _numbers(self._folder)[_KEPT:]:
            shutil.rmtree(self._folder / str(old))

    def finish(self) -> None:
        """Removes the states, and nothing else: the picture is there."""
        for name in (*map(str, _numbers(self._folder)), *self._partial()):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # something else is there, or nothing
            self._folder.rmdir()

    def _partial(self) -> list[str]:
        return [name for name in _names(self._folder) if re.fullmatch(rf"\d+{_PARTIAL}", name)]


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _numbers(folder: Path) -> list[int]:
    """The states in a folder, the latest first."""
    names = (name for name in _names(folder) if re.fullmatch("[1-9][0-9]*", name))
    return sorted(map(int, names), reverse=True)


def _to_disk(file: IO[Any]) -> None:
    """So that a machine that fails, too, leaves the state whole, or the one before."""
    file.flush()
    os.fsync(file.fileno())


def _lock(path: Path) -> IO[str]:
    """Opens a file as this process's alone, as long as it is open: that of a process that is gone
    is nobody's.

    Raises:
        UserError: another process has it.
        OSError: it cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        return path.open("a+", encoding="utf-8")
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise UserError(
                f"{path.parent} is in use by another run{owner and f' (process {owner})'}: wait "
                "for its end, or name another folder with --state"
            ) from None
        except OSError:  # a file system without locks
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                return file
        file.close()  # whoever had it has removed it meanwhile
