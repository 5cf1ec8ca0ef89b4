"""The residual generator, side by side with PyTorch: pictures made, and steps of training.

    python benchmarks/residual.py [--sizes 256 512 1024] [--steps N] [--compile] [--only TEXT]
        [--devices 1 2 4] [--json FILE] [--quick]

Three tables: milliseconds a picture and a training step of this package and of PyTorch (the faster
of its two memory layouts, and `torch.compile` where asked for); time and peak memory of this
package alone, by size, with the shipped styles too; and training pictures a second by the number of
CPU devices. Both sides have the same parameters, pictures, losses and Adam.
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

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "jaxstyle" / "assets" / "styles.safetensors"
_VGG16 = ((64, 64), (128, 128), (256,) * 3, (512,) * 3)
_BATCH = 4
_LARGEST = 2048  # pixels, side of the largest picture whose memory is measured

# What both sides train with; the weights make the terms of like size.
CONFIG = {
    "content_layers": {"relu3_3": 1.0},
    "style_layers": dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 0.25),
    "content_weight": 1.0,
    "style_weight": 1e3,
    "style_loss": "elements",
    "normalize_features": False,
    "padding": "zero",
}
LEARNING_RATE = 1e-3

Row = dict[str, Any]


# --- what both sides are given -------------------------------------------------------------------


def random_generator(path: Path, generator: np.random.Generator) -> None:
    """Writes parameters of the full-width network, an array by each name with slashes."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp

    from jaxstyle.methods import residual

    network = residual.make_generator(residual.Config(), 1)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    arrays = {}
    for where, leaf in jax.tree.leaves_with_path(shapes):
        name = jax.tree_util.keystr(where, simple=True, separator="/")
        values = generator.standard_normal(leaf.shape)
        if name.endswith("kernel"):
            # Small in the end, as the network's own initialiser has it, for the sake of the tanh.
            gain = 0.1 if name.startswith("out/") else 2
            values *= np.sqrt(gain / np.prod(leaf.shape[:3]))
        else:
            values = 0.1 * values + name.endswith("gamma")
        arrays[name] = values.astype(np.float32)
    np.savez(path, **arrays)


def picture(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Blocks of 8 pixels and some noise, uint8 `[..., height, width, 3]`."""
    *batch, height, width = shape
    coarse = generator.random((*batch, -(-height // 8), -(-width // 8), 3))
    pixels = coarse.repeat(8, -3).repeat(8, -2)[..., :height, :width, :]
    noisy = pixels + 0.1 * generator.standard_normal(pixels.shape)
    return (255 * np.clip(noisy, 0, 1)).astype(np.uint8)


def write_files(folder: Path) -> dict[str, str]:
    """The files that all contestants share, by what they are."""
    from jaxstyle import images

    generator = np.random.default_rng(0)
    files = {
        "features": folder / "vgg16.safetensors",
        "generator": folder / "generator.npz",
        "style": folder / "style.png",
    }
    random_vgg(files["features"], generator, _VGG16)
    random_generator(files["generator"], generator)
    images.save(files["style"], picture(generator, 256, 256).astype(np.float32) / 255)
    return {name: str(path) for name, path in files.items()}


def task_settings(task: str, size: int, files: dict[str, str], folder: Path) -> dict[str, Any]:
    """What the contestants of one row are told; the pictures are written anew."""
    pictures = folder / "pictures.npy"
    rows = _BATCH if task == "train" else 1
    np.save(pictures, picture(np.random.default_rng(size), rows, size, size))
    return {
        **files,
        "task": task,
        "size": size,
        "config": CONFIG,
        "learning_rate": LEARNING_RATE,
        "pictures": str(pictures),
    }


# --- contestants ---------------------------------------------------------------------------------


def ours(settings: dict[str, Any], folder: Path, **environment: str) -> Contestant:
    """This package."""
    shared = {"PYTHONPATH": str(HERE.parent), "JAXSTYLE_CACHE_DIR": str(folder / "cache")}
    return Contestant(HERE / "residual_jax.py", settings, {**os.environ, **shared, **environment})


def theirs(settings: dict[str, Any], *, compiled: bool) -> dict[str, Contestant]:
    """PyTorch in its ways, by name; without the compiler where that does not work."""
    ways = {"eager": {"channels_last": False}, "channels last": {"channels_last": True}}
    if compiled:
        ways["compiled"] = {"channels_last": True, "compile": True}
    found = {}
    for name, options in ways.items():
        try:
            found[name] = Contestant(HERE / "residual_torch.py", settings | options, {**os.environ})
        except SystemExit as error:
            if name != "compiled":
                raise
            print(f"torch.compile does not work here: {error}", file=sys.stderr)
    return found


def compare(task: str, size: int, files: dict[str, str], folder: Path, **options: Any) -> Row:
    """A row of the first table: both sides, in turns."""
    settings = task_settings(task, size, files, folder)
    own = ours(settings | {"output": str(folder / "ours.npy")}, folder)
    others = theirs(settings | {"output": str(folder / "theirs.npy")}, compiled=options["compiled"])
    race([own, *others.values()], options["steps"])
    for contestant in (own, *others.values()):
        contestant.close()
    eager = {name: each for name, each in others.items() if name != "compiled"}
    best = min(eager.values(), key=Contestant.median)
    row: Row = {
        "task": task,
        "size": size,
        "ours_ms": own.median(),
        **{f"{name} ms": each.median() for name, each in others.items()},
        "ratio": own.median() / best.median(),
        "ours_mb": own.peak_mb,
        "theirs_mb": best.peak_mb,
        "compile_s": own.figures["first_s"],
        "steps": options["steps"],
    }
    if "compiled" in others:
        row["compiled ratio"] = own.median() / others["compiled"].median()
        row["their compile_s"] = others["compiled"].figures["first_s"]
    if task == "train":
        row["losses"] = [[each.figures["first_loss"], each.loss] for each in (own, best)]
        row["agreement"] = "loss {:.6g}, {:.6g}".format(*row["losses"][0])
        row["agreement"] += " against {:.6g}, {:.6g}".format(*row["losses"][1])
    else:
        made = [np.load(folder / f"{name}.npy") for name in ("ours", "theirs")]
        row["difference"] = float(np.max(np.abs(made[0] - made[1])))
        row["agreement"] = f"differ by {row['difference']:.1e} at most"
    return row


def alone(
    task: str, size: int, files: dict[str, str], folder: Path, steps: int, **model: str
) -> Row:
    """A row of the second table."""
    contestant = ours(task_settings(task, size, files, folder) | model, folder)
    race([contestant], steps)
    contestant.close()
    return {
        "task": task,
        "size": size,
        "ours_ms": contestant.median(),
        "ours_mb": contestant.peak_mb,
        "idle_mb": contestant.figures["idle_mb"],
        "compile_s": contestant.figures["first_s"],
    }


def by_devices(
    counts: Sequence[int], size: int, files: dict[str, str], folder: Path, steps: int
) -> list[Row]:
    """The rows of the third table: the same batch over different numbers of devices, in turns."""
    settings = task_settings("train", size, files, folder)
    flags = "--xla_force_host_platform_device_count={}"
    contestants = [ours(settings, folder, XLA_FLAGS=flags.format(count)) for count in counts]
    race(contestants, steps)
    rows = []
    for count, contestant in zip(counts, contestants, strict=True):
        contestant.close()
        assert contestant.figures["devices"] == count
        rows.append(
            {
                "task": "devices",
                "devices": count,
                "size": size,
                "images_per_second": 1e3 * _BATCH / contestant.median(),
                "ours_mb": contestant.peak_mb,
                "loss": contestant.loss,
            }
        )
    return rows


# --- tables --------------------------------------------------------------------------------------

_NAMES = {
    "infer": "a picture, full width",
    "train": f"a training step, batch {_BATCH}",
    "paint": "a picture, the shipped styles",
}


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """In Markdown."""
    print()
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")
    sys.stdout.flush()


def print_comparison(rows: Sequence[Row]) -> None:
    """The first table."""
    head = ["", "jaxstyle", "PyTorch eager", "channels last", "compiled", "ratio to eager"]
    head += ["ratio to compiled", "peak memory", "PyTorch's", "first run", "agreement"]

    def cell(row: Row, name: str, form: str) -> str:
        return form.format(row[name]) if name in row else ""

    def cells(row: Row) -> list[str]:
        return [
            f"{_NAMES[row['task']]}, {row['size']} px",
            f"{row['ours_ms']:.0f} ms",
            *(cell(row, f"{name} ms", "{:.0f} ms") for name in ("eager", "channels last")),
            cell(row, "compiled ms", "{:.0f} ms"),
            f"{row['ratio']:.2f}",
            cell(row, "compiled ratio", "{:.2f}"),
            f"{row['ours_mb']:.0f} MB",
            f"{row['theirs_mb']:.0f} MB",
            f"{row['compile_s']:.1f} s",
            row["agreement"],
        ]

    print_table(head, [cells(row) for row in rows])


def print_alone(rows: Sequence[Row]) -> None:
    """The second table."""
    head = ["", "jaxstyle", "peak memory", "before the first picture", "first run"]
    print_table(
        head,
        [
            [
                f"{_NAMES[row['task']]}, {row['size']} px",
                f"{row['ours_ms']:.0f} ms",
                f"{row['ours_mb']:.0f} MB",
                f"{row['idle_mb']:.0f} MB",
                f"{row['compile_s']:.1f} s",
            ]
            for row in rows
        ],
    )


def print_devices(rows: Sequence[Row]) -> None:
    """The third table."""
    print_table(
        ["CPU devices", "training pictures a second", "peak memory", "loss"],
        [
            [
                f"{row['devices']}",
                f"{row['images_per_second']:.3f}",
                f"{row['ours_mb']:.0f} MB",
                f"{row['loss']:.6g}",
            ]
            for row in rows
        ],
    )


def main() -> None:
    """Prints the tables, and writes their rows where `--json` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", help="of pictures (default: 256 512 1024)")
    parser.add_argument("--crop", type=int, help="size of training pictures (default: 256)")
    parser.add_argument("--steps", type=int, help="timed steps of each contestant")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile, too")
    parser.add_argument("--devices", type=int, nargs="+", default=[], help="numbers of CPU devices")
    parser.add_argument(
        "--only",
        help="rows whose task and size contain this text: infer, train, "
        "paint, memory, devices, or infer 512",
    )
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit("this benchmark needs PyTorch beside jaxstyle: pip install torch==2.13.0")
    sizes = arguments.sizes or ([64, 96] if arguments.quick else [256, 512, 1024])
    crop = arguments.crop or (64 if arguments.quick else 256)
    steps = arguments.steps or (2 if arguments.quick else 9)
    largest = [] if arguments.quick or arguments.sizes else [_LARGEST]

    def wanted(task: str, size: int) -> bool:
        return not arguments.only or arguments.only in f"{task} {size}"

    def measure(measured: Callable[..., Row], *rest: Any, **options: Any) -> Row:
        row = measured(*rest, **options)
        print(json.dumps(row), file=sys.stderr, flush=True)
        return row

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(folder)
        tasks = [*(("infer", size) for size in sizes), ("train", crop)]
        options = {"steps": steps, "compiled": arguments.compile}
        compared = [
            measure(compare, task, size, files, folder, **options)
            for task, size in tasks
            if wanted(task, size)
        ]
        if compared:
            print_comparison(compared)
        memory = [*sizes, *largest]
        lone = [
            measure(alone, "infer", size, files, folder, steps=2)
            for size in memory
            if wanted("memory", size)
        ]
        if SHIPPED.is_file():
            lone += [
                measure(alone, "paint", size, files, folder, steps=steps, model=str(SHIPPED))
                for size in sorted({*memory, 512})
                if wanted("paint", size)
            ]
        elif wanted("paint", 512):
            print(f"left out: the shipped styles, as there is no {SHIPPED}", file=sys.stderr)
        if lone:
            print_alone(lone)
        scaled: list[Row] = []
        if arguments.devices and wanted("devices", crop):
            scaled = by_devices(arguments.devices, crop, files, folder, steps)
            print_devices(scaled)
        rows = [*compared, *lone, *scaled]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
