"""Several runs that differ in one setting, and what they are compared by.

Each run has a folder of its own, `NAME=VALUE` in that of the sweep, and is trained as any other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from etils import epath

from jaxstyle.errors import UserError
from jaxstyle.training import checkpoints, report
from jaxstyle.training.config import TrainConfig, override

_EXAMPLE = "optimizer.learning_rate=1e-4,1e-3,1e-2"
_PLAIN = "._-+=,() "  # what names of folders may have beside letters and digits


class Variant(NamedTuple):
    """One of the runs.

    Attributes:
        value: of the setting, as it was written.
        config: what is trained.
        folder: where.
    """

    value: str
    config: TrainConfig
    folder: epath.Path

    @property
    def rows(self) -> list[report.Row]:
        """Its lines of metrics; none before it has begun."""
        return report.read_rows(self.folder / "metrics.jsonl")


class Sweep(NamedTuple):
    """The runs, in their order.

    Attributes:
        setting: the name of the setting that differs.
        folder: which has a folder for each run, and the comparison.
        variants: the runs.
    """

    setting: str
    folder: epath.Path
    variants: tuple[Variant, ...]


def plan(config: TrainConfig, vary: str, workdir: str | os.PathLike[str]) -> Sweep:
    """The runs that a setting with several values stands for.

    Args:
        config: all other settings.
        vary: `NAME=VALUE,VALUE,...`, names and values as `override` takes them. Commas within
            brackets belong to a value.
        workdir: folder of the sweep, which need not exist; it may lie in a bucket.

    Raises:
        UserError: there is no such setting, a value does not fit, or two are the same.
    """
    setting, equals, text = (part.strip() for part in vary.partition("="))
    values = _split(text)
    if not (setting and equals) or len(values) < 2:
        raise UserError(
            f"--vary expected a setting and two values of it or more, such as {_EXAMPLE}; "
            f"got {vary!r}"
        )
    folder = checkpoints.workdir_path(workdir)
    variants: list[Variant] = []
    for value in values:
        name = _folder_name(f"{setting}={value}")
        new = Variant(value, _varied(config, setting, value), folder / name)
        for other in variants:
            if other.config == new.config or other.folder == new.folder:
                raise UserError(
                    f"--vary {setting}: {other.value!r} and {value!r} would be the same run: "
                    "leave one of them out"
                )
        variants.append(new)
    return Sweep(setting, folder, tuple(variants))


def _varied(config: TrainConfig, setting: str, value: str) -> TrainConfig:
    try:
        return override(config, [f"{setting}={value}"])
    except UserError as error:
        raise UserError(f"--vary{str(error).removeprefix('--set')}") from error


def _split(text: str) -> list[str]:
    """The values between commas, of which those within brackets are part of a value."""
    values, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            values.append("")
        else:
            values[-1] += character
    return [value.strip() for value in values]


def _folder_name(text: str) -> str:
    """A name that any file system takes: the values of some settings are paths themselves."""
    return "".join(c if c.isalnum() or c in _PLAIN else "_" for c in text)


def write_comparison(sweep: Sweep, outcomes: Mapping[str, str]) -> None:
    """Writes `comparison.png` and `comparison.md` of all that there is so far.

    Args:
        sweep: the runs.
        outcomes: what became of those that were seen to, by their values; of the others it is said
            whether they are done, begun or still to come.
    """
    runs = {variant.value: variant.rows for variant in sweep.variants}
    states = {variant.value: _state(variant) for variant in sweep.variants} | dict(outcomes)
    title = sweep.setting
    report.plot_comparison(runs, sweep.folder / "comparison.png", title=title)
    text = report.comparison_table(runs, states, title=title)
    text += "\n![curves](comparison.png)\n"
    report.replace_file(sweep.folder / "comparison.md", text.encode())


def _state(variant: Variant) -> str:
    steps = [row["step"] for row in variant.rows]
    if not steps:
        return "to come"
    return "done" if max(steps) >= variant.config.steps else "begun"
