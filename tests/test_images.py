import io
import json
import logging
import os
import stat
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from messages import user_error
from PIL import Image, ImageCms, ImageOps

from jaxstyle import decoders, images
from jaxstyle.errors import UserError

RANDOM = np.random.default_rng(7)
COLORS = RANDOM.integers(0, 256, (11, 17, 3), dtype=np.uint8)
GREYS = RANDOM.integers(0, 256, (11, 17), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (11, 17), dtype=np.uint16)


def write(path: Path, image, **options) -> Path:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


def smooth(height=48, width=64):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x / width, y / height, 0.5 + 0.4 * np.sin(x / 9)], -1).astype(np.float32)


# ------------------------------------------------------------------------------- kinds of pixels


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp", "gif"])
def test_eight_bits_are_read_exactly_from_lossless_formats(tmp_path, suffix):
    image = Image.fromarray(COLORS)
    if suffix == "gif":  # 187 pixels: a palette holds them all
        image = image.quantize(256)
    path = write(
        tmp_path / f"x.{suffix}", image, **({"lossless": True} if suffix == "webp" else {})
    )
    expected = np.asarray(image.convert("RGB")) if suffix == "gif" else COLORS
    pixels, alpha = images.load(path)
    assert alpha is None
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("suffix", ["jpg", "jp2", "avif"])
def test_lossy_formats_are_read(tmp_path, suffix):
    Image.init()
    if f".{suffix}" not in Image.registered_extensions():
        pytest.skip(f"Pillow was built without {suffix}")
    eight_bits = np.rint(smooth() * 255).astype(np.uint8)
    path = write(tmp_path / f"x.{suffix}", eight_bits, quality=95)
    np.testing.assert_allclose(images.load(path).pixels, smooth(), atol=0.04)


def test_the_suffix_is_of_no_matter_to_reading(tmp_path):
    path = write(tmp_path / "x.jpg", COLORS, format="PNG")
    np.testing.assert_allclose(images.load(str(path)).pixels, COLORS / 255, atol=1e-7)


def test_grey_and_one_bit(tmp_path):
    grey = images.load(write(tmp_path / "l.png", GREYS)).pixels
    np.testing.assert_allclose(grey, np.repeat(GREYS[..., None], 3, -1) / 255, atol=1e-7)
    bits = GREYS > 100
    bilevel = images.load(write(tmp_path / "1.png", bits)).pixels
    np.testing.assert_array_equal(bilevel, np.repeat(bits[..., None], 3, -1).astype(np.float32))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_precision(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 17 11 65535\n" + DEEP.astype(">u2").tobytes())
    else:
        write(path, DEEP)
    pixels = images.load(path).pixels
    np.testing.assert_allclose(pixels, np.repeat(DEEP[..., None], 3, -1) / 65535, atol=1e-7)
    assert len(np.unique(pixels)) == len(np.unique(DEEP))


def tiff(values, *, bits, sample_format=1, photometric=1, big_endian=False) -> bytes:
    """A plain TIFF of one channel: Pillow writes only some of the kinds that it reads."""
    order = ">" if big_endian else "<"
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8)]
    entries += [(277, 1), (278, height), (279, len(data)), (339, sample_format)]
    head = (b"MM" if big_endian else b"II") + struct.pack(order + "HI", 42, 8 + len(data))
    table = struct.pack(order + "H", len(entries))
    for tag, value in entries:
        table += struct.pack(order + "HHII", tag, 4, 1, value)
    return head + data + table + struct.pack(order + "I", 0)


RAMP = np.linspace(0, 1, 35).reshape(5, 7)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (np.rint(RAMP * 65535).astype(np.uint16), {"bits": 16, "big_endian": True}),
        (np.rint((1 - RAMP) * 65535).astype(np.uint16), {"bits": 16, "photometric": 0}),
        (np.rint(RAMP * 32767).astype(np.int16), {"bits": 16, "sample_format": 2}),
        (np.rint(RAMP * (2**32 - 1)).astype(np.uint32), {"bits": 32}),
        (np.rint(RAMP * (2**31 - 1)).astype(np.int32), {"bits": 32, "sample_format": 2}),
        (RAMP.astype(np.float32), {"bits": 32, "sample_format": 3}),
        ((1 - RAMP).astype(np.float32), {"bits": 32, "sample_format": 3, "photometric": 0}),
    ],
    ids=["big-endian", "white-is-zero", "int16", "uint32", "int32", "float", "float-white-is-zero"],
)
def test_deep_tiffs(tmp_path, values, options):
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(values, **options))
    np.testing.assert_allclose(images.load(path).pixels[..., 1], RAMP, atol=2e-5)


def test_floats_are_clipped_and_nan_is_black(tmp_path):
    values = np.array([[-1, 0.25, 7, np.nan, np.inf, -np.inf]], np.float32)
    pixels = images.load(write(tmp_path / "x.tif", values)).pixels
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 0.25, 1, 0, 1, 0])


def deep_png(values, color_type: int, transparency: bytes | None = None) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write for colours."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    key = chunk(b"tRNS", transparency) if transparency else b""
    body = chunk(b"IHDR", head) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bit_colours(tmp_path):
    values = RANDOM.integers(0, 65536, (6, 5, 4), dtype=np.uint16)
    path = tmp_path / "x.png"
    path.write_bytes(deep_png(values[..., :3], 2))
    np.testing.assert_allclose(images.load(path).pixels, values[..., :3] / 65535, atol=1 / 255)
    path.write_bytes(deep_png(values, 6))
    picture = images.load(path)
    np.testing.assert_allclose(picture.pixels, values[..., :3] / 65535, atol=1 / 255)
    np.testing.assert_allclose(picture.alpha, values[..., 3] / 65535, atol=1 / 255)
    path.write_bytes(deep_png(values[..., :2], 4))
    picture = images.load(path)
    np.testing.assert_allclose(picture.pixels[..., 2], values[..., 0] / 65535, atol=1 / 255)
    np.testing.assert_allclose(picture.alpha, values[..., 1] / 65535, atol=1 / 255)
    path.write_bytes(deep_png(values[..., :3], 2, transparency=b"\xff\xfe" * 3))
    np.testing.assert_allclose(images.load(path).pixels, values[..., :3] / 65535, atol=1 / 255)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_without_profile(tmp_path, suffix):
    flat = np.empty((16, 64, 4), np.uint8)
    inks = [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 0), (0, 0, 0, 255)]
    for i, ink in enumerate(inks):
        flat[:, 16 * i : 16 * i + 16] = ink
    # Pillow writes CMYK JPEGs as Adobe does, inverted.
    path = write(tmp_path / f"x.{suffix}", Image.frombytes("CMYK", (64, 16), flat.tobytes()))
    pixels = images.load(path).pixels[8, 8::16]
    np.testing.assert_allclose(pixels, [[0, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0]], atol=0.02)


def test_lab(tmp_path):
    lab = np.zeros((4, 4, 3), np.uint8)
    lab[..., 0] = [[0, 85, 170, 255]]
    path = write(tmp_path / "x.tif", Image.frombytes("LAB", (4, 4), lab.tobytes()))
    pixels = images.load(path).pixels
    y = np.array([0, 100 / 3, 200 / 3, 100])
    linear = np.where(y > 8, ((y + 16) / 116) ** 3, y / 903.3)
    np.testing.assert_allclose(pixels[0], np.repeat(srgb(linear)[:, None], 3, 1), atol=0.01)


# -------------------------------------------------------------------------------------- rotation


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.rint(smooth(16, 24) * 255).astype(np.uint8)
    stored[:8, :8] = 255
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    stored = np.clip(stored, 1, 255)  # so that the green that doubles as alpha hides nothing
    rgba = np.dstack([stored, stored[..., 1]]) if suffix in ("png", "webp") else stored
    path = write(tmp_path / f"x.{suffix}", rgba, exif=exif, **options.get(suffix, {}))
    turned = {
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }.get(orientation, stored)
    picture = images.load(path)
    tolerance = 0.03 if suffix == "jpg" else 1e-6
    np.testing.assert_allclose(picture.pixels, turned / 255, atol=tolerance)
    with Image.open(path) as opened:
        opened.load()
        reference = np.asarray(ImageOps.exif_transpose(opened))[..., :3]
    np.testing.assert_allclose(picture.pixels, reference / 255, atol=1e-6)
    if rgba.shape[-1] == 4:
        assert picture.alpha is not None
        np.testing.assert_allclose(picture.alpha, turned[..., 1] / 255, atol=1e-6)


def test_broken_exif_is_ignored_without_a_warning(tmp_path):
    path = write(tmp_path / "x.jpg", COLORS, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage")
    assert images.load(path).pixels.shape == (11, 17, 3)
    assert images.read_metadata(path) == {}


# -------------------------------------------------------------------------------- colour profiles


def srgb(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def icc(space: bytes, pcs: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2 with the given tags."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    table, body, offset = b"", b"", 128 + 4 + 12 * (len(tags) + 2)
    for signature, data in {b"desc": text, b"wtpt": white, **tags}.items():
        data += bytes(-len(data) % 4)
        table += signature + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I", offset + len(body)) + bytes(4) + struct.pack(">I", 0x02200000)
    head += kind + space + pcs + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + struct.pack(">I", len(tags) + 2) + table + body


def grey_profile(gamma: float) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    return icc(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve})


def cmyk_profile() -> bytes:
    """Any of C, M and Y alone is a grey of L* = 60, two are 30; K and three are black."""
    ramp = bytes(range(256))
    grid = b""
    for index in range(16):
        inks = [index >> shift & 1 for shift in (3, 2, 1, 0)]
        lightness = 0 if inks[3] else (100, 60, 30, 0)[sum(inks[:3])]
        grid += bytes([round(lightness * 2.55), 128, 128])
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + grid + 3 * ramp
    return icc(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut})


def swapped_profile() -> bytes:
    """sRGB with the primaries of red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in [(b"rXYZ", b"temp"), (b"bXYZ", b"rXYZ"), (b"temp", b"bXYZ")]:
        profile = profile.replace(old, new)
    return profile


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_rgb_profiles_are_converted(tmp_path, suffix):
    eight_bits = np.rint(smooth() * 255).astype(np.uint8)
    options = {"quality": 95} if suffix in ("jpg", "webp") else {}
    plain = images.load(write(tmp_path / f"plain.{suffix}", eight_bits, **options)).pixels
    path = write(tmp_path / f"x.{suffix}", eight_bits, icc_profile=swapped_profile(), **options)
    np.testing.assert_allclose(images.load(path).pixels, plain[..., ::-1], atol=1.5 / 255)


def test_srgb_profile_changes_nothing_to_speak_of(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write(tmp_path / "x.png", COLORS, icc_profile=profile)
    np.testing.assert_allclose(images.load(path).pixels, COLORS / 255, atol=1.1 / 255)


def test_profiles_keep_alpha_and_serve_palettes(tmp_path):
    image = Image.fromarray(COLORS).quantize(200)
    expected = np.asarray(image.convert("RGB"))[..., ::-1] / 255
    path = write(tmp_path / "p.png", image, icc_profile=swapped_profile())
    np.testing.assert_allclose(images.load(path).pixels, expected, atol=1.1 / 255)
    alpha = np.clip(GREYS, 1, 255)
    path = write(tmp_path / "a.png", np.dstack([COLORS, alpha]), icc_profile=swapped_profile())
    picture = images.load(path)
    np.testing.assert_allclose(picture.pixels, COLORS[..., ::-1] / 255, atol=1.1 / 255)
    np.testing.assert_allclose(picture.alpha, alpha / 255, atol=1e-6)


def test_grey_profiles_are_converted_in_full_depth(tmp_path):
    ramp = np.linspace(0, 65535, 4000).astype(np.uint16)[None]
    path = write(tmp_path / "x.png", ramp, icc_profile=grey_profile(1.8))
    pixels = images.load(path).pixels
    expected = srgb((ramp / 65535) ** 1.8)
    np.testing.assert_allclose(pixels, np.repeat(expected[..., None], 3, -1), atol=1.1 / 255)
    assert len(np.unique(pixels[..., 0])) > 3000
    path = write(tmp_path / "y.png", GREYS, icc_profile=grey_profile(1.0))
    np.testing.assert_allclose(images.load(path).pixels[..., 0], srgb(GREYS / 255), atol=1.1 / 255)


def test_grey_pictures_may_carry_a_colour_profile(tmp_path, caplog):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write(tmp_path / "x.jpg", GREYS, icc_profile=profile, quality=100)
    np.testing.assert_allclose(images.load(path).pixels[..., 0], GREYS / 255, atol=4 / 255)
    assert not caplog.records


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_profiles_are_converted(tmp_path, suffix):
    flat = np.zeros((16, 64, 4), np.uint8)
    flat[:, 16:32, 0] = 255
    flat[:, 32:48, :2] = 255
    flat[:, 48:, 3] = 255
    image = Image.frombytes("CMYK", (64, 16), flat.tobytes())
    pixels = images.load(write(tmp_path / f"x.{suffix}", image, icc_profile=cmyk_profile())).pixels
    expected = srgb(np.array([1, ((60 + 16) / 116) ** 3, ((30 + 16) / 116) ** 3, 0]))
    expected = np.repeat(expected[:, None], 3, 1)
    np.testing.assert_allclose(pixels[8, 8::16], expected, atol=0.02)


@pytest.mark.parametrize(
    "profile", [b"nonsense", b"\0" * 200, grey_profile(2.2), swapped_profile()[:300]]
)
def test_useless_profiles_are_warned_of_and_ignored(tmp_path, caplog, profile):
    path = write(tmp_path / "x.png", COLORS, icc_profile=profile)
    with caplog.at_level(logging.WARNING, "jaxstyle.decoders"):
        pixels = images.load(path).pixels
    np.testing.assert_allclose(pixels, COLORS / 255, atol=1e-6)
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "taken as sRGB" in record.getMessage()


# ------------------------------------------------------------------------------------------ alpha


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_kept_apart_and_what_is_hidden_gets_the_mean(tmp_path, suffix):
    alpha = GREYS.copy()
    alpha[:4] = 0
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = write(tmp_path / f"x.{suffix}", np.dstack([COLORS, alpha]), **options)
    picture = images.load(path)
    np.testing.assert_allclose(picture.alpha, alpha / 255, atol=1e-6)
    seen = alpha > 0
    np.testing.assert_allclose(picture.pixels[seen], COLORS[seen] / 255, atol=1e-6)
    mean = np.average(COLORS[seen] / 255, axis=0, weights=alpha[seen])
    np.testing.assert_allclose(picture.pixels[~seen], np.tile(mean, ((~seen).sum(), 1)), atol=1e-5)


def test_alpha_all_or_nothing(tmp_path):
    opaque = np.full_like(GREYS, 255)
    assert images.load(write(tmp_path / "1.png", np.dstack([COLORS, opaque]))).alpha is None
    picture = images.load(write(tmp_path / "0.png", np.dstack([COLORS, 0 * opaque])))
    assert picture.alpha is not None
    assert picture.alpha.max() == 0
    np.testing.assert_allclose(picture.pixels, COLORS / 255, atol=1e-6)  # nothing better is known


def test_transparency_of_grey_palette_and_key(tmp_path):
    visible = np.clip(GREYS, 1, 255)
    picture = images.load(write(tmp_path / "la.png", np.dstack([GREYS, visible])))
    np.testing.assert_allclose(picture.alpha, visible / 255, atol=1e-6)
    np.testing.assert_allclose(picture.pixels[..., 2], GREYS / 255, atol=1e-6)

    palette = Image.fromarray(GREYS % 3).convert("L")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = write(tmp_path / "p.png", palette, transparency=bytes([255, 128, 1]))
    picture = images.load(path)
    levels = np.array([255, 128, 1])[GREYS % 3] / 255
    np.testing.assert_allclose(picture.alpha, levels, atol=1e-6)
    np.testing.assert_array_equal(picture.pixels, np.eye(3)[GREYS % 3])

    for array, key in [(GREYS, int(GREYS[0, 0])), (DEEP, int(DEEP[0, 0]))]:
        picture = images.load(write(tmp_path / "key.png", array, transparency=key))
        np.testing.assert_array_equal(picture.alpha, (array != key).astype(np.float32))
    key = tuple(int(v) for v in COLORS[2, 3])
    picture = images.load(write(tmp_path / "rgb.png", COLORS, transparency=key))
    np.testing.assert_array_equal(picture.alpha, (key != COLORS).any(-1).astype(np.float32))
    picture = images.load(write(tmp_path / "bits.png", GREYS > 100, transparency=0))
    np.testing.assert_array_equal(picture.alpha, (GREYS > 100).astype(np.float32))


# -------------------------------------------------------------------------------------- animation


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_many_frames(tmp_path, suffix):
    frames = [Image.new("RGB", (20, 10), color) for color in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"x.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    picture = images.load(path)
    expected = np.broadcast_to(np.float32([1, 0, 0]), (10, 20, 3))
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)
    assert picture.alpha is None


def test_transparent_gif(tmp_path):
    image = Image.fromarray(GREYS % 2).convert("P")
    image.putpalette([200, 100, 50, 10, 20, 30])
    picture = images.load(write(tmp_path / "x.gif", image, transparency=0))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, (GREYS % 2).astype(np.float32))
    np.testing.assert_allclose(picture.pixels.reshape(-1, 3).std(0), 0, atol=1e-6)


# ------------------------------------------------------------------------------------- bad files


def bomb(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("width", "height"), [(12000, 10000), (60000, 50000)])
def test_bombs_are_refused_by_their_header(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(width, height))
    message = user_error(images.load, path)
    assert message.startswith(str(path))
    for part in (str(width * height), str(images.MAX_PIXELS), "--max-pixels"):
        assert part in message


def test_the_limit_can_be_moved(tmp_path):
    path = write(tmp_path / "x.png", COLORS)  # 187 pixels
    assert "17 x 11 = 187 pixels" in user_error(images.load, path, max_pixels=186)
    assert "187 pixels" in user_error(images.load, path, max_pixels=10)
    for limit in (187, None):
        assert images.load(path, max_pixels=limit).pixels.shape == (11, 17, 3)


def test_a_limit_above_pillows_own_is_heeded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = write(tmp_path / "x.png", COLORS)
    assert images.load(path, max_pixels=1000).pixels.shape == (11, 17, 3)
    assert images.read_metadata(path) == {}
    assert Image.MAX_IMAGE_PIXELS == 50


def test_reading_in_threads_leaves_global_state_alone(tmp_path):
    path = write(tmp_path / "x.png", COLORS)
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    failures = []

    def read(limit):
        for _ in range(20):
            try:
                images.load(path, max_pixels=limit)
            except UserError as error:
                failures.append((limit, str(error)))

    threads = [threading.Thread(target=read, args=(n,)) for n in (100, 187, 500, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 20
    assert {n for n, _ in failures} == {100}
    assert limit == Image.MAX_IMAGE_PIXELS
    assert filters == list(warnings.filters)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp", "ppm", "jp2"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files(tmp_path, capfd, suffix, share):
    whole = write(tmp_path / f"x.{suffix}", np.rint(smooth() * 255).astype(np.uint8)).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(share * len(whole))])
    message = user_error(images.load, path)
    assert message.startswith(str(path))
    assert "broken" in message
    assert capfd.readouterr().out == ""


def test_broken_files_end_in_a_user_error_or_a_picture(tmp_path):
    random = np.random.default_rng(3)
    for suffix in ("png", "jpg", "webp", "gif", "tif", "bmp"):
        whole = write(tmp_path / f"x.{suffix}", COLORS).read_bytes()
        for _ in range(60):
            spoiled = np.frombuffer(whole, np.uint8).copy()
            where = random.integers(0, len(spoiled), 4)
            spoiled[where] = random.integers(0, 256, 4)
            path = tmp_path / "spoiled"
            path.write_bytes(spoiled.tobytes())
            try:
                pixels = images.load(path, max_pixels=1_000_000).pixels
            except UserError:
                continue
            assert pixels.min() >= 0
            assert pixels.max() <= 1


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"this is no picture\n" * 20, "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "broken"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "convert it"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "convert it"),
        (bomb(0, 0), "pi"),
        (b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\x02\0;", "p"),
        (b"P6 0 4 255\n", "p"),
    ],
    ids=["empty", "text", "head", "eps", "svg", "heic", "0x0-png", "0x0-gif", "0x4-ppm"],
)
@pytest.mark.parametrize("function", [images.load, images.read_metadata])
def test_what_is_no_picture(tmp_path, content, part, function):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    message = user_error(function, path)
    assert message.startswith(str(path))
    assert part in message


@pytest.mark.parametrize("function", [images.load, images.read_metadata, images.list_images])
def test_missing(tmp_path, function):
    path = tmp_path / "none.png"
    assert user_error(function, path).startswith(f"{path}: no such f")
    user_error(function, "null\0character")
    user_error(function, tmp_path / ("x" * 300))


def test_a_folder_is_no_picture(tmp_path):
    assert "is a folder" in user_error(images.load, tmp_path)


def test_messages_are_one_line_whatever_the_name(tmp_path):
    assert "\\n" in user_error(images.load, tmp_path / "two\nlines.png")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_unreadable(tmp_path):
    path = write(tmp_path / "x.png", COLORS)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read anything")
    assert "Permission denied" in user_error(images.load, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
def test_pipes_are_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = write(tmp_path / "x.png", COLORS).read_bytes()
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    pixels = images.load(path).pixels
    writer.join()
    np.testing.assert_allclose(pixels, COLORS / 255, atol=1e-6)


# ---------------------------------------------------------------------------------------- writing


def test_eight_bits_survive_a_round_trip(tmp_path):
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for suffix in ("png", "tif", "PNG"):
        path = tmp_path / f"x.{suffix}"
        images.save(path, every / np.float32(255))
        np.testing.assert_array_equal(np.asarray(Image.open(path)), every)
        again = images.load(path)
        assert again.alpha is None
        np.testing.assert_array_equal(again.pixels, every / np.float32(255))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_put_back(tmp_path, suffix):
    alpha = np.clip(GREYS, 1, 254) / np.float32(255)
    path = tmp_path / f"x.{suffix}"
    images.save(path, smooth(11, 17), alpha=alpha, quality=100)
    picture = images.load(path)
    np.testing.assert_allclose(picture.alpha, alpha, atol=1e-6)
    tolerance = 0.1 if suffix == "webp" else 0.5 / 255 + 1e-6
    np.testing.assert_allclose(picture.pixels, smooth(11, 17), atol=tolerance)


def test_jpeg_has_no_alpha_but_white(tmp_path):
    alpha = np.zeros((32, 32), np.float32)
    alpha[:16] = 1
    alpha[:, 16:] *= 0.5
    pixels = np.tile(np.array([0.2, 0.4, 0.6]), (32, 32, 1))
    images.save(tmp_path / "x.jpg", pixels, alpha=alpha, quality=100)
    loaded = images.load(tmp_path / "x.jpg").pixels
    np.testing.assert_allclose(loaded[4, 4], [0.2, 0.4, 0.6], atol=0.03)
    np.testing.assert_allclose(loaded[4, 28], [0.6, 0.7, 0.8], atol=0.03)
    np.testing.assert_allclose(loaded[28, 4], 1, atol=0.03)


def test_rounding_and_clipping(tmp_path):
    values = np.array([-3, -0.001, 0, 0.49, 0.51, 1.49, 2.5, 254.5, 254.49, 255, 255.3, 999]) / 255
    images.save(tmp_path / "x.png", np.repeat(values[None, :, None], 3, -1))
    stored = np.asarray(Image.open(tmp_path / "x.png"))[0, :, 0]
    assert stored.tolist() == [0, 0, 0, 0, 1, 1, 3, 255, 254, 255, 255, 255]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_quality(tmp_path, suffix):
    pixels = RANDOM.random((64, 64, 3))
    sizes, errors = [], []
    for quality in (20, 95):
        path = tmp_path / f"x.{suffix}"
        images.save(path, pixels, quality=quality)
        sizes.append(path.stat().st_size)
        errors.append(np.abs(images.load(path).pixels - pixels).mean())
    assert sizes[0] < sizes[1]
    assert errors[0] > errors[1]
    for quality in (0, 101):
        with pytest.raises(ValueError, match="quality"):
            images.save(path, pixels, quality=quality)


def test_jpeg_is_written_with_full_colour_resolution(tmp_path):
    images.save(tmp_path / "x.jpg", smooth())
    with Image.open(tmp_path / "x.jpg") as image:
        assert {component[1:3] for component in image.layer} == {(1, 1)}


def test_written_colours_are_srgb_without_a_profile(tmp_path):
    for suffix in ("png", "jpg", "webp", "tif"):
        images.save(tmp_path / f"x.{suffix}", smooth())
        with Image.open(tmp_path / f"x.{suffix}") as image:
            assert "icc_profile" not in image.info
            assert suffix != "png" or image.info["srgb"] == 1


METADATA = {
    "Software": "jaxstyle 0.1.0",
    "content": "Bücher/写真 \U0001f3a8.jpg",
    "style weights": '{"relu1_1": 0.2}',
    "": 'an empty key, "quotes", back\\slash,\r\n lines, \0 and a lone \udcff',
    "empty": "",
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("alpha", [None, GREYS / np.float32(255)])
def test_metadata_comes_back_identically(tmp_path, suffix, alpha):
    path = tmp_path / f"x.{suffix}"
    images.save(path, smooth(11, 17), alpha=alpha, metadata=METADATA)
    assert images.read_metadata(path) == METADATA
    images.save(path, smooth(11, 17), alpha=alpha)
    assert images.read_metadata(path) == {}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_long_metadata(tmp_path, caplog, suffix):
    path = tmp_path / f"x.{suffix}"
    images.save(path, smooth(), metadata={"long": "x" * 59_000})
    assert images.read_metadata(path) == {"long": "x" * 59_000}
    assert not caplog.records
    images.save(path, smooth(), metadata={"long": "x" * 70_000})
    assert images.read_metadata(path) == {}
    assert "left out" in caplog.text


@pytest.mark.parametrize("text", ["a camera's words", "[1, 2]", '{"number": 1}', "{", "3"])
def test_other_peoples_descriptions_are_not_ours(tmp_path, text):
    exif = Image.Exif()
    exif[0x010E] = text
    assert images.read_metadata(write(tmp_path / "x.jpg", COLORS, exif=exif)) == {}


def test_metadata_of_a_huge_picture_is_read_without_decoding(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(bomb(60000, 50000))
    assert images.read_metadata(path) == {}


@pytest.mark.parametrize(
    ("pixels", "part"),
    [
        (np.zeros((4, 4)), "shape"),
        (np.zeros((1, 4, 4, 3)), "shape"),
        (np.zeros((4, 4, 4)), "shape"),
        (np.zeros((0, 4, 3)), "at least one pixel"),
        (np.zeros((4, 4, 3), np.uint8), "uint8"),
        (np.full((4, 4, 3), np.nan), "finite"),
        (np.full((4, 4, 3), np.inf), "finite"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, pixels, part):
    with pytest.raises(ValueError, match=part):
        images.save(tmp_path / "x.png", pixels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alpha", [np.ones((4, 5)), np.ones((4, 4, 1)), np.full((4, 4), np.nan)])
def test_wrong_alphas_are_refused(tmp_path, alpha):
    with pytest.raises(ValueError, match="alpha"):
        images.save(tmp_path / "x.png", np.zeros((4, 4, 3)), alpha=alpha)


def test_bfloat16_and_jax_arrays_are_written(tmp_path):
    import jax.numpy as jnp

    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        images.save(tmp_path / "x.png", jnp.full((4, 4, 3), 0.5, dtype))
        assert np.asarray(Image.open(tmp_path / "x.png")).max() == 128


def test_targets_are_checked_early(tmp_path):
    path = tmp_path / "x.png"
    assert images.check_output_path(str(path)) == path
    assert not path.exists()
    message = user_error(images.check_output_path, tmp_path / "x.xyz")
    assert all(suffix in message for suffix in (".png", ".jpg", ".webp", ".xyz"))
    assert ".png" in user_error(images.check_output_path, tmp_path / "none")
    message = user_error(images.check_output_path, tmp_path / "no" / "x.png")
    assert "does not exist" in message
    (tmp_path / "dir.png").mkdir()
    assert "is a folder" in user_error(images.check_output_path, tmp_path / "dir.png")
    user_error(images.check_output_path, "null\0.png")
    write(path, COLORS)
    message = user_error(images.check_output_path, path / "x.png")
    assert "does not exist" in message
    wide = (10, 20_000)
    assert "16383" in user_error(images.check_output_path, tmp_path / "x.webp", size=wide)
    assert "65500" in user_error(images.check_output_path, tmp_path / "x.jpg", size=(70_000, 9))
    images.check_output_path(path, size=(70_000, 10))
    for name in ("x.xyz", "no/x.png", "dir.png"):
        user_error(images.save, tmp_path / name, smooth())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir.png", "x.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_targets_that_cannot_be_written_to(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    assert "ordinary file" in user_error(images.check_output_path, tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    user_error(images.check_output_path, tmp_path / "loop.png")
    # The superuser may write anywhere: what access says is put in its mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_dir())
    assert "cannot be written to" in user_error(images.check_output_path, tmp_path / "x.png")
    write(tmp_path / "x.png", COLORS)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir())
    assert "write-protected" in user_error(images.check_output_path, tmp_path / "x.png")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure):
    path = tmp_path / "x.png"
    images.save(path, smooth())
    before = path.read_bytes()

    def fail(self, target):
        raise failure

    monkeypatch.setattr(Path, "replace", fail)
    expected = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        images.save(path, 1 - smooth())
    if expected is UserError:
        assert str(path) in str(caught.value)
        assert "No space left" in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    old = os.umask(0o027)
    try:
        images.save(tmp_path / "new.png", smooth())
        assert stat.S_IMODE((tmp_path / "new.png").stat().st_mode) == 0o640
        (tmp_path / "new.png").chmod(0o604)
        images.save(tmp_path / "new.png", smooth())
        assert stat.S_IMODE((tmp_path / "new.png").stat().st_mode) == 0o604
    finally:
        os.umask(old)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_written_through(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to(Path("folder") / "real.png")
    images.save(tmp_path / "link.png", smooth())
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "folder" / "real.png").is_file()


def test_long_names(tmp_path):
    images.save(tmp_path / ("x" * 250 + ".png"), smooth())
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("height", "width", "longer", "expected"),
    [
        (300, 400, 512, (384, 512)),
        (400, 300, 512, (512, 384)),
        (100, 100, 7, (7, 7)),
        (1, 10_000, 100, (1, 100)),
        (10_000, 3, 1, (1, 1)),
        (3, 2, 1, (1, 1)),
        (5, 10, 5, (3, 5)),  # 2.5 is rounded up
        (3, 10, 5, (2, 5)),  # and so is 1.5
    ],
)
def test_fitted_size(height, width, longer, expected):
    assert images.fitted_size(height, width, longer) == expected


@pytest.mark.parametrize("args", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_fitted_size_refuses(args):
    with pytest.raises(ValueError, match="at least 1"):
        images.fitted_size(*args)


def lanczos(size: int, new: int) -> np.ndarray:
    """Lanczos' windowed sinc, a = 3, as a matrix [new, size] in float64."""
    scale = max(size / new, 1)
    centres = (np.arange(new) + 0.5) * size / new
    distance = (np.arange(size) + 0.5 - centres[:, None]) / scale
    weights = np.where(abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [(5, 9), (40, 30), (13, 64), (29, 31)])
def test_resize_against_float64(size):
    pixels = RANDOM.random((23, 31, 3)).astype(np.float32)
    rows, columns = lanczos(23, size[0]), lanczos(31, size[1])
    expected = np.einsum("ih,jw,hwc->ijc", rows, columns, pixels.astype(np.float64)).clip(0, 1)
    resized = images.resize(pixels, size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=2e-6)
    np.testing.assert_allclose(images.resize(pixels[..., 1], size), expected[..., 1], atol=2e-6)


def test_resize_properties():
    pixels = smooth()
    same = images.resize(pixels, pixels.shape[:2])
    np.testing.assert_array_equal(same, pixels)
    assert not np.shares_memory(same, pixels)
    flat = images.resize(np.full((7, 9, 3), 0.3, np.float32), (20, 4))
    np.testing.assert_allclose(flat, 0.3, atol=1e-6)
    edge = np.zeros((8, 8), np.float32)
    edge[:, 4:] = 1
    larger = images.resize(edge, (32, 32))
    assert larger.min() == 0
    assert larger.max() == 1
    for size in ((0, 4), (4, -1)):
        with pytest.raises(ValueError, match="size"):
            images.resize(pixels, size)
    for wrong in (np.zeros(4), np.zeros((0, 4, 3)), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="pixels"):
            images.resize(wrong, (2, 2))


# ----------------------------------------------------------------------------- many, for training


def eight_bits(path: Path, **options) -> np.ndarray:
    """What `decode` makes of a file; it is to be what `load` gives, rounded."""
    decoded = images.decode(path.read_bytes(), name="x", **options)
    assert decoded.dtype == np.uint8
    return decoded


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_decode_turns_as_load_does(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / f"x.{suffix}", COLORS, exif=exif)
    np.testing.assert_array_equal(eight_bits(path), np.rint(images.load(path).pixels * 255))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_decode_converts_colours_as_load_does(tmp_path, mode):
    if mode in ("I;16", "F"):
        image = Image.fromarray(DEEP if mode == "I;16" else np.float32(GREYS / 255))
    else:
        image = Image.fromarray(COLORS).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.where(GREYS > 100, GREYS, 0).astype(np.uint8)))
    suffix = "jpg" if mode == "CMYK" else "tif" if mode == "F" else "png"
    path = write(tmp_path / f"x.{suffix}", image)
    np.testing.assert_allclose(eight_bits(path), images.load(path).pixels * 255, atol=0.501)


def test_decode_applies_profiles(tmp_path, caplog):
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, other, b"none"):  # only the first is of use
        path = write(tmp_path / "x.png", COLORS, icc_profile=profile)
        decoded = eight_bits(path)
        assert not caplog.records
        np.testing.assert_array_equal(decoded, np.rint(images.load(path).pixels * 255))
        assert len(caplog.records) == (profile != srgb)
        caplog.clear()


def test_decode_reduces_jpegs_but_keeps_the_least_side(tmp_path):
    path = write(tmp_path / "x.jpg", np.uint8(smooth(480, 640) * 255), quality=95)
    assert eight_bits(path, least_side=241).shape == (480, 640, 3)
    reduced = eight_bits(path, least_side=120)
    assert reduced.shape == (120, 160, 3)
    expected = images.resize(images.load(path).pixels, (120, 160))
    np.testing.assert_allclose(reduced / 255, expected, atol=0.02)
    cmyk = write(tmp_path / "y.jpg", Image.fromarray(COLORS).convert("CMYK").resize((640, 480)))
    assert eight_bits(cmyk, least_side=100).shape == (120, 160, 3)


def test_decode_refuses_what_load_refuses(tmp_path):
    whole = write(tmp_path / "x.png", COLORS).read_bytes()
    options = {"name": "pic\nture"}
    assert "is empty" in user_error(images.decode, b"", **options)
    assert "not a picture" in user_error(images.decode, b"GIF or not", **options)
    assert "truncated" in user_error(images.decode, whole[:300], **options)
    assert "limit of 100;" in user_error(images.decode, whole, max_pixels=100, **options)
    assert "limit" in user_error(images.decode, bomb(60000, 50000), **options)


def test_crop_is_resize_and_cut():
    pixels = np.uint8(np.rint(smooth(60, 80) * 255))
    np.testing.assert_array_equal(images.crop(pixels, (10, 5, 30, 25), 20), pixels[5:25, 10:30])
    for size in (30, 120):  # as a part of the whole picture at half and at twice its size
        whole = images.resize(pixels / np.float32(255), (size, size * 4 // 3))
        scale = size / 60
        box = (20 / scale, 10 / scale, 36 / scale, 26 / scale)
        part = images.crop(pixels, box, 16)
        assert part.dtype == np.uint8
        np.testing.assert_allclose(part / 255, whole[10:26, 20:36], atol=1.5 / 255)


def test_many_readers_change_the_filters_of_warnings_once(tmp_path):
    path = write(tmp_path / "x.png", COLORS)
    before = list(warnings.filters)
    with decoders.reading():
        inside = list(warnings.filters)
        assert inside != before
        eight_bits(path)
        assert list(warnings.filters) == inside
        with pytest.warns(UserWarning, match="of others"):
            warnings.warn("of others", UserWarning, stacklevel=1)
    assert list(warnings.filters) == before


# ---------------------------------------------------------------------------------------- folders


def test_list_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.webp", ".hidden.png", "notes.txt", "d.TIFF"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "e.png").mkdir()
    found = images.list_images(tmp_path)
    assert [path.name for path in found] == ["a.jpg", "b.PNG", "c.webp", "d.TIFF"]
    assert found == images.list_images(str(tmp_path))
    assert ".png" in user_error(images.list_images, tmp_path / "e.png")
    assert "is not a folder" in user_error(images.list_images, tmp_path / "a.jpg")


def test_importing_brings_no_jax():
    code = "import sys, jaxstyle.images; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metadata_is_plain_json_for_other_programs(tmp_path):
    images.save(tmp_path / "x.png", smooth(), metadata={"a": "ö"})
    images.save(tmp_path / "x.webp", smooth(), metadata={"a": "ö"})
    with Image.open(tmp_path / "x.png") as image:
        assert json.loads(image.text["Description"]) == {"a": "ö"}
    with Image.open(io.BytesIO((tmp_path / "x.webp").read_bytes())) as image:
        assert json.loads(image.getexif()[0x010E]) == {"a": "ö"}


# ------------------------------------------------------------------------------------------ sheets


def test_contact_sheet_lays_out_pictures_with_labels():
    colors = np.random.default_rng(0).random((5, 3), np.float32) * 0.5
    pictures = [np.tile(color, (40 - 8 * i, 100 - 10 * i, 1)) for i, color in enumerate(colors)]
    sheet = images.contact_sheet(pictures, [*"abcd", "e" * 200], columns=2)
    assert sheet.dtype == np.float32
    gap, text = 6, 12
    cell = 40 + 2 * text
    assert sheet.shape == (gap + 3 * (cell + gap), gap + 2 * (100 + gap), 3)
    for index, (picture, color) in enumerate(zip(pictures, colors, strict=True)):
        height, width = picture.shape[:2]
        top = gap + index // 2 * (cell + gap) + 40 - height  # they stand on their labels
        left = gap + index % 2 * (100 + gap) + (100 - width) // 2
        np.testing.assert_array_equal(sheet[top : top + height, left : left + width], picture)
        found = np.all(sheet == color, axis=-1)
        assert found.sum() == height * width
        label = sheet[top + height : top + height + 2 * text, left : left + width]
        assert label.min() < 0.3
    assert (sheet[:gap] == 1).all()
    assert (sheet[:, :gap] == 1).all()
    assert (sheet[:, -gap:] == 1).all()


def test_contact_sheet_is_about_square_by_default():
    sheet = images.contact_sheet([smooth(8, 8)] * 7, ["x"] * 7)
    assert sheet.shape == (6 + 3 * (8 + 24 + 6), 6 + 3 * (60 + 6), 3)  # as wide as labels need
    one = images.contact_sheet([smooth(8, 80)], ["x"], columns=5)
    assert one.shape[1] == 6 + 80 + 6


@pytest.mark.parametrize(
    ("pictures", "labels", "columns"),
    [
        ([], [], None),
        ([np.zeros((2, 2, 3))], ["a", "b"], None),
        ([np.zeros((2, 2, 3))], ["a"], 0),
        ([np.zeros((2, 2))], ["a"], None),
        ([np.full((2, 2, 3), np.nan)], ["a"], None),
    ],
)
def test_contact_sheet_refuses(pictures, labels, columns):
    with pytest.raises(ValueError, match="expected"):
        images.contact_sheet(pictures, labels, columns=columns)
