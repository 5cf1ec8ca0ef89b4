"""What a run measures on its way: the metrics of its steps, and its pace."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from jaxstyle.training import report


class Pace:
    """How fast a run is, and how much of the time it waits for data.

    Attributes:
        waited: seconds since the last line in which the device had no batch.
    """

    def __init__(self) -> None:
        self.waited = 0.0
        self._since = 0.0
        self._uncounted = 0

    def begin(self, steps: int) -> None:
        """Starts the clock after a step that waited for the compiler.

        Args:
            steps: that one and those before it since the last line, which do not count.
        """
        self._uncounted = steps
        self._restart()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out the time of what is done meanwhile."""
        begun = time.monotonic()
        yield
        self._since += time.monotonic() - begun

    def measure(self, steps: int, batch_size: int) -> dict[str, float]:
        """Images a second and the share of waiting since the last time, of so many steps."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        counted = steps - self._uncounted
        waiting = min(self.waited / seconds, 1.0)
        self._uncounted = 0
        self._restart()
        if not counted:
            return {}
        return {"images_per_second": counted * batch_size / seconds, "waiting": waiting}

    def _restart(self) -> None:
        self.waited, self._since = 0.0, time.monotonic()


class Log(contextlib.AbstractContextManager["Log"]):
    """Takes what is measured to the files and to the observer; the first process alone writes."""

    def __init__(
        self, folder: epath.Path, step: int, observer: report.Observer, *, tensorboard: bool
    ) -> None:
        self.observer = observer
        self.pace = Pace()
        self.latest: dict[str, float] = {}
        self._sinks: list[report.Sink] = []
        self._file = None
        self._begun = time.monotonic()
        if jax.process_index() == 0:
            self._file = report.MetricsFile(folder / "metrics.jsonl", step=step)
            self._sinks.append(self._file)
            # The clock goes on where it was.
            self._begun -= max((row.get("seconds", 0.0) for row in self._file.rows), default=0.0)
            if tensorboard:
                self._sinks.append(report.TensorBoard(folder, step=step))

    def write_training(
        self, step: int, means: Mapping[str, float], steps: int, batch_size: int
    ) -> None:
        """A line about the last steps, with the means of their metrics."""
        self._write({"step": step, **means, **self.pace.measure(steps, batch_size)})

    def write_held_out(self, step: int, means: Mapping[str, float]) -> None:
        """A line about pictures that were kept out."""
        named = {report.HELD_OUT + name: value for name, value in means.items()}
        self._write({"step": step, **named})

    def _write(self, row: dict[str, Any]) -> None:
        row["seconds"] = round(time.monotonic() - self._begun, 2)
        self.latest |= {name: value for name, value in row.items() if name != "step"}
        for sink in self._sinks:
            sink.write(row)
        self.observer.logged(row)

    def flush(self) -> None:
        """Sees to it that what was written is there before a checkpoint is."""
        if self._file is not None:
            self._file.flush()

    def __exit__(self, *_: object) -> None:
        for sink in self._sinks:
            sink.close()
