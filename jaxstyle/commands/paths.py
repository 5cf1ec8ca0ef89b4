"""Which files a run reads and writes, checked before anything is computed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle import images
from jaxstyle.errors import UserError


class Task(NamedTuple):
    """One picture to make.

    Attributes:
        content: the file to read.
        output: the file to write.
        done: it is there already and need not be made.
        painting: the one to take the style from, where each picture has its own.
    """

    content: Path
    output: Path
    done: bool
    painting: Path | None = None

    @property
    def name(self) -> str:
        """How people are told of it."""
        both = [path.name for path in (self.content, self.painting) if path is not None]
        return ", ".join(both)


def plan(
    content: Path,
    output: Path,
    others: Sequence[Path],
    *,
    overwrite: bool,
    paintings: Path | None = None,
    masks: Path | None = None,
) -> list[Task]:
    """The pictures to make of a file or of a folder.

    Args:
        content: a picture or a folder of them.
        output: a file, or a folder if `content` or `paintings` is one; it need not exist.
        others: files that are read, too, and so never written to.
        overwrite: replace what is there.
        paintings: a folder: each content is painted in the style of each of these.
        masks: a folder of them, which is none to write to.

    Returns:
        What to make, the pictures of a content after each other.

    Raises:
        UserError: A file would be lost, or there is nothing to do.
    """
    if not content.exists():
        raise UserError(f"{content}: no such file or folder")
    if content.is_dir() or paintings is not None:
        folders = {
            "contents": content if content.is_dir() else None,
            "paintings": paintings,
            "masks": masks,
        }
        _check_folders(output, {name: path for name, path in folders.items() if path is not None})
        return _plan_folder(content, output, others, overwrite=overwrite, paintings=paintings)
    if output.is_dir():
        raise UserError(f"{output} is a folder: expected a file name, as {content} is one picture")
    check_new(output, [content, *others], overwrite=overwrite)
    images.check_output_path(output)
    return [Task(content, output, done=False)]


def check_new(path: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuses to write to a file that is read, or, without `overwrite`, to one that is there.

    Raises:
        UserError: The file would be lost, or cannot be written.
    """
    for other in inputs:
        if same_file(path, other):
            raise UserError(f"{path} is read by this command: write to another file")
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected a file name")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists: choose another name, or pass --overwrite to replace it")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}: make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written to: choose another name")


def check_folder(path: Path) -> None:
    """Refuses a folder that is to be written into, and made if need be, where that cannot work.

    Raises:
        UserError: it is a file, or nothing can be written there.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: expected a folder")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written to: choose another folder")


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths, of files that need not exist, name one file."""
    if a.exists() and b.exists():
        return a.samefile(b)
    return a.resolve() == b.resolve()


def _check_folders(output: Path, folders: Mapping[str, Path]) -> None:
    for what, folder in folders.items():
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is a file: expected a folder, as {folder} is one")
        if same_file(folder, output):
            raise UserError(f"{output} is the folder of the {what}: write to another one")


def _plan_folder(
    content: Path,
    output: Path,
    others: Sequence[Path],
    *,
    overwrite: bool,
    paintings: Path | None,
) -> list[Task]:
    contents = images.list_images(content) if content.is_dir() else [content]
    styles = [None] if paintings is None else images.list_images(paintings)
    read = {
        identity
        for path in (*contents, *(path for path in styles if path is not None), *others)
        for identity in _identities(path)
    }
    tasks, taken = [], set()
    for path, style in itertools.product(contents, styles):
        target = output / _name(path, style)
        if target in taken:  # a.gif beside a.png
            both = path.name if style is None else f"{path.name}_{style.name}"
            target = output / f"{both}.png"
        taken.add(target)
        if not read.isdisjoint(_identities(target)):
            raise UserError(f"{target} is read by this command: write to another folder")
        done = target.exists() and not overwrite and not left_unfinished(target)
        tasks.append(Task(path, target, done, style))
    return tasks


def _identities(path: Path) -> set[Any]:
    """What two paths share if and only if they are of one file, as `same_file` has it."""
    try:
        found = path.stat()
    except OSError:
        return {path.resolve()}
    return {path.resolve(), (found.st_dev, found.st_ino)}


def _name(content: Path, painting: Path | None) -> str:
    """The content's own name, as PNG where its format is read but not written."""
    if painting is not None:
        return f"{content.stem}_{painting.stem}.png"
    if content.suffix.lower() in images.OUTPUT_FORMATS:
        return content.name
    return f"{content.stem}.png"


def left_unfinished(path: Path) -> bool:
    """Whether an earlier run says in the file that it was stopped before the end."""
    try:
        made_by = json.loads(images.read_metadata(path).get("jaxstyle", "{}"))
        return made_by.get("finished") is False
    except (UserError, OSError, ValueError, AttributeError):
        return False  # not ours to replace
