"""The networks of `jaxstyle.methods.adain`: an encoder, the decoder that mirrors it, settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from jaxstyle import features as vgg
from jaxstyle import layers, transfer, weights
from jaxstyle.config import PADDINGS, check, setting
from jaxstyle.errors import UserError
from jaxstyle.losses import Moments
from jaxstyle.training import perceptual
from jaxstyle.training.perceptual import PerceptualConfig

Code = Mapping[str, Moments]
"""Moments at each level: `[batch, channels]`, or `[batch, regions, channels]` with masks."""

# The pictures themselves, as a level: colours, and sums of them, for the covariance.
PIXELS = "pixels"
# The decoder's last convolution, after which colours are normalised, in each region by itself.
LAST = "conv1_1"
# The Oxford networks' features are this much larger than those that a decoder begins well with.
_OXFORD_SIZE = 128.0
_small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
_LEVEL = re.compile(r"relu(\d)_1")


@dataclass(frozen=True, kw_only=True)
class Config(PerceptualConfig):
    """Settings of an encoder, its decoder, and what that is trained with.

    Attributes:
        levels: `relu1_1` and the like, from the pixels up. The last one is what the decoder begins
            with; features of the others are added on its way.
    """

    style_weight: float = setting(10.0, "weight of the style loss", least=0)
    content_layers: Mapping[str, float] = setting(
        {"relu4_1": 1.0}, "layers that keep the content, and their weights"
    )
    style_layers: Mapping[str, float] = setting(
        dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1"), 1.0),
        "layers that give the style, and their weights",
    )
    style_loss: str = setting(
        "moments", "form of the style loss", choices=tuple(perceptual.STYLE_LOSSES)
    )
    normalize_features: bool = setting(
        False, "divide each layer by its style's mean activation, so that weights fit any features"
    )
    encoder: str = setting("", "network that encodes; the one that comes along by default")
    encoder_padding: str = setting(
        "", "padding of the encoder; its own by default", choices=("", *PADDINGS)
    )
    levels: tuple[str, ...] = ("relu4_1",)
    modulation: int = setting(
        0, "hidden units between a painting's code and factors of the decoder's features", least=0
    )
    colors: bool = setting(
        False, "give pictures the mean and covariance of the painting's red, green and blue"
    )
    norm: bool = setting(False, "instance normalisation after the decoder's convolutions")
    content_target: str = setting(
        "adain",
        "what the content loss asks for: normalised features, or the content's own",
        choices=("adain", "content"),
    )
    vary_colors: bool = setting(
        False, "exchange red, green and blue of paintings at random, for more of them"
    )
    identity_weight: float = setting(
        0.0, "weight of the squared error of a content that is its own style", least=0
    )

    def __post_init__(self) -> None:
        check(self)
        blocks = [_LEVEL.fullmatch(level) for level in self.levels]
        if not (isinstance(self.levels, tuple) and blocks and all(blocks)):
            raise ValueError(f"levels must be relu1_1, relu2_1 and so on; got {self.levels!r}")
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels must rise from the pixels, each once; got {self.levels!r}")


class Decoder(nn.Module):
    """Features with a painting's moments in, pictures out: the encoder the other way round.

    Each convolution of the encoder is mirrored by one that has as many outputs as that has inputs,
    with a ReLU but for the last; sizes are doubled by repeating pixels where the encoder pools.

    Attributes:
        widths: of the encoder's convolutions, a tuple for each block, up to the first level.
        levels: as `Config.levels`.
        modulation: as `Config.modulation`.
        norm: as `Config.norm`.
        colors: as `Config.colors`; then codes have moments of PIXELS.
        dtype: what to compute in.
    """

    widths: tuple[tuple[int, ...], ...]
    levels: tuple[str, ...]
    modulation: int = 0
    norm: bool = False
    colors: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, Array],
        code: Code,
        masks: Array | None = None,
        *,
        until: str = "",
    ) -> Array:
        """Makes pictures.

        Args:
            features: normalised, `{level: [batch, h, w, channels]}`.
            code: of the paintings.
            masks: of the regions, `[batch, height, width, regions]`; None without.
            until: the name of a convolution, to get instead what the normalisation after it has the
                statistics of.

        Returns:
            float32 `[batch, height, width, 3]`, of which what lies beyond [0, 1] is to be clipped.
        """
        x = features[self.levels[-1]]
        hidden = self._describe(code) if self.modulation else None
        enlarge = False
        for block in range(len(self.widths), 0, -1):
            for place in range(len(self.widths[block - 1]), 0, -1):
                name = f"conv{block}_{place}"
                outputs = self._inputs(block, place)
                # Pictures of random features would be far out of their range at first.
                init = _small if (block, place) == (1, 1) else layers.he
                y = layers.Conv(
                    outputs, enlarge=enlarge, kernel_init=init, dtype=self.dtype, name=name
                )(x)
                level = f"relu{block}_{place}"
                if level in self.levels[:-1]:
                    skip = layers.Conv(
                        outputs,
                        1,
                        use_bias=False,
                        kernel_init=_small,
                        dtype=self.dtype,
                        name=f"skip{block}_{place}",
                    )
                    y = y + skip(features[level])
                enlarge = False
                if (block, place) == (1, 1):
                    return transfer.with_sums(y) if until else self._finish(y, code, masks)
                if name == until:
                    return y
                if self.norm:
                    y = layers.InstanceNorm(dtype=self.dtype, name=f"{name}_norm")(y)
                if hidden is not None:
                    y = self._modulate(y, hidden, masks, name)
                x = nn.relu(y)
            enlarge = True
        raise AssertionError("widths are never empty")

    @property
    def normalized(self) -> tuple[str, ...]:
        """The convolutions that are followed by a normalisation by the picture, in order."""
        places = [(b, p) for b, row in enumerate(self.widths, 1) for p in range(1, len(row) + 1)]
        first, *others = (f"conv{b}_{p}" for b, p in places)
        return (*(reversed(others) if self.norm else ()), *([first] if self.colors else ()))

    def _finish(self, y: Array, code: Code, masks: Array | None) -> Array:
        """Colours out of what the last convolution gives."""
        y = y.astype(jnp.float32)
        if not self.colors:
            return y + 0.5
        if masks is not None:
            masks = transfer.resize_masks(masks, *y.shape[1:3])
        root = transfer.covariance_root(code[PIXELS].std)
        return layers.Recolor(name=f"{LAST}_norm")(y, code[PIXELS].mean[..., :3], root, masks)

    def _placed(self, values: Array, masks: Array | None, x: Array) -> Array:
        """Values of a picture, or of its regions, where they apply to features."""
        if masks is None:
            return values[:, None, None]
        return transfer.spread(values, transfer.resize_masks(masks, *x.shape[1:3]))

    def _inputs(self, block: int, place: int) -> int:
        """How many channels the encoder's convolution takes."""
        if place > 1:
            return self.widths[block - 1][place - 2]
        return self.widths[block - 2][-1] if block > 1 else 3

    def _describe(self, code: Code) -> Array:
        """A painting in a few numbers, `[batch, hidden]` or `[batch, regions, hidden]`.

        Out of ratios and logarithms: of use whatever the scale of the features is.
        """
        parts = []
        for level in self.levels:
            mean, std = code[level]
            parts += [mean / (std + 1e-3), jnp.log(std + 1e-3)]
        return nn.relu(nn.Dense(self.modulation, name="describe")(jnp.concatenate(parts, -1)))

    def _modulate(self, x: Array, hidden: Array, masks: Array | None, name: str) -> Array:
        """Channels times factors, plus terms, that depend on the painting; at first 1 and 0."""
        dense = nn.Dense(
            2 * x.shape[-1], kernel_init=nn.initializers.zeros, name=f"{name}_modulation"
        )
        values = self._placed(dense(hidden), masks, x)
        gamma, beta = jnp.split(values, 2, axis=-1)
        return (x * (1 + gamma) + beta).astype(self.dtype)


@dataclass(frozen=True)
class Network:
    """An encoder and its decoder, without their parameters.

    Attributes:
        decoder: see there.
        padding: of the encoder.
        dtype: what the encoder computes in.
    """

    decoder: Decoder
    padding: str
    dtype: Any = jnp.float32

    @property
    def levels(self) -> tuple[str, ...]:
        """Where features are normalised."""
        return self.decoder.levels

    @property
    def grain(self) -> int:
        """What the sides of pictures are multiples of, so that no pooling rounds."""
        return 2 ** (len(self.decoder.widths) - 1)


def read_encoder(config: Config) -> tuple[dict[str, np.ndarray], str]:
    """The parameters of the encoder as far as they are needed, and its padding.

    Narrow networks encode in their own features, not in the wider ones of their heads.

    Raises:
        UserError: it cannot be read, or lacks a level.
    """
    found = weights.load(config.encoder or weights.default_spec())
    try:
        vgg.check_layers(found.params, config.levels)
    except ValueError as error:
        raise UserError(f"model.encoder: {error}") from error
    params: dict[str, np.ndarray] = {}
    last = _block(config.levels[-1])
    for name, value in found.params.items():
        match = re.fullmatch(r"conv(\d+)_(\d+)/\w+", name)
        needed = match is not None and (int(match[1]), int(match[2])) <= (last, 1)
        if needed or name.startswith("preprocess/"):
            params[name] = np.asarray(value)
    if found.scale == "oxford":
        params = _divided(params, _OXFORD_SIZE)
    return params, config.encoder_padding or found.padding


def _divided(params: Mapping[str, np.ndarray], by: float) -> dict[str, np.ndarray]:
    """The network whose features are those of another, divided: so is what each layer adds."""
    divided = {name for name in params if name.endswith("/bias") or name == "preprocess/kernel"}
    return {
        name: value / np.float32(by) if name in divided else value for name, value in params.items()
    }


def _block(level: str) -> int:
    match = _LEVEL.fullmatch(level)
    assert match
    return int(match[1])


def make_network(
    config: Config, params: vgg.Parameters, padding: str, *, dtype: Any = jnp.float32
) -> Network:
    """The network that goes with an encoder.

    Args:
        config: settings.
        params: of the encoder, up to the last of the levels, as `read_encoder` gives them.
        padding: of the encoder.
        dtype: what to compute in.
    """
    blocks: list[list[int]] = []
    for name in vgg.layer_names(params):
        if name.startswith("conv"):
            block = int(name.removeprefix("conv").split("_")[0])
            while len(blocks) < block:
                blocks.append([])
            blocks[block - 1].append(params[f"{name}/kernel"].shape[-1])
    widths = tuple(tuple(block) for block in blocks)
    decoder = Decoder(widths, config.levels, config.modulation, config.norm, config.colors, dtype)
    return Network(decoder, padding, dtype)
