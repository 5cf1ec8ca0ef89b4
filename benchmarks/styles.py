"""How good the shipped styles are, or those of any trained model, beside pixel optimisation.

    python benchmarks/styles.py --exact vgg19_to_conv3_1.safetensors --teacher compact.safetensors \
        --photos photos/ --paintings paintings/ [--model runs/wave] [--gatys 3] [--out pictures/]

Each photo is painted in each style whose painting is among `--paintings`, by its name; the first
`--gatys` photos by pixel optimisation, too, with the preset `default` and the teacher's features,
which takes a quarter of a minute each. Content and style distances are those of `judging.Judge`,
of the middle squares of photo and painting. What a model removes is the style distance of the photo
as it is less that of the picture made of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from judging import Judge, paint

from jaxstyle import images, models, runtime, weights
from jaxstyle.evaluation.pictures import square
from jaxstyle.methods import residual


def judge_model(
    model: models.Model,
    judge: Judge,
    photos: dict[str, np.ndarray],
    paintings: dict[str, np.ndarray],
    out: Path | None,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Content and style distance of each picture, by style and photo; sheets of the pictures."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    rows = []
    for number, name in enumerate(model.styles):
        if name not in paintings:
            continue
        chosen = np.eye(len(model.styles))[number]
        made = {k: residual.paint(model, v, style_weights=chosen) for k, v in photos.items()}
        found[name] = {k: judge.distances(v, photos[k], paintings[name]) for k, v in made.items()}
        rows += [paintings[name], *made.values()]
    if out is not None:
        shown = ["", *photos] + [""] * (len(rows) - len(photos) - 1)
        images.save(out, images.contact_sheet(rows, shown, columns=1 + len(photos)))
    return found


def judge_gatys(
    judge: Judge,
    network: weights.Weights,
    photos: dict[str, np.ndarray],
    paintings: dict[str, np.ndarray],
    cache: Path | None,
) -> dict[str, dict[str, tuple[float, float]]]:
    """The same of pixel optimisation; pairs that the file has are not painted again."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    if cache is not None and cache.exists():
        found = json.loads(cache.read_text())
    for style, painting in paintings.items():
        for photo, pixels in photos.items():
            if photo in found.setdefault(style, {}):
                continue
            found[style][photo] = judge.distances(
                paint(pixels, painting, network), pixels, painting
            )
            if cache is not None:
                cache.write_text(json.dumps(found))
    return found


def report(
    names: list[str],
    models_found: list[dict[str, dict[str, tuple[float, float]]]],
    gatys: dict[str, dict[str, tuple[float, float]]],
    noop: dict[str, dict[str, float]],
) -> None:
    """Prints a row for each style: means over the photos."""
    print("| style | no-op | " + " | ".join(f"{n}: style, content, removed" for n in names), end="")
    print(" | Gatys: style, content, removed | least share of Gatys |")
    print("|---|---|" + "---|" * len(names) + "---|---|")
    for style in noop:
        cells, shares = [], []
        for found in [*models_found, gatys]:
            if not found.get(style):
                cells.append("")
                continue
            own = found[style]
            content, distance = np.mean(list(own.values()), axis=0)
            removed = np.mean([noop[style][k] - v[1] for k, v in own.items()])
            cells.append(f"{distance:.3f}, {content:.3f}, {removed:.3f}")
            both = gatys.get(style, {}).keys() & own.keys()
            if both and found is not gatys:
                mine = sum(noop[style][k] - own[k][1] for k in both)
                shares.append(mine / sum(noop[style][k] - gatys[style][k][1] for k in both))
        share = ", ".join(f"{x:.3f}" for x in shares)
        print(f"| {style} | {np.mean(list(noop[style].values())):.3f} | ", end="")
        print(" | ".join(cells) + f" | {share} |", flush=True)


def main() -> None:
    """Paints, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exact", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--paintings", type=Path, required=True)
    parser.add_argument("--model", nargs="*", default=[], help="runs or files; default: shipped")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--gatys", type=int, default=0, help="photos for pixel optimisation")
    parser.add_argument("--cache", type=Path, help="JSON file of the results of pixel optimisation")
    parser.add_argument("--out", type=Path, help="folder for sheets of the pictures")
    arguments = parser.parse_args()
    runtime.prepare(device=None, warn=print)
    exact, teacher = weights.load(arguments.exact), weights.load(arguments.teacher)
    judge = Judge(exact, teacher)
    photos, paintings = (
        {path.stem: square(path, arguments.size) for path in images.list_images(folder)}
        for folder in (arguments.photos, arguments.paintings)
    )
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    named = {name: models.load(name) for name in arguments.model} or {"shipped": models.shipped()}
    found = []
    for name, model in named.items():
        sheet = arguments.out / f"{Path(name).stem}.png" if arguments.out else None
        found.append(judge_model(model, judge, photos, paintings, sheet))
    styles = {k: v for k, v in paintings.items() if any(k in each for each in found)}
    few = dict(list(photos.items())[: arguments.gatys])
    gatys = judge_gatys(judge, teacher, few, styles, arguments.cache)
    noop = {
        style: {k: judge.distances(v, v, painting)[1] for k, v in photos.items()}
        for style, painting in styles.items()
    }
    report(list(named), found, gatys, noop)


if __name__ == "__main__":
    main()
