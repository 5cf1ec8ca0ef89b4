"""Figures of the pictures of a method, kept so that none is computed twice."""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle import images
from jaxstyle.errors import UserError
from jaxstyle.evaluation import judges, machine, pictures, tables
from jaxstyle.evaluation.config import STILL, EvaluateConfig
from jaxstyle.evaluation.painters import Painter
from jaxstyle.evaluation.pictures import Pair

Record = dict[str, Any]


class Studio:
    """Photographs and paintings of an evaluation, the judge, and what the judge knows of them.

    Args:
        config: settings.
        judge: what judges.
        folder: of the evaluation.

    Attributes:
        dates: on which the figures were computed that were asked for so far.
    """

    def __init__(self, config: EvaluateConfig, judge: judges.Judge, folder: Path) -> None:
        self.dates: set[str] = set()
        self.config = config
        self.judge = judge
        self.folder = folder
        self.photos = pictures.read(config.content, config.size)
        self.paintings = pictures.read(config.style, config.size, limit=config.paintings)
        self.recognizer = judges.Recognizer(judge, self.paintings)
        self._compositions = {
            name: judges.compose(
                judge.features(painting)[config.composition_layer],
                config.clusters,
                seed=config.seed,
            )
            for name, painting in self.paintings.items()
        }

    @property
    def pairs(self) -> list[Pair]:
        """Every photograph in every style."""
        return [Pair(photo, style) for photo in self.photos for style in self.paintings]

    @functools.cached_property
    def files(self) -> str:
        """A short name of the files of photographs and paintings."""
        digest = hashlib.sha256()
        for folder in (self.config.content, self.config.style):
            for path in images.list_images(Path(folder)):
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:10]

    def pairs_of(self, name: str) -> list[Pair]:
        """Those that a method paints.

        One that paints few photographs begins with another one in each style.
        """
        photos = list(self.photos)
        few = min(self.config.methods[name].photos or len(photos), len(photos))
        chosen = {
            Pair(photos[(number + more) % len(photos)], style)
            for number, style in enumerate(self.paintings)
            for more in range(few)
        }
        return [pair for pair in self.pairs if pair in chosen]

    def judged(
        self,
        name: str,
        painter: Painter,
        part: str,
        photos: Mapping[str, np.ndarray],
        pairs: Sequence[Pair],
        score: Callable[[np.ndarray, Pair], Mapping[str, Any]],
        *,
        done: Callable[[int, int], None],
        beside: Any = None,
    ) -> list[Record]:
        """The figures of a method's pictures: read where they are known, else painted and judged.

        Args:
            name: of the method.
            painter: of it.
            part: the name of this set of pictures.
            photos: `{name: [side, side, 3]}`.
            pairs: of their names and those of paintings.
            score: a picture to its figures.
            done: told how many pictures are there, and how many are wanted.
            beside: what the figures depend on beside the pictures and the settings, as JSON has it.
        """
        key = [self._key(painter, part, photos, pairs), beside]
        kept = self._kept(name, painter, part, photos)

        def compute() -> list[Record]:
            records = []
            for pair, picture in pictures.paint(painter, kept, photos, pairs, done=done):
                found = {"method": name, "style": pair.style, "content": pair.photo}
                records.append(found | dict(score(picture, pair)))
            return records

        return self.remembered(f"{part}/{name}", key, compute)

    def remembered(
        self, what: str, settings: Any, compute: Callable[[], list[Record]]
    ) -> list[Record]:
        """Records that were computed before with the same settings and code, or are computed now.

        Args:
            what: the name of their file, with folders.
            settings: all that they depend on beside the code, as JSON has it.
            compute: makes them. Those with an `error` are not kept.
        """
        key = hashlib.sha256(json.dumps([settings, machine.code()]).encode()).hexdigest()[:10]
        file = self.folder / "scores" / f"{what}-{key}.json"
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            kept = json.loads(file.read_text())
            self.dates.add(kept["date"])
            return kept["records"]
        records = compute()
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        self.dates.add(date)
        if not any(record.get("error") for record in records):
            file.parent.mkdir(parents=True, exist_ok=True)
            tables.write_file(file, json.dumps({"date": date, "records": records}).encode())
        return records

    def paints(self, name: str) -> bool:
        """Whether a row is a method's, and not one to compare with."""
        return self.config.methods[name].kind not in STILL

    def painted(
        self,
        name: str,
        painter: Painter,
        pairs: Sequence[Pair],
        *,
        done: Callable[[int, int], None],
    ) -> Iterator[tuple[Pair, np.ndarray]]:
        """Pictures of `pairs`, those that are not there yet painted."""
        kept = self._kept(name, painter, "pairs", self.photos)
        return pictures.paint(painter, kept, self.photos, pairs, done=done)

    def kept(self, name: str, painter: Painter, pair: Pair) -> np.ndarray | None:
        """A picture of `pairs` that a method has painted; None where it has not."""
        path = pictures.path_of(self._kept(name, painter, "pairs", self.photos), pair)
        return images.load(path).pixels if path.exists() else None

    def _kept(
        self, name: str, painter: Painter, part: str, photos: Mapping[str, np.ndarray]
    ) -> Path:
        """Where a method's pictures lie."""
        return self.folder / "pictures" / part / f"{name}-{self._key(painter, '', photos, [])}"

    def _key(
        self, painter: Painter, part: str, photos: Mapping[str, np.ndarray], pairs: Sequence[Pair]
    ) -> str:
        """A short name of all that pictures, or with pairs their figures, depend on."""
        digest = hashlib.sha256(f"{painter.fingerprint} {machine.code()}".encode())
        for found in (photos, self.paintings):
            for name, pixels in found.items():
                digest.update(name.encode() + np.ascontiguousarray(pixels).tobytes())
        if pairs:
            chosen = self.config
            settings = (part, self.judge.fingerprint, chosen.structure_layer)
            settings += (chosen.composition_layer, chosen.clusters, chosen.seed, pairs)
            digest.update(json.dumps(settings).encode())
        return digest.hexdigest()[:10]

    def score_pair(self, regions: Mapping[str, np.ndarray]) -> Callable[[np.ndarray, Pair], Record]:
        """All figures of one picture.

        Args:
            regions: of each photograph, `[h, w]` at the size of the features of `structure_layer`.
        """
        paintings = {
            name: judges.references(self.judge.features(found))
            for name, found in self.paintings.items()
        }

        @functools.lru_cache(maxsize=1)  # those of a photograph follow each other
        def features_of(photo: str) -> tuple[judges.Features, judges.Features]:
            pixels = self.photos[photo]
            return self.judge.features(pixels), self.judge.lpips_features(pixels)

        def score(picture: np.ndarray, pair: Pair) -> Record:
            photo, painting = self.photos[pair.photo], self.paintings[pair.style]
            made = self.judge.features(picture)
            own, own_lpips = features_of(pair.photo)
            wanted = paintings[pair.style]
            layer, other = self.config.structure_layer, self.config.composition_layer
            composition = judges.composition(made[other], self._compositions[pair.style])
            return {
                **judges.distances(made, own, wanted),
                **judges.likeness(picture, photo, painting),
                **self.judge.lpips(picture, own_lpips),
                **judges.structure(made[layer], own[layer], regions[pair.photo]),
                "composition": composition,
                "scores": self.recognizer.scores(made).tolist(),
            }

        return score

    def regions(self) -> dict[str, np.ndarray]:
        """The regions of the photographs, which nobody has drawn: clusters of their features."""
        layer, count = self.config.structure_layer, max(self.config.clusters // 2, 2)
        return {
            name: judges.clustered_regions(
                self.judge.features(photo)[layer], count, seed=self.config.seed
            )
            for name, photo in self.photos.items()
        }

    def segmented(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Photographs that people have segmented, and their regions, as they are seen."""
        config = self.config
        paths = {path.stem: path for path in images.list_images(Path(config.segments))}
        found = [path for path in images.list_images(Path(config.segmented)) if path.stem in paths]
        if not found:
            raise UserError(f"no picture in {config.segmented} has its name in {config.segments}")
        # The same photographs whatever else lies there, and not those of one letter.
        order = np.random.default_rng(config.seed).permutation(len(found))
        chosen = [found[i] for i in sorted(order[: config.segmented_photos])]
        photos = {path.stem: pictures.square(path, config.size) for path in chosen}
        regions = {}
        for path, (name, photo) in zip(chosen, photos.items(), strict=True):
            shape = jax.eval_shape(self.judge.features, photo)[config.structure_layer].shape
            segments = pictures.square_labels(paths[name], like=path)
            regions[name] = judges.segmentation_regions(segments, (shape[1], shape[2]))
        return photos, regions

    def training(self) -> tuple[dict[str, np.ndarray], list[Pair]]:
        """Photographs that networks were trained on, each with one of the paintings in turn."""
        config = self.config
        paths = images.list_images(Path(config.training_content))
        order = np.random.default_rng(config.seed).permutation(len(paths))
        chosen = [paths[i] for i in sorted(order[: config.training_photos])]
        photos = {path.stem: pictures.square(path, config.size) for path in chosen}
        styles = list(self.paintings)
        return photos, [Pair(name, styles[i % len(styles)]) for i, name in enumerate(photos)]
