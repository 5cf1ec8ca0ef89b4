"""The generator that comes with the package: one narrow network, ten styles.

    jaxstyle train --config styles --workdir runs/styles \
        --set data.content=photos --set data.style=paintings
    jaxstyle weights convert runs/styles styles.safetensors --half
    jaxstyle stylize photo.jpg --model styles.safetensors --style wave -o out.png

Half as many channels at full size as Johnson's network and three quarters as many within, so that a
picture of 512x512 takes a fraction of a second on two CPU cores, and conditional instance
normalisation for the styles. Muon learns faster than Adam here: after 200 steps with Adam at 2e-3
the subjects were hardly to be seen, with Muon they were (benchmarks/README.md).

The network that comes along saw ten paintings and 1,156 photographs, with the features of a narrow
VGG-19 (`--set model.features=FILE`): 200 steps of this with a style weight of 3, from which another
run started (`--set start=`), and was stopped at step 2,635 of its 4,000. That took half an hour on
two cores, 0.5 s a step, and removed as much style distance as pixel optimisation does, but at 1.3
to 1.5 times its content distance: hence `styles_tuned`.
"""

from jaxstyle.methods import residual
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="residual",
        model=residual.Config(channels=(16, 32, 96)),
        steps=4000,
        batch_size=4,
        crop_size=128,
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=0.02,
            schedule="cosine",
            warmup_steps=50,
            final_fraction=0.25,
        ),
        data=DataConfig(content="photos", style="paintings", max_scale=1.4),
        average=0.995,
        checkpoint_every=200,
        evaluate_every=1000,
        evaluate_batches=2,
        sample_every=500,
        samples=8,
    )
