"""`jaxstyle weights`: what features there are, and how to get more."""

from __future__ import annotations

import argparse
import sys

from jaxstyle.errors import UserError


def run(arguments: argparse.Namespace) -> int:
    """Lists the features, or fetches those of a name.

    Args:
        arguments: `action` (`list` or `fetch`), `name` or None, `quiet`.

    Returns:
        The exit code.

    Raises:
        UserError: What was asked for is not to be had.
    """
    from jaxstyle import weights

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
