"""What the benchmarks of quality share: distances to content and style, and pictures to compare."""

from __future__ import annotations

import collections
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import features, metrics, preset, stylize, weights

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_1"


class Judge:
    """Features of both teachers: what the exact one has, and the rest from the other."""

    def __init__(self, exact: weights.Weights, teacher: weights.Weights) -> None:
        has = [layer for layer in LAYERS if layer in features.layer_names(exact.params)]
        parts = [(exact, has), (teacher, [layer for layer in LAYERS if layer not in has])]

        def compute(pictures: jax.Array) -> dict[str, jax.Array]:
            found: dict[str, jax.Array] = {}
            for network, layers in parts:
                found |= features.vgg(network.params, pictures, layers, padding=network.padding)
            return found

        self.features = jax.jit(compute)

    def distances(
        self, picture: np.ndarray, content: np.ndarray, style: np.ndarray
    ) -> tuple[float, float]:
        """Content distance (mean square) and style distance (relative, of Gram matrices)."""
        a, b, c = (self.features(jnp.asarray(x)[None]) for x in (picture, content, style))
        content_distance = jnp.mean((a[CONTENT] - b[CONTENT]) ** 2)
        return float(content_distance), float(metrics.style_distance(a, c)[0])


class Scores(NamedTuple):
    """A picture beside its content and its style; all but `ssim` are better if they are smaller.

    Attributes:
        gram: squared distance of the Gram matrices, relative to the style's, mean over LAYERS.
        moments: the same of means and deviations.
        content: squared distance to the content's features at CONTENT, relative to theirs.
        ssim: structural similarity to the content.
    """

    gram: float
    moments: float
    content: float
    ssim: float


def scores(judge: Judge, picture: np.ndarray, content: np.ndarray, style: np.ndarray) -> Scores:
    """Scores of pictures of one size, `[side, side, 3]`."""
    found = _scores(*(judge.features(jnp.asarray(x)[None]) for x in (picture, content, style)))
    similar = metrics.ssim(jnp.asarray(picture)[None], jnp.asarray(content)[None])[0]
    return Scores(*(float(x) for x in (*found, similar)))


@jax.jit
def _scores(a: dict[str, jax.Array], b: dict[str, jax.Array], c: dict[str, jax.Array]) -> tuple:
    gram, moments = (metrics.style_distance(a, c, form=form)[0] for form in ("gram", "moments"))
    return gram, moments, metrics.content_distance(a[CONTENT], b[CONTENT])[0]


def paint(
    content: np.ndarray, style: np.ndarray, network: weights.Weights, **settings: float
) -> np.ndarray:
    """The picture of the default preset, with some settings replaced."""
    config = preset("default", scale=network.scale)
    options = {"size": max(content.shape), **settings}
    iterates = stylize(content, [style], features=network, config=config, **options)
    (last,) = collections.deque(iterates, maxlen=1)
    return np.asarray(last.image)
