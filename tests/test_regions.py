"""Tests of regions out of masks."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxstyle import images, regions

BLACK, RED, GREEN, BLUE, WHITE = (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)


def stripes(*colors, size=(40, 90)):
    """Upright stripes of equal width, and their labels in the order of the stripes."""
    labels = np.arange(size[1]) * len(colors) // size[1]
    labels = np.broadcast_to(labels, size)
    return np.array(colors, np.float32)[labels], labels


def softened(mask, factor=3):
    """A mask with anti-aliased borders, as if it had been drawn smaller and enlarged."""
    small = images.resize(mask, (mask.shape[0] // factor, mask.shape[1] // factor))
    return images.resize(small, mask.shape[:2])


def as_jpeg(mask, quality):
    file = io.BytesIO()
    pixels = Image.fromarray((mask * 255).round().astype(np.uint8))
    pixels.save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


def test_plain_colors_from_dark_to_light():
    mask, labels = stripes(WHITE, BLUE, BLACK, GREEN, RED)
    found = regions.read(mask)
    np.testing.assert_array_equal(found.colors, [BLACK, BLUE, RED, GREEN, WHITE])
    np.testing.assert_array_equal(found.labels, np.array([4, 1, 0, 3, 2])[labels])
    assert found.labels.dtype == np.uint8


@pytest.mark.parametrize("spoil", [softened, lambda m: as_jpeg(m, 40), lambda m: m * 0.99 + 0.005])
def test_spoilt_masks_have_the_same_regions(spoil):
    mask, labels = stripes(BLUE, BLACK, WHITE, RED)
    found = regions.read(spoil(mask))
    np.testing.assert_allclose(found.colors, [BLACK, BLUE, RED, WHITE], atol=0.03)
    right = found.labels == np.array([1, 0, 3, 2])[labels]
    middle = np.abs(np.arange(90) % 22.5 - 11.25) < 8
    assert right[:, middle].all()
    assert right.mean() > 0.97


def test_a_border_belongs_to_what_lies_beside_it():
    # Between black and white lies the grey of the third region, and nowhere near that.
    mask, labels = stripes(BLACK, WHITE, RED, (0.5, 0.5, 0.5), size=(60, 120))
    found = regions.read(softened(mask))
    assert len(found.colors) == 4
    assert set(found.labels[:, :45].ravel()) == {0, 3}
    sure = np.abs(np.arange(120) % 30 - 14.5) < 12
    np.testing.assert_array_equal(found.labels[:, sure], np.array([0, 3, 1, 2])[labels][:, sure])


def test_slightly_different_values_are_one_color():
    mask, _ = stripes(BLACK, RED)
    mask = np.clip(mask + np.random.default_rng(0).integers(-3, 4, mask.shape) / 255, 0, 1)
    assert len(regions.read(mask.astype(np.float32)).colors) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 400)])
def test_tiny_and_thin_masks(size):
    found = regions.read(np.full((*size, 3), 0.3, np.float32))
    np.testing.assert_allclose(found.colors, [[0.3] * 3], atol=1e-6)
    np.testing.assert_array_equal(found.labels, np.zeros(size))
    mask, labels = stripes(BLACK, WHITE, size=size)
    if size[1] > 1:
        np.testing.assert_array_equal(regions.read(mask).labels, labels)


def test_what_is_no_mask():
    noise = np.random.default_rng(0).random((60, 80, 3), np.float32)
    with pytest.raises(ValueError, match="plain colour"):
        regions.read(noise)
    levels = np.stack(np.meshgrid(*[np.linspace(0, 1, 4)] * 3), -1).reshape(-1, 3)
    many, _ = stripes(*levels, size=(8, 640))
    with pytest.raises(ValueError, match="expected at most 32"):
        regions.read(many)
    mostly = noise.copy()
    mostly[:, :68] = BLACK
    with pytest.raises(ValueError, match=r"1\d% of it has none of its 1 main colours"):
        regions.read(mostly)
    mostly[:, :76] = BLACK
    assert len(regions.read(mostly).colors) == 1


def test_grey_masks_are_shares():
    for count in (50, 300):
        ramp = np.linspace(0, 1, count, dtype=np.float32)[None, :, None]
        ramp = np.broadcast_to(ramp, (20, count, 3))
        np.testing.assert_allclose(regions.read_between(ramp), ramp[..., 0], atol=1e-6)
    two, labels = stripes((0.25,) * 3, (0.75,) * 3)
    np.testing.assert_allclose(regions.read_between(two), labels, atol=1e-6)
    levels, _ = stripes((0.2,) * 3, (0.5,) * 3, (0.9,) * 3)
    np.testing.assert_allclose(regions.read_between(levels), levels[..., 0], atol=1e-6)
    assert regions.read_between(np.full((9, 9, 3), 0.4, np.float32)) is None
    assert regions.read_between(stripes(BLACK, WHITE, BLUE)[0]) is None


def test_colors_of_two_masks_are_matched():
    ours = np.array([BLACK, BLUE, RED, WHITE], np.float32)
    theirs = np.array([(0.03, 0, 0.05), (0.1, 0.9, 0.1), (0.95, 0.05, 0)], np.float32)
    assert regions.match(ours, theirs) == [0, None, 2, None]
    # A second colour near to one of theirs does not get it, too.
    assert regions.match(np.array([RED, (0.85, 0.1, 0)], np.float32), theirs) == [0 + 2, None]


@pytest.mark.parametrize("size", [(40, 90), (7, 31), (80, 200), (1, 1), (13, 90)])
def test_masks_of_any_size_sum_to_one(size):
    mask, labels = stripes(BLACK, RED, WHITE)
    found = regions.read(mask)
    masks = regions.masks_of(found.labels, 3, size)
    assert masks.shape == (*size, 3)
    assert masks.dtype == np.float32
    np.testing.assert_allclose(masks.sum(-1), 1, atol=1e-6)
    shares = [(labels == region).mean() for region in range(3)]
    np.testing.assert_allclose(masks.mean((0, 1)), shares, atol=1e-6)


def test_resizing_averages_over_areas():
    values = np.random.default_rng(0).random((6, 8))
    halves = values.reshape(3, 2, 4, 2).mean((1, 3))
    np.testing.assert_allclose(regions.resize(values, (3, 4)), halves, atol=1e-6)
    twice = values.repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(regions.resize(values, (12, 16)), twice, atol=1e-6)
    row = np.array([[0.0, 1.0, 0.0]])
    np.testing.assert_allclose(regions.resize(row, (1, 2)), [[1 / 3, 1 / 3]], atol=1e-6)


def test_proportions_and_names():
    assert regions.fits((525, 700), (480, 640))
    assert regions.fits((400, 700), (437, 700))
    assert regions.fits((5, 7), (6, 9))
    assert not regions.fits((468, 700), (700, 437))
    assert not regions.fits((400, 700), (500, 700))
    assert regions.name(np.array([1, 0.5, 0], np.float32)) == "#ff8000"


def test_masked_pairs_of_the_data(data):
    for path in sorted((data / "local").glob("*_content_mask.png")):
        other = path.with_name(path.name.replace("content", "style"))
        found, theirs = (regions.read(images.load(mask).pixels) for mask in (path, other))
        places = regions.match(found.colors, theirs.colors)
        assert None not in places, path
        corners = found.colors.round()
        spoilt = regions.read(as_jpeg(images.load(path).pixels, 20))
        np.testing.assert_allclose(spoilt.colors, found.colors, atol=0.05)
        np.testing.assert_allclose(found.colors, corners, atol=0.02)
        assert len({tuple(color) for color in corners}) == len(corners)
