"""What the command sets up, and the import never does: allocator, logs, cache, device."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import stat
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxstyle.errors import UserError, reason_of

if TYPE_CHECKING:
    import jax

# Parameters of mallopt(3) in glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_LARGE_BLOCK = 2**28  # bytes
_TUNED = threading.Event()  # `tune_allocator` was called in this process

_CACHE_BYTES = 2 * 2**30  # a compiled step is about a megabyte
_CACHE_SECONDS = 0.1  # what compiles in less is not worth a file


def prepare(*, device: str | None, warn: Callable[[str], None]) -> None:
    """Sets up this process for a run; call it once, before anything computes.

    Args:
        device: what `--device` said, None for JAX's own choice.
        warn: takes one line about a compilation cache that cannot be used.
    """
    if "jax" not in sys.modules:  # both are read when JAX is imported
        # What XLA logs in C++ is for its developers; what fails raises.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if device is not None and device.lower() in ("cpu", "cpu:0"):
            # Else a GPU, though unused, would give this process most of its memory.
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if not sys.warnoptions:  # python -W still shows them
        warnings.simplefilter("ignore")
    logging.getLogger("jax").setLevel(logging.CRITICAL)
    tune_allocator()  # late for a process that has other threads: the command calls it first
    if problem := enable_compilation_cache():
        warn(f"the compilation cache is not used: {problem}")


def tune_allocator() -> bool:
    """Lets glibc keep the memory that it frees, which XLA asks for again at every step.

    By default each large temporary is a fresh mapping, whose pages the kernel clears again and
    again: about 100,000 page faults a step at 512 pixels, and none with these settings. Call it
    before there is a second thread: one that has an arena of its own by then keeps it, and others
    come to share it.

    Returns:
        Whether the allocator took it; False, and no harm, anywhere but on glibc.
    """
    glibc = _glibc()
    if glibc is None:
        return False
    settings = (
        # As size_t, -1 is the largest there is: map nothing, give nothing back.
        (_M_MMAP_THRESHOLD, -1),
        (_M_TRIM_THRESHOLD, -1),
        (_M_TOP_PAD, 2**28),
        # The arenas of threads, and JAX computes in one, have small heaps and map what is large.
        (_M_ARENA_MAX, 1),
    )
    taken = [glibc.mallopt(name, value) == 1 for name, value in settings]
    _TUNED.set()
    return all(taken)


def give_back_large_blocks(wanted: bool) -> None:
    """Lets glibc give the largest blocks back as soon as they are free, or keep them again.

    Kept blocks are cut up for smaller ones; the next time a block is wanted there is no place for
    it, and a process comes to hold two or three of them. Given back, each use has page faults,
    for a quarter more time in tiles. An allocator that `tune_allocator` has not set is left alone.

    Args:
        wanted: whether memory matters more than that.
    """
    glibc = _glibc()
    if glibc is not None and _TUNED.is_set():
        glibc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK if wanted else -1)


def trim_memory() -> None:
    """Gives the system what has been freed, and what `tune_allocator` has kept, on glibc."""
    glibc = _glibc()
    if glibc is not None:
        glibc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or not hasattr(os, "confstr"):
        return None
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return None
        return ctypes.CDLL(None)
    except (OSError, ValueError):
        return None


# The compilation cache


def compilation_cache_folder() -> Path:
    """Folder of compiled programs, which need not exist: `xla` in `JAXSTYLE_CACHE_DIR`.

    Without that variable it is in the platform's cache folder of the user.
    """
    if chosen := os.environ.get("JAXSTYLE_CACHE_DIR"):
        return Path(chosen).expanduser() / "xla"
    import platformdirs

    return platformdirs.user_cache_path("jaxstyle") / "xla"


def enable_compilation_cache() -> str | None:
    """Has JAX keep what it compiles in a private folder of this user.

    A cache that JAX has been given already, as by `JAX_COMPILATION_CACHE_DIR`, is left alone.

    Returns:
        None, or in a few words why the cache is not used.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    folder = compilation_cache_folder()
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if problem := _not_private(folder):
            return problem
        shrink(folder, _CACHE_BYTES)
    except OSError as error:
        return f"{folder}: {reason_of(error)}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _CACHE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return None


def _not_private(folder: Path) -> str | None:
    """Why others could put programs there, which JAX would then run as this user."""
    if not hasattr(os, "getuid"):  # elsewhere the user's cache folder is private by inheritance
        return None
    found = folder.stat()
    if found.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {folder}: remove it, or chmod it to 700 if you trust it"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return f"{folder} cannot be written to"
    return None


def shrink(folder: Path, limit: int) -> None:
    """Removes the least recently used files of `folder` until `limit` bytes are left.

    JAX has a limit of its own, but it needs one more package and stops caching for good once a run
    was killed between two of its writes.
    """
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another run may be shrinking it too
            found = path.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                files.append((max(found.st_atime, found.st_mtime), found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size


# Devices


def find_device(name: str | None) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
    """The device of a name.

    Args:
        name: a platform (`cpu`, `gpu`, `cuda`, `tpu`), with `:index` or without; None for JAX's
            own choice.

    Raises:
        UserError: There is no such device; the message lists those there are.
    """
    import jax

    try:
        if name is None:
            return jax.devices()[0]
        kind, colon, index = name.lower().partition(":")
        devices = jax.devices(kind) if kind else []
        if kind and not colon:
            return devices[0]
        if index.isdecimal() and int(index) < len(devices):
            return devices[int(index)]
    except RuntimeError as error:
        if name is None:
            raise UserError(f"no device to compute on: {_first_line(error)}") from error
    raise UserError(f"no device {name!r}: there is {', '.join(_device_names())}")


def _device_names() -> list[str]:
    import jax

    try:
        kinds = dict.fromkeys([jax.default_backend(), "cpu"])
    except RuntimeError as error:
        raise UserError(f"no device to compute on: {_first_line(error)}") from error
    names = []
    for kind in kinds:
        with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS may leave the CPU out
            count = len(jax.devices(kind))
            names += [kind] if count == 1 else [f"{kind}:{index}" for index in range(count)]
    return names


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
