"""The pictures of an evaluation: photographs and paintings that are read, and what is made of them.

What a method has painted is kept as PNG below the folder of the evaluation, so that an evaluation
goes on where it was stopped; figures are those of the pictures as they were saved, with 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxstyle import images
from jaxstyle.errors import UserError
from jaxstyle.evaluation.painters import Painter


class Pair(NamedTuple):
    """A photograph and a painting, by name."""

    photo: str
    style: str


def square(path: Path, side: int) -> np.ndarray:
    """The middle of a picture, float32 `[side, side, 3]` in [0, 1]."""
    return images.resize(middle(images.load(path).pixels), (side, side))


def read(folder: str, side: int, *, limit: int = 0) -> dict[str, np.ndarray]:
    """The squares of the pictures of a folder, by the stems of their names.

    Args:
        folder: where they lie.
        side: of the squares.
        limit: how many, the first ones; 0 for all.

    Raises:
        UserError: there is no such folder, nothing in it, two pictures whose names differ only in
            their endings, or a picture that cannot be read.
    """
    paths: dict[str, Path] = {}
    for path in images.list_images(Path(folder)):
        if path.stem in paths:
            raise UserError(
                f"{path} and {paths[path.stem].name} would be one row: give them different names"
            )
        paths[path.stem] = path
    if not paths:
        raise UserError(f"{folder} has no pictures")
    return {stem: square(path, side) for stem, path in list(paths.items())[: limit or None]}


def paint(
    painter: Painter,
    folder: Path,
    photos: Mapping[str, np.ndarray],
    pairs: Iterable[Pair],
    *,
    done: Callable[[int, int], None],
) -> Iterator[tuple[Pair, np.ndarray]]:
    """The pictures of a method, those that are not there yet painted and kept.

    Args:
        painter: the method.
        folder: where its pictures are kept: `STYLE/PHOTO.png`.
        photos: by name.
        pairs: what to paint; those of styles that it does not know are left out.
        done: told how many pictures are there, and how many are wanted.

    Raises:
        UserError: a picture has values that are not finite, or cannot be written.
    """
    wanted = [pair for pair in pairs if pair.style in painter.styles]
    for number, pair in enumerate(wanted, 1):
        path = path_of(folder, pair)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = painter.paint(photos[pair.photo], pair.style)
            if not np.isfinite(made).all():
                raise UserError(f"its picture of {pair.photo} in {pair.style} has no finite values")
            images.save(path, made)
        done(number, len(wanted))
        yield pair, images.load(path).pixels


def path_of(folder: Path, pair: Pair) -> Path:
    """Where the picture of a pair lies."""
    return folder / pair.style / f"{pair.photo}.png"


def square_labels(path: Path, *, like: Path) -> np.ndarray:
    """The middle of a segmentation, `[side, side]`: a number for each of its values or colours.

    Args:
        path: of the segmentation.
        like: the picture that it is of.

    Raises:
        UserError: a file cannot be read, or the two are not of one shape.
    """
    pixels = images.load(path).pixels
    height, width = pixels.shape[:2]
    wanted = images.load(like).pixels.shape[:2]
    # One may be larger than the other; that rounds a side by a pixel.
    if abs(height * wanted[1] - width * wanted[0]) > max(height, width, *wanted):
        raise UserError(
            f"{path} is {width} x {height} and {like} {wanted[1]} x {wanted[0]}: expected a "
            "segmentation of the whole picture"
        )
    _, numbers = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    return middle(numbers.reshape(height, width))


def middle(pixels: np.ndarray) -> np.ndarray:
    """The largest square in the middle of `[height, width, ...]`."""
    height, width = pixels.shape[:2]
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    return pixels[top : top + least, left : left + least]
