"""Generators of `residual` on pictures that are too large to be computed whole.

The layers are computed one after the other, each in all tiles (see `tiling`): when a layer is done,
the moments of its result over the whole picture are known, and the next can begin with normalised
features. Features of less than full size are kept in the host's memory. Those of full size, which
would take most of it, are computed anew from what was kept: once for their moments, once for what
comes after.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from jaxstyle import layers, tiling

if TYPE_CHECKING:
    from jaxstyle.methods.residual import Generator

# Side of the tiles that are chosen for the user, in pixels. Larger ones have less margin, and were
# no faster on a CPU: their features leave its caches.
SIDE = 256


def generate(
    generator: Generator, variables: Any, picture: np.ndarray, style_weights: Any, *, tile: int
) -> np.ndarray:
    """What the generator makes of one picture, to the rounding of float32.

    Args:
        generator: the network.
        variables: its parameters, and its running statistics where it has any.
        picture: float32 `[height, width, 3]`, sRGB in [0, 1], with sides as `layers.padding`
            makes them.
        style_weights: `[1, styles]`.
        tile: the side of tiles in pixels, rounded up to what the strides divide.

    Returns:
        float32 `[height, width, 3]`, as `Generator` gives it.
    """
    variables = jax.device_put(variables)
    bound = generator.bind(variables)
    work = _Work(generator, variables, picture, style_weights, tile)
    for name in bound.parts:
        part = getattr(bound, name)
        if isinstance(part, layers.ConvLayer):
            work.convolve(part)
        else:
            work.block(part)
    leave = tiling.Step(_End(generator, "leave"), variables, kernel=9)
    return work.run(leave, channels=3)


def whole_bytes(generator: Generator, pixels: int) -> int:
    """An estimate of what it takes to compute a picture whole, in bytes.

    What counts are the features of full size, which are as wide as the first convolution: 8 of them
    in float32. On a CPU, pictures of 1 to 5 million pixels took 580 to 940 bytes a pixel with the
    widths 32, 64, 128 (970 with transposed convolutions), 420 with half of these and 180 with a
    quarter. In tiles of 256 pixels, they took 150 to 220.
    """
    return pixels * (8 * 4 * generator.channels[0])


@dataclass(frozen=True)
class _Layer:
    """A part of a layer, as `tiling.Step` has it: equal layers with other parameters are equal."""

    layer: layers.ConvLayer
    part: str

    def __call__(self, params: Any, x: Array) -> Array:
        variables, style_weights = params
        return self.layer.apply(variables, x, style_weights, part=self.part)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class _End:
    """The first or the last part of a generator, as `tiling.Step` has it."""

    generator: Generator
    method: str

    def __call__(self, params: Any, x: Array) -> Array:
        return self.generator.apply(params, x, method=self.method)  # pyright: ignore[reportReturnType]


class _Work:
    """A picture on its way through a network.

    Attributes:
        features: what was computed last and kept, `[height, width, channels]`.
        scale: rows of it to a row of the picture.
        pending: what is to be applied to that before anything else.
    """

    def __init__(
        self,
        generator: Generator,
        variables: Any,
        picture: np.ndarray,
        style_weights: Any,
        tile: int,
    ) -> None:
        self._size, self._weights = picture.shape[:2], style_weights
        # With nothing halved there is nothing but features of full size.
        self._keeps_all = len(generator.channels) == 1
        multiple = 2 ** (len(generator.channels) - 1)
        self._tile = -(-tile // multiple) * multiple
        self.features, self.scale = picture, Fraction(1)
        if generator.norm == "contrast" and generator.contrast_at == "input":
            mean = picture.mean((0, 1), dtype=np.float64)
            variables = variables | {layers.MOMENTS: {"contrast": _collection(mean=mean)}}
        self.pending = [tiling.Step(_End(generator, "enter"), variables)]

    def convolve(self, bound: layers.ConvLayer) -> None:
        """Applies a layer; its normalisation, of which the moments are known then, is pending."""
        layer, variables = bound.unbind()
        scale = Fraction(2) if layer.upsample else Fraction(1, layer.stride)
        own = variables, self._weights
        step = tiling.Step(_Layer(layer, "convolve"), own, layer.kernel_size, scale)
        scale *= self._pending_scale()
        keep = scale < 1 or self._keeps_all
        room = self._room(scale, layer.features) if keep else None
        needed = layer.norm in layers.BY_PICTURE
        steps, found = [*self.pending, step], None
        if keep or needed:
            found = self._sweep(steps, into=room, moments=needed)
        if found:
            moments = _collection(mean=found.mean, variance=found.variance)
            variables = {**variables, layers.MOMENTS: {"norm": {"norm": moments}}}
        normalize = tiling.Step(_Layer(layer, "normalize"), (variables, self._weights))
        if room is None:
            self.pending = [*steps, normalize]
        else:
            self.features, self.scale, self.pending = room, scale, [normalize]

    def block(self, bound: layers.ResidualBlock) -> None:
        """Applies a residual block."""
        before = None
        if bound.residual:
            if self.pending:
                self.features = self._applied(self.features.shape[2])
                self.pending = []
            before = self.features
        self.convolve(bound.conv1)
        self.convolve(bound.conv2)
        if before is not None:
            self._sweep(self.pending, into=before, add=True)
            self.features, self.pending = before, []

    def run(self, last: tiling.Step, *, channels: int) -> np.ndarray:
        """Applies what is pending, and a last step."""
        self.pending.append(last)
        return self._applied(channels)

    def _applied(self, channels: int) -> np.ndarray:
        made = self._room(self._pending_scale(), channels)
        self._sweep(self.pending, into=made)
        return made

    def _pending_scale(self) -> Fraction:
        scale = self.scale
        for step in self.pending:
            scale *= step.scale
        return scale

    def _room(self, scale: Fraction, channels: int) -> np.ndarray:
        rows, columns = (int(side * scale) for side in self._size)
        return np.empty((rows, columns, channels), np.float32)

    def _sweep(self, steps: list[tiling.Step], **options: Any) -> tiling.Moments | None:
        return tiling.sweep(steps, self.features, tile=int(self._tile * self.scale), **options)


def _collection(**moments: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics `[channels]` as a normalisation takes them."""
    return {name: np.asarray(m, np.float32)[None, None, None] for name, m in moments.items()}
