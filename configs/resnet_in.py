"""ResNet-IN: an instance-normalised residual generator, for one style or many.

    jaxstyle train --config resnet_in --workdir runs/wave \
        --set data.content=photos --set data.style=wave.jpg
    jaxstyle stylize photo.jpg --model runs/wave -o out.png

With several paintings, `--set data.style=wave.jpg,mosaic.jpg` or a folder of them, one network
learns them all, and mixes them: `--style-weights wave=0.7,mosaic=0.3`. The network and its loss are
of Pu and Li, with our own weights, on features of any scale. What it costs and gives has not been
measured yet.
"""

from jaxstyle.methods import residual
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="residual",
        model=residual.Config(),
        steps=10_000,
        batch_size=4,
        crop_size=256,
        optimizer=OptimizerConfig(
            learning_rate=1e-3, schedule="cosine", warmup_steps=50, final_fraction=0.01
        ),
        data=DataConfig(content="photos", style="painting.jpg", max_scale=2.0),
        average=0.999,
    )
