"""Batches of pictures for training: random crops, made ahead of the step by threads.

Which picture a row of a batch shows, and how it is cropped, scaled and mirrored, is a function of
the seed, the step and the row alone. So a run resumes at any step without the state of an iterator,
and several processes make the parts of one and the same batch.
"""

from __future__ import annotations

import collections
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from jaxstyle import decoders, images
from jaxstyle.errors import UserError
from jaxstyle.training.config import TrainConfig
from jaxstyle.training.sources import Pixels, Source, UnreadableImage, open_source

Warn = Callable[[str], object]

# What a batch may hold: photographs, and paintings where the configuration names some.
KINDS = ("content", "style")

_log = logging.getLogger(__name__)

# Decoded pictures that are kept, in bytes a source: enough for all of a small one.
_KEPT_BYTES = 512 * 2**20
# So many unreadable pictures without a readable one between them, and something else is wrong.
_UNREADABLE_IN_A_ROW = 100
_WARNINGS = 10
# Random numbers of their own for the crops and for the order of each kind of picture.
_CROPS = {"content": 0, "style": 1}
_ORDERS = {"content": 2, "style": 3}


# ---------------------------------------------------------------------------------------- reading


class _Reader:
    """Reads pictures of a source, takes others in place of unreadable ones, and keeps some.

    Attributes:
        unreadable: numbers of the pictures that could not be read.
        news: lines about them that nobody has been told yet.
    """

    def __init__(self, source: Source, spec: str) -> None:
        self.source = source
        self.unreadable: set[int] = set()
        self.news: collections.deque[str] = collections.deque()
        self._spec = spec
        self._in_a_row = 0
        self._failure = f"{spec}: none of its pictures can be read; check the files"
        self._kept: dict[int, Pixels] = {}
        self._room = _KEPT_BYTES
        self._lock = threading.Lock()

    def first_readable(self, candidates: Iterable[int]) -> Pixels:
        """The first of the candidates that can be read: the same one in every run.

        Raises:
            UserError: there is none, or too many failed one after another.
        """
        for index in candidates:
            if index in self._kept:
                self._in_a_row = 0
                return self._kept[index]
            if index in self.unreadable:
                continue
            try:
                pixels = self.source[index]
            except UnreadableImage as error:
                self._note(index, str(error))
            else:
                self._keep(index, pixels)
                return pixels
        with self._lock:  # another thread may be about to say what is wrong
            raise UserError(self._failure)

    def _keep(self, index: int, pixels: Pixels) -> None:
        with self._lock:
            self._in_a_row = 0
            if pixels.nbytes <= self._room and index not in self._kept:
                self._room -= pixels.nbytes
                self._kept[index] = pixels

    def _note(self, index: int, reason: str) -> None:
        with self._lock:
            if index in self.unreadable:  # another thread was first
                return
            self.unreadable.add(index)
            self.news.append(reason)
            self._in_a_row += 1
            if self._in_a_row >= min(len(self.source), _UNREADABLE_IN_A_ROW):
                self._failure = (
                    f"{self._spec}: nothing but unreadable pictures, {self._in_a_row} in a row; "
                    f"the last one is {reason}; check the files"
                )
                raise UserError(self._failure)


class _Crops:
    """The random crops of a source, by number."""

    def __init__(self, reader: _Reader, config: TrainConfig, kind: str) -> None:
        self._reader, self._config, self._kind = reader, config, kind

    def __call__(self, number: int) -> Pixels:
        """Crop `number`: uint8 [crop_size, crop_size, 3]."""
        size, data = self._config.crop_size, self._config.data
        draw = _generator(self._config.seed, _CROPS[self._kind], number)
        scale, x, y, mirror = draw.random(4)
        pixels = self._reader.first_readable(self._candidates(number, draw))
        height, width = pixels.shape[:2]
        # The shorter side of the picture becomes crop_size times this; the square that is cut out
        # of the picture as it is has the inverse part of that side.
        scale = data.min_scale * (data.max_scale / data.min_scale) ** scale
        side = min(height, width) / scale
        left, upper = x * (width - side), y * (height - side)
        result = images.crop(pixels, (left, upper, left + side, upper + side), size)
        return result[:, ::-1] if data.flip and mirror < 0.5 else result

    def _candidates(self, number: int, draw: np.random.Generator) -> Iterator[int]:
        """The picture whose turn it is, and those to take where it is unreadable."""
        total = len(self._reader.source)
        epoch, position = divmod(number, total)
        yield int(_order(self._config.seed, _ORDERS[self._kind], epoch, total)[position])
        # At random, as unreadable ones may lie together; one after the other where most of few are.
        for _ in range(_UNREADABLE_IN_A_ROW):
            yield int(draw.integers(total))
        yield from range(total)


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, number))
    return np.random.Generator(np.random.Philox(sequence))


@functools.lru_cache(maxsize=4)
def _order(seed: int, stream: int, epoch: int, total: int) -> NDArray[np.int64]:
    """The order of the pictures in an epoch."""
    return _generator(seed, stream, epoch).permutation(total)


# ---------------------------------------------------------------------------------------- batches


class Batches:
    """An endless iterator over the batches of a run, made ahead of the step by threads.

    Each batch is a dict: `content`, uint8 [rows, crop_size, crop_size, 3], sRGB; and `style` of the
    same form, where the configuration names paintings. All pictures come once an epoch, in an order
    of its own; where fewer are left than a batch takes, the next epoch begins inside the batch.

    With several processes, each makes its part of the batch: the parts in the order of the
    processes are the batch of one process.

    Attributes:
        waited: seconds that `next` has waited for pictures, in total.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        start_step: int = 0,
        kinds: Collection[str] = KINDS,
        process_index: int = 0,
        process_count: int = 1,
        warn: Warn = _log.warning,
    ) -> None:
        """Opens the sources and starts on the first batches.

        Args:
            config: the run.
            start_step: the step that the first batch is for.
            kinds: of pictures to read; others are left out, whatever the configuration names.
            process_index: which process this is.
            process_count: of how many.
            warn: called by `next` with a line about each unreadable picture, the first few of them.

        Raises:
            UserError: there are no pictures where the configuration says.
            ValueError: the batch cannot be divided among the processes.
        """
        self.waited = 0.0
        self._warn, self._warned = warn, 0
        self._size = config.crop_size
        self._step = start_step
        self._readers: list[_Reader] = []
        # For each kind of picture: its crops, rows in the whole batch, and this process's rows.
        self._plan: dict[str, tuple[_Crops, int, range]] = {}
        for kind, (setting, rows) in _kinds(config, kinds).items():
            part = _slice(rows, process_index, process_count)
            self._readers.append(_open(config, setting))
            self._plan[kind] = _Crops(self._readers[-1], config, kind), rows, part
        self._quiet = decoders.reading()
        self._quiet.__enter__()
        self._pool = ThreadPoolExecutor(config.data.threads, thread_name_prefix="jaxstyle-data")
        self._ahead: collections.deque[tuple[dict[str, Pixels], list[Future[None]]]]
        self._ahead = collections.deque(self._begin() for _ in range(config.data.prefetch))
        self._closed = False

    @property
    def skipped(self) -> int:
        """How many pictures could not be read; others took their places."""
        return sum(len(reader.unreadable) for reader in self._readers)

    @property
    def ready(self) -> bool:
        """Whether `next` would return at once."""
        return all(row.done() for row in self._ahead[0][1])

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, Pixels]:
        """The batch of the next step.

        Raises:
            UserError: so many pictures cannot be read that something else must be wrong.
        """
        if self._closed:
            raise ValueError("the batches are closed")
        batch, rows = self._ahead[0]
        begun = time.perf_counter()
        for row in rows:
            row.result()
        self.waited += time.perf_counter() - begun
        self._ahead.popleft()
        self._ahead.append(self._begin())
        for reader in self._readers:
            self._warned = _tell(reader, self._warn, self._warned)
        return batch

    def _begin(self) -> tuple[dict[str, Pixels], list[Future[None]]]:
        """Gives the rows of the next batch to the threads."""
        batch, futures = {}, []
        for kind, (crops, total, rows) in self._plan.items():
            batch[kind] = np.empty((len(rows), self._size, self._size, 3), np.uint8)
            for place, row in zip(batch[kind], rows, strict=True):
                futures.append(self._pool.submit(_fill, place, crops, self._step * total + row))
        self._step += 1
        return batch, futures

    def close(self) -> None:
        """Stops the threads; each finishes the picture that it is at."""
        if not self._closed:
            self._closed = True
            self._pool.shutdown(cancel_futures=True)
            self._quiet.__exit__(None, None, None)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fill(place: Pixels, crops: _Crops, number: int) -> None:
    place[...] = crops(number)


def _tell(reader: _Reader, warn: Warn, warned: int) -> int:
    """Warns of what is new in a reader, a few times; returns how often that has happened."""
    while reader.news:
        reason = reader.news.popleft()
        if warned < _WARNINGS:
            warn(f"skipped {reason}")
        elif warned == _WARNINGS:
            warn("more pictures cannot be read; they are skipped, and only counted")
        warned += 1
    return warned


def fixed_batches(
    config: TrainConfig,
    *,
    which: str = "held_out",
    rows: int,
    count: int = 1,
    kinds: Collection[str] = KINDS,
    process_index: int = 0,
    process_count: int = 1,
    warn: Warn = _log.warning,
) -> list[dict[str, Pixels]]:
    """Batches that are always the same: the middle squares of pictures, in their order.

    For evaluation and samples. The sources are opened anew by each call: make them once and keep
    them.

    Args:
        config: the run.
        which: "held_out" for the pictures that are kept out of training (of a kind that none are
            kept out of, those of the training); "training" for those of the training.
        rows: how many pictures a batch has, on all processes together; and so many paintings,
            unless `data.style_batch_size` says how many.
        count: how many batches; after the last picture comes the first again.
        kinds: as for `Batches`.
        process_index: which process this is.
        process_count: of how many.
        warn: called with a line about each unreadable picture, the first few of them.

    Returns:
        Each as `Batches` gives it; the shorter side of each picture is resized to crop_size.

    Raises:
        UserError: there are no pictures where the configuration says, or none can be read.
        ValueError: the rows cannot be divided among the processes.
    """
    batches: list[dict[str, Pixels]] = [{} for _ in range(count)]
    for kind, (setting, total) in _kinds(config, kinds, which=which, rows=rows).items():
        reader, part = _open(config, setting), _slice(total, process_index, process_count)
        for number, batch in enumerate(batches):
            squares = [_middle(reader, number * total + row, config.crop_size) for row in part]
            batch[kind] = np.stack(squares)
        _tell(reader, warn, 0)
    return batches


def _middle(reader: _Reader, number: int, size: int) -> Pixels:
    """The middle square of a picture, or of the first readable one after it."""
    total = len(reader.source)
    first = number % total
    pixels = reader.first_readable(itertools.chain(range(first, total), range(first)))
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, upper = (width - side) / 2, (height - side) / 2
    return images.crop(pixels, (left, upper, left + side, upper + side), size)


def _kinds(
    config: TrainConfig, read: Collection[str], *, which: str = "training", rows: int = 0
) -> dict[str, tuple[str, int]]:
    """The kinds of pictures in a batch: the setting that says where they are, and their rows."""
    if which not in ("held_out", "training"):
        raise ValueError(f"which: expected held_out or training, got {which!r}")
    data, rows, held_out = config.data, rows or config.batch_size, which == "held_out"
    if not data.content:
        raise UserError("data.content is not set: --set data.content=FOLDER names the photographs")
    kinds = {"content": ("held_out" if held_out and data.held_out else "content", rows)}
    if data.style and "style" in read:
        setting = "held_out_style" if held_out and data.held_out_style else "style"
        kinds["style"] = setting, data.style_batch_size or rows
    return kinds


def _open(config: TrainConfig, setting: str) -> _Reader:
    spec = getattr(config.data, setting)
    # Twice the size that is needed: the rest of the reduction is then Lanczos', as everywhere.
    least_side = int(2 * config.crop_size * config.data.max_scale)
    try:
        source = open_source(spec, tfds_dir=config.data.tfds_dir, least_side=least_side)
    except UserError as error:
        raise UserError(f"data.{setting}: {error}") from error
    return _Reader(source, f"data.{setting}: {spec}")


def _slice(rows: int, process_index: int, process_count: int) -> range:
    """The rows of a process."""
    if rows % process_count:
        raise ValueError(
            f"rows of a batch: expected a multiple of {process_count} processes, got {rows}"
        )
    each = rows // process_count
    return range(process_index * each, (process_index + 1) * each)
