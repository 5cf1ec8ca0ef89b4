"""Feed-forward generators: a normalised residual network, and the networks it is compared with.

Pu and Li, "Application of Image Style Transfer Based on Normalized Residual Network in Art
Design": down by two convolutions, residual blocks, up again, a tanh, instance normalisation after
each convolution. It is trained as Johnson et al. 2016 (arXiv 1603.08155) train theirs, and, for
several styles at once, with the conditional instance normalisation of Dumoulin et al. 2017 (arXiv
1610.07629). Widths, number of blocks and padding, which Pu and Li leave open, are Johnson's.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from jaxstyle import layers, models, tiling
from jaxstyle.config import check, setting
from jaxstyle.errors import UserError
from jaxstyle.methods import Method, tiled
from jaxstyle.models import Model
from jaxstyle.training import checkpoints, perceptual, updates
from jaxstyle.training.config import TrainConfig
from jaxstyle.training.perceptual import PerceptualConfig

# Mean colour of ImageNet in 0-255, around which Johnson's generator makes its pictures.
_MEAN_COLOR = np.array([123.68, 116.779, 103.939], np.float32)
_SHOWN_STYLES = 3


@dataclass(frozen=True, kw_only=True)
class Config(PerceptualConfig):
    """Settings of a generator and of what it is trained with.

    The paintings are those that `data.style` names: files, or folders of them, with commas. With
    more than one the network has parameters of its own for each.

    Attributes:
        channels: of the first convolution and of each that halves the size.
        style_strengths: a factor of the style loss for some of the styles, by name.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    blocks: int = setting(5, "residual blocks", least=0)
    residual: bool = setting(True, "add their input to the residual blocks")
    norm: str = setting("instance", "normalisation of activations", choices=layers.NORMS)
    contrast_at: str = setting(
        "features",
        "what contrast normalisation is applied to",
        choices=("features", "input"),
    )
    upsample: str = setting("nearest", "how sizes are doubled", choices=layers.UPSAMPLINGS)
    output: str = setting(
        "tanh",
        "range of the pictures: tanh to [0, 1], or 150 tanh around the mean colour, clipped",
        choices=("tanh", "tanh150"),
    )
    style_size: int = setting(
        256, "longer side of the paintings, in pixels; 0 to leave them", least=0
    )
    style_strengths: Mapping[str, float] = setting({}, "factors of the style loss, by style")

    def __post_init__(self) -> None:
        check(self)
        whole = [isinstance(n, int) and n > 0 for n in self.channels]
        if not (isinstance(self.channels, tuple) and whole and all(whole)):
            raise ValueError(f"channels must be whole numbers above 0; got {self.channels!r}")


# --- the network ---------------------------------------------------------------------------------


class Generator(nn.Module):
    """Pictures in, pictures of the same size out.

    Attributes:
        channels: of the first convolution and of each that halves the size.
        blocks: residual blocks, in the last of these widths.
        residual: whether they add their input.
        norm: one of `layers.NORMS`.
        contrast_at: "features", or "input" to apply contrast normalisation to the picture alone.
        upsample: one of `layers.UPSAMPLINGS`.
        output: "tanh", 127.5 (tanh + 1) of 255, or "tanh150", 150 tanh + mean colour, of which
            what lies beyond [0, 1] is to be clipped.
        num_styles: above 1, instance normalisation is conditional.
        axis_name: of the devices that share a batch.
        dtype: what to compute in.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    blocks: int = 5
    residual: bool = True
    norm: str = "instance"
    contrast_at: str = "features"
    upsample: str = "nearest"
    output: str = "tanh"
    num_styles: int = 1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts; the names are those of their parameters in files."""
        layers.check_norm(self.norm, self.num_styles)
        at_input = self.norm == "contrast" and self.contrast_at == "input"
        shared: dict[str, Any] = {"axis_name": self.axis_name, "dtype": self.dtype}
        shared |= {"norm": "none" if at_input else self.norm, "num_styles": self.num_styles}
        first, *halved = self.channels
        parts: dict[str, Any] = {"in": layers.ConvLayer(first, 9, **shared)}
        for number, features in enumerate(halved, 1):
            parts[f"down{number}"] = layers.ConvLayer(features, stride=2, **shared)
        for number in range(1, self.blocks + 1):
            block = layers.ResidualBlock(self.channels[-1], self.residual, **shared)
            parts[f"block{number}"] = block
        for number, features in enumerate(reversed(self.channels[:-1]), 1):
            parts[f"up{number}"] = layers.ConvLayer(features, upsample=self.upsample, **shared)
        for name, part in parts.items():
            setattr(self, name, part)
        self.parts = tuple(parts)
        if at_input:
            self.contrast = layers.ContrastNorm()
        # Small at first: where the tanh is flat, nothing would be learnt.
        init = nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
        self.out = layers.Conv(3, 9, kernel_init=init, dtype=self.dtype)

    def __call__(
        self, images: Array, style_weights: Array | None = None, *, train: bool = False
    ) -> Array:
        """Makes pictures.

        Args:
            images: float32 `[batch, height, width, 3]`, sRGB in [0, 1], of any size.
            style_weights: `[batch, styles]`, rows that sum to one; without effect with one style.
            train: whether batch normalisation uses, and updates, the statistics of this batch.

        Returns:
            float32 `[batch, height, width, 3]` in [0, 1], but see `output`.
        """
        height, width = images.shape[1:3]
        amounts = layers.padding(self.grain, height, width)
        if any(amount for _, amount in amounts):
            images = jnp.pad(images, ((0, 0), *amounts, (0, 0)), mode="reflect")
        x = self.enter(images)
        for name in self.parts:
            x = getattr(self, name)(x, style_weights, train=train)
        return self.leave(x)[:, :height, :width]

    @property
    def grain(self) -> int:
        """What the sides of pictures are multiples of inside."""
        return 2 ** (len(self.channels) - 1)

    def enter(self, images: Array) -> Array:
        """Pictures as the first convolution takes them."""
        return self.contrast(images) if hasattr(self, "contrast") else 2 * images - 1

    def leave(self, x: Array) -> Array:
        """Pictures of the last features: a convolution and a tanh."""
        x = jnp.tanh(self.out(x).astype(jnp.float32))
        return (150 * x + _MEAN_COLOR) / 255 if self.output == "tanh150" else (x + 1) / 2


def make_generator(
    config: Config, num_styles: int, *, axis_name: str | None = None, dtype: Any = jnp.float32
) -> Generator:
    """The network of some settings.

    Raises:
        ValueError: its normalisation cannot tell so many styles apart.
    """
    layers.check_norm(config.norm, num_styles)
    return Generator(
        channels=config.channels,
        blocks=config.blocks,
        residual=config.residual,
        norm=config.norm,
        contrast_at=config.contrast_at,
        upsample=config.upsample,
        output=config.output,
        num_styles=num_styles,
        axis_name=axis_name,
        dtype=dtype,
    )


# --- training ------------------------------------------------------------------------------------


def method(config: TrainConfig, *, axis_name: str | None) -> Method:
    """Training of a generator as a tuple of pure functions.

    The paintings of `data.style` are read once, here; batches have contents alone. With several
    styles each picture of a batch gets one of them, drawn from the key. The accuracy is the share
    of pictures that look more like their own style than like the others, or like the paintings of
    `data.held_out_style`; with nothing to choose from there is none.

    Raises:
        UserError: a painting or a network cannot be read.
    """
    settings: Config = config.model
    styles, rivals = _read_paintings(config)
    names, count = [style.name for style in styles], len(styles)
    strengths = _strengths(settings, names)
    networks = perceptual.load_networks(settings)
    targets = perceptual.make_targets(networks, [*styles, *rivals], settings)
    dtype = jnp.dtype(config.precision)
    try:
        generator = make_generator(settings, count, axis_name=axis_name, dtype=dtype)
    except ValueError as error:
        raise UserError(f"model.norm: {error}") from error

    def init(key: Array) -> updates.TrainState:
        images = jnp.zeros((1, layers.LEAST_SIDE, layers.LEAST_SIDE, 3))
        found = generator.init(key, images, jnp.zeros((1, count)))
        statistics = found.get("batch_stats", ())
        return updates.init_state(found["params"], config, statistics=statistics)

    def compare(made: Array, content: Array, index: Array) -> perceptual.Terms:
        found = perceptual.terms(networks, made, content, targets, index, settings, dtype=dtype)
        return found._replace(style=found.style * jnp.asarray(strengths)[index])

    def loss_fn(params: Any, statistics: Any, batch: Any, key: Array) -> tuple:
        content = batch["content"]
        first, rows = updates.rows_of_batch(content.shape[0], axis_name)
        index = lax.dynamic_slice_in_dim(_drawn(key, rows, count), first, content.shape[0])
        made, changed = generator.apply(
            _variables(params, statistics),
            content,
            jax.nn.one_hot(index, count),
            train=True,
            mutable=["batch_stats"],
        )
        found = compare(made, content, index)
        return jnp.mean(found.total), (found.means, changed.get("batch_stats", ()))

    def make(state: updates.TrainState, content: Array, index: Array) -> Array:
        variables = _variables(updates.averaged(state), state.statistics)
        return stylize(generator, variables, content, style_weights=jax.nn.one_hot(index, count))

    def evaluate(state: updates.TrainState, batch: Any) -> updates.Metrics:
        content = batch["content"]
        first, rows = updates.rows_of_batch(content.shape[0], axis_name)
        found: list[dict[str, Array]] = []
        # As often as it takes for each style to have a turn.
        for turn in range(-(-count // rows)):
            index = (turn * rows + first + jnp.arange(content.shape[0])) % count
            seen = compare(make(state, content, index), content, index)
            values = {"loss": seen.total, **{n: getattr(seen, n) for n in perceptual.TERMS}}
            if len(targets.size[next(iter(settings.style_layers))]) > 1:
                nearest = perceptual.nearest_style(seen.statistics, targets, settings)
                values["accuracy"] = (nearest == index).astype(jnp.float32)
            found.append({**values, "index": index})
        values = {name: jnp.concatenate([row[name] for row in found]) for name in found[0]}
        return _means(values, names, axis_name)

    def sample(state: updates.TrainState, batch: Any) -> Array:
        content = batch["content"]
        shown = min(count, _SHOWN_STYLES)
        rows = shown * jnp.arange(content.shape[0])
        made = [make(state, content, (rows + column) % count) for column in range(shown)]
        return jnp.concatenate([content, *made], axis=2)

    def variables(state: updates.TrainState) -> dict[str, Any]:
        return _variables(updates.averaged(state), state.statistics)

    def apply(variables: Any, content: Array, styles: Any = None, **controls: Any) -> Array:
        return stylize(generator, variables, content, style_weights=styles, **controls)

    return Method(
        init=init,
        update=updates.make_update(loss_fn, config, axis_name=axis_name),
        evaluate=evaluate,
        variables=variables,
        stylize=apply,
        sample=sample,
        kinds=("content",),
    )


def _variables(params: Any, statistics: Any) -> dict[str, Any]:
    """The collections of the network; batch normalisation alone has statistics."""
    return {"params": params, "batch_stats": statistics} if statistics else {"params": params}


def _drawn(key: Array, rows: int, count: int) -> Array:
    """A style for each picture of a batch, `[rows]`, all styles as equally often as can be."""
    turns = -(-rows // count)
    keys = jax.random.split(key, turns)
    return jax.vmap(lambda k: jax.random.permutation(k, count))(keys).reshape(-1)[:rows]


def _means(
    values: Mapping[str, Array], names: Sequence[str], axis_name: str | None
) -> updates.Metrics:
    """Means over the pictures of all devices; of the style loss, those of each style, too."""
    values = dict(values)
    index = values.pop("index")

    def shared(x: Array) -> Array:
        return x if axis_name is None else lax.pmean(x, axis_name)

    means = {name: shared(jnp.mean(value)) for name, value in values.items()}
    if len(names) > 1:
        chosen = jax.nn.one_hot(index, len(names))
        sums = shared(jnp.einsum("b,bs->s", values["style"], chosen, precision="highest"))
        means |= zip([f"style/{n}" for n in names], sums / shared(chosen.sum(0)), strict=True)
    return means


def _read_paintings(
    config: TrainConfig,
) -> tuple[list[perceptual.Style], list[perceptual.Style]]:
    """The styles, and other paintings that pictures should look less like."""
    size = config.model.style_size
    if not config.data.style:
        raise UserError("data.style is not set: --set data.style=FILE names the painting")
    try:
        styles = perceptual.read_styles(config.data.style, size)
    except UserError as error:
        raise UserError(f"data.style: {error}") from error
    if not config.data.held_out_style:
        return styles, []
    try:
        others = perceptual.read_styles(config.data.held_out_style, size)
    except UserError as error:
        raise UserError(f"data.held_out_style: {error}") from error
    own = {style.pixels.tobytes() for style in styles}
    return styles, [other for other in others if other.pixels.tobytes() not in own]


def _strengths(settings: Config, names: Sequence[str]) -> np.ndarray:
    for name in settings.style_strengths:
        if name not in names:
            known = ", ".join(names)
            raise UserError(
                f"model.style_strengths: there is no style {name!r} (there are {known})"
            )
    return np.array([settings.style_strengths.get(name, 1.0) for name in names], np.float32)


# --- stylising -----------------------------------------------------------------------------------


def stylize(
    generator: Generator,
    variables: Mapping[str, Any],
    content: Array,
    *,
    style_weights: Array | Sequence[float] | None = None,
    strength: float | Array = 1.0,
) -> Array:
    """Stylises pictures: a pure function, to be jitted where it is called.

    Args:
        generator: the network.
        variables: its parameters, as `Method.variables` and `Model.variables` have them.
        content: float32 `[batch, height, width, 3]`, sRGB in [0, 1], of any size.
        style_weights: how much of each style, `[styles]` or `[batch, styles]`, with a sum of one;
            by default as much of each.
        strength: 0 for the content, 1 for the stylised picture, between them for a blend.

    Returns:
        float32 `[batch, height, width, 3]` in [0, 1].
    """
    count = generator.num_styles
    weights = jnp.full((count,), 1 / count) if style_weights is None else jnp.asarray(style_weights)
    weights = jnp.broadcast_to(weights, (content.shape[0], count))
    made = jnp.clip(jnp.asarray(generator.apply(dict(variables), content, weights)), 0, 1)
    return content + strength * (made - content)


def stylize_fn(model: Model, *, dtype: Any = jnp.float32) -> Callable[..., Array]:
    """The `stylize` of a trained model: `(variables, content, *, style_weights, strength)`."""
    generator = make_generator(model.config, len(model.styles), dtype=dtype)

    def apply(variables: Any, content: Array, **controls: Any) -> Array:
        return stylize(generator, variables, content, **controls)

    return apply


def paint(
    model: Model,
    content: np.ndarray,
    *,
    style_weights: Sequence[float] | None = None,
    strength: float = 1.0,
    tile: int | str | None = "auto",
    memory: int | None = None,
) -> np.ndarray:
    """Stylises one picture with a trained model.

    Args:
        model: as `models.load` gives it.
        content: float32 `[height, width, 3]`, sRGB in [0, 1], of any size.
        style_weights: how much of each style, `[styles]`, with a sum of one; by default as much of
            each.
        strength: 0 for the content, 1 for the stylised picture, between them for a blend.
        tile: None to compute the picture whole, or the side in pixels of tiles to compute it in,
            with the same result (see `tiled`); "auto" for tiles where the whole would take more
            than `memory`.
        memory: bytes; by default half of what is available.

    Returns:
        float32 `[height, width, 3]` in [0, 1].

    Raises:
        ValueError: `tile` is none of these.
    """
    count = len(model.styles)
    weights = np.full(count, 1 / count) if style_weights is None else np.asarray(style_weights)
    generator = make_generator(model.config, count)
    height, width = content.shape[:2]
    side = tile_side(model, (height, width), tile=tile, memory=memory)
    if side is None:
        made = _painted(generator, model.variables, content[None], weights, strength)
        return np.asarray(made[0])
    amounts = layers.padding(generator.grain, height, width)
    picture = np.pad(content, (*amounts, (0, 0)), mode="reflect")
    row = np.asarray(weights, np.float32)[None]
    made = tiled.generate(generator, model.variables, picture, row, tile=side)
    made = np.clip(made[:height, :width], 0, 1, out=made[:height, :width])
    made -= content
    made *= strength
    made += content
    return made


def tile_side(
    model: Model, size: tuple[int, int], *, tile: int | str | None, memory: int | None
) -> int | None:
    """The side of the tiles that `paint` computes a picture in, None if whole.

    Args:
        model: as `models.load` gives it.
        size: height and width of the picture.
        tile: as for `paint`, as is `memory`.
        memory: bytes.

    Raises:
        ValueError: `tile` is none of what it may be.
    """
    needed = tiled.whole_bytes(make_generator(model.config, len(model.styles)), size[0] * size[1])
    return tiling.choose(tile, needed=needed, memory=memory, side=tiled.SIDE)


@functools.partial(jax.jit, static_argnums=0)
def _painted(
    generator: Generator, variables: Any, content: Array, weights: Array, strength: Array
) -> Array:
    return stylize(generator, variables, content, style_weights=weights, strength=strength)


def load_run(workdir: str | os.PathLike[str], which: checkpoints.Which = "latest") -> Model:
    """The generator of a run, to be used.

    Args:
        workdir: the folder of the run.
        which: the checkpoint: "latest", "best", or the number of a step.

    Raises:
        UserError: there is no such run or checkpoint, or it trained another method.
    """
    found = checkpoints.restore(workdir, which, method="residual")
    state = found.state
    variables = _variables(updates.restored_average(state), state["statistics"])
    variables = jax.tree.map(np.asarray, variables)
    styles = _style_names(found.config.data.style, _num_styles(variables["params"]))
    # A model is passed on: the folders of the machine that trained it stay behind.
    features = perceptual.without_folders(found.config.model.features)
    settings = dataclasses.replace(found.config.model, features=features)
    return Model("residual", settings, tuple(styles), variables, step=found.step)


def check_model(model: Model) -> None:
    """Refuses a model whose arrays are not those of its settings.

    Raises:
        ValueError: names the first array that differs.
    """
    generator = make_generator(model.config, len(model.styles))
    sizes = (1, layers.LEAST_SIDE, layers.LEAST_SIDE, 3), (1, len(model.styles))
    wanted = jax.eval_shape(generator.init, jax.random.key(0), *map(jnp.zeros, sizes))
    models.check_shapes(wanted, model.variables)


def _num_styles(params: Mapping[str, Any]) -> int:
    """How many styles a network was trained with, by the tables of its normalisation."""
    gammas = [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "gamma"]
    return next((gamma.shape[0] for gamma in gammas if gamma.ndim == 2), 1)


def _style_names(spec: str, count: int) -> list[str]:
    """The names of a run's styles; their files may be gone, or others have come."""
    try:
        names = perceptual.style_names(spec)
    except UserError:
        names = []
    if len(names) == count:
        return names
    return [f"style{number}" for number in range(1, count + 1)]
