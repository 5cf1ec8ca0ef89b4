"""The generator of Huang et al. 2021, "rapid local style transfer", as far as they state it.

    jaxstyle weights fetch vgg16
    jaxstyle train --config local2021 --workdir runs/local --set data.style=wave.jpg

Stated: VGG-16, five layers, content to style 1 to 100, 50,000 pictures of COCO at 256 pixels, Adam
with an initial learning rate of 0.01, 500 steps of 4. These are 2,000 pictures; one pass over all
would be `--set steps=12500`. Our reading: which layers, the forms of Gatys et al. 2016, instance
normalisation, and a learning rate that falls to 0 along a cosine. The preset of the same name
optimises pixels. What it costs and gives has not been measured yet.
"""

from jaxstyle.methods import residual
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="residual",
        model=residual.Config(
            features="vgg16",
            content_weight=1.0,
            style_weight=100.0,
            content_layers={"relu4_2": 1.0},
            content_loss="half_sum",
            style_loss="gatys",
            normalize_features=False,
            upsample="transpose",
        ),
        steps=500,
        batch_size=4,
        crop_size=256,
        optimizer=OptimizerConfig(learning_rate=0.01, schedule="cosine"),
        data=DataConfig(
            content="tfds:coco/2014:train[:50000]",
            held_out="tfds:coco/2014:validation[:1500]",
            style="painting.jpg",
        ),
        evaluate_every=100,
    )
