import os
import sys

import pytest
from processes import python

from jaxstyle import runtime
from jaxstyle.errors import UserError

needs_glibc = pytest.mark.skipif(runtime._glibc() is None, reason="of glibc's allocator")


def test_private_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path / "mine"))
    assert runtime.compilation_cache_folder() == tmp_path / "mine" / "xla"
    monkeypatch.delenv("JAXSTYLE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert runtime.compilation_cache_folder() == tmp_path / "jaxstyle" / "xla"


CACHED_RUN = """
    import sys, warnings
    from jaxstyle import runtime
    warnings.simplefilter("error")
    runtime.prepare(device="cpu", warn=lambda line: print("warned:", line))
    import jax, jax.numpy as jnp
    hits = []
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((64, 64))).block_until_ready()
    print("hits:", sum(name.endswith("cache_hits") for name in hits) > 0)
"""


def test_the_command_caches_what_it_compiles(tmp_path):
    environment = {"JAXSTYLE_CACHE_DIR": str(tmp_path / "cache")}
    outputs = [python(CACHED_RUN, environment=environment) for _ in range(2)]
    assert [result.stdout for result in outputs] == ["hits: False\n", "hits: True\n"]
    assert [result.stderr for result in outputs] == ["", ""]
    folder = tmp_path / "cache" / "xla"
    assert list(folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_others_may_write_to_is_not_used(tmp_path):
    folder = tmp_path / "xla"
    folder.mkdir()
    folder.chmod(0o770)
    result = python(CACHED_RUN, environment={"JAXSTYLE_CACHE_DIR": str(tmp_path)})
    assert f"warned: the compilation cache is not used: others may write to {folder}" in (
        result.stdout
    )
    assert "hits: False" in result.stdout
    assert not list(folder.iterdir())


def test_a_cache_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path))
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert "belongs to another user" in (runtime.enable_compilation_cache() or "")


def test_a_cache_that_cannot_be_made_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path / "file"))
    assert "file" in (runtime.enable_compilation_cache() or "")


def test_shrink_removes_the_oldest_first(tmp_path):
    for age, name in enumerate(["new", "old", "oldest"]):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    runtime.shrink(tmp_path, 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    runtime.shrink(tmp_path, 25)
    assert len(list(tmp_path.iterdir())) == 2


def test_allocator_is_harmless():
    result = python("from jaxstyle import runtime; print(runtime.tune_allocator())")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout in ("True\n", "False\n")


BLOCKS = """
    import re
    import numpy as np
    from jaxstyle import runtime

    def resident():
        with open("/proc/self/status") as file:
            return int(re.search(r"VmRSS:\\s+(\\d+)", file.read())[1]) / 2**10

    def kept():
        before = resident()
        block = np.ones(2**26)  # 512 MB
        del block
        return resident() - before > 400

    runtime.give_back_large_blocks(False)  # of an allocator that is not ours to set
    found = [kept()]
    runtime.tune_allocator()
    for wanted in (True, False):
        runtime.give_back_large_blocks(wanted)
        found.append(kept())
    print(found)
"""


@needs_glibc
def test_large_blocks_are_kept_or_given_back():
    result = python(BLOCKS)
    assert (result.returncode, result.stdout) == (0, "[False, False, True]\n"), result.stderr


ARENAS = """
    import ctypes, os, sys, tempfile
    from jaxstyle import cli
    sys.argv[1:] = ["--version"]
    assert cli.run() == 0
    from jaxstyle.commands.interruption import Interruption
    with Interruption(print, print):  # which has a thread
        import jax.numpy as jnp
        jnp.ones((600, 600)).sum().block_until_ready()  # and so has JAX
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    with tempfile.TemporaryFile("w+") as file:
        stream = ctypes.c_void_p(libc.fdopen(os.dup(file.fileno()), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        file.seek(0)
        print(file.read().count("<heap nr="))
"""


@needs_glibc
def test_all_threads_of_the_command_share_an_arena():
    result = python(ARENAS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1:] == ["1"]


@needs_glibc
def test_memory_is_given_back():
    code = """
        import os
        from pathlib import Path
        import numpy as np
        from jaxstyle import runtime
        def resident():
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        kept = runtime.tune_allocator()
        before = resident()
        pieces = [np.ones(2**17) for _ in range(200)]
        last = np.ones(2**17)
        del pieces
        between = resident()
        runtime.trim_memory()
        print(kept, between - before > 150, resident() - before < 50)
    """
    result = python(code)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "True True True\n"


def test_importing_changes_nothing(tmp_path):
    code = """
        import os
        before = dict(os.environ)
        import jaxstyle, jaxstyle.cli, jaxstyle.runtime, jaxstyle.trace
        import jaxstyle.commands.stylize, jaxstyle.commands.weights, jaxstyle.methods.gatys
        import jax
        from jax._src import xla_bridge
        assert not xla_bridge.backends_are_initialized()
        assert jax.config.jax_compilation_cache_dir is None
        assert dict(os.environ) == before | {"TF_CPP_MIN_LOG_LEVEL": "1"} or (
            dict(os.environ) == before
        ), set(os.environ.items()) ^ set(before.items())
        assert not list(os.scandir(os.environ["JAXSTYLE_CACHE_DIR"]))
    """
    result = python(code, environment={"JAXSTYLE_CACHE_DIR": str(tmp_path)})
    assert result.returncode == 0, result.stderr


# Devices


def test_device_by_name():
    assert runtime.find_device("CPU:1").id == 1
    assert runtime.find_device("cpu").id == 0
    assert runtime.find_device(None).platform == "cpu"


@pytest.mark.parametrize("name", ["abacus", "cpu:4", "cpu:-1", "cpu:", "cpu:x", ""])
def test_unknown_device(name):
    with pytest.raises(UserError, match=r"there is cpu:0, cpu:1, cpu:2, cpu:3") as error:
        runtime.find_device(name)
    assert repr(name) in str(error.value)
