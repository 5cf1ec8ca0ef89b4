"""Pictures larger than memory: read and shrunk a band of rows at a time.

What goes through here are arrays of rows. What they mean (colours, depths, profiles) is the
business of `jaxstyle.images`, which hands in the functions that know it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LARGE_PIXELS = 2**24
"""Above this size, height times width, pictures are read and written in bands."""

BAND_PIXELS = 2**20
"""About how many pixels a band has."""

# The largest strip or tile, and row of tiles, that are read. Beyond these, and beyond the width
# below, a band is no small part of a picture, or the file is broken.
_MAX_SEGMENT_BYTES = 2**27
_MAX_GROUP_BYTES = 2**30
MAX_WIDTH = 2**20
"""The widest picture that is read in strips."""

# Numbers of the TIFF specification.
_UNCOMPRESSED, _JPEG, _DEFLATE = 1, 7, (8, 32946)
_YCBCR = 6
_PHOTOMETRICS = (0, 1, 2, 5, 8)  # grey (white is 0, black is 0), RGB, CMYK, Lab
_NO_PREDICTOR, _HORIZONTAL = 1, 2
_APART = 2  # of planar configurations
DESCRIPTION, ORIENTATION, PROFILE = 270, 274, 34675
"""Tags of a TIFF, of which `TiffRows` knows the values."""
_KEPT_TAGS = (DESCRIPTION, ORIENTATION, PROFILE)

FloatArray = NDArray[np.float32]
Part = tuple[FloatArray, FloatArray | None]
"""The pixels of some rows, and their alpha."""

Resample = Callable[[FloatArray, tuple[int, int]], FloatArray]
"""Resizes float32 [rows, width, channels] to a (height, width), without clipping."""


def band_slices(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture in bands of about `BAND_PIXELS` pixels, from the top."""
    step = max(1, BAND_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


# ------------------------------------------------------------------------------------- reading TIFF


class NotInStripsError(ValueError):
    """A TIFF cannot be read in strips; the message is the reason."""


class NotUnderstoodError(NotInStripsError):
    """A TIFF is broken, or is none."""


class TiffRows:
    """The first picture in a TIFF file, as bands of rows of undecoded samples.

    Strips or tiles are read as they are needed: at any time, memory holds no more than a band of
    rows and one row of strips or tiles. Uncompressed and deflated files are decoded here, other
    compressions by imagecodecs, where it is installed. Channels that are stored apart are joined.

    Args:
        file: open for reading in binary mode, seekable; it must stay open.

    Attributes:
        height: rows in the file, before any rotation that the file asks for.
        width: columns in the file.
        samples: how many values a pixel has, the extra ones among them.
        bits: of each value, 8 or 16.
        photometric: the number of the kind of colour, as the specification has it.
        extra: numbers that say what the extra samples are.
        tags: the others that matter here, by their numbers, as they are in the file.

    Raises:
        NotInStripsError: The layout does not allow it, or the compression needs imagecodecs.
        NotUnderstoodError: The structure is broken.
        EOFError: The file is truncated.
    """

    def __init__(self, file: IO[bytes]):
        import tifffile

        self._file = file
        file.seek(0)
        try:
            with _quiet(logging.getLogger("tifffile")):
                page: Any = tifffile.TiffFile(file).pages[0]
                self._obstacles(page)
                self._lay_out(page)
        except (NotInStripsError, EOFError):
            raise
        except Exception as error:  # broken or strange tags end in anything at all
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NotUnderstoodError(f"its structure is not understood: {reason}") from error

    def _obstacles(self, page: Any) -> None:
        """Refuses what only a whole picture can be read from."""
        import tifffile

        compression, photometric = int(page.compression), int(page.photometric)
        name = getattr(page.compression, "name", str(page.compression)).replace("_", " ")
        ours = compression in (_UNCOMPRESSED, *_DEFLATE)
        decodable = ours or compression in tifffile.TIFF.DECOMPRESSORS
        known = photometric in _PHOTOMETRICS or (photometric, compression) == (_YCBCR, _JPEG)
        for obstacle, reason in [
            (page.sampleformat != 1, "its values are signed or floating point"),
            (page.bitspersample not in (8, 16), "it has neither 8 nor 16 bits a channel"),
            (page.fillorder != 1, "its bits are stored in reverse"),
            (page.imagedepth != 1, "it is a volume"),
            (not known, "its colours are neither grey, RGB, CMYK nor Lab"),
            (page.predictor not in (_NO_PREDICTOR, _HORIZONTAL), "its predictor is not known"),
            (not decodable, f"its compression, {name}, needs the package imagecodecs"),
        ]:
            if obstacle:
                raise NotInStripsError(reason)

    def _lay_out(self, page: Any) -> None:
        """Notes where the segments, which are strips or tiles, lie: in a grid, row by row."""
        self.height, self.width = int(page.imagelength), int(page.imagewidth)
        rows, columns = (int(side) for side in page.chunks[:2])
        self.samples, self.bits = int(page.samplesperpixel), int(page.bitspersample)
        self.photometric, self.extra = int(page.photometric), tuple(map(int, page.extrasamples))
        self.tags = {number: page.tags.valueof(number) for number in _KEPT_TAGS}
        # Channels that are stored apart have strips of their own, one channel after the other.
        self._planes = self.samples if int(page.planarconfig) == _APART else 1
        samples = self.samples // self._planes
        self._page, self._tiled = page, page.is_tiled
        self._stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        offsets, counts = page.dataoffsets, page.databytecounts
        if page.is_contiguous and page.predictor == _NO_PREDICTOR:
            # One piece: it may be cut anywhere, into strips of our own.
            self._tiled, rows, columns = False, max(1, BAND_PIXELS // self.width), self.width
            row = self.width * samples * self._stored.itemsize
            plane = row * self.height
            self._require(int(offsets[0]) + plane * self._planes)
            tops = np.arange(0, self.height, rows)
            begins = plane * np.arange(self._planes)[:, None]
            offsets = (offsets[0] + begins + row * tops).ravel()
            counts = np.tile(row * np.minimum(rows, self.height - tops), self._planes)
        if not self._tiled:
            rows = min(rows, self.height)  # many files say 2**32 - 1 where they have one strip
        self._segment_shape = rows, columns, samples
        self._offsets, self._counts = np.asarray(offsets, np.int64), np.asarray(counts, np.int64)
        self._require(int(np.max(self._offsets + self._counts)))
        self._across = -(-self.width // columns)
        self._each = self._across * -(-self.height // rows)  # segments of a plane
        if min(len(self._offsets), len(self._counts)) < self._each * self._planes:
            raise NotInStripsError("it lacks some of its strips")
        size = rows * columns * samples * self._stored.itemsize
        if size > _MAX_SEGMENT_BYTES or size * self._across * self._planes > _MAX_GROUP_BYTES:
            raise NotInStripsError(f"its strips are too large: {columns} x {rows} pixels")
        if self.width > MAX_WIDTH:
            raise NotInStripsError("its rows are too long")

    def _require(self, size: int) -> None:
        missing = size - self._file.seek(0, 2)
        if missing > 0:
            raise EOFError(f"{missing} bytes are missing at its end")

    def bands(self) -> Iterator[NDArray[Any]]:
        """Reads the picture from the top.

        Yields:
            uint8 or uint16 [rows, width, samples], in this machine's byte order, as stored: with
            levels that may be inverted, or an alpha that may be multiplied in. What a sparse file
            does not store is 0.

        Raises:
            ValueError: A strip or tile is truncated or broken.
        """
        height = self._segment_shape[0]
        step = max(1, BAND_PIXELS // self.width)
        group = height * max(1, step // height)
        for top in range(0, self.height, group):
            shape = (min(group, self.height - top), self.width, self.samples)
            rows = np.zeros(shape, self._stored.newbyteorder("="))
            for plane in range(self._planes):
                one = slice(None) if self._planes == 1 else slice(plane, plane + 1)
                self._fill(rows[..., one], top, plane)
            for start in range(0, len(rows), step):
                yield rows[start : start + step]

    def _fill(self, rows: NDArray[Any], top: int, plane: int) -> None:
        """Reads some rows of a plane, from one at which strips or tiles begin."""
        height, width = self._segment_shape[:2]
        last = -(-(top + len(rows)) // height)
        for place in range(top // height * self._across, last * self._across):
            index = plane * self._each + place
            if not self._counts[index]:
                continue
            down, right = divmod(place, self._across)
            into = rows[down * height - top :, right * width :][:height, :width]
            into[:] = self._segment(index)[: len(into), : into.shape[1]]

    def _segment(self, index: int) -> NDArray[Any]:
        """Reads and decodes a strip or tile: [rows, columns, samples], all of them stored."""
        self._file.seek(int(self._offsets[index]))
        data = self._file.read(int(self._counts[index]))
        page, compression = self._page, int(self._page.compression)
        if compression not in (_UNCOMPRESSED, *_DEFLATE):
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
            options = tables if compression == _JPEG else {}
            return page.decode(data, index, **options)[0][0]
        shape = self._segment_shape
        if not self._tiled:  # the last strip ends with the picture
            shape = (min(shape[0], self.height - index % self._each * shape[0]), *shape[1:])
        size = math.prod(shape) * self._stored.itemsize
        if compression in _DEFLATE:
            data = zlib.decompressobj().decompress(data, size)  # no more of it: against bombs
        if len(data) < size:
            raise ValueError(f"strip or tile {index} has {len(data)} bytes instead of {size}")
        values = np.frombuffer(data, self._stored, math.prod(shape)).reshape(shape)
        if page.predictor == _HORIZONTAL:  # differences to the left neighbour, modulo the depth
            return np.cumsum(values, axis=1, dtype=self._stored.newbyteorder("="))
        return values


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keeps back what a logger says of each doubtful tag: what matters ends in an error."""

    def keep_back(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(keep_back)
    try:
        yield
    finally:
        logger.removeFilter(keep_back)


# ---------------------------------------------------------------------------------------- shrinking


def shrink(
    parts: Callable[[], Iterable[Part]],
    size: tuple[int, int],
    new_size: tuple[int, int],
    *,
    resample: Resample,
    has_alpha: bool,
) -> Part:
    """Shrinks a picture that comes in bands of rows.

    Args:
        parts: gives the bands from the top, anew at each call: float32 pixels [rows, width, 3] in
            [0, 1], which may be overwritten, and alpha [rows, width] in [0, 1], or None.
        size: (height, width) of the picture.
        new_size: (height, width) of the result.
        resample: see `Shrinker`.
        has_alpha: whether there may be an alpha. Then the bands are gone through twice: pixels of
            alpha 0 get the mean colour of the others, weighted by alpha, before they are shrunk.

    Returns:
        The pixels and the alpha, in the new size, clipped to [0, 1]; the alpha is None where all of
        it is 1.
    """
    hidden_color, least_alpha = _mean_color(parts()) if has_alpha else (None, 1.0)
    colors = Shrinker(size, new_size, 3, resample)
    opacity = Shrinker(size, new_size, 1, resample) if least_alpha < 1 else None
    for pixels, alpha in parts():
        if alpha is not None and opacity is not None:
            if hidden_color is not None:
                pixels[alpha == 0] = hidden_color
            opacity.add(alpha[..., None])
        colors.add(pixels)
    result = colors.result()
    np.clip(result, 0, 1, out=result)
    return result, None if opacity is None else np.clip(opacity.result()[..., 0], 0, 1)


def _mean_color(parts: Iterable[Part]) -> tuple[FloatArray | None, float]:
    """The mean of what is seen, weighted by alpha, if anything is; and the least alpha."""
    total, weight, least = np.zeros(3), 0.0, 1.0
    for pixels, alpha in parts:
        if alpha is not None:
            total += np.tensordot(alpha, pixels, 2)
            weight += float(alpha.sum(dtype=np.float64))
            least = min(least, float(alpha.min()))
    return (total / weight).astype(np.float32) if weight else None, least


class Shrinker:
    """Resizes a picture by Lanczos' filter (a = 3) as its rows come in, from the top.

    The result is that of resizing the whole: rows are filtered across one by one in any case, and
    down with the weights that the whole picture's size gives them, in float64. It is not clipped.

    Args:
        size: (height, width) of the picture.
        new_size: (height, width) of the result.
        channels: how many the picture has.
        resample: resizes float32 [rows, width, channels] to a (height, width), unclipped.
    """

    def __init__(
        self,
        size: tuple[int, int],
        new_size: tuple[int, int],
        channels: int,
        resample: Resample,
    ):
        self._resample, self._top = resample, 0
        self._result = np.empty((*new_size, channels), np.float32)
        # Where the filter lies for each row of the result, as Pillow lays it: what counts are
        # centres of rows, and the filter widens where it shrinks.
        self._stretch = max(size[0] / new_size[0], 1.0)
        self._centers = (np.arange(new_size[0]) + 0.5) * (size[0] / new_size[0])
        reach = 3 * self._stretch
        self._begins = np.maximum(self._centers - reach + 0.5, 0).astype(np.int64)
        self._ends = np.minimum(self._centers + reach + 0.5, size[0]).astype(np.int64)
        # Rows of the result that have got some of their parts, the first of them, and the sums of
        # the weights so far.
        self._open, self._first = np.zeros((0, new_size[1], channels)), 0
        self._sums = np.zeros(new_size[0])

    def add(self, band: FloatArray) -> None:
        """Takes the next rows: float32 [rows, width, channels]."""
        narrow = self._resample(band, (len(band), self._result.shape[1])).astype(np.float64)
        bottom = self._top + len(band)
        begun = int(np.searchsorted(self._begins, bottom))
        weights = self._weights(slice(self._first, begun), np.arange(self._top, bottom))
        parts = np.tensordot(weights, narrow, 1)
        parts[: len(self._open)] += self._open
        self._sums[self._first : begun] += weights.sum(axis=1)
        done = slice(self._first, int(np.searchsorted(self._ends, bottom, side="right")))
        count = done.stop - done.start
        self._result[done] = parts[:count] / self._sums[done, None, None]
        self._open, self._first, self._top = parts[count:].copy(), done.stop, bottom

    def _weights(self, results: slice, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """What some rows weigh in some rows of the result: [results, rows]."""
        x = (rows + 0.5 - self._centers[results, None]) / self._stretch
        inside = (rows >= self._begins[results, None]) & (rows < self._ends[results, None])
        return np.where(inside & (np.abs(x) < 3), np.sinc(x) * np.sinc(x / 3), 0.0)

    def result(self) -> FloatArray:
        """The resized picture, when all rows have been added: float32 [height, width, channels].

        Raises:
            ValueError: Rows are missing.
        """
        if self._first != len(self._result):
            raise ValueError(f"expected more rows than {self._top}")
        return self._result
