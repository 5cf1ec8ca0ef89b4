"""How well labels are found, of pixels or of anything else: pure functions.

Counts come first, as a confusion matrix. Matrices of several pictures add up; what is derived of
them takes any leading axes. Results are float32 where nothing else is said.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Counts.


def confusion_matrix(
    labels: Array, predictions: Array, num_classes: int, *, weights: Array | None = None
) -> Array:
    """How often each class was taken for each.

    An element whose label or prediction is not in 0 ... num_classes - 1 does not count: -1, or the
    255 of many label pictures, is for no label.

    Args:
        labels: the true classes, integers (or bool) of any shape.
        predictions: the classes found, of the same shape.
        num_classes: k; a number that is known before compilation.
        weights: what each element counts, of the same shape; None is 1. They are summed one by one
            in float32: beyond about 10^5 for an entry, add up the matrices of parts.

    Returns:
        `[k, k]`, a row for each true class, a column for each found; exact up to 2^24, and from
        there on to 7 digits.

    Raises:
        ValueError: shapes that do not agree, labels that are no integers, or no classes.
    """
    function = "confusion_matrix"
    number = operator.index(num_classes)
    if number < 1:
        raise ValueError(f"{function}: expected at least 1 class, got {number}.")
    rows = _classes(function, "labels", labels)
    columns = _classes(function, "predictions", predictions)
    for name, array in (("predictions", predictions), ("weights", weights)):
        if array is not None and np.shape(array) != rows.shape:
            raise ValueError(
                f"{function}: expected {name} of the labels' shape {rows.shape}, got "
                f"{np.shape(array)}."
            )
    known = (rows >= 0) & (rows < number) & (columns >= 0) & (columns < number)
    # What does not count goes to an entry of its own, after the matrix.
    place = jnp.where(known, rows * number + columns, number**2).ravel()
    if weights is not None:
        weights = jnp.asarray(weights, jnp.float32).ravel()
    counts = jnp.bincount(place, weights=weights, length=number**2 + 1)
    return counts[:-1].reshape(number, number).astype(jnp.float32)


def _classes(function: str, argument: str, values: Any) -> Array:
    array = jnp.asarray(values)
    if not (jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool):
        raise ValueError(
            f"{function}: expected {argument} to be integers, got {array.dtype}; take the classes "
            "of scores by their argmax."
        )
    return array.astype(jnp.int32)


class _Counts(NamedTuple):
    """For each class, `[..., k]`: how often found rightly, true, found, and one of the two."""

    right: Array
    true: Array
    found: Array
    either: Array


def _counts(function: str, confusion: Any) -> _Counts:
    matrix = jnp.asarray(confusion, jnp.float32)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
        raise ValueError(
            f"{function}: expected a confusion matrix [..., classes, classes], got {matrix.shape}; "
            "confusion_matrix makes it of labels."
        )
    right = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    true, found = jnp.sum(matrix, axis=-1), jnp.sum(matrix, axis=-2)
    return _Counts(right, true, found, true + found - right)


def _ratio(part: Array, whole: Array, otherwise: float) -> Array:
    """The part of the whole, and `otherwise` where there is nothing."""
    some = whole > 0
    return jnp.where(some, part / jnp.where(some, whole, 1), otherwise)


def _mean_where(values: Array, counted: Array) -> Array:
    """The mean of those that count, along the last axis; nan if none does."""
    total = jnp.sum(jnp.where(counted, values, 0), axis=-1)
    return _ratio(total, jnp.sum(counted, axis=-1).astype(jnp.float32), jnp.nan)


# Of a confusion matrix.


def pixel_accuracy(confusion: Array) -> Array:
    """The share of elements whose class was found (Long et al. 2015, Section 5).

    Args:
        confusion: `[..., k, k]`, from `confusion_matrix`.

    Returns:
        `[...]` in [0, 1]; nan of an empty matrix.

    Raises:
        ValueError: a wrong shape.
    """
    counts = _counts("pixel_accuracy", confusion)
    return _ratio(jnp.sum(counts.right, -1), jnp.sum(counts.true, -1), jnp.nan)


def intersection_over_union(confusion: Array) -> Array:
    """For each class, the elements found rightly over those that are of it or were taken for it.

    Args:
        confusion: `[..., k, k]`, from `confusion_matrix`.

    Returns:
        `[..., k]` in [0, 1] (Jaccard's index); nan for a class that occurs neither in truth nor in
        the predictions.

    Raises:
        ValueError: a wrong shape.
    """
    counts = _counts("intersection_over_union", confusion)
    return _ratio(counts.right, counts.either, jnp.nan)


def mean_iou(confusion: Array) -> Array:
    """Mean intersection over union, of all classes that occur (Long et al. 2015, Section 5).

    1/k sum_i p_ii / (sum_j p_ij + sum_j p_ji - p_ii). Where it is written with 1/(k + 1) and sums
    from 0 to k, k counts the classes beside the background: it is the same mean. (Pu and Li, Eq.
    12, print p_ij in both sums; the second must be p_ji.)

    Classes that occur neither in truth nor in the predictions have no ratio and are left out. So
    the mean over a set is that of the sum of its matrices, not the mean of its pictures' values.

    Args:
        confusion: `[..., k, k]`, from `confusion_matrix`.

    Returns:
        `[...]` in [0, 1]; nan of an empty matrix.

    Raises:
        ValueError: a wrong shape.
    """
    counts = _counts("mean_iou", confusion)
    return _mean_where(_ratio(counts.right, counts.either, 0), counts.either > 0)


def precision(confusion: Array, *, average: str | None = None) -> Array:
    """For each class, the share of right ones among those that were taken for it.

    Args:
        confusion: `[..., k, k]`, from `confusion_matrix`.
        average: None for each class, or `"macro"` for the unweighted mean over the classes that
            occur in truth or in the predictions.

    Returns:
        `[..., k]`, or `[...]` if averaged, in [0, 1]. A class that was never predicted has 0, and
        is part of the average if it occurs in truth. An average is nan of an empty matrix.

    Raises:
        ValueError: a wrong shape, or an unknown average.
    """
    counts = _counts("precision", confusion)
    return _averaged("precision", _ratio(counts.right, counts.found, 0), counts, average)


def recall(confusion: Array, *, average: str | None = None) -> Array:
    """For each class, the share that was found of what is of it.

    Args:
        confusion: `[..., k, k]`, from `confusion_matrix`.
        average: None for each class, or `"macro"` for the unweighted mean over the classes that
            occur in truth or in the predictions.

    Returns:
        `[..., k]`, or `[...]` if averaged, in [0, 1]. A class that does not occur in truth has 0,
        and is part of the average if it was predicted. An average is nan of an empty matrix.

    Raises:
        ValueError: a wrong shape, or an unknown average.
    """
    counts = _counts("recall", confusion)
    return _averaged("recall", _ratio(counts.right, counts.true, 0), counts, average)


def f1_score(confusion: Array, *, average: str | None = None) -> Array:
    """For each class, the harmonic mean of precision and recall (Dice's coefficient).

    Args:
        confusion: `[..., k, k]`, from `confusion_matrix`.
        average: None for each class, or `"macro"` for the unweighted mean over the classes that
            occur in truth or in the predictions: the mean of their scores, not the score of mean
            precision and recall.

    Returns:
        `[..., k]`, or `[...]` if averaged, in [0, 1]. A class without anything found rightly has 0,
        also if it does not occur at all. An average is nan of an empty matrix.

    Raises:
        ValueError: a wrong shape, or an unknown average.
    """
    counts = _counts("f1_score", confusion)
    score = _ratio(2 * counts.right, counts.true + counts.found, 0)
    return _averaged("f1_score", score, counts, average)


def _averaged(function: str, values: Array, counts: _Counts, average: str | None) -> Array:
    if average is None:
        return values
    if average != "macro":
        raise ValueError(f"{function}: expected average to be None or 'macro', got {average!r}.")
    return _mean_where(values, counts.either > 0)


# Of scores.


class RocCurve(NamedTuple):
    """A receiver operating characteristic: three float64 NumPy arrays of one length.

    Attributes:
        false_positive_rate: share of the negatives with a score of at least the threshold.
        true_positive_rate: share of the positives with such a score.
        thresholds: falling, infinity first.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray


def roc_curve(labels: Any, scores: Any) -> RocCurve:
    """Receiver operating characteristic of a score for two classes (Fawcett 2006, Algorithm 1).

    A NumPy function: how many points there are depends on the values, so it cannot be compiled.

    Args:
        labels: `[n]`, 1 or True for positives, 0 or False for negatives; others do not count.
        scores: `[n]`, higher for what is more likely positive.

    Returns:
        `RocCurve(false_positive_rate, true_positive_rate, thresholds)`, from (0, 0) to (1, 1) with
        a point for each value among the scores, however often it occurs. Rates of a class that does
        not occur are nan.

    Raises:
        ValueError: shapes that do not agree, or scores that are not a number.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    _check_scores("roc_curve", labels, scores)
    counted = _binary(labels)
    labels, scores = labels[counted], scores[counted]
    if np.isnan(scores).any():
        raise ValueError("roc_curve: expected scores that are numbers, got nan among them.")
    values, places = np.unique(-scores, return_inverse=True)
    false, true = (_cumulative_shares(places[labels == kind], len(values)) for kind in (0, 1))
    return RocCurve(false, true, np.concatenate([[np.inf], -values]))


def _cumulative_shares(places: np.ndarray, number: int) -> np.ndarray:
    """The share of the places before 0, 1, ... `number`."""
    if not places.size:
        return np.full(number + 1, np.nan)
    return np.cumsum([0, *np.bincount(places, minlength=number)]) / places.size


def _binary(labels: Any) -> Any:
    return (labels == 0) | (labels == 1)


def _check_scores(function: str, labels: Any, scores: Any) -> None:
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"{function}: expected labels [n] and as many scores, got {labels.shape} and "
            f"{scores.shape}."
        )


def auc(labels: Array, scores: Array) -> Array:
    """Area under the receiver operating characteristic, by ranks.

    How likely a positive drawn at random has a higher score than a negative; equal scores count
    one half (Mann and Whitney's statistic; Fawcett 2006, Section 7). It is the area under the
    straight lines between the points of `roc_curve`.

    Args:
        labels: `[n]`, 1 or True for positives, 0 or False for negatives; others do not count.
        scores: `[n]`, higher for what is more likely positive; compared in float32.

    Returns:
        A scalar in [0, 1], 0.5 for scores that tell nothing; nan if one class does not occur, or
        with scores that are nan.

    Raises:
        ValueError: shapes that do not agree.
    """
    labels, scores = jnp.asarray(labels), jnp.asarray(scores, jnp.float32)
    _check_scores("auc", labels, scores)
    positive, negative = labels == 1, labels == 0
    order = jnp.argsort(scores)
    ranked = scores[order]
    # How many negatives are among the first 0, 1, ... n.
    negatives = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(negative[order])])
    below = negatives[jnp.searchsorted(ranked, scores, side="left")]
    not_above = negatives[jnp.searchsorted(ranked, scores, side="right")]
    # Halves first: the sum over pairs would leave the range of whole numbers.
    beaten = (below + not_above).astype(jnp.float32) / 2
    share = _ratio(beaten, jnp.sum(negative).astype(jnp.float32), jnp.nan)
    area = _mean_where(share, positive)
    return jnp.where(jnp.any(jnp.isnan(scores) & _binary(labels)), jnp.nan, area)


def one_vs_rest_auc(labels: Array, scores: Array) -> Array:
    """The mean over classes of the area of each class against all others.

    Unweighted ("macro"), over the classes that have both positives and negatives.

    Args:
        labels: `[n]`, integers; those not in 0 ... classes - 1 do not count.
        scores: `[n, classes]`, of each class higher for what is more likely of it.

    Returns:
        A scalar in [0, 1]; nan if less than two classes occur, or with scores that are nan.

    Raises:
        ValueError: shapes that do not agree, or labels that are no integers.
    """
    function = "one_vs_rest_auc"
    labels, scores = _classes(function, "labels", labels), jnp.asarray(scores, jnp.float32)
    if labels.ndim != 1 or scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(
            f"{function}: expected labels [n] and scores [n, classes], got {labels.shape} and "
            f"{scores.shape}."
        )
    classes = scores.shape[1]
    member = labels[None] == jnp.arange(classes)[:, None]
    known = jnp.any(member, axis=0, keepdims=True)
    areas = jax.vmap(auc)(jnp.where(known, member.astype(jnp.int32), -1), scores.T)
    occurs, others = jnp.any(member, axis=1), jnp.any(known & ~member, axis=1)
    return _mean_where(areas, occurs & others)
