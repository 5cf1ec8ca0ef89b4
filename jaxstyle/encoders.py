"""Pictures larger than memory: written a band of rows, or a tile, at a time.

The pixels come from a function that gives any block of them in 8 bits, so that there need not be
a copy of the whole, in floating point or otherwise.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np
from numpy.typing import NDArray

from jaxstyle.strips import band_slices

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""What a PNG file begins with."""

_TILE = 256  # the side of tiles that are written
_WAITING_BYTES = 2**24  # of tiles that wait for being compressed
# Classic TIFF counts bytes with 32 bits; the margin is for the tables, and for what deflate adds
# to data that it cannot make smaller.
_MAX_CLASSIC_BYTES = 2**32 - 2**26

Block = Callable[[slice, slice], NDArray[np.uint8]]
"""Gives some rows and columns of a picture: uint8 [rows, columns, channels]."""


def write_png(
    file: IO[bytes], shape: tuple[int, int, int], block: Block, *, description: str = ""
) -> None:
    """Writes an sRGB PNG of 8 bits a channel, band by band.

    Args:
        file: open for writing in binary mode.
        shape: (height, width, channels), with 3 channels, or 4 with an alpha.
        block: gives the pixels.
        description: ASCII, for a text chunk of that name; none is written where it is empty.

    Raises:
        OSError: The disk is full, or fails.
    """
    height, width, channels = shape
    color_type = {3: 2, 4: 6}[channels]
    file.write(PNG_SIGNATURE)
    write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))
    write_chunk(file, b"sRGB", b"\1")  # relative colorimetric
    if description:
        write_chunk(file, b"tEXt", b"Description\0" + description.encode("ascii"))
    above = np.zeros(width * channels, np.uint8)
    compressor = zlib.compressobj()
    for rows in band_slices(height, width):
        band = block(rows, slice(0, width)).reshape(-1, width * channels)
        data = compressor.compress(_filtered(band, above, channels).data)
        if data:
            write_chunk(file, b"IDAT", data)
        above = band[-1]
    write_chunk(file, b"IDAT", compressor.flush())
    write_chunk(file, b"IEND", b"")


def write_chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    """Writes a chunk of a PNG, of a kind that has four letters."""
    file.write(struct.pack(">I", len(data)) + kind)
    file.write(data)
    file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _filtered(
    rows: NDArray[np.uint8], above: NDArray[np.uint8], channels: int
) -> NDArray[np.uint8]:
    """Filters rows for PNG, each with the filter whose residuals have the least absolute sum.

    Args:
        rows: [rows, width * channels].
        above: the row above the first one.
        channels: the distance to the left neighbour.

    Returns:
        [rows, 1 + width * channels]: the filter's number before each row.
    """
    upper = np.concatenate([above[None], rows[:-1]])
    left, upper_left = np.zeros_like(rows), np.zeros_like(rows)
    left[:, channels:], upper_left[:, channels:] = rows[:, :-channels], upper[:, :-channels]
    result = np.zeros((len(rows), 1 + rows.shape[1]), np.uint8)
    least = np.full(len(rows), np.iinfo(np.int64).max)
    predictions = {
        0: lambda: np.zeros_like(rows),
        1: lambda: left,
        2: lambda: upper,
        4: lambda: _paeth(left, upper, upper_left),
    }
    for number, predict in predictions.items():
        residuals = rows - predict()
        sums = np.minimum(residuals, -residuals).sum(axis=1, dtype=np.int64)  # modulo 256
        better = sums < least
        least[better] = sums[better]
        result[better, 0], result[better, 1:] = number, residuals[better]
    return result


def _paeth(
    left: NDArray[np.uint8], upper: NDArray[np.uint8], upper_left: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Of three neighbours the one nearest to left + upper - upper_left (PNG, section 9.4)."""
    corner = upper_left.astype(np.int16)
    across, down = upper - corner, left - corner  # how far left and upper are from the estimate
    to_corner = np.abs(across + down)
    across, down = np.abs(across), np.abs(down)
    nearest = np.where(down <= to_corner, upper, upper_left)
    return np.where((across <= down) & (across <= to_corner), left, nearest)


def write_tiff(
    file: IO[bytes], shape: tuple[int, int, int], block: Block, *, description: str = ""
) -> None:
    """Writes a TIFF of 8 bits a channel in deflated tiles; a BigTIFF where 4 GB may not do.

    Args:
        file: open for writing in binary mode, seekable.
        shape: (height, width, channels), with 3 channels, or 4 with an alpha (not multiplied in).
        block: gives the pixels.
        description: ASCII, for the tag ImageDescription; none is written where it is empty.

    Raises:
        OSError: The disk is full, or fails.
    """
    import tifffile

    height, width, channels = shape
    tiles = (
        block(slice(top, min(top + _TILE, height)), slice(left, min(left + _TILE, width)))
        for top in range(0, height, _TILE)
        for left in range(0, width, _TILE)
    )
    padded = -(-height // _TILE) * -(-width // _TILE) * _TILE * _TILE * channels
    with tifffile.TiffWriter(file, bigtiff=padded > _MAX_CLASSIC_BYTES) as writer:
        writer.write(
            tiles,
            shape=shape,
            dtype=np.uint8,
            tile=(_TILE, _TILE),
            photometric="rgb",
            extrasamples=["unassalpha"] if channels == 4 else None,
            compression="zlib",
            predictor=True,
            description=description or None,
            metadata=None,
            software=False,
            buffersize=_WAITING_BYTES,
        )
