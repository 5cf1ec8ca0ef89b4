"""The part of a report that says how long pictures take."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxstyle import images
from jaxstyle.evaluation import machine, report, speed, speed_tables, throughput
from jaxstyle.evaluation.context import Context, StoppedError
from jaxstyle.evaluation.painters import Painter
from jaxstyle.evaluation.report import Section

_STYLES_SIZE = 512

_ALONE = """\
Each method is measured in a process of its own, one at a time, but for many pictures, which this \
one paints. What is compiled is compiled before the timed pictures."""

_BESIDE = """\
Each method was measured in a process of its own, with others and with painting beside them: \
these times say that everything runs, not how fast. What is compiled is compiled before \
the timed pictures."""


def section(context: Context) -> Section:
    """Milliseconds, memory, and pictures from disk to disk.

    Raises:
        StoppedError: that was asked for; what is measured is kept.
    """
    config = context.studio.config
    moving = [name for name in context.painters if context.studio.paints(name)]
    try:
        if config.speed_at_once == 1:
            found = [_timed(context, name) for name in moving]
        else:
            # Backwards: what is compiled here need not be where they paint, and vice versa.
            with ThreadPoolExecutor(config.speed_at_once) as pool:
                found = list(pool.map(functools.partial(_timed, context), moving[::-1]))[::-1]
        many = {
            name: _remembered(context, "throughput", name, _measured_many)[0]
            for name in moving
            if config.throughput and context.painters[name].batch is not None
        }
    except KeyboardInterrupt as error:
        if context.stopping():
            raise StoppedError from error
        raise
    timed = [record for records, _ in found for record in records]
    by_style = [record for _, records in found for record in records]
    shown = [speed_tables.speed_table(timed), speed_tables.cost_table(timed)]
    shown += [speed_tables.styles_table(by_style)] if by_style else []
    plots = []
    if many:
        shown.append(speed_tables.throughput_table(many))
        path = context.studio.folder / "throughput.png"
        report.curves(
            speed_tables.hours(many),
            path,
            xlabel="pictures",
            ylabel="hours",
            title=f"From disk to disk, extrapolated from {config.throughput:,} pictures",
        )
        plots.append((path, "Hours for many pictures, from disk to disk, extrapolated"))
    text = _ALONE if config.speed_at_once == 1 else _BESIDE
    return Section("Speed", text, tuple(shown), tuple(plots))


def _timed(context: Context, name: str) -> tuple[list[Any], list[Any]]:
    """Records of a method at all sizes, and in several styles."""
    context.note(f"speed, {name}")
    sizes = _remembered(context, "speed", name, _measured)
    if context.painters[name].batch is None:
        return sizes, []
    return sizes, _remembered(context, "speed_styles", name, _measured_styles)


def _remembered(context: Context, part: str, name: str, measure: Any) -> list[Any]:
    """What was measured before on such a machine with the same settings, or is measured now."""
    config, painter = context.studio.config, context.painters[name]
    settings = [config.speed_sizes, config.speed_runs, config.speed_batch, config.throughput]
    settings += [config.speed_styles, config.speed_cold, config.speed_at_once, config.size]
    settings += [config.paintings, context.studio.files, machine.hardware()]
    return context.studio.remembered(
        f"{part}/{name}", [painter.fingerprint, settings], lambda: measure(context, name, painter)
    )


def _measured(context: Context, name: str, painter: Painter) -> list[Any]:
    config, style = context.studio.config, painter.styles[0]
    return speed.measure(
        name,
        config.methods[name],
        config.speed_sizes,
        runs=config.speed_runs,
        batch=config.speed_batch,
        photo_path=images.list_images(config.content)[0],
        painting_path=_paintings(config.style)[style],
        style_name=style,
        cold=config.speed_cold,
        stopping=context.stopping,
    )


def _measured_styles(context: Context, name: str, painter: Painter) -> list[Any]:
    config, paintings = context.studio.config, _paintings(context.studio.config.style)
    return speed.measure_styles(
        name,
        config.methods[name],
        {style: paintings[style] for style in painter.styles[: config.speed_styles or None]},
        size=min(_STYLES_SIZE, max(config.speed_sizes)),
        runs=config.speed_runs,
        photo_path=images.list_images(config.content)[0],
        cold=config.speed_cold,
        stopping=context.stopping,
    )


def _measured_many(context: Context, name: str, painter: Painter) -> list[Any]:
    del name
    config = context.studio.config
    found = throughput.measure(
        painter,
        images.list_images(config.content),
        painter.styles[0],
        count=config.throughput,
        size=config.size,
        folder=context.studio.folder,
        batch=config.speed_batch,
        stopping=context.stopping,
    )
    return [found]


def _paintings(folder: str) -> dict[str, Any]:
    return {path.stem: path for path in images.list_images(folder)}
