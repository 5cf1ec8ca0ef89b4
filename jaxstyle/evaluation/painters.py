"""What paints: each method of an evaluation as one function from a photograph to a picture."""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxstyle import config as settings
from jaxstyle import features as vgg
from jaxstyle import models, weights
from jaxstyle.errors import UserError
from jaxstyle.evaluation.config import MethodConfig
from jaxstyle.methods import adain, gatys, gatys_scales, residual
from jaxstyle.training.config import plain

Pictures = Mapping[str, np.ndarray]


class Painter(NamedTuple):
    """A method, ready to paint.

    Attributes:
        paint: a photograph `[height, width, 3]` in [0, 1] and the name of a painting to a picture
            of the photograph's size.
        styles: the names of the paintings in whose styles it paints.
        fingerprint: of all that its pictures depend on beside the two.
        facts: what a reader of its figures wants to know.
        batch: photographs `[n, height, width, 3]` and the name of a painting to pictures, on the
            device; None for what does not paint in one pass.
        updates: how many updates a picture takes; 0 for one pass.
    """

    paint: Callable[[np.ndarray, str], np.ndarray]
    styles: tuple[str, ...]
    fingerprint: str
    facts: str
    batch: Callable[[Any, str], jax.Array] | None = None
    updates: int = 0


def make(name: str, config: MethodConfig, paintings: Pictures) -> Painter:
    """The painter of a row.

    Args:
        name: of the row, for complaints.
        config: what it is.
        paintings: `{name: [height, width, 3]}`.

    Raises:
        UserError: a model cannot be read, is of another method, or knows none of the paintings.
    """
    painter = _MAKERS[config.kind](name, config, paintings)
    if not painter.styles:
        raise UserError(
            f"{name}: {config.model or 'the model that comes along'} has none of the styles "
            f"{', '.join(paintings)}"
        )
    return painter


def _photo(name: str, config: MethodConfig, paintings: Pictures) -> Painter:
    del name, config
    return Painter(lambda photo, _: photo, tuple(paintings), "photo", "the photograph itself")


def _painting(name: str, config: MethodConfig, paintings: Pictures) -> Painter:
    del name, config
    known = tuple(paintings)
    digest = _digest([np.asarray(picture).tobytes() for picture in paintings.values()])
    return Painter(lambda _, style: paintings[style], known, digest, "the painting itself")


def _residual(name: str, config: MethodConfig, paintings: Pictures) -> Painter:
    if "{style}" in config.model:
        found = {style: config.model.replace("{style}", style) for style in paintings}
        found = {s: path for s, path in found.items() if epath.Path(path).expanduser().exists()}
        loaded = {style: _loaded(name, path, "residual") for style, path in found.items()}
        shares = {style: _share(name, found[style], model) for style, model in loaded.items()}
    else:
        model = _loaded(name, config.model, "residual")
        rows = dict(zip(model.styles, np.eye(len(model.styles)), strict=True))
        shares = {style: rows[style] for style in paintings if style in rows}
        loaded = dict.fromkeys(shares, model)
    batches = {id(model): jax.jit(residual.stylize_fn(model)) for model in loaded.values()}

    def paint(photo: np.ndarray, style: str) -> np.ndarray:
        return residual.paint(loaded[style], photo, style_weights=shares[style].tolist())

    def batch(photos: Any, style: str) -> jax.Array:
        model = loaded[style]
        weights_ = np.asarray(shares[style], np.float32)
        return batches[id(model)](model.variables, photos, style_weights=weights_)

    digest = _digest([part for model in loaded.values() for part in _parts(model)])
    facts = f"{_described(config.model, 'styles')}, {_counted(loaded)} parameters"
    return Painter(paint, tuple(loaded), digest, facts, batch)


def _share(name: str, path: str, model: models.Model) -> np.ndarray:
    """The weights of the one style of a model, which is its painting's, whatever it is called."""
    if len(model.styles) != 1:
        raise UserError(
            f"{name}: {path} has {len(model.styles)} styles: expected one in place of {{style}}"
        )
    return np.ones(1)


def _adain(name: str, config: MethodConfig, paintings: Pictures) -> Painter:
    model = _loaded(name, config.model, "adain")
    network, variables = adain.of_model(model)
    variables = jax.device_put(variables)
    codes: dict[str, adain.Code] = {}
    run = jax.jit(lambda variables, photos, code: adain.stylize(network, variables, photos, code))

    def code(style: str) -> adain.Code:
        if style not in codes:
            codes[style] = adain.read_style(network, variables, np.asarray(paintings[style]))
        return codes[style]

    def paint(photo: np.ndarray, style: str) -> np.ndarray:
        return adain.paint(network, variables, photo, code(style))

    def batch(photos: Any, style: str) -> jax.Array:
        return run(variables, photos, code(style))

    facts = f"{_described(config.model, 'adain')}, {_counted({'': model})} parameters"
    return Painter(paint, tuple(paintings), _digest(_parts(model)), facts, batch)


def _gatys(name: str, config: MethodConfig, paintings: Pictures) -> Painter:
    features = weights.load(config.features or weights.default_spec())
    try:
        chosen = settings.preset(config.preset, scale=features.scale, heads=features.heads)
        chosen = settings.replace(chosen, **config.settings)
        vgg.check_layers(features.params, {*chosen.content_layers, *chosen.style_layers})
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error

    def paint(photo: np.ndarray, style: str) -> np.ndarray:
        size = max(photo.shape[:2])
        steps = gatys.stylize(
            photo, [paintings[style]], features=features, config=chosen, size=size
        )
        (last,) = collections.deque(steps, maxlen=1)
        return np.asarray(last.image)

    parts = [np.asarray(value).tobytes() for _, value in sorted(features.params.items())]
    told = json.dumps([plain(chosen), features.padding], sort_keys=True)
    digest = _digest([told.encode(), *parts])
    which = Path(config.features).stem if config.features else "the features that come along"
    updates = sum(gatys_scales.scale_steps(chosen, chosen.scales))
    facts = f"preset {config.preset}, {updates} updates, {which}"
    return Painter(paint, tuple(paintings), digest, facts, updates=updates)


_MAKERS: Mapping[str, Callable[[str, MethodConfig, Pictures], Painter]] = {
    "photo": _photo,
    "painting": _painting,
    "residual": _residual,
    "adain": _adain,
    "gatys": _gatys,
}


def _loaded(name: str, path: str, method: str) -> models.Model:
    """A model of a method, or that of it which comes along."""
    if not path:
        return models.shipped("styles" if method == "residual" else method)
    model = models.load(path)
    if model.method != method:
        raise UserError(f"{name}: {path} is a model of {model.method}: expected one of {method}")
    return model


def _described(path: str, shipped: str) -> str:
    """The name of a model's file, without the folders of the machine that it lies on."""
    return Path(path).name if path else f"the shipped {shipped}"


def _counted(loaded: Mapping[str, models.Model]) -> str:
    """How many parameters a model has."""
    model = next(iter(loaded.values()), None)
    leaves = [] if model is None else jax.tree.leaves(model.variables)
    return f"{sum(np.size(leaf) for leaf in leaves):,}"


def _parts(model: models.Model) -> list[bytes]:
    """All that the pictures of a model depend on."""
    flat = models.flat(model.variables)
    told = json.dumps([model.method, plain(model.config), model.styles], sort_keys=True)
    return [told.encode(), *(np.asarray(flat[key]).tobytes() for key in sorted(flat))]


def _digest(parts: list[bytes]) -> str:
    """A short name of what some bytes are."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:10]
