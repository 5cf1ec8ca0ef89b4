"""Tests of `jaxstyle.classification`, against scikit-learn and values worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as reference

from jaxstyle import classification as found

# Compiled, because step by step they compile each step.
auc = jax.jit(found.auc)
one_vs_rest_auc = jax.jit(found.one_vs_rest_auc)
confusion_matrix = jax.jit(found.confusion_matrix, static_argnums=2)


@pytest.fixture(scope="module", autouse=True)
def quick_compiler():
    """Programs that run once need no optimisation; and no array gets axes unasked."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_rank_promotion("raise"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def classes(*shape, number=5, seed=0):
    """True classes and predictions that are often right; the last class occurs in neither."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, number - 1, shape)
    return labels, np.where(rng.random(shape) < 0.6, labels, rng.integers(0, number - 1, shape))


# Rows are true: of class 0 there are 4, of 1 there are 3, of 2 none; class 3 occurs nowhere.
MATRIX = np.array([[3, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.float32)


# --- confusion matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_confusion_matrix_is_that_of_scikit_learn(kind):
    labels, predictions = (x.astype(kind) for x in classes(3, 8, 9))
    weights = np.random.default_rng(1).random(labels.shape).astype(np.float32)
    for options in ({}, {"weights": weights}):
        ours = confusion_matrix(labels, predictions, 5, **options)
        theirs = reference.confusion_matrix(
            labels.ravel(),
            predictions.ravel(),
            labels=range(5),
            sample_weight=weights.ravel() if options else None,
        )
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_what_is_no_class_does_not_count():
    labels = np.array([0, 1, 1, -1, 255, 0, 1, 2])
    predictions = np.array([0, 0, 1, 1, 0, -1, 2, 0])
    expected = [[1, 0], [1, 1]]
    np.testing.assert_array_equal(found.confusion_matrix(labels, predictions, 2), expected)
    bytes_too = found.confusion_matrix(*(x.astype(np.uint8) for x in (labels, predictions)), 2)
    np.testing.assert_array_equal(bytes_too, expected)
    mask = found.confusion_matrix(np.array([True, False]), np.array([True, True]), 2)
    np.testing.assert_array_equal(mask, [[0, 1], [0, 1]])
    assert not found.confusion_matrix(np.array([], int), np.array([], int), 2).any()


def test_counts_do_not_end_where_float32_counts_no_further():
    zeros = jnp.zeros(2**24 + 1000, jnp.uint8)
    assert confusion_matrix(zeros, zeros, 1)[0, 0] == 2**24 + 1000


def test_confusion_matrix_refuses():
    with pytest.raises(ValueError, match="integers, got float32"):
        found.confusion_matrix(np.zeros(3, np.float32), np.zeros(3, int), 2)
    with pytest.raises(ValueError, match=r"expected predictions of the labels' shape \(3,\)"):
        found.confusion_matrix(np.zeros(3, int), np.zeros((3, 1), int), 2)
    with pytest.raises(ValueError, match="expected weights"):
        found.confusion_matrix(np.zeros(3, int), np.zeros(3, int), 2, weights=np.ones(1))
    with pytest.raises(ValueError, match="at least 1 class"):
        found.confusion_matrix(np.zeros(3, int), np.zeros(3, int), 0)


# --- of a matrix ---------------------------------------------------------------------------------


def test_values_worked_by_hand():
    nan = np.nan
    assert found.pixel_accuracy(MATRIX) == pytest.approx(5 / 7)
    np.testing.assert_allclose(found.intersection_over_union(MATRIX), [3 / 4, 2 / 4, 0, nan])
    assert found.mean_iou(MATRIX) == pytest.approx((3 / 4 + 2 / 4) / 3)
    np.testing.assert_allclose(found.precision(MATRIX), [1, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.recall(MATRIX), [3 / 4, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.f1_score(MATRIX), [6 / 7, 2 / 3, 0, 0], rtol=1e-6)
    assert found.f1_score(MATRIX, average="macro") == pytest.approx((6 / 7 + 2 / 3) / 3)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_classes_are_those_of_scikit_learn(seed):
    labels, predictions = classes(60, number=6, seed=seed)
    labels[labels == 0] = 1  # class 0 is predicted only
    predictions[predictions == 4] = 3  # class 4 is never predicted
    matrix = confusion_matrix(labels, predictions, 6)
    for average, options in ((None, {"labels": range(6)}), ("macro", {})):
        theirs = reference.precision_recall_fscore_support(
            labels, predictions, average=average, zero_division=0, **options
        )
        for function, expected in zip(
            (found.precision, found.recall, found.f1_score), theirs, strict=False
        ):
            ours = jax.jit(function, static_argnames="average")(matrix, average=average)
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, expected, rtol=1e-5, err_msg=str(function))
    occur = np.union1d(labels, predictions)
    jaccard = reference.jaccard_score(labels, predictions, labels=occur, average=None)
    ours = np.asarray(found.intersection_over_union(matrix))
    np.testing.assert_allclose(ours[occur], jaccard, rtol=1e-5)
    assert np.isnan(np.delete(ours, occur)).all()
    assert len(occur) == 5
    assert found.mean_iou(matrix) == pytest.approx(jaccard.mean())
    assert found.pixel_accuracy(matrix) == pytest.approx(
        reference.accuracy_score(labels, predictions)
    )


FUNCTIONS = [
    found.pixel_accuracy,
    found.intersection_over_union,
    found.mean_iou,
    found.precision,
    found.recall,
    found.f1_score,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_leading_axes_and_wrong_shapes(function):
    name = function.__name__
    matrices = np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4)).astype(np.float32)
    matrices[1, 2] = MATRIX
    function = jax.jit(function)
    whole = function(matrices)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(whole[index], function(matrices[index]), rtol=1e-6)
    for shape in ((3,), (2, 3), (0, 0)):
        with pytest.raises(ValueError, match=f"{name}: expected a confusion matrix"):
            function(np.zeros(shape))


def test_empty_matrices_and_unknown_averages():
    empty = np.zeros((3, 3))
    for function in (found.pixel_accuracy, found.mean_iou):
        assert np.isnan(function(empty))
    assert np.isnan(found.intersection_over_union(empty)).all()
    for function in (found.precision, found.recall, found.f1_score):
        np.testing.assert_array_equal(function(empty), np.zeros(3))
        assert np.isnan(function(empty, average="macro"))
        with pytest.raises(ValueError, match="None or 'macro', got 'micro'"):
            function(empty, average="micro")


# --- of scores -----------------------------------------------------------------------------------


def binary(number=200, steps=12, seed=0):
    """Labels, and scores that tell something of them, with many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, number)
    scores = np.round(steps * (rng.normal(size=number) + labels)) / steps
    return labels, scores.astype(np.float32)


@pytest.mark.parametrize("steps", [1, 4, 10**6])
def test_roc_curve_is_that_of_scikit_learn(steps):
    labels, scores = binary(steps=steps)
    theirs = reference.roc_curve(labels, scores, drop_intermediate=False)
    ours = found.roc_curve(labels, scores)
    for own, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, expected)
    assert (ours.false_positive_rate[0], ours.true_positive_rate[0]) == (0, 0)
    assert (ours.false_positive_rate[-1], ours.true_positive_rate[-1]) == (1, 1)
    area = np.trapezoid(ours.true_positive_rate, ours.false_positive_rate)
    assert auc(labels, scores) == pytest.approx(area)


def test_roc_curve_by_hand_and_at_its_edges():
    curve = found.roc_curve([True, False, True, False, -1], [0.9, 0.5, 0.5, 0.1, np.nan])
    np.testing.assert_array_equal(curve.false_positive_rate, [0, 0, 0.5, 1])
    np.testing.assert_array_equal(curve.true_positive_rate, [0, 0.5, 1, 1])
    np.testing.assert_array_equal(curve.thresholds, [np.inf, 0.9, 0.5, 0.1])
    alone = found.roc_curve([1, 1], [1, 2])
    assert np.isnan(alone.false_positive_rate).all()
    np.testing.assert_array_equal(alone.true_positive_rate, [0, 0.5, 1])
    with pytest.raises(ValueError, match="nan among"):
        found.roc_curve([0, 1], [0.5, np.nan])
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        found.roc_curve([0, 1], [0.5, 1, 2])


@pytest.mark.parametrize("steps", [1, 4, 10**6])
def test_auc_is_that_of_scikit_learn(steps):
    for seed in range(3):
        labels, scores = binary(seed=seed, steps=steps)
        area = auc(labels, scores)
        assert area.dtype == np.float32
        assert area == pytest.approx(reference.roc_auc_score(labels, scores), rel=1e-5)


def test_auc_by_hand_and_at_its_edges():
    assert auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert auc(np.array([0, 1]), np.array([0.3, 0.3])) == 0.5
    assert auc(np.array([False, True]), np.array([-0.0, 0.0])) == 0.5
    assert auc(np.array([1, 0, 1, 0]), np.array([np.inf, -np.inf, 2, 2])) == 0.875
    assert auc(np.array([1, 0, -1, 2]), np.array([1, 0, 5, np.nan])) == 1
    for labels in ([0, 0], [1, 1], [-1, 1], []):
        assert np.isnan(auc(np.array(labels), np.zeros(len(labels))))
    assert np.isnan(auc(np.array([0, 1, 1]), np.array([0, 1, np.nan])))
    with pytest.raises(ValueError, match=r"auc: .*\(2, 1\) and \(2, 1\)"):
        auc(np.zeros((2, 1)), np.zeros((2, 1)))


def test_auc_of_more_pairs_than_whole_numbers_reach():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200_000)
    scores = (rng.normal(size=labels.size) + labels).astype(np.float32)
    assert auc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores), rel=1e-5)


def scores_of_classes(number=150, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, number)
    powers = np.exp(np.round(rng.normal(size=(number, 4)) + 1.5 * np.eye(4)[labels]))
    return labels, (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def test_one_vs_rest_auc_is_that_of_scikit_learn():
    labels, scores = scores_of_classes()
    expected = reference.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    area = one_vs_rest_auc(labels, scores)
    assert area.dtype == np.float32
    assert area == pytest.approx(expected, rel=1e-5)


def test_one_vs_rest_auc_leaves_out_classes_and_labels_that_do_not_occur():
    labels, scores = scores_of_classes()
    labels = np.where(labels == 2, 7, labels)
    kept = labels < 4
    expected = np.mean(
        [reference.roc_auc_score(labels[kept] == i, scores[kept, i]) for i in (0, 1, 3)]
    )
    assert one_vs_rest_auc(labels, scores) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(one_vs_rest_auc(np.ones_like(labels), scores))
    scores[kept.argmax(), 0] = np.nan
    assert np.isnan(one_vs_rest_auc(labels, scores))


def test_one_vs_rest_auc_refuses():
    with pytest.raises(ValueError, match=r"\(3,\) and \(4, 2\)"):
        found.one_vs_rest_auc(np.zeros(3, int), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="integers"):
        found.one_vs_rest_auc(np.zeros(3), np.zeros((3, 2)))
