"""Tests of jaxstyle/weights.py: every kind of file, every refusal, fetching from this machine."""

import contextlib
import hashlib
import http.server
import io
import os
import pickle
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxstyle import weight_files, weights
from jaxstyle.errors import UserError
from jaxstyle.weights import Weights

# A tiny VGG: all the blocks that a test needs, at the smallest widths.
CONVS = {"conv1_1": (3, 2), "conv1_2": (2, 2), "conv2_1": (2, 4)}


def tiny_params(heads=False):
    rng = np.random.default_rng(0)
    shapes = {"preprocess/kernel": (1, 1, 3, 3), "preprocess/bias": (3,)}
    for layer, (inputs, outputs) in CONVS.items():
        shapes |= {f"{layer}/kernel": (3, 3, inputs, outputs), f"{layer}/bias": (outputs,)}
    if heads:
        shapes |= {"conv2_1_to_vgg/kernel": (1, 1, 4, 8), "conv2_1_to_vgg/bias": (8,)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def write_keras(file, *, layout, dtype=np.float32):
    """Writes the tiny VGG in the structure of Keras's files; returns its convolutions by name."""
    params = {k: v.astype(dtype) for k, v in tiny_params().items() if k.startswith("conv")}
    with h5py.File(file, "w") as h5:
        root = h5.create_group("model_weights") if layout == "model" else h5
        for layer in CONVS:
            name = f"block{layer[4]}_conv{layer[6]}"
            group = root.create_group(name)
            kernel, bias = params[f"{layer}/kernel"], params[f"{layer}/bias"]
            if layout == "old":
                group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = kernel, bias
            else:
                group[f"{name}/kernel:0"], group[f"{name}/bias:0"] = kernel, bias
        root.create_group("block1_pool")
        root.create_group("fc1")["kernel:0"] = np.ones((8, 2), np.float32)
        if layout == "model":
            momentum = h5.create_group("optimizer_weights/block1_conv1")
            momentum["kernel/m:0"] = np.ones((3, 3, 3, 2), np.float32)
    return params


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder that does not exist yet."""
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def no_lite(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_embedded", lambda: tmp_path / "no" / "lite.safetensors")


@pytest.fixture
def lite(tmp_path, monkeypatch):
    file = tmp_path / "embedded.safetensors"
    save_file(tiny_params(heads=True), file)
    monkeypatch.setattr(weights, "_embedded", lambda: file)


@pytest.fixture
def keras_bytes():
    file = io.BytesIO()
    write_keras(file, layout="old")
    return file.getvalue()


@pytest.fixture
def publish(monkeypatch):
    """Puts another address and hash into the registry's entry of vgg19."""

    def change(content, url="http://127.0.0.1:9/none.h5"):
        md5 = hashlib.md5(content).hexdigest()
        entry = weights.REGISTRY["vgg19"]._replace(url=url, md5=md5)
        monkeypatch.setitem(weights.REGISTRY, "vgg19", entry)
        return entry

    return change


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine; `server.files` maps paths to content, the rest is 404."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            httpd.asked.append(self.path)
            content = httpd.files.get(self.path)
            self.send_response(404 if content is None else 200)
            # A file that is cut short says that it is longer than what comes.
            promised = len(content or b"") + (100 if self.path == "/short.h5" else 0)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.files, httpd.asked = {}, []
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def refused(spec, *words):
    """Asserts that loading fails in one line that has all the words."""
    with pytest.raises(UserError) as caught:
        weights.load(spec)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def refused_params(tmp_path, change, *words):
    """Asserts that the tiny VGG, after a change, is refused when read and when written."""
    params = tiny_params(heads=True)
    change(params)
    file = tmp_path / "changed.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in params.items()}, file)
    refused(file, file, *words)
    with pytest.raises(ValueError, match=r".") as caught:
        weights.save(tmp_path / "new.safetensors", Weights("x", params, "zero", "oxford", "", ""))
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "new.safetensors").exists()


# Files


def test_safetensors_round_trip(tmp_path):
    params = tiny_params(heads=True)
    file = tmp_path / "a.safetensors"
    weights.save(file, Weights("any", params, "replicate", "torchvision", "mine", ""))
    loaded = weights.load(file)
    assert loaded[:1] + loaded[2:5] == ("a", "replicate", "torchvision", "mine")
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert loaded.params.keys() == params.keys()
    for key, value in params.items():
        assert loaded.params[key].dtype == np.float32
        np.testing.assert_array_equal(loaded.params[key], value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_save_gives_equal_bytes_for_equal_weights(tmp_path):
    # Of non-contiguous arrays, too, and whatever the library does with the metadata's order.
    params = tiny_params()
    turned = {key: np.asfortranarray(params[key]) for key in reversed(params)}
    contents = set()
    for index, arrays in enumerate([params, turned] * 4):
        file = tmp_path / f"{index}.safetensors"
        weights.save(file, Weights("", arrays, "zero", "oxford", "naïve", ""))
        contents.add(file.read_bytes())
    assert len(contents) == 1
    assert weights.load(file).source == "naïve"


def test_save_refuses(tmp_path):
    good = Weights("", tiny_params(), "zero", "oxford", "", "")
    with pytest.raises(ValueError, match="padding is 'same': expected one of zero, reflect"):
        weights.save(tmp_path / "a.safetensors", good._replace(padding="same"))
    with pytest.raises(ValueError, match="scale is 'big'"):
        weights.save(tmp_path / "a.safetensors", good._replace(scale="big"))
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        weights.save(tmp_path / "a.npz", good)
    with pytest.raises(UserError, match=r"cannot write .* No such file or directory"):
        weights.save(tmp_path / "none" / "a.safetensors", good)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        weights.save(tmp_path / "folder.safetensors", good)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


def test_safetensors_defaults_and_stem(tmp_path):
    file = tmp_path / "mine.v2.SafeTensors"
    save_file(tiny_params(), file)
    loaded = weights.load(str(file))
    assert (loaded.name, loaded.padding, loaded.scale) == ("mine.v2", "reflect", "normalized")
    assert loaded.source == "mine.v2.SafeTensors"


def torchvision_params():
    """The tiny VGG as torchvision has it: places in a sequence, outputs and inputs in front."""
    params, found = tiny_params(), {}
    for layer, index in zip(CONVS, (0, 2, 5), strict=True):
        kernel = params[f"{layer}/kernel"].transpose(3, 2, 0, 1)
        found[f"features.{index}.weight"] = np.ascontiguousarray(kernel)
        found[f"features.{index}.bias"] = params[f"{layer}/bias"]
    return found


def test_torchvision(tmp_path):
    file = tmp_path / "vgg.safetensors"
    dense = {"classifier.0.weight": np.ones((2, 4), np.float32), "steps": np.ones(1, np.int64)}
    save_file(torchvision_params() | dense, file)
    loaded = weights.load(file)
    assert (loaded.padding, loaded.scale) == ("zero", "torchvision")
    assert set(loaded.params) == set(tiny_params())
    for key, value in tiny_params().items():
        if key.startswith("conv"):
            np.testing.assert_array_equal(loaded.params[key], value)
    # What torchvision's transforms make of grey and of a colour.
    kernel = loaded.params["preprocess/kernel"][0, 0]
    found = np.array([[0.5, 0.5, 0.5], [1.0, 0.0, 0.3]]) @ kernel + loaded.params["preprocess/bias"]
    wanted = [[0.065502, 0.196429, 0.417778], [2.248908, -2.035714, -0.471111]]
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def test_torchvision_refusals(tmp_path):
    file = tmp_path / "vgg.safetensors"

    def refused(params, match):
        save_file(params, file)
        with pytest.raises(UserError, match=match):
            weights.load(file)

    whole = torchvision_params()
    refused({k: v for k, v in whole.items() if ".0." not in k}, "features.0 .* is missing")
    without = {k: v for k, v in whole.items() if ".2." not in k}
    refused(without, "features.2 or features.3 is missing")
    refused({k: v for k, v in whole.items() if k != "features.2.bias"}, "batch normalisation")
    norm = {f"features.1.{part}": np.ones(2, np.float32) for part in ("weight", "bias")}
    refused(whole | norm, "features.1 is no convolution")


def test_a_network_may_stop_anywhere(tmp_path):
    params = tiny_params()
    for layer in ("conv2_1", "conv1_2"):
        del params[f"{layer}/kernel"], params[f"{layer}/bias"]
        save_file(params, tmp_path / "a.safetensors")
        assert weights.load(tmp_path / "a.safetensors").params.keys() == params.keys()


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_float_types_become_float32(tmp_path, dtype):
    # ml_dtypes comes with JAX; the module itself reads bfloat16 without it.
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    params = {key: value.astype(kind) for key, value in tiny_params().items()}
    file = tmp_path / "a.safetensors"
    save_file(params, file)
    for key, value in weights.load(file).params.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, params[key].astype(np.float32))


def test_npz(tmp_path):
    params = tiny_params()
    file = tmp_path / "a.npz"
    np.savez(file, **{key: value.astype(">f4") for key, value in params.items()})
    loaded = weights.load(file)
    assert (loaded.name, loaded.padding, loaded.scale) == ("a", "reflect", "normalized")
    for key, value in params.items():
        assert loaded.params[key].dtype == np.dtype(np.float32)
        np.testing.assert_array_equal(loaded.params[key], value)


@pytest.mark.parametrize("layout", ["old", "new", "model"])
@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_keras(tmp_path, layout, suffix):
    file = tmp_path / f"vgg{suffix}"
    params = write_keras(file, layout=layout, dtype=np.float16 if layout == "new" else np.float32)
    loaded = weights.load(file)
    assert (loaded.name, loaded.padding, loaded.scale) == ("vgg", "zero", "oxford")
    assert loaded.params.keys() == params.keys() | {"preprocess/kernel", "preprocess/bias"}
    for key, value in params.items():
        assert loaded.params[key].dtype == np.float32
        np.testing.assert_array_equal(loaded.params[key], value.astype(np.float32))


def test_keras_preprocessing(tmp_path):
    write_keras(tmp_path / "a.h5", layout="old")
    params = weights.load(tmp_path / "a.h5").params
    red, orange = np.array([[1, 0, 0], [1, 0.5, 0]], np.float32)
    for color, blue_green_red in ((red, [0, 0, 255]), (orange, [0, 127.5, 255])):
        given = color @ params["preprocess/kernel"][0, 0] + params["preprocess/bias"]
        expected = np.subtract(blue_green_red, [103.939, 116.779, 123.68])
        np.testing.assert_allclose(given, expected, rtol=1e-6)


def test_convert(tmp_path):
    params = write_keras(tmp_path / "a.h5", layout="old")
    read = weights.convert(tmp_path / "a.h5", tmp_path / "a.safetensors")
    again = weights.load(tmp_path / "a.safetensors")
    assert (again.padding, again.scale, again.source) == ("zero", "oxford", "a.h5")
    assert again.params.keys() == read.params.keys() > params.keys()
    for key, value in read.params.items():
        np.testing.assert_array_equal(again.params[key], value)


def test_the_shared_files(data):
    compact = weights.load(data / "weights" / "vgg19_compact_encoder.safetensors")
    exact = weights.load(data / "weights" / "vgg19_normalised_to_conv3_1.safetensors")
    assert compact[2:4] == exact[2:4] == ("reflect", "normalized")
    assert compact.params["conv5_1_to_vgg/kernel"].shape == (1, 1, 128, 512)
    assert len(exact.params) == 12
    # The exact file's preprocessing was written by others: an independent check of ours.
    ours = weight_files.preprocess_oxford()
    for key, value in ours.items():
        np.testing.assert_allclose(exact.params[key], value, rtol=1e-6)


# Refusals


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".ckpt", ".PTH"])
def test_pickles_are_refused_unread(tmp_path, suffix):
    refused(tmp_path / f"none{suffix}", "can run code", "convert it to .safetensors")


def test_pickles_in_disguise_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "a.npz").write_bytes(pickle.dumps(Trap()))
    refused(tmp_path / "a.npz", "not an .npz file")
    np.savez(tmp_path / "b.npz", **tiny_params(), extra=np.array(Trap(), dtype=object))
    refused(tmp_path / "b.npz", "Object arrays cannot be loaded")
    assert not (tmp_path / "sprung").exists()


def test_names_and_paths(tmp_path):
    refused("vgg91", "'vgg91'", "lite, vgg19, vgg16", "did you mean vgg19?")
    refused("none/at/all", "nor a file")
    refused(tmp_path / "none.safetensors", "cannot read", "No such file")
    refused(tmp_path, "is a folder")
    (tmp_path / "a.onnx").touch()
    refused(tmp_path / "a.onnx", ".safetensors, .npz, .h5, .hdf5")
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz", "not a regular file")
    with (tmp_path / "sparse.npz").open("wb") as file:
        file.truncate(2**30 + 1)
    refused(tmp_path / "sparse.npz", "1073741825 bytes")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".h5"])
def test_damaged_files(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    if suffix == ".h5":
        write_keras(file, layout="old")
    elif suffix == ".npz":
        np.savez(file, **tiny_params())
    else:
        save_file(tiny_params(), file)
    whole = file.read_bytes()
    for part in (b"", b"some text", whole[:20], whole[: len(whole) // 2], whole[:-1]):
        file.write_bytes(part)
        refused(file, file, "damaged")


def test_changed_bytes_end_in_a_line_or_in_weights(tmp_path, keras_bytes):
    # Whatever the libraries raise for a damaged file, only a UserError comes out.
    packed = io.BytesIO()
    np.savez(packed, **tiny_params())
    save_file(tiny_params(), tmp_path / "a.safetensors")
    rng = np.random.default_rng(0)
    for suffix, whole in [
        (".h5", keras_bytes),
        (".npz", packed.getvalue()),
        (".safetensors", (tmp_path / "a.safetensors").read_bytes()),
    ]:
        for _ in range(150):
            changed = np.frombuffer(whole, np.uint8).copy()
            changed[rng.integers(len(whole), size=4)] = rng.integers(256, size=4)
            changed.tofile(tmp_path / f"a{suffix}")
            with contextlib.suppress(UserError):
                weights.load(tmp_path / f"a{suffix}")


def test_npz_with_a_wrong_member(tmp_path):
    np.savez(tmp_path / "a.npz", **tiny_params())
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("conv2_2/kernel.npy", b"\x93NUMPY\x01\x00\x04\x00{'a'")
    refused(tmp_path / "a.npz", "cannot be read as arrays")


def test_integers_and_infinities(tmp_path):
    params = tiny_params()
    save_file(params | {"conv1_2/bias": np.ones(2, np.int8)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "conv1_2/bias is of type I8", "F16")
    np.savez(tmp_path / "a.npz", **params | {"conv1_2/bias": np.ones(2, int)})
    refused(tmp_path / "a.npz", "conv1_2/bias is of type int64")
    for value in (np.nan, np.inf, 1e300):  # the last is too large for float32
        save_file(params | {"conv1_2/bias": np.array([0, value])}, tmp_path / "a.safetensors")
        refused(tmp_path / "a.safetensors", "conv1_2/bias", "not finite")


@pytest.mark.parametrize(("key", "value"), [("padding", "same"), ("scale", "big")])
def test_metadata_is_checked(tmp_path, key, value):
    save_file(tiny_params(), tmp_path / "a.safetensors", metadata={key: value})
    refused(tmp_path / "a.safetensors", f"{key} is '{value}': expected one of")


def test_missing_and_unknown_tensors(tmp_path):
    def without(*keys):
        return lambda params: [params.pop(key) for key in keys]

    def renamed(old, new):
        def change(params):
            for part in ("kernel", "bias"):
                params[f"{new}/{part}"] = params.pop(f"{old}/{part}")

        return change

    preprocess = ("preprocess/kernel", "preprocess/bias")
    refused_params(tmp_path, without(*preprocess), "preprocess/kernel is missing", "RGB in [0, 1]")
    refused_params(tmp_path, without("conv1_2/bias"), "conv1_2/bias is missing")
    refused_params(tmp_path, without("conv1_2/kernel"), "conv1_2/kernel is missing")
    head = ("conv2_1_to_vgg/kernel", "conv2_1_to_vgg/bias")
    everything = [key for key in tiny_params() if key.startswith("conv")]
    refused_params(tmp_path, without(*everything, *head), "no convolutions")
    refused_params(tmp_path, renamed("conv2_1", "features.5"), "unknown tensor 'features.5/")
    refused_params(tmp_path, renamed("conv2_1", "conv2_2"), "conv1_3 or conv2_1 is missing")
    refused_params(tmp_path, renamed("conv2_1", "conv3_1"), "conv1_3 or conv2_1 is missing")
    refused_params(tmp_path, renamed("conv1_1", "conv1_3"), "conv1_1 is missing")
    refused_params(tmp_path, without("conv2_1/kernel", "conv2_1/bias"), "conv2_1, which it reads")


def test_shapes_must_agree(tmp_path):
    def shaped(key, *shape):
        return lambda params: params.update({key: np.ones(shape, np.float32)})

    for key, shape, expected in [
        ("preprocess/kernel", (1, 1, 3, 4), "expected (1, 1, 3, 3)"),
        ("preprocess/bias", (4,), "expected (3,)"),
        ("conv1_1/kernel", (3, 3, 4, 2), "expected (3, 3, 3, outputs), because preprocess/kernel"),
        ("conv1_2/kernel", (3, 3, 2), "expected (3, 3, 2, outputs)"),
        ("conv1_2/kernel", (5, 5, 2, 2), "expected (3, 3, 2, outputs)"),
        ("conv1_2/kernel", (3, 3, 2, 0), "expected (3, 3, 2, outputs)"),
        ("conv2_1/kernel", (4, 2, 3, 3), "because conv1_2/kernel has shape (3, 3, 2, 2)"),
        ("conv2_1/bias", (5,), "expected (4,), because conv2_1/kernel has shape (3, 3, 2, 4)"),
        ("conv2_1_to_vgg/kernel", (1, 1, 5, 8), "because conv2_1/kernel has shape (3, 3, 2, 4)"),
        ("conv2_1_to_vgg/bias", (1, 8), "expected (8,)"),
    ]:
        refused_params(tmp_path, shaped(key, *shape), f"{key} has shape {shape}", expected)


def test_keras_refusals(tmp_path):
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as h5:
        h5["dense/kernel:0"] = np.ones((2, 2))
    refused(file, "expected groups block1_conv1")
    with h5py.File(file, "w") as h5:
        h5["model_weights"] = np.ones(2)
    refused(file, "expected groups block1_conv1")
    with h5py.File(file, "w") as h5:
        h5["block1_conv1/kernel:0"] = np.ones((3, 3, 3, 2))
    refused(file, "block1_conv1 has arrays (3, 3, 3, 2): expected one bias, of rank 1")
    with h5py.File(file, "w") as h5:
        h5["block1_conv1/a"] = h5["block1_conv1/b"] = np.ones((3, 3, 3, 2))
    refused(file, "expected one kernel, of rank 4")
    with h5py.File(file, "w") as h5:
        h5["block1_conv1/kernel:0"] = np.ones((2, 3, 3, 3))  # the order of Theano
        h5["block1_conv1/bias:0"] = np.ones(2)
    refused(file, "conv1_1/kernel has shape (2, 3, 3, 3): expected (3, 3, 3, outputs)")


def test_keras_files_must_hold_their_own_values(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(1000))
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        raw = [(str(tmp_path / "raw"), 0, 1000)]
        h5.create_dataset("block1_conv1/kernel:0", (3, 3, 3, 2), "f4", external=raw)
        h5["block1_conv1/bias:0"] = np.ones(2)
    refused(tmp_path / "a.h5", "block1_conv1/kernel:0 keeps its values in another file")
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("block1_conv1/kernel:0", (3, 3, 3, 2**30), "f4", chunks=(3, 3, 3, 2))
        h5["block1_conv1/bias:0"] = np.ones(2)
    refused(tmp_path / "a.h5", "too large")
    # Links that lead out of the file are not followed.
    write_keras(tmp_path / "other.h5", layout="old")
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["block1_conv1"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/block1_conv1")
    refused(tmp_path / "a.h5", "expected groups block1_conv1")


# What is at hand


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "weights"
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", "")
    assert weights.cache_folder().parts[-2:] == ("jaxstyle", "weights")
    assert list(tmp_path.iterdir()) == []


def test_nothing_at_hand(cache, no_lite):
    refused("lite", "not part of this build", "jaxstyle weights fetch vgg19", "--features FILE")
    for name in ("vgg19", "vgg16"):
        file = f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
        refused(name, f"jaxstyle weights fetch {name}", file, cache)
    assert weights.default_spec() == "random"
    rows = weights.list_weights()
    assert [row.name for row in rows] == ["lite", "vgg19", "vgg16", "random"]
    states = ["not embedded", "not fetched", "not fetched", "built in"]
    assert [row.state for row in rows] == states
    assert rows[0].size is None
    assert all(row.licence == "CC BY 4.0" and "Oxford" in row.what for row in rows[1:3])
    assert not cache.parent.exists()


def test_random_features_are_the_same_everywhere(tmp_path):
    one, other = weights.load("random"), weights.random_vgg()
    assert one.params.keys() == other.params.keys()
    for name, value in one.params.items():
        np.testing.assert_array_equal(value, other.params[name])
    path = tmp_path / "random.safetensors"
    weights.save(path, one)  # which checks names and shapes
    assert weights.load(path).params.keys() == one.params.keys()
    assert "conv5_1/kernel" in one.params


def test_lite(lite, cache):
    loaded = weights.load("lite")
    assert (loaded.name, loaded.padding, loaded.scale) == ("lite", "reflect", "normalized")
    assert weights.default_spec() == "lite"
    row = weights.list_weights()[0]
    assert (row.state, row.size) == ("embedded", Path(row.path).stat().st_size)


def test_a_file_put_by_hand_is_verified(cache, no_lite, publish, keras_bytes):
    entry = publish(keras_bytes)
    cache.mkdir(parents=True)
    (cache / entry.file).write_bytes(keras_bytes + b"\0")
    refused("vgg19", cache / entry.file, f"expected MD5 {entry.md5}", "weights fetch vgg19")
    (cache / entry.file).write_bytes(keras_bytes)
    loaded = weights.load("vgg19")
    assert (loaded.name, loaded.padding, loaded.scale) == ("vgg19", "zero", "oxford")
    assert "Simonyan" in loaded.source
    assert "CC BY 4.0" in loaded.source
    assert weights.default_spec() == "vgg19"
    row = weights.list_weights()[1]
    assert (row.state, row.size) == ("cached", len(keras_bytes))
    (cache / entry.file).rename(cache / weights.REGISTRY["vgg16"].file)
    assert weights.default_spec() == "vgg16"


# Fetching


def test_fetch(cache, server, publish, keras_bytes, capfd):
    entry = publish(keras_bytes, f"{server.url}/vgg.h5")
    server.files["/vgg.h5"] = keras_bytes
    path = weights.fetch("vgg19", progress=False)
    assert path == cache / entry.file
    assert path.read_bytes() == keras_bytes
    for folder in (cache, cache.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert capfd.readouterr() == ("", "")
    weights.fetch("vgg19", progress=False)
    assert server.asked == ["/vgg.h5"]  # once
    assert weights.load("vgg19").name == "vgg19"


def test_fetch_mends_a_damaged_file_and_shows_progress(cache, server, publish, keras_bytes, capfd):
    entry = publish(keras_bytes, f"{server.url}/vgg.h5")
    server.files["/vgg.h5"] = keras_bytes
    cache.mkdir(parents=True)
    (cache / entry.file).write_bytes(keras_bytes[:50])
    weights.fetch("vgg19")
    assert (cache / entry.file).read_bytes() == keras_bytes
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "100%" in printed.err


def failed_fetch(cache, entry, *words):
    with pytest.raises(UserError) as caught:
        weights.fetch("vgg19", progress=False)
    message = str(caught.value)
    assert "\n" not in message
    for word in (entry.url, entry.file, cache, *words):
        assert str(word) in message, message
    if cache.is_dir():
        assert list(cache.iterdir()) == []  # nothing half-written


def test_fetch_of_a_wrong_file(cache, server, publish, keras_bytes):
    entry = publish(keras_bytes, f"{server.url}/vgg.h5")
    server.files["/vgg.h5"] = keras_bytes[:-1] + b"x"
    failed_fetch(cache, entry, "not the published file", entry.md5)


def test_fetch_of_nothing_and_of_half(cache, server, publish, keras_bytes):
    failed_fetch(cache, publish(keras_bytes, f"{server.url}/none.h5"), "HTTP status 404")
    server.files["/short.h5"] = keras_bytes
    failed_fetch(cache, publish(keras_bytes, f"{server.url}/short.h5"), "cannot fetch")


def test_fetch_offline(cache, monkeypatch, publish):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:  # bound, never listening: nobody else can take the port
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/vgg.h5"
        failed_fetch(cache, publish(b"any", url), "cannot fetch vgg19: ConnectionError")


def test_fetch_without_a_place_to_write(cache, publish):
    cache.parent.write_bytes(b"a file where the folder should be")
    failed_fetch(cache, publish(b"any"), "File exists")


def test_fetch_of_unknown_names():
    with pytest.raises(UserError, match=r"'vgg11': expected one of vgg19, vgg16"):
        weights.fetch("vgg11")
    with pytest.raises(UserError, match="comes with jaxstyle"):
        weights.fetch("lite")


def test_registry_names_the_published_files():
    for name, entry in weights.REGISTRY.items():
        folder = "https://storage.googleapis.com/tensorflow/keras-applications"
        assert entry.url == f"{folder}/{name}/{entry.file}"
        assert len(bytes.fromhex(entry.md5)) == 16


def test_import_is_light():
    code = (
        "import sys, jaxstyle.weights; "
        "print(sorted({'jax', 'pooch', 'h5py', 'safetensors', 'requests'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
