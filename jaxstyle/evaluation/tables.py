"""Tables of an evaluation: out of records, and as Markdown, CSV and JSON.

A record is what one method made of one pair: `{"method": ..., "style": ..., "content": ...}`, the
names of the method, the painting and the photograph, and numbers by the names of the metrics. A
metric that is missing, None or nan has no value for the pair.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxstyle.errors import UserError, reason_of
from jaxstyle.evaluation import statistics
from jaxstyle.evaluation.cells import Cell, Column, Table
from jaxstyle.training.report import replace_file

Record = Mapping[str, Any]
Pair = tuple[str, str]  # of a painting and a photograph
PathLike = str | os.PathLike[str]

PAIRS = "pairs"
"""The key of the column of `overall` that says over how many pairs the means are."""

ALL = "all paintings"
"""The key of the last column of `by_style`."""

_FEW = 10  # photographs: with less, the bootstrap finds under 90% of their variance
FEWER = "Judged on fewer pairs, so that their means cannot be compared with those of others"
"""The beginning of a note of `fewer`."""

_ABOUT = (
    "In brackets: the 95% interval of the {} by bootstrap over the photographs; it is about new "
    "photographs in these paintings, not about new paintings."
)

_INFINITE = {"∞": "inf", "-∞": "-inf"}  # a cell's, and a CSV's

# --- out of records ------------------------------------------------------------------------------


def overall(
    records: Sequence[Record],
    columns: Sequence[Column],
    *,
    methods: Sequence[str],
    name: str,
    title: str,
    common: bool = False,
    seed: int = 0,
    resamples: int = 2000,
    notes: Sequence[str] = (),
) -> Table:
    """A row a method: means over its pairs, with 95% intervals, and how many pairs there are.

    The intervals are `statistics.bootstrap`'s with the painting as stratum and the photograph as
    group. Notes say what they are about, and which means are over fewer pairs than others.

    Args:
        records: of all methods; those of methods that are not asked for are left out.
        columns: the metrics to show.
        methods: the rows, in their order.
        name: of the table's files.
        title: of the table.
        common: take only the pairs that all methods have, and for each metric only those where all
            methods have a value, so that all means of a column are over the same pairs. Methods
            without any do not count.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        notes: to stand before those that are made here.

    Returns:
        The table; the key of its last column is `PAIRS`.

    Raises:
        ValueError: a record lacks a name or repeats a pair, or a value is not a number.
    """
    pairs = _by_method(records, methods)
    if common:
        pairs = _shared(pairs)
        number = max(map(len, pairs.values()), default=0)
        remarks = [f"Means are over the {number} pairs that the methods have in common."]
    else:
        every = set().union(*pairs.values())
        remarks = fewer(FEWER, pairs, dict.fromkeys(pairs, every))
    rows: dict[str, dict[str, Cell]] = {method: {} for method in methods}
    for column in columns:
        values = {method: _values(own, column.key) for method, own in pairs.items()}
        values = _shared(values) if common else values
        some = {method: own for method, own in values.items() if own}
        remarks += fewer(f"{column.title} is over fewer pairs", some, pairs)
        for method, own in values.items():
            rows[method][column.key] = _mean(own, seed=seed, resamples=resamples)
    for method, own in pairs.items():
        rows[method][PAIRS] = Cell(len(own))
    shown = (*columns, Column(PAIRS, "pairs", digits=0))
    return Table(name, title, shown, rows, (*notes, *about(rows, pairs, "mean"), *remarks))


def by_style(
    records: Sequence[Record],
    column: Column,
    *,
    methods: Sequence[str],
    baseline: str,
    name: str,
    title: str,
    seed: int = 0,
    resamples: int = 2000,
    notes: Sequence[str] = (),
) -> Table:
    """A row a method, a column a painting: means, and 95% intervals of differences to a baseline.

    An interval is that of the mean difference to the baseline on the same photographs
    (`statistics.paired`); the title says so. A last column has all paintings, if there are several.

    Args:
        records: as for `overall`; paintings come in the order in which they first appear.
        column: the metric.
        methods: the rows, in their order.
        baseline: the method that the others are compared with, in the rows or not.
        name: of the table's files.
        title: of the table; what the brackets are is added.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        notes: to stand before those that are made here.

    Returns:
        The table; the keys of its columns are the names of the paintings, and `all paintings`.

    Raises:
        ValueError: a record lacks a name or repeats a pair, or a value is not a number.
    """
    pairs = _by_method(records, list(dict.fromkeys([*methods, baseline])))
    values = {method: _values(own, column.key) for method, own in pairs.items()}
    styles = list(dict.fromkeys(row["style"] for row in records if row["method"] in pairs))
    parts = {style: [style] for style in styles} | ({ALL: styles} if len(styles) > 1 else {})
    rows = {
        method: {
            key: _compared(
                _in_styles(values[method], chosen),
                None if method == baseline else _in_styles(values[baseline], chosen),
                seed=seed,
                resamples=resamples,
            )
            for key, chosen in parts.items()
        }
        for method in methods
    }
    pairs = {method: pairs[method] for method in methods}
    own = {method: values[method] for method in methods}
    both = {method: own[method].keys() & values[baseline].keys() for method in methods}
    remarks = [
        *about(rows, pairs, "difference, of the same photograph in the same painting,"),
        *fewer(FEWER, pairs, dict.fromkeys(pairs, set().union(*pairs.values()))),
        *fewer(f"Differences are over the fewer pairs that {baseline} has, too", both, own),
    ]
    title = f"{title} (in brackets: 95% interval of the difference to {baseline})"
    columns = (dataclasses.replace(column, key=key, title=key, difference=True) for key in parts)
    return Table(name, title, tuple(columns), rows, (*notes, *remarks))


def _by_method(records: Sequence[Record], methods: Sequence[str]) -> dict[str, dict[Pair, Record]]:
    """Records by their pairs, by their methods; no records are no pairs."""
    found: dict[str, dict[Pair, Record]] = {method: {} for method in methods}
    for record in records:
        if lacking := [name for name in ("method", "style", "content") if name not in record]:
            raise ValueError(f"expected a record with a {lacking[0]}, got {dict(record)}")
        own = found.get(record["method"])
        if own is None:
            continue
        pair = (record["style"], record["content"])
        if pair in own:
            what = f"{record['method']} for {record['content']} in {record['style']}"
            raise ValueError(f"expected one record a pair, got two of {what}")
        own[pair] = record
    return found


def _values(pairs: Mapping[Pair, Record], key: str) -> dict[Pair, float]:
    """A metric of all pairs that have a value, sorted: the order of records changes nothing."""
    found = {}
    for pair in sorted(pairs):
        value = pairs[pair].get(key)
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{key}: expected a number, got {value!r}") from None
        if not math.isnan(number):
            found[pair] = number
    return found


def _shared(found: Mapping[str, dict[Pair, Any]]) -> dict[str, dict[Pair, Any]]:
    """What all methods have that have anything."""
    sets = [set(own) for own in found.values() if own]
    shared = set.intersection(*sets) if sets else set()
    return {
        method: {pair: value for pair, value in own.items() if pair in shared}
        for method, own in found.items()
    }


def _in_styles(values: Mapping[Pair, float], styles: Sequence[str]) -> dict[Pair, float]:
    return {pair: value for pair, value in values.items() if pair[0] in styles}


def _mean(values: Mapping[Pair, float], *, seed: int, resamples: int) -> Cell:
    return Cell(
        *statistics.bootstrap(
            list(values.values()),
            strata=[style for style, _ in values],
            groups=[content for _, content in values],
            seed=seed,
            resamples=resamples,
        )
    )


def _compared(
    values: Mapping[Pair, float],
    baseline: Mapping[Pair, float] | None,
    *,
    seed: int,
    resamples: int,
) -> Cell:
    """A mean, and the interval of the difference to the baseline where both have values."""
    mean = float(np.mean(list(values.values()))) if values else None
    if baseline is None:
        return Cell(mean)
    both = [pair for pair in values if pair in baseline]
    interval = statistics.paired(
        [values[pair] for pair in both],
        [baseline[pair] for pair in both],
        strata=[style for style, _ in both],
        groups=[content for _, content in both],
        seed=seed,
        resamples=resamples,
    )
    return Cell(mean, interval.low, interval.high)


def about(
    rows: Mapping[str, Mapping[str, Cell]], pairs: Mapping[str, Collection[Pair]], what: str
) -> list[str]:
    """Notes on what the brackets are, where there are any, and on those of few photographs.

    Args:
        rows: of a table.
        pairs: that each method was judged on, paintings and photographs.
        what: is within the interval.
    """
    bracketed = [
        method for method, row in rows.items() if any(cell.low is not None for cell in row.values())
    ]
    if not bracketed:
        return []
    photographs = {method: len({name for _, name in pairs[method]}) for method in bracketed}
    few = [f"{method} ({own})" for method, own in photographs.items() if own < _FEW]
    which = "" if len(few) == len(bracketed) else f": {', '.join(few)}"
    narrow = f" Those of fewer than {_FEW} photographs are too narrow{which}."
    return [_ABOUT.format(what) + (narrow if few else "")]


def fewer(
    sentence: str,
    found: Mapping[str, Collection[Pair]],
    every: Mapping[str, Collection[Pair]],
) -> list[str]:
    """A note on the methods of which fewer pairs were found than there are, if there are any.

    Args:
        sentence: its beginning.
        found: pairs of each method.
        every: pairs that there are, of each method.
    """
    short = [
        f"{method} ({len(own)} of {len(every[method])})"
        for method, own in found.items()
        if len(own) < len(every[method])
    ]
    return [f"{sentence}: {', '.join(short)}."] if short else []


# --- files ---------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """A table in Markdown: a heading, the table, a paragraph for each note.

    A value stands before its interval, `0.123 [0.110, 0.140]`; numbers are set from the right.
    """
    head = [table.row_title, *(column.heading for column in table.columns)]
    rule = ["---", *("---" if table.has_words(c.key) else "---:" for c in table.columns)]
    lines = [head, rule]
    for row, cells in table.rows.items():
        texts = (cells.get(column.key, Cell()).text(column) for column in table.columns)
        lines.append([row, *(" ".join(filter(None, parts)) for parts in texts)])
    # A bar or a new line in a cell would end it.
    lines = [[" ".join(text.split()).replace("|", "\\|") for text in line] for line in lines]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return "\n".join([f"# {table.title}\n", body, *(f"{note}\n" for note in table.notes)])


def to_csv(table: Table) -> str:
    """A table as CSV: keys of columns above, all digits, nothing where there is no value.

    A column with intervals is followed by `KEY_low` and `KEY_high`, or `KEY_difference_low` and
    `KEY_difference_high` where they are those of a difference; one with remarks by `KEY_remark`.
    """
    head = [table.row_title]
    for column in table.columns:
        between = "_difference" if column.difference else ""
        head.append(column.key)
        if table.has_intervals(column.key):
            head += [f"{column.key}{between}_low", f"{column.key}{between}_high"]
        head += [f"{column.key}_remark"] if table.has_remarks(column.key) else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row, cells in table.rows.items():
        line: list[Any] = [row]
        for column in table.columns:
            cell = cells.get(column.key, Cell())
            line.append(_INFINITE.get(str(cell.value), cell.value))
            line += [cell.low, cell.high] if table.has_intervals(column.key) else []
            line += [cell.remark] if table.has_remarks(column.key) else []
        writer.writerow(line)
    return text.getvalue()


def to_json(table: Table) -> str:
    """A table as JSON, which `from_json` reads."""
    return json.dumps(dataclasses.asdict(table), indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Table:
    """The table that `to_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        found = json.loads(text)
        rows = {
            row: {key: Cell(**cell) for key, cell in cells.items()}
            for row, cells in found.pop("rows").items()
        }
        columns = tuple(Column(**column) for column in found.pop("columns"))
        return Table(**found | {"notes": tuple(found["notes"])}, columns=columns, rows=rows)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a table as to_json writes it: {error}") from error


def write(table: Table, folder: PathLike) -> None:
    """Writes `NAME.md`, `NAME.csv` and `NAME.json`, each whole or not at all.

    Args:
        table: its name is that of the files.
        folder: where they go; it is made if it is missing, files that exist are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    for suffix, form in ((".md", to_markdown), (".csv", to_csv), (".json", to_json)):
        write_file(epath.Path(folder) / f"{table.name}{suffix}", form(table).encode())


def write_file(path: PathLike, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    try:
        replace_file(epath.Path(path), content)
    except OSError as error:
        reason = reason_of(error)
        raise UserError(f"{path}: cannot be written: {reason}; choose another folder") from error
