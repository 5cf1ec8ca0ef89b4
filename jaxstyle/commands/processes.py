"""What the commands share that several processes may run together."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from jaxstyle import runtime
from jaxstyle.commands import options
from jaxstyle.errors import UserError

if TYPE_CHECKING:
    from jaxstyle.commands.progress import Progress

NAMES = ("coordinator", "num_processes", "process_id")
"""The options by which a process finds the others."""


def add_options(parser: argparse.ArgumentParser, *, beside: str = "") -> None:
    """Adds `--coordinator`, `--num-processes` and `--process-id`.

    Args:
        parser: of a command.
        beside: what must be given with them.
    """
    group = parser.add_argument_group(
        f"several processes{beside} (all three; none of them where a TPU pod or Slurm says it)"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where the first process listens")
    group.add_argument(
        "--num-processes", type=options.whole_number(1), metavar="N", help="how many there are"
    )
    group.add_argument(
        "--process-id", type=options.whole_number(0), metavar="I", help="which one this is, from 0"
    )


def start_jax(arguments: argparse.Namespace, progress: Progress) -> None:
    """Sets up JAX, joins the other processes, and sees that there is a device."""
    _prepare(arguments, progress)
    import jax

    from jaxstyle.training import parallel

    parallel.initialize(**{name: getattr(arguments, name) for name in NAMES})
    _check_device(arguments)
    if jax.process_index() > 0:  # one process speaks for all
        progress.quiet = True


def start_alone(arguments: argparse.Namespace, progress: Progress) -> None:
    """Sets up JAX for a command that is for one process, and sees that there is a device."""
    _prepare(arguments, progress)
    _check_device(arguments)


def _prepare(arguments: argparse.Namespace, progress: Progress) -> None:
    runtime.prepare(device=arguments.device, warn=progress.note)
    import jax

    if arguments.device == "cpu":  # others are JAX's own choice where they are there
        jax.config.update("jax_platforms", "cpu")


def _check_device(arguments: argparse.Namespace) -> None:
    found = runtime.find_device(None).platform
    if arguments.device not in (None, found):
        raise UserError(f"no device {arguments.device!r}: there is {found}")
