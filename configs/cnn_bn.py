"""CNN-BN, which Pu and Li compare with: the plain CNN with batch normalisation.

    jaxstyle weights fetch vgg19
    jaxstyle train --config cnn_bn --workdir runs/cnn_bn --set data.style=wave.jpg

They only say that it is "based on batch normalization"; that it has no residual connection is our
reading, since with one it would be `fnst`. All else is as in `resnet_in_paper`. The whole run has
not been made; docs/results.md has one of 400 steps with narrower layers.
"""

import dataclasses

from jaxstyle.training.config import TrainConfig, load_config


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    config = load_config("resnet_in_paper")
    model = dataclasses.replace(config.model, residual=False, norm="batch")
    return dataclasses.replace(config, model=model)
