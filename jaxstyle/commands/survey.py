"""`jaxstyle survey`: tables of what people answered on the page of an evaluation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jaxstyle.commands import paths
from jaxstyle.errors import UserError

_FORMS = (".md", ".csv", ".json")


def run(arguments: argparse.Namespace) -> int:
    """Prints two tables, of methods and of their trials, and writes them where that is asked for.

    Args:
        arguments: as parsed by the command line.

    Returns:
        The exit code.

    Raises:
        UserError: answers that cannot be read or are of another survey, or a file that exists.
    """
    output: Path | None = arguments.output
    if output is not None and output.suffix not in _FORMS:
        raise UserError(f"{output} must end in one of {', '.join(_FORMS)}")
    answers = _files(arguments.answers)
    targets = [] if output is None else [output, output.with_stem(f"{output.stem}-by-trial")]
    for target in targets:
        paths.check_new(target, [arguments.key, *answers], overwrite=arguments.overwrite)
    from jaxstyle.evaluation import survey, tables

    ratings = survey.read_answers(answers, arguments.key)
    table = survey.tabulate(ratings)
    by_trial = survey.tabulate_trials(ratings)
    sys.stdout.write(f"{tables.to_markdown(table)}\n{tables.to_markdown(by_trial)}")
    make = {".md": tables.to_markdown, ".csv": tables.to_csv, ".json": tables.to_json}
    for target, made in zip(targets, (table, by_trial), strict=False):
        tables.write_file(target, make[target.suffix](made).encode())
    return 0


def _files(given: list[Path]) -> list[Path]:
    """Files, those of folders among them."""
    found = []
    for path in given:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path} has no JSON files")
        found += inside
    return found
