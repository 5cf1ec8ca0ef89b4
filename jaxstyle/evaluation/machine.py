"""The machine and the code that an evaluation runs on."""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import os
import platform
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# What only asks for pictures and figures, or shows them.
_SHOWS = {"commands", "cells.py", "report.py", "speed_tables.py", "statistics.py", "tables.py"}


@functools.cache
def code() -> str:
    """A short name of the code that pictures, figures and times depend on: of its sources."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        inside = path.relative_to(_PACKAGE)
        if _SHOWS.isdisjoint(inside.parts):
            digest.update(inside.as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:10]


def hardware() -> dict[str, str]:
    """What the figures were measured on, without what would tell this machine from its like."""
    import jax

    kinds = collections.Counter(device.device_kind for device in jax.devices())
    devices = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    return {
        "processor": _processor(),
        "cores": str(cores()),
        "memory": _memory(),
        "devices": devices,
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "JAX": jax.__version__,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """The load average of the last minute, where the system has one."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # on Windows
        return None


def _memory() -> str:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # on Windows
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    return "unknown"
