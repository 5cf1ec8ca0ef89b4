"""Small random networks for the tests."""

from collections.abc import Sequence

import numpy as np

from jaxstyle.weights import Weights

NARROW = ((4, 4), (6, 6), (8, 8, 8, 8), (8, 8, 8, 8), (8,))


def random_params(
    widths: Sequence[Sequence[int]] = NARROW, *, heads: dict[int, int] | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """VGG parameters with He-normal kernels; `heads` gives the channels of a block's head."""
    generator = np.random.default_rng(seed)

    def kernel(size: int, inputs: int, outputs: int) -> np.ndarray:
        scale = np.sqrt(2 / (size * size * inputs))
        return generator.normal(0, scale, (size, size, inputs, outputs)).astype(np.float32)

    def bias(outputs: int) -> np.ndarray:
        return generator.normal(0.1, 0.1, outputs).astype(np.float32)

    params = {
        "preprocess/kernel": np.eye(3, dtype=np.float32)[None, None, ::-1] * 4,
        "preprocess/bias": np.full(3, -2, np.float32),
    }
    inputs = 3
    for block, row in enumerate(widths, 1):
        for index, outputs in enumerate(row, 1):
            params[f"conv{block}_{index}/kernel"] = kernel(3, inputs, outputs)
            params[f"conv{block}_{index}/bias"] = bias(outputs)
            inputs = outputs
            if index == 1 and heads and block in heads:
                params[f"conv{block}_1_to_vgg/kernel"] = kernel(1, outputs, heads[block])
                params[f"conv{block}_1_to_vgg/bias"] = bias(heads[block])
    return params


def random_weights(**options) -> Weights:
    """A small random network as `weights.load` would give it."""
    return Weights("random", random_params(**options), "reflect", "normalized", "test", "0" * 64)
