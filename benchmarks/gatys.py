"""Pixel optimisation, side by side with PyTorch.

    python benchmarks/gatys.py [--quick] [--json FILE] [--compact FILE]

A row a network, size and pooling: milliseconds an update of this package and of PyTorch (the
faster of its two memory layouts), their ratio, peak memories, and the seconds of compilation, the
first time and from the cache. Both run the same network, weights, losses and Adam.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import Contestant, race

HERE = Path(__file__).resolve().parent
_WIDTHS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,))


class Case(NamedTuple):
    """A row of the table."""

    network: str
    size: int
    pooling: str
    padding: str


FULL = (
    Case("vgg19", 256, "avg", "zero"),
    Case("vgg19", 256, "max", "zero"),
    Case("vgg19", 512, "avg", "zero"),
    Case("vgg19", 512, "max", "zero"),
    Case("compact", 256, "max", "reflect"),
    Case("compact", 512, "max", "reflect"),
)
QUICK = (Case("vgg19", 64, "avg", "zero"), Case("compact", 128, "max", "reflect"))


def random_vgg(
    path: Path, generator: np.random.Generator, widths: Sequence[Sequence[int]] = _WIDTHS
) -> None:
    """Writes a VGG, VGG-19 to relu5_1, with He-normal weights, for which speed is the same."""
    from jaxstyle import weights

    params = {"preprocess/kernel": np.eye(3, dtype=np.float32)[None, None] * 2}
    params["preprocess/bias"] = -np.ones(3, np.float32)
    inputs = 3
    for block, row in enumerate(widths, 1):
        for index, outputs in enumerate(row, 1):
            scale = np.sqrt(2 / (9 * inputs))
            kernel = generator.standard_normal((3, 3, inputs, outputs)) * scale
            params[f"conv{block}_{index}/kernel"] = kernel.astype(np.float32)
            params[f"conv{block}_{index}/bias"] = np.zeros(outputs, np.float32)
            inputs = outputs
    weights.save(
        path, weights.Weights("random", params, "zero", "normalized", "random numbers", "")
    )


def settings_of(case: Case, weights: Path, pictures: Path) -> dict[str, Any]:
    """The settings of both contestants; the weights make all terms of like size."""
    layers = dict.fromkeys(("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), 0.2)
    config = {
        "content_layers": {"relu4_2": 1.0} if case.network == "vgg19" else {"relu4_1": 1.0},
        "style_layers": layers,
        "content_weight": 1.0,
        "style_weight": 1e3,
        "tv_weight": 1.0,
        "style_loss": "elements",
        "tv_loss": "half_mean",
        "normalize_features": False,
        "averaging": 0.0,
        "clamp": False,
        "pooling": case.pooling,
        "learning_rate": 0.02,
        "adam_b1": 0.9,
        "adam_b2": 0.999,
    }
    return {
        "config": config,
        "weights": str(weights),
        "pictures": str(pictures),
        "padding": case.padding,
    }


def run(case: Case, weights: Path, folder: Path, steps: int, tune: bool) -> dict[str, Any]:
    """Measures one row."""
    generator = np.random.default_rng(0)
    pictures = folder / "pictures.npz"
    shape = (1, case.size, case.size, 3)
    # Blocks of 8 pixels: noise alone would leave the deeper layers nothing to do.
    coarse = [generator.random((1, -(-case.size // 8), -(-case.size // 8), 3)) for _ in range(2)]
    content, style = (
        np.clip(
            c.repeat(8, 1).repeat(8, 2)[:, : case.size, : case.size]
            + 0.1 * generator.standard_normal(shape),
            0,
            1,
        ).astype(np.float32)
        for c in coarse
    )
    np.savez(pictures, content=content, style=style)
    settings = {**settings_of(case, weights, pictures), "tune": tune}
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    cached = {**environment, "BENCHMARK_CACHE": str(folder / f"cache-{case.size}-{case.pooling}")}
    first = Contestant(HERE / "gatys_jax.py", settings, cached)
    first.close()
    ours = Contestant(HERE / "gatys_jax.py", settings, cached)
    theirs = [
        Contestant(
            HERE / "gatys_torch.py", {**settings, "channels_last": channels_last}, environment
        )
        for channels_last in (False, True)
    ]
    race([ours, *theirs], steps)
    for contestant in (ours, *theirs):
        contestant.close()
    best = min(theirs, key=Contestant.median)
    return {
        "name": f"{case.network}, {case.pooling} pooling, {case.padding} padding",
        "size": case.size,
        "ours_ms": ours.median(),
        "theirs_ms": best.median(),
        "theirs_eager_ms": theirs[0].median(),
        "theirs_channels_last_ms": theirs[1].median(),
        "ratio": ours.median() / best.median(),
        "ours_peak_mb": ours.peak_mb,
        "theirs_peak_mb": best.peak_mb,
        "compile_s": first.figures["targets_s"] + first.figures["compile_s"],
        "cached_s": ours.figures["targets_s"] + ours.figures["compile_s"],
        "ours_loss": ours.loss,
        "theirs_loss": best.loss,
        "steps": steps,
    }


def main() -> None:
    """Prints the table, and writes it where `--json` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--compact", type=Path, help="weights of the narrow VGG-19 with heads")
    parser.add_argument("--only", help="rows whose name and size contain this text")
    parser.add_argument("--steps", type=int, help="timed steps of each contestant")
    parser.add_argument("--no-tune", action="store_true", help="leave the allocator as it is")
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit("this benchmark needs PyTorch beside jaxstyle: pip install torch==2.13.0")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = folder / "vgg19.safetensors"
        random_vgg(random, np.random.default_rng(0))
        for case in QUICK if arguments.quick else FULL:
            weights = random if case.network == "vgg19" else arguments.compact
            if (
                arguments.only
                and arguments.only not in f"{case.network} {case.size} {case.pooling}"
            ):
                continue
            if weights is None:
                print(f"left out: {case.network}, whose weights --compact names", file=sys.stderr)
                continue
            steps = arguments.steps or (3 if arguments.quick else 9)
            row = run(case, weights, folder, steps, tune=not arguments.no_tune)
            rows.append(row)
            print(
                "{name} at {size} px: {ours_ms:.0f} ms against {theirs_ms:.0f} (eager "
                "{theirs_eager_ms:.0f}, channels_last {theirs_channels_last_ms:.0f}), ratio "
                "{ratio:.2f}; peak {ours_peak_mb:.0f} MB against {theirs_peak_mb:.0f}; compiled in "
                "{compile_s:.1f} s, {cached_s:.1f} s from the cache; loss {ours_loss:.6g} against "
                "{theirs_loss:.6g}".format(**row),
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
