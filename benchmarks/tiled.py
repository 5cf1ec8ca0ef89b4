"""How exact tiles are, and what they cost: pixel optimisation in tiles against the whole.

    python benchmarks/tiled.py [--features lite] [--size 1024] [--tile 512] [--losses all]
        [--pooling avg,max] [--at 0,5,20] [--photo FILE] [--painting FILE]
    python benchmarks/tiled.py --steps 100 [--size 1024] ...
    python benchmarks/tiled.py --rounds 5 [--size 2048] ...

The first: for each style loss, the relative L2 error of the gradient in tiles, at some steps along
one trajectory that is computed whole; the same without the hundredth of the pixels that differ
most, for where a ReLU or a maximum falls to the other side, all that it sees differs; and how far
both ways are from float64. The second: the terms after so many steps, whole and in tiles. The
third: the time of one gradient, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle import images, runtime, weights
from jaxstyle.config import StylizeConfig, preset, replace
from jaxstyle.methods import gatys, gatys_parts, gatys_tiled, gatys_updates
from jaxstyle.objective import STYLE_LOSSES, loss_weights, make_targets, objective

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"

Gradient = Callable[[np.ndarray], np.ndarray]


class Ways(NamedTuple):
    """The gradient of one objective, whole, in tiles, and whole in float64."""

    whole: Gradient
    tiled: Gradient
    exact: Gradient


def prepare(arguments: argparse.Namespace, config: StylizeConfig) -> Ways:
    """Targets and compiled functions of one style loss."""
    features, padding = arguments.network, arguments.network.padding
    program = gatys_updates.program(config)
    content, style = arguments.content[None], arguments.style[None]
    params = gatys_updates.prepared(features)
    options = gatys_updates.compiler_options(gatys_updates.platform())

    def loss(x: Any, params: Any, targets: Any, terms: Any) -> Any:
        return objective(params, x, targets, terms, program, padding)[0]

    gradient = jax.jit(jax.grad(loss), compiler_options=options)
    made = jax.jit(make_targets, static_argnames=("config", "padding"))
    aims = made(params, content, [style], (1.0,), config=program, padding=padding)
    network = gatys_parts.Network(params, padding, program)
    side = arguments.tile
    own_aims = gatys_tiled.make_targets(network, content, [style], (1.0,), side)
    terms, own_terms = loss_weights(config, aims), loss_weights(config, own_aims)

    def whole(x: np.ndarray) -> np.ndarray:
        return np.asarray(gradient(jnp.asarray(x), params, aims, terms))

    def tiled(x: np.ndarray) -> np.ndarray:
        found = np.empty_like(x)
        gatys_tiled.value_and_gradient(network, x, own_aims, own_terms, side, into=found)
        return found

    def exact(x: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            given = jax.tree.map(
                lambda array: jnp.asarray(array, jnp.float64), (features.params, content, style, x)
            )
            plain, content_, style_, x_ = given
            exact_aims = made(plain, content_, [style_], (1.0,), config=program, padding=padding)
            return np.asarray(gradient(x_, plain, exact_aims, loss_weights(config, exact_aims)))

    return Ways(whole, tiled, exact)


def trajectory(arguments: argparse.Namespace, config: StylizeConfig) -> dict[int, np.ndarray]:
    """The pictures after some of the updates, computed whole; 0 is the content."""
    found = {0: arguments.content[None]}
    if last := max(arguments.at):
        given: dict[str, Any] = {"features": arguments.network, "tile": None, "config": config}
        run = gatys.stylize(arguments.content, [arguments.style], **given)
        for step, iterate in zip(range(1, last + 1), run, strict=False):
            if step in arguments.at:
                found[step] = np.asarray(iterate.image)[None]
    return {step: found[step] for step in arguments.at}


def error(found: np.ndarray, wanted: np.ndarray, share: float = 1.0) -> float:
    """Relative, in L2, of that share of the pixels, those that differ least."""
    squares = np.sort(((found - wanted).astype(np.float64) ** 2).sum(-1), axis=None)
    kept = squares[: round(share * squares.size)]
    return float(np.sqrt(kept.sum()) / np.linalg.norm(wanted))


def exactness(arguments: argparse.Namespace) -> None:
    """Prints a row for each style loss and pooling."""
    print("| style loss | pooling | step | to the whole | of 99% | to float64 | the whole to it |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, pooling in itertools.product(arguments.losses, arguments.pooling):
        config = replace(arguments.config, style_loss=name, pooling=pooling, clamp=False)
        ways = prepare(arguments, config)
        for step, x in trajectory(arguments, config).items():
            whole, tiled, exact = (way(x) for way in ways)
            errors = error(tiled, whole), error(tiled, whole, 0.99)
            errors = *errors, error(tiled, exact), error(whole, exact)
            figures = " | ".join(f"{each:.1e}" for each in errors)
            print(f"| {name} | {pooling} | {step} | {figures} |", flush=True)
        jax.clear_caches()


def paths(arguments: argparse.Namespace) -> None:
    """Prints the terms after some steps, both ways."""
    print("| | steps | total | content | style | tv | s |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    last = []
    for side in (None, arguments.tile):
        begun = time.monotonic()
        given: dict[str, Any] = {"features": arguments.network, "config": arguments.config}
        for iterate in gatys.stylize(arguments.content, [arguments.style], tile=side, **given):
            last.append({name: float(value) for name, value in iterate.losses.items()})
        terms = " | ".join(f"{last[-1][name]:.6g}" for name in ("total", "content", "style", "tv"))
        seconds = time.monotonic() - begun
        print(f"| {side or 'whole'} | {arguments.steps} | {terms} | {seconds:.0f} |", flush=True)
    count = len(last) // 2
    pairs = zip(last[:count], last[count:], strict=True)
    ratios = [tiled["total"] / whole["total"] - 1 for whole, tiled in pairs]
    most = max(map(abs, ratios))
    print(f"\ntotal, tiles against whole: {ratios[-1]:+.2%} at the end, {most:.2%} at most")


def timing(arguments: argparse.Namespace) -> None:
    """Prints the median time of one gradient, both ways, in turns."""
    ways, x = prepare(arguments, arguments.config)[:2], arguments.content[None]
    seconds: tuple[list[float], list[float]] = [], []
    for number in range(arguments.rounds + 1):
        for gradient, found in zip(ways, seconds, strict=True):
            begun = time.perf_counter()
            gradient(x)
            if number:  # the first one compiles
                found.append(time.perf_counter() - begun)
    whole, tiled = map(statistics.median, seconds)
    times = f"whole {whole:.2f} s, tiles of {arguments.tile} {tiled:.2f} s"
    print(f"{times}: {tiled / whole:.2f} times")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", default="lite")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--losses", default="all")
    parser.add_argument("--pooling", default="avg,max")
    parser.add_argument("--at", default="0,5,20")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--photo", type=Path, default=EXAMPLES / "photo.jpg")
    parser.add_argument("--painting", type=Path, default=EXAMPLES / "painting.jpg")
    arguments = parser.parse_args()
    arguments.losses = [*STYLE_LOSSES] if arguments.losses == "all" else arguments.losses.split(",")
    arguments.pooling = arguments.pooling.split(",")
    arguments.at = [int(step) for step in arguments.at.split(",")]
    return arguments


def main() -> None:
    """Prints what was asked for."""
    arguments = parse()
    runtime.prepare(device=None, warn=print)
    network = arguments.network = weights.load(arguments.features)
    photo = images.load(arguments.photo).pixels
    size = images.fitted_size(photo.shape[0], photo.shape[1], arguments.size)
    arguments.content = images.resize(photo, size)
    arguments.style = images.load(arguments.painting, longer_side=arguments.size).pixels
    config = preset("default", scale=network.scale, heads=network.heads)
    steps = arguments.steps or max(1, *arguments.at)
    arguments.config = replace(config, size=arguments.size, scales=1, steps=steps)
    if arguments.steps:
        paths(arguments)
    elif arguments.rounds:
        timing(arguments)
    else:
        exactness(arguments)


if __name__ == "__main__":
    main()
