"""Style transfer by optimising the pixels.

Gatys, Ecker and Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks" (CVPR).
What is minimised is in `jaxstyle.objective`, an update of it in `gatys_updates`, and what a scale
begins with in `gatys_scales`; here is the course from the first update to the last.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxstyle import color, images, rows
from jaxstyle import features as vgg
from jaxstyle.config import INITS, StylizeConfig, preset, replace
from jaxstyle.methods import gatys_sharded, gatys_tiled
from jaxstyle.methods.gatys_layout import Cutting, host_bytes
from jaxstyle.methods.gatys_scales import (
    Scale,
    check_picture,
    check_weights,
    first_picture,
    match_colors,
    recolor,
    resize_style,
    scale_sizes,
    scale_steps,
)
from jaxstyle.methods.gatys_updates import (
    State,
    init_state,
    jitted,
    platform,
    prepared,
    program,
    to_show,
)
from jaxstyle.objective import loss_weights
from jaxstyle.weights import Weights


class Iterate(NamedTuple):
    """What an update of the picture yields.

    Attributes:
        image: float32 `[height, width, 3]` in [0, 1], the picture so far (the average over
            iterates, where averaging is on).
        step: the update, from 1, in this scale.
        steps: how many updates this scale has.
        scale: the scale, from 1.
        scales: how many scales there are.
        losses: the weighted terms before the update: `total`, `content`, `style` and `tv`, scalars
            on the device.
        state: what the next update begins with, and overwrites: copy it before.
    """

    image: Array
    step: int
    steps: int
    scale: int
    scales: int
    losses: dict[str, Array]
    state: Any = None


_shown = jax.jit(to_show, static_argnames="config")


def stylize(
    content: Any,
    styles: Sequence[Any],
    *,
    features: Weights,
    config: StylizeConfig | None = None,
    style_weights: Sequence[float] | None = None,
    init: Any | None = None,
    padding: str | None = None,
    tile: int | str | None = "auto",
    memory: int | None = None,
    resume: Iterate | None = None,
    devices: Sequence[Any] | None = None,
    **overrides: Any,
) -> Iterator[Iterate]:
    """Stylises a picture, update by update.

    Args:
        content: `[height, width, 3]` in [0, 1], at its full size: it is resized to `config.size`.
        styles: one or more pictures `[h, w, 3]` in [0, 1], each of its own size. A style is resized
            to `config.style_scale` times the picture, but never enlarged.
        features: the perceptual network, as `jaxstyle.weights.load` gives it.
        config: settings; the default preset's for these features if none are given.
        style_weights: how much each style counts; equal if none are given. Only ratios matter.
        init: the picture to start from, of any size, or one of "content", "style-stats" and
            "noise", in place of what `config.init` says.
        padding: of the network, in place of what the features were trained with.
        tile: the side in pixels of the tiles that an update is computed in, with the same gradient
            (`gatys_tiled`); None to compute it whole; "auto" for tiles where that takes too much.
        memory: bytes that an update may take; by default half of what is available. With
            `devices`, on each of them, or in each process where they are CPUs.
        resume: the iterate to go on from, of the same call; its place and `state` are needed, in
            strips or whole (`gatys_sharded.to_host`).
        devices: what to spread the rows of the picture over, with the same gradient
            (`gatys_sharded`), of all processes: each makes the same call, and yields the same. None
            for the default device.
        **overrides: fields of `StylizeConfig` that replace those of `config`.

    Yields:
        An `Iterate` an update, over all scales from coarse to fine. The last one is the result.
        Where tiles are computed, its picture and the arrays of its state are NumPy's, and the next
        update overwrites them; in all other cases they are JAX's.

    Raises:
        ValueError: an unknown setting or layer, pictures of another shape, weights that do not
            match the styles, or devices that cannot share a picture.
    """
    if isinstance(init, str):
        init, overrides["init"] = None, init
    config = replace(config or preset("default", scale=features.scale), **overrides)
    content = check_picture("content", content)
    pictures = [check_picture(f"style {i + 1}", style) for i, style in enumerate(styles)]
    weights = check_weights(style_weights, len(pictures))
    vgg.check_layers(features.params, {*config.content_layers, *config.style_layers})
    start = None if init is None else check_picture("init", init)
    if start is None and config.init not in INITS:
        raise ValueError(
            f"init must be one of {', '.join(INITS)}, or a picture; got {config.init!r}"
        )
    # What cannot work is refused above, at the call; the generator begins with the first next().
    network = features._replace(padding=padding or features.padding)
    mesh = None if devices is None else rows.make_mesh(devices)
    if mesh is not None and mesh.devices.flat[0].platform != platform():
        raise ValueError(f"expected devices of the default platform, {platform()}; got {devices}")
    if resume is not None and mesh is not None and jax.process_count() > 1:
        raise ValueError("a run of several processes cannot be gone on from")
    finest = scale_sizes(content.shape[0], content.shape[1], config)[-1]
    held = host_bytes(finest, network.params, config)
    cutting = gatys_sharded.cutting(tile, memory, devices, finest, held=held)
    cutting.of(network.params, config, finest)  # refuses what is no tile
    return _scales(content, pictures, weights, network, config, start, cutting, resume, mesh)


def _scales(
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    style_weights: tuple[float, ...],
    features: Weights,
    config: StylizeConfig,
    init: np.ndarray | None,
    cutting: Cutting,
    resume: Iterate | None,
    mesh: Mesh | None,
) -> Iterator[Iterate]:
    sizes = scale_sizes(content.shape[0], content.shape[1], config)
    compiled = program(config)
    begun = resume.scale if resume is not None else 1
    if resume is not None and mesh is not None:
        whole = gatys_sharded.to_host(resume.state, sizes[begun - 1][0])
        resume = resume._replace(state=whole)
    # A scale may have ended just there.
    state = None if resume is None else resume.state
    for scale, steps in enumerate(scale_steps(config, len(sizes)), 1):
        if scale < begun:
            continue
        size = sizes[scale - 1]
        canvas = images.resize(content, size)[None] if content.shape[:2] != size else content[None]
        resized = [resize_style(style, size, config) for style in styles]
        wanted, resized = match_colors(canvas, resized, config)
        before = None
        if scale > begun:
            # Of the state, as a run that goes on from here has it, to the bit.
            shown = _shown(state, config=compiled)
            before = rows.gathered(shown)[0, : sizes[scale - 2][0]]
        start = functools.partial(
            first_picture, before, init, wanted, resized, style_weights, config
        )
        state, done = (resume.state, resume.step) if scale == begun and resume else (None, 0)
        run = Scale(features, config, wanted, resized, style_weights, start, state)
        cut = _updates(run, cutting.of(features.params, config, size), mesh)
        with contextlib.closing(cut) as updates:
            numbers = range(done + 1, steps + 1)
            for step, (state, made, terms) in zip(numbers, updates, strict=False):
                picture = made
                if config.keep_colors == "luminance" and isinstance(made, np.ndarray):
                    recolor(made, canvas)  # the next update makes it anew
                elif config.keep_colors == "luminance":
                    picture = color.transfer_luminance(made, jnp.asarray(canvas))
                yield Iterate(picture[0], step, steps, scale, len(sizes), terms, state)


def _updates(
    run: Scale, side: int | None, mesh: Mesh | None
) -> Generator[tuple[State, Array, dict[str, Array]]]:
    """The updates of a scale, without an end: state, picture and terms."""
    if side is not None:
        yield from gatys_tiled.updates(run, side, mesh)
        return
    if mesh is not None:
        yield from gatys_sharded.updates(run, mesh)
        return
    params, padding, config = prepared(run.features), run.features.padding, program(run.config)
    compiled = jitted(platform())
    styles = run.styles, run.style_weights
    targets = compiled.targets(params, run.content, *styles, config, padding)
    weights = loss_weights(run.config, targets)
    state = init_state(run.start(), run.config) if run.state is None else run.state
    state = jax.tree.map(jnp.asarray, state)
    while True:
        state, shown, terms = compiled.update(state, params, targets, weights, config, padding)
        yield state, shown, terms
