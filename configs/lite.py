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
            stages=((500, "relu1_1"), (500, "relu2_1")),
        ),
        steps=5000,
        batch_size=6,
        crop_size=128,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=0.05, schedule="cosine", warmup_steps=20, b1=0.95, b2=0.99
        ),
        data=DataConfig(
            content="photos",
            style="paintings",
            style_batch_size=2,
            max_scale=3.0,
        ),
    )
