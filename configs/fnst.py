"""FNST, which Pu and Li compare with: the network of Johnson et al. 2016 with batch normalisation.

    jaxstyle weights fetch vgg16
    jaxstyle train --config fnst --workdir runs/fnst --set data.style=wave.jpg

Layers, weights, output and optimiser are those of Johnson's released trainer: VGG-16, 40,000 steps
on all of COCO. Its total variation, of weight 1e-6, is half the sum of squared differences of
colours in 0-255 over the whole batch; as half their mean in [0, 1], a picture, the weight is 1e-6 *
4 * 255^2 * 3 * 256^2. Its residual blocks are not padded, but the picture is, by 40 pixels; here
each convolution is. Neither the whole run nor VGG-16 has been tried; benchmarks/README.md compares
a narrow network of this kind, trained for 400 steps, with `resnet_in`.

Features of another scale need other weights: with `--set model.features=FILE`, set
`model.normalize_features=true` and the weights of `residual.Config`.
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
            style_weight=5.0,
            tv_weight=1e-6 * 4 * 255**2 * 3 * 256**2,
            content_layers={"relu3_3": 1.0},
            style_layers=dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1.0),
            style_loss="elements",
            normalize_features=False,
            norm="batch",
            upsample="transpose",
            output="tanh150",
        ),
        steps=40_000,
        batch_size=4,
        crop_size=256,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        data=DataConfig(
            content="tfds:coco/2014:train",
            held_out="tfds:coco/2014:validation[:1500]",
            style="painting.jpg",
        ),
        evaluate_every=1000,
    )
