"""Trains a method: `python train.py --config configs/lite.py --workdir runs/lite`.

The same as `jaxstyle train`; `python train.py --help` says more.
"""

import sys

from jaxstyle.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
