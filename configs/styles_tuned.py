"""The second part of `styles`: larger crops, and a little less style.

    jaxstyle train --config styles_tuned --workdir runs/styles_tuned \
        --set data.content=photos --set data.style=paintings

It starts from the run of `styles` in `runs/styles`, whose text says what it is for.
"""

import dataclasses

from jaxstyle.training.config import TrainConfig, load_config


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    config = load_config("styles")
    return dataclasses.replace(
        config,
        start="runs/styles",
        model=dataclasses.replace(config.model, style_weight=2.5),
        steps=1900,
        crop_size=224,
        optimizer=dataclasses.replace(
            config.optimizer, learning_rate=0.01, warmup_steps=100, final_fraction=0.02
        ),
        data=dataclasses.replace(config.data, max_scale=1.2),
        sample_every=400,
    )
