"""What every test shares: four CPU devices, no silent rank promotion, and the data folder."""

import gc
import os
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def quick_compiler() -> Iterator[None]:
    """Programs that run once need no optimisation."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is large, and bands of those of 83 columns have five rows."""
    from jaxstyle import strips

    monkeypatch.setattr(strips, "LARGE_PIXELS", 0)
    monkeypatch.setattr(strips, "BAND_PIXELS", 5 * 83)


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    """No module keeps the compiled programs of those before it: they would be gigabytes."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()
