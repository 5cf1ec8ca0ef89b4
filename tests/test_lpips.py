"""Tests of jaxstyle/lpips.py, against the steps of its authors' module in NumPy."""

import jax
import numpy as np
import pytest
from networks import LPIPS_WIDTHS, lpips_arrays, save_lpips, vgg16_arrays
from safetensors.numpy import save_file
from scipy.signal import correlate

from jaxstyle import lpips, weights
from jaxstyle.errors import UserError


@pytest.fixture
def files(tmp_path):
    return save_lpips(tmp_path)


def reference(picture, other):
    """Pictures `[height, width, 3]` in [0, 1]; all else as the authors have it, in float64."""
    arrays, linear = vgg16_arrays(), lpips_arrays()
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])

    def taps(pixels):
        x, index, found = ((2 * pixels - 1 - shift) / scale).transpose(2, 0, 1), 0, []
        for block in LPIPS_WIDTHS:
            for _ in block:
                kernel, bias = (arrays[f"features.{index}.{part}"] for part in ("weight", "bias"))
                wide = np.pad(x, ((0, 0), (1, 1), (1, 1)))
                x = np.stack([correlate(wide, each, "valid")[0] for each in kernel.astype(float)])
                x, index = np.maximum(x + bias[:, None, None], 0), index + 2
            found.append(x / (np.sqrt(np.sum(x**2, 0, keepdims=True)) + 1e-10))
            height, width = (side // 2 * 2 for side in x.shape[1:])
            x = x[:, :height, :width].reshape(len(x), height // 2, 2, width // 2, 2).max((2, 4))
            index += 1
        return found

    return sum(
        np.mean(np.sum((x - y) ** 2 * linear[f"lin{i}.model.1.weight"][0], 0))
        for i, (x, y) in enumerate(zip(taps(picture), taps(other), strict=True))
    )


def test_it_is_what_its_authors_compute(files):
    network = lpips.load(*files)
    rng = np.random.default_rng(3)
    pictures = rng.uniform(0, 1, (2, 37, 40, 3)).astype(np.float32)
    others = rng.uniform(0, 1, (2, 37, 40, 3)).astype(np.float32) ** 2
    found = jax.jit(lambda x, y: lpips.distance(network, x, y))(pictures, others)
    wanted = [reference(x, y) for x, y in zip(pictures, others, strict=True)]
    assert min(wanted) > 0.05
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    np.testing.assert_allclose(lpips.distance(network, pictures, pictures), 0, atol=1e-7)
    np.testing.assert_array_equal(
        lpips.distance(network, pictures, lpips.features(network, others)),
        lpips.distance(network, pictures, others),
    )
    one = lpips.distance(network, pictures, others[:1])
    np.testing.assert_allclose(one[0], wanted[0], rtol=1e-4)
    gradient = jax.grad(lambda x: lpips.distance(network, x, pictures).sum())(pictures)
    assert np.isfinite(gradient).all()


def test_weights_may_have_short_names_and_stand_twice(files, tmp_path):
    short = {name.split(".")[0]: value for name, value in lpips_arrays().items()}
    twice = {f"lins.{name[3]}{name[4:]}": value for name, value in lpips_arrays().items()}
    np.savez(tmp_path / "short.npz", **short)
    save_file(lpips_arrays() | twice, tmp_path / "twice.safetensors")
    wanted = lpips.load(*files)
    for name in ("short.npz", "twice.safetensors"):
        found = lpips.load(files[0], tmp_path / name)
        for layer, value in wanted.weights.items():
            np.testing.assert_array_equal(found.weights[layer], value)
        assert found.sha256 != wanted.sha256


def test_it_refuses_what_is_not_lpips(files, tmp_path):
    def refused(match, network=files[0], linear=files[1]):
        with pytest.raises(UserError, match=match):
            lpips.load(network, linear)

    def saved(**arrays):
        save_file(lpips_arrays() | arrays, tmp_path / "other.safetensors")
        return tmp_path / "other.safetensors"

    narrow = tmp_path / "narrow.safetensors"
    weights.save(narrow, weights.random_vgg())
    refused("of torchvision's VGG-16; this has scale random", network=narrow)
    deep = vgg16_arrays()
    del deep["features.28.weight"], deep["features.28.bias"]
    save_file(deep, tmp_path / "short.safetensors")
    refused("is of VGG-16: .*relu5_3", network=tmp_path / "short.safetensors")
    wide = np.ones((1, 4, 1, 1), np.float32)
    refused("lin1 is not 3 values", linear=saved(**{"lin1.model.1.weight": wide}))
    refused("none of them negative", linear=saved(**{"lin2.model.1.weight": -wide.repeat(2)[:5]}))
    few = {"lin0": np.ones(3, np.float32)}
    save_file(few, tmp_path / "few.safetensors")
    refused("expected lin0 to lin4, got lin0", linear=tmp_path / "few.safetensors")
    refused("ends in .safetensors or .npz", linear=tmp_path / "vgg.pth")
    refused("^cannot read .*No such file", linear=tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    refused("folder.npz is a folder", linear=tmp_path / "folder.npz")
