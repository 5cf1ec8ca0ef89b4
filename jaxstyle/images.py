"""Pictures: files to and from float32 arrays [height, width, 3], sRGB in [0, 1].

Reading undoes what files do to pixels: the rotation in EXIF, colour profiles, palettes, CMYK, bit
depths; alpha is kept apart. Writing is whole or not at all, and what made the picture is written
into the file. Written files carry no colour profile: PNG says sRGB with its own one-byte chunk, and
the other formats mean sRGB where they say nothing. Only this module imports PIL.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFile, ImageFont, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from jaxstyle import encoders, strips
from jaxstyle.config import MAX_PIXELS
from jaxstyle.errors import UserError

INPUT_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif"),
    *(".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".qoi"),
)
"""The suffixes by which `list_images` knows a picture (`load` looks at the content instead)."""

OUTPUT_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""The suffixes that `save` writes, and the formats they stand for."""

# Formats that are recognised by their first bytes and decoded by Pillow itself: not those that run
# another program (EPS) or that would take any text for a picture (TGA).
_INPUT_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "QOI"),
)
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
# An EXIF block has to fit into one JPEG segment of 64 KiB.
_MAX_METADATA_BYTES = 60_000
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}

_log = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]
_Kind = TypeVar("_Kind", bound=np.generic)
PathLike = str | os.PathLike[str]


class Picture(NamedTuple):
    """A picture as arrays.

    Attributes:
        pixels: float32 [height, width, 3], sRGB in [0, 1].
        alpha: float32 [height, width] in [0, 1], 1 is opaque; None where all of it is opaque.
    """

    pixels: FloatArray
    alpha: FloatArray | None


# ---------------------------------------------------------------------------------------- reading


def load(
    path: PathLike, *, max_pixels: int | None = MAX_PIXELS, longer_side: int | None = None
) -> Picture:
    """Reads a picture file.

    The content decides the format, not the suffix. The rotation in EXIF is applied; colours are
    converted to sRGB by the embedded profile (relative colorimetric with black point compensation;
    a broken profile is warned of by `logging`, and the colours are taken as sRGB). Of an animation
    or of several pages comes the first. Grey pictures of 16 and 32 bits keep their precision;
    16-bit colours arrive as 8-bit ones, which is what Pillow gives. Floating-point pictures are
    taken as sRGB on the scale from 0 to 1: what lies outside is clipped, and NaN is 0.

    Alpha is not multiplied in. What nobody sees (alpha 0) gets the mean colour of what is seen,
    weighted by alpha, so that hidden colours do not leak into a style.

    With `longer_side`, a picture that is larger comes at that size, as `resize` makes it of the
    whole, but with less memory: there is never a copy of the whole in floating point, and of most
    TIFFs (see `strips.TiffRows`) never a copy of any kind.

    Args:
        path: the file.
        max_pixels: the largest size that is decoded, height times width; None for no limit. It is
            compared with the size in the file's header, before anything is decoded. For a TIFF
            that is shrunk while it is read, what it is shrunk to counts instead.
        longer_side: the length of the longer side of what is returned, at most; None for the size
            of the file. Nothing is enlarged.

    Returns:
        The pixels and the alpha.

    Raises:
        ValueError: `longer_side` is below 1.
        UserError: there is no such file, it is no picture, is broken, truncated, empty or too big.
    """
    name = _name(path)
    if longer_side is None:
        with _opened(path, max_pixels) as image:
            return _picture(image, name)
    if longer_side < 1:
        raise ValueError(f"longer_side: expected at least 1, got {longer_side}")
    with _opened(path, None) as image:  # what the limit stands for is known then
        return _shrunk_picture(image, name, longer_side, max_pixels)


def decode(
    content: bytes, *, name: str, least_side: int = 0, max_pixels: int | None = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decodes the bytes of a picture file to 8 bits, fast: for the many pictures of a training run.

    What `load` does about orientation, colours and depths is done here, too; what is transparent
    has the colours that `load` gives it. Nobody is warned of a broken profile.

    Args:
        content: the whole file.
        name: what error messages call it.
        least_side: where not 0, a JPEG may come at a half, a quarter or an eighth of its size, as
            long as its shorter side keeps at least so many pixels: that saves most of the work.
        max_pixels: as for `load`.

    Returns:
        uint8 [height, width, 3], sRGB.

    Raises:
        UserError: it is no picture, is broken, truncated, empty or too big.
    """
    name = _name(name)
    with _recognized(io.BytesIO(content), name, max_pixels) as image:
        if least_side:
            image.draft(None, (least_side, least_side))
        image.load()
        special = image.mode not in ("RGB", "L") or "icc_profile" in image.info
        if special or image.has_transparency_data:
            return _eight_bits(_picture(image, None).pixels)
        plain = image if image.mode == "RGB" else image.convert("RGB")
        return _oriented(np.asarray(plain), _orientation(image))


def _picture(image: Image.Image, name: str | None) -> Picture:
    """What an opened picture shows; the name is for warnings, None for none of them."""
    image.load()
    # TIFF is turned by Pillow while it loads, and then no longer says that it should be; PNG
    # may carry its EXIF after the pixels.
    orientation = _orientation(image)
    profile = image.info.get("icc_profile")
    opaque, alpha = _split_alpha(image)
    pixels = _colors(opaque, profile, name)
    if alpha is not None:
        _fill_hidden(pixels, alpha)
        alpha = None if alpha.min() == 1 else _oriented(alpha, orientation)
    return Picture(_oriented(pixels, orientation), alpha)


def _shrunk_picture(
    image: Image.Image, name: str, longer_side: int, max_pixels: int | None
) -> Picture:
    """What an opened picture shows, with a longer side of at most a given length."""
    width, height = image.size
    if longer_side >= max(width, height):
        _check_size(image, max_pixels, name)
        return _picture(image, name)
    rows = _tiff_rows(image, name, longer_side, max_pixels)
    if rows is None:
        _check_size(image, max_pixels, name)
        if width * height <= strips.LARGE_PIXELS:
            pixels, alpha = _picture(image, name)
            height, width = pixels.shape[:2]  # which may be turned
            new_size = fitted_size(height, width, longer_side)
            pixels = resize(pixels, new_size)
            return Picture(pixels, None if alpha is None else resize(alpha, new_size))
        image.load()
    size = (image.height, image.width) if rows is None else (rows.height, rows.width)
    pixels, alpha = strips.shrink(
        functools.partial(_band_colors, image, rows, [name]),
        size,
        fitted_size(*size, longer_side),
        resample=_resampled,
        has_alpha=image.has_transparency_data,
    )
    orientation = _orientation(image)
    alpha = None if alpha is None else _oriented(alpha, orientation)
    return Picture(_oriented(pixels, orientation), alpha)


def _tiff_rows(
    image: Image.Image, name: str, longer_side: int, max_pixels: int | None
) -> strips.TiffRows | None:
    """Opens a large TIFF for reading in strips; None for what is to be decoded as a whole."""
    width, height = image.size
    over = max_pixels is not None and width * height > max_pixels
    if image.format != "TIFF" or not (over or width * height > strips.LARGE_PIXELS):
        return None
    try:
        rows = strips.TiffRows(cast(IO[bytes], cast(ImageFile.ImageFile, image).fp))
    except strips.NotInStripsError as error:
        if not over:
            return None
        raise UserError(
            f"{name}: {width} x {height} pixels cannot be read in strips ({error}): convert it to "
            f"a tiled TIFF, or raise the limit with --max-pixels {width * height}"
        ) from error
    new_height, new_width = fitted_size(height, width, longer_side)
    if max_pixels is not None and new_height * new_width > max_pixels:
        raise UserError(
            f"{name}: the picture has {new_width} x {new_height} pixels even when it is shrunk, "
            f"over the limit of {max_pixels}; ask for a smaller size, or raise the limit with "
            f"--max-pixels {new_height * new_width}"
        )
    return rows


def _band_colors(
    image: Image.Image, rows: strips.TiffRows | None, names: list[str]
) -> Iterator[strips.Part]:
    """The colours and the alpha of a picture in bands: of a TIFF's rows, or else of the decoded.

    The name for warnings is taken out of the list: once is enough.
    """
    for band in _decoded_bands(image) if rows is None else _tiff_bands(image, rows):
        setattr(band, "tag_v2", getattr(image, "tag_v2", {}))  # noqa: B010 (for `_grey_values`)
        opaque, alpha = _split_alpha(band)
        name = names.pop() if names else None
        yield _colors(opaque, image.info.get("icc_profile"), name), alpha


def _decoded_bands(image: Image.Image) -> Iterator[Image.Image]:
    for rows in strips.band_slices(image.height, image.width):
        yield image.crop((0, rows.start, image.width, rows.stop))


def _tiff_bands(image: Image.Image, rows: strips.TiffRows) -> Iterator[Image.Image]:
    """Has Pillow unpack the samples as it would have done for the whole picture."""
    arguments: Any = cast(ImageFile.ImageFile, image).tile[0][3]
    layout = re.sub(";16[BL]?$", ";16N", arguments[0])  # 16 bits come in our byte order
    for samples in rows.bands():
        size = samples.shape[1], samples.shape[0]
        yield Image.frombytes(image.mode, size, samples.tobytes(), "raw", layout)


def list_images(folder: PathLike) -> list[Path]:
    """Lists the pictures in a folder, by suffix, sorted by name.

    Hidden files and folders inside it are skipped.

    Raises:
        UserError: it is not a folder, cannot be read, or holds no picture.
    """
    name = _name(folder)
    try:
        entries = sorted(Path(folder).iterdir())
    except FileNotFoundError:
        raise UserError(f"{name}: no such folder; check the path") from None
    except NotADirectoryError:
        raise UserError(f"{name}: is not a folder; give a folder of pictures") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: the folder cannot be read: {_reason(error)}") from error
    found = [
        entry
        for entry in entries
        if entry.suffix.lower() in INPUT_SUFFIXES
        and not entry.name.startswith(".")
        and entry.is_file()
    ]
    if not found:
        raise UserError(f"{name}: holds no picture; looked for {', '.join(INPUT_SUFFIXES)}")
    return found


def read_metadata(path: PathLike) -> dict[str, str]:
    """Reads what `save` wrote into a file as metadata; {} where there is nothing of the kind.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    # Nothing is decoded here, so that no size is too large.
    with _opened(path, None) as image:
        text: Any = None
        if image.format == "PNG":
            text = image.info.get("Description")
        else:
            with contextlib.suppress(Exception):  # a camera's broken EXIF is not the user's error
                text = image.getexif().get(ExifTags.Base.ImageDescription)
    try:
        entries = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}  # somebody else's description
    if not isinstance(entries, dict) or not all(isinstance(v, str) for v in entries.values()):
        return {}
    return entries


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
def _opened(path: PathLike, max_pixels: int | None) -> Iterator[Image.Image]:
    """Opens a picture, its header only; whatever fails until it is closed is a `UserError`."""
    name = _name(path)
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below, apart from these errors)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{name}: is a folder; give a picture file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UserError(f"{name}: cannot be read: {_reason(error)}") from error
    with file, _recognized(file, name, max_pixels) as image:
        yield image


@contextlib.contextmanager
def _recognized(file: IO[bytes], name: str, max_pixels: int | None) -> Iterator[Image.Image]:
    """As `_opened`, for the content of a file."""
    Image.init()
    formats = [kind for kind in _INPUT_FORMATS if kind in Image.OPEN]
    try:
        with _pillow_guard(max_pixels), Image.open(file, formats=formats) as image:
            _check_size(image, max_pixels, name)
            yield image
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
        raise UserError(
            f"{name}: the picture is truncated or broken ({_reason(error)}); "
            "get a whole copy of it, or open and save it in an image editor"
        ) from error


def _check_size(image: Image.Image, max_pixels: int | None, name: str) -> None:
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


def _orientation(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # broken EXIF says nothing
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _oriented(array: NDArray[_Kind], orientation: int) -> NDArray[_Kind]:
    """Turns an array as EXIF's orientation (1 to 8) asks; unknown ones ask for nothing."""
    if orientation in (5, 6, 7, 8):  # stored with rows and columns exchanged
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, FloatArray | None]:
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


def _fill_hidden(pixels: FloatArray, alpha: FloatArray) -> None:
    """Gives pixels of alpha 0 the mean colour of the others, in place."""
    hidden = alpha == 0
    if hidden.any() and not hidden.all():
        pixels[hidden] = np.tensordot(alpha, pixels, 2) / alpha.sum()


def _colors(image: Image.Image, profile: bytes | None, name: str | None) -> FloatArray:
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
        reason = _reason(error)
        _log.log(level, "%s: its colour profile is broken (%s); taken as sRGB", name, reason)
        return None


# ---------------------------------------------------------------------------------------- writing


def check_output_path(path: PathLike, *, size: tuple[int, int] | None = None) -> Path:
    """Checks that a picture can be written to a path, before it is computed.

    Args:
        path: where the picture shall go; an existing file may be replaced.
        size: (height, width) of the picture, where it is known: some formats have a limit.

    Returns:
        The path.

    Raises:
        UserError: the suffix is unknown, the folder is missing or cannot be written to, the target
            is a folder or write-protected, or the picture is too large for the format.
    """
    name, path = _name(path), Path(path)
    if path.suffix.lower() not in OUTPUT_FORMATS:
        known = ", ".join(OUTPUT_FORMATS)
        raise UserError(
            f"{name}: the suffix '{path.suffix}' names no format to write; use one of {known}"
        )
    try:
        target = path.resolve()  # through a link, as writing to it would
        if target.is_dir():
            raise UserError(f"{name}: is a folder; give the name of a file in it")
        if not target.parent.is_dir():
            raise UserError(f"{name}: its folder does not exist; make {_name(path.parent)} first")
        if target.exists() and not target.is_file():
            raise UserError(f"{name}: is not an ordinary file; give another name")
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, impossible names
        raise UserError(
            f"{name}: cannot be written to: {_reason(error)}; give another name"
        ) from error
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UserError(f"{name}: its folder cannot be written to; choose another folder")
    if target.exists() and not os.access(target, os.W_OK):
        raise UserError(f"{name}: is write-protected; choose another name or change its mode")
    kind = OUTPUT_FORMATS[path.suffix.lower()]
    if size is not None and max(size) > _LONGEST_SIDE.get(kind, max(size)):
        raise UserError(
            f"{name}: {kind} holds at most {_LONGEST_SIDE[kind]} pixels a side, but the picture "
            f"has {size[1]} x {size[0]}; write a .png"
        )
    return path


def save(
    path: PathLike,
    pixels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    quality: int = 95,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a picture, 8 bits a channel, in the format that the suffix names.

    The file is written beside its target and renamed: it is whole, or the old one stays. Its
    permissions are those of any new file, or those of the file that it replaces.

    Args:
        path: the target: .png, .jpg, .jpeg, .webp, .tif or .tiff.
        pixels: floating point [height, width, 3], sRGB; clipped to [0, 1] and rounded to the
            nearest level, halves up.
        alpha: floating point [height, width] in [0, 1], or None for opaque. JPEG has no alpha:
            there the picture is laid over white.
        quality: 1 to 100, for JPEG (without colour subsampling) and WebP (lossy); no matter to
            the others, which are lossless.
        metadata: what made the picture, for `read_metadata`: stored as one JSON object, in the
            Description of a PNG and in the EXIF ImageDescription of the others. Above 60,000
            bytes it is left out, with a warning: a picture is worth more than its description.

    Raises:
        ValueError: the arrays have the wrong shape or type or are not finite; or the quality.
        UserError: the file cannot be written (see `check_output_path`), or the disk is full.
    """
    values = _shaped(pixels, "pixels", channels=3)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    height, width = values.shape[:2]
    path = check_output_path(path, size=(height, width))
    kind = OUTPUT_FORMATS[path.suffix.lower()]
    opacity = None if alpha is None else _shaped(alpha, "alpha", channels=None)
    if opacity is not None and opacity.shape != (height, width):
        raise ValueError(f"alpha: expected shape {(height, width)}, got {opacity.shape}")
    block = functools.partial(_written_pixels, values, opacity, kind)
    text = _metadata_text(metadata, path)
    if height * width > strips.LARGE_PIXELS:
        shape = (height, width, 3 if opacity is None or kind == "JPEG" else 4)
        _replace_file(path, lambda file: _write_large(file, kind, shape, block, quality, text))
        return
    encoded = io.BytesIO()
    image = Image.fromarray(block(slice(0, height), slice(0, width)))
    image.save(encoded, format=kind, **_save_options(kind, quality, text))
    _replace_file(path, lambda file: file.write(encoded.getbuffer()))


def _write_large(
    file: IO[bytes],
    kind: str,
    shape: tuple[int, int, int],
    block: encoders.Block,
    quality: int,
    text: str,
) -> None:
    """Encodes a picture whose pixels come by the block, as `save` does small ones in one go."""
    if kind == "PNG":
        encoders.write_png(file, shape, block, description=text)
    elif kind == "TIFF":
        encoders.write_tiff(file, shape, block, description=text)
    else:  # Pillow's encoders take whole pictures only, but of 8 bits
        height, width, channels = shape
        image = Image.new("RGB" if channels == 3 else "RGBA", (width, height))
        for rows in strips.band_slices(height, width):
            image.paste(Image.fromarray(block(rows, slice(0, width))), (0, rows.start))
        image.save(file, format=kind, **_save_options(kind, quality, text))


def _written_pixels(
    values: NDArray[Any], opacity: NDArray[Any] | None, kind: str, rows: slice, columns: slice
) -> NDArray[np.uint8]:
    """Some rows and columns of a picture as a format stores them, its alpha among them."""
    pixels = _finite(values[rows, columns], "pixels")
    if opacity is not None:
        alpha = _finite(opacity[rows, columns], "alpha")[..., None]
        if kind == "JPEG":
            alpha = np.clip(alpha, 0, 1)
            pixels = np.clip(pixels, 0, 1) * alpha + (1 - alpha)
        else:
            pixels = np.concatenate([pixels, alpha], axis=-1)
    return _eight_bits(pixels)


def _checked(array: ArrayLike, what: str, *, channels: int | None) -> FloatArray:
    return _finite(_shaped(array, what, channels=channels), what)


def _shaped(array: ArrayLike, what: str, *, channels: int | None) -> NDArray[Any]:
    values = np.asarray(array)
    expected = "[height, width]" if channels is None else f"[height, width, {channels}]"
    shape = values.shape
    if len(shape) != (2 if channels is None else 3) or (channels and shape[-1] != channels):
        raise ValueError(f"{what}: expected shape {expected}, got {shape}")
    if 0 in shape:
        raise ValueError(f"{what}: expected at least one pixel, got shape {shape}")
    if values.dtype.kind in "biuc":
        raise ValueError(f"{what}: expected floating point in [0, 1], got {values.dtype}")
    return values


def _finite(values: NDArray[Any], what: str) -> FloatArray:
    values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ValueError(f"{what}: expected finite values, got NaN or infinity")
    return values


def _eight_bits(values: FloatArray) -> NDArray[np.uint8]:
    values = np.clip(values, 0, 1)
    values *= 255
    values += 0.5
    return values.astype(np.uint8)  # cuts off what is behind the point


def _metadata_text(metadata: Mapping[str, str] | None, path: Path) -> str:
    """What is written into a file as its description; "" for nothing."""
    text = json.dumps(dict(metadata)) if metadata else ""  # plain ASCII: any key, any value
    if len(text) <= _MAX_METADATA_BYTES:
        return text
    _log.warning(
        "%s: metadata of %d bytes is left out; at most %d fit",
        *(_name(path), len(text), _MAX_METADATA_BYTES),
    )
    return ""


def _save_options(kind: str, quality: int, text: str) -> dict[str, Any]:
    """What Pillow's `save` is told for a format, the description among it."""
    options: dict[str, Any] = {
        "PNG": {},
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }[kind]
    if kind == "PNG":
        chunks = PngInfo()
        chunks.add(b"sRGB", b"\1")  # relative colorimetric
        if text:
            chunks.add_text("Description", text)
        options["pnginfo"] = chunks
    elif text:
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = text
        options["exif"] = exif
    return options


def _replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Puts a new file in its place at once; on any failure, Ctrl-C too, the old one is left."""
    target = path.resolve()
    # Hidden, so that `list_images` never takes it for a picture; short, so that the name fits.
    temporary = target.with_name(f".jaxstyle-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            write(file)
        if target.exists():
            # Some file systems know no modes: the picture matters more.
            with contextlib.suppress(PermissionError):
                shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        advice = "free some space" if error.errno == errno.ENOSPC else "choose another folder"
        raise UserError(f"{_name(path)}: not written: {_reason(error)}; {advice}") from error
    finally:
        temporary.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------ sizes


def fitted_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """The size at which a picture's longer side has a given length, at the same aspect.

    Smaller pictures are enlarged. Each side is rounded to the nearest pixel, halves up, and is at
    least 1.

    Returns:
        (height, width).

    Raises:
        ValueError: an argument is below 1.
    """
    if min(height, width, longer_side) < 1:
        raise ValueError(
            "height, width and longer_side: expected at least 1, "
            f"got {height}, {width} and {longer_side}"
        )
    longest = max(height, width)
    new_height, new_width = (
        max(1, (2 * side * longer_side + longest) // (2 * longest)) for side in (height, width)
    )
    return new_height, new_width


def resize(pixels: ArrayLike, size: tuple[int, int]) -> FloatArray:
    """Resizes a picture, or an alpha, by Lanczos' filter (a = 3) in float32.

    The filter widens as the picture shrinks, so that nothing aliases. It works on sRGB values as
    they are, as image editors do by default.

    Args:
        pixels: floating point [height, width, channels] or [height, width], in [0, 1].
        size: the new (height, width).

    Returns:
        float32 of the new size and as many channels; what the filter overshoots is clipped to
        [0, 1].

    Raises:
        ValueError: the array or the size has the wrong form.
    """
    values = np.asarray(pixels)
    height, width = size
    if values.ndim not in (2, 3) or values.size == 0 or values.dtype.kind in "biuc":
        raise ValueError(
            "pixels: expected floating point [height, width, channels] or [height, width], "
            f"got {values.dtype} of shape {values.shape}"
        )
    if min(height, width) < 1:
        raise ValueError(f"size: expected at least 1 x 1, got {height} x {width}")
    values = np.clip(values.astype(np.float32, copy=False), 0, 1)
    if values.shape[:2] == (height, width):
        return values
    result = _resampled(np.atleast_3d(values), size)
    return np.clip(result if values.ndim == 3 else result[..., 0], 0, 1)


def _resampled(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    """As `resize`, of [height, width, channels], without its clipping."""
    height, width = size
    resized = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(channel)).resize(
                (width, height), Image.Resampling.LANCZOS
            )
        )
        for channel in np.moveaxis(values, -1, 0)
    ]
    return np.stack(resized, axis=-1)


def crop(pixels: NDArray[np.uint8], box: Sequence[float], size: int) -> NDArray[np.uint8]:
    """Cuts out a square and resizes it, by Lanczos' filter, in one go.

    The filter is `resize`'s, in 8 bits, and sees what lies around the square: the result is that of
    resizing the whole picture and cutting then.

    Args:
        pixels: uint8 [height, width, 3].
        box: left, upper, right and lower border within the picture, in pixels, not always whole.
        size: the side of the result.

    Returns:
        uint8 [size, size, 3].
    """
    left, upper, right, lower = box
    image = Image.fromarray(pixels)
    resample = Image.Resampling.LANCZOS
    return np.asarray(image.resize((size, size), resample, box=(left, upper, right, lower)))


# ----------------------------------------------------------------------------------------- sheets


def contact_sheet(
    pictures: Sequence[ArrayLike], labels: Sequence[str], *, columns: int | None = None
) -> FloatArray:
    """Lays pictures out on white, row by row, with a label under each.

    All cells are as large as the largest picture needs; smaller ones are centred.

    Args:
        pictures: floating point [height, width, 3] each, sRGB in [0, 1], of any sizes.
        labels: a line of text for each; what is wider than its cell is cut.
        columns: how many stand in a row; None for about as many as there are rows.

    Returns:
        float32 [height, width, 3].

    Raises:
        ValueError: there are no pictures, not as many labels, or less than one column; or an array
            has the wrong shape or type or is not finite.
    """
    cells = [_checked(picture, "pictures", channels=3) for picture in pictures]
    if not cells or len(cells) != len(labels):
        raise ValueError(f"expected as many labels as pictures, got {len(labels)} and {len(cells)}")
    columns = math.ceil(math.sqrt(len(cells))) if columns is None else min(columns, len(cells))
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    text = min(max(max(cell.shape[1] for cell in cells) // 16, 12), 36)  # height of letters
    gap = text // 2
    width = max(*(cell.shape[1] for cell in cells), 5 * text)
    tallest = max(cell.shape[0] for cell in cells)
    height = tallest + 2 * text
    rows = -(-len(cells) // columns)
    sheet = np.ones((gap + rows * (height + gap), gap + columns * (width + gap), 3), np.float32)
    for index, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        upper, side = top + (tallest - cell.shape[0]), left + (width - cell.shape[1]) // 2
        sheet[upper : upper + cell.shape[0], side : side + cell.shape[1]] = np.clip(cell, 0, 1)
        sheet[top + tallest : top + height, left : left + width] = _label(label, width, text)
    return sheet


def _label(label: str, width: int, size: int) -> FloatArray:
    """A line of text in the middle of white: float32 [2 size, width, 1]."""
    font = ImageFont.load_default(size)
    shown, left = " ".join(label.split()), len(label)
    while font.getlength(shown) > width and left > 0:
        left -= 1
        shown = f"{label[:left]}..."
    image = Image.new("L", (width, 2 * size), 255)
    ImageDraw.Draw(image).text((width / 2, size), shown, fill=0, font=font, anchor="mm")
    return np.divide(np.asarray(image)[..., None], 255, dtype=np.float32)


# ------------------------------------------------------------------------------------ error lines


def _name(path: PathLike) -> str:
    """A path for an error message: one line, whatever is in it."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def _reason(error: Exception) -> str:
    """What an exception says, in one line, without the path (which the message has already)."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
