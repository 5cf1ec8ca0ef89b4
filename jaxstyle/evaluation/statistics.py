"""How sure a mean is: percentile bootstrap intervals of means and of paired differences.

The paintings are taken as given and the photographs as drawn: an interval says where the mean would
lie for other photographs in the same paintings, and nothing of other paintings.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Labels = Sequence[Hashable] | NDArray


class Interval(NamedTuple):
    """A mean and the ends of its interval, which are nan where nothing can be said."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: ArrayLike,
    *,
    strata: Labels | None = None,
    groups: Labels | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """The mean of values with its percentile bootstrap interval.

    (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.) Every resample
    draws as many values as there are, with replacement, each among those of its stratum. With the
    painting as stratum, the interval is about new photographs and not about new paintings.

    A photograph has a value in each of several paintings, and these are alike: together they say
    less than as many values of different photographs. With the photograph as group, its values are
    drawn together, among the photographs that have values in the same strata. Where one photograph
    is alone in that, all are drawn among all; how paintings differ then adds to the interval.

    Resampling n units finds (n - 1) / n of their variance, and none for a stratum of one unit: with
    few photographs an interval is too narrow.

    Args:
        values: `[n]`.
        strata: the stratum of each value; None for a single one.
        groups: the group of each value; None for each value on its own.
        seed: the same seed gives the same interval.
        resamples: how many means the interval is read from.
        level: the share of them that lies within, in (0, 1).

    Returns:
        The mean and its interval. The interval is nan where no stratum has two values, where there
        is only one group, and where a value is not finite; the mean of no values is nan.

    Raises:
        ValueError: an argument is of the wrong shape or out of its range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            "expected at least one resample and a level between 0 and 1, "
            f"got {resamples} and {level}"
        )
    x = _vector(values, "values")
    stratum = np.zeros(x.size, int) if strata is None else _codes(strata, x.size, "strata")
    group = np.arange(x.size) if groups is None else _codes(groups, x.size, "groups")
    if not x.size or not np.isfinite(x).all():
        with np.errstate(invalid="ignore"):  # infinities of both signs
            return Interval(float(x.sum()) if x.size else np.nan, np.nan, np.nan)
    # Around one of them: equal values are then equal to their mean and its interval, to the bit.
    deviations = x - x[0]
    sums, counts = np.bincount(group, deviations), np.bincount(group)
    classes = _classes(stratum, group, together=groups is not None)
    ends = (np.nan, np.nan)
    if any(len(units) > 1 for units in classes):
        generator = np.random.default_rng(seed)
        total, number = np.zeros(resamples), np.zeros(resamples)
        for units in classes:
            drawn = units[generator.integers(len(units), size=(resamples, len(units)))]
            total += sums[drawn].sum(1)
            number += counts[drawn].sum(1)
        ends = np.quantile(total / number, [(1 - level) / 2, (1 + level) / 2])
    return Interval(*(float(x[0] + part) for part in (deviations.mean(), *ends)))


def paired(
    values: ArrayLike,
    baseline: ArrayLike,
    *,
    strata: Labels | None = None,
    groups: Labels | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """The mean of `values - baseline` with its interval: a value and its partner stay together.

    Args:
        values: `[n]`.
        baseline: `[n]`, of the same photographs and paintings in the same order.
        strata: as for `bootstrap`, as are all that follow.
        groups: the group of each value.
        seed: the same seed gives the same interval.
        resamples: how many means the interval is read from.
        level: the share of them that lies within, in (0, 1).

    Returns:
        The mean difference and its interval, as of `bootstrap`.

    Raises:
        ValueError: an argument is of the wrong shape or out of its range.
    """
    x, y = _vector(values, "values"), _vector(baseline, "baseline")
    if x.shape != y.shape:
        raise ValueError(f"expected as many values as in the baseline, got {x.size} and {y.size}")
    with np.errstate(invalid="ignore"):  # infinity less infinity
        difference = x - y
    options = {"seed": seed, "resamples": resamples, "level": level}
    return bootstrap(difference, strata=strata, groups=groups, **options)


def redrawn(
    strata: Labels, groups: Labels, *, seed: int = 0, resamples: int = 2000
) -> Iterator[NDArray[np.int64]]:
    """Places of values, drawn again as `bootstrap` does: for figures that are no means.

    Args:
        strata: the stratum of each value, `[n]`.
        groups: the group of each value, `[n]`.
        seed: the same seed draws the same.
        resamples: how often.

    Yields:
        Places, numbers from 0 to n - 1; nothing at all where there is only one group.

    Raises:
        ValueError: there are not as many strata as groups.
    """
    group = _codes(groups, len(groups), "groups")
    classes = _classes(_codes(strata, len(groups), "strata"), group, together=True)
    if not any(len(units) > 1 for units in classes):
        return
    places = [np.flatnonzero(group == unit) for unit in range(group.max() + 1)]
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = [units[generator.integers(len(units), size=len(units))] for units in classes]
        yield np.concatenate([places[unit] for unit in np.concatenate(drawn)])


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    x = np.asarray(values, np.float64)
    if x.ndim != 1:
        raise ValueError(f"{name}: expected shape [n], got {list(x.shape)}")
    return x


def _codes(labels: Labels, size: int, name: str) -> NDArray[np.int64]:
    """Labels as numbers from 0, in the order in which they appear."""
    if len(labels) != size:
        raise ValueError(f"{name}: expected a label for each of {size} values, got {len(labels)}")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)


def _classes(
    stratum: NDArray[np.int64], group: NDArray[np.int64], *, together: bool
) -> list[NDArray[np.int64]]:
    """The groups, parted into those that are drawn among each other."""
    patterns: dict[int, list[int]] = {}
    for unit, place in zip(group.tolist(), stratum.tolist(), strict=True):
        patterns.setdefault(unit, []).append(place)
    classes: dict[tuple[int, ...], list[int]] = {}
    for unit, places in patterns.items():
        classes.setdefault(tuple(sorted(set(places))), []).append(unit)
    if together and any(len(units) == 1 for units in classes.values()):
        return [np.arange(len(patterns))]
    return [np.array(units) for units in classes.values()]
