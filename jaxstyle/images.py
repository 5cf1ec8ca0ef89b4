"""Pictures: files to and from float32 arrays [height, width, 3], sRGB in [0, 1].

Reading undoes what files do to pixels: the rotation in EXIF, colour profiles, palettes, CMYK, bit
depths; alpha is kept apart. Writing is whole or not at all, and what made the picture is written
into the file. Written files carry no colour profile: PNG says sRGB with its own one-byte chunk, and
the other formats mean sRGB where they say nothing. Only this module and `decoders` import PIL.
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
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from jaxstyle import decoders, encoders, strips
from jaxstyle.config import MAX_PIXELS
from jaxstyle.decoders import FloatArray, PathLike
from jaxstyle.errors import UserError, printable, reason_of
from jaxstyle.png_rows import PngRows

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

_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
# An EXIF block has to fit into one JPEG segment of 64 KiB.
_MAX_METADATA_BYTES = 60_000

_log = logging.getLogger(__name__)


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
    TIFFs and PNGs (see `strips.TiffRows`, `png_rows.PngRows`) never a copy of any kind.

    Args:
        path: the file.
        max_pixels: the largest size that is decoded, height times width; None for no limit. It is
            compared with the size in the file's header, before anything is decoded. For a TIFF or
            PNG that is shrunk while it is read, what it is shrunk to counts instead.
        longer_side: the length of the longer side of what is returned, at most; None for the size
            of the file. Nothing is enlarged.

    Returns:
        The pixels and the alpha.

    Raises:
        ValueError: `longer_side` is below 1.
        UserError: there is no such file, it is no picture, is broken, truncated, empty or too big.
    """
    name = printable(path)
    if longer_side is None:
        with decoders.opened(path, max_pixels) as image:
            return _picture(image, name)
    if longer_side < 1:
        raise ValueError(f"longer_side: expected at least 1, got {longer_side}")
    with decoders.opened(path, None) as image:  # what the limit stands for is known then
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
    name = printable(name)
    with decoders.recognized(io.BytesIO(content), name, max_pixels) as image:
        if least_side:
            image.draft(None, (least_side, least_side))
        image.load()
        special = image.mode not in ("RGB", "L") or "icc_profile" in image.info
        if special or image.has_transparency_data:
            return _eight_bits(_picture(image, None).pixels)
        plain = image if image.mode == "RGB" else image.convert("RGB")
        return decoders.oriented(np.asarray(plain), decoders.orientation_of(image))


def _picture(image: Image.Image, name: str | None) -> Picture:
    """What an opened picture shows; the name is for warnings, None for none of them."""
    image.load()
    # TIFF is turned by Pillow while it loads, and then no longer says that it should be; PNG
    # may carry its EXIF after the pixels.
    orientation = decoders.orientation_of(image)
    profile = image.info.get("icc_profile")
    opaque, alpha = decoders.split_alpha(image)
    pixels = decoders.colors(opaque, profile, name)
    if alpha is not None:
        decoders.fill_hidden(pixels, alpha)
        alpha = None if alpha.min() == 1 else decoders.oriented(alpha, orientation)
    return Picture(decoders.oriented(pixels, orientation), alpha)


def _shrunk_picture(
    image: Image.Image, name: str, longer_side: int, max_pixels: int | None
) -> Picture:
    """What an opened picture shows, with a longer side of at most a given length."""
    width, height = image.size
    if longer_side >= max(width, height):
        decoders.check_size(image, max_pixels, name)
        return _picture(image, name)
    rows = _rows_in_file(image, name, longer_side, max_pixels)
    if rows is None:
        decoders.check_size(image, max_pixels, name)
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
    described = rows.described() if isinstance(rows, PngRows) else image
    orientation = decoders.orientation_of(described)
    alpha = None if alpha is None else decoders.oriented(alpha, orientation)
    return Picture(decoders.oriented(pixels, orientation), alpha)


def _rows_in_file(
    image: Image.Image, name: str, longer_side: int, max_pixels: int | None
) -> decoders.Rows | None:
    """The rows of a large file that can be read in strips; None: it is to be decoded whole."""
    width, height = image.size
    over = max_pixels is not None and width * height > max_pixels
    if not (over or width * height > strips.LARGE_PIXELS):
        return None
    try:
        rows = decoders.rows_in(image)
    except strips.NotInStripsError as error:
        if not over:
            return None
        raise UserError(
            f"{name}: {width} x {height} pixels cannot be read in strips ({error}): convert it to "
            "a tiled TIFF of 8 or 16 bits, uncompressed or deflated, or raise the limit with "
            f"--max-pixels {width * height}"
        ) from error
    new_height, new_width = fitted_size(height, width, longer_side)
    if rows is not None and max_pixels is not None and new_height * new_width > max_pixels:
        raise UserError(
            f"{name}: the picture has {new_width} x {new_height} pixels even when it is shrunk, "
            f"over the limit of {max_pixels}; ask for a smaller size, or raise the limit with "
            f"--max-pixels {new_height * new_width}"
        )
    return rows


def _band_colors(
    image: Image.Image, rows: decoders.Rows | None, names: list[str]
) -> Iterator[strips.Part]:
    """The colours and the alpha of a picture in bands.

    The name for warnings is taken out of the list: once is enough.
    """
    for band in decoders.bands_of(image, rows):
        setattr(band, "tag_v2", getattr(image, "tag_v2", {}))  # noqa: B010 (for `decoders`)
        opaque, alpha = decoders.split_alpha(band)
        name = names.pop() if names else None
        yield decoders.colors(opaque, image.info.get("icc_profile"), name), alpha


def list_images(folder: PathLike) -> list[Path]:
    """Lists the pictures in a folder, by suffix, sorted by name.

    Hidden files and folders inside it are skipped.

    Raises:
        UserError: it is not a folder, cannot be read, or holds no picture.
    """
    name = printable(folder)
    try:
        entries = sorted(Path(folder).iterdir())
    except FileNotFoundError:
        raise UserError(f"{name}: no such folder; check the path") from None
    except NotADirectoryError:
        raise UserError(f"{name}: is not a folder; give a folder of pictures") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: the folder cannot be read: {reason_of(error)}") from error
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
    with decoders.opened(path, None) as image:
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
    name, path = printable(path), Path(path)
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
            folder = printable(path.parent)
            raise UserError(f"{name}: its folder does not exist; make {folder} first")
        if target.exists() and not target.is_file():
            raise UserError(f"{name}: is not an ordinary file; give another name")
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, impossible names
        raise UserError(
            f"{name}: cannot be written to: {reason_of(error)}; give another name"
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
        *(printable(path), len(text), _MAX_METADATA_BYTES),
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
        raise UserError(f"{printable(path)}: not written: {reason_of(error)}; {advice}") from error
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
