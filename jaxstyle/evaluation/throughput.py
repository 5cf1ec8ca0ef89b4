"""Many pictures: how many a second go from disk to disk, and without the disk."""

from __future__ import annotations

import collections
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxstyle import decoders, images
from jaxstyle.errors import UserError, reason_of
from jaxstyle.evaluation.painters import Painter

Record = dict[str, Any]
PathLike = str | os.PathLike[str]
Stopping = Callable[[], bool]

_THREADS = 4  # that read and write files
_AHEAD = 3  # batches that are read before they are painted


def measure(
    painter: Painter,
    photos: Sequence[Path],
    style: str,
    *,
    count: int,
    size: int,
    folder: PathLike,
    batch: int = 4,
    stopping: Stopping = lambda: False,
) -> Record:
    """Paints many pictures, from files to files, and then the same without files.

    Threads read files ahead, cut their middle to a square and write JPEGs of quality 95, while
    batches are painted. What is compiled is compiled before.

    Args:
        painter: the method; one without `batch` paints one by one.
        photos: files, used again from the first where they are fewer than `count`.
        style: the painting's name.
        count: how many pictures.
        size: of the squares, in pixels.
        folder: where a temporary folder is made for the pictures, and removed.
        batch: pictures in a batch.
        stopping: asked between batches.

    Returns:
        `style`, `size`, `batch`, `photos` (how many different ones), `count` (how many were
        written), `disk_s` and `compute_s`, seconds of all of them with files and without.

    Raises:
        KeyboardInterrupt: `stopping` said so.
        UserError: a photograph cannot be read, or a picture not written.
        ValueError: there are no photographs, or nothing to paint.
    """
    if not photos or count < 1 or batch < 1:
        raise ValueError(
            "expected photos, and count and batch of at least 1, "
            f"got {len(photos)}, {count} and {batch}"
        )
    run, batch = (painter.batch, batch) if painter.batch else (_one_by_one(painter), 1)
    rows_of = [min(batch, count - start) for start in range(0, count, batch)]

    def paint(rows: Sequence[np.ndarray]) -> np.ndarray:
        if stopping():
            raise KeyboardInterrupt
        filled = [*rows, *[rows[-1]] * (batch - len(rows))]  # of one shape: compiled once
        return np.asarray(run(np.stack(filled), style))[: len(rows)]

    paths = [photos[index % len(photos)] for index in range(count)]
    held = [_square(path, size) for path in paths[: _AHEAD * batch]]
    paint(held[:batch])
    try:
        with tempfile.TemporaryDirectory(prefix=".throughput-", dir=folder) as made:
            begun = time.perf_counter()
            _through_files(paint, paths, rows_of, size, Path(made))
            disk = time.perf_counter() - begun
            written = len(list(Path(made).iterdir()))
    except OSError as error:
        raise UserError(f"{os.fspath(folder)}: {reason_of(error)}") from error
    begun = time.perf_counter()
    for number, rows in enumerate(rows_of):
        first = number * batch
        paint([held[index % len(held)] for index in range(first, first + rows)])
    compute = time.perf_counter() - begun
    found = {"style": style, "size": size, "batch": batch, "photos": len(set(paths))}
    return found | {"count": written, "disk_s": disk, "compute_s": compute}


def _one_by_one(painter: Painter) -> Callable[[np.ndarray, str], np.ndarray]:
    return lambda photos, style: painter.paint(photos[0], style)[None]


def _through_files(
    paint: Callable[[Sequence[np.ndarray]], np.ndarray],
    paths: Sequence[Path],
    rows_of: Sequence[int],
    size: int,
    folder: Path,
) -> None:
    """Reads, paints and writes; `rows_of` has the number of pictures of each batch."""
    reads: collections.deque[Future[np.ndarray]] = collections.deque()
    writes: collections.deque[Future[None]] = collections.deque()
    waiting, most, number = iter(paths), _AHEAD * max(rows_of), 0
    with decoders.reading(), ThreadPoolExecutor(_THREADS) as pool:
        for rows in rows_of:
            for path in itertools.islice(waiting, most - len(reads)):
                reads.append(pool.submit(_square, path, size))
            for pixels in paint([reads.popleft().result() for _ in range(rows)]):
                target = folder / f"{number:07}.jpg"
                writes.append(pool.submit(images.save, target, pixels, quality=95))
                number += 1
            while len(writes) > most:  # or else pictures pile up where the disk is slow
                writes.popleft().result()
        for write in writes:
            write.result()


def _square(path: Path, size: int) -> np.ndarray:
    """As `pictures.square`, in 8 bits, which large JPEGs are read faster for."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from error
    pixels = images.decode(content, name=str(path), least_side=size)
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    cut = images.crop(pixels, (left, top, left + side, top + side), size)
    return np.divide(cut, 255, dtype=np.float32)
