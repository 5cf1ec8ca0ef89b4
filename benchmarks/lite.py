"""How good the shipped features are: their heads, their Gram matrices, and pictures made with them.

    python benchmarks/lite.py --exact vgg19_to_conv3_1.safetensors --teacher compact.safetensors \
        --photos photos/ --paintings paintings/ [--features lite] [--out pictures/]

`--exact` gives the layers that it has, `--teacher` the rest; the latter also paints the pictures
that those of `--features` are compared with. Both are files as `jaxstyle.weights.load` takes them.
Photos and paintings are paired in the order of their names. All distances are measured with the
teachers' features.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from judging import LAYERS, Judge, paint

from jaxstyle import features, images, runtime, weights
from jaxstyle.evaluation.pictures import square
from jaxstyle.methods.distill import gram_correlation, squared_errors


def report_errors(judge: Judge, network: weights.Weights, pictures: dict[str, np.ndarray]) -> None:
    """Prints relative errors of the heads and correlations of Gram matrices."""
    heads = jax.jit(lambda x: features.vgg(network.params, x, LAYERS, padding=network.padding))
    for name, batch in pictures.items():
        found, wanted = heads(jnp.asarray(batch)), judge.features(jnp.asarray(batch))
        errors = [float(value) ** 0.5 for value in squared_errors(found, wanted).values()]
        grams = [float(jnp.min(gram_correlation(found[x], wanted[x]))) for x in LAYERS]
        means = [float(jnp.mean(gram_correlation(found[x], wanted[x]))) for x in LAYERS]
        print(f"{network.name}, {name}: relative errors", " ".join(f"{x:.3f}" for x in errors))
        print("  correlation of Gram matrices, mean", " ".join(f"{x:.4f}" for x in means))
        print("  and least of all pictures", " ".join(f"{x:.4f}" for x in grams))


def compare_pictures(arguments: argparse.Namespace, judge: Judge, networks: list) -> None:
    """Paints pairs with both networks and prints what each removes of the style distance.

    The middle squares of the pictures, so that all of them share what is compiled.
    """
    photos, paintings = (images.list_images(x) for x in (arguments.photos, arguments.paintings))
    own, teacher = networks
    runs = [(teacher, 0.2), *((own, weight) for weight in arguments.content_weights)]
    results = []
    for photo, painting in list(zip(photos, paintings, strict=False))[: arguments.pairs]:
        content, style = (square(path, arguments.size) for path in (photo, painting))
        nothing = judge.distances(content, content, style)[1]
        row = []
        for network, weight in runs:
            picture = paint(content, style, network, content_weight=weight)
            kept, left = judge.distances(picture, content, style)
            row.append((nothing - left, kept))
            if arguments.out:
                name = f"{photo.stem}_{painting.stem}_{network.name}_{weight:g}.png"
                images.save(arguments.out / name, picture)
        row = np.asarray(row) / row[0]
        results.append(row[1:])
        text = "; ".join(f"{style:.3f} at {content:.3f}" for style, content in row[1:])
        print(f"{photo.stem} in {painting.stem}: {text}", flush=True)
    for index, weight in enumerate(arguments.content_weights):
        style, content = np.asarray(results)[:, index].T
        print(
            f"content weight {weight:g}: style distance removed, relative to the teacher's, mean "
            f"{style.mean():.3f}, least {style.min():.3f}; content distance, relative to the "
            f"teacher's, mean {content.mean():.3f}, largest {content.max():.3f}"
        )


def main() -> None:
    """Runs both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exact", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--paintings", type=Path, required=True)
    parser.add_argument("--features", default="lite")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--content-weights", type=float, nargs="+", default=[0.2])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runtime.prepare(device=None, warn=print)
    exact, teacher, own = map(
        weights.load, (arguments.exact, arguments.teacher, arguments.features)
    )
    judge = Judge(exact, teacher)
    pictures = {
        name: np.stack([square(path, arguments.size) for path in images.list_images(folder)])
        for name, folder in (("photos", arguments.photos), ("paintings", arguments.paintings))
    }
    for network in (own, teacher):
        report_errors(judge, network, pictures)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    compare_pictures(arguments, judge, [own, teacher])


if __name__ == "__main__":
    main()
