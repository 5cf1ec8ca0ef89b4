"""CNN-BN, which Pu and Li compare with: the plain CNN with batch normalisation.

    jaxstyle weights fetch vgg19
    jaxstyle train --config cnn_bn --workdir runs/cnn_bn --set data.style=wave.jpg

They only say that it is "based on batch normalization"; that it has no residual connection is our
reading, since with one it would be `fnst`. All else is as in `resnet_in_paper`. What it costs and
gives has not been measured yet.
"""

from jaxstyle.methods import residual
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="residual",
        model=residual.Config(
            features="vgg19",
            content_layers={"relu4_2": 1.0},
            upsample="transpose",
            residual=False,
            norm="batch",
        ),
        steps=10_000,
        batch_size=4,
        crop_size=256,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        data=DataConfig(
            content="tfds:coco/2014:train[:5000]",
            held_out="tfds:coco/2014:validation[:1500]",
            style="painting.jpg",
        ),
        evaluate_every=250,
    )
