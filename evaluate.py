"""Judges methods: `python evaluate.py --config configs/eval_papers.py --output results`.

The same as `jaxstyle evaluate`; `python evaluate.py --help` says more.
"""

import sys

from jaxstyle.cli import run

if __name__ == "__main__":
    sys.exit(run("evaluate"))
