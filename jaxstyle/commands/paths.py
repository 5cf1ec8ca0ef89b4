"""Which files a run reads and writes, checked before anything is computed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        target = next(
            place
            for place in (output / name for name in _names(path, style))
            if place not in taken and (overwrite or not _is_of_others(place, path, style))
        )
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


def _names(content: Path, painting: Path | None) -> Iterator[str]:
    """Names for what is made of a content, the simplest first: others may have that, too.

    So have a.gif beside a.png, and b_c.png on a.png beside c.png on a_b.png. The simplest is the
    content's own name, as PNG where its format is read but not written.
    """
    both = content.name if painting is None else f"{content.name}_{painting.name}"
    if painting is not None:
        yield f"{content.stem}_{painting.stem}.png"
    elif content.suffix.lower() in images.OUTPUT_FORMATS:
        yield content.name
    else:
        yield f"{content.stem}.png"
    yield f"{both}.png"
    for number in itertools.count(2):
        yield f"{both}-{number}.png"


def _is_of_others(path: Path, content: Path, painting: Path | None) -> bool:
    """Whether a file says of itself that it was made of another content or painting."""
    made_by = _made_by(path)
    given = {"content": content.name, "styles": None if painting is None else [painting.name]}
    return any(
        wanted is not None and made_by.get(key, wanted) != wanted for key, wanted in given.items()
    )


def left_unfinished(path: Path) -> bool:
    """Whether an earlier run says in the file that it was stopped before the end."""
    return _made_by(path).get("finished") is False


def _made_by(path: Path) -> dict[str, Any]:
    """What a file says of how it was made; nothing if it is not there, or not of this program."""
    try:
        found = json.loads(images.read_metadata(path).get("jaxstyle", "{}"))
    except (UserError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
