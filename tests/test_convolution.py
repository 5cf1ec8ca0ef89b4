"""The convolution against direct sums in float64, on every padding and at awkward sizes."""

import re

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from jaxstyle import convolution, features, winograd


@pytest.fixture(autouse=True)
def winograd_everywhere(monkeypatch):
    """Winograd at every size and width, where it would not pay too: that keeps the tests small."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 16)
    monkeypatch.setattr(winograd, "pays", lambda shape, positions, frozen: shape[0] == 3)


SIZES = [(8, 12), (7, 9), (5, 6), (2, 3), (1, 4), (4, 1), (1, 1)]
MODES = {"zero": "constant", "reflect": "reflect", "replicate": "edge"}


def reference(images: np.ndarray, kernel: np.ndarray, padding: str) -> np.ndarray:
    """The sum over taps, in float64."""
    reach = kernel.shape[0] // 2
    amounts = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images.astype(np.float64), amounts, mode=MODES[padding])
    height, width = images.shape[1:3]
    total = np.zeros((*images.shape[:3], kernel.shape[3]))
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            total += padded[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64)
    return total


def arrays(size: tuple[int, int], inputs: int, outputs: int, taps: int = 3):
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, *size, inputs)).astype(np.float32)
    kernel = generator.standard_normal((taps, taps, inputs, outputs)).astype(np.float32)
    return images, kernel / np.float32(taps * np.sqrt(inputs))


@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [(3, 5), (16, 24)])
def test_equals_the_sum_over_taps(size, padding, channels):
    images, kernel = arrays(size, *channels)
    prepared = convolution.prepare_kernel(kernel)
    assert isinstance(prepared, convolution.PreparedKernel) == (channels == (16, 24))
    wanted = reference(images, kernel, padding)
    for given in (jnp.asarray(kernel), prepared):
        found = convolution.conv2d(jnp.asarray(images), given, padding=padding)
        np.testing.assert_allclose(found, wanted, atol=3e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("size", SIZES)
def test_gradient_is_the_transpose(size, padding):
    """<dy, conv(x)> is bilinear, so its derivative in direction d is <dy, conv(d)>, in float64."""
    images, kernel = arrays(size, 16, 16)
    generator = np.random.default_rng(1)
    cotangent, direction = generator.standard_normal((2, *images.shape))
    wanted = np.sum(cotangent * reference(direction, kernel, padding))
    scale = np.linalg.norm(cotangent) * np.linalg.norm(direction)
    for given in (jnp.asarray(kernel), convolution.prepare_kernel(kernel)):

        def inner(x, given=given):
            return jnp.sum(cotangent * convolution.conv2d(x, given, padding=padding))

        found = np.sum(np.asarray(jax.grad(inner)(jnp.asarray(images)), np.float64) * direction)
        assert abs(found - wanted) < 1e-5 * scale


@pytest.mark.parametrize("padding", convolution.PADDINGS)
def test_gradient_of_a_trainable_kernel(padding):
    images, kernel = arrays((5, 6), 3, 4)
    generator = np.random.default_rng(1)
    cotangent = generator.standard_normal((2, 5, 6, 4))
    direction = generator.standard_normal(kernel.shape)

    def inner(k):
        return jnp.sum(cotangent * convolution.conv2d(jnp.asarray(images), k, padding=padding))

    found = np.sum(np.asarray(jax.grad(inner)(jnp.asarray(kernel)), np.float64) * direction)
    wanted = np.sum(cotangent * reference(images, direction, padding))
    assert abs(found - wanted) < 1e-5 * np.linalg.norm(cotangent) * np.linalg.norm(direction)


@pytest.mark.parametrize("padding", convolution.PADDINGS)
def test_a_narrow_kernel_of_a_brief_program(padding):
    """It is frozen, but has no transforms."""
    images, kernel = arrays((7, 9), 3, 5)
    prepared = convolution.prepare_kernel(kernel, brief=True)
    assert isinstance(prepared, convolution.PreparedKernel)
    assert prepared.forward == prepared.backward == ()

    def inner(x, k):
        made = convolution.conv2d(x, k, padding=padding)
        return jnp.sum(jnp.sin(made)), made

    differentiate = jax.grad(inner, has_aux=True)
    found, made = differentiate(jnp.asarray(images), prepared)
    wanted, _ = differentiate(jnp.asarray(images), jnp.asarray(kernel))
    expected = reference(images, kernel, padding)
    np.testing.assert_allclose(made, expected, atol=3e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    wide = convolution.prepare_kernel(np.zeros((3, 3, 16, 16), np.float32), brief=True)
    assert isinstance(wide, convolution.PreparedKernel)
    assert len(wide.forward) == len(wide.backward) == 6


def test_gradient_of_a_prepared_kernel_is_zero():
    images, kernel = arrays((5, 6), 16, 16)
    for padding in convolution.PADDINGS:
        gradient = jax.grad(
            lambda k, padding=padding: convolution.conv2d(images, k, padding=padding).sum()
        )(convolution.prepare_kernel(kernel))
        assert all(not leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 4)])
@pytest.mark.parametrize("channels", [(16, 3), (8, 1)])
def test_few_outputs_are_made_tap_by_tap(monkeypatch, size, padding, channels):
    """And so is the gradient of pictures of few channels."""
    monkeypatch.setattr(winograd, "pays", lambda *arguments, **options: False)
    images, kernel = arrays(size, *channels)
    wanted = reference(images, kernel, padding)
    found = convolution.conv2d(jnp.asarray(images), jnp.asarray(kernel), padding=padding)
    np.testing.assert_allclose(found, wanted, atol=3e-5 * np.abs(wanted).max())
    direction = np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)

    def product(x):
        return jnp.vdot(found, convolution.conv2d(x, jnp.asarray(kernel), padding=padding))

    slope = np.vdot(jax.grad(product)(jnp.asarray(images)), direction)
    wanted = np.vdot(found, reference(direction, kernel, padding))
    assert slope == pytest.approx(wanted, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("cores", [2, 3, 64])
@pytest.mark.parametrize("size", [(67, 64), (64, 70), (5, 1000)])
def test_parts_side_by_side_are_the_whole(monkeypatch, cores, size):
    """Whatever the number of parts, and rows that it does not divide."""
    monkeypatch.setattr(winograd, "pays", lambda *arguments, **options: False)
    monkeypatch.setattr(convolution.os, "cpu_count", lambda: cores)
    jax.clear_caches()  # of programs for other numbers of cores
    images, kernel = arrays(size, 16, 8)
    wanted = reference(images, kernel, "zero")
    found = convolution.conv2d(jnp.asarray(images), jnp.asarray(kernel))
    np.testing.assert_allclose(found, wanted, atol=3e-5 * np.abs(wanted).max())


def test_pictures_of_few_columns_are_laid_side_by_side_for_several_threads(monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *arguments, **options: False)
    images = re.compile(r"convolution.*tensor<1x\d+x(\d+)x16xf32>, tensor<3x3")

    def width(cores, columns, outputs=16):
        monkeypatch.setattr(convolution.os, "cpu_count", lambda: cores)
        jax.clear_caches()
        x = jax.ShapeDtypeStruct((1, 64, columns, 16), jnp.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, 16, outputs), jnp.float32)
        text = jax.jit(lambda x, k: convolution.conv2d(x, k)).lower(x, kernel).as_text()
        return max(map(int, images.findall(text)))

    assert width(1, 256) == 256
    assert width(2, 256) == 2 * 257
    assert width(2, 256, outputs=128) == 256  # threads share these
    assert width(2, 1024) == 1024  # and these
    assert width(2, 63) == 63  # too small a picture


def test_few_outputs_need_no_convolution_on_the_cpu(monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *arguments, **options: False)
    x = jax.ShapeDtypeStruct((1, 16, 16, 16), jnp.float32)

    def program(outputs, dtype=jnp.float32):
        kernel = jax.ShapeDtypeStruct((3, 3, 16, outputs), dtype)
        function = jax.jit(lambda x, k: convolution.conv2d(x.astype(dtype), k))
        return function.lower(x, kernel).compile().as_text()

    assert "convolution(" not in program(3)
    assert "convolution(" in program(8)
    assert "convolution(" in program(3, jnp.bfloat16)


@pytest.mark.parametrize("taps", [1, 5, 9])
@pytest.mark.parametrize("padding", convolution.PADDINGS)
def test_other_sizes_of_kernel(taps, padding):
    images, kernel = arrays((11, 13), 3, 4, taps)
    bias = np.arange(4, dtype=np.float32)
    found = convolution.conv2d(jnp.asarray(images), jnp.asarray(kernel), bias=bias, padding=padding)
    np.testing.assert_allclose(found, reference(images, kernel, padding) + bias, atol=5e-5)


@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("taps", [3, 5])
def test_enlarged_pictures_are_convolved_as_if_their_pixels_were_repeated(size, padding, taps):
    images, kernel = arrays(size, 4, 3, taps)
    bias = np.arange(3, dtype=np.float32)
    found = convolution.conv2d_upsampled(
        jnp.asarray(images), jnp.asarray(kernel), bias=bias, padding=padding
    )
    repeated = images.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(found, reference(repeated, kernel, padding) + bias, atol=2e-5)


LINEAR = {
    "large": (convolution.conv2d, 9, lambda x: x),
    "enlarged": (convolution.conv2d_upsampled, 3, lambda x: x.repeat(2, axis=1).repeat(2, axis=2)),
}


@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("channels", [(3, 5), (5, 3)])
@pytest.mark.parametrize("kind", LINEAR)
def test_gradients_of_convolutions_over_blocks(kind, channels, padding):
    """As above: linear in the pictures and in the kernel."""
    convolve, taps, prepare = LINEAR[kind]
    images, kernel = arrays((7, 10), *channels, taps)
    generator = np.random.default_rng(1)
    cotangent = generator.standard_normal(
        (*prepare(images).shape[:3], channels[1]), dtype=np.float32
    )
    directions = [generator.standard_normal(x.shape) for x in (images, kernel)]

    def inner(x, k):
        return jnp.sum(cotangent * convolve(x, k, padding=padding))

    found = jax.jit(jax.grad(inner, (0, 1)))(jnp.asarray(images), jnp.asarray(kernel))
    changes = [
        reference(prepare(directions[0]), kernel, padding),
        reference(prepare(images), directions[1], padding),
    ]
    for gradient, direction, change in zip(found, directions, changes, strict=True):
        wanted = np.sum(cotangent * change)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(np.sum(np.asarray(gradient, np.float64) * direction) - wanted) < 1e-5 * scale


@pytest.mark.parametrize(
    ("size", "padding"), [((32, 32), "zero"), ((37, 45), "zero"), ((37, 45), "reflect")]
)
def test_error_of_the_image_gradient_of_vgg(size, padding):
    """float32 through Winograd against float64 through direct convolution."""
    params = networks.random_params(((16, 16), (24, 24), (32,), (48,)))
    pixels = np.random.default_rng(0).random((1, *size, 3))

    def loss(params, x):
        found = features.vgg(params, x, ["relu2_1", "relu4_1"], padding=padding, pooling="avg")
        return sum(jnp.sum(value**2) / value.size for value in found.values())

    gradient = jax.jit(jax.grad(loss, 1))(features.prepare(params), jnp.float32(pixels))
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        wanted = jax.jit(jax.grad(loss, 1))(exact, jnp.asarray(pixels, jnp.float64))
        assert wanted.dtype == np.float64
        wanted = np.asarray(wanted)
    error = np.asarray(gradient, np.float64) - wanted
    assert np.abs(error).max() < 1e-3 * np.abs(wanted).max()
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(wanted)


def test_each_platform_has_its_own():
    """The platform is chosen where the code is lowered: a TPU's program holds convolutions."""
    images, kernel = arrays((8, 8), 16, 16)
    prepared = convolution.prepare_kernel(kernel)
    for padding in convolution.PADDINGS:
        function = jax.jit(lambda x, k, padding=padding: convolution.conv2d(x, k, padding=padding))
        texts = {
            platform: jax.export.export(function, platforms=[platform])(
                images, prepared
            ).mlir_module()
            for platform in ("cpu", "cuda", "tpu")
        }
        assert "dot_general" in texts["cpu"]
        for platform in ("cuda", "tpu"):
            assert texts[platform].count("stablehlo.convolution") == 1
            assert "dot_general" not in texts[platform]


@pytest.mark.parametrize("convolve", [convolution.conv2d, convolution.conv2d_upsampled])
def test_elsewhere_the_platform_convolves(convolve):
    images, kernel = arrays((8, 8), 3, 16, 9 if convolve is convolution.conv2d else 3)
    function = jax.jit(jax.grad(lambda x, k: convolve(x, k, padding="reflect").sum()))
    for platform in ("cuda", "tpu"):
        text = jax.export.export(function, platforms=[platform])(images, kernel).mlir_module()
        assert text.count("stablehlo.convolution") == 1
        assert "dot_general" not in text


def test_where_winograd_pays(monkeypatch):
    monkeypatch.undo()
    for inputs, outputs, size, pays in [
        (512, 512, 16, True),
        (256, 256, 64, True),
        (128, 128, 128, True),
        (128, 128, 64, False),
        (64, 64, 512, False),
        (3, 64, 512, False),
    ]:
        shape = (3, 3, inputs, outputs)
        assert winograd.pays(shape, size * size, frozen=True) == pays
        # What Winograd may use is prepared.
        prepared = convolution.prepare_kernel(np.zeros(shape, np.float32))
        assert isinstance(prepared, convolution.PreparedKernel) or not pays
    assert not winograd.pays((1, 1, 512, 512), 512 * 512, frozen=True)
    for inputs, outputs, size, pays in [
        (128, 128, 64, True),
        (48, 512, 64, True),
        (128, 128, 16, False),
        (64, 64, 512, True),
        (48, 64, 512, False),
    ]:
        assert winograd.pays((3, 3, inputs, outputs), size * size, frozen=False) == pays


def test_bad_arguments():
    images, kernel = arrays((4, 4), 3, 5)
    with pytest.raises(ValueError, match="padding must be one of zero, reflect, replicate"):
        convolution.conv2d(images, kernel, padding="same")
    with pytest.raises(ValueError, match="same number of input channels"):
        convolution.conv2d(images[..., :2], kernel)
    with pytest.raises(ValueError, match="odd size"):
        convolution.conv2d(images, kernel[:2, :2])
