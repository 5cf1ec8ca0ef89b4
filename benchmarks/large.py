"""Time and memory of pixel optimisation in tiles, from one megapixel to a hundred.

    python benchmarks/large.py [--features lite] [--megapixels 1,4,16,64,100] [--steps 3]
        [--tile auto] [--memory SIZE] [--photo FILE] [--painting FILE] [--json FILE] [--plot FILE]

A row a size, each in a process of its own: seconds of the first step (with the targets and the
compilation), of each step after it, microseconds a pixel, and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import peak_mb

from jaxstyle import images, runtime, weights
from jaxstyle.commands import options

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"


def enlarged(path: Path, pixels: int) -> np.ndarray:
    """A picture 4:3 of so many pixels, out of a smaller one."""
    height = round((pixels * 3 / 4) ** 0.5)
    return images.resize(images.load(path).pixels, (height, pixels // height))


def measure(arguments: argparse.Namespace, pixels: int) -> dict[str, Any]:
    """Some steps, in this process."""
    from jaxstyle.config import preset
    from jaxstyle.methods import gatys, gatys_layout

    features = weights.load(arguments.features)
    content = enlarged(arguments.photo, pixels)
    height, width = content.shape[:2]
    config = preset("default", scale=features.scale, heads=features.heads)
    settings = {"size": max(height, width), "scales": 1, "steps": arguments.steps}
    cutting = gatys_layout.Cutting(options.tile_of(arguments), arguments.memory)
    side = cutting.of(features.params, config, (height, width))
    begun, seconds = time.monotonic(), []
    painting = images.load(arguments.painting).pixels
    given: dict[str, Any] = {"features": features, "config": config, "memory": arguments.memory}
    for iterate in gatys.stylize(content, [painting], tile=side, **given, **settings):
        float(iterate.losses["total"])
        seconds.append(time.monotonic() - begun)
        # A step may take half an hour: who waits should see it, and keep it if the run is cut off.
        print(
            f"{width} x {height}: {seconds[-1]:.1f} s, {peak_mb() / 1024:.1f} GiB", file=sys.stderr
        )
        begun = time.monotonic()
    return {
        "pixels": height * width,
        "height": height,
        "width": width,
        "tile": side,
        "seconds": seconds,
        "peak_gib": peak_mb() / 1024,
        "arrays_gib": gatys_layout.host_bytes((height, width), features.params, config) / 2**30,
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time a pixel and peak memory against pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    megapixels = [row["pixels"] / 1e6 for row in rows]
    left.plot(megapixels, [row["us_a_pixel"] for row in rows], "o-")
    left.set(xscale="log", ylim=(0, None), xlabel="megapixels", ylabel="microseconds a pixel")
    right.plot(megapixels, [row["peak_gib"] for row in rows], "o-", label="peak")
    arrays = [row["arrays_gib"] for row in rows]
    each = round(arrays[-1] * 2**30 / rows[-1]["pixels"])
    right.plot(megapixels, arrays, "--", label=f"arrays of its size ({each} bytes a pixel)")
    right.set(xscale="log", ylim=(0, None), xlabel="megapixels", ylabel="GiB")
    right.legend()
    figure.savefig(path, dpi=120)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", default="lite")
    parser.add_argument("--megapixels", default="1,4,16,64,100")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tile", type=options.tile, default="auto")
    parser.add_argument("--memory", type=options.size_in_bytes)
    parser.add_argument("--photo", type=Path, default=EXAMPLES / "photo.jpg")
    parser.add_argument("--painting", type=Path, default=EXAMPLES / "painting.jpg")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", action="store_true", help="the first size, in this process")
    return parser.parse_args()


def main() -> None:
    """Prints the table."""
    arguments = parse()
    sizes = [round(float(text) * 1e6) for text in arguments.megapixels.split(",")]
    if arguments.one:
        runtime.tune_allocator()  # as the command does
        json.dump(measure(arguments, sizes[0]), sys.stdout)
        return
    print("| picture | tile | first step, s | step, s | us a pixel | peak, GiB |")
    print("|---|--:|--:|--:|--:|--:|")
    rows = []
    for size in sizes:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", f"--megapixels={size / 1e6}"]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        first, *others = row["seconds"]
        row["us_a_pixel"] = float(np.median(others or [first])) / row["pixels"] * 1e6
        rows.append(row)
        steps = ", ".join(f"{each:.1f}" for each in others)
        print(
            f"| {row['width']} x {row['height']} | {row['tile'] or 'whole'} | {first:.1f} "
            f"| {steps} | {row['us_a_pixel']:.2f} | {row['peak_gib']:.1f} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
