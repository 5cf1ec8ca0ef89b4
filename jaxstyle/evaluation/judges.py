"""Protocols: what is asked of a stylised picture, as functions of features.

Features are those of one network for all, `{layer: [1, height, width, channels]}`. The reasons for
each protocol, and what the papers leave open, are in docs/evaluation.md.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.cluster.vq import kmeans2

from jaxstyle import classification, losses, lpips, metrics, regions
from jaxstyle.errors import UserError
from jaxstyle.training import perceptual

Features = Mapping[str, Array]

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
_LEAST_SIDE_MS_SSIM = 176
# Regions of less than this share of a photograph are not looked for.
_LEAST_SHARE = 0.01
# Of k-means: beginnings, and rounds from each, after which hardly a position changes its cluster.
_STARTS = 4
_ROUNDS = 30


class Judge:
    """The networks that judge.

    Args:
        features: as `PerceptualConfig.features`.
        layers: those that are asked for.
        lpips_files: as `EvaluateConfig.lpips`.

    Attributes:
        fingerprint: of the networks.

    Raises:
        UserError: one cannot be read, or none has a layer that is needed.
    """

    def __init__(
        self, features: str, layers: Sequence[str] = LAYERS, lpips_files: str = ""
    ) -> None:
        config = perceptual.PerceptualConfig(
            features=features, content_layers={}, style_layers=dict.fromkeys(layers, 1.0)
        )
        networks = perceptual.load_networks(config)
        digest = hashlib.sha256(repr(sorted(layers)).encode())
        for network in networks:
            digest.update(repr((network.padding, network.layers)).encode())
            for name in sorted(network.params):
                digest.update(name.encode() + np.asarray(network.params[name]).tobytes())
        self._lpips = None
        if lpips_files:
            network, comma, linear = lpips_files.rpartition(",")
            if not comma:
                raise UserError("lpips is two files with a comma: VGG-16, and the weights of LPIPS")
            found = lpips.load(network.strip(), linear.strip())
            digest.update(found.sha256.encode())
            self._lpips = jax.jit(functools.partial(lpips.distance, found))
            self._lpips_features = jax.jit(functools.partial(lpips.features, found))
        self.fingerprint = digest.hexdigest()[:10]
        self._extract = jax.jit(lambda x: perceptual.extract(networks, x, layers))

    def features(self, picture: np.ndarray) -> dict[str, Array]:
        """Features of one picture `[height, width, 3]` in [0, 1]."""
        return self._extract(jnp.asarray(picture, jnp.float32)[None])

    def lpips_features(self, picture: np.ndarray) -> Features:
        """What `lpips` needs of a photograph; nothing where the files of LPIPS were not given."""
        if self._lpips is None:
            return {}
        return self._lpips_features(jnp.asarray(picture, jnp.float32)[None])

    def lpips(self, picture: np.ndarray, photo: Features) -> dict[str, float]:
        """LPIPS of one picture to another under its name, if its files were given."""
        if self._lpips is None:
            return {}
        return {"lpips": float(self._lpips(jnp.asarray(picture, jnp.float32)[None], photo)[0])}


References = Mapping[str, metrics.StyleReferences]


@jax.jit
def references(painting: Features) -> References:
    """What `distances` needs of the features of a painting, by the names of the figures."""
    forms = ("gram", "moments", "wasserstein")
    return {form: metrics.style_references(painting, form=form) for form in forms}


def distances(made: Features, photo: Features, painting: References) -> dict[str, float]:
    """How far the features of a picture are from those of its photograph and of its painting."""
    return {name: float(value) for name, value in _distances(made, photo, painting).items()}


def likeness(picture: np.ndarray, photo: np.ndarray, painting: np.ndarray) -> dict[str, float]:
    """The same without features, `[height, width, 3]` in [0, 1] each, the first two of one size."""
    found = _likeness(*(jnp.asarray(x)[None] for x in (picture, photo, painting)))
    return {name: float(value[0]) for name, value in found.items()}


@jax.jit
def _distances(made: Features, content: Features, style: References) -> dict[str, Array]:
    found = {
        "content_distance": metrics.content_distance(made["relu4_1"], content["relu4_1"])[0],
        "perceptual": metrics.perceptual_distance(made, content)[0],
    }
    return found | {name: metrics.style_distance(made, own)[0] for name, own in style.items()}


@jax.jit
def _likeness(picture: Array, photo: Array, painting: Array) -> dict[str, Array]:
    found = {
        "ssim": metrics.ssim(picture, photo),
        "psnr": metrics.psnr(picture, photo),
        "colors": metrics.color_histogram_distance(picture, painting),
        "tv": losses.total_variation(picture, order=1, reduction="half_mean"),
    }
    if min(picture.shape[1:3]) >= _LEAST_SIDE_MS_SSIM:
        found["ms_ssim"] = metrics.ms_ssim(picture, photo)
    return found


# --- structure -----------------------------------------------------------------------------------


def structure(picture: Array, photo: Array, labels: np.ndarray) -> dict[str, float]:
    """Whether the regions of a photograph are found again in a picture: figures by their names.

    Args:
        picture: as for `confusion`, as are the others.
        photo: features of the photograph.
        labels: its regions.
    """
    found = _figures(confusion(picture, photo, labels))
    return {name: float(value) for name, value in found.items()}


def confusion(picture: Array, photo: Array, labels: np.ndarray) -> Array:
    """For which regions of a photograph those of a picture are taken, `[regions, regions]`.

    Each position of the picture's features goes to the region whose prototype, the mean of the
    photograph's features there, is nearest. Both are standardised channel by channel before: that
    takes away what a style adds to all positions alike.

    Args:
        picture: features of one layer, `[1, h, w, channels]`.
        photo: those of the photograph, of the same shape.
        labels: the photograph's regions, `[h, w]`, numbers from 0; below 0 for none.
    """
    count = max(int(labels.max()) + 1, 1)
    found = _nearest(_standardized(picture), _standardized(photo), jnp.asarray(labels), count)
    return classification.confusion_matrix(jnp.asarray(labels), found, count)


@jax.jit
def _figures(counts: Array) -> dict[str, Array]:
    """The figures of a confusion matrix."""
    return {
        "miou": classification.mean_iou(counts),
        "accuracy": classification.pixel_accuracy(counts),
        "precision": classification.precision(counts, average="macro"),
        "recall": classification.recall(counts, average="macro"),
        "f1": classification.f1_score(counts, average="macro"),
    }


def _standardized(x: Array) -> Array:
    """Features `[positions, channels]` of mean 0 and deviation 1."""
    mean, std = losses.channel_moments(x)
    return ((x - mean[:, None, None]) / std[:, None, None])[0].reshape(-1, x.shape[-1])


def _nearest(x: Array, photo: Array, labels: Array, count: int) -> Array:
    """The region whose prototype is nearest, `[h, w]`."""
    shares = jax.nn.one_hot(labels.reshape(-1), count)
    prototypes = shares.T @ photo / jnp.maximum(jnp.sum(shares, 0), 1)[:, None]
    # The nearest by |x - p|^2, without |x|^2, which is the same for all.
    scores = 2 * x @ prototypes.T - jnp.sum(prototypes**2, 1)
    return jnp.argmax(scores, axis=1).reshape(labels.shape)


def segmentation_regions(segments: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The regions of a segmentation at the size of features.

    Args:
        segments: `[height, width]`, whole numbers.
        size: height and width of the features.

    Returns:
        `[h, w]`: the number that most of a position's pixels have, counted from 0; -1 for those of
        regions with less than a hundredth of the picture.
    """
    _, numbers = np.unique(segments, return_inverse=True)
    numbers = numbers.reshape(segments.shape)
    count = int(numbers.max()) + 1
    shares = np.stack([regions.resize(numbers == number, size) for number in range(count)], -1)
    return _renumbered(np.argmax(shares, axis=-1))


def clustered_regions(features: Array, count: int, *, seed: int) -> np.ndarray:
    """Regions of a photograph where nobody has drawn any: clusters of its own features.

    Args:
        features: of one layer, `[1, h, w, channels]`.
        count: of regions.
        seed: of the first guess.
    """
    rows = np.asarray(_standardized(features))
    # What came out nearest.
    _, labels = min(
        _clusters(rows, count, seed), key=lambda found: np.square(rows - found[0][found[1]]).sum()
    )
    return _renumbered(labels.reshape(features.shape[1:3]))


def _renumbered(labels: np.ndarray) -> np.ndarray:
    """Labels counted from 0, -1 for those with too few positions to have a prototype."""
    numbers, counts = np.unique(labels, return_counts=True)
    kept = numbers[counts >= max(_LEAST_SHARE * labels.size, 1)]
    found = np.full(labels.shape, -1)
    for index, number in enumerate(kept):
        found[labels == number] = index
    return found


def _clusters(rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centres and labels of rows, by k-means, from each of several beginnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of clusters that nothing belongs to: those stay empty
        return [
            kmeans2(rows.astype(np.float64), count, iter=_ROUNDS, minit="++", rng=generator)
            for generator in np.random.default_rng(seed).spawn(_STARTS)
        ]


# --- composition ---------------------------------------------------------------------------------


class Composition(NamedTuple):
    """The clusters of a painting's features, as they come out from several beginnings.

    Attributes:
        mean: of the channels, over the painting.
        std: their deviation.
        centers: of the clusters, `[beginnings, clusters, channels]`, standardised by both.
        shares: of the painting's positions, each of which is in the cluster of the nearest centre,
            `[beginnings, clusters]`.
    """

    mean: np.ndarray
    std: np.ndarray
    centers: np.ndarray
    shares: np.ndarray


def compose(features: Array, count: int, *, seed: int) -> Composition:
    """The clusters of a painting.

    Args:
        features: of one layer, `[1, h, w, channels]`.
        count: of clusters.
        seed: of the first guess.
    """
    mean, std = (np.asarray(part)[0] for part in losses.channel_moments(features))
    rows = (np.asarray(features).reshape(-1, features.shape[-1]) - mean) / std
    centers = np.stack([found for found, _ in _clusters(rows, count, seed)])
    # Not by the labels of k-means, which are those before its last update of the centres.
    return Composition(mean, std, centers, np.stack([_shares(rows, each) for each in centers]))


def composition(features: Array, painting: Composition) -> float:
    """How alike the shares of a painting's clusters are in a picture, 1 for the painting itself.

    Eq. 12 of Pu and Li with p_ii = min(a_i, b_i), where a and b are the shares of both, is the mean
    over clusters of min(a_i, b_i) / max(a_i, b_i). How k-means begins makes a difference: so it is
    also the mean over several beginnings.
    """
    rows = (np.asarray(features).reshape(-1, features.shape[-1]) - painting.mean) / painting.std
    found = np.stack([_shares(rows, centers) for centers in painting.centers])
    larger = np.maximum(found, painting.shares)
    # A cluster that nothing belongs to, in neither, says nothing.
    ratios = np.minimum(found, painting.shares) / np.where(larger > 0, larger, np.nan)
    return float(np.mean(np.nanmean(ratios, axis=1)))


def _shares(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The shares of rows that are nearest to each of the centres."""
    scores = 2 * rows @ centers.T - np.sum(centers**2, axis=1)
    return np.bincount(np.argmax(scores, axis=1), minlength=len(centers)) / len(rows)


# --- recognition ---------------------------------------------------------------------------------


class Recognizer:
    """Tells which of several paintings a picture is nearest to, by Gram matrices.

    Args:
        judge: the networks.
        paintings: `{name: [height, width, 3]}`.
    """

    def __init__(self, judge: Judge, paintings: Mapping[str, np.ndarray]) -> None:
        self.names = tuple(paintings)
        grams = [_grams(judge.features(picture)) for picture in paintings.values()]
        self._grams = {name: jnp.concatenate([gram[name] for gram in grams]) for name in grams[0]}

    def scores(self, features: Features) -> np.ndarray:
        """How near a picture is to each of the paintings, `[paintings]`: minus the distance."""
        return np.asarray(_nearness(features, self._grams))


@jax.jit
def _grams(features: Features) -> dict[str, Array]:
    return {name: losses.gram_matrix(x, normalize="positions") for name, x in features.items()}


@jax.jit
def _nearness(features: Features, grams: Mapping[str, Array]) -> Array:
    total = jnp.zeros(())
    for name, gram in _grams(features).items():
        distance = jnp.sum(jnp.square(gram - grams[name]), (1, 2))
        # One scale for all paintings, or all pictures would be near to the one of largest features.
        total = total - distance / jnp.mean(jnp.sum(jnp.square(grams[name]), (1, 2)))
    return total / len(grams)


def recognition(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The figures of many pictures.

    Args:
        labels: `[pictures]`, the numbers of their paintings.
        scores: `[pictures, paintings]`, as `Recognizer.scores`.
    """
    return {name: float(value) for name, value in _recognition(labels, scores).items()}


@jax.jit
def _recognition(labels: Array, scores: Array) -> dict[str, Array]:
    counts = classification.confusion_matrix(labels, jnp.argmax(scores, 1), scores.shape[1])
    found = _figures(counts) | {"auc": classification.one_vs_rest_auc(labels, scores)}
    del found["miou"]
    return found
