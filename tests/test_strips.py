import importlib.util
import logging
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from messages import user_error
from PIL import Image, ImageCms
from processes import memory_of

from jaxstyle import decoders, images, strips
from jaxstyle.errors import UserError

RANDOM = np.random.default_rng(11)
HEIGHT, WIDTH = 61, 83
DEEP = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)
COLORS = (DEEP[..., :3] >> 8).astype(np.uint8)
ALPHA = (DEEP[..., 3] >> 8).astype(np.uint8)
ALPHA[10:40, 20:50] = 0


@pytest.fixture
def never_whole(small_bands, monkeypatch):
    """Pillow may open files, but not decode them."""

    def refuse(self):
        raise AssertionError("decoded as a whole")

    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", refuse)


def write_tiff(path: Path, values, **options) -> Path:
    options = {"metadata": None, "software": False} | options
    tifffile.imwrite(path, values, **options)
    return path


def whole(path: Path, longer_side: int) -> images.Picture:
    """The reference: the whole picture, resized. It is read before bands are made small."""
    pixels, alpha = images.load(path)
    size = images.fitted_size(*pixels.shape[:2], longer_side)
    return images.Picture(
        images.resize(pixels, size), None if alpha is None else images.resize(alpha, size)
    )


def assert_same(picture: images.Picture, expected: images.Picture, atol: float = 1e-6):
    assert picture.pixels.shape == expected.pixels.shape
    assert picture.pixels.dtype == np.float32
    assert picture.pixels.flags.c_contiguous
    np.testing.assert_allclose(picture.pixels, expected.pixels, rtol=0, atol=atol)
    assert (picture.alpha is None) == (expected.alpha is None)
    if expected.alpha is not None:
        assert picture.alpha is not None
        assert picture.alpha.dtype == np.float32
        np.testing.assert_allclose(picture.alpha, expected.alpha, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------- shrinking


@pytest.mark.parametrize("rows", [1, 4, 7, 100])
@pytest.mark.parametrize("new_size", [(1, 1), (9, 30), (30, 9), (61, 40), (40, 83), (150, 20)])
def test_bands_give_what_the_whole_gives(rows, new_size):
    pixels = RANDOM.random((HEIGHT, WIDTH, 3), dtype=np.float32)
    shrinker = strips.Shrinker(pixels.shape[:2], new_size, 3, images._resampled)
    for top in range(0, HEIGHT, rows):
        shrinker.add(pixels[top : top + rows])
    expected = images._resampled(pixels, new_size)
    assert expected.min() < 0 or new_size[1] < 40  # what overshoots is not clipped between
    np.testing.assert_allclose(shrinker.result(), expected, rtol=0, atol=2e-7)


def test_missing_rows_are_told():
    shrinker = strips.Shrinker((20, 20), (5, 5), 1, images._resampled)
    shrinker.add(np.zeros((19, 20, 1), np.float32))
    with pytest.raises(ValueError, match="more rows than 19"):
        shrinker.result()


# ------------------------------------------------------------------------------------- reading TIFF

LAYOUTS = {
    "one piece": {},
    "strips": {"rowsperstrip": 3, "compression": "zlib"},
    "predicted strips": {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    "uncompressed tiles": {"tile": (16, 32)},
    "predicted tiles": {"tile": (32, 16), "compression": "zlib", "predictor": True},
    "big-endian tiles": {
        **{"tile": (16, 16), "compression": "zlib", "predictor": True},
        "byteorder": ">",
    },
    "big tiles": {"tile": (48, 32), "bigtiff": True},
    "big-endian piece": {"byteorder": ">"},
}
KINDS = {
    "grey": (COLORS[..., 0], {"photometric": "minisblack"}),
    "white is zero": (COLORS[..., 0], {"photometric": "miniswhite"}),
    "deep grey": (DEEP[..., 0], {"photometric": "minisblack"}),
    "RGB": (COLORS, {"photometric": "rgb"}),
    "deep RGB": (DEEP[..., :3], {"photometric": "rgb"}),
    "RGBA": (np.dstack([COLORS, ALPHA]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "deep RGBA": (DEEP, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "premultiplied": (
        np.dstack([np.minimum(COLORS, ALPHA[..., None]), ALPHA]),
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
    ),
    "RGB and another": (
        np.dstack([COLORS, ALPHA]),
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
    ),
    "CMYK": (np.dstack([COLORS, ALPHA]), {"photometric": "separated"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_tiffs_in_strips(tmp_path, request, layout, kind):
    values, options = KINDS[kind]
    path = write_tiff(tmp_path / "x.tif", values, **options, **LAYOUTS[layout])
    expected = whole(path, 37)
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)
    assert (expected.alpha is not None) == (kind in ("RGBA", "deep RGBA", "premultiplied"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["RGB", "deep RGB", "RGBA", "deep RGBA", "premultiplied"])
def test_channels_that_are_stored_apart(tmp_path, request, layout, kind):
    """Whole and in bands, they are what they are side by side."""
    values, options = KINDS[kind]
    options = options | LAYOUTS[layout]
    side_by_side = write_tiff(tmp_path / "x.tif", values, **options)
    planes = np.moveaxis(values, -1, 0)
    path = write_tiff(tmp_path / "y.tif", planes, planarconfig="separate", **options)
    assert_same(images.load(path), images.load(side_by_side))
    expected = whole(side_by_side, 37)
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if "another" not in kind)])
@pytest.mark.parametrize("tile", [(16, 32), None])
def test_big_endian_files_of_the_large_kind(tmp_path, request, kind, tile):
    """Pillow does not know them."""
    values, options = KINDS[kind]
    options = options | {"tile": tile} if tile else options
    tags = [(274, "H", 1, 6, True)]
    given = {"iccprofile": swapped_profile()} if kind == "RGB" else {}
    given |= options | {"extratags": tags, "description": "a picture"}
    expected = images.load(write_tiff(tmp_path / "x.tif", values, **given))
    path = write_tiff(tmp_path / "y.tif", values, **given, bigtiff=True, byteorder=">")
    assert_same(images.load(path), expected)
    shrunk = whole(path, 37)
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), shrunk)


def test_what_made_a_large_file_is_read_in_any_byte_order(tmp_path):
    path = tmp_path / "x.tif"
    write_tiff(path, COLORS, bigtiff=True, byteorder=">", description='{"jaxstyle": "x"}')
    assert images.read_metadata(path) == {"jaxstyle": "x"}


UNREADABLE = {
    "signed numbers of 8 bits": (COLORS[..., 0].astype(np.int8), {}),
    "signed or floating point": (np.zeros((8, 8, 3), np.float16), {"photometric": "rgb"}),
    "2 channels of 16 bits": (DEEP[..., :2], {"extrasamples": ["unassalpha"]}),
    "neither grey, RGB": (
        DEEP[..., 0],
        {"photometric": "palette", "colormap": np.zeros((3, 65536), np.uint16)},
    ),
    "neither 8 nor 16 bits": (DEEP[..., :3].astype(np.uint32), {"photometric": "rgb"}),
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_tiffs_that_cannot_be_read_say_why(tmp_path, reason):
    values, options = UNREADABLE[reason]
    options = {"photometric": "minisblack", "planarconfig": "contig"} | options
    path = write_tiff(tmp_path / "x.tif", values, **options)
    message = user_error(images.load, path)
    assert message.startswith(f"{path}: this TIFF cannot be read (")
    assert reason in message
    assert "8 or 16 bits, uncompressed or deflated" in message


def test_white_is_zero_in_depth(tmp_path, request):
    path = write_tiff(tmp_path / "x.tif", DEEP[..., 0], photometric="miniswhite", rowsperstrip=9)
    expected = whole(path, 37)
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_orientation(tmp_path, request, orientation, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "tif":
        write_tiff(path, COLORS, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(COLORS).save(path, exif=exif)
    expected = whole(path, 37)
    assert (expected.pixels.shape[0] == 37) == (orientation > 4)
    request.getfixturevalue("never_whole" if suffix == "tif" else "small_bands")
    assert_same(images.load(path, longer_side=37), expected)


def swapped_profile() -> bytes:
    """sRGB with the primaries of red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in [(b"rXYZ", b"temp"), (b"bXYZ", b"rXYZ"), (b"temp", b"bXYZ")]:
        profile = profile.replace(old, new)
    return profile


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "deep RGB"])
def test_colour_profiles(tmp_path, request, kind):
    values, options = KINDS[kind]
    path = write_tiff(tmp_path / "x.tif", values, **options, iccprofile=swapped_profile())
    expected = whole(path, 37)
    plain = whole(write_tiff(tmp_path / "plain.tif", values, **options), 37)
    assert np.abs(expected.pixels - plain.pixels).max() > 0.1
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


@pytest.mark.parametrize("kind", ["RGB", "RGBA"])
def test_a_broken_profile_is_warned_of_once(tmp_path, never_whole, caplog, kind):
    values, options = KINDS[kind]
    path = write_tiff(tmp_path / "x.tif", values, **options, iccprofile=b"nonsense")
    with caplog.at_level(logging.WARNING, "jaxstyle.decoders"):
        images.load(path, longer_side=37)
    (record,) = caplog.records
    assert str(path) in record.getMessage()


@pytest.mark.parametrize(("level", "visible"), [(255, False), (0, True), (128, True)])
def test_alpha_all_or_nothing(tmp_path, request, level, visible):
    values = np.dstack([COLORS, np.full_like(ALPHA, level)])
    path = write_tiff(tmp_path / "x.tif", values, **KINDS["RGBA"][1])
    expected = whole(path, 37)
    assert (expected.alpha is not None) == visible
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected)


def test_sparse_tiles_are_black(tmp_path, never_whole):
    tiles = [np.full((64, 64, 3), 255, np.uint8), None]
    path = write_tiff(
        *(tmp_path / "x.tif", iter(tiles)),
        **{"shape": (64, 128, 3), "dtype": np.uint8, "tile": (64, 64)},
        **{"photometric": "rgb", "compression": "zlib"},
    )
    pixels = images.load(path, longer_side=32).pixels
    assert pixels[:, :12].min() > 0.99
    assert pixels[:, 20:].max() < 0.01


def test_the_first_of_many_pages(tmp_path, never_whole):
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as writer:
        for level in (200, 100):
            writer.write(np.full((64, 64, 3), level, np.uint8), photometric="rgb", metadata=None)
    np.testing.assert_allclose(images.load(path, longer_side=8).pixels, 200 / 255, atol=1e-6)


# --------------------------------------------------------------------------------- what is too much


def test_the_limit_is_for_what_is_returned(tmp_path, never_whole):
    path = write_tiff(tmp_path / "x.tif", COLORS, photometric="rgb", tile=(16, 16))
    assert images.load(path, longer_side=37, max_pixels=37 * 27).pixels.shape == (27, 37, 3)
    message = user_error(images.load, path, longer_side=37, max_pixels=37 * 27 - 1)
    for part in (str(path), "37 x 27", f"--max-pixels {37 * 27}"):
        assert part in message
    assert f"--max-pixels {61 * 83}" in user_error(images.load, path, max_pixels=100)


def test_the_limit_alone_has_small_tiffs_read_in_strips(tmp_path):
    path = write_tiff(tmp_path / "x.tif", COLORS, photometric="rgb", tile=(16, 16))
    assert_same(images.load(path, longer_side=37, max_pixels=1000), whole(path, 37))


UNSUITABLE = {
    "needs the package imagecodecs": {"compression": "tiff_lzw"},
    "too large": {"compression": "zlib", "rowsperstrip": HEIGHT},
}


def write_unsuitable(path: Path, reason: str) -> Path:
    if "imagecodecs" in reason:
        Image.fromarray(COLORS).save(path, compression="tiff_lzw")
        return path
    return write_tiff(path, COLORS, photometric="rgb", **UNSUITABLE[reason])


@pytest.mark.parametrize("reason", UNSUITABLE)
def test_what_cannot_be_read_in_strips(tmp_path, request, monkeypatch, reason):
    path = write_unsuitable(tmp_path / "x.tif", reason)
    expected = whole(path, 37)
    request.getfixturevalue("small_bands")
    monkeypatch.setattr(strips, "_MAX_SEGMENT_BYTES", HEIGHT * WIDTH * 3 - 1)
    # As where imagecodecs is not installed.
    known = type(tifffile.TIFF.DECOMPRESSORS).__contains__
    monkeypatch.setattr(
        type(tifffile.TIFF.DECOMPRESSORS),
        "__contains__",
        lambda self, key: key != 5 and known(self, key),
    )
    assert_same(images.load(path, longer_side=37, max_pixels=HEIGHT * WIDTH), expected)
    message = user_error(images.load, path, longer_side=37, max_pixels=HEIGHT * WIDTH - 1)
    assert message.startswith(f"{path}: 83 x 61 pixels cannot be read in strips (")
    assert reason in message
    assert "a tiled TIFF of 8 or 16 bits, uncompressed or deflated, or raise" in message
    assert message.endswith(f"--max-pixels {HEIGHT * WIDTH}")


@pytest.mark.skipif(not importlib.util.find_spec("imagecodecs"), reason="needs imagecodecs")
@pytest.mark.parametrize(("compression", "atol"), [("lzw", 1e-6), ("jpeg", 2 / 255)])
@pytest.mark.parametrize("tile", [(16, 32), None])
def test_other_compressions_with_imagecodecs(tmp_path, request, compression, atol, tile):
    path = tmp_path / "x.tif"
    options = {"tile": tile} if tile else {"rowsperstrip": 16}
    write_tiff(path, COLORS, photometric="rgb", compression=compression, **options)
    expected = whole(path, 37)
    request.getfixturevalue("never_whole")
    assert_same(images.load(path, longer_side=37), expected, atol)


def test_floating_point_tiffs_are_decoded_whole(tmp_path, request):
    values = RANDOM.random((HEIGHT, WIDTH), dtype=np.float32)
    path = write_tiff(tmp_path / "x.tif", values, photometric="miniswhite")
    expected = whole(path, 37)
    request.getfixturevalue("small_bands")
    assert_same(images.load(path, longer_side=37), expected)
    assert "floating point" in user_error(images.load, path, longer_side=37, max_pixels=2000)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_truncated_tiffs(tmp_path, small_bands, layout, share):
    path = write_tiff(tmp_path / "x.tif", COLORS, photometric="rgb", **LAYOUTS[layout])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for limit in (None, 2000):
        message = user_error(images.load, path, longer_side=37, max_pixels=limit)
        assert message.startswith(f"{path}: ")
        assert "broken" in message


def test_broken_tiffs_end_in_a_user_error_or_a_picture(tmp_path, small_bands, caplog):
    path, random, failed, count = tmp_path / "x.tif", np.random.default_rng(5), 0, 0
    for options in LAYOUTS.values():
        content = write_tiff(path, COLORS, photometric="rgb", **options).read_bytes()
        for _ in range(40):
            spoiled = np.frombuffer(content, np.uint8).copy()
            where = random.integers(8, min(len(spoiled), 600), 3)
            spoiled[where] = random.integers(0, 256, 3)
            path.write_bytes(spoiled.tobytes())
            try:  # the limit keeps Pillow from decoding
                picture = images.load(path, longer_side=37, max_pixels=2000)
                assert picture.pixels.min() >= 0
                assert picture.pixels.max() <= 1
            except UserError:
                failed += 1
            count += 1
    assert 0.1 < failed / count < 0.9
    assert "tifffile" not in {record.name for record in caplog.records}


@pytest.mark.parametrize("length", [3 * 63 * 64, 100_000_000], ids=["short", "bomb"])
def test_strips_that_deflate_to_another_length(tmp_path, never_whole, length):
    strip = zlib.compress(bytes(length), 9)
    path = write_tiff(
        *(tmp_path / "x.tif", iter([strip])),
        **{"shape": (64, 64, 3), "dtype": np.uint8, "rowsperstrip": 64},
        **{"photometric": "rgb", "compression": "zlib"},
    )
    if length < 3 * 64 * 64:
        assert f"strip or tile 0 has {length} bytes" in user_error(images.load, path, longer_side=9)
        return
    tracemalloc.start()
    try:
        assert images.load(path, longer_side=9).pixels.max() == 0
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------ other formats


def palette(image: Image.Image) -> Image.Image:
    return image.quantize(200)


OTHERS = {
    "png": (lambda: Image.fromarray(COLORS), {}),
    "jpg": (lambda: Image.fromarray(COLORS), {"quality": 90}),
    "webp": (lambda: Image.fromarray(np.dstack([COLORS, ALPHA])), {"lossless": True}),
    "gif": (lambda: palette(Image.fromarray(COLORS)), {"transparency": 7}),
    "grey png": (lambda: Image.fromarray(DEEP[..., 0]), {}),
    "keyed png": (lambda: Image.fromarray(DEEP[..., 0]), {"transparency": int(DEEP[3, 4, 0])}),
    "palette png": (lambda: palette(Image.fromarray(COLORS)), {"transparency": bytes(range(200))}),
    "bilevel png": (lambda: Image.fromarray(COLORS[..., 0] > 99), {}),
    "profile png": (lambda: Image.fromarray(COLORS), {"icc_profile": swapped_profile()}),
    "CMYK jpg": (lambda: Image.fromarray(COLORS).convert("CMYK"), {"quality": 90}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_shrunk_in_bands(tmp_path, request, monkeypatch, kind):
    make, options = OTHERS[kind]
    path = tmp_path / f"x.{kind.split()[-1]}"
    make().save(path, **options)
    expected = whole(path, 37)
    request.getfixturevalue("small_bands")
    heights = []
    colors = decoders.colors
    monkeypatch.setattr(
        decoders,
        "colors",
        lambda image, *rest: heights.append(image.height) or colors(image, *rest),
    )
    assert_same(images.load(path, longer_side=37), expected)
    assert max(heights) == 5
    if not kind.endswith("png"):  # which are not decoded whole
        assert "--max-pixels" in user_error(images.load, path, longer_side=37, max_pixels=2000)


def test_nothing_is_enlarged_and_small_pictures_go_the_old_way(tmp_path, monkeypatch):
    monkeypatch.setattr(strips, "shrink", None)
    for suffix in ("png", "tif"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(np.dstack([COLORS, ALPHA])).save(path)
        for size in (37, 82):
            expected = whole(path, size)
            assert_same(images.load(path, longer_side=size), expected, atol=0)
        for size in (83, 84, 10_000):
            assert_same(images.load(path, longer_side=size), images.load(path), atol=0)
        assert "5063 pixels" in user_error(images.load, path, longer_side=83, max_pixels=5062)
        with pytest.raises(ValueError, match="longer_side: expected at least 1, got 0"):
            images.load(path, longer_side=0)


# ------------------------------------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="what the peak counts differs")
def test_memory_of_reading(tmp_path):
    # 36 million pixels: 108 MB as they are, 432 MB in floating point, 12 MB of result.
    path, tile = tmp_path / "x.tif", np.zeros((256, 256, 3), np.uint8)
    shape = {"shape": (6000, 6000, 3), "dtype": np.uint8, "photometric": "rgb", "bigtiff": True}
    write_tiff(path, (tile for _ in range(24**2)), tile=(256, 256), compression="zlib", **shape)
    load = f"assert images.load({str(path)!r}, longer_side=1000).pixels.shape == (1000, 1000, 3)"
    assert memory_of(load.replace("1000)", "1000, max_pixels=2**20)", 1)) < 12 + 85
    # In one piece, and sparse: the file system has not a block of it.
    with path.open("wb") as file:
        write_tiff(file, None, **shape)
    assert memory_of(load) < 12 + 85
