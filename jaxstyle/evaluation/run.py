"""An evaluation from its settings to its report."""

from __future__ import annotations

import dataclasses
import datetime
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxstyle import images
from jaxstyle.errors import UserError
from jaxstyle.evaluation import (
    convergence,
    judges,
    machine,
    painters,
    protocols,
    recognition,
    report,
    speeds,
    survey,
    tables,
)
from jaxstyle.evaluation.cells import Cell, Column, Table
from jaxstyle.evaluation.config import EvaluateConfig
from jaxstyle.evaluation.context import Context, StoppedError
from jaxstyle.evaluation.painters import Painter
from jaxstyle.evaluation.pictures import Pair
from jaxstyle.evaluation.report import Section
from jaxstyle.evaluation.scores import Studio
from jaxstyle.training import perceptual

_ON_PAIRS = {
    "distances": protocols.distances,
    "structure": protocols.structure,
    "composition": protocols.composition,
    "recognition": recognition.recognition,
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
    try:
        context = _prepare(config, folder, note, warn, stopping)
        page = _Page(context, command)
        page.add(_rows(context))
        with ThreadPoolExecutor(1) as pool:
            timed = "speed" in config.protocols
            # Where speeds need not be right, they are measured beside everything else.
            beside = timed and config.speed_at_once > 1
            speed = pool.submit(speeds.section, context) if beside else None
            if any(name in _ON_PAIRS for name in config.protocols):
                records = protocols.pair_records(context)
                for name, make in _ON_PAIRS.items():
                    if name in config.protocols:
                        page.add(make(context, records), _judging(config))
            if "convergence" in config.protocols and config.runs:
                page.add(convergence.convergence(config.runs, folder), hardware=False)
            if timed:
                page.add(speed.result() if speed else speeds.section(context))
    except StoppedError:
        return False
    return True


class _Page:
    """The report and the files of its tables, which grow section by section.

    Args:
        context: of the evaluation.
        command: what a reader types to get the same.
    """

    def __init__(self, context: Context, command: str) -> None:
        self._context = context
        self._command = command
        self._sections: list[Section] = []

    def add(
        self, section: Section, facts: Mapping[str, str] | None = None, *, hardware: bool = True
    ) -> None:
        """Shows one more section.

        Args:
            section: its tables are written to files of their own, too.
            facts: what these tables were made with, beside date and hardware.
            hardware: whether they were made on this machine.
        """
        self._sections.append(section)
        config, folder = self._context.studio.config, self._context.studio.folder
        made_with = {**self._date(), **(machine.hardware() if hardware else {}), **(facts or {})}
        for table in section.tables:
            signed = _signed(table, made_with, self._context.painters)
            tables.write(signed, folder / "tables")
        whole = {"Command": self._command, **self._date(), **machine.hardware(), **_judging(config)}
        report.write_report(folder, title=config.title, sections=self._sections, facts=whole)

    def _date(self) -> dict[str, str]:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        earlier = sorted(self._context.studio.dates - {today})
        return {"Date": f"{today}, some figures of {', '.join(earlier)}" if earlier else today}


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

    What does not paint is left out.

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
    photos, trials = list(studio.photos), []
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
    except StoppedError:
        return False
    # Not the seed of the settings, from which a rater could tell whose pictures these are.
    seed = secrets.randbits(32)
    survey.write_page(target, trials, title=config.title, seed=seed, overwrite=overwrite)
    return True


def _check(config: EvaluateConfig) -> None:
    for name in ("content", "style"):
        if not getattr(config, name):
            raise UserError(f"{name} is not set: --set {name}=FOLDER names pictures to judge with")
    if not config.methods:
        raise UserError("methods are not set: a configuration names the rows of the tables")
    if bool(config.segmented) != bool(config.segments):
        raise UserError("segmented and segments go together: photographs and their segmentations")
    if {*config.protocols} == {"convergence"} and not config.runs:
        raise UserError('runs are not set: --set \'runs={"NAME": "FOLDER"}\' names runs to compare')
    # Before hours of painting.
    for folder in filter(None, (config.segmented, config.segments, config.training_content)):
        images.list_images(Path(folder))
    convergence.read_runs(config.runs)


def _prepare(
    config: EvaluateConfig,
    folder: Path,
    note: Callable[[str], None],
    warn: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Context:
    layers = dict.fromkeys([*judges.LAYERS, config.structure_layer, config.composition_layer])
    studio = Studio(config, judges.Judge(config.features, tuple(layers), config.lpips), folder)
    found: dict[str, Painter] = {}
    for name, method in config.methods.items():
        try:
            found[name] = painters.make(name, method, studio.paintings)
        except UserError as error:
            if name == config.baseline:
                raise
            warn(f"without {name}: {error}")
    return Context(studio, found, note, warn, stopping)


def _rows(context: Context) -> Section:
    """What the rows of the tables are."""
    columns = (Column("what", "what it is"), Column("note", "to be known"))
    methods = context.studio.config.methods
    rows = {
        name: {"what": Cell(painter.facts), "note": Cell(methods[name].note or None)}
        for name, painter in context.painters.items()
    }
    noted = any(methods[name].note for name in rows)
    cells = rows if noted else {name: {"what": row["what"]} for name, row in rows.items()}
    shown = columns if noted else columns[:1]
    return Section("The rows", "", (Table("methods", "What is compared", shown, cells),))


def _judging(config: EvaluateConfig) -> dict[str, str]:
    """What tables of quality were made with."""
    judged_in = perceptual.without_folders(config.features) or "the shipped features"
    lpips = {"LPIPS": perceptual.without_folders(config.lpips)} if config.lpips else {}
    return {
        "Judged in": f"{judged_in}. {config.kinship}".strip(),
        **lpips,
        "Size": f"squares of {config.size} pixels, from the middle of each picture",
        "Seed": str(config.seed),
        "Intervals": f"95%, bootstrap, {config.resamples} samples (of how styles are recognised, "
        f"{min(config.resamples, recognition.RESAMPLES)})",
    }


def _signed(table: Table, facts: Mapping[str, str], rows: Mapping[str, Painter]) -> Table:
    """A table for a file of its own, which is passed on without the page that says all this."""
    parts = [f"{name}: {value.rstrip('.')}" for name, value in facts.items()]
    notes = [f"{'; '.join(parts)}."]
    if named := [
        f"{name}: {painter.facts}" for name, painter in rows.items() if name in table.rows
    ]:
        notes.append(f"Rows: {'; '.join(named)}.")
    return dataclasses.replace(table, notes=(*table.notes, *notes))
