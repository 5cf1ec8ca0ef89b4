import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxstyle import images
from jaxstyle.errors import UserError
from jaxstyle.training import data as module
from jaxstyle.training.config import DataConfig, TrainConfig
from jaxstyle.training.data import Batches, fixed_batches

SIZE = 16


def gray(path: Path, level: int) -> None:
    """A picture of one grey level, which tells it from the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 24, 3), level, np.uint8)).save(path)


def grays(folder: Path, count: int) -> str:
    for level in range(count):
        gray(folder / f"{level:03}.png", level)
    return str(folder)


def noises(folder: Path, count: int) -> str:
    random = np.random.default_rng(3)
    folder.mkdir(parents=True)
    for index in range(count):
        height, width = random.integers(18, 40, 2)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    return str(folder)


def ramps(folder: Path) -> str:
    """A picture whose red says how far from the left a pixel is, and green how far from above."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:200, 0:250].astype(np.uint8)
    Image.fromarray(np.stack([x, y, 0 * x], -1)).save(folder / "x.png")
    return str(folder)


def make(content: str, *, batch_size=4, crop_size=SIZE, seed=0, **options) -> TrainConfig:
    return TrainConfig(
        method="distill",
        batch_size=batch_size,
        crop_size=crop_size,
        seed=seed,
        data=DataConfig(content=content, **options),
    )


def take(config: TrainConfig, count: int, **options) -> list:
    with Batches(config, **options) as batches:
        return [next(batches) for _ in range(count)]


def assert_same(some, others) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for kind in one:
            np.testing.assert_array_equal(one[kind], other[kind])


def levels(batches) -> list[int]:
    return [int(row[0, 0, 0]) for batch in batches for row in batch["content"]]


# ------------------------------------------------------------------------------------------ order


def test_what_a_batch_is(tmp_path):
    content, style = noises(tmp_path / "content", 5), noises(tmp_path / "style", 3)
    (batch,) = take(make(content), 1)
    assert batch.keys() == {"content"}
    assert batch["content"].shape == (4, SIZE, SIZE, 3)
    assert batch["content"].dtype == np.uint8
    (batch,) = take(make(content, style=style), 1)
    assert batch["style"].shape == (4, SIZE, SIZE, 3)
    (batch,) = take(make(content, style=style, style_batch_size=2), 1)
    assert batch["style"].shape == (2, SIZE, SIZE, 3)
    (batch,) = take(make(content, style=content), 1)  # the same pictures, but other crops of them
    assert (batch["style"] != batch["content"]).any()


def test_batches_are_a_function_of_seed_and_step(tmp_path, monkeypatch):
    content, style = noises(tmp_path / "content", 5), noises(tmp_path / "style", 3)
    options = {"style": style, "style_batch_size": 3, "max_scale": 2.0}
    config = make(content, **options)
    whole = take(config, 8)
    assert_same(whole, take(make(content, threads=7, prefetch=1, **options), 8))
    assert_same(whole[5:], take(config, 3, start_step=5))
    other = take(make(content, seed=1, **options), 8)
    assert all((a["content"] != b["content"]).any() for a, b in zip(whole, other, strict=True))
    monkeypatch.setattr(module, "_KEPT_BYTES", 3000)  # too few for all of the pictures
    assert_same(whole, take(config, 8))


def test_the_parts_of_several_processes_are_the_batch_of_one(tmp_path):
    content, style = noises(tmp_path / "content", 5), noises(tmp_path / "style", 3)
    config = make(content, batch_size=6, style=style, style_batch_size=3)
    whole = take(config, 3)
    parts = [take(config, 3, process_index=index, process_count=3) for index in range(3)]
    joined = [
        {kind: np.concatenate([part[step][kind] for part in parts]) for kind in whole[step]}
        for step in range(3)
    ]
    assert_same(whole, joined)
    with pytest.raises(ValueError, match="multiple of 2 processes, got 3"):
        take(config, 1, process_count=2)


def test_every_picture_comes_once_an_epoch(tmp_path):
    shown = levels(take(make(grays(tmp_path, 6), batch_size=4), 15))
    epochs = [shown[start : start + 6] for start in range(0, 60, 6)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4, 5] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 7


def test_fewer_pictures_than_rows(tmp_path):
    assert sorted(levels(take(make(grays(tmp_path, 2), batch_size=6), 1))) == [0, 0, 0, 1, 1, 1]


# ------------------------------------------------------------------------------------------ crops


def test_crops_have_the_scales_that_were_asked_for(tmp_path):
    config = make(ramps(tmp_path / "x"), batch_size=64, crop_size=50, min_scale=1.25, max_scale=4.0)
    crops = np.concatenate([batch["content"] for batch in take(config, 6)]).astype(float)
    across = (crops[:, 25, -1, 0] - crops[:, 25, 0, 0]) / 49 * 50  # width of the square cut out
    down = (crops[:, -1, 25, 1] - crops[:, 0, 25, 1]) / 49 * 50
    np.testing.assert_allclose(abs(across), down, atol=3)
    scale = 200 / down
    assert scale.min() > 1.2
    assert scale.max() < 4.3
    # As often between 1.25 and their geometric mean as above it.
    assert 0.4 < (scale < np.sqrt(1.25 * 4)).mean() < 0.6
    assert 0.4 < (across < 0).mean() < 0.6
    # All of the picture is seen.
    assert crops[..., 0].min() <= 2
    assert crops[..., 0].max() >= 247
    assert crops[..., 1].min() <= 2
    assert crops[..., 1].max() >= 197


def test_crops_without_scales_or_flips(tmp_path):
    config = make(ramps(tmp_path / "x"), batch_size=16, crop_size=40, flip=False)
    (batch,) = take(config, 1)
    crops = batch["content"].astype(float)
    np.testing.assert_allclose(crops[:, :, 20, 1], np.tile(crops[0, :, 20, 1], (16, 1)))
    np.testing.assert_allclose(crops[:, 20, 20, 1], 102, atol=1)  # the whole height
    np.testing.assert_allclose(crops[:, 20, -1, 0] - crops[:, 20, 0, 0], 195, atol=2)
    assert len(np.unique(crops[:, 20, 0, 0])) > 8


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 60), (300, 2)])
def test_small_and_narrow_pictures_are_enlarged(tmp_path, size):
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "x.png")
    (batch,) = take(make(str(tmp_path), max_scale=3.0), 1)
    np.testing.assert_array_equal(batch["content"], np.full((4, SIZE, SIZE, 3), (9, 8, 7)))


# ------------------------------------------------------------------------------ unreadable pictures


def test_unreadable_pictures_are_replaced_and_counted(tmp_path):
    folder = grays(tmp_path, 6)
    config = make(folder)
    whole = take(config, 9)
    for level in (2, 4):
        (tmp_path / f"00{level}.png").write_bytes(b"no picture")
    told = []
    with Batches(config, warn=told.append) as batches:
        found = [next(batches) for _ in range(9)]
        assert batches.skipped == 2
    assert len(told) == 2
    assert all(line.startswith(f"skipped {folder}") for line in told)
    expected, shown = levels(whole), levels(found)
    assert set(shown) == {0, 1, 3, 5}
    assert [a == b for a, b in zip(expected, shown, strict=True)] == [
        level not in (2, 4) for level in expected
    ]
    assert_same(found[4:], take(config, 5, start_step=4, warn=told.append))


def test_warnings_come_to_an_end(tmp_path):
    grays(tmp_path, 40)
    for level in range(30):
        (tmp_path / f"{level:03}.png").write_bytes(b"")
    told = []
    with Batches(make(str(tmp_path)), warn=told.append) as batches:
        for _ in range(30):
            next(batches)
        assert batches.skipped == 30
    assert len(told) == 11
    assert "only counted" in told[-1]


def test_one_readable_picture_among_few_is_enough(tmp_path):
    gray(tmp_path / "x.png", 3)
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(b"")
    assert set(levels(take(make(str(tmp_path)), 5, warn=[].append))) == {3}


@pytest.mark.parametrize("count", [1, 3, 300])
def test_nothing_but_unreadable_pictures_is_an_error(tmp_path, count):
    for index in range(count):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with Batches(make(str(tmp_path)), warn=[].append) as batches:
        for _ in range(2):  # and stays one
            with pytest.raises(UserError, match=r"data\.content: .*png.* is empty"):
                next(batches)
        assert batches.skipped <= 150  # other threads are at pictures of their own
    with pytest.raises(UserError, match="is empty"):
        fixed_batches(make(str(tmp_path)), rows=1)


def test_settings_are_named_in_errors(tmp_path):
    folder = grays(tmp_path / "x", 1)
    with pytest.raises(UserError, match=r"data\.content is not set"):
        take(make(""), 1)
    with pytest.raises(UserError, match=r"data\.content: .*no such folder"):
        take(make(str(tmp_path / "none")), 1)
    with pytest.raises(UserError, match=r"data\.style: .*no such folder"):
        take(make(folder, style="none"), 1)
    with pytest.raises(UserError, match=r"data\.held_out: .*no such folder"):
        fixed_batches(make(folder, held_out="none"), rows=1)


# ---------------------------------------------------------------------------------------- threads


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "jaxstyle-data" in thread.name]


def test_closing_stops_the_threads(tmp_path):
    filters = list(warnings.filters)
    batches = Batches(make(noises(tmp_path / "x", 5), threads=3, prefetch=50))
    next(batches)
    assert len(workers()) == 3
    begun = time.perf_counter()
    batches.close()
    batches.close()
    assert time.perf_counter() - begun < 2
    assert not workers()
    assert list(warnings.filters) == filters
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_errors_in_threads_come_out(tmp_path, monkeypatch):
    folder = grays(tmp_path, 3)

    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(images, "crop", fail)
    with Batches(make(folder)) as batches, pytest.raises(RuntimeError, match="a bug"):
        next(batches)
    assert not workers()


def test_waiting_is_measured(tmp_path, monkeypatch):
    folder = grays(tmp_path, 3)
    crop = images.crop

    def slow(*args):
        time.sleep(0.02)
        return crop(*args)

    monkeypatch.setattr(images, "crop", slow)
    with Batches(make(folder, threads=1, prefetch=2)) as batches:
        next(batches)
        assert batches.waited > 0.05  # four rows of 0.02 s
        deadline = time.monotonic() + 10
        while not all(row.done() for _, rows in batches._ahead for row in rows):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        before = batches.waited
        next(batches)  # they were made meanwhile
        assert batches.waited - before < 0.02


# ----------------------------------------------------------------------------------- fixed batches


def test_fixed_batches_are_middle_squares(tmp_path):
    config = make(ramps(tmp_path / "x"), crop_size=50, max_scale=4.0)
    [batch] = fixed_batches(config, rows=1)
    crop = batch["content"][0].astype(float)
    np.testing.assert_allclose(crop[25, [0, -1], 0], [26.5, 222.5], atol=1.5)
    np.testing.assert_allclose(crop[[0, -1], 25, 1], [1.5, 197.5], atol=1.5)
    assert_same([batch], fixed_batches(config, rows=1))


def test_fixed_batches_take_what_was_kept_out(tmp_path):
    content, held_out = grays(tmp_path / "a", 3), tmp_path / "b"
    for level in (10, 11, 12, 13, 14):
        gray(held_out / f"{level}.png", level)
    config = make(content, held_out=str(held_out), style=content, style_batch_size=2)
    [batch] = fixed_batches(config, rows=3)
    assert levels([batch]) == [10, 11, 12]
    assert batch["style"][:, 0, 0, 0].tolist() == [0, 1]
    # Paintings are as many as there are to be, one after the other.
    more = make(content, style=str(held_out), style_batch_size=2)
    rows = [batch["style"][:, 0, 0, 0].tolist() for batch in fixed_batches(more, rows=3, count=3)]
    assert rows == [[10, 11], [12, 13], [14, 10]]
    assert levels(fixed_batches(config, rows=2, which="training")) == [0, 1]
    batches = fixed_batches(make(content), rows=2, count=2)
    assert levels(batches) == [0, 1, 2, 0]
    assert batches[0]["content"].dtype == np.uint8
    style = make(content, style=content, held_out_style=str(held_out))
    rows = [batch["style"][:, 0, 0, 0].tolist() for batch in fixed_batches(style, rows=2, count=3)]
    assert rows == [[10, 11], [12, 13], [14, 10]]
    with pytest.raises(ValueError, match="training"):
        fixed_batches(config, rows=1, which="test")


def test_fixed_batches_of_several_processes(tmp_path):
    config = make(grays(tmp_path, 5))
    parts = [
        fixed_batches(config, rows=6, count=2, process_index=index, process_count=2)[1]
        for index in range(2)
    ]
    whole = fixed_batches(config, rows=6, count=2)[1:]
    assert levels(parts) == levels(whole) == [1, 2, 3, 4, 0, 1]


def test_fixed_batches_pass_over_unreadable_pictures(tmp_path):
    config = make(grays(tmp_path, 3))
    (tmp_path / "001.png").write_bytes(b"")
    told = []
    assert levels(fixed_batches(config, rows=3, warn=told.append)) == [0, 2, 2]
    assert len(told) == 1


def test_sources_are_opened_once_for_all_fixed_batches(tmp_path, monkeypatch):
    content, opened, real = grays(tmp_path, 5), [], module.open_source

    def open_source(spec, **options):
        opened.append(spec)
        return real(spec, **options)

    monkeypatch.setattr(module, "open_source", open_source)
    assert levels(fixed_batches(make(content), rows=2, count=3)) == [0, 1, 2, 3, 4, 0]
    assert opened == [content]


def test_real_photographs(data):
    config = make(
        str(data / "content"), style=str(data / "style"), batch_size=8, crop_size=64, max_scale=2.0
    )
    with Batches(config, warn=pytest.fail) as batches:
        rows = np.concatenate([next(batches)["content"] for _ in range(8)])
    assert len(np.unique(rows.reshape(64, -1), axis=0)) == 64
    assert 40 < rows.mean() < 190
