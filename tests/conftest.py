"""What every test shares: four CPU devices, no silent rank promotion, and the data folder."""

import os
from pathlib import Path

import pytest

# Before JAX makes its backend: tests of several devices run on any machine.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

# Before NumPy: with a thread a core, OpenBLAS crawls wherever something else runs beside it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of development data; the test is skipped, visibly, where it is missing."""
    if not DATA.is_dir():
        pytest.skip(f"development data not found at {DATA}")
    return DATA
