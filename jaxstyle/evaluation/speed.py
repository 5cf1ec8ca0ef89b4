"""Speed: milliseconds a picture, memory, and pictures from disk to disk.

Every method is measured at every size in a process of its own: its peak of memory is its own, its
first picture finds nothing compiled, and what kills it leaves the evaluation alive. Records are
plain JSON, so that they can be kept and the tables made again.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxstyle import runtime
from jaxstyle.errors import UserError
from jaxstyle.evaluation import machine
from jaxstyle.evaluation.config import STILL, MethodConfig
from jaxstyle.training.config import from_plain, plain

if TYPE_CHECKING:  # they import JAX, which the measuring process sets up first
    from jaxstyle.evaluation.painters import Painter
    from jaxstyle.methods import gatys

Record = dict[str, Any]
PathLike = str | os.PathLike[str]
Stopping = Callable[[], bool]

_POLL_S = 0.5
_TIMED = 4  # updates of each scale that are timed, after one that is not


# --- asking --------------------------------------------------------------------------------------


def measure(
    name: str,
    method: MethodConfig,
    sizes: Sequence[int],
    *,
    runs: int,
    batch: int,
    photo_path: PathLike,
    painting_path: PathLike,
    style_name: str,
    cold: bool = True,
    limit_s: float = 120.0,
    timeout_s: float = 1800.0,
    device: str | None = None,
    stopping: Stopping = lambda: False,
) -> list[Record]:
    """Measures a method at several sizes, each in a process of its own.

    A record has `method`, `style`, `size`, `runs` and `batch` as they were asked for, and, as far
    as it came:

    - `load`, `cores`: the system's load average of the minute before, where there is one, and how
      many cores there are;
    - `facts`, `updates`: of the painter;
    - `first_s`: seconds of the first picture, all that it compiles included, from an empty cache of
      compiled programs; for methods with updates the seconds that compiling adds are measured in a
      run of few updates, and added to those of a picture;
    - `seconds`: of further pictures one by one, from NumPy array to NumPy array;
    - `batch_seconds`: the same for each picture of a batch;
    - `peak_mb`, `batch_peak_mb`: the most memory, in units of 2**20 bytes, that the process held
      until then beyond what it held before the first picture; compiling is included;
    - `device_peak_mb`: the most memory on an accelerator, parameters included; None on a CPU;
    - `update_ms`: milliseconds of some updates at full size;
    - `extrapolated`: whether `seconds` is a single figure, the sum of all updates at the pace of
      those that were timed, because whole pictures would have taken more than `limit_s`;
    - `error`: why the rest is missing, or empty.

    Args:
        name: of the method.
        method: what it is; of the kinds `photo` and `painting` there are no records.
        sizes: of the square pictures, in pixels.
        runs: pictures, and batches, that are timed after the first.
        batch: pictures in a batch; none are painted in batches below 2.
        photo_path: of the photograph.
        painting_path: of the painting, which is cut to a square of the same size.
        style_name: of the painting.
        cold: begin with an empty cache of compiled programs; else with that of this user, and
            there is no `first_s`.
        limit_s: seconds that whole pictures of a method with updates may take at a size; at the
            smallest size one is painted in any case.
        timeout_s: seconds after which a process is ended.
        device: as `runtime.find_device` takes it.
        stopping: asked while a process measures.

    Returns:
        A record a size.

    Raises:
        KeyboardInterrupt: `stopping` said so, or the process was interrupted; it has ended.
    """
    if method.kind in STILL:
        return []
    found: list[Record] = []
    for number, size in enumerate(sorted(set(sizes))):
        job = _job(name, method, photo_path, {style_name: painting_path}, device=device)
        job |= {"size": size, "runs": runs, "batch": batch, "cold": cold}
        job |= {"limit_s": limit_s, "always": number == 0}
        found += _records(job, timeout_s, stopping)
    return found


def measure_styles(
    name: str,
    method: MethodConfig,
    paintings: Mapping[str, PathLike],
    *,
    size: int = 512,
    runs: int = 5,
    photo_path: PathLike,
    cold: bool = True,
    limit_s: float = 120.0,
    timeout_s: float = 1800.0,
    device: str | None = None,
    stopping: Stopping = lambda: False,
) -> list[Record]:
    """Measures a method in several styles, one after the other in one process.

    Args:
        name: of the method.
        method: what it is; of the kinds `photo` and `painting` there are no records.
        paintings: files, by the names of the styles.
        size: of the square pictures, in pixels.
        runs: pictures of each style that are timed, after one that is not.
        photo_path: of the photograph.
        cold: as for `measure`.
        limit_s: as for `measure`, for each style; no picture is painted in any case.
        timeout_s: seconds for each style after which the process is ended.
        device: as `runtime.find_device` takes it.
        stopping: as for `measure`.

    Returns:
        A record a style, as those of `measure`.

    Raises:
        KeyboardInterrupt: as for `measure`.
    """
    if method.kind in STILL:
        return []
    job = _job(name, method, photo_path, paintings, device=device)
    job |= {"size": size, "runs": runs, "batch": 0, "cold": cold}
    job |= {"limit_s": limit_s, "always": False}
    return _records(job, timeout_s * len(paintings), stopping)


def _job(
    name: str, method: MethodConfig, photo: PathLike, paintings: Mapping[str, PathLike], **rest: Any
) -> dict[str, Any]:
    files = {style: os.fspath(path) for style, path in paintings.items()}
    photo = os.fspath(photo)
    return {"name": name, "method": plain(method), "photo": photo, "paintings": files, **rest}


def _records(job: Mapping[str, Any], timeout_s: float, stopping: Stopping) -> list[Record]:
    """What a process finds out, and why it found no more."""
    asked = {"method": job["name"], "size": job["size"], "runs": job["runs"], "batch": job["batch"]}
    asked |= {"load": machine.load(), "cores": machine.cores()}
    found = {style: {**asked, "style": style} for style in job["paintings"]}
    lines, trouble = _ask(job, timeout_s, stopping)
    for line in lines:
        if "style" in line:
            found[line["style"]] |= line
        else:
            trouble = line["error"]
    for record in found.values():
        record.setdefault("error", trouble or "nothing was measured")
    return list(found.values())


def _ask(job: Mapping[str, Any], timeout_s: float, stopping: Stopping) -> tuple[list[Record], str]:
    """Lines of a process that measures, and why it failed, or nothing.

    It ends when its standard input does, and so with this process, however that ends.
    """
    with tempfile.TemporaryDirectory(prefix="jaxstyle-speed-") as name:
        folder = Path(name)
        with (
            (folder / "answers").open("wb") as answers,
            (folder / "complaints").open("wb") as complaints,
            subprocess.Popen(
                [sys.executable, "-P", "-m", "jaxstyle.evaluation.speed"],
                stdin=subprocess.PIPE,
                stdout=answers,
                stderr=complaints,
                env=_environment(folder / "xla" if job["cold"] else None),
                bufsize=0,
            ) as process,
        ):
            try:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # its exit code says more
                    process.stdin.write(json.dumps(job).encode() + b"\n")
                code = _wait(process, timeout_s, stopping)
            finally:
                process.kill()
                process.wait()
        trouble = ""
        if code is None:
            trouble = f"stopped after {timeout_s:,.0f} s"
        elif code:
            trouble = _reason(code, (folder / "complaints").read_text(errors="replace"))
        lines = []
        for line in (folder / "answers").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # cut off in the middle of a line
                lines.append(json.loads(line))
        return lines, trouble


def _environment(cache: Path | None) -> dict[str, str]:
    """This process's, with a compilation cache of its own, and this package to be found."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # Elsewhere this process may hold most of a GPU's memory: take no more than what is needed.
    greedy = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found = {"PYTHONPATH": os.pathsep.join(paths), "XLA_PYTHON_CLIENT_PREALLOCATE": greedy}
    own = {} if cache is None else {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    return os.environ | found | own


def _wait(process: subprocess.Popen[bytes], timeout_s: float, stopping: Stopping) -> int | None:
    """The exit code of a process; None where it takes too long."""
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(min(left, _POLL_S))
            if code == -signal.SIGINT:  # a terminal sends Ctrl-C to both
                raise KeyboardInterrupt
            return code
        if stopping():
            raise KeyboardInterrupt
    return None


def _reason(code: int, complaints: str) -> str:
    if code < 0:
        hint = ", as where memory runs out" if code == -signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{hint}"
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"ended with code {code}"


# --- measuring -----------------------------------------------------------------------------------


def main() -> int:
    """Measures what the JSON on standard input asks for: a line of JSON for each thing found."""
    runtime.tune_allocator()  # before there is a second thread
    answers, sys.stdout = sys.stdout, sys.stderr
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow, args=(sys.stdin.fileno(),), daemon=True).start()

    def tell(**found: Any) -> None:
        if not job["cold"]:
            found.pop("first_s", None)
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    try:
        runtime.prepare(device=job["device"], warn=lambda _: None)
        _answer(job, tell)
    except Exception as error:  # whatever it is, it is what the table says of the method
        words = " ".join(str(error).split())[:300]
        tell(error=words if isinstance(error, UserError) else f"{type(error).__name__}: {words}")
    return 0


def _follow(parent: int) -> None:
    """Ends this process with the one that asked."""
    while os.read(parent, 1):
        pass
    os._exit(1)


class _Sitting(NamedTuple):
    """A method and what it is to paint; `tell` takes what is found of the style."""

    painter: Painter
    photo: np.ndarray
    painting: np.ndarray
    style: str
    runs: int
    tell: Callable[..., None]

    def paint(self) -> np.ndarray:
        return self.painter.paint(self.photo, self.style)


def _answer(job: Mapping[str, Any], tell: Callable[..., None]) -> None:
    """Measures a method in all styles that are asked for."""
    import jax

    from jaxstyle.evaluation import painters, pictures

    method = from_plain(MethodConfig, job["method"])
    device = runtime.find_device(job["device"])
    with jax.default_device(device):
        photo = pictures.square(Path(job["photo"]), job["size"])
        files = job["paintings"].items()
        paintings = {style: pictures.square(Path(path), job["size"]) for style, path in files}
        painter = painters.make(job["name"], method, paintings)
        with contextlib.suppress(OSError):  # of Linux: forgets the peak so far
            Path("/proc/self/clear_refs").write_text("5")
        before = _peak_mb()
        for style, painting in paintings.items():
            say = functools.partial(tell, style=style)
            if style not in painter.styles:
                say(error=f"it does not paint in the style {style}")
                continue
            say(facts=painter.facts, updates=painter.updates)
            sitting = _Sitting(painter, photo, painting, style, job["runs"], say)
            if painter.updates:
                _time_updates(sitting, method, limit_s=job["limit_s"], always=job["always"])
            else:
                _time_passes(sitting)
            say(peak_mb=max(_peak_mb() - before, 0.0), device_peak_mb=_device_peak_mb(device))
            if painter.batch is not None and job["batch"] > 1:
                _time_batches(sitting, painter.batch, job["batch"])
                say(batch_peak_mb=max(_peak_mb() - before, 0.0))
            say(error="")


def _time_passes(sitting: _Sitting) -> None:
    sitting.tell(first_s=_timed(sitting.paint))
    seconds = [_timed(sitting.paint) for _ in range(sitting.runs)]
    sitting.tell(seconds=seconds, extrapolated=False)


def _time_batches(sitting: _Sitting, run: Callable[[Any, str], Any], count: int) -> None:
    photos = np.repeat(sitting.photo[None], count, axis=0)
    seconds = [_timed(lambda: run(photos, sitting.style)) for _ in range(1 + sitting.runs)]
    sitting.tell(batch_seconds=[value / count for value in seconds[1:]])  # the first one compiles


def _time_updates(sitting: _Sitting, method: MethodConfig, *, limit_s: float, always: bool) -> None:
    """Times updates, and whole pictures where they do not take too long."""
    from jaxstyle import config as settings
    from jaxstyle import weights
    from jaxstyle.methods import gatys, gatys_scales

    features = weights.load(method.features or weights.default_spec())
    chosen = settings.preset(method.preset, scale=features.scale, heads=features.heads)
    chosen = settings.replace(chosen, **method.settings, size=sitting.photo.shape[0])

    def short(steps: int) -> dict[int, list[float]]:
        config = settings.replace(chosen, steps=steps, steps_factor=1.0)
        paintings = [sitting.painting]
        return _intervals(gatys.stylize(sitting.photo, paintings, features=features, config=config))

    cold = sum(sum(row) for row in short(1).values())
    timed = short(1 + _TIMED)
    # The first update of a scale has in it what is made ready for the scale.
    ready = sum(row[0] for row in timed.values())
    compiling = max(cold - ready, 0.0)
    counts = zip(sorted(timed), gatys_scales.scale_steps(chosen, len(timed)), strict=True)
    paces = {scale: statistics.median(row[1:]) for scale, row in timed.items()}
    whole = ready + sum((count - 1) * paces[scale] for scale, count in counts)
    sitting.tell(update_ms=[1e3 * value for value in timed[max(timed)][1:]])
    sitting.tell(first_s=whole + compiling, seconds=[whole], extrapolated=True)
    if runs := min(sitting.runs, max(int(limit_s // whole), int(always))):
        seconds = [_timed(sitting.paint) for _ in range(runs)]
        first = statistics.median(seconds) + compiling
        sitting.tell(first_s=first, seconds=seconds, extrapolated=False)


def _intervals(iterates: Iterator[gatys.Iterate]) -> dict[int, list[float]]:
    """Seconds of each update, by scale."""
    found: dict[int, list[float]] = collections.defaultdict(list)
    before = time.perf_counter()
    for iterate in iterates:
        iterate.image.block_until_ready()
        now = time.perf_counter()
        found[iterate.scale].append(now - before)
        before = now
    return found


def _timed(paint: Callable[[], Any]) -> float:
    """Seconds until the pictures are there as a NumPy array."""
    begun = time.perf_counter()
    np.asarray(paint())
    return time.perf_counter() - begun


def _peak_mb() -> float:
    """The most memory that this process has held, in units of 2**20 bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # of getrusage, the parent's peak is the least
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _device_peak_mb(device: Any) -> float | None:
    found = device.memory_stats() or {}
    return found["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in found else None


if __name__ == "__main__":
    sys.exit(main())
