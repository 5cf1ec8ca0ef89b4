"""The methods, one module each.

A method that is trained has a module with `Config`, a frozen dataclass of its settings, and
`method(config, *, axis_name) -> Method`, and its name in `NAMES`. The training loop knows the tuple
and nothing of what is inside. Gatys optimises pixels, trains nothing, and is not among them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from jaxstyle.config import did_you_mean

NAMES = ("adain", "distill", "residual")


class Method(NamedTuple):
    """A method that is trained, as a tuple of pure functions.

    A batch is a dict: `content`, float32 `[batch, height, width, 3]`, sRGB in [0, 1], and `style`
    of the same form where the configuration names a source of paintings. States are pytrees of
    arrays. Metrics are dicts of float32 scalars, already averaged over the devices.

    Attributes:
        init: `(key) -> state`: parameters, statistics, optimiser, averages.
        update: `(state, batch, key) -> (state, metrics)`: one step. The metrics have `loss` and
            `gradient_norm`. The key is the same on every device.
        evaluate: `(state, batch) -> metrics`, on pictures that were kept out.
        variables: `(state) -> variables`: what the trained method needs, and nothing else.
        stylize: `(variables, content, styles, **controls) -> images`, or None.
        sample: `(state, batch) -> images`: what a person looks at, `[n, height, width, 3]`.
        phases: pairs `(end, update)`, the earliest first: before step `end`, this update is made
            instead. Each is a program of its own: on a CPU, a convolution in a branch of one
            program is many times slower.
        kinds: what of a batch is read; pictures of another kind are not even opened.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    evaluate: Callable[..., Any]
    variables: Callable[..., Any]
    stylize: Callable[..., Any] | None
    sample: Callable[..., Any]
    phases: tuple[tuple[int, Callable[..., Any]], ...] = ()
    kinds: tuple[str, ...] = ("content", "style")


def load(name: str) -> ModuleType:
    """The module of a method that is trained.

    Raises:
        ValueError: there is no such method; the nearest name is suggested.
    """
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise ValueError(f"there is no method {name!r}{did_you_mean(name, NAMES)} ({known})")
    return importlib.import_module(f"jaxstyle.methods.{name}")
