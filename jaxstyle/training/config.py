"""Settings of a training run: frozen dataclasses, configuration files, overrides, and JSON.

A configuration file is Python with a function `get_config()` that gives a `TrainConfig`.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jaxstyle.config import check, did_you_mean, setting
from jaxstyle.errors import UserError

_Kind = TypeVar("_Kind")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from and how crops are taken of them.

    A source is a folder (its pictures, in subfolders too), `tfds:NAME` or `tfds:NAME/VERSION:SPLIT`
    for a prepared dataset of `tensorflow_datasets`, or several of them, separated by commas.
    """

    content: str = setting("", "photographs: a folder, tfds:NAME, or several with commas")
    style: str = setting("", "paintings: a file, a folder, tfds:NAME, or several with commas")
    held_out: str = setting("", "pictures to evaluate on and to show, never trained on")
    held_out_style: str = setting("", "paintings to evaluate with, as held_out")
    tfds_dir: str = setting("", "folder of prepared tensorflow_datasets; theirs by default")
    style_batch_size: int = setting(0, "paintings a step; 0 for as many as photographs", least=0)
    min_scale: float = setting(
        1.0, "shorter side of a picture before the crop, relative to crop_size, at least", least=0
    )
    max_scale: float = setting(1.0, "the same, at most; drawn for every crop", least=0)
    flip: bool = setting(True, "mirror half of the crops")
    threads: int = setting(2, "threads that read pictures", least=1)
    prefetch: int = setting(3, "batches made ahead of the step", least=1)

    def __post_init__(self) -> None:
        check(self)
        if not 1 <= self.min_scale <= self.max_scale:
            raise ValueError(
                "data.min_scale must be at least 1 and at most data.max_scale; got "
                f"{self.min_scale} and {self.max_scale}"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser and its learning rate.

    Raises:
        ValueError: a setting is out of range.
    """

    name: str = setting("adam", "optimiser", choices=("adam", "adamw", "sgd", "muon"))
    learning_rate: float = setting(1e-3, "learning rate, at its highest", least=0)
    schedule: str = setting(
        "constant",
        "learning rate after the warm-up",
        choices=("constant", "cosine", "linear", "inverse_time"),
    )
    warmup_steps: int = setting(0, "steps in which the learning rate grows from 0", least=0)
    final_fraction: float = setting(
        0.0, "learning rate at the end, relative to the highest; above 0 for inverse_time", least=0
    )
    b1: float = setting(0.9, "decay of the mean of gradients; momentum of sgd and muon", least=0)
    b2: float = setting(0.999, "decay of the mean of squared gradients of adam", least=0)
    weight_decay: float = setting(0.0, "decoupled weight decay of adamw and muon", least=0)
    clip_norm: float = setting(0.0, "largest norm of the gradient; 0 for no limit", least=0)

    def __post_init__(self) -> None:
        check(self)
        if self.schedule == "inverse_time" and not 0 < self.final_fraction <= 1:
            raise ValueError(
                "optimizer.final_fraction must be above 0 and at most 1 for inverse_time; got "
                f"{self.final_fraction}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run that every method shares, and those of its method in `model`.

    Raises:
        ValueError: a setting is out of range.
    """

    method: str = setting("", "what to train: the name of a module of jaxstyle.methods")
    model: Any = None  # the method's own dataclass of settings; None for its defaults
    start: str = setting(
        "", "run, or file of a model, whose parameters to start from; random if empty"
    )
    steps: int = setting(10_000, "updates of the parameters", least=1)
    batch_size: int = setting(4, "photographs a step, on all devices together", least=1)
    crop_size: int = setting(256, "side of the crops, in pixels", least=8)
    seed: int = setting(0, "seed of the random numbers", least=0)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    precision: str = setting(
        "float32", "type that networks compute in", choices=("float32", "bfloat16")
    )
    accumulate: int = setting(1, "parts that a device's batch is computed in", least=1)
    average: float = setting(
        0.0, "decay of the moving average of parameters that is used; 0 for none", least=0
    )
    checkpoint_every: int = setting(500, "steps between checkpoints", least=1)
    keep_checkpoints: int = setting(2, "latest checkpoints to keep, beside the best", least=1)
    best_metric: str = setting("loss", "held-out metric whose lowest value is the best")
    log_every: int = setting(20, "steps between lines of metrics.jsonl", least=1)
    evaluate_every: int = setting(500, "steps between evaluations; 0 for none", least=0)
    evaluate_batches: int = setting(4, "batches of an evaluation", least=1)
    sample_every: int = setting(500, "steps between pictures of samples; 0 for none", least=0)
    samples: int = setting(4, "pictures among the samples", least=1)

    def __post_init__(self) -> None:
        check(self)
        from jaxstyle import methods  # which import JAX

        kind = methods.load(self.method).Config
        if self.model is None:
            object.__setattr__(self, "model", kind())
        elif not isinstance(self.model, kind):
            raise ValueError(f"model must be the Config of {self.method}; got {self.model!r}")
        if self.average >= 1:
            raise ValueError(f"average must be below 1; got {self.average}")


# --- files, overrides, JSON ----------------------------------------------------------------------


def load_config(spec: str, *, kind: type[_Kind] = TrainConfig) -> _Kind:
    """Reads a configuration.

    Args:
        spec: the name of one that comes with jaxstyle, such as `lite`, or the path of a file that
            ends in `.py`, in a bucket too (`gs://`). The file is executed, as a program that the
            user starts would be.
        kind: what it must be: that of a training run, by default.

    Returns:
        What its `get_config()` gives.

    Raises:
        UserError: there is no such configuration, or its file is not one.
    """
    path = _find(spec, evaluation=kind is not TrainConfig)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration {path}: {error}") from error
    scope: dict[str, Any] = {"__name__": f"jaxstyle_config_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(text, str(path), "exec"), scope)
        if "get_config" not in scope:
            raise UserError(f"{path} has no function get_config()")
        config = scope["get_config"]()
    except UserError:
        raise
    except Exception as error:  # a program of the user's own: it may raise anything
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, kind):
        raise UserError(
            f"{path}: get_config() must give a {kind.__name__}; got {type(config).__name__}"
        )
    return config


def packaged_configs(*, evaluation: bool = False) -> list[str]:
    """The names of the configurations that come with jaxstyle.

    Args:
        evaluation: those of evaluations, whose names begin with `eval_`, in place of those of
            training runs.
    """
    names = sorted(file.stem for folder in _folders() for file in folder.glob("*.py"))
    return [name for name in names if name.startswith("eval_") == evaluation]


def _folders() -> list[Path]:
    """Where configurations lie: in the package when it was built, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    folders = [package / "configs", package.parent / "configs"]
    return [folder for folder in folders if folder.is_dir()][:1]


def _find(spec: str, *, evaluation: bool) -> Any:
    from etils import epath

    if spec.endswith(".py"):
        path = epath.Path(spec).expanduser()
        if path.exists():
            return path
        raise UserError(f"there is no configuration {spec}")
    for folder in _folders():
        if (folder / f"{spec}.py").is_file():
            return folder / f"{spec}.py"
    known = packaged_configs(evaluation=evaluation)
    raise UserError(
        f"there is no configuration {spec!r}{did_you_mean(spec, known)} (those that come with "
        f"jaxstyle: {', '.join(known)}; a file ends in .py)"
    )


def override(config: _Kind, settings: Sequence[str]) -> _Kind:
    """A configuration with settings replaced, as `--set` gives them.

    Args:
        config: where to start.
        settings: `name=value` or `part.name=value`, such as `optimizer.learning_rate=1e-3`; a part
            may be a key that a mapping has. The value is read as the type of what it replaces: true
            and false, numbers, text; tuples and mappings are written as in Python.

    Raises:
        UserError: an unknown name, with the nearest one, or a value that does not fit.
    """
    for item in settings:
        name, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--set expected NAME=VALUE, such as steps=100; got {item!r}")
        try:
            config = _replace(config, name.strip().split("."), text, name.strip())
        except ValueError as error:
            raise UserError(f"--set {item}: {error}") from error
    return config


def _replace(settings: Any, path: list[str], text: str, whole: str) -> Any:
    names = [entry.name for entry in dataclasses.fields(settings)]
    if path[0] not in names:
        hint = did_you_mean(path[0], names) or f" (there are {', '.join(names)})"
        raise ValueError(f"there is no setting {whole!r}{hint}")
    current = getattr(settings, path[0])
    if dataclasses.is_dataclass(current):
        if len(path) == 1:
            parts = ", ".join(f"{whole}.{entry.name}" for entry in dataclasses.fields(current))
            raise ValueError(f"{whole} has parts of its own: {parts}")
        value = _replace(current, path[1:], text, whole)
    elif isinstance(current, Mapping) and len(path) > 1:
        value = _replace_entry(current, path[1:], text, whole)
    elif len(path) > 1:
        raise ValueError(f"{path[0]} has no parts")
    else:
        value = _read(text, current)
    return dataclasses.replace(settings, **{path[0]: value})


def _replace_entry(
    entries: Mapping[str, Any], path: list[str], text: str, whole: str
) -> dict[str, Any]:
    """A mapping with one of its values replaced, or a part of it."""
    key, *rest = path
    if key not in entries:
        hint = did_you_mean(key, entries) or f" (there are {', '.join(entries)})"
        raise ValueError(f"there is no setting {whole!r}{hint}")
    current = entries[key]
    if rest and not dataclasses.is_dataclass(current):
        raise ValueError(f"{key} has no parts")
    value = _replace(current, rest, text, whole) if rest else _read(text, current)
    return {**entries, key: value}


def _read(text: str, current: Any) -> Any:
    """A value from text, of the type of the one that it replaces."""
    if isinstance(current, str):
        return text
    if isinstance(current, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("expected true or false")
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"expected a value like {current!r}") from error
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(current, tuple) and isinstance(value, list):
        return _as_tuples(value)
    if current is not None and type(value) is not type(current):
        raise ValueError(f"expected a value like {current!r}")
    return value


def to_json(config: TrainConfig) -> dict[str, Any]:
    """A configuration as plain dicts, lists, numbers and text, for a checkpoint."""
    return plain(config)


def plain(value: Any) -> Any:
    """Settings, or a value among them, as JSON has them."""
    if dataclasses.is_dataclass(value):
        names = [entry.name for entry in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def from_json(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration that `to_json` was given.

    Settings that are missing take their defaults, so that runs of older versions can be read.

    Raises:
        ValueError: an unknown method or setting, or a value out of range.
    """
    values = dict(values)
    model = values.pop("model", None)
    if model is not None:
        from jaxstyle import methods

        model = from_plain(methods.load(values.get("method", "")).Config, model)
    data = from_plain(DataConfig, values.pop("data", {}))
    optimizer = from_plain(OptimizerConfig, values.pop("optimizer", {}))
    return from_plain(TrainConfig, values, model=model, data=data, optimizer=optimizer)


def from_plain(kind: type, values: Mapping[str, Any], **parts: Any) -> Any:
    """The dataclass of settings that `plain` was given; those that are missing are the defaults.

    Args:
        kind: the dataclass.
        values: its fields, by name.
        **parts: fields that are no JSON.

    Raises:
        ValueError: an unknown setting, or a value out of range.
    """
    names = {entry.name for entry in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - names):
        raise ValueError(f"there is no setting {unknown[0]!r} in {kind.__name__}")
    return kind(**{name: _as_tuples(value) for name, value in values.items()}, **parts)


def _as_tuples(value: Any) -> Any:
    """Settings have tuples where JSON has lists, so that they can be hashed."""
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
