"""The public interface keeps the house rules, and importing it changes nothing."""

import ast
import functools
import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxstyle

ROOT = Path(__file__).resolve().parents[1]
STUB = ast.parse((ROOT / "jaxstyle" / "__init__.pyi").read_text())
# {public name: (module, name in it)}; a module itself has no name in it.
NAMES = {
    alias.asname: (f"jaxstyle.{node.module}", alias.name)
    if node.module
    else (f"jaxstyle.{alias.name}", None)
    for node in ast.walk(STUB)
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
DIRECT = {name: getattr(jaxstyle, name) for name, (_, inner) in NAMES.items() if inner}
MODULES = [getattr(jaxstyle, name) for name, (_, inner) in NAMES.items() if inner is None]
FUNCTIONS = {name: value for name, value in DIRECT.items() if inspect.isfunction(value)}
FUNCTIONS |= {
    f"{module.__name__.removeprefix('jaxstyle.')}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if inspect.isfunction(value)
    and value.__module__ == module.__name__
    and not name.startswith("_")
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def test_names_of_the_stub_are_those_of_the_package():
    for name, (module, inner) in NAMES.items():
        owner = sys.modules[module]
        assert getattr(jaxstyle, name) is (owner if inner is None else getattr(owner, inner)), name
        assert inner in (None, name)
    assert sorted(NAMES) == sorted(jaxstyle.__all__)
    assert set(NAMES) <= set(dir(jaxstyle))
    assert jaxstyle.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no_such_thing"):
        jaxstyle.no_such_thing  # noqa: B018


def test_the_losses_of_the_literature_are_public():
    wanted = "gram_matrix content_loss style_loss total_variation perceptual_loss moments_loss mmd "
    wanted += "wasserstein2 stylize preset"
    assert {*wanted.split()} <= set(FUNCTIONS)


@each_function
def test_functions_have_docstrings(name):
    text = inspect.getdoc(FUNCTIONS[name])
    assert text
    assert text.splitlines()[0].endswith((".", ":")), "the first line is a sentence"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name in DIRECT])
def test_docstrings_tell_of_every_argument_and_of_the_result(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    assert text
    for parameter in inspect.signature(function).parameters.values():
        assert f"{parameter.name}:" in text, parameter.name
    assert any(part in text for part in ("Returns:", "Yields:")) or text.startswith("The ")
    assert "Raises:" in text


@pytest.mark.parametrize("name", [name for name, value in DIRECT.items() if inspect.isclass(value)])
def test_classes_have_docstrings(name):
    text = DIRECT[name].__doc__
    assert text
    # What a NamedTuple or a dataclass gets where nobody wrote one.
    assert not text.startswith(f"{name}(")


@each_function
def test_optional_arguments_are_keyword_only(name):
    for parameter in inspect.signature(FUNCTIONS[name]).parameters.values():
        optional = parameter.default is not parameter.empty
        if optional:
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter.name


@each_function
def test_random_keys_are_called_key(name):
    signature = inspect.signature(FUNCTIONS[name])
    others = {"rng", "rngs", "rng_key", "prng", "prng_key", "random_key", "prngkey", "seed"}
    assert not others & {parameter.lower() for parameter in signature.parameters}
    if "jax.random.key" in (inspect.getdoc(FUNCTIONS[name]) or ""):
        assert "key" in signature.parameters


def python(code, environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_import_changes_nothing(tmp_path):
    """No folder, no environment variable, no flag, no device: not even for the public names."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX", "XLA", "XDG", "TF_"))
    }
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    code = """
        import os
        before = dict(os.environ)
        import jaxstyle
        assert dict(os.environ) == before
        import jax  # which sets a variable of its own
        from jax._src import xla_bridge
        before, flags = dict(os.environ), dict(jax.config.values)
        for name in jaxstyle.__all__:
            getattr(jaxstyle, name)
        assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
        assert dict(jax.config.values) == flags
        assert not xla_bridge.backends_are_initialized()
    """
    done = python(code, environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


LOSSES = {
    "content_loss": jaxstyle.content_loss,
    "perceptual_loss": jaxstyle.perceptual_loss,
    "style_loss": lambda x, y: jaxstyle.style_loss(
        jaxstyle.gram_matrix(x), jaxstyle.gram_matrix(y)
    ),
    "total_variation": lambda x, y: jaxstyle.total_variation(x),
    "moments_loss": lambda x, y: jaxstyle.moments_loss(
        jaxstyle.channel_moments(x), jaxstyle.channel_moments(y)
    ),
    "mmd": functools.partial(jaxstyle.mmd, kernel="polynomial"),
    "wasserstein2": lambda x, y: jaxstyle.wasserstein2(
        jaxstyle.gaussian_statistics(x), jaxstyle.gaussian_statistics(y)
    ),
}


def test_losses_need_arrays_alone(tmp_path, monkeypatch):
    """Gradients, mapped and compiled, of every public loss, with no weights at hand."""
    monkeypatch.setenv("JAXSTYLE_CACHE_DIR", str(tmp_path))
    is_loss = {name for name in FUNCTIONS if "." not in name and name.endswith("_loss")}
    assert is_loss | {"mmd", "wasserstein2", "total_variation"} == set(LOSSES)
    x, y = np.random.default_rng(0).random((2, 3, 1, 5, 4, 3), np.float32)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0))
    def evaluate(x, y):
        pairs = {}
        for name, loss in LOSSES.items():
            pairs[name] = jax.value_and_grad(lambda x, loss=loss: loss(x, y)[0])(x)
        return pairs

    for name, (values, gradients) in evaluate(x, y).items():
        assert values.shape == (3,)
        assert gradients.shape == x.shape
        assert np.isfinite(gradients).all()
        assert np.abs(gradients).max() > 0
        alone = LOSSES[name](jnp.asarray(x[0]), jnp.asarray(y[0]))
        np.testing.assert_allclose(values[:1], alone, rtol=1e-3, atol=1e-6, err_msg=name)
    assert not list(tmp_path.iterdir())
