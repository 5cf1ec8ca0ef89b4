"""AdaIN as Huang and Belongie (2017, arXiv 1703.06868) train it: any painting in one pass.

    jaxstyle train --config adain --workdir runs/adain \
        --set data.content=photos --set data.style=paintings --set model.encoder=vgg19 \
        --set model.features=vgg19
    jaxstyle stylize photo.jpg painting.jpg --model runs/adain -o out.png

The paper's encoder is VGG-19 to relu4_1, which `jaxstyle weights fetch vgg19` downloads; without
the last two settings it is the network that comes with jaxstyle. From the paper's released code:
reflection at the borders, of the networks that encode and compare, too; content loss at relu4_1 to
the normalised features, loss of means and deviations at relu1_1 to relu4_1 with a weight of 10,
160,000 steps of Adam on batches of 8 crops of 256 pixels. Its learning rate, 1e-4 / (1 + 5e-5
step), is the schedule `inverse_time` with a final fraction of 1/9.
"""

from jaxstyle.methods import adain
from jaxstyle.training.config import DataConfig, OptimizerConfig, TrainConfig


def get_config() -> TrainConfig:
    """The settings of the run; see the module's text."""
    return TrainConfig(
        method="adain",
        model=adain.Config(encoder_padding="reflect", padding="reflect"),
        steps=160_000,
        batch_size=8,
        crop_size=256,
        optimizer=OptimizerConfig(
            learning_rate=1e-4, schedule="inverse_time", final_fraction=1 / 9
        ),
        data=DataConfig(content="photos", style="paintings", max_scale=2.0),
        checkpoint_every=1000,
        evaluate_every=2000,
        sample_every=1000,
    )
