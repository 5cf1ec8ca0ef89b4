"""Settings of a run, and the presets. Nothing here imports JAX, so that `--help` is instant."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FEATURE_SCALES = ("normalized", "oxford", "torchvision")


def _setting(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    metadata = {"help": help, "choices": choices}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class StylizeConfig:
    """Settings of style transfer by pixel optimisation.

    The help text of each field is in its metadata; the command line is made from it.
    """

    size: int = _setting(512, "longer side of the picture, in pixels")
    style_scale: float = _setting(
        1.0, "size of the styles relative to the picture: larger gives larger strokes"
    )
    content_weight: float = _setting(0.015, "weight of the content loss")
    style_weight: float = _setting(1.0, "weight of the style loss")
    tv_weight: float = _setting(2.0, "weight of the total variation")
    content_layers: Mapping[str, float] = _setting({"relu4_1": 1.0}, "layers that keep the content")
    style_layers: Mapping[str, float] = _setting(
        {"relu1_1": 0.2, "relu2_1": 0.2, "relu3_1": 0.2, "relu4_1": 0.2, "relu5_1": 0.2},
        "layers that give the style",
    )
    content_loss: str = _setting("mean", "form of the content loss", ("mean", "half_sum"))
    style_loss: str = _setting(
        "wasserstein",
        "form of the style loss",
        ("gatys", "positions", "elements", "moments", "wasserstein"),
    )
    tv_loss: str = _setting(
        "squared_mean", "form of the total variation", ("sum", "half_mean", "squared_mean")
    )
    pooling: str = _setting("max", "pooling of the features", ("max", "avg"))
    optimizer: str = _setting("adam", "optimiser of the pixels", ("adam", "lbfgs"))
    learning_rate: float = _setting(0.02, "step size, on pixels in [0, 1]")
    steps: int = _setting(300, "updates at each scale")
    scales: int = _setting(3, "sizes from coarse to fine; 1 is a single one")
    averaging: float = _setting(0.99, "decay of the average over iterates that is shown; 0 for none")
    init: str = _setting("content", "where to start: content, style-stats, noise, or a picture file")
    keep_colors: str | None = _setting(
        None, "keep the colours of the content", ("luminance", "match")
    )
    seed: int = _setting(0, "seed of the random numbers")


PRESETS: dict[str, StylizeConfig] = {"default": StylizeConfig()}
