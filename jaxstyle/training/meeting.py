"""Where the processes of a run find one another, before JAX connects them.

JAX ends a process with a stack trace where the others do not come, or the port is taken. Here the
same ends in one line that says who is missing. Process 0 listens, each of the others says who it
is, and once all have come they are told to go on; the port is then free for JAX.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from jaxstyle.errors import UserError, reason_of

_GO = "go"
_NO = "no: "
_LINE = 200  # bytes; a longer line is from someone else
_PAUSE = 0.2  # seconds between attempts to connect
_HELLO_SECONDS = 10.0  # in which a connection has to say who it is
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def meet(host: str, port: int, *, count: int, index: int, timeout: float) -> None:
    """Waits until all processes have come.

    Args:
        host: of process 0, as the others reach it.
        port: where process 0 listens.
        count: how many processes there are.
        index: which of them this one is, from 0.
        timeout: seconds to wait.

    Raises:
        UserError: some process did not come in time, or it was started with other numbers.
    """
    deadline = time.monotonic() + timeout
    if index > 0:
        _come(host, port, count, index, deadline)
    elif count > 1:
        _wait_for_all(host, port, count, deadline)


def _left(deadline: float) -> float:
    """Seconds until the deadline; never 0, which sockets take for not waiting at all."""
    return max(deadline - time.monotonic(), 0.001)


def _wait_for_all(host: str, port: int, count: int, deadline: float) -> None:
    """Process 0: lets the others come, and then go."""
    here: dict[int, socket.socket] = {}
    try:
        listener = _listen(host, port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(f"process 0 cannot listen on port {port}: {reason}") from error
    with listener, contextlib.ExitStack() as stack:
        while len(here) < count - 1:
            listener.settimeout(_left(deadline))
            try:
                connection = stack.enter_context(listener.accept()[0])
            except TimeoutError:
                missing = ", ".join(str(i) for i in range(1, count) if i not in here)
                text = f"of {count} processes these did not come to {host}:{port}: {missing}"
                raise UserError(text) from None
            index = _welcome(connection, count)
            if index is not None:
                if index in here:
                    _say(here[index], f"{_NO}another process has come with --process-id {index}")
                here[index] = connection
        for connection in here.values():
            _say(connection, _GO)


def _listen(host: str, port: int) -> socket.socket:
    if host in LOOPBACK:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _welcome(connection: socket.socket, count: int) -> int | None:
    """Which process has come; None where it is none of this run, and it is told so."""
    connection.settimeout(_HELLO_SECONDS)
    words = _hear(connection).split()
    if len(words) != 3 or words[0] != "jaxstyle" or not all(w.isdecimal() for w in words[1:]):
        return None
    if int(words[1]) != count:
        other = f"process 0 was started with --num-processes {count}, not {words[1]}"
        _say(connection, _NO + other)
        return None
    return int(words[2])


def _come(host: str, port: int, count: int, index: int, deadline: float) -> None:
    """Another process: comes to process 0, as soon as that listens."""
    while True:
        try:
            with socket.create_connection((host, port), timeout=_left(deadline)) as connection:
                problem = "the others have not all come"
                _say(connection, f"jaxstyle {count} {index}")
                connection.settimeout(_left(deadline))
                answer = _hear(connection)
        except OSError as error:
            problem = reason_of(error)
        else:
            if answer == _GO:
                return
            if answer.startswith(_NO):
                raise UserError(answer.removeprefix(_NO))
            if answer:
                problem = "something else listens there"
        if time.monotonic() + _PAUSE > deadline:
            raise UserError(
                f"process {index} did not meet the others at {host}:{port}: {problem}; are all "
                "processes started, with the same --coordinator, and can that port be reached?"
            )
        time.sleep(_PAUSE)


def _say(connection: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # it has gone; whoever waits for it will say so
        connection.sendall(f"{line}\n".encode())


def _hear(connection: socket.socket) -> str:
    """A line, or nothing where none comes."""
    heard = b""
    with contextlib.suppress(OSError):
        while not heard.endswith(b"\n") and len(heard) < _LINE:
            part = connection.recv(_LINE)
            if not part:
                break
            heard += part
    return heard.decode(errors="replace").strip()
