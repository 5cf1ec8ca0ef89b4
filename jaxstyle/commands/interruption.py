"""Ctrl-C: the first stops a run in good order, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NamedTuple

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 1.0  # seconds that Python has to end by itself before the process is ended


class Wording(NamedTuple):
    """What is said of an interruption.

    Attributes:
        stopping: after the first signal, when there is something to save.
        lost: after the second.
        nothing: after the first, as long as there is nothing to save.
    """

    stopping: str = "stopping after this step to save it; once more to quit at once"
    lost: str = "quit at once; the picture was not written"
    nothing: str = "interrupted, with nothing to write yet"


_PICTURE = Wording()


class Interruption:
    """While entered, the first SIGINT or SIGTERM asks to stop and the second quits at once.

    As long as there is nothing to save, the first one quits, too. To quit is a KeyboardInterrupt;
    but the compiler may hold Python back for many seconds, and so a thread ends the process where
    that is not heard.

    Args:
        note: takes a line for the user, who may have asked for quiet; it is called from a thread.
        complain: the same, for what must be said.
        wording: what is said.
        nothing_code: exit code where there was nothing to save; None for that of the signal.

    Attributes:
        can_save: there is something to save: set it when the first step is done.
        writing: hold this lock to write a file: the process is not ended meanwhile.
        number: the signal that asked to stop, 0 if none did.
    """

    def __init__(
        self,
        note: Callable[[str], None],
        complain: Callable[[str], None],
        *,
        wording: Wording = _PICTURE,
        nothing_code: int | None = None,
    ):
        self.can_save = False
        self.writing = threading.Lock()
        self.number = 0
        self._heard = False
        self._note = note
        self._complain = complain
        self._wording = wording
        self._nothing_code = nothing_code
        self._over = threading.Event()
        self._before: dict[int, Any] = {}
        self._writer: socket.socket | None = None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, as a shell would have it, unless told otherwise."""
        return self._code(self.number)

    @property
    def farewell(self) -> str:
        """What to say of a run that was not allowed to end by itself."""
        return f"jaxstyle: {self._wording.lost if self.can_save else self._wording.nothing}"

    def requested(self) -> bool:
        """Whether to stop; to be asked when a step is done, as from then on a stop saves it."""
        self.can_save = True
        return self.number != 0

    def join(self, number: int) -> None:
        """Stops, too, as another process was asked to; a signal here is then still the first.

        Args:
            number: of the signal.
        """
        self.number = self.number or number

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are for the main thread alone
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        # Handlers wait for the interpreter; this descriptor hears of a signal at once.
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._writer is not None:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._writer.close()  # which ends the thread

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = not self._heard
        self._heard = True
        self.number = self.number or number
        if not (first and self.can_save):
            raise KeyboardInterrupt

    def _watch(self, reader: socket.socket) -> None:
        heard = 0
        with reader:
            while data := reader.recv(64):
                numbers = [number for number in data if number in _SIGNALS]
                heard += len(numbers)
                if heard > 1 or (numbers and not self.can_save):
                    if not self._over.wait(_GRACE):
                        self._end(numbers[0])
                elif numbers:
                    with contextlib.suppress(OSError, ValueError):
                        self._note(self._wording.stopping)

    def _end(self, number: int) -> None:
        with self.writing:
            if self._over.is_set():
                return
            # Whoever read what we say may have gone first, as a terminal that was closed.
            with contextlib.suppress(OSError, ValueError):
                self._complain(self.farewell)
                sys.stderr.flush()
            os._exit(self._code(number))

    def _code(self, number: int) -> int:
        if self._nothing_code is not None and not self.can_save:
            return self._nothing_code
        return 128 + number
