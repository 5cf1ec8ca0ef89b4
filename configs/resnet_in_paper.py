"""ResNet-IN in the setting of Pu and Li, as far as they state it; all else is our reading.

    jaxstyle weights fetch vgg19
    jaxstyle train --config resnet_in_paper --workdir runs/paper --set data.style=wave.jpg

and the comparison of its Fig. 6, loss and accuracy through training at three learning rates, of
which `runs/rates` then has `comparison.png` and `comparison.md`:

    jaxstyle sweep --config resnet_in_paper --workdir runs/rates --set data.style=wave.jpg \
        --set data.held_out_style=paintings --vary optimizer.learning_rate=1e-4,1e-3,1e-2

Stated: the network of their section III with its convolutions of stride 1/2, VGG-19, COCO, 5,000
pictures to train on and 1,500 to test on, batches of 4, a learning rate of 1e-3, chosen among those
three, one network for each of eight paintings.

Our reading: widths and blocks (Johnson's), layers and weights of the losses, Adam, crops of 256,
10,000 steps, which is 8 passes, no augmentation but mirroring. Paintings in `data.held_out_style`
are those that `accuracy` tells from the style. What it costs and gives has not been measured yet.
"""

from jaxstyle.methods import residual
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="residual",
        model=residual.Config(
            features="vgg19", content_layers={"relu4_2": 1.0}, upsample="transpose"
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
