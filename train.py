"""Trains a method: `python train.py --config configs/lite.py --workdir runs/lite`.

The same as `jaxstyle train`; `python train.py --help` says more.
"""

import sys

from jaxstyle.cli import run

if __name__ == "__main__":
    sys.exit(run("train"))
