"""What picture files show: from what Pillow opens to arrays, for `images.load` and `images.decode`.

Opening checks the size before anything is decoded, and turns all that fails into one line. What is
decoded becomes sRGB in [0, 1], whatever its mode, depth, palette or colour profile, with the alpha
apart.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from jaxstyle import strips
from jaxstyle.config import MAX_PIXELS
from jaxstyle.errors import UserError, printable, reason_of
from jaxstyle.png_rows import PngRows

# Formats that are recognised by their first bytes and decoded by Pillow itself: not those that run
# another program (EPS) or that would take any text for a picture (TGA).
_INPUT_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "QOI"),
)
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}

# Tags of a TIFF, and what it may begin with; big-endian files of more than 4 GiB are not known to
# Pillow.
_BITS, _PLANAR_CONFIGURATION, _SAMPLE_FORMAT = 258, 284, 339
_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Pillow's names for pictures, and for how their samples lie, by kind of colour, number of samples,
# and what the first extra one is: 0 for nothing that is known, 1 or 2 for an alpha that is or is
# not multiplied in.
_TIFF_LAYOUTS: dict[tuple[int, int, tuple[int, ...]], tuple[str, str]] = {
    (0, 1, ()): ("L", "L;I"),
    (1, 1, ()): ("L", "L"),
    (1, 2, (2,)): ("LA", "LA"),
    (2, 3, ()): ("RGB", "RGB"),
    (2, 4, ()): ("RGBA", "RGBA"),
    (2, 4, (0,)): ("RGB", "RGBX"),
    (2, 4, (1,)): ("RGBA", "RGBa"),
    (2, 4, (2,)): ("RGBA", "RGBA"),
    (5, 4, ()): ("CMYK", "CMYK"),
    (8, 3, ()): ("LAB", "LAB"),
}
_DEEP_GREYS: dict[tuple[int, int, tuple[int, ...]], tuple[str, str]] = {
    (kind, 1, ()): ("I;16", "I") for kind in (0, 1)
}

_log = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]
PathLike = str | os.PathLike[str]
Rows = strips.TiffRows | PngRows
_Kind = TypeVar("_Kind", bound=np.generic)


# --- opening -------------------------------------------------------------------------------------


class _PillowGuard:
    """Sets Pillow's size limit to ours, and silences its warnings, while any thread reads.

    Both are global: the first reader sets them, the last one puts them back as they were. The
    limit among several readers is the largest; each still checks its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: list[int | None] = []
        self._saved = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self, limit: int | None) -> Iterator[None]:
        with self._lock:
            if not self._limits:
                self._saved.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                self._saved.enter_context(warnings.catch_warnings())
                # Doubtful EXIF, odd palettes: of no consequence, or an error soon after.
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            self._limits.append(limit)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._limits.remove(limit)
                if self._limits:
                    self._apply()
                else:
                    self._saved.close()

    def _apply(self) -> None:
        limits = [limit for limit in self._limits if limit is not None]
        Image.MAX_IMAGE_PIXELS = max(limits) if len(limits) == len(self._limits) else None


_pillow_guard = _PillowGuard()


def reading() -> contextlib.AbstractContextManager[None]:
    """A context around much reading in threads, to be entered by the main thread.

    Each reader sets the process's warning filters while it reads. Inside this context they are set
    once, so that they change under nobody who sets his own meanwhile.
    """
    return _pillow_guard(MAX_PIXELS)


@contextlib.contextmanager
def opened(path: PathLike, max_pixels: int | None) -> Iterator[Image.Image]:
    """Opens a picture, its header only; whatever fails until it is closed is a `UserError`."""
    name = printable(path)
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below, apart from these errors)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{name}: is a folder; give a picture file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UserError(f"{name}: cannot be read: {reason_of(error)}") from error
    with file, recognized(file, name, max_pixels) as image:
        yield image


@contextlib.contextmanager
def recognized(file: IO[bytes], name: str, max_pixels: int | None) -> Iterator[Image.Image]:
    """As `opened`, for the content of a file."""
    Image.init()
    formats = [kind for kind in _INPUT_FORMATS if kind in Image.OPEN]
    try:
        with _pillow_guard(max_pixels), _open(file, formats) as image:
            check_size(image, max_pixels, name)
            yield image
    except strips.NotUnderstoodError as error:
        raise _broken(name, error) from error
    except strips.NotInStripsError as error:
        raise UserError(
            f"{name}: this TIFF cannot be read ({error}): expected unsigned whole numbers of 8 "
            "or 16 bits, uncompressed or deflated; convert it to that, or to PNG"
        ) from error
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow refuses twice the limit on its own, before it knows anything but the size.
        count = re.search(r"\((\d+) pixels", str(error))
        assert max_pixels is not None
        raise _too_large(name, int(count[1]) if count else 2 * max_pixels, max_pixels) from None
    except UnidentifiedImageError:
        if not (file.seek(0) or file.read(1)):
            raise UserError(f"{name}: the file is empty; give a picture file") from None
        raise UserError(
            f"{name}: not a picture in a format that can be read, or its header is broken; "
            "convert it to PNG or JPEG"
        ) from None
    except MemoryError as error:
        raise UserError(
            f"{name}: not enough memory to decode it; give a smaller picture"
        ) from error
    except Exception as error:  # the decoders raise anything at all on broken files
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> UserError:
    return UserError(
        f"{name}: the picture is truncated or broken ({reason_of(error)}); "
        "get a whole copy of it, or open and save it in an image editor"
    )


def _open(file: IO[bytes], formats: list[str]) -> Image.Image:
    """Opens a picture by Pillow, or a TIFF in our way where Pillow's own does not do.

    Raises:
        strips.NotInStripsError: Neither does.
    """
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        file.seek(0)
        if file.read(4) not in _TIFF_BEGINNINGS:
            raise
        try:
            return _TiffImage(file)
        except strips.NotUnderstoodError as error:
            raise UnidentifiedImageError(str(error)) from error
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if image.format != "TIFF":
        return image
    bits, apart = tags.get(_BITS, (1,)), tags.get(_PLANAR_CONFIGURATION) == 2
    if bits == (8,) and tags.get(_SAMPLE_FORMAT, (1,))[0] == 2:
        raise strips.NotInStripsError("its values are signed numbers of 8 bits")
    if apart and len(bits) > 1:
        try:
            return _TiffImage(file)
        except strips.NotInStripsError:
            # Of deeper channels that are stored apart, Pillow would make noise.
            if set(bits) != {8}:
                raise
    return image


class _TiffImage(Image.Image):
    """A TIFF that is read by `strips.TiffRows`, as far as what is done with it here knows.

    Args:
        file: open for reading in binary mode.

    Attributes:
        fp: the file.
        tile: one, with the name that Pillow has for how the samples lie.
        tag_v2: the tag that says whether 16-bit greys are inverted.

    Raises:
        strips.NotInStripsError: It cannot be read.
    """

    format = "TIFF"

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        rows = self._rows = strips.TiffRows(file)
        deep = rows.bits == 16
        key = (rows.photometric, rows.samples, rows.extra[:1])
        layouts = _TIFF_LAYOUTS | _DEEP_GREYS if deep else _TIFF_LAYOUTS
        mode, layout = layouts.get(key, ("", ""))
        if not mode or (deep and mode in ("LA", "LAB")):
            raise strips.NotInStripsError(
                f"it has {rows.samples} channels of {rows.bits} bits, of an unusual kind"
            )
        self._mode, self._size = mode, (rows.width, rows.height)
        self.fp = file
        self.tile = [("raw", (0, 0, *self._size), 0, (f"{layout};16N" if deep else layout,))]
        self.tag_v2 = {262: rows.photometric}
        exif = Image.Exif()
        for number in (strips.ORIENTATION, strips.DESCRIPTION):
            if rows.tags[number] is not None:
                exif[number] = rows.tags[number]
        self.info["exif"] = exif.tobytes()
        if profile := rows.tags[strips.PROFILE]:
            self.info["icc_profile"] = bytes(profile)

    def load(self) -> Any:
        """Decodes the picture, the first time."""
        if self._im is None:
            whole, top = Image.new(self.mode, self.size), 0
            for band in tiff_bands(self, self._rows):
                whole.paste(band, (0, top))
                top += band.height
            self._im = whole.im
        return super().load()


def rows_in(image: Image.Image) -> Rows | None:
    """The rows of an opened picture's file, for reading in strips; None in most formats.

    Raises:
        strips.NotInStripsError: This file does not allow it.
    """
    if image.format not in ("TIFF", "PNG"):
        return None
    file = cast(IO[bytes], cast(ImageFile.ImageFile, image).fp)
    position = file.tell()
    try:
        return strips.TiffRows(file) if image.format == "TIFF" else PngRows(file)
    except strips.NotInStripsError:
        file.seek(position)  # from where Pillow goes on to decode the whole
        raise


def bands_of(image: Image.Image, rows: Rows | None) -> Iterator[Image.Image]:
    """A picture in bands of rows, from the top: out of its file, or else of the decoded whole."""
    if isinstance(rows, PngRows):
        yield from rows.bands()
    elif rows is not None:
        yield from tiff_bands(image, rows)
    else:
        for band in strips.band_slices(image.height, image.width):
            yield image.crop((0, band.start, image.width, band.stop))


def tiff_bands(image: Any, rows: strips.TiffRows) -> Iterator[Image.Image]:
    """Has Pillow unpack a TIFF's samples as it would have done for the whole picture.

    Args:
        image: the picture, opened.
        rows: the same file.
    """
    layout = re.sub(";16[BL]?$", ";16N", image.tile[0][3][0])  # 16 bits come in our byte order
    for samples in rows.bands():
        size = samples.shape[1], samples.shape[0]
        yield Image.frombytes(image.mode, size, samples.tobytes(), "raw", layout)


def check_size(image: Image.Image, max_pixels: int | None, name: str) -> None:
    """Refuses a picture with no pixels, or with more than so many."""
    width, height = image.size
    if width < 1 or height < 1:
        raise UserError(f"{name}: the picture has no pixels ({width} x {height}); give another one")
    if max_pixels is not None and width * height > max_pixels:
        raise _too_large(name, width * height, max_pixels, f"{width} x {height} = ")


def _too_large(name: str, count: int, limit: int, size: str = "") -> UserError:
    return UserError(
        f"{name}: the picture has {size}{count} pixels, over the limit of {limit}; "
        f"make it smaller, or raise the limit with --max-pixels {count}"
    )


# --- colours -------------------------------------------------------------------------------------


def orientation_of(image: Image.Image) -> int:
    """The orientation that EXIF asks for, 1 to 8; 1, as it is stored, where it says nothing."""
    with contextlib.suppress(Exception):  # broken EXIF says nothing
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def oriented(array: NDArray[_Kind], orientation: int) -> NDArray[_Kind]:
    """Turns an array as EXIF's orientation (1 to 8) asks; unknown ones ask for nothing."""
    if orientation in (5, 6, 7, 8):  # stored with rows and columns exchanged
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def split_alpha(image: Image.Image) -> tuple[Image.Image, FloatArray | None]:
    """Parts a decoded picture into one without alpha, of the same kind of colour, and its alpha."""
    if not image.has_transparency_data:
        return image, None
    if image.mode.startswith("I"):  # a transparent level, as wide as the pixels
        visible = np.asarray(image) != image.info["transparency"]
        return image, visible.astype(np.float32)
    rgba = image.convert("RGBA")
    grey = image.mode in ("1", "L", "LA")
    alpha = np.divide(np.asarray(rgba.getchannel("A")), 255, dtype=np.float32)
    return rgba.getchannel("R") if grey else rgba.convert("RGB"), alpha


def fill_hidden(pixels: FloatArray, alpha: FloatArray) -> None:
    """Gives pixels of alpha 0 the mean colour of the others, in place."""
    hidden = alpha == 0
    if hidden.any() and not hidden.all():
        pixels[hidden] = np.tensordot(alpha, pixels, 2) / alpha.sum()


def colors(image: Image.Image, profile: bytes | None, name: str | None) -> FloatArray:
    """The sRGB colours of a picture without alpha: float32 [height, width, 3]."""
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return _grey_colors(_grey_values(image), profile, name)
    if image.mode not in ("RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    converted = _apply_profile(image, profile, name) if profile else None
    if converted is None:
        converted = image.convert("RGB")
    return np.divide(np.asarray(converted), 255, dtype=np.float32)


def _grey_colors(values: FloatArray, profile: bytes | None, name: str | None) -> FloatArray:
    """Colours of grey values; the profile acts as a curve, so that 16 bits stay finer than 8."""
    if profile:
        levels = np.arange(256, dtype=np.uint8)
        ramp = _apply_profile(Image.fromarray(levels[None]), profile, name)
        if ramp is not None:
            curve = np.asarray(ramp)[0] / 255.0
            channels = [np.interp(values, levels / 255.0, curve[:, c]) for c in range(3)]
            return np.stack(channels, axis=-1).astype(np.float32)
    return np.repeat(values[..., None], 3, axis=-1)


def _grey_values(image: Image.Image) -> FloatArray:
    """The values of a grey picture of any depth: float32 [height, width] in [0, 1]."""
    if image.mode in ("1", "L"):
        return np.divide(np.asarray(image.convert("L")), 255, dtype=np.float32)
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # a TIFF's; the others have 16 bits
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=1.0, neginf=0.0)
    else:
        bits, signed = tags.get(258, (16,))[0], tags.get(339, (1,))[0] == 2
        values = np.asarray(image)
        if bits == 32 and not signed:
            values = values.view(np.uint32)  # Pillow keeps the bits but calls them signed
        values = (values / (2 ** (bits - signed) - 1)).astype(np.float32)
    values = np.clip(values, 0, 1)
    # Pillow inverts TIFF's white-is-zero only where pixels have at most 8 bits.
    return 1 - values if tags.get(262) == 0 else values


def _apply_profile(image: Image.Image, profile: bytes, name: str | None) -> Image.Image | None:
    """Converts to sRGB by an embedded profile; None, with a warning, where it is of no use."""
    level = logging.WARNING if name is not None else logging.DEBUG
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if image.mode == "L" and space == "RGB":  # common: a grey picture that says sRGB
            image = image.convert("RGB")
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        if space == "GRAY":  # the shortcut for grey is wrong by several levels near black
            flags |= ImageCms.Flags.NOOPTIMIZE
        if space != _PROFILE_SPACES[image.mode]:
            _log.log(
                level,
                "%s: its colour profile is for %s, but the picture is %s; taken as sRGB",
                *(name, space, image.mode),
            )
            return None
        return ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=flags,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        reason = reason_of(error)
        _log.log(level, "%s: its colour profile is broken (%s); taken as sRGB", name, reason)
        return None
