"""The second part of `styles`: larger crops, and a little less style.

    jaxstyle train --config styles_tuned --workdir runs/styles_tuned \
        --set data.content=photos --set data.style=paintings

It starts from the run of `styles` in `runs/styles`, whose text says what it is for. The network
that comes along had 1,189 of its 1,900 steps and then another end of 411, 1.3 to 2.3 s each on two
cores, beside other work: 45 minutes. benchmarks/README.md has the result for each style.
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
