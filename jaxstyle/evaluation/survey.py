"""A survey for people: a page to rate pictures on, and the table out of their answers.

The three scales are those of Pu and Li's satisfaction survey. The page shows one picture at a time
beside its photo and its painting, and never says which method made it: that is in the key, which
raters do not get. Everything happens in the rater's browser. The page needs no network, and the
answers come back as a file from each rater.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxstyle import images
from jaxstyle.errors import UserError, reason_of
from jaxstyle.evaluation import statistics
from jaxstyle.evaluation.tables import Cell, Column, Table, write_file

SCALES = {
    "completeness": "What the photo shows is all there: shapes are whole, and you can tell what "
    "they are.",
    "fluency": "Lines and strokes run smoothly, without breaks, noise, repeated patterns or other "
    "faults.",
    "coherence": "Colours and texture belong together over the whole picture, and they belong to "
    "the painting.",
}
"""The scales (Pu and Li), and what raters are told of them."""

OVERALL = "overall"
"""What a table calls the mean of the scales."""

LOWEST, HIGHEST = 0, 10
"""The ends of each scale, from poor to excellent; the whole numbers between are the choices."""

PAGE_NAME, KEY_NAME = "survey.html", "key.json"
"""The two files of a survey: the one for raters, and the one to keep from them."""

_QUALITY = 90  # of the JPEGs in the page
_LONGEST = 1e9  # seconds: 30 years; longer is no time that a browser measured

PathLike = str | os.PathLike[str]


# --- the page ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Trial:
    """A photo and a painting, and what each method made of them.

    Attributes:
        content: the photo, float32 `[height, width, 3]`, sRGB in [0, 1].
        style: the painting, likewise.
        pictures: the pictures to rate, likewise, by the names of their methods; of any sizes.
        name: what the key and the table call this pair; raters do not see it.
    """

    content: NDArray[np.float32]
    style: NDArray[np.float32]
    pictures: Mapping[str, NDArray[np.float32]]
    name: str


def page_files(folder: PathLike, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Where the page and its key go.

    Args:
        folder: of both; it need not exist.
        overwrite: whether they may be there already.

    Returns:
        The paths of the page and of the key.

    Raises:
        UserError: one of them exists and `overwrite` is not set.
    """
    files = Path(folder) / PAGE_NAME, Path(folder) / KEY_NAME
    for path in files:
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists: choose another folder, or replace it with --overwrite")
    return files


def write_page(
    folder: PathLike, trials: Sequence[Trial], *, title: str, seed: int = 0, overwrite: bool = False
) -> Path:
    """Writes a page on which people rate pictures, and the key to their answers.

    `survey.html` is the page: one file with all pictures in it, as JPEG, to be opened from a disk
    or from a web server. It knows the pictures by random codes. `key.json` says which method made
    which picture: raters must not have it. The browser draws the order of the trials, and of the
    pictures within each, anew for each rater, and the answers tell it.

    Args:
        folder: where both files go; it is made if it is missing.
        trials: what to rate; not all methods need be in all of them.
        title: the heading of the page.
        seed: for the codes: with the same pictures it gives the same page.
        overwrite: replace the files where they exist.

    Returns:
        The path of the page.

    Raises:
        ValueError: there is nothing to rate, a name is missing or given twice, or an array is no
            picture.
        UserError: the title names a method, a file exists and `overwrite` is not set, or a file
            cannot be written.
    """
    _check_names(trials, title)
    page, key = page_files(folder, overwrite=overwrite)
    codes = _codes(seed)
    files: dict[str, bytes] = {}  # by digest: photos and paintings come again in other trials
    pictures: dict[str, dict[str, str]] = {}
    shown = [_show(trial, codes, files, pictures) for trial in trials]
    survey = {"title": title, "scales": list(SCALES), "range": [LOWEST, HIGHEST], "seed": seed}
    survey["pictures"] = pictures
    identity = _identity(survey)
    write_file(key, (json.dumps({"survey": identity, **survey}, indent=2) + "\n").encode())
    write_file(page, _fill_template(title, identity, shown, files).encode())
    return page


def _check_names(trials: Sequence[Trial], title: str) -> None:
    names = [trial.name for trial in trials]
    if not names or not all(trial.pictures for trial in trials):
        raise ValueError("trials: expected one or more, each with one or more pictures")
    if len(set(names)) < len(names):
        raise ValueError(f"trials: expected a name for each, got {names}")
    methods = {method for trial in trials for method in trial.pictures}
    if not title.strip() or not all(names) or not all(methods):
        raise ValueError("expected a title, and names of trials and methods that are not empty")
    for method in sorted(methods):
        if re.search(rf"(?<!\w){re.escape(method)}(?!\w)", title, re.IGNORECASE):
            raise UserError(
                f"the title '{title}' names the method '{method}', which raters must not know: "
                "choose another title"
            )


def _codes(seed: int) -> Iterator[str]:
    """Random names, no two alike."""
    generator, drawn = np.random.default_rng(seed), set()
    while True:
        code = generator.bytes(6).hex()
        if code not in drawn:
            drawn.add(code)
            yield code


def _show(
    trial: Trial,
    codes: Iterator[str],
    files: dict[str, bytes],
    pictures: dict[str, dict[str, str]],
) -> dict[str, Any]:
    """What the page knows of a trial; JPEGs go to `files`, entries of the key to `pictures`."""
    images_by_code = {}
    for method, pixels in trial.pictures.items():
        code = next(codes)
        digest = _add_jpeg(files, pixels, f"trial '{trial.name}', method '{method}'")
        images_by_code[code] = digest
        pictures[code] = {"method": method, "trial": trial.name, "sha256": digest}
    return {
        "content": _add_jpeg(files, trial.content, f"trial '{trial.name}', content"),
        "painting": _add_jpeg(files, trial.style, f"trial '{trial.name}', style"),
        # By code: the order of the methods would be a hint.
        "pictures": [
            {"code": code, "image": images_by_code[code]} for code in sorted(images_by_code)
        ],
    }


def _add_jpeg(files: dict[str, bytes], pixels: NDArray[np.float32], what: str) -> str:
    """Adds a picture as JPEG, which says nothing but its pixels; returns its digest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        try:
            images.save(path, pixels, quality=_QUALITY)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    files[digest] = content
    return digest


def _identity(key: Mapping[str, Any]) -> str:
    """The name of a survey: a hash of the rest of its key, and so of its pictures."""
    text = json.dumps({name: key[name] for name in key if name != "survey"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fill_template(
    title: str, survey: str, trials: list[dict[str, Any]], files: Mapping[str, bytes]
) -> str:
    data = {
        "id": survey,
        "lowest": LOWEST,
        "highest": HIGHEST,
        "scales": [{"name": name, "meaning": meaning} for name, meaning in SCALES.items()],
        "trials": trials,
        "images": {
            digest: f"data:image/jpeg;base64,{base64.b64encode(files[digest]).decode()}"
            for digest in sorted(files)
        },
    }
    parts = {
        "title": html.escape(title),
        "survey": json.dumps(data).replace("<", "\\u003c"),  # nothing in it ends the script
    }
    template = Path(__file__).with_name("survey.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(title|survey)\}\}", lambda match: parts[match[1]], template)


# --- answers -------------------------------------------------------------------------------------


class Rating(NamedTuple):
    """What a person thinks of a picture.

    Attributes:
        rater: the name that was given, or else the file of the answers.
        method: what made the picture.
        trial: the name of the trial.
        completeness: a whole number from `LOWEST` to `HIGHEST`, as are the next two.
        fluency: see `SCALES`.
        coherence: see `SCALES`.
        seconds: how long the picture was looked at.
    """

    rater: str
    method: str
    trial: str
    completeness: int
    fluency: int
    coherence: int
    seconds: float


class Ratings(NamedTuple):
    """All that people answered.

    Attributes:
        title: of the survey.
        pictures: method and trial of all pictures that there were to rate, in the key's order.
        ratings: in the order of the files and of the answers.
    """

    title: str
    pictures: tuple[tuple[str, str], ...]
    ratings: tuple[Rating, ...]


def read_answers(paths: Sequence[PathLike], key_path: PathLike) -> Ratings:
    """Reads the files that raters downloaded, with the key that says what they rated.

    Answers that were given up half-way count as far as they go. Files under the same name are the
    same person's, of different sessions; each file without a name is another person's.

    Args:
        paths: the files of answers.
        key_path: the `key.json` that was written beside the page.

    Returns:
        The ratings.

    Raises:
        UserError: there is no file, or one cannot be read, is not JSON, is no key or no answers,
            belongs to another survey, rates unknown pictures or one twice, has values that are not
            whole numbers from `LOWEST` to `HIGHEST`, or is the same rater's, of the same start, as
            another one.
    """
    key = _read_key(key_path)
    if not paths:
        raise UserError("no answers: give the files that raters downloaded")
    ratings: list[Rating] = []
    seen: dict[tuple[str, str], PathLike] = {}
    for path in paths:
        answers = _load(path)
        _check_answers(answers, key, path)
        session = (answers["rater"], answers["started"])
        if session in seen:
            raise UserError(
                f"{path}: the same rater's answers as {seen[session]}, of the same start: "
                "give one of the two, the more complete one"
            )
        seen[session] = path
        rater = answers["rater"].strip() or os.fspath(path)
        ratings += _checked_ratings(answers["ratings"], rater, key["pictures"], path)
    pictures = tuple((entry["method"], entry["trial"]) for entry in key["pictures"].values())
    return Ratings(key["title"], pictures, tuple(ratings))


def _load(path: PathLike) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON: give the file as it was downloaded") from error


def _read_key(path: PathLike) -> dict[str, Any]:
    key = _load(path)
    if not isinstance(key, dict) or key.get("survey") != _identity(key):
        raise UserError(
            f"{path}: is no key of a survey, or was changed since: give the {KEY_NAME} that was "
            "written with the page"
        )
    return key


def _check_answers(answers: Any, key: Mapping[str, Any], path: PathLike) -> None:
    kinds = {"survey": str, "rater": str, "started": str, "ratings": list}
    known = answers if isinstance(answers, dict) else {}
    if not all(isinstance(known.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path}: holds no answers: give the file as it was downloaded")
    if known["survey"] != key["survey"]:
        raise UserError(
            f"{path}: answers to another survey: expected {key['survey']}, got {known['survey']}"
        )


def _checked_ratings(
    ratings: Sequence[Any], rater: str, pictures: Mapping[str, Mapping[str, str]], path: PathLike
) -> list[Rating]:
    checked: dict[str, Rating] = {}
    for rating in ratings:
        given: dict[str, Any] = rating if isinstance(rating, dict) else {}
        code = given.get("picture")
        if not isinstance(code, str) or code not in pictures:
            raise UserError(f"{path}: rates a picture {code!r} that the key does not know")
        if code in checked:
            raise UserError(f"{path}: rates the picture '{code}' twice")
        for name in SCALES:
            value = _number(given.get(name))
            if not isinstance(value, int) or not LOWEST <= value <= HIGHEST:
                raise UserError(
                    f"{path}: picture '{code}': expected for {name} a whole number from {LOWEST} "
                    f"to {HIGHEST}, got {json.dumps(given.get(name))}"
                )
        seconds = _number(given.get("seconds"))
        if not 0 <= seconds < _LONGEST:
            raise UserError(
                f"{path}: picture '{code}': expected seconds, "
                f"got {json.dumps(given.get('seconds'))}"
            )
        values = {name: given[name] for name in SCALES}
        made = {name: pictures[code][name] for name in ("method", "trial")}
        checked[code] = Rating(rater=rater, **made, **values, seconds=float(seconds))
    return list(checked.values())


def _number(value: Any) -> float:
    """The value, or NaN for what is no number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


# --- the table -----------------------------------------------------------------------------------


def tabulate(ratings: Ratings, *, seed: int = 0, resamples: int = 2000) -> Table:
    """A row a method: means of what people rated, with intervals of 95 %.

    All ratings of a method count alike. The intervals are `statistics.bootstrap`'s with the rater
    as group: whoever is drawn brings all ratings, as those of one person go together. So they tell
    how far other people would agree about the same pictures. Of one rater alone there is none.

    Args:
        ratings: as read.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        The table, in the key's order. The keys of its columns are those of `SCALES`, `OVERALL` for
        the mean of the three, `raters` and `ratings`; a method that nobody rated has no values.

    Raises:
        ValueError: `resamples` is below 1.
    """
    rows = {}
    for method in _methods(ratings):
        own = [rating for rating in ratings.ratings if rating.method == method]
        means = {scale: _mean(own, scale, seed, resamples) for scale in (*SCALES, OVERALL)}
        counts = {"raters": Cell(_count_raters(own)), "ratings": Cell(len(own))}
        rows[method] = means | counts
    columns = [Column(scale, scale, better="high", digits=2) for scale in (*SCALES, OVERALL)]
    columns += [Column(name, name, digits=0) for name in ("raters", "ratings")]
    notes = _notes(ratings, [cells[OVERALL] for cells in rows.values()], resamples)
    return Table("survey", ratings.title, tuple(columns), rows, notes)


def tabulate_trials(
    ratings: Ratings, *, scale: str = OVERALL, seed: int = 0, resamples: int = 2000
) -> Table:
    """A row a method, a column a trial: means of what people rated, with intervals of 95 %.

    Args:
        ratings: as read.
        scale: one of `SCALES`, or `OVERALL`.
        seed: as for `tabulate`.
        resamples: as for `tabulate`.

    Returns:
        The table, in the key's order; the keys of its columns are the names of the trials.

    Raises:
        ValueError: there is no such scale, or `resamples` is below 1.
    """
    if scale not in (*SCALES, OVERALL):
        raise ValueError(f"scale: expected one of {[*SCALES, OVERALL]}, got '{scale}'")
    groups: dict[tuple[str, str], list[Rating]] = {pair: [] for pair in ratings.pictures}
    for rating in ratings.ratings:
        groups[rating.method, rating.trial].append(rating)
    rows: dict[str, dict[str, Cell]] = {method: {} for method in _methods(ratings)}
    for (method, trial), own in groups.items():
        rows[method][trial] = _mean(own, scale, seed, resamples)
    trials = dict.fromkeys(trial for _, trial in ratings.pictures)
    columns = tuple(Column(trial, trial, better="high", digits=2) for trial in trials)
    notes = _notes(ratings, [cell for cells in rows.values() for cell in cells.values()], resamples)
    return Table(f"survey-{scale}-by-trial", f"{ratings.title}: {scale}", columns, rows, notes)


def _methods(ratings: Ratings) -> list[str]:
    return list(dict.fromkeys(method for method, _ in ratings.pictures))


def _count_raters(ratings: Sequence[Rating]) -> int:
    return len({rating.rater for rating in ratings})


def _mean(ratings: Sequence[Rating], scale: str, seed: int, resamples: int) -> Cell:
    # The sum of the three is exact.
    scales, divisor = (SCALES, len(SCALES)) if scale == OVERALL else ([scale], 1)
    values = [sum(getattr(rating, name) for name in scales) / divisor for rating in ratings]
    raters = [rating.rater for rating in ratings]
    return Cell(*statistics.bootstrap(values, groups=raters, seed=seed, resamples=resamples))


def _notes(ratings: Ratings, means: Sequence[Cell], resamples: int) -> tuple[str, ...]:
    """What a reader must know of these means."""
    count = _count_raters(ratings.ratings)
    raters = "1 rater" if count == 1 else f"{count} raters"
    notes = [f"Means of ratings from {LOWEST} to {HIGHEST}, by {raters}."]
    if any(mean.low is not None for mean in means):
        notes.append(
            f"In brackets: the 95% interval of the mean by bootstrap over the raters ({resamples} "
            "resamples); it is about other people, and not about other pictures."
        )
    if any(mean.value is not None and mean.low is None for mean in means):
        notes.append("Of one rater alone there is no interval.")
    return tuple(notes)
