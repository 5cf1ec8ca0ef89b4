"""`jaxstyle stylize` with a model that paints in the style of any painting, in one go.

Each painting is encoded once, whatever the number of contents. With masks, a region of the content
gets its style from the region of the same colour of the paintings, or from a painting of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxstyle import images
from jaxstyle.commands import paths
from jaxstyle.commands.making import Session
from jaxstyle.commands.onepass import (
    Look,
    Painter,
    describe,
    finish,
    load_model,
    look_of,
    recolor,
)
from jaxstyle.commands.options import tile_of
from jaxstyle.errors import UserError

if TYPE_CHECKING:
    from jaxstyle.methods.adain import Code, Network
    from jaxstyle.models import Model
    from jaxstyle.regions import Regions

_STYLE_SIZE = 512
# Of a mask that may be transparent, as corners are, for its regions to be understood.
_MOST_HIDDEN = 0.01

Step = tuple[list[float], float]
"""A picture of a strip: the shares of the paintings, and the strength."""


def start(session: Session) -> tuple[list[paths.Task], Painter]:
    """Checks and reads all that the pictures share.

    Returns:
        The pictures to make, and what makes them.

    Raises:
        UserError: Bad input.
    """
    arguments = session.arguments
    folder = _folder_of_paintings(arguments)
    _check_masks(arguments, folder)
    steps = _steps(arguments)
    mask: Path | None = arguments.content_mask
    masks = mask if mask is not None and mask.is_dir() else None
    files = [] if mask is None else [mask] if masks is None else images.list_images(mask)
    read = [*arguments.styles, *(arguments.style_mask or []), *files]
    tasks = paths.plan(
        arguments.content,
        arguments.output,
        [path for path in read if not path.is_dir()],
        overwrite=arguments.overwrite,
        paintings=folder,
        masks=masks,
    )
    by_stem = {path.stem: path for path in reversed(files)}  # of several, the first by name
    lacking = [task for task in tasks if not task.done and task.content.stem not in by_stem]
    if masks is not None and lacking:
        raise UserError(
            f"{masks}: no mask of the name of {lacking[0].content.name}: expected one for each "
            "picture"
        )
    model = load_model(session, "adain")
    if model.styles:
        raise UserError(
            f"{arguments.styles[0]} is a second picture, but a trained model has its styles in it: "
            "leave out either this file, or --model"
        )
    encoder = _Encoder(model, arguments)
    if folder is None:
        for path in arguments.styles:
            encoder.read(path)
        style_masks: list[Path] = arguments.style_mask or []
        for path, style_mask in zip(arguments.styles, style_masks, strict=False):
            encoder.regions(path, style_mask)  # as many as paintings, or none
    work = _Work(model, encoder, steps, session, by_stem if masks is not None else None)
    return tasks, Painter(work, session)


# Before anything is computed


def _folder_of_paintings(arguments: argparse.Namespace) -> Path | None:
    styles: list[Path] = arguments.styles
    folder = next((path for path in styles if path.is_dir()), None)
    if folder is not None and len(styles) > 1:
        raise UserError(
            f"{folder} is a folder, which gives a picture for each painting in it: expected no "
            "other painting beside it"
        )
    if folder is not None and arguments.style_weights is not None:
        raise UserError(
            f"--style-weights mixes paintings given as files, but {folder} is a folder, which "
            "gives a picture for each painting in it: leave out --style-weights"
        )
    return folder


def _check_masks(arguments: argparse.Namespace, folder: Path | None) -> None:
    """Refuses masks that cannot go with the rest of the command."""
    content, styles = arguments.content_mask, arguments.style_mask or []
    if styles and content is None:
        raise UserError("--style-mask names regions of --content-mask: add that")
    if content is None:
        return
    if folder is not None:
        raise UserError(f"--content-mask is for paintings given as files, but {folder} is a folder")
    if content.is_dir() != arguments.content.is_dir():
        kind = "folder of masks" if arguments.content.is_dir() else "file"
        raise UserError(f"--content-mask {content}: expected a {kind}, as {arguments.content} is")
    if styles and len(styles) != len(arguments.styles):
        times = "once" if len(styles) == 1 else f"{len(styles)} times"
        raise UserError(
            f"--style-mask is given {times} for {_counted(len(arguments.styles), 'painting')}: "
            "give it once for each, in their order"
        )
    if styles or len(arguments.styles) == 1:
        return
    if arguments.style_weights is not None:
        raise UserError(
            "--style-weights blends paintings, but with --content-mask each has a region: leave "
            "one of them out, or add a --style-mask for each painting"
        )
    if arguments.interpolate is not None:
        raise UserError(
            "--interpolate blends two paintings, but with --content-mask each has a region: leave "
            "one of them out, or add a --style-mask for each painting"
        )


def _steps(arguments: argparse.Namespace) -> list[Step]:
    """The pictures of the strip, or the only one."""
    count, strip = len(arguments.styles), arguments.interpolate
    strength = 1.0 if arguments.strength is None else arguments.strength
    given = arguments.style_weights
    if given is not None and len(given) != count:
        raise UserError(
            f"--style-weights has {_counted(len(given), 'weight')} for "
            f"{_counted(count, 'painting')}: give one weight for each"
        )
    if strip is None:
        shares = given or [1.0] * count
        return [([share / sum(shares) for share in shares], strength)]
    parts = [index / (strip - 1) for index in range(strip)]
    if given is not None:
        raise UserError("--interpolate and --style-weights both mix paintings: give one of them")
    if count == 1:
        if arguments.strength is not None:
            raise UserError(
                "--interpolate with one painting goes through the strengths from 0 to 1: leave out "
                "--strength, or add a second painting"
            )
        return [([1.0], part) for part in parts]
    if count > 2:
        raise UserError(
            f"--interpolate leads from one painting to another, but there are {count}: give two, "
            "or one for a strip of strengths"
        )
    return [([1 - part, part], strength) for part in parts]


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


# The paintings


class _Palette(NamedTuple):
    """A painting with a mask.

    Attributes:
        regions: of the mask.
        codes: of each of them, `[1, channels]`.
    """

    regions: Regions
    codes: list[Code]


class _Encoder:
    """Paintings to their codes, each once; with "match" once for each content."""

    def __init__(self, model: Model, arguments: argparse.Namespace) -> None:
        import jax

        from jaxstyle.methods import adain

        network, variables = adain.of_model(model)
        self.network: Network = network
        self.variables = jax.device_put(variables)
        self._arguments = arguments
        self._matches = getattr(arguments, "keep_colors", None) == "match"
        self._pixels: dict[Path, np.ndarray] = {}
        self._codes: dict[Path, Code] = {}
        self._regions: dict[tuple[Path, Path], Regions] = {}
        self._palettes: dict[tuple[Path, Path], _Palette] = {}
        self._sizes: dict[Path, tuple[int, int]] = {}  # of the files

    @property
    def style_size(self) -> int:
        """Longer side of paintings, 0 for their own."""
        given = self._arguments.style_size
        return _STYLE_SIZE if given is None else given

    def read(self, path: Path) -> None:
        """Reads a painting, to be encoded later.

        Raises:
            UserError: it cannot be read.
        """
        self._pixels[path] = self._loaded(path)

    def regions(self, path: Path, mask: Path) -> Regions:
        """The regions of a painting that was read.

        Raises:
            UserError: the mask cannot be read, does not fit, or has no regions.
        """
        if (path, mask) not in self._regions:
            pixels = _read_mask(mask, path, self._sizes[path], self._arguments.max_pixels)
            self._regions[path, mask] = _regions(pixels, mask)
        return self._regions[path, mask]

    def renew(self) -> None:
        """Forgets what does not hold for another content."""
        if self._matches:
            self._codes.clear()
            self._palettes.clear()

    def code(self, path: Path, content: np.ndarray) -> Code:
        """The code of a painting.

        Raises:
            UserError: it cannot be read.
        """
        if path not in self._codes:
            self._codes[path] = self._encoded(self._painting(path, content))
        return self._codes[path]

    def palette(self, path: Path, mask: Path, content: np.ndarray) -> _Palette:
        """The codes of the regions of a painting.

        Raises:
            UserError: a file cannot be read, or the mask does not fit.
        """
        from jaxstyle import regions

        if (path, mask) not in self._palettes:
            pixels, found = self._painting(path, content), self.regions(path, mask)
            size = pixels.shape[0], pixels.shape[1]
            masks = regions.masks_of(found.labels, len(found.colors), size)
            code = self._encoded(pixels, masks)
            codes = [_part(code, region) for region in range(len(found.colors))]
            self._palettes[path, mask] = _Palette(found, codes)
        return self._palettes[path, mask]

    def _painting(self, path: Path, content: np.ndarray) -> np.ndarray:
        pixels = self._pixels[path] if path in self._pixels else self._loaded(path)
        return recolor(pixels, content, "match") if self._matches else pixels

    def _encoded(self, pixels: np.ndarray, masks: np.ndarray | None = None) -> Code:
        """In tiles where it does not fit in memory, unless there are to be none."""
        from jaxstyle.methods import adain

        memory = self._arguments.memory
        tile = None if tile_of(self._arguments) is None else "auto"
        options = {"tile": tile, "memory": memory}
        return adain.read_style(self.network, self.variables, pixels, masks, **options)

    def _loaded(self, path: Path) -> np.ndarray:
        """A painting at the size at which it is encoded; none is enlarged."""
        pixels = images.load(path, max_pixels=self._arguments.max_pixels).pixels
        height, width = self._sizes[path] = pixels.shape[0], pixels.shape[1]
        longer = max(height, width)
        longer = min(self.style_size or longer, longer)
        return images.resize(pixels, images.fitted_size(height, width, longer))


def _part(code: Code, region: int) -> Code:
    """The code of one region."""
    import jax

    return jax.tree.map(lambda moments: moments[:, region], code)


def _together(codes: Sequence[Code]) -> Code:
    """The inverse of `_part`."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda *moments: jnp.stack(moments, axis=1), *codes)


# Masks


def _read_mask(path: Path, picture: Path, size: tuple[int, int], max_pixels: int) -> np.ndarray:
    """A mask as a picture `[height, width, 3]` of its own size.

    Raises:
        UserError: it cannot be read, is transparent, or is of other proportions than the picture
            that it is for.
    """
    from jaxstyle import regions

    mask, alpha = images.load(path, max_pixels=max_pixels)
    hidden = 0.0 if alpha is None else float(np.mean(alpha < 0.5))
    if hidden > _MOST_HIDDEN:
        raise UserError(
            f"{path} is a mask of which {hidden:.0%} is transparent: expected an opaque colour for "
            "each region, so fill what is transparent, too"
        )
    height, width = mask.shape[:2]
    if not regions.fits((height, width), size):
        raise UserError(
            f"{path} has {width} x {height} pixels, but {picture} {size[1]} x {size[0]}: expected "
            "a mask of the same proportions"
        )
    return mask


def _regions(mask: np.ndarray, path: Path) -> Regions:
    from jaxstyle import regions

    try:
        return regions.read(mask)
    except ValueError as error:
        raise UserError(f"{path} is no colour-coded mask: {error}") from error


class _Plan(NamedTuple):
    """What the mask of a content says.

    Attributes:
        masks: `[height, width, regions]` at a size that is asked for; they sum to one.
        colors: of the regions, where the paintings have masks; else each has a painting.
    """

    masks: Callable[[tuple[int, int]], np.ndarray]
    colors: np.ndarray | None


# The pictures


class _Work:
    """Paints contents in the style of any paintings."""

    def __init__(
        self,
        model: Model,
        encoder: _Encoder,
        steps: list[Step],
        session: Session,
        masks: Mapping[str, Path] | None,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._steps = steps
        self._session = session
        self._arguments = session.arguments
        self._look: Look = look_of(session.arguments)
        self._masks = masks  # by the names of contents, without what follows the dot
        self._plan: _Plan | None = None

    @property
    def count(self) -> int:
        return len(self._steps)

    def prepare(self, task: paths.Task, size: tuple[int, int]) -> None:
        mask = self._arguments.content_mask
        if mask is None:
            return
        path = mask if self._masks is None else self._masks[task.content.stem]
        pixels = _read_mask(path, task.content, size, self._arguments.max_pixels)
        self._plan = self._understand(pixels, path)

    def tile(self, size: tuple[int, int], memory: int | None) -> int | None:
        from jaxstyle.methods import adain

        return adain.tile_side(self._encoder.network, size, tile=self._look.tile, memory=memory)

    def paint(self, task: paths.Task, content: np.ndarray, tile: int | None) -> list[np.ndarray]:
        from jaxstyle.methods import adain

        self._encoder.renew()
        codes = self._codes(task, content)
        masks = None if self._plan is None else self._plan.masks(content.shape[:2])
        made = []
        for code, (_, strength) in zip(codes, self._steps, strict=True):
            picture = adain.paint(
                self._encoder.network,
                self._encoder.variables,
                content,
                code,
                strength=strength,
                masks=masks,
                tile=tile,
            )
            # With "match" the painting has the colours of the content before it is encoded.
            way = "luminance" if self._look.keep_colors == "luminance" else None
            made.append(finish(picture, content, way))
        return made

    def describe(self, task: paths.Task) -> dict[str, Any]:
        shares, strengths = zip(*self._steps, strict=True)
        masks = self._arguments.style_mask
        one = len(self._steps) == 1
        return {
            "method": self._model.method,
            "model": describe(self._model),
            "styles": [path.name for path in self._paintings(task)],
            "style_weights": shares[0] if one else shares,
            "style_size": self._encoder.style_size,
            "content_mask": getattr(self._arguments.content_mask, "name", None),
            "style_masks": None if masks is None else [mask.name for mask in masks],
            **self._look._asdict(),
            "strength": strengths[0] if one else strengths,
        }

    def _paintings(self, task: paths.Task) -> list[Path]:
        return self._arguments.styles if task.painting is None else [task.painting]

    def _understand(self, mask: np.ndarray, path: Path) -> _Plan:
        """The regions of a content, checked against the paintings."""
        from jaxstyle import regions

        paintings, by_color = len(self._arguments.styles), self._arguments.style_mask is not None
        if paintings == 2 and not by_color:
            share = regions.read_between(mask)
            if share is not None:
                return _Plan(lambda size: _two(regions.resize(share, size)), None)
        found = _regions(mask, path)
        count = len(found.colors)
        if not by_color and count != paintings:
            raise UserError(
                f"{path}: expected a region for each painting ({paintings}), from dark to light, "
                f"got {count}: give another mask, or a --style-mask for each painting"
            )
        if by_color:
            self._check_shared(found.colors, path)
        return _Plan(
            lambda size: regions.masks_of(found.labels, count, size),
            found.colors if by_color else None,
        )

    def _check_shared(self, colors: np.ndarray, path: Path) -> None:
        """Refuses a mask of which no colour is in any of the paintings' masks."""
        from jaxstyle import regions

        masks = self._arguments.style_mask
        pairs = zip(self._arguments.styles, masks, strict=True)
        others = [self._encoder.regions(*pair).colors for pair in pairs]
        if any(place is not None for other in others for place in regions.match(colors, other)):
            return
        theirs = (
            f"{mask} {', '.join(map(regions.name, other))}"
            for mask, other in zip(masks, others, strict=True)
        )
        raise UserError(
            f"{path} has the colours {', '.join(map(regions.name, colors))}, but "
            f"{'; '.join(theirs)}: expected a colour in common, for regions to belong together"
        )

    def _codes(self, task: paths.Task, content: np.ndarray) -> list[Code]:
        """The code of each picture of the strip."""
        from jaxstyle.methods import adain

        encoder, paintings = self._encoder, self._paintings(task)
        if self._plan is not None and self._plan.colors is not None:
            return self._codes_by_color(self._plan.colors, content)
        codes = [encoder.code(path, content) for path in paintings]
        if self._plan is not None:
            return [_together(codes)] * self.count
        return [adain.mix(codes, shares) for shares, _ in self._steps]

    def _codes_by_color(self, colors: np.ndarray, content: np.ndarray) -> list[Code]:
        """As `_codes`, with regions of the paintings in the content's colours."""
        from jaxstyle import regions
        from jaxstyle.methods import adain

        paintings, masks = self._arguments.styles, self._arguments.style_mask
        pairs = zip(paintings, masks, strict=True)
        palettes = [self._encoder.palette(path, mask, content) for path, mask in pairs]
        places = [regions.match(colors, palette.regions.colors) for palette in palettes]
        sources: list[dict[int, Code]] = []  # of each region: codes by the number of the painting
        for color, found in zip(colors, zip(*places, strict=True), strict=True):
            codes = {
                index: palettes[index].codes[place]
                for index, place in enumerate(found)
                if place is not None
            }
            if not codes:
                self._session.progress.note(
                    f"{', '.join(map(str, masks))}: no {regions.name(color)} there: that region "
                    "takes the whole painting"
                )
                whole = (self._encoder.code(path, content) for path in paintings)
                codes = dict(enumerate(whole))
            sources.append(codes)
        return [
            _together(
                [adain.mix([*codes.values()], _shares_of([*codes], shares)) for codes in sources]
            )
            for shares, _ in self._steps
        ]


def _shares_of(some: list[int], shares: list[float]) -> list[float]:
    """The shares of some paintings, with a sum of one; equal where all of them are 0."""
    own = [shares[index] for index in some]
    return [share / sum(own) for share in own] if sum(own) > 0 else [1 / len(own)] * len(own)


def _two(share: np.ndarray) -> np.ndarray:
    """Masks of two regions out of the share of the second."""
    return np.stack([1 - share, share], axis=-1)
