"""The tables of the papers behind jaxstyle, for the methods that it has.

    jaxstyle evaluate --config eval_papers --output results \
        --set content=photos --set style=paintings

`style` is a folder with the paintings that the shipped network of styles knows: feathers, la_muse,
mondrian, mosaic, rain_princess, the_scream, udnie and wave. A row whose models are missing is left
out; those of `resnet_in`, `cnn`, `cnn_bn` and `fnst` are trained with the configurations of the
same names, or all alike as resnet_in_narrow has it, one for each painting, as runs/cnn_wave: `--set
methods.cnn.model=runs/cnn_{style}`. Which features judge is `--set features=`; photographs with
segmentations of people are `segmented` and `segments`, and `training_content` those that the
networks were trained on. docs/evaluation.md says why each protocol is what it is.
"""

from jaxstyle.evaluation.config import EvaluateConfig, MethodConfig


def get_config() -> EvaluateConfig:
    """The settings of the evaluation; see the module's text."""
    return EvaluateConfig(
        title="Style transfer: the papers' tables",
        kinship=(
            "The generators and AdaIN that come along were trained against relu1_1 to relu3_1 of "
            "VGG-19 and relu4_1 and relu5_1 of a compact encoder distilled from it; pixel "
            "optimisation uses the shipped features, which were distilled from the same"
        ),
        methods={
            "photo": MethodConfig(kind="photo"),
            "painting": MethodConfig(kind="painting"),
            "ResNet-IN": MethodConfig(kind="residual"),
            "resnet_in": MethodConfig(kind="residual", model="runs/resnet_in_{style}"),
            "cnn": MethodConfig(kind="residual", model="runs/cnn_{style}"),
            "cnn_bn": MethodConfig(kind="residual", model="runs/cnn_bn_{style}"),
            "fnst": MethodConfig(kind="residual", model="runs/fnst_{style}"),
            "AdaIN": MethodConfig(kind="adain"),
            "default": MethodConfig(kind="gatys", preset="default", photos=1),
            "gatys2016": MethodConfig(kind="gatys", preset="gatys2016", photos=1),
            "jin2021": MethodConfig(kind="gatys", preset="jin2021", photos=1),
        },
    )
