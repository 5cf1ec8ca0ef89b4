"""`resnet_in` as two cores train it in some minutes, and the baselines beside it.

    jaxstyle train --config resnet_in_narrow --workdir runs/resnet_in_wave \
        --set data.content=photos --set data.style=wave.jpg
    jaxstyle train --config resnet_in_narrow --workdir runs/cnn_wave ... \
        --set model.residual=false --set model.norm=none --set model.upsample=transpose
    jaxstyle train --config resnet_in_narrow --workdir runs/cnn_bn_wave ... \
        --set model.residual=false --set model.norm=batch --set model.upsample=transpose
    jaxstyle train --config resnet_in_narrow --workdir runs/fnst_wave ... \
        --set model.norm=batch --set model.upsample=transpose --set model.output=tanh150

These are what docs/results.md compares, with the loss, widths, photographs and steps the same for
all: networks that are told apart by what they are made of. `--set data.held_out=FOLDER` has
photographs to evaluate on, and `--set data.held_out_style=FOLDER` the paintings that pictures
should not be taken for, which gives an accuracy. 400 steps took some 5 minutes on two idle cores,
and 8 to 16 beside other jobs; with VGG-19's own features (`--set model.features=FILE`), `cnn` had
an accuracy of 1 among eight paintings after 100 of them.
"""

import dataclasses

from jaxstyle.training.config import TrainConfig, load_config


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    config = load_config("resnet_in")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, channels=(16, 32, 96), style_weight=3.0),
        steps=400,
        crop_size=128,
        data=dataclasses.replace(config.data, max_scale=1.4),
        average=0.99,
        evaluate_every=50,
        sample_every=400,
    )
