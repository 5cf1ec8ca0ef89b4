"""The second part of `lite`: all layers once more, with reflection and for their Gram matrices.

    jaxstyle train --config lite_tuned --workdir runs/lite_tuned

It starts from the run of `lite` in `runs/lite`, whose text says what it needs, costs and gives. The
parameters that are shipped had 261 steps at a highest learning rate of 0.01 first, and then these.
"""

import dataclasses

from jaxstyle.training.config import TrainConfig, load_config


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    config = load_config("lite")
    return dataclasses.replace(
        config,
        start="runs/lite",
        model=dataclasses.replace(
            config.model,
            stages=(),
            padding="reflect",
            layer_weights=(("relu4_1", 1.5), ("relu5_1", 2.0)),
            gram_weight=1.0,
        ),
        steps=1100,
        batch_size=4,
        crop_size=160,
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.006),
        checkpoint_every=200,
        evaluate_every=200,
        evaluate_batches=2,
        sample_every=400,
    )
