"""The features that come with jaxstyle: a narrow VGG-19, distilled from wider ones."""

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
