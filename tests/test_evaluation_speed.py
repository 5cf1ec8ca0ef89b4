"""Tests of jaxstyle.evaluation.speed, with tiny networks."""

import _thread
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_weights
from processes import ROOT
from tiny import write_pictures

from jaxstyle import images, models, weights
from jaxstyle.errors import UserError
from jaxstyle.evaluation import machine, painters, speed, speed_tables, speeds, throughput
from jaxstyle.evaluation.cells import NOTHING, Cell
from jaxstyle.evaluation.config import MethodConfig
from jaxstyle.methods import residual

POPEN = subprocess.Popen
SHORT = {
    "content_layers": {"relu1_1": 1.0},
    "style_layers": {"relu1_1": 1.0},
    "scales": 2,
    "steps": 3,
}


@pytest.fixture(scope="module", autouse=True)
def quick_compiler():
    """Programs that run once need no optimisation, here and in the processes that measure."""
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with photos/, paintings/, a model of two styles and a network."""
    folder = tmp_path_factory.mktemp("files")
    write_pictures(folder / "photos", 5)
    write_pictures(folder / "paintings", 3)
    config = residual.Config(channels=(3, 4), blocks=0)
    generator = residual.make_generator(config, 2)
    example = jnp.zeros((1, 16, 16, 3)), jnp.ones((1, 2))
    variables = jax.jit(generator.init)(jax.random.key(0), *example)
    variables = jax.tree.map(np.asarray, variables)
    model = models.Model("residual", config, ("leaf", "sand"), variables)
    models.save(folder / "model.safetensors", model)
    weights.save(folder / "net.safetensors", random_weights(widths=((4, 4),)))
    return folder


def residual_method(files, **settings):
    return MethodConfig(kind="residual", model=str(files / "model.safetensors"), **settings)


def gatys_method(files, **settings):
    return MethodConfig(
        kind="gatys", features=str(files / "net.safetensors"), settings=SHORT | settings
    )


def options(files, **changes):
    chosen = {
        "runs": 2,
        "batch": 2,
        "photo_path": files / "photos" / "0.png",
        "painting_path": files / "paintings" / "1.png",
        "style_name": "sand",
    }
    return chosen | changes


# --- processes -----------------------------------------------------------------------------------


def test_measures_a_network(files):
    (record,) = speed.measure("ours", residual_method(files), [32], **options(files))
    assert record["error"] == ""
    assert json.loads(json.dumps(record)) == record
    named = {name: record[name] for name in ("method", "style", "size", "runs", "batch")}
    assert named == {"method": "ours", "style": "sand", "size": 32, "runs": 2, "batch": 2}
    assert len(record["seconds"]) == len(record["batch_seconds"]) == 2
    assert min(record["seconds"] + record["batch_seconds"]) > 0
    # Compiling takes hundreds of times as long as painting 32 pixels does.
    assert record["first_s"] > 3 * max(record["seconds"])
    assert 0 < record["peak_mb"] <= record["batch_peak_mb"] < 2000
    assert record["device_peak_mb"] is None
    assert not record["extrapolated"]
    assert record["updates"] == 0
    assert "update_ms" not in record


def test_measures_updates_in_several_styles(files):
    paintings = {"leaf": files / "paintings" / "0.png", "sand": files / "paintings" / "1.png"}
    photo = files / "photos" / "0.png"
    found = speed.measure_styles(
        "gatys", gatys_method(files), paintings, size=32, runs=2, photo_path=photo
    )
    assert [(record["style"], record["error"]) for record in found] == [("leaf", ""), ("sand", "")]
    first, second = found
    assert first["updates"] == 3 + 2
    assert len(first["update_ms"]) == 4
    assert len(first["seconds"]) == 2
    assert not first["extrapolated"]
    # The second style finds compiled what the first one compiled.
    assert second["first_s"] < first["first_s"] / 2
    assert "batch_seconds" not in first


def test_measures_from_the_users_cache(files, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path))
    (record,) = speed.measure("ours", residual_method(files), [32], **options(files, cold=False))
    assert record["error"] == ""
    assert len(record["seconds"]) == 2
    assert "first_s" not in record
    assert any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("at_once", [1, 2])
def test_methods_are_measured_at_once_and_stay_in_order(monkeypatch, at_once):
    names, begun = ["one", "two", "three"], []
    both = threading.Barrier(at_once)

    def timed(context, name):
        begun.append(name)
        if len(begun) <= at_once:
            both.wait(10)  # as many as asked for are here at the same time
        return [{"method": name}], []

    monkeypatch.setattr(speeds, "_timed", timed)
    for table in ("speed_table", "cost_table"):
        monkeypatch.setattr(speeds.speed_tables, table, lambda records: records)
    methods = {name: MethodConfig(kind="residual") for name in names}
    config = types.SimpleNamespace(methods=methods, speed_at_once=at_once, throughput=0)
    studio = types.SimpleNamespace(config=config, paints=lambda name: True)
    context = types.SimpleNamespace(
        studio=studio, painters=dict.fromkeys(names), stopping=lambda: False
    )
    found = speeds.section(context)
    for table in found.tables:
        assert [record["method"] for record in table] == names
    assert sorted(begun) == sorted(names)
    assert ("beside them" in found.text) == (at_once > 1)


def test_reports_what_fails(files):
    method = MethodConfig(kind="residual", model=str(files / "missing.safetensors"))
    found = speed.measure("ours", method, [32], **options(files))
    (record,) = found
    assert "missing.safetensors" in record["error"]
    assert "Error" not in record["error"]
    table = speed_tables.speed_table(found)
    assert table.rows == {"ours": {}}
    assert any(record["error"] in note for note in table.notes)


def test_measures_nothing_of_what_computes_nothing(files):
    for kind in ("photo", "painting"):
        assert speed.measure("x", MethodConfig(kind=kind), [32], **options(files)) == []
        photo = files / "photos" / "0.png"
        assert speed.measure_styles("x", MethodConfig(kind=kind), {}, photo_path=photo) == []


def test_ends_a_process_that_takes_too_long(files):
    method = residual_method(files)
    (record,) = speed.measure("ours", method, [32], **options(files), timeout_s=0.2)
    assert record["error"] == "stopped after 0 s"


def test_says_how_a_process_was_ended(files, monkeypatch):
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    started = spy(monkeypatch, [sys.executable, "-c", program])
    (record,) = speed.measure("ours", residual_method(files), [32], **options(files))
    assert record["error"] == "ended by SIGKILL, as where memory runs out"
    program = "import sys; print('some lines\\nand the last\\n', file=sys.stderr); sys.exit(1)"
    started = spy(monkeypatch, [sys.executable, "-c", program])
    (record,) = speed.measure("ours", residual_method(files), [32], **options(files))
    assert record["error"] == "and the last"
    assert len(started) == 1


def test_keeps_what_was_found_before_a_process_died(files, monkeypatch):
    program = """import json; print(json.dumps({"style": "sand", "first_s": 3.0}))
print('{"style": "sand", "sec'); raise SystemExit(3)"""
    spy(monkeypatch, [sys.executable, "-c", program])
    (record,) = speed.measure("ours", residual_method(files), [32], **options(files))
    assert record["first_s"] == 3
    assert record["error"] == "ended with code 3"
    assert "seconds" not in record


@pytest.fixture
def interruptible():
    """Ctrl-C raises, in a shell's background job, too, which begins deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_the_process(files, monkeypatch):
    started = spy(monkeypatch, [sys.executable, "-c", "import time; time.sleep(60)"])
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        speed.measure("ours", residual_method(files), [32], **options(files))
    timer.join()
    with pytest.raises(KeyboardInterrupt):
        speed.measure("ours", residual_method(files), [32], **options(files), stopping=lambda: True)
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
    spy(
        monkeypatch,
        [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"],
    )
    with pytest.raises(KeyboardInterrupt):
        speed.measure("ours", residual_method(files), [32], **options(files))


def test_the_process_ends_with_the_one_that_asked(files):
    job = {"name": "ours", "method": {"kind": "residual"}, "device": None}
    # A photograph that never comes: whoever opens a pipe waits for one who writes.
    os.mkfifo(files / "pipe")
    job |= {"photo": str(files / "pipe"), "paintings": {}, "size": 32, "runs": 1}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "jaxstyle.evaluation.speed"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAXSTYLE_CACHE_DIR": str(files / "cache")},
        stdin=subprocess.PIPE,
    ) as process:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.close()
        assert process.wait(60) == 1


def spy(monkeypatch, command):
    """Has another command run in place of the one that measures; the list of what was started."""
    started = []

    def start(arguments, **settings):
        assert arguments[-2:] == ["-m", "jaxstyle.evaluation.speed"]
        started.append(POPEN(command, **settings))
        return started[-1]

    monkeypatch.setattr(speed.subprocess, "Popen", start)
    return started


def test_the_compilation_cache_is_empty_and_the_rest_is_inherited(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "full")
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", "where the weights are")
    monkeypatch.setenv("PYTHONPATH", "mine")
    found = speed._environment(tmp_path)
    assert found["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
    assert found["JAXSTYLE_CACHE_DIR"] == "where the weights are"
    assert found["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "mine"]


# --- updates -------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass only where a test lets them."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(
    ("limit_s", "always", "runs"), [(100, False, 3), (45, False, 2), (10, False, 0), (10, True, 1)]
)
def test_paints_whole_pictures_as_long_as_there_is_time(files, monkeypatch, limit_s, always, runs):
    """A clock of 1 s for an update at half the size, 4 at full size, 7 to compile at each."""
    clock, compiled, told = Clock(), set(), {}
    monkeypatch.setattr(speed, "time", clock)

    class Image:
        def block_until_ready(self):
            pass

    def stylize(photo, paintings, *, features, config):
        del paintings, features
        assert config.size == photo.shape[0] == 32
        for scale in (1, 2):
            clock.now += 0.5  # makes ready
            for _ in range(config.steps):
                clock.now += {1: 1, 2: 4}[scale] + (0 if scale in compiled else 7)
                compiled.add(scale)
                yield type("Iterate", (), {"image": Image(), "scale": scale})

    def paint(photo, style):
        clock.now += 20
        return photo

    monkeypatch.setattr("jaxstyle.methods.gatys.stylize", stylize)
    painter = painters.Painter(paint, ("sand",), "", "", updates=9)
    photo = np.zeros((32, 32, 3), np.float32)
    sitting = speed._Sitting(painter, photo, photo, "sand", 3, lambda **found: told.update(found))
    method = gatys_method(files, steps=6)  # and half as many at full size
    speed._time_updates(sitting, method, limit_s=limit_s, always=always)
    assert told["update_ms"] == [4000] * 4
    whole = 6 * 1 + 3 * 4 + 2 * 0.5
    assert told["extrapolated"] == (runs == 0)
    assert told["seconds"] == ([20] * runs if runs else [whole])
    assert told["first_s"] == (20 if runs else whole) + 2 * 7


# --- tables --------------------------------------------------------------------------------------


def record(method, size, *, style="sand", error="", **found):
    asked = {"method": method, "style": style, "size": size, "runs": 3, "batch": 4}
    return {**asked, "extrapolated": False, "updates": 0, "error": error, **found}


RECORDS = [
    record(
        "ours",
        256,
        seconds=[0.1, 0.3, 0.11],
        batch_seconds=[0.05, 0.07, 0.06],
        first_s=2.0,
        peak_mb=100.0,
        batch_peak_mb=120.0,
        device_peak_mb=None,
    ),
    record("ours", 512, seconds=[0.4, 0.5, 0.6], peak_mb=200.0, error="out of memory"),
    record("gatys", 256, updates=50, update_ms=[9.0, 8.0], seconds=[5.0], first_s=6.0),
    record("gatys", 512, updates=50, update_ms=[30.0], seconds=[20.0], extrapolated=True),
    record("johnson", 256, error="no such file"),
]


def test_speed_table():
    table = speed_tables.speed_table(RECORDS)
    assert list(table.rows) == ["ours", "gatys", "johnson"]
    assert [column.heading for column in table.columns] == [
        "256 px (ms) ↓",
        "512 px (ms) ↓",
        "256 px, in batches of 4 (ms) ↓",
    ]
    first, second, batches = (column.key for column in table.columns)
    ours, gatys = table.rows["ours"], table.rows["gatys"]
    assert ours[first].text(table.columns[0]) == ("110.0", "[100.0, 300.0]")
    assert ours[second].value == 500
    assert ours[batches] == Cell(pytest.approx(60), pytest.approx(50), pytest.approx(70))
    assert gatys[first] == Cell(5000.0)
    assert gatys[second] == Cell(20000.0, remark="extrapolated")
    assert batches not in gatys
    assert table.cells(first)["johnson"].text(table.columns[0])[0] == NOTHING
    notes = "\n".join(table.notes)
    assert "ours, sand, 512 px: out of memory." in notes
    assert "johnson, sand, 256 px: no such file." in notes
    assert "gatys, sand, 256 px: runs: 1." in notes
    assert "gatys: 50 updates a picture." in notes
    assert "Extrapolated: " in notes


def test_tables_tell_of_a_busy_machine():
    quiet = record("ours", 256, seconds=[0.1], load=2.0, cores=2)
    unknown = record("ours", 512, seconds=[0.1], load=None, cores=2)
    busy = record("adain", 256, seconds=[0.1], load=7.0, cores=2)
    assert "load" not in "".join(speed_tables.speed_table([quiet, unknown]).notes)
    assert "up to 3.5 times" in "".join(speed_tables.speed_table([quiet, unknown, busy]).notes)


def test_cost_table():
    table = speed_tables.cost_table(RECORDS)
    shown = {column.heading: column.key for column in table.columns}
    assert list(shown) == [
        "256 px, first picture (s) ↓",
        "256 px, an update (ms) ↓",
        "512 px, an update (ms) ↓",
        "256 px, memory (MiB) ↓",
        "512 px, memory (MiB) ↓",
        "256 px, memory after batches (MiB) ↓",
    ]
    ours, gatys = table.rows["ours"], table.rows["gatys"]
    assert ours[shown["256 px, memory (MiB) ↓"]] == Cell(100.0)
    assert gatys[shown["256 px, an update (ms) ↓"]] == Cell(8.5, 8.0, 9.0)
    assert gatys[shown["256 px, first picture (s) ↓"]] == Cell(6.0)
    assert any("An update" in note for note in table.notes)
    assert not any("An update" in note for note in speed_tables.cost_table(RECORDS[:2]).notes)


def test_styles_table():
    records = [
        record("ours", 512, style="leaf", seconds=[1.0, 2.0, 6.0]),
        record("ours", 512, style="sand", error="it does not paint in the style sand"),
        record("gatys", 512, style="leaf", seconds=[9.0], extrapolated=True, updates=50),
        record("gatys", 512, style="sand", seconds=[8.0, 7.0]),
    ]
    table = speed_tables.styles_table(records)
    assert table.row_title == "style"
    assert "512 px" in table.title
    assert {style: dict(cells) for style, cells in table.rows.items()} == {
        "leaf": {"ours": Cell(3.0, 1.0, 6.0), "gatys": Cell(9.0, remark="extrapolated")},
        "sand": {"gatys": Cell(7.5, 7.0, 8.0)},
    }
    assert "gatys, sand, 512 px: runs: 2." in table.notes
    with pytest.raises(ValueError, match=r"one size, got \[256, 512\]"):
        speed_tables.styles_table([*records, record("ours", 256)])


def test_tables_of_nothing():
    for make in (speed_tables.speed_table, speed_tables.cost_table, speed_tables.styles_table):
        assert make([]).rows == {}
    assert speed_tables.throughput_table({}).rows == {}


# --- many pictures -------------------------------------------------------------------------------


def listed(folder):
    return images.list_images(folder)


@pytest.mark.parametrize("batched", [True, False])
def test_throughput_counts_and_leaves_nothing(files, tmp_path, monkeypatch, batched):
    seen, saved, save = [], {}, images.save

    def batch(photos, style):
        assert style == "sand"
        seen.append(photos.copy())
        return 1 - photos

    def record_and_save(path, pixels, **settings):
        save(path, pixels, **settings)
        saved[path.name] = images.load(path).pixels.mean()

    monkeypatch.setattr(images, "save", record_and_save)
    painter = painters.Painter(
        lambda photo, style: batch(photo[None], style)[0],
        ("sand",),
        "",
        "",
        batch=batch if batched else None,
    )
    photos = listed(files / "photos")[:3]
    found = throughput.measure(painter, photos, "sand", count=7, size=16, folder=tmp_path, batch=4)
    assert json.loads(json.dumps(found)) == found
    assert (found["count"], found["photos"], found["size"]) == (7, 3, 16)
    assert found["batch"] == (4 if batched else 1)
    assert min(found["disk_s"], found["compute_s"]) > 0
    assert list(tmp_path.iterdir()) == []
    # Warmed up once, then twice all of them, in batches of one shape.
    assert len(seen) == 1 + 2 * (2 if batched else 7)
    assert {rows.shape for rows in seen} == {(4 if batched else 1, 16, 16, 3)}
    means = [1 - throughput._square(path, 16).mean() for path in photos]
    assert [saved[name] for name in sorted(saved)] == pytest.approx(
        [means[index % 3] for index in range(7)], abs=0.01
    )


def test_throughput_without_files_paints_the_same(files, tmp_path):
    seen = []

    def batch(photos, style):
        seen.append(photos.copy())
        return photos

    painter = painters.Painter(lambda photo, style: photo, ("sand",), "", "", batch=batch)
    photos = listed(files / "photos")
    throughput.measure(painter, photos, "sand", count=9, size=16, folder=tmp_path, batch=2)
    through_files, without = seen[1:6], seen[6:]
    # All of those that are held come round again before they repeat.
    assert len(without) == 5
    for first, second in zip(through_files[:2], without[:2], strict=True):
        np.testing.assert_array_equal(first, second)


def test_squares_are_those_of_the_evaluation(files):
    pixels = np.random.default_rng(0).random((40, 61, 3)).astype(np.float32)
    path = files / "wide.png"
    images.save(path, images.resize(images.resize(pixels, (5, 7)), (40, 61)))
    from jaxstyle.evaluation import pictures

    np.testing.assert_allclose(throughput._square(path, 16), pictures.square(path, 16), atol=0.02)


def test_throughput_errors(files, tmp_path):
    painter = painters.Painter(lambda photo, style: photo, ("sand",), "", "")
    photos = listed(files / "photos")
    with pytest.raises(ValueError, match="at least 1, got 0, 3 and 4"):
        throughput.measure(painter, [], "sand", count=3, size=16, folder=tmp_path)
    with pytest.raises(ValueError, match="at least 1, got 5, 0 and 4"):
        throughput.measure(painter, photos, "sand", count=0, size=16, folder=tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*gone\.png"):
        throughput.measure(
            painter,
            [*photos, *photos, Path("gone.png")],
            "sand",
            count=11,
            size=16,
            folder=tmp_path,
        )
    with pytest.raises(KeyboardInterrupt):
        throughput.measure(
            painter, photos, "sand", count=3, size=16, folder=tmp_path, stopping=lambda: True
        )
    with pytest.raises(UserError, match="nowhere"):
        throughput.measure(painter, photos, "sand", count=1, size=16, folder=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_throughput_table():
    found = {"style": "sand", "size": 256, "batch": 4, "photos": 30}
    records = {
        "ours": found | {"count": 1000, "disk_s": 100.0, "compute_s": 50.0},
        "adain": found | {"count": 8, "disk_s": 4.0, "compute_s": 2.0},
    }
    table = speed_tables.throughput_table(records)
    rate, first, *_, last = table.columns
    assert first.heading == "25,000 pictures, extrapolated from 8 to 1,000 (h) ↓"
    assert last.key == "150000"
    assert list(table.rows)[:2] == ["ours, from disk to disk", "ours, computing alone"]
    ours = table.rows["ours, from disk to disk"]
    assert ours["rate"].text(rate) == ("10.00", "")
    assert ours["25000"].value == pytest.approx(25_000 / 10 / 3600)
    assert table.rows["adain, computing alone"]["150000"].value == pytest.approx(150_000 / 4 / 3600)
    assert "ours: 1,000 pictures of 256 px" in table.notes[0]
    alone = speed_tables.throughput_table({"ours": records["ours"]})
    assert alone.columns[1].title == "25,000 pictures, extrapolated from 1,000"


# --- the machine ---------------------------------------------------------------------------------


def test_hardware_does_not_identify_the_machine():
    found = machine.hardware()
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["JAX"] == jax.__version__
    assert found["devices"] == "4 x cpu"
    assert int(found["cores"]) >= 1
    assert all(isinstance(value, str) and value for value in found.values())
    assert not any(os.uname().nodename in value for value in found.values())
    assert not any(os.sep in value.replace("GiB/", "") for value in found.values())


def test_medians_are_of_the_runs():
    values = [0.5, 0.1, 0.2]
    table = speed_tables.speed_table([record("ours", 64, seconds=values)])
    assert table.rows["ours"][table.columns[0].key].value == 1e3 * statistics.median(values)
