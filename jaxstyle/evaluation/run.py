"""An evaluation from its settings to its report."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxstyle.errors import UserError
from jaxstyle.evaluation import judges, machine, painters, protocols, report, speeds, survey, tables
from jaxstyle.evaluation.cells import Table
from jaxstyle.evaluation.config import EvaluateConfig
from jaxstyle.evaluation.painters import Painter
from jaxstyle.evaluation.pictures import Pair
from jaxstyle.evaluation.protocols import Context
from jaxstyle.evaluation.report import Section
from jaxstyle.evaluation.scores import Studio
from jaxstyle.training import perceptual

_ON_PAIRS = {
    "distances": protocols.distances,
    "structure": protocols.structure,
    "composition": protocols.composition,
    "recognition": protocols.recognition,
}


def evaluate(
    config: EvaluateConfig,
    folder: Path,
    *,
    command: str = "",
    note: Callable[[str], None] = lambda line: None,
    warn: Callable[[str], None] = lambda line: None,
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Paints, judges and reports; what the folder has of it already is not done again.

    Args:
        config: settings.
        folder: gets `report.html`, `tables/`, plots, and the pictures and figures that the next
            call goes on from.
        command: what a reader types to get the same.
        note: takes lines about how far it is.
        warn: takes lines about what is left out.
        stopping: asked between pictures; True leaves the rest for another call.

    Returns:
        Whether everything is done.

    Raises:
        UserError: something cannot be read, or the settings leave out what is needed.
    """
    _check(config)
    folder.mkdir(parents=True, exist_ok=True)
    sections: list[Section] = []

    def add(section: Section) -> None:
        sections.append(section)
        facts = _facts(config, command)
        for table in section.tables:
            tables.write(_signed(table, facts), folder / "tables")
        report.write_report(folder, title=config.title, sections=sections, facts=facts)

    try:
        context = _prepare(config, folder, note, warn, stopping)
        with ThreadPoolExecutor(1) as pool:
            timed = "speed" in config.protocols
            # Where speeds need not be right, they are measured beside everything else.
            beside = timed and config.speed_at_once > 1
            speed = pool.submit(speeds.section, context) if beside else None
            if any(name in _ON_PAIRS for name in config.protocols):
                records = protocols.pair_records(context)
                for name, make in _ON_PAIRS.items():
                    if name in config.protocols:
                        add(make(context, records))
            if "convergence" in config.protocols and config.runs:
                add(protocols.convergence(config.runs, folder))
            if timed:
                add(speed.result() if speed else speeds.section(context))
    except protocols.StoppedError:
        return False
    return True


def write_survey(
    config: EvaluateConfig,
    folder: Path,
    target: Path,
    *,
    overwrite: bool = False,
    note: Callable[[str], None] = lambda line: None,
    warn: Callable[[str], None] = lambda line: None,
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Writes a page on which people rate pictures: each painting with a photograph of its own.

    Methods that paint only some photographs are asked for these; what does not paint at all is left
    out.

    Args:
        config: settings.
        folder: of the evaluation, whose pictures are used and kept.
        target: gets `survey.html` and `key.json`, see `survey.write_page`.
        overwrite: replace a page that is there.
        note: takes lines about how far it is.
        warn: takes lines about what is left out.
        stopping: asked between pictures; True leaves the rest for another call.

    Returns:
        Whether everything is done.

    Raises:
        UserError: something cannot be read or is there already, or nothing paints.
    """
    _check(config)
    survey.page_files(target, overwrite=overwrite)  # before hours of painting
    context = _prepare(config, folder, note, warn, stopping)
    studio = context.studio
    names = [name for name in context.painters if studio.paints(name)]
    if not names:
        raise UserError("no method paints: a survey is about pictures that methods have made")
    limits = [studio.config.methods[name].photos or len(studio.photos) for name in names]
    photos = list(studio.photos)[: min(limits)]
    trials = []
    try:
        for index, (style, painting) in enumerate(studio.paintings.items()):
            pair = Pair(photos[index % len(photos)], style)
            made = {}
            for name in names:
                done = context.done(name, f"survey, {style}")
                for _, picture in studio.painted(name, context.painters[name], [pair], done=done):
                    made[name] = picture
            if made:
                trials.append(survey.Trial(studio.photos[pair.photo], painting, made, style))
    except protocols.StoppedError:
        return False
    survey.write_page(target, trials, title=config.title, seed=config.seed, overwrite=overwrite)
    return True


def _check(config: EvaluateConfig) -> None:
    for name in ("content", "style"):
        if not getattr(config, name):
            raise UserError(f"{name} is not set: --set {name}=FOLDER names pictures to judge with")
    if not config.methods:
        raise UserError("methods are not set: a configuration names the rows of the tables")
    if bool(config.segmented) != bool(config.segments):
        raise UserError("segmented and segments go together: photographs and their segmentations")


def _prepare(
    config: EvaluateConfig,
    folder: Path,
    note: Callable[[str], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Context:
    layers = dict.fromkeys([*judges.LAYERS, config.structure_layer, config.composition_layer])
    studio = Studio(config, judges.Judge(config.features, tuple(layers)), folder)
    found: dict[str, Painter] = {}
    for name, method in config.methods.items():
        try:
            found[name] = painters.make(name, method, studio.paintings)
        except UserError as error:
            if name == config.baseline:
                raise
            warn(f"without {name}: {error}")
    return Context(studio, found, note, stopping)


def _facts(config: EvaluateConfig, command: str) -> dict[str, str]:
    """What the report was made with."""
    judged_in = perceptual.without_folders(config.features) or "the shipped features"
    return {
        "Command": command,
        "Date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        **machine.hardware(),
        "Judged in": f"{judged_in}. {config.kinship}".strip(),
        "Size": f"squares of {config.size} pixels, from the middle of each picture",
        "Seed": str(config.seed),
        "Intervals": f"95%, bootstrap, {config.resamples} samples",
    }


def _signed(table: Table, facts: Mapping[str, str]) -> Table:
    """A table for a file of its own, which is passed on without the page that says all this."""
    parts = [f"{name}: {value.rstrip('.')}" for name, value in facts.items() if name != "Command"]
    return dataclasses.replace(table, notes=(*table.notes, f"{'; '.join(parts)}."))
