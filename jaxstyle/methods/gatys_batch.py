"""Pixel optimisation of several pictures at once: one photograph, in variants of the settings.

What `jaxstyle.methods.gatys` does with one picture is mapped over many by `jax.vmap` (with L-BFGS,
whose searches differ in length, one after the other). Weights, the step size, starts and targets
may differ from picture to picture within one compiled update; what the compiler must know (the
losses, the optimiser, the layers) and the schedule of scales and steps are common to a group.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import color, images, tiling
from jaxstyle import features as vgg
from jaxstyle.config import INITS, StylizeConfig, replace
from jaxstyle.methods import gatys_updates
from jaxstyle.methods.gatys_layout import picture_bytes
from jaxstyle.methods.gatys_scales import (
    check_picture,
    first_picture,
    match_colors,
    resize_style,
    scale_sizes,
    scale_steps,
)
from jaxstyle.methods.gatys_updates import State
from jaxstyle.objective import LossWeights, Targets, loss_weights
from jaxstyle.weights import Weights


class Variant(NamedTuple):
    """One of the pictures to make.

    Attributes:
        style: the painting, `[h, w, 3]` in [0, 1], of any size.
        config: the settings.
    """

    style: Any
    config: StylizeConfig


class Iterates(NamedTuple):
    """What an update of a group yields; `n` pictures are in it.

    Attributes:
        images: float32 `[n, height, width, 3]` in [0, 1], the pictures so far.
        step: the update, from 1, in this scale.
        steps: how many updates this scale has.
        scale: the scale, from 1.
        scales: how many scales there are.
        losses: the weighted terms before the update, `[n]` each: `total`, `content`, `style`, `tv`.
    """

    images: Array
    step: int
    steps: int
    scale: int
    scales: int
    losses: dict[str, Array]


class Group(NamedTuple):
    """Pictures that are optimised together.

    Attributes:
        members: which of the variants, in order.
        work: pixels of a picture and steps, for each scale.
        iterates: an `Iterates` an update, from coarse to fine; the last one has the results.
    """

    members: tuple[int, ...]
    work: list[tuple[int, int]]
    iterates: Iterator[Iterates]


class _Shared(NamedTuple):
    """What all groups have in common."""

    content: np.ndarray
    init: np.ndarray | None
    features: Weights
    prepared: vgg.Parameters


def stylize_together(
    content: Any,
    variants: Sequence[Variant],
    *,
    features: Weights,
    init: Any | None = None,
    padding: str | None = None,
    group: int | None = None,
    memory: int | None = None,
) -> Iterator[Group]:
    """Stylises a picture in several ways, as many at once as memory allows.

    Each picture is the one that `gatys.stylize` makes with the same settings, but for rounding.

    Args:
        content: `[height, width, 3]` in [0, 1], at its full size: it is resized.
        variants: what to make, each of the same `size`. A painting that is the same object in
            several variants is looked at once.
        features: the perceptual network, as `jaxstyle.weights.load` gives it.
        init: the picture to start from, of any size, in place of what the settings say.
        padding: of the network, in place of what the features were trained with.
        group: how many pictures to optimise together at most; as many as memory allows if None.
        memory: bytes for them; by default half of what is available.

    Yields:
        The groups one after the other. The iterates of one are to be used up, or left, before the
        next is asked for.

    Raises:
        ValueError: no variants, sizes that differ, pictures of another shape, an unknown layer or
            start, or a group below 1.
    """
    checked = {id(v.style): check_picture("style", v.style) for v in variants}
    known = [Variant(checked[id(v.style)], v.config) for v in variants]
    content = check_picture("content", content)
    start = None if init is None else check_picture("init", init)
    _check(known, features, start, group)
    groups = plan(known, content.shape[:2], features=features, group=group, memory=memory)
    # What cannot work is refused above, at the call; the generator begins with the first next().
    return _groups(content, known, groups, features, start, padding or features.padding)


def optimise_together(content: Any, variants: Sequence[Variant], **options: Any) -> np.ndarray:
    """The pictures of `stylize_together`, whose arguments it takes, `[n, height, width, 3]`.

    Raises:
        ValueError: as `stylize_together`.
    """
    found: dict[int, np.ndarray] = {}
    for group in stylize_together(content, variants, **options):
        last = None
        for iterates in group.iterates:
            last = iterates.images
        found |= zip(group.members, np.asarray(last), strict=True)
    return np.stack([found[index] for index in range(len(found))])


def plan(
    variants: Sequence[Variant],
    shape: Sequence[int],
    *,
    features: Weights,
    group: int | None = None,
    memory: int | None = None,
) -> list[tuple[int, ...]]:
    """Which variants are optimised together: those that one program and one schedule serve.

    Args:
        variants: what to make.
        shape: height and width of the content.
        features: the perceptual network.
        group: how many pictures at most; by memory if None.
        memory: bytes for them; by default half of what is available.

    Returns:
        The members of each group. Groups of one program have about the same number of them.
    """
    alike: dict[Any, list[int]] = {}
    for index, variant in enumerate(variants):
        alike.setdefault(_key(variant.config, shape), []).append(index)
    if group is None and memory is None:
        memory = tiling.available_memory() // 2
    found = []
    for members in alike.values():
        most = group
        if most is None:
            config = variants[members[0]].config
            size = scale_sizes(shape[0], shape[1], config)[-1]
            most = max(1, (memory or 0) // picture_bytes(features.params, config, size))
        size = tiling.even_share(len(members), most)
        found += [tuple(members[i : i + size]) for i in range(0, len(members), size)]
    return found


def _key(config: StylizeConfig, shape: Sequence[int]) -> tuple[Any, ...]:
    """What the pictures of a group have in common."""
    sizes = scale_sizes(shape[0], shape[1], config)
    steps = scale_steps(config, len(sizes))
    return program(config), tuple(sizes), tuple(steps), config.keep_colors


def program(config: StylizeConfig) -> StylizeConfig:
    """What the compiler must know: a step size is an argument, as weights are."""
    default = StylizeConfig().learning_rate
    return replace(gatys_updates.program(config), learning_rate=default)


def _check(
    variants: Sequence[Variant], features: Weights, init: np.ndarray | None, group: int | None
) -> None:
    if not variants:
        raise ValueError("expected at least one variant")
    sizes = sorted({variant.config.size for variant in variants})
    if len(sizes) > 1:
        raise ValueError(f"expected variants of one size; got {', '.join(map(str, sizes))}")
    if group is not None and group < 1:
        raise ValueError(f"group must be 1 or more; got {group}")
    for _, config in variants:
        vgg.check_layers(features.params, {*config.content_layers, *config.style_layers})
        if init is None and config.init not in INITS:
            raise ValueError(
                f"init must be one of {', '.join(INITS)}, or a picture; got {config.init!r}"
            )


# The optimisation


def _groups(
    content: np.ndarray,
    variants: Sequence[Variant],
    groups: Sequence[tuple[int, ...]],
    network: Weights,
    init: np.ndarray | None,
    padding: str,
) -> Iterator[Group]:
    network = network._replace(padding=padding)
    shared = _Shared(content, init, network, gatys_updates.prepared(network))
    fullest: dict[Any, int] = {}
    for members in groups:
        config = variants[members[0]].config
        sizes = scale_sizes(content.shape[0], content.shape[1], config)
        counts = scale_steps(config, len(sizes))
        work = [(size[0] * size[1], steps) for size, steps in zip(sizes, counts, strict=True)]
        # Copies of the last picture fill the last group: that compiles nothing, and takes less.
        count = fullest.setdefault(_key(config, content.shape), len(members))
        filled = [*members, *[members[-1]] * (count - len(members))]
        chosen = [variants[index] for index in filled]
        yield Group(members, work, _optimise(chosen, len(members), shared))


def _optimise(variants: Sequence[Variant], wanted: int, shared: _Shared) -> Iterator[Iterates]:
    """The course of a group, of which the first `wanted` pictures are shown."""
    config, content = variants[0].config, shared.content
    sizes = scale_sizes(content.shape[0], content.shape[1], config)
    counts = scale_steps(config, len(sizes))
    update = jitted(gatys_updates.platform())
    compiled = program(config)
    rates = jnp.asarray([variant.config.learning_rate for variant in variants], jnp.float32)
    shown = None
    for scale, (size, steps) in enumerate(zip(sizes, counts, strict=True), 1):
        canvas = jnp.asarray(images.resize(content, size))[None]
        before = None if shown is None else np.asarray(shown)[:, 0]
        states, targets, weights = _begin(variants, canvas, before, compiled, shared)
        for step in range(1, steps + 1):
            states, shown, terms = update(
                states,
                shared.prepared,
                targets,
                weights,
                rates,
                compiled,
                shared.features.padding,
            )
            pictures = shown[:wanted, 0]
            if config.keep_colors == "luminance":
                pictures = color.transfer_luminance(pictures, canvas)
            losses = {name: values[:wanted] for name, values in terms.items()}
            yield Iterates(pictures, step, steps, scale, len(sizes), losses)


def _begin(
    variants: Sequence[Variant],
    canvas: Array,
    before: np.ndarray | None,
    compiled: StylizeConfig,
    shared: _Shared,
) -> tuple[State, Targets, LossWeights]:
    """States, targets and weights of a scale, with an axis of pictures in front of each array.

    Args:
        variants: the pictures.
        canvas: the content at this scale, `[1, height, width, 3]`.
        before: the pictures of the coarser scale, `[n, h, w, 3]`.
        compiled: what the compiled functions read.
        shared: what all groups have in common.
    """
    size = (canvas.shape[1], canvas.shape[2])
    make = gatys_updates.jitted(gatys_updates.platform()).targets
    found: dict[Any, tuple[Targets, Any, list[Array]]] = {}
    rows = []
    for index, (style, config) in enumerate(variants):
        key = id(style), config.style_scale
        if key not in found:
            wanted, resized = match_colors(canvas, [resize_style(style, size, config)], config)
            network = shared.features
            made = make(network.params, wanted, resized, (1.0,), compiled, network.padding)
            found[key] = made, wanted, resized
        targets, wanted, resized = found[key]
        last = None if before is None else before[index]
        start = first_picture(last, shared.init, wanted, resized, (1.0,), config)
        state = gatys_updates.init_state(start, compiled)
        rows.append((state, targets, loss_weights(config, targets)))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


@functools.cache
def jitted(platform: str) -> Any:
    """The compiled update of a group for a platform, which is given its states."""
    return jax.jit(
        update,
        static_argnames=("config", "padding"),
        donate_argnums=0,
        compiler_options=gatys_updates.compiler_options(platform),
    )


def update(
    states: State,
    params: vgg.Parameters,
    targets: Targets,
    weights: LossWeights,
    learning_rates: Array,
    config: StylizeConfig,
    padding: str,
) -> tuple[State, Array, dict[str, Array]]:
    """`gatys_updates.update` of every picture of a group; the network is common to them.

    Args:
        states: of `gatys_updates.init_state`, with an axis of pictures in front, as all here.
        params: the network, as it is for one picture.
        targets: what each is compared with.
        weights: of each one's losses.
        learning_rates: `[n]`, in place of that in the settings.
        config: settings.
        padding: of the network.

    Returns:
        The new states, the pictures to show `[n, 1, height, width, 3]`, and the terms of the
        losses before the update, `[n]` each.
    """

    def one(state: State, target: Targets, weight: LossWeights, rate: Array) -> Any:
        return gatys_updates.update(state, params, target, weight, config, padding, rate)

    if config.optimizer == "lbfgs":
        # Its line search takes one way or another, and mapped it would take all of them.
        return jax.lax.map(lambda row: one(*row), (states, targets, weights, learning_rates))
    return jax.vmap(one)(states, targets, weights, learning_rates)
