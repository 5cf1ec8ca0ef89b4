"""Perceptual features in a narrow network, distilled from wider ones.

A VGG-19 with few channels learns the activations of its teachers: at the first layer of each block
a head, a 1x1 convolution and ReLU, leads from its channels to theirs. The idea of following a large
network's features layer by layer is of Romero et al. 2015 (FitNets, arXiv 1412.6550); doing so for
style transfer with linear heads, of Wang et al. 2020 (Collaborative Distillation, arXiv
2003.08436). Here the heads have the teachers' ReLU too, and everything starts from random numbers.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxstyle import features, weights
from jaxstyle.config import FEATURE_SCALES, PADDINGS, check, setting
from jaxstyle.errors import UserError
from jaxstyle.losses import gram_matrix
from jaxstyle.methods import Method
from jaxstyle.training import checkpoints, updates
from jaxstyle.training.config import TrainConfig

# Pictures are moved to [-2, 2]; the same for every network that is trained here.
_PREPROCESS = {
    "preprocess/kernel": 4 * np.eye(3, dtype=np.float32)[None, None],
    "preprocess/bias": np.full(3, -2, np.float32),
}


# Standard deviations of 3x3 patches of photographs, in that scale, along products of cosines of
# frequency 0, 1, 2 down and across (the rows and columns), for grey, red against blue, and green
# against both: rounded from a measurement. Only their order of magnitude matters.
_DEVIATIONS = np.array(
    [
        [[5.0, 0.9, 0.45], [0.9, 0.5, 0.3], [0.45, 0.3, 0.2]],
        [[1.5, 0.18, 0.055], [0.18, 0.06, 0.027], [0.055, 0.027, 0.015]],
        [[0.8, 0.1, 0.033], [0.1, 0.04, 0.018], [0.033, 0.018, 0.011]],
    ]
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of distillation.

    Attributes:
        widths: channels of each convolution of each block, up to conv5_1.
        teachers: features to learn from and the layers that each gives, the lowest layers first:
            `vgg19:relu1_1+relu2_1`, with a name or a file as `weights.load` takes it.
        layer_weights: pairs of a layer and the weight of its squared relative error; 1 if not
            named.
        stages: a number of steps, a layer that is trained in them alone, on those below as they
            are then, the side of the part of each crop that it sees, and the learning rate. Layer
            by layer, steps cost little, and each learns from what has learnt. After them all are
            trained, at the optimiser's own learning rate.
        padding: of the narrow network and of its teachers, so that borders mean the same to both.
    """

    widths: tuple[tuple[int, ...], ...] = (
        (16, 32),
        (48, 64),
        (96, 64, 64, 64),
        (128, 96, 96, 96),
        (128,),
    )
    teachers: tuple[str, ...] = ("vgg19:relu1_1+relu2_1+relu3_1+relu4_1+relu5_1",)
    layer_weights: tuple[tuple[str, float], ...] = ()
    stages: tuple[tuple[int, str, int, float], ...] = ()
    gram_weight: float = setting(
        0.0, "weight of 1 minus the correlation of Gram matrices, summed over layers", least=0
    )
    padding: str = setting("zero", "padding while training", choices=PADDINGS)
    scale: str = setting("normalized", "scale of the teachers' activations", choices=FEATURE_SCALES)

    def __post_init__(self) -> None:
        check(self)
        if [len(row) for row in self.widths] != [2, 2, 4, 4, 1]:
            raise ValueError(
                "model.widths must have the shape of VGG-19 up to conv5_1, rows of 2, 2, 4, 4 and "
                f"1; got {self.widths}"
            )
        for name, length in (("stages", 4), ("layer_weights", 2)):
            if any(len(row) != length for row in getattr(self, name)):
                raise ValueError(
                    f"model.{name} must be rows of {length}; got {getattr(self, name)}"
                )


class _Teacher(NamedTuple):
    params: features.Parameters
    layers: tuple[str, ...]


def method(config: TrainConfig, *, axis_name: str | None) -> Method:
    """Distillation as a tuple of pure functions; paintings are more pictures to learn from.

    The variables are the parameters of the narrow network, as `features.vgg` takes them.

    Raises:
        UserError: a teacher cannot be read, or lacks a layer.
    """
    settings: Config = config.model
    teachers = [_load_teacher(spec) for spec in settings.teachers]
    channels = _channels(teachers)
    layers = tuple(channels)
    weight_of = dict.fromkeys(layers, 1.0) | dict(settings.layer_weights)
    dtype = jnp.dtype(config.precision)

    def init(key: Array) -> updates.TrainState:
        return updates.init_state(init_params(key, settings.widths, channels), config)

    def compare(params: Any, images: Array, layers: Sequence[str]) -> tuple[Any, Any]:
        """Activations of the narrow network and of the teachers."""
        narrow = updates.cast(network(params), dtype)
        found = features.vgg(narrow, images.astype(dtype), layers, padding=settings.padding)
        wanted: dict[str, Array] = {}
        for teacher in teachers:
            of_teacher = [layer for layer in teacher.layers if layer in layers]
            wanted |= features.vgg(teacher.params, images, of_teacher, padding=settings.padding)
        return updates.cast(found, jnp.float32), wanted

    def total(squared: Mapping[str, Array]) -> Array:
        return jnp.asarray(sum(weight_of[layer] * value for layer, value in squared.items()))

    def loss_for(trained: Sequence[str], crop: int) -> updates.LossFn:
        def loss_fn(params: Any, statistics: Any, batch: Any, key: Array) -> tuple:
            del key
            images = _pictures(batch)[:, :crop, :crop]
            found, wanted = compare(params, images, trained)
            squared = squared_errors(found, wanted, axis_name)
            loss = total(squared)
            if settings.gram_weight:
                losses = [1 - gram_correlation(found[x], wanted[x]) for x in trained]
                loss += settings.gram_weight * jnp.sum(jnp.mean(jnp.stack(losses), axis=1))
            # A layer that is not looked at is as if it gave nothing: an error of 1.
            metrics = {layer: squared.get(layer, jnp.ones(())) for layer in layers}
            return loss, (_roots(metrics, axis_name), statistics)

        return loss_fn

    def update_for(trained: Sequence[str], crop: int, **options: Any) -> Callable:
        return updates.make_update(
            loss_for(trained, crop),
            config,
            axis_name=axis_name,
            schedule=_schedule(config, settings),
            **options,
        )

    _check_layers(settings, layers)
    names = list(jax.eval_shape(init, jax.random.key(0)).params)
    phases, end = [], 0
    for steps, layer, crop, _ in settings.stages:
        end += steps
        own = _parameters_of(layer, names, layers)
        phases.append((end, update_for([layer], crop, is_trained=own.__contains__)))

    def evaluate(state: updates.TrainState, batch: Any) -> updates.Metrics:
        found, wanted = compare(updates.averaged(state), _pictures(batch), layers)
        squared = squared_errors(found, wanted, axis_name)
        metrics = {"loss": total(squared), **_roots(squared, axis_name)}
        for layer in layers:
            metrics[f"gram/{layer}"] = jnp.mean(gram_correlation(found[layer], wanted[layer]))
        return metrics if axis_name is None else lax.pmean(metrics, axis_name)

    def sample(state: updates.TrainState, batch: Any) -> Array:
        images = _pictures(batch)
        found, wanted = compare(updates.averaged(state), images, layers)
        pairs = [_false_colors(found[x], wanted[x], images.shape) for x in layers[1:4]]
        return jnp.concatenate([images, *pairs], axis=2)

    return Method(
        init=init,
        update=update_for(layers, config.crop_size),
        evaluate=evaluate,
        variables=lambda state: network(updates.averaged(state)),
        stylize=None,
        sample=sample,
        phases=tuple(phases),
    )


def load_run(
    workdir: str | os.PathLike[str], which: checkpoints.Which = "latest"
) -> weights.Weights:
    """The narrow network of a run, as features to use.

    Args:
        workdir: the folder of the run.
        which: the checkpoint: "latest", "best", or the number of a step.

    Raises:
        UserError: there is no such run or checkpoint, or it trained another method.
    """
    found = checkpoints.restore(workdir, which, method="distill")
    state, settings = found.state, found.config.model
    params = jax.tree.map(np.asarray, network(updates.restored_average(state)))
    source = f"{settings.widths} distilled from {', '.join(settings.teachers)}"
    name = Path(workdir).name
    return weights.Weights(name, params, settings.padding, settings.scale, source, "")


def init_params(
    key: Array, widths: Sequence[Sequence[int]], channels: Mapping[str, int]
) -> dict[str, Array]:
    """Random parameters: kernels of He et al. 2015 (arXiv 1502.01852), biases of zero.

    Args:
        key: random key.
        widths: channels of each convolution of each block.
        channels: of the teachers' layers, such as `{"relu1_1": 64}`, each of which gets a head.

    Returns:
        Arrays by name, as `features.vgg` takes them, without `preprocess`. The kernel of conv1_1
        is in the basis that `network` explains.
    """
    params: dict[str, Array] = {}
    inputs = 3

    def add(name: str, size: int, outputs: int) -> None:
        nonlocal key
        key, own = jax.random.split(key)
        deviation = (2 / (size * size * inputs)) ** 0.5
        shape = (size, size, inputs, outputs)
        params[f"{name}/kernel"] = deviation * jax.random.normal(own, shape, jnp.float32)
        params[f"{name}/bias"] = jnp.zeros(outputs, jnp.float32)

    for block, row in enumerate(widths, 1):
        for index, outputs in enumerate(row, 1):
            name = f"{block}_{index}"
            add(f"conv{name}", 3, outputs)
            inputs = outputs
            if f"relu{name}" in channels:
                add(f"conv{name}_to_vgg", 1, channels[f"relu{name}"])
    return params


def network(params: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters of a network, as `features.vgg` takes them, from those that are trained.

    Pictures vary a thousand times more in their mean than in fine differences of colour, and what
    is learnt from the latter would be learnt last. So the kernel of conv1_1 is trained in a basis
    of cosines and opponent colours, each divided by its deviation in photographs.
    """
    kernel = params["conv1_1/kernel"]
    basis = jnp.asarray(_patch_basis(), kernel.dtype)
    kernel = jnp.einsum("pq,qo->po", basis, kernel.reshape(27, -1)).reshape(kernel.shape)
    preprocess = {name: jnp.asarray(value, kernel.dtype) for name, value in _PREPROCESS.items()}
    return {**params, "conv1_1/kernel": kernel, **preprocess}


def _patch_basis() -> np.ndarray:
    """From coefficients to a 3x3x3 patch, `[27, 27]`, all coefficients of about equal size."""
    cosines = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    basis = np.einsum("ui,vj,wk->ijkuvw", cosines, cosines, cosines)
    return (basis / np.moveaxis(_DEVIATIONS, 0, 2)).reshape(27, 27)


def squared_errors(
    found: Mapping[str, Array], wanted: Mapping[str, Array], axis_name: str | None = None
) -> dict[str, Array]:
    """The squared relative error of each layer over a batch, `sum |f - w|^2 / sum |w|^2`.

    Args:
        found: activations `[batch, h, w, c]` by layer.
        wanted: what they should be.
        axis_name: of the devices that share the batch: the denominator is that of all of them.

    Returns:
        A float32 scalar a layer; with `axis_name`, the share of this device, whose mean over the
        devices is the error.
    """
    errors = {}
    for layer, values in found.items():
        size = jnp.mean(jnp.square(wanted[layer]))
        if axis_name is not None:
            size = lax.pmean(size, axis_name)
        errors[layer] = jnp.mean(jnp.square(values - wanted[layer])) / (size + 1e-12)
    return errors


def gram_correlation(found: Array, wanted: Array) -> Array:
    """The correlation of the entries of two Gram matrices, `[batch]`, for `[batch, h, w, c]`."""
    pair = [gram_matrix(x).reshape(x.shape[0], -1) for x in (found, wanted)]
    a, b = (x - jnp.mean(x, axis=1, keepdims=True) for x in pair)
    # Inside the root, so that the gradient is finite where nothing is active.
    size = jnp.sqrt(jnp.sum(a * a, axis=1) * jnp.sum(b * b, axis=1) + 1e-12)
    return jnp.sum(a * b, axis=1) / size


def _pictures(batch: Mapping[str, Array]) -> Array:
    return (
        jnp.concatenate([batch["content"], batch["style"]])
        if "style" in batch
        else batch["content"]
    )


def _roots(squared: Mapping[str, Array], axis_name: str | None) -> updates.Metrics:
    # Of the mean over the devices, which the mean of their roots is not.
    whole = squared if axis_name is None else lax.pmean(dict(squared), axis_name)
    return {f"error/{layer}": jnp.sqrt(value) for layer, value in whole.items()}


def _check_layers(settings: Config, layers: Sequence[str]) -> None:
    named = {
        "stages": [layer for _, layer, _, _ in settings.stages],
        "layer_weights": [layer for layer, _ in settings.layer_weights],
    }
    for name, chosen in named.items():
        for layer in chosen:
            if layer not in layers:
                known = ", ".join(layers)
                raise UserError(f"model.{name}: no teacher has {layer!r} (they have {known})")


def _parameters_of(layer: str, names: Sequence[str], layers: Sequence[str]) -> list[str]:
    """The parameters between a layer, its head included, and the layer learnt before it."""
    before = layers[layers.index(layer) - 1] if layer != layers[0] else "relu0_0"

    def place(name: str) -> str:  # "1_2": by block and number, as text sorts them
        return name.removeprefix("conv")[:3]

    return [name for name in names if before[4:] < place(name) <= layer[4:]]


def _schedule(config: TrainConfig, settings: Config) -> optax.Schedule | None:
    """The learning rate through the stages, each of which is a run of its own."""
    if not settings.stages:
        return None
    lengths = [steps for steps, _, _, _ in settings.stages]
    rates = [rate for _, _, _, rate in settings.stages]
    parts = [
        updates.learning_rate(dataclasses.replace(config.optimizer, learning_rate=rate), steps)
        for rate, steps in zip(rates, lengths, strict=True)
    ]
    parts.append(updates.learning_rate(config.optimizer, max(config.steps - sum(lengths), 1)))
    return optax.schedules.join_schedules(parts, list(itertools.accumulate(lengths)))


def _load_teacher(spec: str) -> _Teacher:
    name, colon, layers = spec.rpartition(":")
    if not colon:
        raise UserError(f"model.teachers expected FEATURES:relu1_1+relu2_1; got {spec!r}")
    teacher = _Teacher(features.prepare(weights.load(name).params), tuple(layers.split("+")))
    for layer in teacher.layers:
        if not re.fullmatch(r"relu[1-5]_1", layer):
            raise UserError(f"model.teachers: only relu1_1 to relu5_1 can be learnt; got {layer!r}")
    try:
        features.check_layers(teacher.params, teacher.layers)
    except ValueError as error:
        raise UserError(f"model.teachers {spec}: {error}") from error
    return teacher


def _channels(teachers: Sequence[_Teacher]) -> dict[str, int]:
    """How many channels each layer has, the lowest layer first."""
    channels: dict[str, int] = {}
    for teacher in teachers:
        found = jax.eval_shape(
            lambda x, t=teacher: features.vgg(t.params, x, t.layers),
            jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
        )
        channels |= {layer: value.shape[3] for layer, value in found.items()}
    return dict(sorted(channels.items()))


def _false_colors(found: Array, wanted: Array, shape: tuple[int, ...]) -> Array:
    """Both activations as pictures side by side, wanted first, in the same random projection."""
    projection = jax.random.normal(jax.random.key(0), (wanted.shape[3], 3))
    pair = [jnp.einsum("bhwc,cr->bhwr", x, projection) for x in (wanted, found)]
    mean = jnp.mean(pair[0], axis=(0, 1, 2))
    deviation = jnp.std(pair[0], axis=(0, 1, 2)) + 1e-6
    colors = [jnp.clip(0.5 + 0.2 * (x - mean) / deviation, 0, 1) for x in pair]
    colors = [jax.image.resize(x, (*shape[:3], 3), "nearest") for x in colors]
    return jnp.concatenate(colors, axis=2)
