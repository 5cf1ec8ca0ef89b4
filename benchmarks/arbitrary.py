"""How good models of any style are on pairs that they never saw, beside pixel optimisation.

    python benchmarks/arbitrary.py --exact vgg19_to_conv3_1.safetensors \
        --teacher compact.safetensors --photos photos/ --paintings paintings/ \
        [--model runs/adain other.safetensors] [--strength 1] [--gatys 2] [--out pictures/]

Every photo is painted in every painting, both as the middle squares of `--size` pixels. Scores are
those of `judging.Scores`, means over the pairs; "removed" is how much of the photo's own Gram
distance to the painting is gone. With `--gatys N`, the first N photos are painted by pixel
optimisation, too, by the preset `default` with the teacher's features.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from judging import Judge, Scores, paint, scores

from jaxstyle import images, models, runtime, weights
from jaxstyle.evaluation.pictures import square
from jaxstyle.methods import adain

Pictures = dict[str, np.ndarray]
Found = dict[tuple[str, str], Scores]


def judged(
    judge: Judge,
    photos: Pictures,
    paintings: Pictures,
    make: Callable[[np.ndarray, str], np.ndarray],
    sheet: Path | None = None,
) -> Found:
    """Scores of every pair, and a sheet with a row for each painting."""
    found, rows = {}, []
    for style, painting in paintings.items():
        made = {name: make(photo, style) for name, photo in photos.items()}
        found |= {(k, style): scores(judge, v, photos[k], painting) for k, v in made.items()}
        rows += [painting, *made.values()]
    if sheet is not None:
        first = next(iter(paintings.values()))
        rows = [np.ones_like(first), *photos.values(), *rows]
        images.save(sheet, images.contact_sheet(rows, [""] * len(rows), columns=1 + len(photos)))
    return found


def of_model(
    judge: Judge,
    model: models.Model,
    photos: Pictures,
    paintings: Pictures,
    strength: float,
    **rest,
) -> Found:
    """Scores of a model's pictures."""
    network, variables = adain.of_model(model)
    codes = {k: adain.read_style(network, variables, v) for k, v in paintings.items()}

    def make(photo: np.ndarray, style: str) -> np.ndarray:
        return adain.paint(network, variables, photo, codes[style], strength=strength)

    return judged(judge, photos, paintings, make, **rest)


def of_gatys(
    judge: Judge,
    teacher: weights.Weights,
    photos: Pictures,
    paintings: Pictures,
    cache: Path | None,
) -> Found:
    """Scores of pixel optimisation; pairs that the file has are not painted again."""
    known = json.loads(cache.read_text()) if cache is not None and cache.exists() else {}
    found = {}
    for style, painting in paintings.items():
        for name, photo in photos.items():
            key = f"{name} {style}"
            if key not in known:
                known[key] = scores(judge, paint(photo, painting, teacher), photo, painting)
                if cache is not None:
                    cache.write_text(json.dumps(known))
            found[name, style] = Scores(*known[key])
    return found


def row(name: str, found: Found, noop: Found) -> str:
    """A line of the table."""
    gram, moments, content, ssim = np.mean([found[pair] for pair in found], axis=0)
    before = np.mean([noop[pair].gram for pair in found])
    removed = 100 * (1 - gram / before)
    return (
        f"| {name} ({len(found)} pairs) | {gram:.4f} | {removed:.1f}% | {moments:.4f} | "
        f"{content:.3f} | {ssim:.3f} |"
    )


def main() -> None:
    """Paints, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exact", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--paintings", type=Path, required=True)
    parser.add_argument("--model", nargs="*", default=[], help="runs or files; default: shipped")
    parser.add_argument("--strength", type=float, nargs="*", default=[1.0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--limit", type=int, default=0, help="photos; 0 for all")
    parser.add_argument("--gatys", type=int, default=0, help="photos for pixel optimisation")
    parser.add_argument("--cache", type=Path, help="JSON file of the results of pixel optimisation")
    parser.add_argument("--out", type=Path, help="folder for sheets of the pictures")
    arguments = parser.parse_args()
    runtime.prepare(device=None, warn=print)
    teacher = weights.load(arguments.teacher)
    judge = Judge(weights.load(arguments.exact), teacher)
    photos, paintings = (
        {path.stem: square(path, arguments.size) for path in images.list_images(folder)}
        for folder in (arguments.photos, arguments.paintings)
    )
    photos = dict(list(photos.items())[: arguments.limit or None])
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    named = {name: models.load(name) for name in arguments.model}
    named = named or {"shipped": models.shipped("adain")}
    noop = judged(judge, photos, paintings, lambda photo, style: photo)
    print("| | Gram | removed | moments | content | SSIM |\n|---|---|---|---|---|---|")
    print(row("the photo itself", noop, noop))
    for name, model in named.items():
        for strength in arguments.strength:
            label = f"{Path(name).stem} {strength:g}"
            sheet = arguments.out / f"{label.replace(' ', '_')}.png" if arguments.out else None
            found = of_model(judge, model, photos, paintings, strength, sheet=sheet)
            print(row(label, found, noop), flush=True)
    if arguments.gatys:
        few = dict(list(photos.items())[: arguments.gatys])
        print(row("pixels", of_gatys(judge, teacher, few, paintings, arguments.cache), noop))


if __name__ == "__main__":
    main()
