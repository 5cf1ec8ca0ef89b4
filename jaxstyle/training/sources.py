"""Where the pictures of a training run come from: folders, files, and prepared datasets."""

from __future__ import annotations

import bisect
import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from etils import epath
from numpy.typing import NDArray

from jaxstyle import images
from jaxstyle.errors import UserError, reason_of

Pixels = NDArray[np.uint8]

_VERSION = re.compile(r"\d+\.\d+\.\d+")


class UnreadableImage(Exception):  # noqa: N818 (the picture's fault, not the program's)
    """A picture of a source that cannot be read; the message is one line that names it."""


class Source(Protocol):
    """Pictures by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Pixels:
        """Picture `index`, uint8 [height, width, 3]. Threads may call this at the same time.

        Raises:
            UnreadableImage: it is broken, or no picture.
        """
        ...


def open_source(spec: str, *, tfds_dir: str = "", least_side: int = 0) -> Source:
    """Opens pictures by what a configuration says of them.

    Args:
        spec: a folder, whose pictures are taken from its subfolders, too, sorted by path and
            without hidden ones; a file; `tfds:NAME`, `tfds:NAME/VERSION:SPLIT` or
            `tfds:NAME/CONFIG/VERSION:SPLIT` for a prepared dataset of tensorflow_datasets (without
            a split, train); or several of them, separated by commas. Folders and files may lie in
            a bucket (`gs://`).
        tfds_dir: the folder of prepared datasets; "" for tensorflow_datasets' own.
        least_side: shorter side that pictures may be reduced to while they are decoded; see
            `images.decode`.

    Raises:
        UserError: there is no such thing, it holds no picture, or it cannot be read.
    """
    sources = [
        _open_prepared(part, tfds_dir, least_side)
        if part.startswith("tfds:")
        else _Files(part, least_side)
        for part in _parts(spec)
    ]
    return sources[0] if len(sources) == 1 else _Chain(sources)


class _Chain:
    """Sources one after the other."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources
        self._ends = list(itertools.accumulate(len(source) for source in sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Pixels:
        which = bisect.bisect_right(self._ends, index)
        return self._sources[which][index - (self._ends[which - 1] if which else 0)]


class _Files:
    """The pictures of a folder, or a single file."""

    def __init__(self, spec: str, least_side: int) -> None:
        self._least_side = least_side
        self._paths = _find(spec)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Pixels:
        path = self._paths[index]
        try:
            content = path.read_bytes()
        except Exception as error:  # as above
            raise UnreadableImage(f"{path}: cannot be read: {reason_of(error)}") from error
        return _decode(content, str(path), self._least_side)


def find_pictures(spec: str) -> list[epath.Path]:
    """The files of pictures that a configuration names, in their order.

    Args:
        spec: files and folders, as `open_source` takes them, but no datasets.

    Raises:
        UserError: there is no such thing, it holds no picture, or it is a dataset.
    """
    parts = _parts(spec)
    for part in parts:
        if part.startswith("tfds:"):
            raise UserError(f"{part}: expected files or folders of pictures, not a dataset")
    return [path for part in parts for path in _find(part)]


def _parts(spec: str) -> list[str]:
    parts = [part.strip() for part in spec.split(",")]
    if not all(parts):
        raise UserError(f"{spec!r} names no pictures: expected a folder, a file or tfds:NAME")
    return parts


def _find(spec: str) -> list[epath.Path]:
    """The pictures of a folder, or a single file."""
    try:
        root = epath.Path(spec).expanduser()
        if root.is_dir():
            paths = list(_pictures(root, set()))
        elif root.exists():
            paths = [root]
        else:
            raise UserError(f"{spec}: no such folder or file; check the path")
    except UserError:
        raise
    except Exception as error:  # each kind of bucket has exceptions of its own
        raise UserError(f"{spec}: cannot be read: {reason_of(error)}") from error
    if not paths:
        known = ", ".join(images.INPUT_SUFFIXES)
        raise UserError(f"{spec}: holds no picture; looked for {known}")
    return paths


def _pictures(folder: epath.Path, seen: set[str]) -> Iterator[epath.Path]:
    """Pictures by suffix, in the order of their names, through links but not in circles."""
    place = os.path.realpath(folder)
    if place in seen:
        return
    seen.add(place)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        # By suffix first: whether it is a folder is a question to the network, in a bucket.
        if entry.suffix.lower() in images.INPUT_SUFFIXES:
            yield entry
        elif entry.is_dir():
            yield from _pictures(entry, seen)


def _decode(content: bytes, name: str, least_side: int) -> Pixels:
    try:
        return images.decode(content, name=name, least_side=least_side)
    except UserError as error:
        # What to do about it, behind the semicolon, is for somebody who chose this one picture.
        raise UnreadableImage(str(error).rpartition(";")[0] or str(error)) from error


class _Prepared:
    """A split of a prepared dataset: records, and how to take a picture's file out of one."""

    def __init__(
        self, records: Any, extract: Callable[[Any], bytes], name: str, least_side: int
    ) -> None:
        self._records, self._extract = records, extract
        self._name, self._least_side = name, least_side

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Pixels:
        name = f"{self._name}, picture {index}"
        try:
            content = self._extract(self._records[index])
        except Exception as error:  # whatever a broken record makes the reader say
            raise UnreadableImage(f"{name}: cannot be read: {reason_of(error)}") from error
        return _decode(content, name, self._least_side)


def _open_prepared(spec: str, tfds_dir: str, least_side: int) -> Source:
    try:
        from tensorflow_datasets.core.read_only_builder import builder_from_files
    except ImportError:
        raise UserError(
            f"{spec}: tensorflow_datasets is not installed; pip install 'jaxstyle[tfds]'"
        ) from None
    name, _, split = spec.removeprefix("tfds:").partition(":")
    stem, _, version = name.rpartition("/")
    folder = os.fspath(epath.Path(tfds_dir).expanduser()) if tfds_dir else None
    try:
        full_name = f"{stem}:{version}" if _VERSION.fullmatch(version) else name
        builder = builder_from_files(full_name, data_dir=folder)
    except Exception as error:  # of many kinds, and pages long
        place = folder or "the folder of tensorflow_datasets"
        raise UserError(
            f"{spec}: no such prepared dataset in {place}; expected "
            "tfds:NAME, tfds:NAME/VERSION or tfds:NAME/CONFIG/VERSION, and :SPLIT; check "
            "data.tfds_dir, or prepare it with tensorflow_datasets"
        ) from error
    return _open_split(builder, spec, split, least_side)


def _open_split(builder: Any, spec: str, split: str, least: int) -> Source:
    from tensorflow_datasets import decode, features

    known = ", ".join(builder.info.splits)
    if not split and "train" not in builder.info.splits:
        raise UserError(f"{spec}: has no split train; name another, {spec}:SPLIT, of {known}")
    feature = dict(builder.info.features.items()).get("image")
    # Floating-point pictures are stored as four bytes a pixel that only look like a picture.
    if not isinstance(feature, features.Image) or feature.np_dtype not in (np.uint8, np.uint16):
        raise UserError(f"{spec}: has no feature 'image' with pictures; choose another dataset")
    raw = decode.DeserializeMethod.RAW_BYTES
    try:
        records = builder.as_data_source(split=split or "train", deserialize_method=raw)
    except NotImplementedError as error:
        raise UserError(
            f"{spec}: its files cannot be read in any order; prepare it with "
            "tensorflow_datasets again, with file_format='array_record'"
        ) from error
    except ImportError as error:  # it comes with tensorflow_datasets, but not on every system
        raise UserError(f"{spec}: {reason_of(error)}; try pip install array_record") from error
    except Exception as error:  # the split is anything that they can parse
        reason = reason_of(error).partition(". ")[0]
        raise UserError(f"{spec}: no such split ({reason}); it has {known}") from error
    if not len(records):
        raise UserError(f"{spec}: holds no picture; name another split of {known}")
    # Labels, boxes and masks are not even looked at.
    parse: Any = features.FeaturesDict({"image": feature}).deserialize_example_np
    skip = {"image": decode.SkipDecoding()}
    return _Prepared(records, lambda record: parse(record, decoders=skip)["image"], spec, least)
