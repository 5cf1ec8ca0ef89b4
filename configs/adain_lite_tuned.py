"""The end of `adain_lite`'s training: larger crops, in which the whole of a painting counts.

    jaxstyle train --config adain_lite_tuned --workdir runs/adain_tuned --set start=runs/adain \
        --set data.content=photos --set data.style=paintings

See `adain_lite` for what came out.
"""

import dataclasses

from jaxstyle.training.config import TrainConfig, load_config


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    config = load_config("adain_lite")
    return dataclasses.replace(
        config,
        start="runs/adain",
        steps=1500,
        batch_size=2,
        crop_size=224,
        model=dataclasses.replace(config.model, style_weight=4.5),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.008),
        data=dataclasses.replace(config.data, max_scale=1.3),
    )
