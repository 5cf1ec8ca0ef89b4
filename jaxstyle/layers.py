"""What the networks share, as Flax Linen modules.

Features are `[batch, height, width, channels]`. Parameters are float32; a module computes in its
`dtype`, and sums over positions in float32. Style weights are `[batch, styles]`, a mixture for each
picture, and mean something to conditional normalisation alone.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from jaxstyle import convolution, transfer
from jaxstyle.config import did_you_mean

NORMS = ("instance", "batch", "contrast", "none")
BY_PICTURE = ("instance", "contrast")  # those that need statistics of the whole picture
UPSAMPLINGS = ("nearest", "transpose")
# Added to variances: Eq. 11 of Pu and Li has none, and would divide flat channels by zero.
EPSILON = 1e-5
# Collection of the statistics of each normalisation by picture, see InstanceNorm.
MOMENTS = "moments"
# Pictures are made at least so large inside networks: smaller maps have no statistics to speak of.
LEAST_SIDE = 16

_LAYOUT = ("NHWC", "HWIO", "NHWC")
he = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


# --- convolutions --------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution with a kernel of odd size k, padded by k // 2 on each side.

    Attributes:
        features: channels of the output.
        kernel_size: k.
        stride: 1 keeps the size; 2 halves it, rounded up.
        use_bias: add a bias a channel; without effect where the mean is subtracted next.
        padding: as `convolution.conv2d` takes it.
        enlarge: repeat each pixel 2x2 before; with a stride of 1.
        kernel_init: initialiser of the kernel, by default that of He et al. 2015.
        dtype: what to compute in.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = True
    padding: str = "reflect"
    enlarge: bool = False
    kernel_init: Any = he
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[batch, height, width, in]` to `[batch, height / stride, width / stride, features]`."""
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            bias = bias.astype(self.dtype)
        x = x.astype(self.dtype)
        if self.stride == 1:
            conv2d = convolution.conv2d_upsampled if self.enlarge else convolution.conv2d
            return conv2d(x, kernel, bias=bias, padding=self.padding)
        x = lax.conv_general_dilated(
            convolution.pad(x, size // 2, self.padding),
            kernel,
            (self.stride, self.stride),
            "VALID",
            dimension_numbers=_LAYOUT,
            precision=lax.Precision.HIGHEST,
        )
        return x if bias is None else x + bias


class Upsample(nn.Module):
    """Doubles height and width with a convolution.

    Attributes:
        features: channels of the output.
        mode: "nearest" repeats each pixel and then convolves, so that all pixels are made alike
            (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"); "transpose" is the
            transposed convolution, of stride 1/2, with zeros beyond the border.
        kernel_size: of the convolution; odd.
        use_bias: as for `Conv`.
        dtype: what to compute in.
    """

    features: int
    mode: str = "nearest"
    kernel_size: int = 3
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[batch, h, w, in]` to `[batch, 2 h, 2 w, features]`."""
        if self.mode not in UPSAMPLINGS:
            raise ValueError(f"mode must be one of {', '.join(UPSAMPLINGS)}; got {self.mode!r}")
        size = self.kernel_size
        if self.mode == "nearest":
            options: dict[str, Any] = {"use_bias": self.use_bias, "dtype": self.dtype}
            return Conv(self.features, size, enlarge=True, **options, name="conv")(x)
        # A quarter of the taps meets a pixel at each output: hence the larger variance.
        init = nn.initializers.variance_scaling(8.0, "fan_in", "truncated_normal")
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape, jnp.float32).astype(self.dtype)
        before = (size - 1) // 2
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel,
            (1, 1),
            [(before, size - before)] * 2,
            lhs_dilation=(2, 2),
            dimension_numbers=_LAYOUT,
            precision=lax.Precision.HIGHEST,
        )
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)


# --- normalisation -------------------------------------------------------------------------------


def _gamma_and_beta(module: nn.Module, *shape: int) -> tuple[Array, Array]:
    """What a normalisation multiplies by and adds: ones and zeros, until they are trained."""
    return (
        module.param("gamma", nn.initializers.ones, shape, jnp.float32),
        module.param("beta", nn.initializers.zeros, shape, jnp.float32),
    )


class _ByPicture(nn.Module):
    """The part of a normalisation by the picture's own statistics that has no parameters."""

    def _standardize(self, x: Array, epsilon: float) -> Array:
        """(x - mean) / sqrt(variance + epsilon) over height and width, in float32.

        Channels that are flat but for rounding are 0.
        """
        x = x.astype(jnp.float32)
        mean = self._mean("mean", x)
        variance = self._mean("variance", jnp.square(x - mean))
        flat = transfer.is_flat(mean, variance)
        return (x - mean) * jnp.where(flat, 0, lax.rsqrt(variance + epsilon))

    def _mean(self, name: str, x: Array) -> Array:
        """The mean over height and width; where a statistic of that name was given, that."""
        wanted = self.is_mutable_collection(MOMENTS)
        if self.has_variable(MOMENTS, name) and not wanted:
            return self.get_variable(MOMENTS, name)
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        if wanted and not self.is_initializing():
            self.put_variable(MOMENTS, name, mean)
        return mean


class InstanceNorm(_ByPicture):
    """Instance normalisation: each channel of each picture gets mean beta and deviation gamma.

    (x - mean) / sqrt(variance + epsilon) * gamma + beta, with the biased variance over height and
    width (Ulyanov et al. 2016, arXiv 1607.08022; Pu and Li, Eq. 11). A flat channel, as
    `transfer.is_flat` has it, becomes beta: what rounding leaves in it is not made into contrast.

    A tile of a picture must be normalised as the whole is. Applied with `mutable=["moments"]`, a
    network gives back the moments of all its normalisations, each `[batch, 1, 1, channels]`;
    applied with them among its variables, it uses them in place of its input's own. `tiling`
    gathers those of pictures that are never computed whole.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result.
    """

    epsilon: float = EPSILON
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[batch, height, width, channels]`, as the input."""
        gamma, beta = _gamma_and_beta(self, x.shape[-1])
        return (self._standardize(x, self.epsilon) * gamma + beta).astype(self.dtype)


class Recolor(_ByPicture):
    """Colours that get a mean and a covariance in place of their own, without parameters.

    With masks, a region gets the mean exactly, in place of the region's own, and the covariance
    as far as it has contrast itself (see `transfer.pooled`); where masks overlap, the results are
    mixed by them.

    It gives and takes moments as `InstanceNorm` does: those of `transfer.with_sums`. With masks it
    takes them alone, each `[batch, regions, 6]`, with variances that are `transfer.pooled`.
    """

    @nn.compact
    def __call__(self, x: Array, mean: Array, root: Array, masks: Array | None = None) -> Array:
        """`[batch, height, width, 3]` to float32 of that shape.

        Args:
            x: what to recolour.
            mean: red, green and blue, `[batch or 1, 3]`, or `[batch or 1, regions, 3]` with masks.
            root: of the covariance, as `transfer.covariance_root` gives it: `[..., 3, 3]`.
            masks: `[batch, height, width, regions]`, which sum to one; None for no regions.
        """
        x = x.astype(jnp.float32)
        own, std = self._moments(transfer.with_sums(x), masks)
        whiten = transfer.inverse_root(transfer.covariance_root(std))
        if masks is None:
            white = transfer.times_colors(whiten, x - own[..., :3])
            return mean[:, None, None] + transfer.times_colors(root[:, None, None], white)
        matrices = jnp.einsum("brij,brjk->brik", *jnp.broadcast_arrays(root, whiten))
        shift = mean - transfer.times_colors(matrices, own[..., :3])
        matrices = transfer.spread(matrices.reshape(*matrices.shape[:2], 9), masks)
        matrices = matrices.reshape(*x.shape[:3], 3, 3)
        return transfer.spread(shift, masks) + transfer.times_colors(matrices, x)

    def _moments(self, sums: Array, masks: Array | None) -> tuple[Array, Array]:
        """Mean and deviation of the picture, or of its regions."""
        if masks is None:
            mean = self._mean("mean", sums)
            variance = self._mean("variance", jnp.square(sums - mean))
        elif self.has_variable(MOMENTS, "mean"):
            mean, variance = (self.get_variable(MOMENTS, name) for name in ("mean", "variance"))
        else:
            mean, std = transfer.region_moments(sums, masks)
            weights = jnp.mean(masks, (1, 2))[..., None]
            variance = transfer.pooled(jnp.square(std) - transfer.EPSILON, weights)
        return mean, jnp.sqrt(variance + transfer.EPSILON)


class ConditionalInstanceNorm(_ByPicture):
    """Instance normalisation with a gamma and a beta for each style, mixed by weights.

    Dumoulin et al. 2017, "A Learned Representation for Artistic Style" (arXiv 1610.07629), Eq. 5
    and section 3.3.

    Attributes:
        num_styles: how many styles there are.
        epsilon: added to the variance.
        dtype: of the result.
    """

    num_styles: int
    epsilon: float = EPSILON
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, style_weights: Array | None) -> Array:
        """`[batch, height, width, channels]`, as the input; weights are `[batch, styles]`."""
        if style_weights is None or style_weights.shape[-1] != self.num_styles:
            shape = None if style_weights is None else style_weights.shape
            raise ValueError(f"expected style weights [batch, {self.num_styles}]; got {shape}")
        weights = style_weights.astype(jnp.float32)
        gamma, beta = (
            jnp.matmul(weights, table, precision=lax.Precision.HIGHEST)[:, None, None]
            for table in _gamma_and_beta(self, self.num_styles, x.shape[-1])
        )
        return (self._standardize(x, self.epsilon) * gamma + beta).astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167), over all devices' pictures.

    The collection `batch_stats` has the running mean and variance, which are used after training.

    Attributes:
        axis_name: of the devices that share a batch, so that many do what one would.
        momentum: what remains of the running statistics after a step.
        epsilon: added to the variance.
        dtype: of the result.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = EPSILON
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """`[batch, height, width, channels]`, as the input."""
        shape = (x.shape[-1],)
        gamma, beta = _gamma_and_beta(self, *shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, shape, jnp.float32)
        x = x.astype(jnp.float32)
        mean, variance = running_mean.value, running_variance.value
        if train:
            mean = self._mean(x)
            variance = self._mean(jnp.square(x - mean))
            if not self.is_initializing():
                for running, now in ((running_mean, mean), (running_variance, variance)):
                    running.value = self.momentum * running.value + (1 - self.momentum) * now
        return ((x - mean) * lax.rsqrt(variance + self.epsilon) * gamma + beta).astype(self.dtype)

    def _mean(self, x: Array) -> Array:
        """The mean of each channel; devices have equally many pictures."""
        mean = jnp.mean(x, axis=(0, 1, 2))
        if self.axis_name is None or self.is_initializing():
            return mean
        return lax.pmean(mean, self.axis_name)


class ContrastNorm(_ByPicture):
    """Contrast normalisation: each channel of each picture is divided by its mean.

    Pu and Li, Eq. 10, divide by the sum, which makes activations as small as the picture is large,
    and means nothing where positive and negative values cancel. So this takes what is not negative,
    a picture or activations after their ReLU, and has a gamma and a beta. It gives and takes the
    mean as `InstanceNorm` does the moments.

    Attributes:
        epsilon: added to the mean.
        dtype: of the result.
    """

    epsilon: float = EPSILON
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[batch, height, width, channels]`, as the input."""
        gamma, beta = _gamma_and_beta(self, x.shape[-1])
        x = x.astype(jnp.float32)
        mean = self._mean("mean", x)
        return (x / (mean + self.epsilon) * gamma + beta).astype(self.dtype)


class Norm(nn.Module):
    """The normalisation of a name; what it needs to know is passed to all alike.

    Attributes:
        kind: one of `NORMS`.
        num_styles: above 1, instance normalisation is conditional.
        axis_name: of the devices, for batch normalisation.
        dtype: of the result.
    """

    kind: str
    num_styles: int = 1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, style_weights: Array | None = None, *, train: bool = False
    ) -> Array:
        """`[batch, height, width, channels]`, as the input."""
        check_norm(self.kind, self.num_styles)
        if self.kind == "batch":
            return BatchNorm(self.axis_name, dtype=self.dtype, name="norm")(x, train=train)
        if self.kind == "contrast":
            return ContrastNorm(dtype=self.dtype, name="norm")(x)
        if self.kind == "none":
            return x.astype(self.dtype)
        if self.num_styles == 1:
            return InstanceNorm(dtype=self.dtype, name="norm")(x)
        norm = ConditionalInstanceNorm(self.num_styles, dtype=self.dtype, name="norm")
        return norm(x, style_weights)


def check_norm(kind: str, num_styles: int) -> None:
    """Refuses a normalisation that there is not, or that cannot tell styles apart.

    Raises:
        ValueError: says which.
    """
    if kind not in NORMS:
        known = ", ".join(NORMS)
        raise ValueError(f"norm must be one of {known}; got {kind!r}{did_you_mean(kind, NORMS)}")
    if num_styles > 1 and kind != "instance":
        raise ValueError(
            f"norm {kind!r} knows one style only, and there are {num_styles}: norm 'instance' has "
            "parameters for each"
        )


# --- parts of networks ---------------------------------------------------------------------------


def padding(multiple: int, height: int, width: int) -> list[tuple[int, int]]:
    """Rows, and columns, by which a picture is reflected beyond its first and its last one.

    Args:
        multiple: what the sides are to be multiples of, so that no convolution or pooling rounds.
        height: of the picture; what is less than LEAST_SIDE becomes that.
        width: of the picture.
    """
    wanted = [-(-max(side, LEAST_SIDE) // multiple) * multiple for side in (height, width)]
    return [(0, size - side) for size, side in zip(wanted, (height, width), strict=True)]


class ConvLayer(nn.Module):
    """A convolution, its normalisation, and a ReLU.

    Contrast normalisation comes after the ReLU, and not at all where there is none.

    The layer falls into two parts, before and from the normalisation on, for those who need the
    statistics of a whole picture before they can normalise a tile of it: "convolve" gives what the
    statistics are of, and "normalize" takes it.

    Attributes:
        features: channels of the output.
        kernel_size: of the convolution.
        stride: 1, or 2 to halve the size.
        upsample: one of `UPSAMPLINGS` to double the size; "" not to.
        norm: one of `NORMS`.
        num_styles: as for `Norm`.
        relu: whether there is a ReLU.
        axis_name: of the devices.
        dtype: what to compute in.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    upsample: str = ""
    norm: str = "instance"
    num_styles: int = 1
    relu: bool = True
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Array,
        style_weights: Array | None = None,
        *,
        train: bool = False,
        part: str = "whole",
    ) -> Array:
        """`[batch, height, width, in]` to `[batch, h, w, features]`; part of it as above."""
        if part != "normalize":
            x = self._convolve(x)
        if part == "convolve":
            return x
        norm = Norm(self.norm, self.num_styles, self.axis_name, self.dtype, name="norm")
        if self.norm == "contrast":
            return norm(x) if self.relu else x
        x = norm(x, style_weights, train=train)
        return nn.relu(x) if self.relu else x

    def _convolve(self, x: Array) -> Array:
        # Where the mean is subtracted next, a bias would be without effect.
        use_bias = self.norm in ("contrast", "none")
        if self.upsample:
            mode, size = self.upsample, self.kernel_size
            x = Upsample(self.features, mode, size, use_bias, self.dtype, name="up")(x)
        else:
            size, stride = self.kernel_size, self.stride
            conv = Conv(self.features, size, stride, use_bias, dtype=self.dtype, name="conv")
            x = conv(x)
        return nn.relu(x) if self.norm == "contrast" and self.relu else x


class ResidualBlock(nn.Module):
    """Two convolutions on top of the identity: W2 relu(W1 x) + x (Pu and Li, Eq. 7 and 8).

    Attributes:
        features: channels of the input and of the output.
        residual: False leaves `+ x` out.
        norm: one of `NORMS`, after each convolution.
        num_styles: as for `Norm`.
        axis_name: of the devices.
        dtype: what to compute in.
    """

    features: int
    residual: bool = True
    norm: str = "instance"
    num_styles: int = 1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the two layers."""
        options: dict[str, Any] = {
            "norm": self.norm,
            "num_styles": self.num_styles,
            "axis_name": self.axis_name,
            "dtype": self.dtype,
        }
        self.conv1 = ConvLayer(self.features, **options)
        # Without the sum, a ReLU keeps the block from being linear from one to the next.
        self.conv2 = ConvLayer(self.features, relu=not self.residual, **options)

    def __call__(
        self, x: Array, style_weights: Array | None = None, *, train: bool = False
    ) -> Array:
        """`[batch, height, width, features]`, as the input."""
        y = self.conv1(x, style_weights, train=train)
        y = self.conv2(y, style_weights, train=train)
        return x + y if self.residual else y
