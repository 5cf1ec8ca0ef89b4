"""AdaIN, side by side with PyTorch: a pair of pictures, and frames with one painting.

    python benchmarks/adain.py [--sizes 256 512] [--steps N] [--compile] [--only TEXT] [--json FILE]
        [--quick]

Two tables: milliseconds a picture at full width (VGG-19 to relu4_1 and the decoder that mirrors it,
random parameters) of this package and of PyTorch, the faster of its two memory layouts; and time,
frames a second and peak memory of this package alone, with the shipped model, or with a network of
its form where there is none. A pair is encoded twice, photograph and painting; for a frame the
painting was encoded before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gatys import random_vgg
from harness import Contestant, race
from residual import picture, print_table

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "jaxstyle" / "assets" / "adain.safetensors"
_VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,))
# What the shipped model is like: the features that come along, three levels, a small code.
_NARROW = {"levels": ["relu2_1", "relu3_1", "relu4_1"], "modulation": 64}

Row = dict[str, Any]


# --- what both sides are given -------------------------------------------------------------------


def random_decoder(path: Path, generator: np.random.Generator, config: dict[str, Any]) -> None:
    """Writes parameters of the decoder of some settings, an array by each name with slashes."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp

    from jaxstyle.methods import adain

    settings = adain.Config(**config | {"levels": tuple(config["levels"])})
    encoder, padding = adain.read_encoder(settings)
    network = adain.make_network(settings, encoder, padding)

    def init(key: Any) -> Any:
        features = adain.encode(network, encoder, jnp.zeros((1, 16, 16, 3)))
        return network.decoder.init(key, features, adain.code_of(features))["params"]

    arrays = {}
    for where, leaf in jax.tree.leaves_with_path(jax.eval_shape(init, jax.random.key(0))):
        name = jax.tree_util.keystr(where, simple=True, separator="/")
        values = 0.1 * generator.standard_normal(leaf.shape)
        if name.endswith("kernel"):
            # Small in the end, and in what is added, for pictures that are not all black and white.
            last = name.startswith(("conv1_1/", "skip"))
            values *= 10 * np.sqrt((0.01 if last else 2) / np.prod(leaf.shape[:-1]))
        arrays[name] = values.astype(np.float32)
    np.savez(path, **arrays)


def write_networks(folder: Path) -> dict[str, dict[str, Any]]:
    """What the contestants are told of the two networks, by their names."""
    generator = np.random.default_rng(0)
    random_vgg(folder / "vgg19.safetensors", generator, _VGG19)
    full = {"encoder": str(folder / "vgg19.safetensors"), "encoder_padding": "reflect"}
    found = {}
    for name, config in (("full", full | {"levels": ["relu4_1"]}), ("narrow", _NARROW)):
        path = folder / f"{name}.npz"
        random_decoder(path, generator, config)
        found[name] = {"config": config, "decoder": str(path)}
    if SHIPPED.is_file():
        found["narrow"] = {"model": str(SHIPPED)}
    return found


def task_settings(task: str, size: int, network: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the contestants of one row are told; the pictures are written anew."""
    pictures = folder / "pictures.npy"
    np.save(pictures, picture(np.random.default_rng(size), 2, size, size))
    return {**network, "task": task, "size": size, "pictures": str(pictures)}


# --- contestants ---------------------------------------------------------------------------------


def ours(settings: dict[str, Any], folder: Path) -> Contestant:
    """This package."""
    shared = {"PYTHONPATH": str(HERE.parent), "JAXSTYLE_CACHE_DIR": str(folder / "cache")}
    return Contestant(HERE / "adain_jax.py", settings, {**os.environ, **shared})


def theirs(settings: dict[str, Any], *, compiled: bool) -> dict[str, Contestant]:
    """PyTorch in its ways, by name; without the compiler where that does not work."""
    ways = {"eager": {"channels_last": False}, "channels last": {"channels_last": True}}
    if compiled:
        ways["compiled"] = {"channels_last": True, "compile": True}
    found = {}
    for name, options in ways.items():
        try:
            found[name] = Contestant(HERE / "adain_torch.py", settings | options, {**os.environ})
        except SystemExit as error:
            if name != "compiled":
                raise
            print(f"torch.compile does not work here: {error}", file=sys.stderr)
    return found


def compare(
    task: str, size: int, network: dict[str, Any], folder: Path, *, steps: int, compiled: bool
) -> Row:
    """A row of the first table: both sides, in turns."""
    settings = task_settings(task, size, network, folder)
    own = ours(settings | {"output": str(folder / "ours.npy")}, folder)
    others = theirs(settings | {"output": str(folder / "theirs.npy")}, compiled=compiled)
    race([own, *others.values()], steps)
    for contestant in (own, *others.values()):
        contestant.close()
    eager = {name: each for name, each in others.items() if name != "compiled"}
    best = min(eager.values(), key=Contestant.median)
    made = [np.load(folder / f"{name}.npy") for name in ("ours", "theirs")]
    row: Row = {
        "task": task,
        "size": size,
        "ours_ms": own.median(),
        **{f"{name} ms": each.median() for name, each in others.items()},
        "ratio": own.median() / best.median(),
        "ours_mb": own.peak_mb,
        "theirs_mb": best.peak_mb,
        "compile_s": own.figures["first_s"],
        "difference": float(np.max(np.abs(made[0] - made[1]))),
        "deviation": float(made[1].std()),
        "steps": steps,
    }
    if "compiled" in others:
        row["compiled ratio"] = own.median() / others["compiled"].median()
    return row


def alone(task: str, size: int, network: dict[str, Any], folder: Path, *, steps: int) -> Row:
    """A row of the second table."""
    contestant = ours(task_settings(task, size, network, folder), folder)
    race([contestant], steps)
    contestant.close()
    return {
        "task": task,
        "size": size,
        "ours_ms": contestant.median(),
        "ours_mb": contestant.peak_mb,
        "idle_mb": contestant.figures["idle_mb"],
        "compile_s": contestant.figures["first_s"],
        "shipped": "model" in network,
    }


# --- tables --------------------------------------------------------------------------------------

_NAMES = {"pair": "a photograph and a painting", "frame": "a frame"}


def print_comparison(rows: Sequence[Row]) -> None:
    """The first table."""
    head = ["full width", "jaxstyle", "PyTorch eager", "channels last", "compiled"]
    head += ["ratio to eager", "peak memory", "PyTorch's", "first run", "differ by at most"]

    def cells(row: Row) -> list[str]:
        compiled = f"{row['compiled ms']:.0f} ms" if "compiled ms" in row else ""
        return [
            f"{_NAMES[row['task']]}, {row['size']} px",
            f"{row['ours_ms']:.0f} ms",
            *(f"{row[f'{name} ms']:.0f} ms" for name in ("eager", "channels last")),
            compiled,
            f"{row['ratio']:.2f}",
            f"{row['ours_mb']:.0f} MB",
            f"{row['theirs_mb']:.0f} MB",
            f"{row['compile_s']:.1f} s",
            f"{row['difference']:.1e}",
        ]

    print_table(head, [cells(row) for row in rows])


def print_alone(rows: Sequence[Row]) -> None:
    """The second table."""
    head = ["the shipped model" if rows[0]["shipped"] else "a narrow network", "jaxstyle"]
    head += ["a second", "peak memory", "before the first picture", "first run"]
    print_table(
        head,
        [
            [
                f"{_NAMES[row['task']]}, {row['size']} px",
                f"{row['ours_ms']:.0f} ms",
                f"{1e3 / row['ours_ms']:.1f}",
                f"{row['ours_mb']:.0f} MB",
                f"{row['idle_mb']:.0f} MB",
                f"{row['compile_s']:.1f} s",
            ]
            for row in rows
        ],
    )


def main() -> None:
    """Prints the tables, and writes their rows where `--json` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", help="of pictures (default: 256 512)")
    parser.add_argument("--steps", type=int, help="timed steps of each contestant")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument(
        "--only", default="", help="rows with this text, such as full, narrow frame, or pair 512"
    )
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit("this benchmark needs PyTorch beside jaxstyle: pip install torch==2.13.0")
    sizes = arguments.sizes or ([64, 96] if arguments.quick else [256, 512])
    steps = arguments.steps or (2 if arguments.quick else 9)
    if not SHIPPED.is_file():
        print(f"there is no {SHIPPED}: random parameters in its place", file=sys.stderr)

    def measure(network: str, measured: Callable[..., Row], **options: Any) -> list[Row]:
        found = []
        for task in _NAMES:
            for size in sizes:
                if arguments.only in f"{network} {task} {size}":
                    row = measured(task, size, networks[network], folder, steps=steps, **options)
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    found.append(row)
        return found

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks = write_networks(folder)
        if compared := measure("full", compare, compiled=arguments.compile):
            print_comparison(compared)
        if lone := measure("narrow", alone):
            print_alone(lone)
    if arguments.json:
        arguments.json.write_text(json.dumps([*compared, *lone], indent=1) + "\n")


if __name__ == "__main__":
    main()
