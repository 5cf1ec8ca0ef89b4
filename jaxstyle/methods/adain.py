"""Any painting in one pass: an encoder, adaptive instance normalisation, and a decoder.

Huang and Belongie 2017, "Arbitrary Style Transfer in Real-time with Adaptive Instance
Normalization" (arXiv 1703.06868). A frozen perceptual network encodes the content and the painting;
features of the content get the painting's mean and deviation, and a decoder that mirrors the
encoder makes a picture of them. Here the features of several levels may be normalised so and be
given to the decoder, whose own features a painting may modulate besides; both are off as in the
paper.

What the decoder has to know of a painting is its code: the moments of its features at these levels.
Codes of several paintings are mixed by averaging them, and so is the code of a painting with the
content's own, which is what a strength below one does. What the decoder misses of the content is
then given back in the same measure, so that a strength of zero is the content itself.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxstyle import features as vgg
from jaxstyle import layers, models, tiling, transfer, weights
from jaxstyle.errors import UserError
from jaxstyle.methods import Method
from jaxstyle.methods.adain_network import (
    PIXELS,
    Code,
    Config,
    Network,
    make_network,
    read_encoder,
)
from jaxstyle.models import Model
from jaxstyle.training import checkpoints, perceptual, updates
from jaxstyle.training.config import TrainConfig

# Models of this method have no styles of their own (`models`).
ANY_STYLE = True


# --- pure functions ------------------------------------------------------------------------------


def encode(network: Network, params: vgg.Parameters, pictures: Array) -> dict[str, Array]:
    """Features of pictures at each level, and at PIXELS where the decoder needs the colours.

    Args:
        network: see there.
        params: of the encoder, or what `features.prepare` makes of them.
        pictures: float32 `[batch, height, width, 3]`, sRGB in [0, 1].
    """
    found = vgg.vgg(params, pictures.astype(network.dtype), network.levels, padding=network.padding)
    return found | {PIXELS: transfer.with_sums(pictures)} if network.decoder.colors else found


def code_of(features: Mapping[str, Array], masks: Array | None = None) -> Code:
    """The code of encoded pictures.

    Args:
        features: as `encode` gives them.
        masks: `[batch, height, width, regions]`, which sum to one; None for no regions.
    """
    if masks is None:
        return {level: transfer.channel_moments(x) for level, x in features.items()}
    return {
        level: transfer.region_moments(x, transfer.resize_masks(masks, *x.shape[1:3]))
        for level, x in features.items()
    }


def mix(codes: Sequence[Code], shares: Sequence[float | Array]) -> Code:
    """The code between those of several paintings (Huang and Belongie, Eq. 15).

    Args:
        codes: of one form.
        shares: one a painting, scalars that sum to one.
    """
    return {name: transfer.mix_moments([code[name] for code in codes], shares) for name in codes[0]}


def decode(
    network: Network,
    params: Any,
    features: Mapping[str, Array],
    code: Code,
    *,
    own: Code,
    strength: float | Array = 1.0,
    masks: Array | None = None,
    moments: Mapping[str, Any] | None = None,
    until: str = "",
) -> Array:
    """Pictures out of a content's features and a painting's code.

    Args:
        network: see there.
        params: of the decoder.
        features: of the content, `{level: [batch, h, w, channels]}`.
        code: of the painting; a batch of one is shared.
        own: the content's code.
        strength: 0 for the content's own code, 1 for the painting's, between them for a mixture
            (Huang and Belongie, Eq. 14). With 0 the picture is the content as far as the decoder
            can make it; see `blend`.
        masks: of the content's regions, where the codes are of regions.
        moments: of the decoder's own features, as `layers.InstanceNorm` takes them, where the
            features are a part of a picture.
        until: as `Decoder` takes it.

    Returns:
        float32 `[batch, height, width, 3]`, of which what lies beyond [0, 1] is to be clipped.
    """
    code = mix([own, code], [1 - strength, strength])
    changed = {}
    for level, x in features.items():
        if masks is None:
            changed[level] = transfer.adain(
                x, None, moments=code[level], content_moments=own[level]
            )
        else:
            small = transfer.resize_masks(masks, *x.shape[1:3])
            changed[level] = transfer.adain_regions(
                x, code[level], small, content_moments=own[level]
            )
    variables = {"params": params} | ({layers.MOMENTS: moments} if moments else {})
    return jnp.asarray(network.decoder.apply(variables, changed, code, masks, until=until))


def blend(made: Array, rebuilt: Array, content: Array, strength: float | Array) -> Array:
    """A picture of some strength, so that at a strength of 0 nothing of the content is missing.

    Huang and Belongie's Eq. 14 mixes codes alone, and ends at what the decoder makes of the
    content's own code: a poor copy. What that lacks is added here, in the content's share.

    Args:
        made: of the mixed code, by `decode`, `[batch, height, width, 3]`.
        rebuilt: of the content's own code, by `decode`, as are the others.
        content: the pictures themselves.
        strength: as for `stylize`.

    Returns:
        float32 like `made`, in [0, 1].
    """
    return jnp.clip(made + (1 - strength) * (content - rebuilt), 0, 1)


def is_full(strength: float | Array) -> bool:
    """Whether a strength is known to be 1, where there is nothing to `blend`.

    Of an array, which may be a traced one, nothing is known.
    """
    return isinstance(strength, int | float) and strength == 1


def padded(network: Network, pictures: Array) -> Array:
    """Pictures of a size that can be halved as often as the encoder does."""
    amounts = layers.padding(network.grain, *pictures.shape[1:3])
    if not any(amount for _, amount in amounts):
        return pictures
    return jnp.pad(pictures, ((0, 0), *amounts, (0, 0)), mode="reflect")


def stylize(
    network: Network,
    variables: Mapping[str, Any],
    content: Array,
    code: Code,
    *,
    strength: float | Array = 1.0,
    masks: Array | None = None,
) -> Array:
    """Stylises pictures: a pure function, to be jitted where it is called.

    Args:
        network: see there.
        variables: `params` of the decoder, and `encoder`, the parameters of that or what
            `features.prepare` makes of them.
        content: float32 `[batch, height, width, 3]`, sRGB in [0, 1], of any size.
        code: of the painting, as `style_code` gives it; a batch of one is shared.
        strength: 0 for the content, to rounding; 1 for the painting's style. All but a plain
            number of 1 takes a second pass of the decoder (see `blend`).
        masks: `[batch, height, width, regions]`, which sum to one, where the code is of regions.

    Returns:
        float32 `[batch, height, width, 3]` in [0, 1].
    """
    height, width = content.shape[1:3]
    pictures = padded(network, content)
    if masks is not None:
        masks = padded(network, masks)
    features = encode(network, variables["encoder"], pictures)
    own = code_of(features, masks)
    paint = functools.partial(decode, network, variables["params"], features, own=own, masks=masks)
    made = paint(code, strength=strength)[:, :height, :width]
    if is_full(strength):
        return jnp.clip(made, 0, 1)
    return blend(made, paint(own)[:, :height, :width], content, strength)


def style_code(
    network: Network, variables: Mapping[str, Any], pictures: Array, masks: Array | None = None
) -> Code:
    """The code of paintings: a pure function, to be jitted where it is called.

    Args:
        network: see there.
        variables: as for `stylize`.
        pictures: float32 `[batch, height, width, 3]`, sRGB in [0, 1], of any size.
        masks: `[batch, height, width, regions]`, which sum to one; None for no regions.
    """
    if min(pictures.shape[1:3]) < layers.LEAST_SIDE:
        pictures = padded(network, pictures)
        masks = None if masks is None else padded(network, masks)
    return code_of(encode(network, variables["encoder"], pictures), masks)


def stylize_fn(model: Model, *, dtype: Any = jnp.float32) -> Callable[..., Array]:
    """The `stylize` of a trained model: `(variables, content, code, *, strength, masks)`."""
    network, _ = of_model(model, dtype=dtype)
    return functools.partial(stylize, network)


# --- using a trained model -----------------------------------------------------------------------


def of_model(model: Model, *, dtype: Any = jnp.float32) -> tuple[Network, dict[str, Any]]:
    """The network of a trained model, and its variables as the functions of this module take them.

    The encoder's kernels are transformed for the convolution of the CPU.
    """
    encoder = models.flat(model.variables["encoder"])
    network = make_network(model.config, encoder, model.config.encoder_padding, dtype=dtype)
    used = updates.cast(encoder, dtype)
    if dtype == jnp.float32:
        used = vgg.prepare(encoder, padding=network.padding)
    return network, {"params": model.variables["params"], "encoder": used}


def paint(
    network: Network,
    variables: Mapping[str, Any],
    content: np.ndarray,
    code: Code,
    *,
    strength: float = 1.0,
    masks: np.ndarray | None = None,
    tile: int | str | None = "auto",
    memory: int | None = None,
) -> np.ndarray:
    """Stylises one picture with a trained model.

    Args:
        network: see there.
        variables: as `of_model` gives both.
        content: float32 `[height, width, 3]`, sRGB in [0, 1], of any size.
        code: of a painting, as `read_style` gives it.
        strength: as for `stylize`; any other than 1 takes a third more time.
        masks: `[height, width, regions]`, which sum to one, where the code is of regions.
        tile: None to compute the picture whole, or the side in pixels of tiles to compute it in,
            with the same result (see `adain_tiled`); "auto" for tiles where the whole would take
            more than `memory`.
        memory: bytes; by default half of what is available.

    Returns:
        float32 `[height, width, 3]` in [0, 1].

    Raises:
        ValueError: `tile` is none of these.
    """
    from jaxstyle.methods import adain_tiled  # which needs this module

    height, width = content.shape[:2]
    side = tile_side(network, (height, width), tile=tile, memory=memory)
    if side is None:
        batched = None if masks is None else masks[None]
        # A number given to a jitted function is an array there: so 1 is left to the default.
        given = {} if is_full(strength) else {"strength": strength}
        made = _painted(network, variables, content[None], code, masks=batched, **given)
        return np.asarray(made[0])
    amounts = (*layers.padding(network.grain, height, width), (0, 0))
    content = np.pad(content, amounts, mode="reflect")
    if masks is not None:
        masks = np.pad(masks, amounts, mode="reflect")
    made = adain_tiled.generate(
        network, variables, content, code, strength=strength, masks=masks, tile=side
    )
    return made[:height, :width]


def tile_side(
    network: Network, size: tuple[int, int], *, tile: int | str | None, memory: int | None
) -> int | None:
    """The side of the tiles that `paint` computes a picture in, None if whole.

    It is what was asked for, rounded up to what the network halves away.

    Args:
        network: see there.
        size: height and width of the picture.
        tile: as for `paint`, as is `memory`.
        memory: bytes.

    Raises:
        ValueError: `tile` is none of what it may be.
    """
    from jaxstyle.methods import adain_tiled

    needed = adain_tiled.whole_bytes(network, size[0] * size[1])
    side = tiling.choose(tile, needed=needed, memory=memory, side=adain_tiled.SIDE)
    return None if side is None else -(-side // network.grain) * network.grain


def read_style(
    network: Network,
    variables: Mapping[str, Any],
    picture: np.ndarray,
    masks: np.ndarray | None = None,
    *,
    tile: int | str | None = "auto",
    memory: int | None = None,
) -> Code:
    """The code of a painting, to be used for any number of contents.

    Args:
        network: see there.
        variables: as `of_model` gives both.
        picture: float32 `[height, width, 3]`, sRGB in [0, 1], of any size.
        masks: `[height, width, regions]`, which sum to one; None for no regions.
        tile: as for `paint`, with the same result (but see `adain_tiled.code_of`).
        memory: as for `paint`.

    Raises:
        ValueError: `tile` is none of what it may be.
    """
    from jaxstyle.methods import adain_tiled

    height, width = picture.shape[:2]
    side = tile_side(network, (height, width), tile=tile, memory=memory)
    if side is not None and min(height, width) >= layers.LEAST_SIDE:
        return adain_tiled.code_of(network, variables["encoder"], picture, masks=masks, tile=side)
    batched = None if masks is None else masks[None]
    return _read(network, variables, picture[None], batched)


_painted = jax.jit(stylize, static_argnums=0)
_read = jax.jit(style_code, static_argnums=0)


def load_run(workdir: str | os.PathLike[str], which: checkpoints.Which = "latest") -> Model:
    """The encoder and decoder of a run, to be used.

    Args:
        workdir: the folder of the run.
        which: the checkpoint: "latest", "best", or the number of a step.

    Raises:
        UserError: there is no such run or checkpoint, it trained another method, or its encoder
            cannot be read.
    """
    found = checkpoints.restore(workdir, which, method="adain")
    encoder, padding = read_encoder(found.config.model)
    variables = {"params": updates.restored_average(found.state), "encoder": models.nested(encoder)}
    # A model is passed on: the folders of the machine that trained it stay behind.
    settings = dataclasses.replace(
        found.config.model,
        encoder=perceptual.without_folders(found.config.model.encoder),
        encoder_padding=padding,
        features=perceptual.without_folders(found.config.model.features),
    )
    return Model("adain", settings, (), jax.tree.map(np.asarray, variables), step=found.step)


def check_model(model: Model) -> None:
    """Refuses a model whose arrays are not those of its settings.

    Raises:
        ValueError: names the first array that differs.
    """
    if set(model.variables) != {"encoder", "params"}:
        raise ValueError(f"expected encoder and params; got {', '.join(model.variables)}")
    encoder = models.flat(model.variables["encoder"])
    weights.check_params(encoder)
    vgg.check_layers(encoder, model.config.levels)
    network = make_network(model.config, encoder, model.config.encoder_padding)

    def wanted(key: Array) -> Any:
        features = encode(network, encoder, jnp.zeros((1, layers.LEAST_SIDE, layers.LEAST_SIDE, 3)))
        return network.decoder.init(key, features, code_of(features))["params"]

    models.check_shapes(jax.eval_shape(wanted, jax.random.key(0)), model.variables["params"])


# --- training ------------------------------------------------------------------------------------


def method(config: TrainConfig, *, axis_name: str | None) -> Method:
    """Training of a decoder as a tuple of pure functions.

    Each photograph of a batch is given the style of the painting of the same row.

    Raises:
        UserError: a network cannot be read, or no paintings are named.
    """
    settings: Config = config.model
    _check_data(config)
    networks = perceptual.load_networks(settings)
    encoder, padding = read_encoder(settings)
    prepared = vgg.prepare(encoder, padding=padding)
    dtype = jnp.dtype(config.precision)
    network = make_network(settings, encoder, padding, dtype=dtype)
    if config.crop_size % network.grain:
        raise UserError(
            f"crop_size must be a multiple of {network.grain}, for the decoder to make pictures of "
            f"the same size; got {config.crop_size}"
        )
    # Winograd is for float32: its transforms lose what bfloat16 has of digits.
    used = prepared if dtype == jnp.float32 else updates.cast(encoder, dtype)

    compare = functools.partial(_compare, networks, settings, dtype)

    def init(key: Array) -> updates.TrainState:
        images = jnp.zeros((1, layers.LEAST_SIDE, layers.LEAST_SIDE, 3))
        features = encode(network, used, images)
        params = network.decoder.init(key, features, code_of(features))["params"]
        return updates.init_state(params, config)

    def loss_fn(params: Any, statistics: Any, batch: Any, key: Array) -> tuple:
        content, style = batch["content"], batch["style"]
        if settings.vary_colors:
            style = _recolored(style, key, axis_name)
        features = encode(network, used, content)
        own, code = code_of(features), code_of(encode(network, used, style))
        made = decode(network, params, features, code, own=own)
        found = compare(made, content, style)
        metrics = found.means
        loss = jnp.mean(found.total)
        if settings.identity_weight:
            same = decode(network, params, features, own, own=own)
            metrics["identity"] = jnp.mean(jnp.square(same - content))
            loss = loss + settings.identity_weight * metrics["identity"]
        return loss, (metrics, statistics)

    def make(state: updates.TrainState, batch: Any) -> Array:
        variables = {"params": updates.averaged(state), "encoder": used}
        code = style_code(network, variables, batch["style"])
        return stylize(network, variables, batch["content"], code)

    def evaluate(state: updates.TrainState, batch: Any) -> updates.Metrics:
        found = compare(make(state, batch), batch["content"], batch["style"])
        metrics = found.means
        metrics["loss"] = jnp.mean(found.total)
        return metrics if axis_name is None else jax.lax.pmean(metrics, axis_name)

    def sample(state: updates.TrainState, batch: Any) -> Array:
        return jnp.concatenate([batch["content"], batch["style"], make(state, batch)], axis=2)

    def variables(state: updates.TrainState) -> dict[str, Any]:
        return {"params": updates.averaged(state), "encoder": models.nested(encoder)}

    def apply(variables: Any, content: Array, styles: Array, **controls: Any) -> Array:
        variables = {**variables, "encoder": models.flat(variables["encoder"])}
        return stylize(
            network, variables, content, style_code(network, variables, styles), **controls
        )

    return Method(
        init=init,
        update=updates.make_update(loss_fn, config, axis_name=axis_name),
        evaluate=evaluate,
        variables=variables,
        stylize=apply,
        sample=sample,
    )


def _check_data(config: TrainConfig) -> None:
    """Refuses a batch whose photographs do not each have a painting."""
    if not config.data.style:
        raise UserError(
            "data.style is not set: --set data.style=FOLDER names paintings to learn on"
        )
    if config.data.style_batch_size not in (0, config.batch_size):
        raise UserError(
            "data.style_batch_size must be 0 for this method, which gives each photograph of a "
            f"batch a painting of its own; got {config.data.style_batch_size}"
        )


def _compare(
    networks: Sequence[perceptual.Network],
    settings: Config,
    dtype: Any,
    made: Array,
    content: Array,
    style: Array,
) -> perceptual.Terms:
    """The terms of the loss of pictures, each beside its own content and painting."""
    targets = perceptual.targets_of(networks, style, settings, dtype=dtype)
    wanted = None
    if settings.content_target == "adain":
        names = list(settings.content_layers)
        plain, painted = (
            perceptual.extract(networks, pictures, names, dtype=dtype)
            for pictures in (content, style)
        )
        wanted = {name: transfer.adain(plain[name], painted[name]) for name in names}
    index = jnp.arange(made.shape[0])
    return perceptual.terms(
        networks, made, content, targets, index, settings, wanted=wanted, dtype=dtype
    )


def _recolored(pictures: Array, key: Array, axis_name: str | None) -> Array:
    """Each picture with its colours in a random order."""
    first, rows = updates.rows_of_batch(pictures.shape[0], axis_name)
    keys = jax.lax.dynamic_slice_in_dim(jax.random.split(key, rows), first, pictures.shape[0])
    orders = jax.vmap(lambda k: jax.random.permutation(k, 3))(keys)
    return jnp.take_along_axis(pictures, orders[:, None, None], axis=3)
