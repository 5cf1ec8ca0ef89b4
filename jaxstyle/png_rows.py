"""Pictures larger than memory: PNGs read a band of rows at a time.

A PNG is one deflated stream of rows, each of which is filtered: stored as differences to the bytes
at its left and above. The stream is inflated here piece by piece. What the bytes are is left to
Pillow, which gets small PNGs to decode that have a band's rows each.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jaxstyle import encoders, strips

_READ_BYTES = 2**20  # of deflated data at a time
_HEADER = ">IIBBBBB"  # width, height, depth, kind of colour, compression, filters, interlacing
_GREY = 0
_SAMPLES = {_GREY: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the kind of colour
_MEANING = (b"PLTE", b"tRNS")  # what the bytes of a row cannot be understood without
_KEPT = (*_MEANING, b"eXIf", b"tEXt", b"zTXt", b"iTXt")

Bytes = NDArray[np.uint8]


class PngRows:
    """The picture in a PNG file, as bands of rows.

    At any time, memory holds no more than a band of rows and what inflating it takes.

    Args:
        file: open for reading in binary mode, seekable; it must stay open.

    Attributes:
        height: rows in the file, before any rotation that the file asks for.
        width: columns in the file.

    Raises:
        NotInStripsError: It is interlaced or an animation, or too wide.
        EOFError: The file is truncated before its pixels.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._chunks: list[tuple[bytes, bytes]] = []
        self._deflated: list[tuple[int, int]] = []  # where pieces of the stream lie: begin, size
        file.seek(len(encoders.PNG_SIGNATURE))
        kinds = [self._note_chunk(*chunk) for chunk in self._walk()]
        if b"IHDR" not in kinds or not self._deflated:
            raise EOFError("it ends before its pixels")
        self.width, self.height, depth, color, *_, interlaced = self._header
        bits = depth * _SAMPLES[color]
        self._row_bytes = -(-self.width * bits // 8)
        self._distance = max(1, bits // 8)  # from a byte to the one that it is compared with
        for obstacle, reason in [
            (interlaced, "it is interlaced"),
            (b"acTL" in kinds, "it is an animation"),
            (self.width > strips.MAX_WIDTH, "its rows are too long"),
        ]:
            if obstacle:
                raise strips.NotInStripsError(reason)

    def _walk(self) -> Iterator[tuple[bytes, int, int]]:
        """The chunks: what kind, where its data begin, and how many bytes they have."""
        while len(start := self._file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", start)
            begin = self._file.tell()
            yield kind, begin, size
            self._file.seek(begin + size + 4)  # what follows is a checksum

    def _note_chunk(self, kind: bytes, begin: int, size: int) -> bytes:
        if kind == b"IDAT":
            self._deflated.append((begin, size))
        elif kind == b"IHDR":
            self._header = struct.unpack(_HEADER, self._file.read(size))
        elif kind in _KEPT:
            self._chunks.append((kind, self._file.read(size)))
        return kind

    def described(self) -> Image.Image:
        """A black row with all that the file says besides its pixels, be it before or after them.

        Pillow learns of what comes after them only by decoding the whole.
        """
        return self._decoded(np.zeros((1, self._row_bytes), np.uint8), self._chunks)

    def bands(self) -> Iterator[Image.Image]:
        """Reads the picture from the top.

        Yields:
            Some rows, as Pillow decodes them, without what the file says besides its pixels.

        Raises:
            EOFError: The stream ends too early.
            zlib.error, OSError: It is broken.
        """
        meaning = [chunk for chunk in self._chunks if chunk[0] in _MEANING]
        above = np.zeros(self._row_bytes, np.uint8)
        for lines in self._lines():
            rows = self._unfiltered(lines, above)
            above = rows[-1]
            yield self._decoded(rows, meaning)

    def _lines(self) -> Iterator[Bytes]:
        """Inflates the stream by the band: [rows, 1 + bytes of a row], a filter's number first."""
        inflater, deflated = zlib.decompressobj(), self._pieces()
        for rows in strips.band_slices(self.height, self.width):
            count, band = rows.stop - rows.start, bytearray()
            while missing := count * (1 + self._row_bytes) - len(band):
                data = inflater.unconsumed_tail or next(deflated, b"")
                part = inflater.decompress(data, missing)
                if not (data or part):
                    raise EOFError(f"it ends in row {rows.start} of {self.height}, or a few later")
                band += part
            yield np.frombuffer(band, np.uint8).reshape(count, -1)

    def _pieces(self) -> Iterator[bytes]:
        for begin, size in self._deflated:
            for start in range(begin, begin + size, _READ_BYTES):
                self._file.seek(start)
                yield self._file.read(min(_READ_BYTES, begin + size - start))

    def _unfiltered(self, lines: Bytes, above: Bytes) -> Bytes:
        """Undoes the filters: [rows, bytes of a row], below the row that is given.

        Filters compare each byte with its like in the pixels at its left and above. So the first
        bytes of all pixels are a grey picture of its own, as the second ones are, and so on.
        """
        rows = np.empty((len(lines), self._row_bytes), np.uint8)
        for offset in range(self._distance):
            part = lines[:, 1 + offset :: self._distance]
            grey = np.zeros((1 + len(part), 1 + part.shape[1]), np.uint8)
            grey[0, 1:] = above[offset :: self._distance]
            grey[1:, 0], grey[1:, 1:] = lines[:, 0], part
            size = part.shape[1], len(grey)
            image = _opened((*size, 8, _GREY, 0, 0, 0), (), grey)
            rows[:, offset :: self._distance] = np.asarray(image)[1:]
        return rows

    def _decoded(self, rows: Bytes, chunks: Iterable[tuple[bytes, bytes]]) -> Image.Image:
        lines = np.zeros((len(rows), 1 + self._row_bytes), np.uint8)  # filter 0: as they are
        lines[:, 1:] = rows
        return _opened((self.width, len(rows), *self._header[2:]), chunks, lines)


def _opened(
    header: tuple[int, ...], chunks: Iterable[tuple[bytes, bytes]], lines: Bytes
) -> Image.Image:
    """Has Pillow decode a PNG of some rows with their filters' numbers."""
    file = io.BytesIO()
    file.write(encoders.PNG_SIGNATURE)
    encoders.write_chunk(file, b"IHDR", struct.pack(_HEADER, *header))
    for kind, data in chunks:
        encoders.write_chunk(file, kind, data)
    encoders.write_chunk(file, b"IDAT", zlib.compress(lines.data, 0))
    encoders.write_chunk(file, b"IEND", b"")
    image = Image.open(file, formats=["PNG"])
    image.load()
    return image
