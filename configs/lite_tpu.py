"""A narrow VGG-19 learnt from the original one, on a TPU VM or a slice; on GPUs, too.

    jaxstyle weights fetch vgg19
    jaxstyle train --config lite_tpu --workdir gs://BUCKET/lite \
        --set data.content=gs://BUCKET/photos --set data.style=gs://BUCKET/paintings

A step's 192 photographs and 64 paintings divide into up to 64 chips; docs/tpu.md says how to start
them. Unlike `lite` it has the original network as its only teacher, and so the original's scale. It
has been lowered for TPU and GPU and run, shrunken, on CPUs; what it costs and gives on a TPU is not
known yet.
"""

from jaxstyle.methods import distill
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="distill",
        model=distill.Config(
            teachers=("vgg19:relu1_1+relu2_1+relu3_1+relu4_1+relu5_1",),
            scale="oxford",
            stages=(
                (1000, "relu1_1", 64, 0.15),
                (1000, "relu2_1", 64, 0.05),
                (1500, "relu3_1", 96, 0.04),
                (1500, "relu4_1", 128, 0.04),
                (1000, "relu5_1", 128, 0.04),
            ),
        ),
        steps=16000,
        batch_size=192,
        crop_size=128,
        precision="bfloat16",
        optimizer=OptimizerConfig(
            name="muon", learning_rate=0.015, schedule="cosine", warmup_steps=20, b1=0.9, b2=0.99
        ),
        data=DataConfig(
            content="tfds:coco/2017:train",
            style="paintings",
            style_batch_size=64,
            max_scale=2.0,
            threads=16,
            prefetch=8,
        ),
    )
