"""The example pictures: the committed files, and the program that makes them."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCALE = 0.06
SIZES = {"photo": (768, 512), "painting": (640, 512)}  # Width, height.


@pytest.fixture(scope="module")
def make_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("make_pictures")
    for name in list(sys.modules):
        if name.partition(".")[0] in ("make_pictures", "pictures"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def small(make_pictures):
    """Both pictures, small: name -> float array."""
    return {name: make_pictures.PICTURES[f"{name}.jpg"](SCALE) for name in SIZES}


@pytest.mark.parametrize("name", SIZES)
def test_render_is_a_picture(small, name):
    width, height = SIZES[name]
    assert small[name].shape == (round(height * SCALE), round(width * SCALE), 3)
    assert small[name].dtype == np.float32
    assert small[name].min() >= 0.0
    assert small[name].max() <= 1.0
    assert small[name].std(axis=(0, 1)).min() > 0.1


@pytest.mark.parametrize("name", SIZES)
def test_render_depends_on_the_seed_alone(make_pictures, small, name):
    render = make_pictures.PICTURES[f"{name}.jpg"]
    np.testing.assert_array_equal(render(SCALE, 0), small[name])
    assert np.abs(render(SCALE, 1) - small[name]).mean() > 0.01


@pytest.mark.parametrize("name", SIZES)
def test_committed_file_is_what_the_program_makes(small, name):
    path = EXAMPLES / f"{name}.jpg"
    assert path.stat().st_size < 180 * 1024
    with Image.open(path) as image:
        assert image.size == SIZES[name]
        assert image.mode == "RGB"
        shrunk = image.resize(small[name].shape[1::-1], Image.Resampling.BOX)
    # Not pixel by pixel: strokes and trees fall differently at another scale.
    alike = np.corrcoef(np.asarray(shrunk).ravel(), small[name].ravel())[0, 1]
    assert alike > 0.85


def test_command_writes_both_files(make_pictures, monkeypatch, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    monkeypatch.setattr(sys, "argv", ["make", "--output", str(folder), "--scale", "0.02"])
    make_pictures.main()
    assert sorted(path.name for path in folder.iterdir()) == ["painting.jpg", "photo.jpg"]
    assert "painting.jpg" in capsys.readouterr().out


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf", "big"])
def test_command_refuses_a_bad_scale(make_pictures, monkeypatch, capsys, scale):
    monkeypatch.setattr(sys, "argv", ["make", f"--scale={scale}"])
    with pytest.raises(SystemExit) as stopped:
        make_pictures.main()
    assert stopped.value.code == 2
    assert "--scale" in capsys.readouterr().err
