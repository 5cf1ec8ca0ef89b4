"""Other Python processes, for the tests."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python(code, *arguments, **options):
    """Runs code with this checkout on the path; `environment` is added to the own one."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("environment", {})
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


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
