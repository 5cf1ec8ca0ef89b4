import io
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from messages import user_error
from PIL import Image

from jaxstyle import images
from jaxstyle.errors import UserError
from jaxstyle.training.sources import UnreadableImage, open_source


def picture(path: Path, level: int, *, height=10, width=12) -> Path:
    """A picture of one grey level, which tells it from the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(path)
    return path


def levels(source) -> list[int]:
    return [int(source[index][0, 0, 0]) for index in range(len(source))]


# ------------------------------------------------------------------------------ folders and files


def test_a_folder_is_read_with_its_subfolders_in_order(tmp_path):
    for level, name in enumerate(["a.png", "b/a/x.PNG", "b/c.png", "c.png"]):
        picture(tmp_path / name, level)
    picture(tmp_path / ".hidden.png", 99)
    picture(tmp_path / ".hidden" / "x.png", 99)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path))
    assert levels(source) == [0, 1, 2, 3]
    assert source[1].shape == (10, 12, 3)
    assert source[1].dtype == np.uint8


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "elsewhere" / "x.png", 5)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    assert levels(open_source(str(tmp_path / "data"))) == [5]


def test_one_file_and_several_sources(tmp_path, monkeypatch):
    picture(tmp_path / "folder" / "x.png", 1)
    picture(tmp_path / "folder" / "y.png", 2)
    picture(tmp_path / "one.png", 3).rename(tmp_path / "one")  # the content says what it is
    assert levels(open_source(str(tmp_path / "one"))) == [3]
    spec = f"{tmp_path}/one, {tmp_path}/folder,{tmp_path}/one"
    assert levels(open_source(spec)) == [3, 1, 2, 3]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert levels(open_source("~/folder")) == [1, 2]


def test_sources_that_are_not_there(tmp_path):
    assert "no such folder or file" in user_error(open_source, str(tmp_path / "none"))
    assert ".png" in user_error(open_source, str(tmp_path))
    picture(tmp_path / "x.png", 0)
    for spec in ("", " ", f"{tmp_path},", f",{tmp_path}"):
        assert "names no pictures" in user_error(open_source, spec)
    assert "no such" in user_error(open_source, f"{tmp_path},{tmp_path}/none")


def test_what_cannot_be_read_is_named(tmp_path):
    picture(tmp_path / "a.png", 1)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-2000])
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d.png").mkdir()
    picture(tmp_path / "e.png", 5)
    source = open_source(str(tmp_path))
    (tmp_path / "e.png").unlink()
    assert len(source) == 5
    assert source[0][0, 0, 0] == 1
    for index, part in enumerate(["truncated", "is empty", "cannot be read", "No such file"], 1):
        with pytest.raises(UnreadableImage) as caught:
            source[index]
        message = str(caught.value)
        assert part in message
        assert message.count(str(tmp_path / "abcde"[index])) == 1
        assert ";" not in message


def test_large_jpegs_come_reduced_to_what_is_needed(tmp_path):
    Image.new("RGB", (640, 480), (10, 200, 30)).save(tmp_path / "x.jpg")
    for least, shape in ((0, (480, 640)), (300, (480, 640)), (120, (120, 160)), (9, (60, 80))):
        assert open_source(str(tmp_path), least_side=least)[0].shape[:2] == shape


def test_buckets(monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    from etils.epath import backend
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("gcs", "gs")
        store = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).removeprefix("gs://"))

    bucket = Bucket()
    monkeypatch.setattr(backend.fsspec_backend, "fs", lambda path: bucket)
    monkeypatch.setattr(fsspec, "filesystem", None)
    encoded = io.BytesIO()
    Image.new("RGB", (4, 4), (7, 7, 7)).save(encoded, "PNG")
    for name in ("b/x.png", "a.png"):
        bucket.pipe(f"gs://pictures/{name}", encoded.getvalue())
    assert levels(open_source("gs://pictures")) == [7, 7]
    assert levels(open_source("gs://pictures/b/x.png")) == [7]
    assert "no such folder" in user_error(open_source, "gs://pictures/none")


def test_a_bucket_that_cannot_be_reached_is_the_users_to_mend(monkeypatch):
    from etils.epath import backend

    def fail(path):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(backend.fsspec_backend, "fs", fail)
    monkeypatch.setattr(backend.tf_backend, "isdir", fail)
    assert "gs://pictures: cannot be read: Please install gcsfs" in user_error(
        open_source, "gs://pictures"
    )


# ------------------------------------------------------------------------------ prepared datasets


def prepare(folder: Path, examples: dict, **features) -> str:
    """Writes a dataset as array_record, by tensorflow_datasets' own writer, without TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    place = folder / "tiny" / "1.0.0"
    place.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="tiny", version=tfds.core.Version("1.0.0"), data_dir=str(place), module_name="tiny"
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict({**features, "label": np.int64})
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=3, file_format="array_record")
    writer.initialize_splits(list(examples))
    writer.add_examples(examples)
    writer.close_all()
    return str(folder)


def encoded(level: int) -> io.BytesIO:
    content = io.BytesIO()
    Image.fromarray(np.full((10, 12, 3), level, np.uint8)).save(content, "PNG")
    content.seek(0)
    return content


@pytest.fixture
def tiny(tmp_path) -> str:
    tfds = pytest.importorskip("tensorflow_datasets")
    image = tfds.features.Image(encoding_format="png")
    examples = {
        "train": [{"image": encoded(level), "label": level} for level in range(5)],
        "test": [{"image": encoded(9), "label": 9}],
    }
    return prepare(tmp_path, examples, image=image)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("tfds:tiny", [0, 1, 2, 3, 4]),
        ("tfds:tiny/1.0.0", [0, 1, 2, 3, 4]),
        ("tfds:tiny:test", [9]),
        ("tfds:tiny/1.0.0:test", [9]),
        ("tfds:tiny:train[1:3]", [1, 2]),
        ("tfds:tiny:train+test", [0, 1, 2, 3, 4, 9]),
        ("tfds:tiny:test,tfds:tiny:train", [9, 0, 1, 2, 3, 4]),
    ],
)
def test_prepared_datasets(tiny, spec, expected):
    assert levels(open_source(spec, tfds_dir=tiny)) == expected


def test_prepared_datasets_are_read_by_threads(tiny):
    source = open_source("tfds:tiny", tfds_dir=tiny)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda index: source[index % 5][0, 0, 0], range(100)))
    assert read == [0, 1, 2, 3, 4] * 20


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("tfds:tony", "no such prepared dataset"),
        ("tfds:tiny/2.0.0", "no such prepared dataset"),
        ("tfds:", "no such prepared dataset"),
        ("tfds:tiny:valid", "it has train, test"),
        ("tfds:tiny:train[", "no such split"),
    ],
)
def test_prepared_datasets_that_are_not_there(tiny, spec, part):
    assert part in user_error(open_source, spec, tfds_dir=tiny)


def test_a_dataset_without_a_split_named_train(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    image = tfds.features.Image(encoding_format="png")
    folder = prepare(tmp_path, {"photos": [{"image": encoded(3), "label": 0}]}, image=image)
    assert "tfds:tiny:SPLIT, of photos" in user_error(open_source, "tfds:tiny", tfds_dir=folder)
    assert levels(open_source("tfds:tiny:photos", tfds_dir=folder)) == [3]


def test_a_dataset_without_pictures(tmp_path):
    folder = prepare(tmp_path, {"train": [{"label": 0}]})
    assert "no feature 'image'" in user_error(open_source, "tfds:tiny", tfds_dir=folder)


def test_a_dataset_in_files_without_random_access(tiny):
    path = Path(tiny) / "tiny" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fileFormat": "tfrecord"}))
    assert "file_format='array_record'" in user_error(open_source, "tfds:tiny", tfds_dir=tiny)


def test_a_broken_picture_in_a_dataset(tiny, monkeypatch):
    source = open_source("tfds:tiny", tfds_dir=tiny)

    def fail(content, **_):
        raise UserError("x: broken; mend it")

    monkeypatch.setattr(images, "decode", fail)
    with pytest.raises(UnreadableImage, match=r"^x: broken$"):
        source[2]
    monkeypatch.undo()
    monkeypatch.setattr(source, "_records", [b"no record"])
    with pytest.raises(UnreadableImage, match="tfds:tiny, picture 0: cannot be read"):
        source[0]


def test_without_tensorflow_datasets(monkeypatch):
    for name in ("tensorflow_datasets", "tensorflow_datasets.core.read_only_builder"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'jaxstyle[tfds]'" in user_error(open_source, "tfds:tiny")


def test_without_array_record(tiny, monkeypatch):
    from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder

    def fail(self, **_):
        raise ImportError("No module named 'array_record'")

    monkeypatch.setattr(ReadOnlyBuilder, "as_data_source", fail)
    assert "pip install array_record" in user_error(open_source, "tfds:tiny", tfds_dir=tiny)
