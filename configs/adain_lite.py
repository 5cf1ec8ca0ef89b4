"""The network for any painting that comes with the package: AdaIN at three levels, modulated.

    jaxstyle train --config adain_lite --workdir runs/adain \
        --set data.content=photos --set data.style=paintings
    jaxstyle weights convert runs/adain adain.safetensors --half
    jaxstyle stylize photo.jpg painting.jpg --model adain.safetensors -o out.png

The encoder is the narrow network that comes with jaxstyle. Beside its relu4_1, relu2_1 and relu3_1
are normalised and added on the decoder's way; what the decoder computes itself is normalised, too,
and gets factors and terms that depend on the painting. All of these can be set back to the plain
method's, which `adain` is.

The network that comes along saw 25 paintings, their colours exchanged, and 1,150 photographs, with
the features of a narrow VGG-19 (`--set model.features=FILE`), in parts that each started from the
one before (`--set start=`): 544 steps at a learning rate of 0.02 and a style weight of 15, 816 at
0.01 and 8, both without `colors`, and the 2,900 that are set here. 45 minutes on two cores, 0.5 s a
step. On eight photographs and eight paintings that it never saw, at 256 pixels, it removes 75% of
the photograph's Gram distance to the painting; structural similarity to the photograph is 0.36
(`benchmarks/arbitrary.py`). It is a first one: a style weight of half as much and larger crops are
what to try next.
"""

from jaxstyle.methods import adain
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="adain",
        model=adain.Config(
            encoder="lite",
            levels=("relu2_1", "relu3_1", "relu4_1"),
            modulation=64,
            norm=True,
            colors=True,
            vary_colors=True,
            content_target="content",
            normalize_features=True,
            content_layers={"relu3_1": 0.5, "relu4_1": 0.5},
            style_layers=dict.fromkeys(
                ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), 0.2
            ),
            style_weight=8.0,
        ),
        steps=2900,
        batch_size=4,
        crop_size=128,
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=0.01,
            schedule="cosine",
            warmup_steps=30,
            final_fraction=0.02,
            clip_norm=100.0,
        ),
        data=DataConfig(content="photos", style="paintings", max_scale=1.8),
        average=0.99,
        checkpoint_every=100,
        evaluate_every=500,
        evaluate_batches=2,
        sample_every=400,
        samples=6,
    )
