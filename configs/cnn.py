"""The plain CNN that Pu and Li compare with: their network without `+ x` and normalisation.

    jaxstyle weights fetch vgg19
    jaxstyle train --config cnn --workdir runs/cnn --set data.style=wave.jpg

They only name it; that it is theirs without the residual connection is our reading of "the residual
module is added to the basic CNN structure". All else is as in `resnet_in_paper`: with `cnn_bn` and
`fnst` between them, normalisation, residual connection and instance normalisation can be told
apart. The whole run has not been made; docs/results.md has one of 400 steps with narrower layers.
"""

import dataclasses

from jaxstyle.training.config import TrainConfig, load_config


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    config = load_config("resnet_in_paper")
    model = dataclasses.replace(config.model, residual=False, norm="none")
    return dataclasses.replace(config, model=model)
