"""Small random networks for the tests."""

from collections.abc import Sequence

import numpy as np
from safetensors.numpy import save_file

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


# VGG-16 at the smallest widths.
LPIPS_WIDTHS = ((2, 3), (4, 3), (3, 4, 5), (4, 3, 4), (3, 2, 4))
_TAPPED = (3, 3, 5, 4, 4)


def vgg16_arrays():
    """By torchvision's names, where ReLUs and poolings have places in the sequence."""
    rng = np.random.default_rng(1)
    found, inputs, index = {}, 3, 0
    for block in LPIPS_WIDTHS:
        for outputs in block:
            kernel = rng.normal(0, np.sqrt(2 / (9 * inputs)), (outputs, inputs, 3, 3))
            found[f"features.{index}.weight"] = kernel.astype(np.float32)
            found[f"features.{index}.bias"] = rng.normal(0, 0.3, outputs).astype(np.float32)
            inputs, index = outputs, index + 2
        index += 1
    return found


def lpips_arrays():
    """Weights of its tapped layers, by the names of LPIPS's authors."""
    rng = np.random.default_rng(2)
    return {
        f"lin{i}.model.1.weight": rng.uniform(0, 1, (1, width, 1, 1)).astype(np.float32)
        for i, width in enumerate(_TAPPED)
    }


def save_lpips(folder):
    """Both files of LPIPS."""
    save_file(vgg16_arrays(), folder / "vgg16.safetensors")
    save_file(lpips_arrays(), folder / "lpips.safetensors")
    return folder / "vgg16.safetensors", folder / "lpips.safetensors"
