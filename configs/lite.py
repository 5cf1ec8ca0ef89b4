"""The features that come with jaxstyle: a narrow VGG-19, distilled from wider ones.

    jaxstyle train --config lite --workdir runs/lite
    jaxstyle train --config lite_tuned --workdir runs/lite_tuned
    jaxstyle weights convert runs/lite_tuned lite.safetensors --half

It reads, from where it is started, `photos/`, `paintings/`, both once more in `held_out/`, and in
`weights/` exact features of the original VGG-19 up to relu3_1, and a compact network with heads for
relu4_1 and relu5_1 (jaxstyle/assets/NOTICE names both). `--set` takes others.

Cost: 43 and 12 minutes on two cores of a shared machine, on 1156 photographs of 256 pixels and 36
paintings of 512. What it learns it learns layer by layer: trained all at once, a network of nearly
these widths stood at 0.58, 0.46, 0.65, 0.52 and 0.66 after 250 steps.

Result of `lite` alone and tuned, on 8 photographs and 8 paintings that were kept out, at 256 pixels
(benchmarks/lite.py; benchmarks/README.md has all of it):

    relative error   relu1_1 relu2_1 relu3_1 relu4_1 relu5_1
    lite, photos       0.087   0.228   0.332   0.319   0.455
    lite, paintings    0.071   0.223   0.305   0.321   0.483
    tuned, photos      0.088   0.229   0.336   0.319   0.437
    tuned, paintings   0.073   0.230   0.311   0.326   0.467
"""

from jaxstyle.methods import distill
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="distill",
        model=distill.Config(
            teachers=(
                "weights/vgg19_normalised_to_conv3_1.safetensors:relu1_1+relu2_1+relu3_1",
                "weights/vgg19_compact_encoder.safetensors:relu4_1+relu5_1",
            ),
            stages=(
                (2000, "relu1_1", 64, 0.15),
                (2000, "relu2_1", 64, 0.05),
                (2000, "relu3_1", 96, 0.04),
                (1500, "relu4_1", 128, 0.04),
                (1000, "relu5_1", 128, 0.04),
            ),
        ),
        steps=11000,
        batch_size=6,
        crop_size=128,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=0.015, schedule="cosine", warmup_steps=20, b1=0.9, b2=0.99
        ),
        checkpoint_every=500,
        evaluate_every=500,
        evaluate_batches=2,
        sample_every=1000,
        data=DataConfig(
            content="photos",
            style="paintings",
            held_out="held_out/photos",
            held_out_style="held_out/paintings",
            style_batch_size=2,
            max_scale=2.0,
        ),
    )
