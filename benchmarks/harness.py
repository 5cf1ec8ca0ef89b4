"""What the benchmarks share: contestants in processes of their own, stepped in turn.

Each contestant is a Python program that imports this module and calls `serve`. It lives in its own
process, so that peak memory is its own, and the parent steps them one after the other, A B A B, so
that other load on the machine falls on all of them alike.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def serve(make: Callable[[dict[str, Any]], tuple[Callable[[], float], dict[str, float]]]) -> None:
    """Runs a contestant: reads its settings and then a line for every step, from standard input.

    Args:
        make: takes the settings and returns the step, which returns the loss, and figures of the
            preparation, such as seconds of compilation.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr
    step, figures = make(json.loads(sys.stdin.readline()))
    print(json.dumps(figures), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - start
        answer = {"ms": 1e3 * seconds, "loss": loss, "peak_mb": peak_mb()}
        print(json.dumps(answer), file=answers, flush=True)


def peak_mb() -> float:
    """The most memory that this process has held, in units of 2**20 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage says begins with the memory of the parent
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Contestant:
    """A process that takes steps on demand.

    Attributes:
        figures: of its preparation.
        times: milliseconds of every step.
        loss: before the last step.
        peak_mb: the most memory that it held.
    """

    def __init__(self, program: Path, settings: dict[str, Any], environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.figures: dict[str, float] = self._ask(settings)
        self.times: list[float] = []
        self.loss = float("nan")
        self.peak_mb = float("nan")

    def _ask(self, message: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a contestant ended with code {self._process.wait()}")
        return json.loads(answer)

    def step(self) -> None:
        """One step, timed."""
        answer = self._ask("step")
        self.times.append(answer["ms"])
        self.loss = answer["loss"]
        self.peak_mb = answer["peak_mb"]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def median(self) -> float:
        """Of the times, without the first step, which warms caches up."""
        return statistics.median(self.times[1:])


def race(contestants: Sequence[Contestant], steps: int) -> None:
    """Steps the contestants in turn, one warming step and `steps` timed ones each."""
    for _ in range(steps + 1):
        for contestant in contestants:
            contestant.step()
