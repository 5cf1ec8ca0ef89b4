"""Make the two example pictures: `photo.jpg`, a landscape, and `painting.jpg`, a canvas of strokes.

Run `python examples/make_pictures.py`: it takes about a minute and rewrites the files beside it.
It needs NumPy and Pillow; the same seed gives the same pictures.
"""

import argparse
from pathlib import Path

import numpy as np
from pictures.painting import render_painting
from pictures.photo import render_photo
from PIL import Image

QUALITY = 90  # Of the JPEG files: each stays well under 200 KiB.
PICTURES = {"photo.jpg": render_photo, "painting.jpg": render_painting}


def save_jpeg(picture: np.ndarray, path: Path) -> None:
    """Write a float picture `[height, width, 3]` in 0 to 1 as a JPEG file."""
    pixels = np.round(np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=QUALITY, optimize=True)


def positive(text: str) -> float:
    """Read a positive number from the command line."""
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def main() -> None:
    """Render the pictures and save them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("--output", type=Path, default=here, metavar="DIR", help="where to (here)")
    parser.add_argument("--scale", type=positive, default=1.0, help="1 is as shipped")
    parser.add_argument("--seed", type=int, default=0, help="0 is as shipped")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, render in PICTURES.items():
        path = args.output / name
        save_jpeg(render(args.scale, args.seed), path)
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
