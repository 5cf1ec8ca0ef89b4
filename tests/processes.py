"""Other Python processes, for the tests."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of this checkout, and of the tests themselves: a child imports what its parent defines.
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])


def python(code, *arguments, **options):
    """Runs code with this checkout on the path; `environment` is added to the own one."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH} | options.pop("environment", {})
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def free_port():
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def two_processes(arguments, environment):
    """Runs Python twice at the same time, on this checkout, with two CPU devices each.

    Args:
        arguments: of the interpreter; the index of the process, 0 or 1, comes after them.
        environment: is added to the own one.

    Returns:
        What each wrote to its output and to its errors; both must have ended well.
    """
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "JAX_NUM_CPU_DEVICES": "2"} | environment
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments, str(index)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


def memory_of(work):
    """By how many MB the peak memory of a process grows with some lines of code."""
    code = (
        "import resource\n"
        "import numpy as np\n"
        "from jaxstyle import images\n"
        "def peak():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MB\n"
        f"before = peak()\n{work}\nprint(peak() - before)\n"
    )
    process = python(code)
    assert process.returncode == 0, process.stderr
    return int(process.stdout)
