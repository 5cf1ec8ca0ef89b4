"""Perceptual networks against NumPy, and the narrow network against the exact one."""

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from test_convolution import reference

from jaxstyle import features, images, weights, winograd


def numpy_vgg(params, x, padding, pooling):
    """All layers in float64, written plainly."""
    found = {}
    x = x @ params["preprocess/kernel"][0, 0].astype(np.float64) + params["preprocess/bias"]
    block = 1
    for key in params:
        name = key.removesuffix("/kernel")
        if not key.endswith("/kernel") or not name.startswith("conv") or "to_vgg" in name:
            continue
        if int(name[4]) > block:
            height, width = x.shape[1] // 2, x.shape[2] // 2
            cells = x[:, : 2 * height, : 2 * width]
            cells = cells.reshape(x.shape[0], height, 2, width, 2, -1)
            x = cells.max((2, 4)) if pooling == "max" else cells.mean((2, 4))
            found[f"pool{block}"] = x
            block += 1
        x = reference(x, params[key], padding) + params[f"{name}/bias"]
        found[name] = x
        x = np.maximum(x, 0)
        layer = found_name = name.replace("conv", "relu")
        found[found_name] = x
        if f"{name}_to_vgg/kernel" in params:
            head = x @ params[f"{name}_to_vgg/kernel"][0, 0].astype(np.float64)
            found[layer] = np.maximum(head + params[f"{name}_to_vgg/bias"], 0)
    return found


@pytest.mark.parametrize("padding", ["zero", "reflect", "replicate"])
@pytest.mark.parametrize("pooling", features.POOLINGS)
@pytest.mark.parametrize("heads", [None, {1: 7, 4: 9}])
def test_every_layer_equals_numpy(padding, pooling, heads):
    params = networks.random_params(heads=heads)
    x = np.random.default_rng(0).random((2, 37, 45, 3))
    wanted = numpy_vgg(params, x, padding, pooling)
    names = features.layer_names(params)
    assert sorted(names) == sorted(wanted)
    found = jax.jit(lambda p, x: features.vgg(p, x, names, padding=padding, pooling=pooling))(
        params, jnp.float32(x)
    )
    assert sorted(found) == sorted(names)
    for name in names:
        tolerance = 1e-5 * np.abs(wanted[name]).max()
        np.testing.assert_allclose(found[name], wanted[name], atol=tolerance, err_msg=name)


def test_prepared_parameters_give_the_same(monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 16)
    monkeypatch.setattr(winograd, "pays", lambda shape, positions, frozen: shape[0] == 3)
    params = networks.random_params(((16, 16), (24, 24)))
    x = jnp.asarray(np.random.default_rng(0).random((1, 18, 13, 3)), jnp.float32)
    for padding in ("zero", "reflect", "replicate"):
        plain = features.vgg(params, x, ["relu2_2"], padding=padding)["relu2_2"]
        for known in (padding, "zero"):
            prepared = features.prepare(params, padding=known)
            assert ("preprocess/kernel" in prepared) == (known == "zero")
            found = features.vgg(prepared, x, ["relu2_2"], padding=padding)["relu2_2"]
            np.testing.assert_allclose(found, plain, atol=2e-5 * float(plain.max()))


def test_vgg16_and_vgg19_differ_in_depth_alone():
    vgg16 = networks.random_params(((4, 4), (4, 4), (4,) * 3, (4,) * 3, (4,) * 3))
    assert features.layer_names(vgg16)[-1] == "relu5_3"
    assert "relu3_4" not in features.layer_names(vgg16)
    assert "relu3_4" in features.layer_names(networks.random_params())


def test_only_what_is_asked_for_is_computed():
    params = networks.random_params()
    x = jnp.zeros((1, 16, 16, 3))
    text = jax.jit(lambda p, x: features.vgg(p, x, ["relu2_1"])).lower(params, x).as_text()
    assert text.count("stablehlo.convolution") == 3


def test_tiny_pictures():
    params = networks.random_params()
    for size in [(1, 1), (2, 1), (3, 17)]:
        x = jnp.full((1, *size, 3), 0.5)
        for padding in ("zero", "reflect"):
            found = features.vgg(params, x, ["relu5_1"], padding=padding)["relu5_1"]
            assert found.shape[1:3] == (max(size[0] // 16, 1), max(size[1] // 16, 1))
            assert np.isfinite(found).all()


def test_bad_arguments():
    params = networks.random_params()
    x = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match=r"no layer 'relu6_1'; did you mean relu\d_1\?"):
        features.vgg(params, x, ["relu6_1"])
    with pytest.raises(ValueError, match="pooling must be one of max, avg; got 'mean'"):
        features.vgg(params, x, ["relu1_1"], pooling="mean")
    with pytest.raises(ValueError, match=r"expected images \[batch, height, width, 3\]"):
        features.vgg(params, x[0], ["relu1_1"])


def test_heads_correlate_with_the_exact_network(data):
    """Over photographs, the narrow network's heads follow the exact VGG-19's channels.

    Measured on eight at 128 px: 0.987, 0.894 and 0.806.
    """
    narrow = weights.load(data / "weights" / "vgg19_compact_encoder.safetensors")
    exact = weights.load(data / "weights" / "vgg19_normalised_to_conv3_1.safetensors")
    layers = ["relu1_1", "relu2_1", "relu3_1"]
    photos = [
        images.resize(images.load(path).pixels, (128, 128))
        for path in images.list_images(data / "eval" / "content")
    ]
    x = jnp.asarray(np.stack(photos))
    pairs = [
        jax.jit(lambda p, x: features.vgg(p, x, layers, padding="reflect"))(network.params, x)
        for network in (narrow, exact)
    ]
    least = {"relu1_1": 0.98, "relu2_1": 0.89, "relu3_1": 0.80}
    for layer in layers:
        found, wanted = (np.asarray(pair[layer]).ravel() for pair in pairs)
        correlation = np.corrcoef(found, wanted)[0, 1]
        print(f"{layer}: correlation {correlation:.4f}")
        assert correlation > least[layer], layer
