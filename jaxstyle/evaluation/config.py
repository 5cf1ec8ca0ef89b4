"""Settings of an evaluation: which methods paint what, and how it is judged."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxstyle.config import check, setting

PROTOCOLS = ("distances", "structure", "composition", "recognition", "speed", "convergence")
STILL = ("photo", "painting")
"""Kinds that paint nothing: the bounds that methods are compared with."""

KINDS = (*STILL, "residual", "adain", "gatys")


_NAME = re.compile(r"[\w+(-][\w .,+()-]*")


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """A row of the tables.

    `photo` gives the photograph as it is, the no-op beside which all are measured; `painting` the
    painting, as the other bound.
    """

    kind: str = setting("photo", "what paints", choices=KINDS)
    model: str = setting(
        "", "run or file, {style} for the painting's name; the one that comes along by default"
    )
    preset: str = setting("default", "settings of gatys")
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    features: str = setting("", "network of gatys; the one that comes along by default")
    photos: int = setting(
        0,
        "how many photographs it paints in each style, from the one of the style's own number on; "
        "0 for all",
        least=0,
    )
    note: str = setting("", "what a reader must know of this row")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of an evaluation.

    Attributes:
        methods: by the names of their rows, in their order.

    Raises:
        ValueError: a setting is out of range.
    """

    title: str = setting("Evaluation", "heading of the report")
    content: str = setting("", "photographs: a folder")
    style: str = setting("", "paintings: a folder")
    paintings: int = setting(0, "how many paintings, the first ones; 0 for all", least=0)
    size: int = setting(256, "side of the squares that pictures are cut to, in pixels", least=32)
    methods: Mapping[str, MethodConfig] = dataclasses.field(default_factory=dict)
    baseline: str = setting("photo", "method that the others are compared with")
    protocols: tuple[str, ...] = PROTOCOLS
    features: str = setting(
        "", "networks that judge, as model.features of a training run; `lite` by default"
    )
    lpips: str = setting(
        "", "two files with a comma, for LPIPS as a figure: torchvision's VGG-16 and its weights"
    )
    kinship: str = setting("", "how the judging features are related to those trained against")
    structure_layer: str = setting("relu4_1", "layer that regions are looked for in")
    composition_layer: str = setting("relu3_1", "layer whose positions are clustered")
    clusters: int = setting(16, "clusters of a painting, regions of a photograph: half", least=2)
    segmented: str = setting("", "photographs that people have segmented: a folder")
    segments: str = setting("", "their segmentations: pictures of numbers, by the same names")
    segmented_photos: int = setting(40, "how many of them, in five tests", least=5)
    training_content: str = setting("", "photographs that networks were trained on: a folder")
    training_photos: int = setting(200, "how many of them, each in one style", least=1)
    speed_sizes: tuple[int, ...] = (256, 512, 1024)
    speed_runs: int = setting(5, "timed runs of each", least=1)
    speed_batch: int = setting(4, "pictures a batch where batches are timed", least=1)
    speed_styles: int = setting(0, "in how many styles speeds are compared; 0 for all", least=0)
    speed_cold: bool = setting(
        True, "time first pictures, each from an empty cache of compiled programs"
    )
    speed_at_once: int = setting(
        1,
        "how many methods are timed at a time; above 1, beside painting, it is no fair time",
        least=1,
    )
    throughput: int = setting(1000, "pictures from disk to disk; 0 for none", least=0)
    runs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    resamples: int = setting(2000, "samples of the bootstrap", least=1)
    seed: int = setting(0, "seed of clusters, samples and order", least=0)

    def __post_init__(self) -> None:
        check(self)
        if unknown := [name for name in self.protocols if name not in PROTOCOLS]:
            raise ValueError(f"there is no protocol {unknown[0]!r} ({', '.join(PROTOCOLS)})")
        if not self.protocols:
            raise ValueError(f"protocols are missing: some of {', '.join(PROTOCOLS)}")
        if not self.speed_sizes or min(self.speed_sizes) < 1:
            raise ValueError(f"speed_sizes must be sizes in pixels; got {self.speed_sizes}")
        if odd := [name for name in self.methods if not _NAME.fullmatch(name)]:
            raise ValueError(
                f"methods: {odd[0]!r} names files, too: expected letters, digits, spaces and "
                "any of - _ . , + ( ), not beginning with a point"
            )
        if self.methods and self.baseline not in self.methods:
            raise ValueError(f"baseline {self.baseline!r} is not among the methods")


def quick(config: EvaluateConfig) -> EvaluateConfig:
    """The same in about a minute: to see that everything is there, not for its figures."""
    methods = {name: _hurried(method) for name, method in config.methods.items()}
    return dataclasses.replace(
        config,
        methods=methods,
        size=min(config.size, 64),
        paintings=min(config.paintings or 3, 3),
        segmented_photos=5,
        training_photos=min(config.training_photos, 8),
        speed_sizes=(64,),
        speed_runs=2,
        speed_batch=2,
        speed_styles=2,
        speed_cold=False,
        speed_at_once=2,
        throughput=min(config.throughput, 8),
        resamples=200,
        clusters=4,
    )


def _hurried(method: MethodConfig) -> MethodConfig:
    settings = dict(method.settings)
    if method.kind == "gatys":
        settings |= {"steps": 2, "scales": 1}
    return dataclasses.replace(method, photos=min(method.photos or 2, 2), settings=settings)
