"""`jaxstyle weights`: what features there are, how to get more, and how to keep them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxstyle.commands.paths import check_new
from jaxstyle.errors import UserError


def run(arguments: argparse.Namespace) -> int:
    """Lists the features, fetches those of a name, or writes some, or a model, as safetensors.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code.

    Raises:
        UserError: What was asked for is not to be had.
    """
    from jaxstyle import weights

    if arguments.action == "convert":
        return _convert(arguments)
    if arguments.target is not None:
        raise UserError(f"only `jaxstyle weights convert` takes a file, got {arguments.target}")
    if arguments.action == "fetch":
        if arguments.name is None:
            raise UserError("fetch what? `jaxstyle weights list` names what there is")
        path = weights.fetch(arguments.name, progress=not arguments.quiet)
        sys.stdout.write(f"{path}\n")
        return 0
    if arguments.name is not None:
        raise UserError(f"`jaxstyle weights list` takes no name, got {arguments.name!r}")
    for row in weights.list_weights():
        size = "" if row.size is None else f"{row.size / 1e6:.1f} MB"
        sys.stdout.write(f"{row.name:8}{row.state:14}{size:>9}  {row.licence:12}{row.what}\n")
        if row.path:
            sys.stdout.write(f"{'':8}{row.path}\n")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from jaxstyle import models, weights

    source, target = arguments.name, arguments.target
    if source is None or target is None:
        raise UserError("convert what, and where to? `jaxstyle weights convert SOURCE FILE`")
    inputs = [Path(source)] if Path(source).exists() else []
    check_new(target, inputs, overwrite=arguments.overwrite)
    dtype = "float16" if arguments.half else "float32"
    try:
        if models.is_model(source):
            if arguments.padding is not None:
                raise UserError(f"--padding is for feature networks, but {source} is a model")
            models.save(target, models.load(source), dtype=dtype)
        else:
            weights.convert(source, target, dtype=dtype, padding=arguments.padding)
    except ValueError as error:  # numbers beyond what float16 holds
        raise UserError(f"{source}: {error}") from error
    sys.stdout.write(f"{target}\n")
    return 0
