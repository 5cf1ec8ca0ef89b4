"""What every test shares: four CPU devices, no silent rank promotion, and the data folder."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before JAX makes its backend: tests of several devices run on any machine.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

# Before NumPy: with a thread a core, OpenBLAS crawls wherever something else runs beside it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# XLA's emitters of fused loops take as long to compile as all else does, and most programs here run
# once. A version of XLA that does not know a flag ends the process, so it is asked in another one.
if "XLA_FLAGS" not in os.environ:
    flags = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
    started = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | flags,
        capture_output=True,
        check=False,
    )
    os.environ["XLA_FLAGS"] = "" if started.returncode else flags["XLA_FLAGS"]

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
def in_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Goes to an own folder with copies of files, for commands that run in this process."""
    from jaxstyle import runtime

    def go(folder: Path) -> Path:
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(runtime, "prepare", lambda **_: None)
        return tmp_path

    return go


@pytest.fixture
def tiny_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knows the method of tests/tiny.py by the name of `tiny`."""
    import tiny

    from jaxstyle import methods

    load = methods.load
    monkeypatch.setattr(methods, "load", lambda name: tiny if name == "tiny" else load(name))


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
