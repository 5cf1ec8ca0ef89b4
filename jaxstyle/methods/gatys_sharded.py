"""Pixel optimisation of pictures whose rows several devices share, with the same gradient.

Everything of the picture's size is spread over the devices, a strip of rows each
(`jaxstyle.rows`): pixels, the optimiser's state, features. For each convolution neighbours exchange
a row, and once an update the sums that the style's statistics are made of are added up over all
devices. Whatever the height, the objective is that of the whole picture.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxstyle import features as vgg
from jaxstyle.config import StylizeConfig
from jaxstyle.methods import gatys_updates
from jaxstyle.methods.gatys_layout import Cutting, Sizes
from jaxstyle.methods.gatys_parts import (
    Network,
    Totals,
    Whole,
    describe,
    parts,
    style_targets_of,
    style_term,
)
from jaxstyle.methods.gatys_scales import Scale
from jaxstyle.methods.gatys_updates import State
from jaxstyle.objective import LossWeights, Sums, Targets, loss_weights, united
from jaxstyle.rows import PICTURE_AXES, Layout

# All that there is counts.
_BOUNDS = np.array([[0, 2**30], [0, 2**30]], np.int32)


def objective(
    params: vgg.Parameters,
    variables: Array,
    targets: Targets,
    weights: LossWeights,
    whole: Whole,
    config: StylizeConfig,
    padding: str,
    layout: Layout,
) -> tuple[Array, dict[str, Array]]:
    """`objective.objective` of a picture in strips, each summed around its own mean.

    Args:
        params: the network.
        variables: `[1, rows, width, 3]`, as `layout` spreads them.
        targets: as `make_targets` has them.
        weights: of the terms.
        whole: numbers of the picture.
        config: settings.
        padding: of the network.
        layout: of the picture.
    """
    given = params, variables, jnp.asarray(_BOUNDS), targets.content, None, weights, whole
    sums, local = parts(*given, config=config, padding=padding, layout=layout)
    sums = {name: united(each) for name, each in sums.items()}
    style = style_term(sums, whole.positions, targets.style, weights.style, config=config)
    terms = {"content": local["content"], "style": style, "tv": local["tv"]}
    total = terms["content"] + terms["style"] + terms["tv"]
    return total, {"total": total, **terms}


def update(
    state: State,
    params: vgg.Parameters,
    targets: Targets,
    weights: LossWeights,
    whole: Whole,
    config: StylizeConfig,
    padding: str,
    layout: Layout,
) -> tuple[State, Array, dict[str, Array]]:
    """`gatys_updates.update` of a picture in strips; a pure function.

    Args:
        state: as `gatys_updates.init_state` has it at first, of what is spread.
        params: the network.
        targets: as `make_targets` has them.
        weights: of the terms.
        whole: numbers of the picture.
        config: settings.
        padding: of the network.
        layout: of the picture.

    Returns:
        The new state, the picture to show in strips, and the terms of the loss before the update.
    """

    def loss_fn(variables: Array) -> tuple[Array, dict[str, Array]]:
        return objective(params, variables, targets, weights, whole, config, padding, layout)

    return gatys_updates.step(state, loss_fn, config)


@functools.cache
def jitted(platform: str) -> Any:
    """The compiled update for a platform: "cpu", "gpu" or "tpu"; it is given its state."""
    return jax.jit(
        update,
        static_argnames=("config", "padding", "layout"),
        donate_argnums=0,
        compiler_options=gatys_updates.compiler_options(platform),
    )


def make_targets(
    network: Network,
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    style_weights: Sequence[float],
) -> Targets:
    """The targets of `objective.make_targets`, on the devices: the content's features in strips.

    Args:
        network: with a mesh.
        content: `[1, height, width, 3]`.
        styles: pictures `[1, h, w, 3]`, each of its own size.
        style_weights: one a style; they sum to one.
    """
    kept, _ = _described(network, content)
    found = [(style.shape[1:3], *_described(network, style)[1]) for style in styles]
    style_targets, size = style_targets_of(found, style_weights, network.config)
    return Targets(kept, Layout(network.mesh).copy(style_targets), size)


def _described(
    network: Network, picture: np.ndarray
) -> tuple[dict[str, Array], tuple[dict[str, Sums], dict[str, np.ndarray]]]:
    """Features of a picture in strips, and its sums in the host's memory, in float64."""
    layout = network.layout(picture.shape[1])
    kept, sums = describe(
        network.params,
        layout.spread(picture),
        layout.copy(_BOUNDS),
        config=network.config,
        padding=network.padding,
        layout=layout,
    )
    totals = Totals()
    totals.add(*sums)
    return kept, totals.value


# --- updates -------------------------------------------------------------------------------------


def updates(run: Scale, mesh: Mesh) -> Iterator[tuple[State, Array, dict[str, Array]]]:
    """The updates of a scale, without an end: state, picture and terms, as `gatys` has them.

    The state is in strips (`to_host`); the picture is whole, on a device of this process.

    Args:
        run: the scale.
        mesh: the devices.
    """
    network = Network.of(run.features, run.config, mesh)
    content, styles = np.asarray(run.content), [np.asarray(style) for style in run.styles]
    layout = network.layout(content.shape[1])
    targets = make_targets(network, content, styles, run.style_weights)
    weights = loss_weights(run.config, targets)
    whole = Whole.of(content.shape[1:3], network.config)
    given = network.params, targets._replace(size={}), *layout.copy((weights, whole))
    static = {"config": network.config, "padding": network.padding, "layout": layout}
    compiled = jitted(gatys_updates.platform())
    state = place(run.state, layout) if run.state is not None else first_state(run, layout)
    while True:
        state, shown, terms = compiled(state, *given, **static)
        yield state, layout.gather(shown), terms


def first_state(run: Scale, layout: Layout) -> State:
    """`gatys_updates.init_state`, in strips.

    Args:
        run: the scale.
        layout: of the picture.
    """
    start = layout.spread(run.start())
    init = functools.partial(gatys_updates.init_state, config=run.config)
    shardings = jax.tree.map(lambda leaf: layout.sharding(leaf.ndim), jax.eval_shape(init, start))
    return jax.jit(init, out_shardings=shardings)(start)


def place(state: State, layout: Layout) -> State:
    """A state in strips.

    Args:
        state: as `to_host` gives it.
        layout: of the picture.
    """

    def placed(leaf: Any) -> Array:
        return layout.spread(leaf) if np.ndim(leaf) >= PICTURE_AXES else layout.copy(leaf)

    return jax.tree.map(placed, state)


def to_host(state: State, height: int) -> State:
    """A state in the host's memory, with the picture's rows alone; of one process.

    Args:
        state: in strips.
        height: of the picture.
    """
    arrays = jax.tree.map(np.asarray, state)
    return jax.tree.map(
        lambda leaf: leaf[..., :height, :, :] if leaf.ndim >= PICTURE_AXES else leaf, arrays
    )


def cutting(
    tile: int | str | None,
    memory: int | None,
    devices: Sequence[Any] | None,
    size: Sizes,
    *,
    held: int | None = None,
) -> Cutting:
    """How a picture may be cut into tiles whose rows lie on some devices, or on the default one.

    Args:
        tile: as for `Cutting`.
        memory: bytes that an update may take on each device, or in each process where they are
            CPUs; by default half of what is available.
        devices: those of all processes; None for the default device.
        size: height and width of the picture at its finest scale.
        held: what its arrays take in the host's memory; by default what is usual.

    Returns:
        The same in every process, with the memory of all devices together.
    """
    found = Cutting(tile, memory).settled(size, held=held)
    own = found.memory
    if devices is None or own is None:
        return found
    if jax.process_count() > 1:
        # Tiles must be the same everywhere.
        own = int(multihost_utils.process_allgather(np.float32(own)).min())
    shared = devices[0].platform == "cpu"
    return Cutting(tile, own * (jax.process_count() if shared else len(devices)))
