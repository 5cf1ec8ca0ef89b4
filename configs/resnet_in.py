"""ResNet-IN: an instance-normalised residual generator, for one style or many.

    jaxstyle train --config resnet_in --workdir runs/wave \
        --set data.content=photos --set data.style=wave.jpg
    jaxstyle stylize photo.jpg --model runs/wave -o out.png

With several paintings, `--set data.style=wave.jpg,mosaic.jpg` or a folder of them, one network
learns them all, and mixes them: `--style-weights wave=0.7,mosaic=0.3`. The network and its loss are
of Pu and Li, with our own weights, on features of any scale, and Muon, which is much quicker than
Adam here. On two cores a step takes 3 s; with `--set crop_size=128 --set model.channels=(16,32,96)`
it takes 0.5 s, and 400 of them at a learning rate of 0.02 gave the wave that benchmarks/README.md
has.
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
            name="muon",
            learning_rate=0.02,
            schedule="cosine",
            warmup_steps=50,
            final_fraction=0.02,
        ),
        data=DataConfig(content="photos", style="painting.jpg", max_scale=2.0),
        average=0.999,
    )
