"""Pictures whose rows are spread over devices: each device has a strip of them.

A convolution needs, of the strips above and below, one row each. The devices hand them to one
another, and what lies beyond the picture's own border is made as the network's padding wants it: so
the features are those of the whole picture, whatever convolution computes them.

All strips are of one height. Rows that fill up the last ones count for nothing, and nothing that
counts sees them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxstyle import convolution

# The axis of the devices, which collectives name.
AXIS = "rows"
# Arrays `[batch, rows, width, channels]` in strips, and arrays that every device has.
SPREAD, COPIED = PartitionSpec(None, AXIS), PartitionSpec()
PICTURE_AXES = 4
"""How many axes an array of the picture's size has at least."""


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """The mesh of some devices, from the top of the picture down.

    Args:
        devices: of all processes of the run.

    Raises:
        ValueError: there are none, they are of several kinds, or a process has none of them.
    """
    kinds = sorted({device.platform for device in devices})
    if len(kinds) != 1:
        raise ValueError(f"expected devices of one kind; got {', '.join(kinds) or 'none'}")
    missing = {*range(jax.process_count())} - {device.process_index for device in devices}
    if missing:
        raise ValueError(f"expected devices of all processes; got none of process {min(missing)}")
    return Mesh(np.asarray(devices), (AXIS,))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How devices compute a picture: here, each of them the whole of it.

    What is written with its methods can be computed in `Strips`, too.

    Attributes:
        mesh: the devices; None for the default one.
    """

    mesh: Mesh | None

    # Arrays, as arguments and results of a program.

    def sharding(self, axes: int) -> NamedSharding | None:
        """That of arrays with so many axes, which are pictures if there are four or more."""
        del axes
        return None if self.mesh is None else NamedSharding(self.mesh, COPIED)

    def copy(self, tree: Any) -> Any:
        """Arrays, the same in every process, on each of the devices."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        sharding = NamedSharding(self.mesh, COPIED)

        def place(leaf: Any) -> Array:
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(place, tree)

    def spread(self, array: Any) -> Array:
        """The pixels of the picture or its features, `[..., rows, width, channels]`.

        Every process gives the whole of it, and hands what they need to its own devices.
        """
        return self.copy(array)

    def gather(self, array: Array) -> Array:
        """What `spread` was given, on one device of this process; it is not waited for.

        Every process must call it.
        """
        return array if self.mesh is None else array.addressable_data(0)

    # Within a program.

    def map(self, function: Callable[..., Any], given: Any, made: Any) -> Callable[..., Any]:
        """A function of what a device has as one of the whole; the methods below are for it.

        Args:
            function: of arrays.
            given: `SPREAD` or `COPIED`, for each of its arguments.
            made: the same for each of its results.
        """
        del given, made
        return function

    def add_up(self, tree: Any) -> Any:
        """Sums over what the devices have."""
        return tree

    def apart(self, array: Array) -> Array:
        """`[1, n]` of each device as `[devices, n]`, which `add_up` fills."""
        return array

    def bounds(self, bounds: Array) -> Array:
        """What counts of the picture, `[[first row, last row], [first, last column]]`, here."""
        return bounds

    def conv2d(
        self, images: Array, kernel: Any, *, bias: Array | None = None, padding: str = "zero"
    ) -> Array:
        """`convolution.conv2d` of the whole picture."""
        return convolution.conv2d(images, kernel, bias=bias, padding=padding)

    def with_next(self, images: Array) -> Array:
        """With one row more, that below; at the end of the picture its last row again, or none."""
        return images


@dataclasses.dataclass(frozen=True)
class Strips(Layout):
    """A layout in which each device has some of the rows.

    Attributes:
        mesh: the devices.
        height: of the picture, at least the grain.
        grain: what the height of a strip is a multiple of: as many rows as a position of the
            deepest features stands for, a power of 2.
    """

    mesh: Mesh
    height: int
    grain: int

    @property
    def strip(self) -> int:
        """Rows of pixels in each strip."""
        return -(-self.height // (self.grain * self.mesh.size)) * self.grain

    def sharding(self, axes: int) -> NamedSharding:
        """Pictures are in strips."""
        spread = PartitionSpec(*[None] * (axes - 3), AXIS) if axes >= PICTURE_AXES else COPIED
        return NamedSharding(self.mesh, spread)

    def spread(self, array: Any) -> Array:
        """In strips; the last row is repeated to fill up."""
        array = np.asarray(array)
        axis = array.ndim - 3
        length, stride = array.shape[axis], 1
        while self.height // stride > length:
            stride *= 2
        full = self.strip * self.mesh.size // stride

        def rows(index: Any) -> np.ndarray:
            return np.take(array, np.minimum(np.arange(full)[index[axis]], length - 1), axis=axis)

        shape = (*array.shape[:axis], full, *array.shape[axis + 1 :])
        return jax.make_array_from_callback(shape, self.sharding(array.ndim), rows)

    def gather(self, array: Array) -> Array:
        """From all strips, without what fills up."""
        stride = self.strip * self.mesh.size // array.shape[-3]
        return gathered(array)[..., : self.height // stride, :, :]

    def map(self, function: Callable[..., Any], given: Any, made: Any) -> Callable[..., Any]:
        """A function of strips as one of the whole."""
        return jax.shard_map(function, mesh=self.mesh, in_specs=given, out_specs=made)

    def add_up(self, tree: Any) -> Any:
        """Sums over the strips."""
        # As one array: one exchange.
        leaves, structure = jax.tree.flatten(tree)
        flat = lax.psum(jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]), AXIS)
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        pairs = zip(jnp.split(flat, ends), leaves, strict=True)
        return structure.unflatten([part.reshape(leaf.shape) for part, leaf in pairs])

    def apart(self, array: Array) -> Array:
        """In a row of its own, beside zeros for those of the other devices."""
        own = jnp.arange(self.mesh.size)[:, None] == lax.axis_index(AXIS)
        return jnp.where(own, array, 0)

    def bounds(self, bounds: Array) -> Array:
        """What counts of the strip, from its first row."""
        first = lax.axis_index(AXIS) * self.strip
        return jnp.stack([jnp.minimum(bounds[0], self.height) - first, bounds[1]])

    def conv2d(
        self, images: Array, kernel: Any, *, bias: Array | None = None, padding: str = "zero"
    ) -> Array:
        """Of the strip, with what it sees of its neighbours; kernels are 1x1 or 3x3."""
        raw = kernel.kernel if isinstance(kernel, convolution.PreparedKernel) else kernel
        if raw.shape[0] == 1:
            return convolution.conv2d(images, kernel, bias=bias, padding=padding)
        if raw.shape[0] != 3:
            raise ValueError(f"expected a kernel of 1x1 or 3x3; got {raw.shape}")
        seen = self._extended(images, padding)
        return convolution.conv2d(seen, kernel, bias=bias, padding=padding)[:, 1:-1]

    def with_next(self, images: Array) -> Array:
        """With the first row of the strip below."""
        found = jnp.concatenate([images, self._handed(images[:, :1], up=True)], 1)
        return self._bordered(found, images.shape[1], 0, "replicate")

    def _extended(self, images: Array, padding: str) -> Array:
        """The strip with the row above it and the row below, `[batch, rows + 2, width, c]`."""
        above = self._handed(images[:, -1:], up=False)
        below = self._handed(images[:, :1], up=True)
        found = jnp.concatenate([above, images, below], 1)
        return self._bordered(found, images.shape[1], -1, padding)

    def _handed(self, images: Array, *, up: bool) -> Array:
        """What the device has below it, or the one above; zeros where there is none."""
        pairs = [(upper, upper + 1) for upper in range(self.mesh.size - 1)]
        if up:
            pairs = [(lower, upper) for upper, lower in pairs]
        return lax.ppermute(images, AXIS, pairs) if pairs else jnp.zeros_like(images)

    def _bordered(self, found: Array, rows: int, begin: int, padding: str) -> Array:
        """With what lies beyond the picture, one row above it and one below.

        Args:
            found: rows of the strip and around it.
            rows: of the strip.
            begin: the first of those that were found, from the strip's first: -1 or 0.
            padding: "zero", "reflect" or "replicate".
        """
        height = self.height * rows // self.strip
        first = lax.axis_index(AXIS) * rows + begin
        row = (first + jnp.arange(found.shape[1]))[:, None, None]
        if padding == "zero":
            return jnp.where((row >= 0) & (row < height), found, 0)
        inset = 1 if padding == "reflect" and height > 1 else 0
        # Which device has a border is known when it runs, so each takes what would lie beyond it;
        # those that have none use nothing of that.
        top = found[:, 1 + inset : 2 + inset]
        last = jnp.clip(height - 1 - inset - first, 0, found.shape[1] - 1)
        bottom = lax.dynamic_slice_in_dim(found, last, 1, axis=1)
        return jnp.where(row == -1, top, jnp.where(row == height, bottom, found))


def gathered(array: Array) -> Array:
    """An array, whole, on one device of this process; with what fills up the strips of one.

    Every process must call it.

    Args:
        array: of one device, or of a mesh.
    """
    if not isinstance(array.sharding, NamedSharding):
        return array
    return _gatherer(array.sharding.mesh)(array).addressable_data(0)


@functools.cache
def _gatherer(mesh: Any) -> Any:
    return jax.jit(lambda array: array, out_shardings=NamedSharding(mesh, COPIED))
