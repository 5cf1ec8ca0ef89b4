"""The plain CNN that Pu and Li compare with: their network without `+ x` and normalisation.

    jaxstyle weights fetch vgg19
    jaxstyle train --config cnn --workdir runs/cnn --set data.style=wave.jpg

They only name it; that it is theirs without the residual connection is our reading of "the residual
module is added to the basic CNN structure". All else is as in `resnet_in_paper`: with `cnn_bn` and
`fnst` between them, normalisation, residual connection and instance normalisation can be told
apart. What it costs and gives has not been measured yet.
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
            norm="none",
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
