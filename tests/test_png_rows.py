import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from messages import user_error
from PIL import Image, PngImagePlugin
from processes import memory_of
from test_strips import assert_same, swapped_profile, whole

from jaxstyle import encoders, images
from jaxstyle.encoders import write_chunk

RANDOM = np.random.default_rng(13)
HEIGHT, WIDTH = 61, 83
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
COLORS = RANDOM.integers(0, 256, 768, dtype=np.uint8).tobytes()


@pytest.fixture
def never_whole(small_bands, monkeypatch):
    """Pillow may open files of any size, but decode no more than a band, and a row above it."""
    load = PngImagePlugin.PngImageFile.load

    def refuse(self):
        assert self.height <= 6, "decoded as a whole"
        return load(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", refuse)


def random_lines(color: int, depth: int, filters: str = "01234") -> np.ndarray:
    """Any bytes are rows with their filters, if only the filters' numbers are known ones."""
    size = -(-WIDTH * SAMPLES[color] * depth // 8)
    lines = RANDOM.integers(0, 256, (HEIGHT, 1 + size), dtype=np.uint8)
    lines[:, 0] = RANDOM.choice([int(number) for number in filters], HEIGHT)
    return lines


def write_png(
    path: Path,
    lines: np.ndarray | bytes,
    color: int,
    depth: int,
    *,
    before=(),
    after=(),
    interlaced=0,
    piece=97,
) -> Path:
    """A PNG of filtered rows, whose stream is cut into pieces."""
    stream = zlib.compress(lines)
    with path.open("wb") as file:
        file.write(encoders.PNG_SIGNATURE)
        header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, interlaced)
        pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
        for kind, data in [
            (b"IHDR", header),
            *before,
            *((b"IDAT", part) for part in [b"", *pieces]),
            *after,
            (b"IEND", b""),
        ]:
            write_chunk(file, kind, data)
    return path


KINDS = {
    "bilevel": (GREY, 1, []),
    "grey of 2 bits": (GREY, 2, []),
    "grey of 4 bits": (GREY, 4, []),
    "grey": (GREY, 8, []),
    "deep grey": (GREY, 16, []),
    "RGB": (RGB, 8, []),
    "deep RGB": (RGB, 16, []),
    "grey with alpha": (GREY_ALPHA, 8, []),
    "deep grey with alpha": (GREY_ALPHA, 16, []),
    "RGBA": (RGB_ALPHA, 8, []),
    "deep RGBA": (RGB_ALPHA, 16, []),
    "palette": (PALETTE, 8, [(b"PLTE", COLORS)]),
    "palette of 2 bits": (PALETTE, 2, [(b"PLTE", COLORS[:12])]),
    "palette with alpha": (PALETTE, 4, [(b"PLTE", COLORS[:48]), (b"tRNS", b"\x80\0\xff")]),
    "keyed grey": (GREY, 4, [(b"tRNS", b"\0\7")]),
    "keyed RGB": (RGB, 8, [(b"tRNS", b"\0\1\0\2\0\3")]),
}


@pytest.mark.parametrize("filters", ["01234", "3", "4"])
@pytest.mark.parametrize("kind", KINDS)
def test_pngs_in_strips(tmp_path, request, kind, filters):
    color, depth, before = KINDS[kind]
    lines = random_lines(color, depth, filters)
    path = write_png(tmp_path / "x.png", lines, color, depth, before=before)
    expected = whole(path, 37)
    assert expected.pixels.std() > 0.02
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("form", ["eXIf", "zTXt"])
def test_the_orientation_may_come_after_the_pixels(tmp_path, request, place, form):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()
    if form == "eXIf":
        chunk = (b"eXIf", data.removeprefix(b"Exif\0\0"))
    else:  # as ImageMagick writes it
        text = f"\nexif\n{len(data):8d}\n{data.hex()}\n".encode()
        chunk = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    path = write_png(
        *(tmp_path / "x.png", random_lines(RGB, 8), RGB, 8),
        **{place: [chunk]},
    )
    expected = whole(path, 37)
    assert expected.pixels.shape == (37, 27, 3)
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


@pytest.mark.parametrize("color", [RGB, RGB_ALPHA])
def test_colour_profiles(tmp_path, request, color):
    lines = random_lines(color, 8)
    plain = whole(write_png(tmp_path / "plain.png", lines, color, 8), 37)
    chunk = (b"iCCP", b"swapped\0\0" + zlib.compress(swapped_profile()))
    path = write_png(tmp_path / "x.png", lines, color, 8, before=[chunk])
    expected = whole(path, 37)
    assert np.abs(expected.pixels - plain.pixels).max() > 0.1
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


def test_what_is_written_in_strips_is_read_in_strips(tmp_path, never_whole):
    values = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) / np.float32(255)
    images.save(tmp_path / "x.png", values)
    expected = images.resize(values, images.fitted_size(HEIGHT, WIDTH, 37))
    np.testing.assert_allclose(
        images.load(tmp_path / "x.png", longer_side=37).pixels, expected, atol=1e-6
    )


# --------------------------------------------------------------------------------- what is too much


def test_the_limit_is_for_what_is_returned(tmp_path, never_whole):
    path = write_png(tmp_path / "x.png", random_lines(RGB, 8), RGB, 8)
    assert images.load(path, longer_side=37, max_pixels=37 * 27).pixels.shape == (27, 37, 3)
    message = user_error(images.load, path, longer_side=37, max_pixels=37 * 27 - 1)
    for part in (str(path), "37 x 27", f"--max-pixels {37 * 27}"):
        assert part in message
    assert f"--max-pixels {HEIGHT * WIDTH}" in user_error(images.load, path, max_pixels=100)


def interlaced_png(path: Path) -> Path:
    """Adam7: seven pictures, each of some of the columns and rows."""
    values, lines = RANDOM.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8), b""
    for left, top, right, down in [
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)),
        (0, 1, 1, 2),
    ]:
        part = values[top::down, left::right]
        lines += np.pad(part, ((0, 0), (1, 0))).tobytes()
    write_png(path, lines, GREY, 8, interlaced=1)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), values)
    return path


def animated_png(path: Path) -> Path:
    frames = [Image.fromarray(RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)) for _ in "ab"]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.mark.parametrize(
    ("write", "reason"), [(interlaced_png, "interlaced"), (animated_png, "an animation")]
)
def test_what_cannot_be_read_in_strips(tmp_path, request, write, reason):
    path = write(tmp_path / "x.png")
    expected = whole(path, 37)
    request.getfixturevalue("small_bands")
    assert_same(images.load(path, longer_side=37), expected)
    message = user_error(images.load, path, longer_side=37, max_pixels=1000)
    for part in (str(path), f"cannot be read in strips (it is {reason})", "tiled TIFF"):
        assert part in message


# ------------------------------------------------------------------------------------------- broken


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_pngs(tmp_path, small_bands, share):
    path = write_png(tmp_path / "x.png", random_lines(RGB, 8), RGB, 8)
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    message = user_error(images.load, path, longer_side=37)
    assert str(path) in message
    assert "truncated or broken" in message


def test_without_its_last_chunk_a_picture_is_whole(tmp_path, request):
    path = write_png(tmp_path / "x.png", random_lines(RGB, 8), RGB, 8)
    path.write_bytes(path.read_bytes()[:-12])
    expected = whole(path, 37)
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


def test_a_stream_that_is_too_short_or_has_unknown_filters(tmp_path, never_whole):
    lines = random_lines(RGB, 8)
    path = write_png(tmp_path / "short.png", lines[:-1], RGB, 8)
    assert "it ends in row 60" in user_error(images.load, path, longer_side=37)
    lines[30, 0] = 5
    path = write_png(tmp_path / "x.png", lines, RGB, 8)
    assert "truncated or broken" in user_error(images.load, path, longer_side=37)


def test_broken_pngs_end_in_a_user_error_or_a_picture(tmp_path, small_bands):
    path = write_png(tmp_path / "x.png", random_lines(RGB, 8), RGB, 8)
    content, pictures = path.read_bytes(), 0
    for _ in range(200):
        broken = bytearray(content)
        for place in RANDOM.integers(0, len(content), 3):
            broken[place] = RANDOM.integers(256)
        path.write_bytes(broken)
        try:
            pictures += images.load(path, longer_side=37).pixels.shape == (27, 37, 3)
        except images.UserError as error:
            assert str(path) in str(error)  # noqa: PT017 (either is right)
    assert pictures < 200


# ------------------------------------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="what the peak counts differs")
def test_memory_of_reading(tmp_path):
    # 36 million pixels: 108 MB as they are, 432 MB in floating point, 12 MB of result.
    side, file = 6000, io.BytesIO()
    encoders.write_png(
        file, (side, side, 3), lambda rows, _: np.zeros((rows.stop - rows.start, side, 3), np.uint8)
    )
    path = tmp_path / "x.png"
    path.write_bytes(file.getvalue())
    load = f"assert images.load({str(path)!r}, longer_side=1000).pixels.shape == (1000, 1000, 3)"
    assert memory_of(load) < 12 + 85
