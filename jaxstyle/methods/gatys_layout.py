"""Where the tiles of a picture lie whose pixels are optimised, and when there are any.

Tiles begin where all poolings do, so that a tile's cells are the picture's. Each position of the
features counts in one tile; around it, the tile has as many pixels more as the deepest features
see.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxstyle import features as vgg
from jaxstyle import tiling
from jaxstyle.config import StylizeConfig
from jaxstyle.tiling import Span

# Of tiles without their margins, where there is memory for them; larger ones gain little.
SIDES = (1024, 768, 512, 384, 256, 128, 64)
# Bytes that an update takes to a byte of the features it computes, as measured on CPUs.
_BYTES_A_BYTE = 3.6
_PICTURE = 4 * 3  # bytes of a pixel
# A pixel of the arrays beside tiles, with the default settings and network.
_USUAL_BYTES = 116
_END = 2**30  # beyond any tile

Sizes = tuple[int, int]


class Tile(NamedTuple):
    """A tile of a picture, in pixels."""

    row: Span
    column: Span

    @property
    def seen(self) -> tuple[slice, slice]:
        """What is computed of the picture."""
        return slice(self.row.start, self.row.stop), slice(self.column.start, self.column.stop)

    def seen_at(self, stride: int) -> tuple[slice, slice]:
        """The same in features of that many pixels to a position."""
        return tuple(  # pyright: ignore[reportReturnType]
            slice(span.start // stride, max(span.stop // stride, span.start // stride + 1))
            for span in self
        )

    def bounds(self, size: Sizes) -> np.ndarray:
        """What counts, `[[first row, last row], [first column, last column]]`, from its start."""
        return np.array(
            [
                (span.first - span.start, _END if span.last == length else span.last - span.start)
                for span, length in zip(self, size, strict=True)
            ],
            np.int32,
        )


def block_of(layer: str) -> int:
    """How many poolings come before a layer."""
    match = re.match(r"(pool)?\D*(\d)", layer)
    assert match
    return int(match[2]) - (0 if match[1] else 1)


def reach(params: vgg.Parameters, layers: Sequence[str]) -> int:
    """How many pixels away the deepest of some layers sees, on the side where that is more."""
    wanted, found, stride, deepest = set(layers), 0, 1, 0
    for name in vgg.layer_names(params):
        if name.startswith("conv"):
            found += stride
        elif name.startswith("pool"):
            # Cells begin at even places, so a pooling sees one more on the far side alone.
            found, stride = found + stride, 2 * stride
        if name in wanted:
            deepest = found
    return deepest


def lay(size: Sizes, side: int, margin: int, grain: int) -> list[Tile]:
    """The tiles of a picture, all of one size.

    Args:
        size: height and width of the picture.
        side: of the part of a tile that counts, at most, rounded up to a multiple of the grain.
        margin: around that, likewise.
        grain: what tiles begin at multiples of.
    """

    def along(length: int) -> list[Span]:
        cells, rest = divmod(length, grain)
        if not cells:
            return [Span(0, length, 0, length)]
        # What tiles overlap is computed twice: so no tile is larger than it must be.
        share = tiling.even_share(cells, -(-side // grain))
        found = tiling.spans(cells, share, -(-margin // grain))
        spans = [span.times(grain) for span in found]
        # A rest that fills no cell is seen by all tiles, so that they are of one size.
        last = spans[-1]
        spans[-1] = last._replace(last=last.last + rest)
        return [span._replace(stop=span.stop + rest) for span in spans]

    return list(itertools.starmap(Tile, itertools.product(*map(along, size))))


# --- memory --------------------------------------------------------------------------------------


def bytes_per_pixel(params: vgg.Parameters, layers: Sequence[str]) -> float:
    """What an update takes for each pixel that is computed at a time, about."""
    names = vgg.layer_names(params)
    last = max(names.index(layer) for layer in layers)
    channels = 0.0
    for name in names[: last + 1]:
        heads = [f"{name}_to_vgg"] if name.replace("conv", "relu") in layers else []
        biases = [f"{each}/bias" for each in (name, *heads)]
        widths = [params[bias].shape[0] for bias in biases if bias in params]
        channels += sum(widths) / 4 ** block_of(name)
    return 4 * _BYTES_A_BYTE * channels


def _state_pictures(config: StylizeConfig) -> int:
    """How many arrays of the picture's size the state of its optimisation has."""
    # L-BFGS keeps the last picture, its update and its gradient beside pairs of both.
    optimizer = 2 * config.history + 3 if config.optimizer == "lbfgs" else 2
    return 1 + optimizer + (config.averaging > 0)


def _kept_bytes(params: vgg.Parameters, config: StylizeConfig) -> float:
    """What the content's features take, for each pixel."""
    total, channels = 0.0, 0
    for name in vgg.layer_names(params):
        full = name.replace("relu", "conv") + "_to_vgg/bias"
        channels = params[f"{name}/bias"].shape[0] if name.startswith("conv") else channels
        if name in config.content_layers:
            own = params[full].shape[0] if name.startswith("relu") and full in params else channels
            total += 4 * own / 4 ** block_of(name)
    return total


def picture_bytes(params: vgg.Parameters, config: StylizeConfig, size: Sizes) -> int:
    """What an update of a picture takes that is computed whole, and the optimiser's state, about.

    Args:
        params: the network.
        config: settings.
        size: height and width of the picture.
    """
    computed = bytes_per_pixel(params, layers_of(config))
    return round(math.prod(size) * (computed + _PICTURE * _state_pictures(config)))


def host_bytes(
    size: Sizes, params: vgg.Parameters | None = None, config: StylizeConfig | None = None
) -> int:
    """What the arrays of a picture's size take that tiles are computed of, about.

    They are the photograph, the optimiser's state, the gradient, what is shown, and the content's
    features; L-BFGS has its gradient in its state, and looks for its step with two more.

    Args:
        size: height and width of the picture.
        params: the network; None for what is usual.
        config: settings; None likewise.
    """
    if params is None or config is None:
        return _USUAL_BYTES * math.prod(size)
    searches = config.optimizer == "lbfgs"
    grey = config.keep_colors == "luminance"  # the losses see another photograph
    pictures = 3 + searches + grey + _state_pictures(config)
    return round((_PICTURE * pictures + _kept_bytes(params, config)) * math.prod(size))


def layers_of(config: StylizeConfig) -> list[str]:
    """Those that the objective needs, each once."""
    return [*{**config.content_layers, **config.style_layers}]


class Cutting(NamedTuple):
    """How pictures may be cut into tiles.

    Attributes:
        tile: a side in pixels, None, or "auto" for tiles where the whole takes too much memory.
        memory: bytes that an update may take; by default half of what is available.
    """

    tile: int | str | None = "auto"
    memory: int | None = None

    def settled(self, size: Sizes, *, held: int | None = None) -> Cutting:
        """The same with a memory that is a number, where it is asked for.

        What is free differs from one moment to the next: with this, a picture has the same tiles
        from its first scale to its last.

        Args:
            size: height and width of the picture, whose arrays take some of what is free.
            held: what they take, `host_bytes`; by default what is usual.
        """
        if self.tile != "auto" or self.memory is not None:
            return self
        held = host_bytes(size) if held is None else held
        return self._replace(memory=tiling.available_memory(held=held) // 2)

    def of(self, params: vgg.Parameters, config: StylizeConfig, size: Sizes) -> int | None:
        """The side of the tiles for an update of a picture, or None to compute it whole.

        Args:
            params: the network.
            config: settings.
            size: height and width of the picture.

        Raises:
            ValueError: `tile` is none of what it may be.
        """
        layers = layers_of(config)
        each, margin = bytes_per_pixel(params, layers), reach(params, layers)
        memory = self.settled(size, held=host_bytes(size, params, config)).memory

        def fits(side: int) -> bool:
            return memory is None or each * (side + 2 * margin) ** 2 <= memory

        side = next(filter(fits, SIDES), SIDES[-1])
        needed = int(each * math.prod(size))
        found = tiling.choose(self.tile, needed=needed, memory=memory, side=side)
        # Tiles that are no smaller than the picture are the picture.
        return None if found is None or found >= max(size) else found
