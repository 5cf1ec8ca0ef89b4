"""Tables of what `speed` and `throughput` have measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxstyle.evaluation.cells import Cell, Column, Table

Record = dict[str, Any]

COUNTS = (25_000, 50_000, 100_000, 150_000)
"""Numbers of pictures whose time is extrapolated."""

_BUSY = 1.5  # load average a core; what was measured just before leaves about 1


class _Shown(NamedTuple):
    """A group of columns, one a size: the key in records, what it is called, and its numbers."""

    key: str
    heading: str
    unit: str
    digits: int = 1
    factor: float = 1.0


def speed_table(records: Sequence[Record]) -> Table:
    """A row a method: milliseconds a picture at each size, one by one and in batches.

    Args:
        records: of `measure`; the rows come in their order.
    """
    batches = sorted({record["batch"] for record in records if "batch_seconds" in record})
    batched = f", in batches of {', '.join(map(str, batches))}"
    groups = (
        _Shown("seconds", "", "ms", factor=1e3),
        _Shown("batch_seconds", batched, "ms", factor=1e3),
    )
    notes = (
        "Medians, from array to array, after a first picture that does not count; in brackets the "
        "fastest and the slowest.",
        *_remarks(records),
    )
    return _by_size("speed", "Milliseconds a picture", records, groups, notes)


def cost_table(records: Sequence[Record]) -> Table:
    """A row a method: the first picture, an update, and memory at each size.

    Args:
        records: of `measure`; the rows come in their order.
    """
    groups = (
        _Shown("first_s", ", first picture", "s", digits=2),
        _Shown("update_ms", ", an update", "ms"),
        _Shown("peak_mb", ", memory", "MiB", digits=0),
        _Shown("batch_peak_mb", ", memory after batches", "MiB", digits=0),
        _Shown("device_peak_mb", ", memory of the device", "MiB", digits=0),
    )
    notes = (
        "Memory: the most that the process held beyond what it held before its first picture, "
        "compiling included.",
    )
    updates = any("update_ms" in record for record in records)
    if any("first_s" in record for record in records):
        notes += (
            "The first picture: all that it compiles, from an empty cache of compiled programs, "
            "and what is read off the painting; not the start of Python, nor reading the model."
            + updates
            * " That of methods with updates is one of the later ones and the seconds "
            "that compiling adds, which are measured in a run of few updates.",
        )
    if updates:
        notes += (
            "An update: the median of a few at full size; in brackets the fastest and the slowest.",
        )
    return _by_size("speed_cost", "What a picture takes", records, groups, notes)


def styles_table(records: Sequence[Record]) -> Table:
    """A row a style, a column a method: mean seconds a picture, the least and the most.

    Args:
        records: of `measure_styles`, all at one size.

    Raises:
        ValueError: they are of several sizes.
    """
    sizes = {record["size"] for record in records}
    if len(sizes) > 1:
        raise ValueError(f"expected records of one size, got {sorted(sizes)}")
    methods = dict.fromkeys(record["method"] for record in records)
    columns = tuple(Column(name, name, "s", "low", 3) for name in methods)
    rows: dict[str, dict[str, Cell]] = {}
    for record in records:
        cells = rows.setdefault(record["style"], {})
        if values := record.get("seconds"):
            mean = statistics.fmean(values)
            cells[record["method"]] = _cell(values, mean, record["extrapolated"])
    notes = (
        "Means of pictures one by one, from array to array, after a first one that does not count; "
        "in brackets the fastest and the slowest.",
        *_remarks(records),
    )
    title = "Seconds a picture" + "".join(f" at {size} px" for size in sizes)
    return Table("speed_styles", title, columns, rows, notes, row_title="style")


def throughput_table(records: Mapping[str, Record], counts: Sequence[int] = COUNTS) -> Table:
    """Two rows a method, with files and without: pictures a second, and hours for many pictures.

    Args:
        records: of `throughput`, by the names of methods.
        counts: numbers of pictures for which hours are extrapolated.
    """
    bases = sorted({record["count"] for record in records.values()})
    base = " to ".join(f"{count:,}" for count in dict.fromkeys([*bases[:1], *bases[-1:]]))
    long = f"{{:,}} pictures, extrapolated from {base}"
    columns = (
        Column("rate", "pictures a second", better="high", digits=2),
        *(Column(f"{count}", long.format(count), "h", "low", 3) for count in counts),
    )
    rows, notes = {}, []
    for name, record in records.items():
        for key, how in (("disk_s", "from disk to disk"), ("compute_s", "computing alone")):
            rate = record["count"] / record[key]
            hours = {f"{count}": Cell(count / rate / 3600) for count in counts}
            rows[f"{name}, {how}"] = {"rate": Cell(rate), **hours}
        notes.append(
            f"{name}: {record['count']:,} pictures of {record['size']} px, in batches of "
            f"{record['batch']}, of {record['photos']:,} different photographs."
        )
    return Table("throughput", "Many pictures", columns, rows, tuple(notes))


def hours(
    records: Mapping[str, Record], counts: Sequence[int] = COUNTS
) -> dict[str, tuple[list[int], list[float]]]:
    """Hours for many pictures from disk to disk, extrapolated: curves of `report.curves`.

    Args:
        records: as for `throughput_table`.
        counts: numbers of pictures.
    """
    return {
        name: ([*counts], [count * record["disk_s"] / record["count"] / 3600 for count in counts])
        for name, record in records.items()
    }


def _by_size(
    name: str,
    title: str,
    records: Sequence[Record],
    groups: Sequence[_Shown],
    notes: tuple[str, ...],
) -> Table:
    """The groups that any record has something of, and in each a column a size."""
    rows: dict[str, dict[str, Cell]] = {record["method"]: {} for record in records}
    columns = []
    for group in groups:
        chosen = [record for record in records if record.get(group.key) is not None]
        for size in sorted({record["size"] for record in chosen}):
            heading = f"{size} px{group.heading}"
            columns.append(Column(f"{group.key}-{size}", heading, group.unit, "low", group.digits))
        for record in chosen:
            values = [group.factor * value for value in np.atleast_1d(record[group.key]).tolist()]
            extrapolated = group.key == "seconds" and record["extrapolated"]
            cell = _cell(values, statistics.median(values), extrapolated)
            rows[record["method"]][f"{group.key}-{record['size']}"] = cell
    return Table(name, title, tuple(columns), rows, notes)


def _cell(values: Sequence[float], middle: float, extrapolated: bool) -> Cell:
    if extrapolated:
        return Cell(middle, remark="extrapolated")
    return Cell(middle, min(values), max(values)) if len(values) > 1 else Cell(middle)


def _remarks(records: Sequence[Record]) -> list[str]:
    """What a reader must know of single records."""
    runs, found = {record["runs"] for record in records}, []
    if records:
        found.append(f"Runs of each: {', '.join(map(str, sorted(runs)))}, unless said otherwise.")
    loads = [record["load"] / record["cores"] for record in records if record.get("load")]
    if loads and max(loads) > _BUSY:
        found.append(
            f"Before some, the load average was up to {max(loads):.1f} times the number of cores: "
            "other programs may have slowed them down."
        )
    if any(record.get("extrapolated") for record in records):
        found.append("Extrapolated: the seconds of a few updates, times the number of updates.")
    for record in records:
        what = f"{record['method']}, {record['style']}, {record['size']} px"
        count = len(record.get("seconds", ()))
        if record["error"]:
            found.append(f"{what}: {record['error']}.")
        elif count < record["runs"] and not record.get("extrapolated"):
            found.append(f"{what}: runs: {count}.")
    updates = {record["method"]: record.get("updates") for record in records}
    found += [f"{name}: {count} updates a picture." for name, count in updates.items() if count]
    return found
