"""States as plain trees of arrays, as they lie in a checkpoint, and back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.errors import UserError


def in_form_of(abstract: Any, raw: Any, where: str) -> Any:
    """The arrays of a tree that was read, in the structure they were saved from."""
    plain = jax.eval_shape(without_keys, abstract)
    expected = {_names(path): leaf for path, leaf in jax.tree.leaves_with_path(plain)}
    found = {_names(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(raw)}
    for names in expected | found:
        here, there = expected.get(names), found.get(names)
        if here is None or there is None or (here.shape, here.dtype) != (there.shape, there.dtype):
            raise UserError(
                f"{where} is of another configuration: {'.'.join(names)} is "
                f"{_described(there)} in it and {_described(here)} in this run"
            )
    leaves = [found[names] for names in expected]
    typed = [_with_key(*pair) for pair in zip(jax.tree.leaves(abstract), leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(abstract), typed)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The path of a leaf, alike for fields, keys and positions: Orbax turns one into another."""
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def _described(leaf: Any) -> str:
    return "missing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", np.dtype(np.float32)), jax.dtypes.prng_key)


def without_keys(tree: Any) -> Any:
    """Typed random keys as the numbers they are made of."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _with_key(abstract: Any, leaf: Any) -> Any:
    if not _is_key(abstract):
        return leaf
    impls: list[Any] = []  # JAX says it of arrays only, which is what a traced argument is
    jax.eval_shape(lambda key: impls.append(jax.random.key_impl(key)), abstract)
    return jax.random.wrap_key_data(leaf, impl=impls[0])
