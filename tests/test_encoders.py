import errno
import io
import sys
import zlib

import numpy as np
import pytest
import tifffile
from messages import user_error
from PIL import Image
from processes import memory_of

from jaxstyle import encoders, images
from jaxstyle.errors import UserError

RANDOM = np.random.default_rng(11)
HEIGHT, WIDTH = 61, 83
COLORS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def smooth(height=HEIGHT, width=WIDTH) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([x / width, y / height, 0.5 + 0.6 * np.sin(x / 9 + y / 5)], -1)
    return (waves + 0.02 * RANDOM.standard_normal(waves.shape)).astype(np.float32)


METADATA = {"Software": "jaxstyle", "content": "写真.jpg", "": '"\\\n\0'}


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("alpha", [None, ALPHA / np.float32(255)], ids=["opaque", "alpha"])
def test_bands_write_the_same_picture(tmp_path, request, suffix, alpha):
    pixels, small, large = smooth(), tmp_path / f"small.{suffix}", tmp_path / f"large.{suffix}"
    images.save(small, pixels, alpha=alpha, metadata=METADATA)
    request.getfixturevalue("small_bands")
    images.save(large, pixels, alpha=alpha, metadata=METADATA)
    assert (small.read_bytes() == large.read_bytes()) == (suffix in ("jpg", "webp"))
    with Image.open(small) as expected, Image.open(large) as image:
        assert image.mode == expected.mode
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
        assert image.info.get("srgb") == expected.info.get("srgb")
        assert "icc_profile" not in image.info
    assert images.read_metadata(large) == METADATA
    images.save(large, pixels)
    assert images.read_metadata(large) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [large.name, small.name]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (255, 257), (256, 256)])
def test_shapes(tmp_path, small_bands, suffix, shape):
    values = RANDOM.integers(0, 256, (*shape, 3), dtype=np.uint8)
    images.save(tmp_path / f"x.{suffix}", values / np.float64(255))
    with Image.open(tmp_path / f"x.{suffix}") as image:
        np.testing.assert_array_equal(np.asarray(image), values)


def paeth(a: int, b: int, c: int) -> int:
    """As in the PNG specification."""
    p = a + b - c
    distances = [abs(p - a), abs(p - b), abs(p - c)]
    return (a, b, c)[distances.index(min(distances))]


def test_png_filters_follow_the_specification():
    rows = RANDOM.integers(0, 256, (40, 3 * 7), dtype=np.uint8)
    rows[0::4] //= 32  # no filter is best
    rows[1::4, 3:] = rows[1::4, :3].repeat(6, 0).reshape(10, -1)  # like the left
    rows[2::4] = rows[1::4]  # like the upper
    above = RANDOM.integers(0, 256, 3 * 7, dtype=np.uint8)
    filtered = encoders._filtered(rows, above, 3)
    upper = np.vstack([above, rows[:-1]]).astype(int)
    used = set()
    for row, up, (number, *residuals) in zip(rows.astype(int), upper, filtered, strict=True):
        left, upper_left = np.r_[0, 0, 0, row[:-3]], np.r_[0, 0, 0, up[:-3]]
        corner = [paeth(*abc) for abc in zip(left, up, upper_left, strict=True)]
        candidates = {0: 0 * row, 1: left, 2: up, 4: np.array(corner)}
        costs = {
            n: np.minimum((row - p) % 256, (p - row) % 256).sum() for n, p in candidates.items()
        }
        assert costs[number] == min(costs.values())
        np.testing.assert_array_equal(residuals, (row - candidates[number]) % 256)
        used.add(int(number))
    assert used >= {0, 1, 2}


def test_all_filters_are_used_and_shrink_the_file():
    band = (smooth(300, 400).clip(0, 1) * 255).astype(np.uint8)
    numbers = encoders._filtered(band.reshape(300, -1), np.zeros(1200, np.uint8), 3)[:, 0]
    assert 4 in numbers
    file = io.BytesIO()
    encoders.write_png(file, band.shape, lambda rows, columns: band[rows, columns])
    assert len(file.getvalue()) < 0.8 * len(zlib.compress(band.tobytes()))


def test_tiffs_over_four_gigabytes_are_bigtiffs(tmp_path, small_bands, monkeypatch):
    path = tmp_path / "x.tif"
    images.save(path, smooth())
    with tifffile.TiffFile(path) as tiff:
        assert not tiff.is_bigtiff
        assert {270, 305}.isdisjoint(tiff.pages[0].tags)  # no description, no software
    monkeypatch.setattr(encoders, "_MAX_CLASSIC_BYTES", 256 * 256 * 3 - 1)
    images.save(path, smooth(), alpha=ALPHA / np.float32(255), metadata=METADATA)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert tiff.pages[0].is_tiled
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image)[..., 3], ALPHA)
    assert images.read_metadata(path) == METADATA
    assert images.load(path, longer_side=20).pixels.shape == (15, 20, 3)


def test_memory_mapped_and_other_floats_are_written(tmp_path, small_bands):
    import jax.numpy as jnp

    pixels = np.memmap(tmp_path / "pixels", np.float32, "w+", shape=(HEIGHT, WIDTH, 3))
    pixels[:] = COLORS / np.float32(255)
    for array in (pixels, pixels.astype(np.float64), jnp.asarray(pixels)):
        images.save(tmp_path / "x.png", array)
        with Image.open(tmp_path / "x.png") as image:
            np.testing.assert_array_equal(np.asarray(image), COLORS)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("what", ["pixels", "alpha"])
def test_what_is_not_finite_leaves_the_old_file(tmp_path, small_bands, suffix, what):
    path = tmp_path / f"x.{suffix}"
    images.save(path, smooth())
    before = path.read_bytes()
    arrays = {"pixels": smooth(), "alpha": np.ones((HEIGHT, WIDTH))}
    arrays[what][-1, -1] = np.nan
    with pytest.raises(ValueError, match=f"{what}: expected finite"):
        images.save(path, arrays["pixels"], alpha=arrays["alpha"])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(tmp_path, small_bands, monkeypatch, suffix, failure):
    path = tmp_path / f"x.{suffix}"
    images.save(path, smooth())
    before = path.read_bytes()
    block, calls = images._written_pixels, []

    def fail(values, opacity, kind, rows, columns):
        calls.append(rows)
        if rows.stop == HEIGHT:
            raise failure
        return block(values, opacity, kind, rows, columns)

    monkeypatch.setattr(images, "_written_pixels", fail)
    expected = UserError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        images.save(path, 1 - smooth())
    assert calls
    if expected is UserError:
        assert f"{path}: not written: No space left; free some space" == str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_formats_keep_their_longest_sides(tmp_path, small_bands):
    long = np.broadcast_to(np.float32(0.5), (1, 16_384, 3))
    assert "at most 16383 pixels a side" in user_error(images.save, tmp_path / "x.webp", long)
    images.save(tmp_path / "x.jpg", long)
    images.save(tmp_path / "x.png", np.broadcast_to(np.float32(0.5), (1, 70_000, 3)))
    assert images.load(tmp_path / "x.png").pixels.shape == (1, 70_000, 3)


def test_small_files_are_what_pillow_writes(tmp_path):
    images.save(tmp_path / "x.png", COLORS / np.float32(255))
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "PNG")
    idat = file.getvalue()[file.getvalue().index(b"IDAT") :]
    assert (tmp_path / "x.png").read_bytes().endswith(idat)


# ------------------------------------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="what the peak counts differs")
def test_memory_of_writing(tmp_path):
    # 24 million pixels: 288 MB in floating point if they were not all one row; 72 MB of 8 bits.
    array = "np.broadcast_to(np.linspace(0, 1, 18_000, dtype=np.float32).reshape(6000, 3), "
    work = f"images.save({str(tmp_path / 'x')!r} + '.%s', {array} (4000, 6000, 3)))"
    assert memory_of(work % "tif") < 60
    assert memory_of(work % "png") < 85
    assert memory_of(work % "jpg") < 96 + 60  # Pillow has 4 bytes a pixel
